//! Every method checks its right, and no other, before anything else.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use jackfield_api::v1;
use jackfield_domain::principal::Right;
use jackfield_testkit::{Client, TestServer, data::principal, expect_status, fixture, on_both};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status};

use crate::steps;

/// A method of the contract, the right that its comment names, and an empty call of it.
struct Method {
    name: &'static str,
    right: &'static str,
    call: fn(Client) -> BoxFuture<'static, Result<(), Status>>,
}

macro_rules! methods {
    ($($service:ident { $($name:literal $method:ident($request:ident): $right:literal;)* })*) => {
        [$($(Method {
            name: $name,
            right: $right,
            call: |client| Box::pin(async move { client.$service().$method(v1::$request::default()).await.map(drop) }),
        },)*)*]
    };
}

const METHODS: [Method; 81] = methods! {
    admin {
        "CreateTenant" create_tenant(CreateTenantRequest): "admin";
        "GetTenant" get_tenant(GetTenantRequest): "admin";
        "ListTenants" list_tenants(ListTenantsRequest): "admin";
        "DeleteTenant" delete_tenant(DeleteTenantRequest): "admin";
        "RewrapSecrets" rewrap_secrets(RewrapSecretsRequest): "admin";
        "GetRewrap" get_rewrap(GetRewrapRequest): "admin";
        "GetServerInfo" get_server_info(GetServerInfoRequest): "admin";
    }
    applications {
        "CreateApplication" create_application(CreateApplicationRequest): "applications.write";
        "GetApplication" get_application(GetApplicationRequest): "applications.read";
        "ListApplications" list_applications(ListApplicationsRequest): "applications.read";
        "UpdateApplication" update_application(UpdateApplicationRequest): "applications.write";
        "DeleteApplication" delete_application(DeleteApplicationRequest): "applications.write";
        "SetPermissions" set_permissions(SetPermissionsRequest): "applications.write";
        "ListPermissions" list_permissions(ListPermissionsRequest): "applications.read";
        "AuthenticateApplicationUser" authenticate_application_user(AuthenticateApplicationUserRequest): "applications.authenticate";
        "GetSessionUser" get_session_user(GetSessionUserRequest): "applications.authenticate";
        "GetSessionPermissions" get_session_permissions(GetSessionPermissionsRequest): "applications.authenticate";
        "EndSession" end_session(EndSessionRequest): "applications.authenticate";
        "ListSessions" list_sessions(ListSessionsRequest): "applications.read";
    }
    configurations {
        "CreateConfiguration" create_configuration(CreateConfigurationRequest): "configurations.write";
        "GetConfiguration" get_configuration(GetConfigurationRequest): "configurations.read";
        "ListConfigurations" list_configurations(ListConfigurationsRequest): "configurations.read";
        "UpdateConfiguration" update_configuration(UpdateConfigurationRequest): "configurations.write";
        "DestroyConfiguration" destroy_configuration(DestroyConfigurationRequest): "configurations.write";
    }
    connections {
        "CreateConnection" create_connection(CreateConnectionRequest): "connections.write";
        "GetUserConnectionCredentials" get_user_connection_credentials(GetUserConnectionCredentialsRequest): "credentials.issue";
        "GetConnection" get_connection(GetConnectionRequest): "connections.read";
        "ListConnections" list_connections(ListConnectionsRequest): "connections.read";
        "UpdateConnection" update_connection(UpdateConnectionRequest): "connections.write";
        "RotateConnectionSecret" rotate_connection_secret(RotateConnectionSecretRequest): "connections.write";
        "DeleteConnection" delete_connection(DeleteConnectionRequest): "connections.write";
        "TestConnection" test_connection(TestConnectionRequest): "connections.test";
        "StartAuthorization" start_authorization(StartAuthorizationRequest): "connections.authorize";
        "CompleteAuthorization" complete_authorization(CompleteAuthorizationRequest): "connections.authorize";
        "GetAuthorization" get_authorization(GetAuthorizationRequest): "connections.authorize";
        "WatchAuthorization" watch_authorization(WatchAuthorizationRequest): "connections.authorize";
        "CancelAuthorization" cancel_authorization(CancelAuthorizationRequest): "connections.authorize";
    }
    connectors {
        "CreateConnector" create_connector(CreateConnectorRequest): "connectors.write";
        "ListConnectorEvents" list_connector_events(ListConnectorEventsRequest): "connectors.read";
        "GetConnector" get_connector(GetConnectorRequest): "connectors.read";
        "ListConnectors" list_connectors(ListConnectorsRequest): "connectors.read";
        "UpdateConnector" update_connector(UpdateConnectorRequest): "connectors.write";
        "PatchConnector" patch_connector(PatchConnectorRequest): "connectors.write";
        "DeleteConnector" delete_connector(DeleteConnectorRequest): "connectors.write";
        "AuthenticateUser" authenticate_user(AuthenticateUserRequest): "connectors.authenticate";
        "GetRoutingPolicy" get_routing_policy(GetRoutingPolicyRequest): "connectors.read";
        "ReplaceRoutingPolicy" replace_routing_policy(ReplaceRoutingPolicyRequest): "connectors.write";
        "ResolveRoute" resolve_route(ResolveRouteRequest): "connectors.read";
        "UnpinUser" unpin_user(UnpinUserRequest): "connectors.write";
        "TestConnector" test_connector(TestConnectorRequest): "connectors.test";
    }
    credentials {
        "CreateCredential" create_credential(CreateCredentialRequest): "credentials.write";
        "GetCredential" get_credential(GetCredentialRequest): "credentials.read";
        "ListCredentials" list_credentials(ListCredentialsRequest): "credentials.read";
        "UpdateCredential" update_credential(UpdateCredentialRequest): "credentials.write";
        "DeleteCredential" delete_credential(DeleteCredentialRequest): "credentials.write";
        "IssueAccessToken" issue_access_token(IssueAccessTokenRequest): "credentials.issue";
        "ExplainCredential" explain_credential(ExplainCredentialRequest): "credentials.read";
        "RefreshCredential" refresh_credential(RefreshCredentialRequest): "credentials.issue";
        "ReportTokenRejected" report_token_rejected(ReportTokenRejectedRequest): "credentials.issue";
        "RevokeCredential" revoke_credential(RevokeCredentialRequest): "credentials.write";
        "RevealCredential" reveal_credential(RevealCredentialRequest): "credentials.reveal";
    }
    keys {
        "ImportKey" import_key(ImportKeyRequest): "keys.write";
        "GenerateKey" generate_key(GenerateKeyRequest): "keys.write";
        "UpdateKey" update_key(UpdateKeyRequest): "keys.write";
        "RotateKey" rotate_key(RotateKeyRequest): "keys.write";
        "GetKey" get_key(GetKeyRequest): "keys.read";
        "ListKeys" list_keys(ListKeysRequest): "keys.read";
        "DeleteKey" delete_key(DeleteKeyRequest): "keys.write";
    }
    user_connectors {
        "AddUserConnector" add_user_connector(AddUserConnectorRequest): "user_connectors.write";
        "RemoveUserConnector" remove_user_connector(RemoveUserConnectorRequest): "user_connectors.write";
        "AuthenticateUserConnector" authenticate_user_connector(AuthenticateUserConnectorRequest): "credentials.write";
        "GetUserConnector" get_user_connector(GetUserConnectorRequest): "user_connectors.read";
        "SetCredentialSource" set_credential_source(SetCredentialSourceRequest): "credentials.write";
        "GetCredentialSource" get_credential_source(GetCredentialSourceRequest): "user_connectors.read";
        "DeleteCredentialSource" delete_credential_source(DeleteCredentialSourceRequest): "credentials.write";
        "ListUserConnectors" list_user_connectors(ListUserConnectorsRequest): "user_connectors.read";
    }
    users {
        "CreateUser" create_user(CreateUserRequest): "users.write";
        "GetUser" get_user(GetUserRequest): "users.read";
        "ListUsers" list_users(ListUsersRequest): "users.read";
        "UpdateUser" update_user(UpdateUserRequest): "users.write";
        "DeleteUser" delete_user(DeleteUserRequest): "users.write";
    }
};

/// The method in which the client sends a stream.
const SERVE: Method = Method {
    name: "ServeCredentials",
    right: "credentials.write",
    call: |client| {
        Box::pin(async move {
            let answers = futures::stream::pending::<v1::ServeCredentialsRequest>();
            client.user_connectors().serve_credentials(answers).await.map(drop)
        })
    },
};

/// The callers with only this right and with every other right.
fn names(right: Right) -> (String, String) {
    (format!("only-{}", right.as_str()), format!("all-but-{}", right.as_str()))
}

async fn server_with_principals(backend: jackfield_testkit::Backend) -> TestServer {
    TestServer::start_with(backend, |config| {
        for &right in Right::ALL {
            let (only, but) = names(right);
            let others: Vec<_> = Right::ALL.iter().filter(|it| **it != right).map(|it| it.as_str()).collect();
            config.identity.principals.push(principal(&only, "alpha", &[right.as_str()]));
            config.identity.principals.push(principal(&but, "alpha", &others));
        }
    })
    .await
}

#[test]
fn every_method_of_the_contract_is_listed() {
    let pool = DescriptorPool::decode(jackfield_api::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "jackfield.v1");
    let methods: BTreeSet<_> =
        services.flat_map(|it| it.methods().map(|it| it.name().to_owned()).collect::<Vec<_>>()).collect();
    assert_eq!(METHODS.iter().chain([&SERVE]).map(|method| method.name.to_owned()).collect::<BTreeSet<_>>(), methods);
}

on_both! {
    async fn each_method_requires_exactly_its_right(backend: Backend) {
        let server = server_with_principals(backend).await;
        for &right in Right::ALL {
            let (only, but) = names(right);
            let (only, but) = (server.client(&only), server.client(&but));
            for Method { name, right: needed, call } in METHODS.iter().chain([&SERVE]) {
                // A caller without the right learns only that, not that the request is invalid as well.
                let (allowed, denied) = if *needed == right.as_str() { (&only, &but) } else { (&but, &only) };
                let result = call(denied.clone()).await.map(tonic::Response::new);
                let refusal = expect_status(result, Code::PermissionDenied, "SCOPE_DENIED");
                assert_eq!(refusal.metadata("right"), *needed, "{name}");
                if let Err(status) = call(allowed.clone()).await {
                    assert_ne!(status.code(), Code::PermissionDenied, "{name}: {status:?}");
                }
            }
        }
    }

    /// Existing and missing resources look the same to a caller without the right.
    async fn callers_without_the_right_cannot_see_what_exists(server) {
        let (client, reader) = (server.client("alpha"), server.client("reader"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "key").await;
        let mut answers = BTreeSet::new();
        for reference in [credential.id.as_str(), "ext:none", "no reference"] {
            let reference = reference.to_owned();
            let purpose = "to look at it".to_owned();
            let reveal = v1::RevealCredentialRequest { reference: reference.clone(), purpose };
            let refusal = expect_status(
                reader.credentials().reveal_credential(reveal).await,
                Code::PermissionDenied,
                "SCOPE_DENIED",
            );
            assert_eq!(refusal.metadata("right"), "credentials.reveal");
            answers.insert((refusal.status.message().to_owned(), refusal.status.details().to_vec()));
            let issue = v1::IssueAccessTokenRequest { reference: reference.clone(), ..Default::default() };
            let refusal = expect_status(
                reader.credentials().issue_access_token(issue).await,
                Code::PermissionDenied,
                "SCOPE_DENIED",
            );
            assert_eq!(refusal.metadata("right"), "credentials.issue");
            let delete = v1::DeleteCredentialRequest { reference, allow_missing: true, ..Default::default() };
            let refusal = expect_status(
                reader.credentials().delete_credential(delete).await,
                Code::PermissionDenied,
                "SCOPE_DENIED",
            );
            assert_eq!(refusal.metadata("right"), "credentials.write");
        }
        assert_eq!(answers.len(), 1);
        let update = v1::UpdateCredentialRequest {
            reference: credential.id.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(fixture::api_key_material("another")),
            ..Default::default()
        };
        let result = reader.credentials().update_credential(update).await;
        expect_status(result, Code::PermissionDenied, "SCOPE_DENIED");
        assert_eq!(steps::credential_now(&reader, &credential.id).await, credential, "the reader may read it");
        assert_eq!(server.sql("select count(*) from audit_event").await, ["0"]);
        assert_eq!(steps::revealed(&client, &credential.id).await, fixture::api_key_material("key"));
    }
}
