//! The smallest calls, each with only the required fields.

use jackfield_api::v1;
use jackfield_api::v1::connector::Kind as Connector;
use jackfield_api::v1::credential_material::Material;
use jackfield_api::v1::patch_connector_request::Patch;
use jackfield_testkit::{Client, Identity, TestServer, fixture};

use super::Case;
use crate::refresh::world::World;
use crate::steps;

fn connector(kind: Connector) -> v1::Connector {
    v1::Connector { name: "another".to_owned(), kind: Some(kind), ..Default::default() }
}

/// One call of each method with required fields, and one of each kind of created resource.
#[expect(clippy::needless_update, reason = "some requests have only required fields")]
pub(super) async fn cases(server: &TestServer, world: &World) -> Vec<Case> {
    let alpha = server.client("alpha");
    let link = steps::linked(&alpha, "ada", "Gmail").await;
    let (connector_id, user_id) = (link.connector.clone(), link.user_id.clone());
    let authentication_url = "http://localhost:3000/api/authenticate".to_owned();
    let smallest = v1::GenericConnector { authentication_url, ..Default::default() };
    let generic = v1::Connector { kind: Some(Connector::Generic(smallest)), ..fixture::a_connector("spare") };
    let license = Connector::License(v1::LicenseConnector {
        base_url: "https://license.example.com/v1".to_owned(),
        application_id: "gallery".to_owned(),
    });
    let spare = steps::connector(&alpha, generic.clone()).await.id;
    let routed = v1::Connector { name: "routed".to_owned(), ..generic.clone() };
    let routed = steps::connector(&alpha, routed).await.id;
    steps::route(&alpha, v1::routing_rule::Target::Connector(routed)).await;
    let licensed =
        steps::connector(&alpha, v1::Connector { name: "licence".to_owned(), ..connector(license.clone()) }).await;
    let connection = v1::Connection { name: "login".to_owned(), connector: connector_id.clone(), ..Default::default() };
    let authorizing = v1::Connection {
        redirect_uris: vec!["https://app.example/back".to_owned()],
        iss_parameter_supported: Some(true),
        ..fixture::a_connection("authorizing", &connector_id)
    };
    let request = v1::CreateConnectionRequest { connection: Some(authorizing), ..Default::default() };
    let authorizing = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id;
    let state = steps::authorization(&alpha, &authorizing, "ada").await.1;
    let cancelled = steps::authorization(&alpha, &authorizing, "ada").await.0;
    let request = v1::CancelAuthorizationRequest { reference: cancelled.clone(), ..Default::default() };
    alpha.connections().cancel_authorization(request).await.unwrap();
    let request = v1::CreateConnectionRequest { connection: Some(connection.clone()), ..Default::default() };
    let login = alpha.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id;
    let credential = steps::api_key(&alpha, &link, "the key").await;
    let team = steps::configuration(&alpha, fixture::a_configuration(&credential.id, "Team A")).await.id;
    let bundle = v1::Key { name: "bundle".to_owned(), certificate_pem: server.pki().ca_pem(), ..Default::default() };
    import(&alpha, bundle.clone(), String::new()).await;
    let leaf = server.pki().client(Identity::of("alpha"));
    let identity = v1::Key { name: "mine".to_owned(), certificate_pem: leaf.certificate_pem, ..Default::default() };
    import(&alpha, identity, leaf.key_pem).await;
    let tenant = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant("gamma")), ..Default::default() };
    server.client("operator").admin().create_tenant(tenant).await.unwrap();

    let application = v1::Application { name: "gallery".to_owned(), ..Default::default() };
    let gallery = steps::application(&alpha, application.clone()).await.id;
    let session_token = steps::session(server, "alpha", &gallery, "ada").await;

    let mut cases = Vec::new();
    let everything = || fixture::mask(["*"]);
    macro_rules! case {
        ($method:literal, $request:ident { $($field:ident $(: $value:expr)?),* }) => {
            cases.push(Case::new($method, &v1::$request { $($field $(: $value)?,)* ..Default::default() }))
        };
    }
    macro_rules! named {
        ($method:literal, $request:ident, $reference:expr) => {
            case!($method, $request { reference: $reference.to_owned() })
        };
    }
    case!("CreateTenant", CreateTenantRequest { tenant: Some(fixture::a_tenant("delta")) });
    named!("GetTenant", GetTenantRequest, "name:gamma");
    named!("DeleteTenant", DeleteTenantRequest, "name:gamma");
    case!("ImportKey", ImportKeyRequest { key: Some(v1::Key { name: "another".to_owned(), ..bundle.clone() }) });
    let a_key = |name: &str| Some(v1::Key { name: name.to_owned(), ..Default::default() });
    case!("GenerateKey", GenerateKeyRequest { key: a_key("another") });
    let (reference, key) = ("name:bundle".to_owned(), Some(v1::Key { name: "another".to_owned(), ..bundle.clone() }));
    case!("UpdateKey", UpdateKeyRequest { reference, key, update_mask: everything() });
    let certificate_pem = server.pki().ca_pem();
    let imported = v1::KeyImport { certificate_pem, ..Default::default() };
    let material = Some(v1::rotate_key_request::Material::Imported(imported));
    case!("RotateKey", RotateKeyRequest { reference: "name:bundle".to_owned(), material });
    named!("GetKey", GetKeyRequest, "name:bundle");
    named!("DeleteKey", DeleteKeyRequest, "name:bundle");
    for kind in [
        generic.kind.clone().unwrap(),
        license.clone(),
        Connector::Oauth2(v1::OAuth2Connector::default()),
        Connector::ApiKey(v1::ApiKeyConnector::default()),
        Connector::HttpBasic(v1::HttpBasicConnector::default()),
    ] {
        case!("CreateConnector", CreateConnectorRequest { connector: Some(connector(kind)) });
    }
    named!("GetConnector", GetConnectorRequest, spare);
    for (reference, kind) in [(&spare, generic.kind.clone().unwrap()), (&licensed.id, license)] {
        let (reference, connector) = (reference.clone(), Some(connector(kind)));
        case!("UpdateConnector", UpdateConnectorRequest { reference, connector, update_mask: everything() });
    }
    let (operations, members) = (r#"[{"op": "test", "path": "/debug", "value": false}]"#, r#"{"debug": true}"#);
    for patch in [
        Patch::JsonPatch(v1::JsonPatch { json: operations.to_owned() }),
        Patch::MergePatch(v1::JsonMergePatch { json: members.to_owned() }),
    ] {
        case!("PatchConnector", PatchConnectorRequest { reference: spare.clone(), patch: Some(patch) });
    }
    named!("DeleteConnector", DeleteConnectorRequest, spare);
    case!("ReplaceRoutingPolicy", ReplaceRoutingPolicyRequest { routing_policy: Some(v1::RoutingPolicy::default()) });
    case!("ResolveRoute", ResolveRouteRequest { login_id: "ada@example.com".to_owned() });
    case!("UnpinUser", UnpinUserRequest { login_id: "ada".to_owned() });
    let (login_id, password) = ("ada@example.com".to_owned(), "wrong".to_owned());
    case!("AuthenticateUser", AuthenticateUserRequest { login_id, password });
    let another_application = v1::Application { name: "another".to_owned(), ..application };
    case!("CreateApplication", CreateApplicationRequest { application: Some(another_application.clone()) });
    named!("GetApplication", GetApplicationRequest, gallery);
    let (reference, application) = (gallery.clone(), Some(another_application));
    case!("UpdateApplication", UpdateApplicationRequest { reference, application, update_mask: everything() });
    let (application, company_id, user_id_) = (gallery.clone(), "acme".to_owned(), user_id.clone());
    case!("SetPermissions", SetPermissionsRequest { application, company_id, user_id: user_id_ });
    let application = || gallery.clone();
    let token = || session_token.clone();
    let (username, password) = ("ada".to_owned(), "password".to_owned());
    case!(
        "AuthenticateApplicationUser",
        AuthenticateApplicationUserRequest { application: application(), username, password }
    );
    case!("GetSessionUser", GetSessionUserRequest { application: application(), session_token: token() });
    case!("GetSessionPermissions", GetSessionPermissionsRequest { application: application(), session_token: token() });
    named!("DeleteApplication", DeleteApplicationRequest, gallery);
    let another = v1::Connection { name: "another".to_owned(), ..connection };
    case!("CreateConnection", CreateConnectionRequest { connection: Some(another.clone()) });
    named!("GetConnection", GetConnectionRequest, login);
    let (reference, connection) = (login.clone(), Some(another));
    case!("UpdateConnection", UpdateConnectionRequest { reference, connection, update_mask: everything() });
    let (reference, client_secret) = (login.clone(), "another".to_owned());
    case!("RotateConnectionSecret", RotateConnectionSecretRequest { reference, client_secret });
    // It has no endpoints, so nothing is called.
    named!("TestConnection", TestConnectionRequest, login);
    named!("DeleteConnection", DeleteConnectionRequest, login);
    let (connection, ada, error) = (authorizing, || "ada".to_owned(), "access_denied".to_owned());
    case!("StartAuthorization", StartAuthorizationRequest { connection, user_id: ada() });
    case!("CompleteAuthorization", CompleteAuthorizationRequest { user_id: ada(), state, error });
    named!("GetAuthorization", GetAuthorizationRequest, cancelled);
    named!("WatchAuthorization", WatchAuthorizationRequest, cancelled);
    named!("CancelAuthorization", CancelAuthorizationRequest, cancelled);
    case!("AddUserConnector", AddUserConnectorRequest { user_id: "eve".to_owned(), connector: connector_id.clone() });
    let (authenticated, of, key) = (user_id.to_owned(), connector_id.clone(), fixture::api_key_material("another"));
    case!(
        "AuthenticateUserConnector",
        AuthenticateUserConnectorRequest { user_id: authenticated, connector: of, material: Some(key) }
    );
    let https = v1::RemoteSource { url: "https://localhost:3000/credentials".to_owned(), ..Default::default() };
    let endpoint = Some(v1::credential_source::Endpoint::Https(https));
    let source = Some(v1::CredentialSource { tenant_wide: true, endpoint, ..Default::default() });
    case!("SetCredentialSource", SetCredentialSourceRequest { source });
    let (client_id, client_secret) = ("client".to_owned(), "of the client".to_owned());
    for material in [
        Material::Oauth2(v1::OAuth2Material::default()),
        Material::ApiKey(v1::ApiKeyMaterial { api_key: "another".to_owned() }),
        Material::ClientCredentials(v1::ClientCredentialsMaterial { client_id, client_secret }),
        Material::ClientCertificate(v1::ClientCertificateMaterial { key: "name:mine".to_owned() }),
        Material::Custom(v1::CustomMaterial { fields: fixture::strings([("field", "value")]) }),
    ] {
        let credential = Some(fixture::a_credential(&user_id, &connector_id));
        let material = Some(v1::CredentialMaterial { material: Some(material) });
        case!("CreateCredential", CreateCredentialRequest { credential, material });
    }
    named!("GetCredential", GetCredentialRequest, credential.id);
    let (reference, facts) = (credential.id.clone(), Some(fixture::a_credential(&user_id, &connector_id)));
    let (credential_id, material) = (credential.id.clone(), Some(fixture::api_key_material("another")));
    case!(
        "UpdateCredential",
        UpdateCredentialRequest { reference, credential: facts, material, update_mask: everything() }
    );
    named!("DeleteCredential", DeleteCredentialRequest, credential_id);
    let (reference, purpose) = (credential_id.clone(), "a look in a test".to_owned());
    let granted = world.good("ada").await.credential;
    let connection = world.connection.id.clone();
    case!(
        "GetUserConnectionCredentials",
        GetUserConnectionCredentialsRequest { connection, user_id: "ada".to_owned() }
    );
    named!("ExplainCredential", ExplainCredentialRequest, granted);
    case!("RefreshCredential", RefreshCredentialRequest { reference: granted.clone() });
    let revoked = world.good("ada").await.credential;
    named!("RevokeCredential", RevokeCredentialRequest, revoked);
    case!("ReportTokenRejected", ReportTokenRejectedRequest { reference: granted, credential_version: 1 });
    case!("RevealCredential", RevealCredentialRequest { reference, purpose });
    let hangs = Some(v1::Configuration { credential: credential_id.clone(), ..Default::default() });
    case!("CreateConfiguration", CreateConfigurationRequest { configuration: hangs.clone() });
    let (reference, configuration) = (team.clone(), hangs);
    case!("UpdateConfiguration", UpdateConfigurationRequest { reference, configuration, update_mask: everything() });
    case!("DestroyConfiguration", DestroyConfigurationRequest { reference: team, credential: credential_id });
    let by_name = v1::User { username: Some("another".to_owned()), ..Default::default() };
    let spare = steps::user(&alpha, fixture::a_user("spare")).await.id;
    for user in [
        by_name.clone(),
        v1::User { email: Some("another@example.com".to_owned()), ..Default::default() },
        v1::User { phone_number: Some("+491701234567".to_owned()), ..Default::default() },
    ] {
        case!("CreateUser", CreateUserRequest { user: Some(user) });
    }
    named!("GetUser", GetUserRequest, spare);
    let (reference, user) = (spare.clone(), Some(by_name));
    case!("UpdateUser", UpdateUserRequest { reference, user, update_mask: everything() });
    named!("DeleteUser", DeleteUserRequest, spare);
    cases
}

async fn import(client: &Client, key: v1::Key, private_key_pem: String) {
    let request = v1::ImportKeyRequest { key: Some(key), private_key_pem, ..Default::default() };
    client.keys().import_key(request).await.expect("a key");
}
