//! Every text field of every request, filled with a value of another tenant: the answer is byte for byte the same as
//! for an unused value.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_api::v1;
use jackfield_domain::ConnectorId;
use jackfield_domain::connector::ConnectorEvent;
use jackfield_testkit::{Backend, Client, Identity, TestServer, fixture, on_both};
use prost::Message;
use prost_reflect::DynamicMessage;

use super::texts::{set, text_paths};
use super::wire::{Names, Wire};
use crate::steps;

on_both! {
    async fn values_of_another_tenant_look_unused(backend: Backend) {
        compared(backend, Half::First).await;
    }

    async fn values_of_another_tenant_look_unused_in_the_other_methods(backend: Backend) {
        compared(backend, Half::Second).await;
    }
}

/// Half of the methods, because all of them take long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

fn half_of(method: &str) -> Half {
    if method.bytes().map(u64::from).sum::<u64>().is_multiple_of(2) { Half::First } else { Half::Second }
}

async fn compared(backend: Backend, half: Half) {
    // There are more log-ins here than are permitted.
    let server = TestServer::start_with(backend, |config| {
        config.login.attempts_per_user = 0;
    })
    .await;
    let wire = Wire::new();
    let alpha = server.client("alpha");
    let own = Things::create(&server, &alpha, "alpha").await;
    let foreign = Things::create(&server, &server.client("beta"), "beta").await;
    let bases = bases(&own);
    let covered: BTreeSet<_> = bases.keys().copied().collect();
    let all: BTreeSet<_> = wire.methods().map(|method| method.name()).collect();
    assert_eq!(covered, all, "every method of every service of tenants");

    let (mut cases, mut answered) = (0, 0);
    for method in wire.methods().filter(|method| half == half_of(method.name())) {
        let base = DynamicMessage::decode(method.input(), bases[method.name()].as_slice()).unwrap();
        let outcome = wire.call_encoded(&alpha, method.name(), base.encode_to_vec()).await;
        // An API key cannot be refreshed, which is said of a credential that was found.
        let found = method.name() == "RefreshCredential" && outcome.value["reason"] == "REAUTH_REQUIRED";
        assert!(outcome.answered || found, "{} must be answered unchanged: {outcome:?}", method.name());

        for path in text_paths(&base, &method.input()) {
            for (form, theirs, unused) in foreign.references() {
                let with = |text: &str| {
                    let mut request = base.clone();
                    set(&mut request, &path, text);
                    request.encode_to_vec()
                };
                let theirs_answer = wire.call_encoded(&alpha, method.name(), with(&theirs)).await;
                let unused_answer = wire.call_encoded(&alpha, method.name(), with(&unused)).await;
                cases += 1;
                answered += usize::from(theirs_answer.answered);
                assert_eq!(
                    even(&theirs_answer.value, &theirs),
                    even(&unused_answer.value, &unused),
                    "{} {path:?} {form}",
                    method.name()
                );
            }
        }
    }
    assert!(cases > 1_000 && answered > cases / 20 && answered < cases / 2, "{answered} of {cases} were answered");

    // None of the calls changed the other tenant's resources.
    let again = foreign.read(&wire).await;
    assert_eq!(again, foreign.before);
}

/// The resources of a tenant: one of each kind.
struct Things {
    tenant: String,
    client: Client,
    bundle: String,
    key: String,
    identity: String,
    connector: String,
    connection: String,
    link: String,
    credential: String,
    configuration: String,
    user: String,
    application: String,
    session: String,
    session_token: String,
    /// An authorisation that was cancelled.
    authorization: String,
    /// The state of one that was not.
    state: String,
    token: String,
    before: Vec<serde_json::Value>,
}

impl Things {
    async fn create(server: &TestServer, client: &Client, tenant: &str) -> Self {
        let import = async |name: String, certificate_pem: String, private_key_pem: String| {
            let key = Some(v1::Key { name, certificate_pem, ..Default::default() });
            let request = v1::ImportKeyRequest { key, private_key_pem, ..Default::default() };
            client.keys().import_key(request).await.unwrap().into_inner().key.unwrap().id
        };
        let key = import(format!("key of {tenant}"), server.pki().ca_pem(), String::new()).await;
        let leaf = server.pki().client(Identity::of("anyone"));
        let identity = import(format!("identity of {tenant}"), leaf.certificate_pem, leaf.key_pem).await;
        let connector = v1::Connector {
            trust_bundle_key: Some(key.clone()),
            ..fixture::a_connector(&format!("connector of {tenant}"))
        };
        let connector = steps::connector(client, connector).await.id;
        steps::route(client, v1::routing_rule::Target::Connector(connector.clone())).await;
        let login_id = format!("user of {tenant}");
        steps::event(server, tenant, ConnectorEvent { login_id, ..steps::an_event(&connector) }).await;
        let connection = v1::Connection {
            external_id: Some(format!("connection-of-{tenant}")),
            redirect_uris: vec!["https://app.example/back".to_owned()],
            iss_parameter_supported: Some(true),
            ..fixture::a_connection(&format!("connection of {tenant}"), &connector)
        };
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let connection = client.connections().create_connection(request).await.unwrap().into_inner();
        let connection = connection.connection.unwrap().id;
        let user = format!("user of {tenant}");
        let authorization = steps::authorization(client, &connection, &user).await.0;
        let request = v1::CancelAuthorizationRequest { reference: authorization.clone(), ..Default::default() };
        client.connections().cancel_authorization(request).await.unwrap();
        let state = steps::authorization(client, &connection, &user).await.1;
        let link = steps::link(client, &user, &connector).await.id;
        steps::source(client, fixture::a_stream_source(&user)).await;
        let facts = v1::Credential {
            external_id: Some(format!("credential of {tenant}")),
            connection: connection.clone(),
            ..fixture::a_credential(&user, &connector)
        };
        let credential = steps::credential(client, facts, fixture::api_key_material("key")).await.id;
        // Its first token can be reported, and there is a newer one.
        let request = v1::UpdateCredentialRequest {
            reference: credential.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(fixture::api_key_material("newer key")),
            ..Default::default()
        };
        client.credentials().update_credential(request).await.unwrap();
        let configuration = fixture::a_configuration(&credential, &format!("configuration of {tenant}"));
        let configuration = steps::configuration(client, configuration).await.id;
        let account = v1::User {
            user_id: format!("account of {tenant}"),
            email: Some(format!("ada@{tenant}.example")),
            ..fixture::a_user(&format!("ada of {tenant}"))
        };
        let account = steps::user(client, account).await.id;
        let application = v1::Application {
            external_id: Some(format!("application of {tenant}")),
            ..fixture::an_application(&format!("application of {tenant}"))
        };
        let application = steps::application(client, application).await.id;
        steps::permit(client, &application, &format!("company of {tenant}"), &user, &["use_app"]).await;
        let session_token = steps::session(server, tenant, &application, &user).await;
        let sessions =
            jackfield_testkit::List::Sessions.rows(client, &jackfield_testkit::Ask::default()).await.unwrap();
        let session = sessions[0].id.clone();
        let pages = jackfield_testkit::List::Keys.pages(client, &jackfield_testkit::Ask::pages_of(1)).await.unwrap();
        let token = pages[0].next_page_token.clone();
        let (tenant, client, bundle) = (tenant.to_owned(), client.clone(), server.pki().ca_pem());
        let mut things = Things {
            tenant,
            client,
            bundle,
            key,
            identity,
            connector,
            connection,
            link,
            credential,
            configuration,
            user: account,
            application,
            session,
            session_token,
            authorization,
            state,
            token,
            before: Vec::new(),
        };
        things.before = things.read(&Wire::new()).await;
        things
    }

    /// Reads everything that it has.
    async fn read(&self, wire: &Wire) -> Vec<serde_json::Value> {
        let lists = [
            "ListKeys",
            "ListConnectors",
            "ListConnectorEvents",
            "ListConnections",
            "ListUserConnectors",
            "ListCredentials",
            "ListConfigurations",
            "ListUsers",
            "ListApplications",
            "ListPermissions",
            "ListSessions",
        ];
        let mut all = Vec::new();
        for list in lists {
            all.push(wire.call_encoded(&self.client, list, Vec::new()).await.value);
        }
        all
    }

    /// Ways to name its resources, each with a reference of the same form that names nothing.
    fn references(&self) -> Vec<(&'static str, String, String)> {
        let Things { tenant, key, connector, connection, link, credential, configuration, user, token, .. } = self;
        let Things { application, session, session_token, authorization, state, .. } = self;
        let absent = "absent".chars().take(tenant.len()).collect::<String>();
        let ids =
            [key, connector, connection, link, credential, configuration, user, application, session, authorization];
        let mut all: Vec<_> =
            ids.into_iter().map(|id| ("id", id.clone(), ConnectorId::generate().to_string())).collect();
        let text = |form: &'static str, text: &str| (form, text.replace("{}", tenant), text.replace("{}", &absent));
        all.extend([
            text("name", "name:key of {}"),
            text("name", "name:connector of {}"),
            text("name", "name:connection of {}"),
            text("external id", "ext:connection-of-{}"),
            text("external id", "ext:credential of {}"),
            text("external id", "ext:configuration of {}"),
            text("bare name", "connector of {}"),
            text("bare external id", "configuration of {}"),
            text("name", "name:application of {}"),
            text("external id", "ext:application of {}"),
            text("company", "company of {}"),
            text("user", "user of {}"),
            text("external id", "ext:account of {}"),
            text("username", "ada of {}"),
            text("email", "ada@{}.example"),
            ("filter", format!("id = {connector}"), format!("id = {}", ConnectorId::generate())),
            ("filter", format!("NOT id = {credential}"), format!("NOT id = {}", ConnectorId::generate())),
            ("filter", format!("connector = {connector}"), format!("connector = {}", ConnectorId::generate())),
            ("state", state.clone(), like(state, 'a')),
            ("session token", session_token.clone(), like(session_token, 'a')),
            ("token", token.clone(), like(token, 'A')),
        ]);
        all
    }
}

/// Another text with the same signs: in a filter, one that begins with "-" is a negation.
fn like(text: &str, letter: char) -> String {
    text.chars().map(|it| if it.is_ascii_alphanumeric() { letter } else { it }).collect()
}

/// A request of every method that is answered unchanged. None of them changes anything.
fn bases(own: &Things) -> BTreeMap<&'static str, Vec<u8>> {
    let Things {
        tenant,
        bundle,
        key,
        identity,
        connector,
        connection,
        link,
        credential,
        configuration,
        user: account,
        application,
        session_token,
        authorization,
        state,
        ..
    } = own;
    let user = format!("user of {tenant}");
    let facts = v1::Credential { connection: connection.clone(), ..fixture::a_credential(&user, connector) };
    let a_key = v1::Key { name: "new".to_owned(), certificate_pem: bundle.clone(), ..Default::default() };
    let generation = v1::KeyGeneration {
        issue: v1::CertificateIssue::SigningRequest.into(),
        common_name: "new".to_owned(),
        ..Default::default()
    };
    let imported = v1::KeyImport { certificate_pem: bundle.clone(), ..Default::default() };
    let named_key = v1::Key { name: "new".to_owned(), ..Default::default() };
    let rule = v1::RoutingRule {
        email_domains: vec!["example.com".to_owned()],
        target: Some(v1::routing_rule::Target::Connector(connector.clone())),
    };
    let routing_policy = v1::RoutingPolicy { rules: vec![rule], ..Default::default() };
    let mut bases = BTreeMap::new();
    macro_rules! base {
        ($($method:literal: $request:ident { $($field:ident: $value:expr),* $(,)? })*) => {$(
            #[allow(clippy::needless_update, reason = "some requests have no other fields")]
            let request = v1::$request { $($field: $value,)* ..Default::default() };
            bases.insert($method, request.encode_to_vec());
        )*};
    }
    base! {
        "ImportKey": ImportKeyRequest { key: Some(a_key), validate_only: true }
        "GenerateKey": GenerateKeyRequest {
            key: Some(named_key.clone()),
            generation: Some(generation),
            validate_only: true,
        }
        "UpdateKey": UpdateKeyRequest { reference: key.clone(), key: Some(named_key), validate_only: true }
        "RotateKey": RotateKeyRequest {
            reference: key.clone(),
            material: Some(v1::rotate_key_request::Material::Imported(imported)),
            validate_only: true,
        }
        "GetKey": GetKeyRequest { reference: identity.clone() }
        "ListKeys": ListKeysRequest {}
        "DeleteKey": DeleteKeyRequest { reference: identity.clone(), validate_only: true }
        "CreateConnector": CreateConnectorRequest {
            connector: Some(v1::Connector { data: None, ..fixture::a_connector("new") }),
            validate_only: true,
        }
        "GetConnector": GetConnectorRequest { reference: connector.clone() }
        "ListConnectors": ListConnectorsRequest {}
        "ListConnectorEvents": ListConnectorEventsRequest {}
        "UpdateConnector": UpdateConnectorRequest {
            reference: connector.clone(),
            connector: Some(fixture::a_connector("new")),
            validate_only: true,
        }
        "PatchConnector": PatchConnectorRequest {
            reference: connector.clone(),
            patch: Some(v1::patch_connector_request::Patch::MergePatch(v1::JsonMergePatch { json: "{}".to_owned() })),
            validate_only: true,
        }
        "DeleteConnector": DeleteConnectorRequest { reference: connector.clone(), cascade: true, validate_only: true }
        "AuthenticateUser": AuthenticateUserRequest {
            connector: connector.clone(),
            login_id: "new".to_owned(),
            password: "new".to_owned(),
        }
        "GetRoutingPolicy": GetRoutingPolicyRequest {}
        "ReplaceRoutingPolicy": ReplaceRoutingPolicyRequest { routing_policy: Some(routing_policy), validate_only: true }
        "ResolveRoute": ResolveRouteRequest { login_id: "new@example.com".to_owned() }
        "UnpinUser": UnpinUserRequest { login_id: "new".to_owned(), validate_only: true }
        "TestConnector": TestConnectorRequest {
            definition: Some(v1::test_connector_request::Definition::Reference(connector.clone())),
            login_id: "new".to_owned(),
            password: "new".to_owned(),
        }
        "CreateConnection": CreateConnectionRequest {
            connection: Some(fixture::a_connection("new", connector)),
            validate_only: true,
        }
        "GetConnection": GetConnectionRequest { reference: connection.clone() }
        "ListConnections": ListConnectionsRequest {}
        "UpdateConnection": UpdateConnectionRequest {
            reference: connection.clone(),
            connection: Some(fixture::a_connection("new", connector)),
            validate_only: true,
        }
        "RotateConnectionSecret": RotateConnectionSecretRequest {
            reference: connection.clone(), client_secret: "new".to_owned(), secret_id: "new".to_owned(), validate_only: true,
        }
        "TestConnection": TestConnectionRequest { reference: connection.clone() }
        "DeleteConnection": DeleteConnectionRequest { reference: connection.clone(), cascade: true, validate_only: true }
        // Of a user of their own: the open sessions of one are limited.
        "StartAuthorization": StartAuthorizationRequest { connection: connection.clone(), user_id: format!("{user}, too") }
        "CompleteAuthorization": CompleteAuthorizationRequest {
            user_id: user.clone(), state: state.clone(), error: "access_denied".to_owned(),
        }
        "GetAuthorization": GetAuthorizationRequest { reference: authorization.clone() }
        "WatchAuthorization": WatchAuthorizationRequest { reference: authorization.clone() }
        "CancelAuthorization": CancelAuthorizationRequest { reference: authorization.clone(), validate_only: true }
        "AddUserConnector": AddUserConnectorRequest {
            user_id: "new".to_owned(), connector: connector.clone(), validate_only: true,
        }
        "RemoveUserConnector": RemoveUserConnectorRequest { reference: link.clone(), validate_only: true }
        "AuthenticateUserConnector": AuthenticateUserConnectorRequest {
            user_id: user.clone(), connector: connector.clone(),
            material: Some(fixture::api_key_material("new")), validate_only: true,
        }
        "GetUserConnector": GetUserConnectorRequest { user_id: user.clone(), connector: connector.clone() }
        "SetCredentialSource": SetCredentialSourceRequest { source: Some(fixture::a_stream_source(&user)), validate_only: true }
        "GetCredentialSource": GetCredentialSourceRequest { user_id: user.clone() }
        "DeleteCredentialSource": DeleteCredentialSourceRequest { user_id: user.clone(), validate_only: true }
        "ListUserConnectors": ListUserConnectorsRequest {}
        "CreateCredential": CreateCredentialRequest {
            credential: Some(facts),
            material: Some(fixture::api_key_material("new")),
            validate_only: true,
        }
        "GetCredential": GetCredentialRequest { reference: credential.clone() }
        "ListCredentials": ListCredentialsRequest {}
        "UpdateCredential": UpdateCredentialRequest {
            reference: credential.clone(),
            credential: Some(v1::Credential { provider_account_id: Some("new".to_owned()), ..Default::default() }),
            validate_only: true,
        }
        "DeleteCredential": DeleteCredentialRequest { reference: credential.clone(), validate_only: true }
        "RevokeCredential": RevokeCredentialRequest { reference: credential.clone(), validate_only: true }
        "IssueAccessToken": IssueAccessTokenRequest { user_id: user.clone(), connector: connector.clone() }
        "GetUserConnectionCredentials": GetUserConnectionCredentialsRequest {
            connection: connection.clone(), user_id: user.clone(),
        }
        "ExplainCredential": ExplainCredentialRequest { reference: credential.clone() }
        "RefreshCredential": RefreshCredentialRequest { reference: credential.clone() }
        "ReportTokenRejected": ReportTokenRejectedRequest { reference: credential.clone(), credential_version: 1 }
        "RevealCredential": RevealCredentialRequest {
            reference: credential.clone(),
            purpose: "to compare answers".to_owned(),
        }
        "CreateApplication": CreateApplicationRequest {
            application: Some(fixture::an_application("new")),
            validate_only: true,
        }
        "GetApplication": GetApplicationRequest { reference: application.clone() }
        "ListApplications": ListApplicationsRequest {}
        "UpdateApplication": UpdateApplicationRequest {
            reference: application.clone(),
            application: Some(fixture::an_application("new")),
            validate_only: true,
        }
        "DeleteApplication": DeleteApplicationRequest { reference: application.clone(), validate_only: true }
        "SetPermissions": SetPermissionsRequest {
            application: application.clone(),
            company_id: "new".to_owned(),
            user_id: user.clone(),
            permissions: vec!["use_app".to_owned()],
            validate_only: true,
        }
        "ListPermissions": ListPermissionsRequest {}
        "AuthenticateApplicationUser": AuthenticateApplicationUserRequest {
            application: application.clone(),
            username: user.clone(),
            password: "a password".to_owned(),
        }
        "GetSessionUser": GetSessionUserRequest {
            application: application.clone(), session_token: session_token.clone(),
        }
        "GetSessionPermissions": GetSessionPermissionsRequest {
            application: application.clone(), session_token: session_token.clone(),
        }
        "EndSession": EndSessionRequest {
            application: application.clone(), session_token: session_token.clone(),
            validate_only: true,
        }
        "ListSessions": ListSessionsRequest {}
        "CreateConfiguration": CreateConfigurationRequest {
            configuration: Some(fixture::a_configuration(credential, "new")),
            validate_only: true,
        }
        "GetConfiguration": GetConfigurationRequest { reference: configuration.clone(), credential: credential.clone() }
        "ListConfigurations": ListConfigurationsRequest {}
        "UpdateConfiguration": UpdateConfigurationRequest {
            reference: configuration.clone(), credential: credential.clone(),
            configuration: Some(v1::Configuration { external_id: Some("new".to_owned()), ..Default::default() }),
            validate_only: true,
        }
        "DestroyConfiguration": DestroyConfigurationRequest {
            reference: configuration.clone(), credential: credential.clone(),
            validate_only: true,
        }
        "CreateUser": CreateUserRequest { user: Some(fixture::a_user("new")), validate_only: true }
        "GetUser": GetUserRequest { reference: account.clone() }
        "ListUsers": ListUsersRequest {}
        "UpdateUser": UpdateUserRequest {
            reference: account.clone(),
            user: Some(v1::User { first_name: Some("new".to_owned()), ..Default::default() }),
            validate_only: true,
        }
        "DeleteUser": DeleteUserRequest { reference: account.clone(), validate_only: true }
    }
    bases
}

/// An answer without generated values and without the value that was sent.
fn even(answer: &serde_json::Value, asked: &str) -> String {
    let bare = asked.rsplit(['=', ':']).next().unwrap().trim();
    let mut names = Names::default();
    names.name(bare, "asked".to_owned());
    let text = names.even_out(answer).to_string();
    text.replace(asked, "asked").replace(bare, "asked")
}
