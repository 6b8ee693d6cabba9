//! The calls of a program: numbers become requests.

use jackfield_api::v1;
use jackfield_testkit::fixture;

use super::logins::{LOGINS, PASSWORD};
use super::program::{CHOSEN, EXTERNAL, LISTS, NAMES, Player, QUESTIONS, REQUESTS, USERS};
use super::wire::{Outcome, Wire};

impl Player {
    pub(super) async fn call(&self, wire: &Wire, method: &str, [a, b, c, d, e]: [usize; 5], other: &Player) -> Outcome {
        let name = || NAMES[a % NAMES.len()].to_owned();
        let user_id = || USERS[a % USERS.len()].to_owned();
        let external_id = || if b % 2 == 0 { String::new() } else { EXTERNAL[b / 2 % EXTERNAL.len()].to_owned() };
        let id = || if c % 4 == 0 { CHOSEN[c / 4 % CHOSEN.len()].to_owned() } else { String::new() };
        let request_id = || if d % 6 == 0 { REQUESTS[d / 6 % REQUESTS.len()].to_owned() } else { String::new() };
        let validate_only = d % 7 == 0;
        let (allow_missing, cascade) = (d % 2 == 0, d % 3 == 0);
        // A repeated request must have the same body with and without the other tenant, so it names nothing of the
        // other.
        let own_only = |number: usize| if d % 6 == 0 { number - number % 10 + number % 10 % 8 } else { number };
        let pick = |kind, number| self.pick(kind, own_only(number), other);
        let defaults = || (request_id(), validate_only);
        let client = &self.client;
        match method {
            "ImportKey" => {
                let key = v1::Key { name: name(), certificate_pem: self.bundle.clone(), ..Default::default() };
                let (key, (request_id, validate_only)) = (Some(key), defaults());
                let request = v1::ImportKeyRequest { key, id: id(), request_id, validate_only, ..Default::default() };
                wire.call(client, method, &request).await
            }
            "GenerateKey" => {
                let issue = v1::CertificateIssue::SigningRequest.into();
                let generation = Some(v1::KeyGeneration { issue, ..Default::default() });
                let key = Some(v1::Key { name: name(), ..Default::default() });
                let (request_id, validate_only) = defaults();
                let request = v1::GenerateKeyRequest { key, generation, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "UpdateKey" => {
                let key = Some(v1::Key { name: name(), ..Default::default() });
                let (reference, (request_id, validate_only)) = (pick("key", e), defaults());
                let request = v1::UpdateKeyRequest { reference, key, request_id, validate_only, ..Default::default() };
                wire.call(client, method, &request).await
            }
            "RotateKey" => {
                let imported = v1::KeyImport { certificate_pem: self.bundle.clone(), ..Default::default() };
                let activate_time = (b % 2 == 0).then_some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
                let (request_id, validate_only) = defaults();
                let request = v1::RotateKeyRequest {
                    reference: pick("key", a),
                    material: Some(v1::rotate_key_request::Material::Imported(imported)),
                    activate_time,
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "GetKey" => wire.call(client, method, &v1::GetKeyRequest { reference: pick("key", a) }).await,
            "DeleteKey" => {
                let (request_id, validate_only) = defaults();
                let etag = String::new();
                let reference = pick("key", a);
                let request = v1::DeleteKeyRequest { reference, etag, allow_missing, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "CreateConnector" => {
                let mut connector = self.connector(&name());
                if b % 3 == 0 {
                    connector.trust_bundle_key = Some(pick("key", e));
                }
                if let Some(v1::connector::Kind::Generic(generic)) = &mut connector.kind {
                    generic.migrate_users = Some(b % 5 == 0);
                }
                let connector = Some(connector);
                let (request_id, validate_only) = defaults();
                let request = v1::CreateConnectorRequest { connector, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "GetConnector" => {
                wire.call(client, method, &v1::GetConnectorRequest { reference: pick("connector", a) }).await
            }
            "UpdateConnector" => {
                let connector = v1::Connector {
                    name: if b % 2 == 0 { name() } else { String::new() },
                    trust_bundle_key: (b % 3 == 0).then(|| pick("key", c)),
                    enabled: Some(b % 5 != 0),
                    ..Default::default()
                };
                let (request_id, validate_only) = defaults();
                let request = v1::UpdateConnectorRequest {
                    reference: pick("connector", e),
                    connector: Some(connector),
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "PatchConnector" => {
                let (request_id, validate_only) = defaults();
                let (test, value) = (pick("key", c), pick("key", d));
                let json = serde_json::json!([
                    { "op": "test", "path": "/enabled", "value": b % 2 == 0 },
                    { "op": if b % 3 == 0 { "test" } else { "add" }, "path": "/trustBundleKey", "value": test },
                    { "op": "add", "path": "/trustBundleKey", "value": value },
                ])
                .to_string();
                let patch = Some(v1::patch_connector_request::Patch::JsonPatch(v1::JsonPatch { json }));
                let (reference, etag) = (pick("connector", e), String::new());
                let request = v1::PatchConnectorRequest { reference, patch, etag, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "DeleteConnector" => {
                let (request_id, validate_only) = defaults();
                let reference = pick("connector", a);
                let etag = String::new();
                let request =
                    v1::DeleteConnectorRequest { reference, etag, allow_missing, cascade, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "CreateConnection" => {
                let connection = v1::Connection {
                    external_id: Some(external_id()),
                    // Nothing is called: without a URL as its issuer, it has no discovery document.
                    token_url: None,
                    issuer_url: Some("issuer".to_owned()),
                    redirect_uris: vec!["https://app.example/back".to_owned()],
                    iss_parameter_supported: Some(true),
                    ..fixture::a_connection(&name(), &pick("connector", e))
                };
                let (request_id, validate_only) = defaults();
                let connection = Some(connection);
                let request = v1::CreateConnectionRequest { connection, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "GetConnection" => {
                wire.call(client, method, &v1::GetConnectionRequest { reference: pick("connection", a) }).await
            }
            "UpdateConnection" => {
                let connection = v1::Connection {
                    name: if c % 2 == 0 { name() } else { String::new() },
                    external_id: Some(external_id()),
                    connector: if c % 5 == 0 { pick("connector", c) } else { String::new() },
                    ..Default::default()
                };
                let (request_id, validate_only) = defaults();
                let request = v1::UpdateConnectionRequest {
                    reference: pick("connection", e),
                    connection: Some(connection),
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "DeleteConnection" => {
                let (request_id, validate_only) = defaults();
                let reference = pick("connection", a);
                let etag = String::new();
                let request =
                    v1::DeleteConnectionRequest { reference, etag, allow_missing, cascade, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "RotateConnectionSecret" => {
                let (reference, (request_id, validate_only)) = (pick("connection", a), defaults());
                // An id that was made would be another one in each run.
                let (client_secret, secret_id) = ("another".to_owned(), format!("secret-{}", b % 3));
                let etag = String::new();
                let request = v1::RotateConnectionSecretRequest {
                    reference,
                    client_secret,
                    secret_id,
                    etag,
                    request_id,
                    validate_only,
                };
                wire.call(client, method, &request).await
            }
            "TestConnection" => {
                let request = v1::TestConnectionRequest { reference: pick("connection", a) };
                wire.call(client, method, &request).await
            }
            "StartAuthorization"
            | "CompleteAuthorization"
            | "GetAuthorization"
            | "WatchAuthorization"
            | "CancelAuthorization" => self.authorize(wire, method, [a, b, c, d, e], other).await,
            "SetCredentialSource" | "GetCredentialSource" | "DeleteCredentialSource" => {
                self.source(wire, method, [a, b, c, d, e]).await
            }
            "AddUserConnector" => {
                let (request_id, validate_only) = defaults();
                let connector = pick("connector", b);
                let request =
                    v1::AddUserConnectorRequest { user_id: user_id(), connector, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "RemoveUserConnector" => {
                let (request_id, validate_only) = defaults();
                let (reference, user_id, connector) = if c % 2 == 0 {
                    (pick("user_connector", b), String::new(), String::new())
                } else {
                    (String::new(), user_id(), pick("connector", b))
                };
                let etag = String::new();
                let request =
                    v1::RemoveUserConnectorRequest { reference, user_id, connector, etag, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "AuthenticateUserConnector" => {
                let (request_id, validate_only) = defaults();
                let (user_id, connector) = (user_id(), pick("connector", b));
                let material = Some(fixture::api_key_material(&format!("authenticated {a}")));
                let request = v1::AuthenticateUserConnectorRequest {
                    user_id,
                    connector,
                    material,
                    request_id,
                    validate_only,
                    use_source: false,
                };
                wire.call(client, method, &request).await
            }
            "GetUserConnector" => {
                let (reference, user_id, connector) = if c % 2 == 0 {
                    (pick("user_connector", b), String::new(), String::new())
                } else {
                    (String::new(), user_id(), pick("connector", b))
                };
                wire.call(client, method, &v1::GetUserConnectorRequest { reference, user_id, connector }).await
            }
            "CreateCredential" => {
                let credential = v1::Credential {
                    external_id: Some(external_id()),
                    connection: if c % 3 == 0 { pick("connection", c) } else { String::new() },
                    ..fixture::a_credential(&user_id(), &pick("connector", e))
                };
                let (request_id, validate_only) = defaults();
                let request = v1::CreateCredentialRequest {
                    credential: Some(credential),
                    material: Some(fixture::api_key_material(&format!("key {a} {b}"))),
                    id: id(),
                    request_id,
                    validate_only,
                };
                wire.call(client, method, &request).await
            }
            "GetCredential" => {
                wire.call(client, method, &v1::GetCredentialRequest { reference: pick("credential", a) }).await
            }
            "UpdateCredential" => {
                let credential = v1::Credential {
                    external_id: Some(external_id()),
                    is_default: (c % 2 == 0).then_some(true),
                    provider_account_id: Some(format!("account {}", c % 3)),
                    ..Default::default()
                };
                let (request_id, validate_only) = defaults();
                let request = v1::UpdateCredentialRequest {
                    reference: pick("credential", e),
                    credential: Some(credential),
                    material: (a % 2 == 0).then(|| fixture::api_key_material(&format!("other key {a}"))),
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "DeleteCredential" => {
                let (request_id, validate_only) = defaults();
                let (reference, etag) = (pick("credential", a), String::new());
                let request = v1::DeleteCredentialRequest { reference, etag, allow_missing, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "IssueAccessToken" => {
                let mut request = v1::IssueAccessTokenRequest::default();
                if b % 2 == 0 {
                    request.reference = pick("credential", a);
                } else {
                    (request.user_id, request.connector) = (user_id(), pick("connector", e));
                }
                wire.call(client, method, &request).await
            }
            "GetUserConnectionCredentials" => {
                let (connection, user_id) = (pick("connection", a), user_id());
                let request = v1::GetUserConnectionCredentialsRequest { connection, user_id, ..Default::default() };
                wire.call(client, method, &request).await
            }
            "ExplainCredential" => {
                wire.call(client, method, &v1::ExplainCredentialRequest { reference: pick("credential", a) }).await
            }
            "RefreshCredential" => {
                wire.call(client, method, &v1::RefreshCredentialRequest { reference: pick("credential", a) }).await
            }
            "RevokeCredential" => {
                let (reference, (request_id, validate_only)) = (pick("credential", a), defaults());
                let request = v1::RevokeCredentialRequest { reference, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "ReportTokenRejected" => {
                let (reference, credential_version) = (pick("credential", a), 1 + (b % 2) as i64);
                let status = [0, 401, 403][b % 3];
                let request =
                    v1::ReportTokenRejectedRequest { reference, credential_version, status, ..Default::default() };
                wire.call(client, method, &request).await
            }
            "RevealCredential" => {
                let (reference, purpose) = (pick("credential", a), "a random program".to_owned());
                wire.call(client, method, &v1::RevealCredentialRequest { reference, purpose }).await
            }
            "CreateConfiguration" => {
                let configuration = fixture::a_configuration(&pick("credential", a), &external_id());
                let (configuration, (request_id, validate_only)) = (Some(configuration), defaults());
                let request = v1::CreateConfigurationRequest { configuration, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "GetConfiguration" => {
                let reference = if c % 3 == 0 { String::new() } else { pick("configuration", a) };
                let credential = if c % 3 == 1 { String::new() } else { pick("credential", b) };
                wire.call(client, method, &v1::GetConfigurationRequest { reference, credential }).await
            }
            "UpdateConfiguration" => {
                let configuration = v1::Configuration { external_id: Some(external_id()), ..Default::default() };
                let (request_id, validate_only) = defaults();
                let request = v1::UpdateConfigurationRequest {
                    reference: pick("configuration", a),
                    credential: if c % 2 == 0 { String::new() } else { pick("credential", e) },
                    configuration: Some(configuration),
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "DestroyConfiguration" => {
                let (request_id, validate_only) = defaults();
                let request = v1::DestroyConfigurationRequest {
                    reference: pick("configuration", a),
                    credential: pick("credential", b),
                    etag: String::new(),
                    allow_missing,
                    request_id,
                    validate_only,
                };
                wire.call(client, method, &request).await
            }
            "CreateUser" => {
                let user = v1::User { user_id: external_id(), email: address(e), ..v1::User::default() };
                let password = if e % 3 == 0 { PASSWORD.to_owned() } else { String::new() };
                let user = Some(v1::User { username: Some(name()), password, ..user });
                let (request_id, validate_only) = defaults();
                let request = v1::CreateUserRequest { user, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "GetUser" => wire.call(client, method, &v1::GetUserRequest { reference: pick("user", a) }).await,
            "UpdateUser" => {
                let user = v1::User { email: address(c), enabled: Some(b % 2 == 0), ..Default::default() };
                let (reference, (request_id, validate_only)) = (pick("user", e), defaults());
                let request = v1::UpdateUserRequest {
                    reference,
                    user: Some(user),
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "CreateApplication" => {
                let application = v1::Application {
                    external_id: Some(external_id()),
                    connector: (b % 3 != 0).then(|| pick("connector", e)),
                    ..fixture::an_application(&name())
                };
                let (application, (request_id, validate_only)) = (Some(application), defaults());
                let request = v1::CreateApplicationRequest { application, id: id(), request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "GetApplication" => {
                wire.call(client, method, &v1::GetApplicationRequest { reference: pick("application", a) }).await
            }
            "UpdateApplication" => {
                let application = v1::Application {
                    name: if c % 2 == 0 { name() } else { String::new() },
                    external_id: Some(external_id()),
                    connector: (c % 3 == 0).then(|| pick("connector", c)),
                    ..Default::default()
                };
                let (request_id, validate_only) = defaults();
                let request = v1::UpdateApplicationRequest {
                    reference: pick("application", e),
                    application: Some(application),
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            "DeleteUser" => {
                let (request_id, validate_only) = defaults();
                let (reference, etag) = (pick("user", a), String::new());
                let request = v1::DeleteUserRequest { reference, etag, allow_missing, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "DeleteApplication" => {
                let (request_id, validate_only) = defaults();
                let (reference, etag) = (pick("application", a), String::new());
                let request =
                    v1::DeleteApplicationRequest { reference, etag, allow_missing, request_id, validate_only };
                wire.call(client, method, &request).await
            }
            "SetPermissions" => {
                let (request_id, validate_only) = defaults();
                let request = v1::SetPermissionsRequest {
                    application: pick("application", e),
                    company_id: EXTERNAL[b % EXTERNAL.len()].to_owned(),
                    user_id: if d % 2 == 0 { user_id() } else { LOGINS[a % LOGINS.len()].1.to_owned() },
                    permissions: if c % 4 == 0 { vec![] } else { vec!["use_app".to_owned()] },
                    request_id,
                    validate_only,
                    ..Default::default()
                };
                wire.call(client, method, &request).await
            }
            _ => match LISTS.iter().position(|list| *list == method) {
                Some(list) => self.list(wire, list, [a, b, c, d, e], other).await,
                None => self.log_in(wire, method, [a, b, c, d, e], other).await,
            },
        }
    }

    async fn list(&self, wire: &Wire, list: usize, [a, b, c, d, e]: [usize; 5], other: &Player) -> Outcome {
        let client = &self.client;
        let question = a % QUESTIONS;
        let page_token = self.token(list, question, b, other);
        let (filter, descending) = match question {
            0 | 1 => (String::new(), question == 1),
            2 => ("a OR m OR 1".to_owned(), false),
            _ => (format!("id = {} OR id != {}", self.pick_id(e, other), CHOSEN[0]), false),
        };
        let order_by = if descending { "create_time desc" } else { "" }.to_owned();
        let (page_size, limit) = ([1, 2, 0][c % 3], [1, 3, 0, 0][c / 3 % 4]);
        let connector = if d % 5 == 0 { self.pick("connector", e, other) } else { String::new() };
        let user_id = if d % 5 == 1 { USERS[e % USERS.len()].to_owned() } else { String::new() };
        macro_rules! list {
            ($method:literal, $request:ident, $($scope:ident),*) => {{
                let request = v1::$request { page_size, page_token, limit, filter, order_by, $($scope),* };
                wire.call(client, $method, &request).await
            }};
        }
        match LISTS[list] {
            "ListKeys" => list!("ListKeys", ListKeysRequest,),
            "ListConnectors" => list!("ListConnectors", ListConnectorsRequest,),
            "ListUsers" => list!("ListUsers", ListUsersRequest,),
            "ListConnections" => list!("ListConnections", ListConnectionsRequest, connector),
            "ListUserConnectors" => list!("ListUserConnectors", ListUserConnectorsRequest, user_id, connector),
            "ListCredentials" => {
                let connection = if d % 5 == 2 { self.pick("connection", e, other) } else { String::new() };
                list!("ListCredentials", ListCredentialsRequest, user_id, connector, connection)
            }
            "ListApplications" => list!("ListApplications", ListApplicationsRequest, connector),
            "ListConnectorEvents" => list!("ListConnectorEvents", ListConnectorEventsRequest, connector),
            "ListSessions" => {
                let application = if d % 5 == 2 { self.pick("application", e, other) } else { String::new() };
                let user_id = if d % 5 == 1 { LOGINS[e % LOGINS.len()].1.to_owned() } else { String::new() };
                list!("ListSessions", ListSessionsRequest, application, user_id)
            }
            "ListPermissions" => {
                let application = if d % 5 == 2 { self.pick("application", e, other) } else { String::new() };
                let company_id = if d % 5 == 3 { EXTERNAL[e % EXTERNAL.len()].to_owned() } else { String::new() };
                list!("ListPermissions", ListPermissionsRequest, application, company_id, user_id)
            }
            _ => {
                let credential = if d % 5 == 3 { self.pick("credential", e, other) } else { String::new() };
                list!("ListConfigurations", ListConfigurationsRequest, user_id, connector, credential)
            }
        }
    }
}

/// An email address, or none. It may be the user name of another user.
fn address(number: usize) -> Option<String> {
    (!number.is_multiple_of(3)).then(|| format!("{}@example.com", USERS[number / 3 % USERS.len()]))
}
