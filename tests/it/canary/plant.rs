//! The fields that take secrets, read from the contract, so that a new field is covered or the test fails.

use std::sync::LazyLock;

use jackfield_api::v1;
use jackfield_api::v1::test_connector_request::Definition;
use jackfield_testkit::fixture::{
    a_connection, a_connector, a_credential, a_user, an_application, api_key_material, basic_material, oauth2_material,
    strings,
};
use jackfield_testkit::{Callers, Identity};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor, Value,
};
use tonic::Code;

const PACKAGE: &str = "jackfield.v1";

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(jackfield_api::FILE_DESCRIPTOR_SET).expect("the descriptor set decodes"));

/// A field of the request of a method that takes a secret.
pub(super) struct SecretField {
    pub(super) method: MethodDescriptor,
    path: Vec<FieldDescriptor>,
}

/// The resources that requests refer to.
pub(super) struct Targets {
    /// A connector, a connection for it, and a name and an external id that are taken.
    pub(super) connector: String,
    pub(super) connection: String,
    pub(super) application: String,
    pub(super) credentials: Vec<(&'static str, String)>,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

/// The name and external id of existing resources.
pub(super) const TAKEN: &str = "taken";

/// All methods of the contract.
pub(super) fn methods() -> Vec<MethodDescriptor> {
    let services: Vec<_> = POOL.services().filter(|service| service.package_name() == PACKAGE).collect();
    services.iter().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// The path of a method on the wire.
pub(super) fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Every text field of every request that has `debug_redact`.
pub(super) fn secret_fields() -> Vec<SecretField> {
    let mut fields = Vec::new();
    // Those who open a stream have a test of their own.
    for method in methods().into_iter().filter(|method| !method.is_client_streaming()) {
        let mut found = Vec::new();
        walk(&method.input(), &mut Vec::new(), &mut found);
        fields.extend(found.into_iter().map(|path| SecretField { method: method.clone(), path }));
    }
    fields
}

fn walk(message: &MessageDescriptor, path: &mut Vec<FieldDescriptor>, found: &mut Vec<Vec<FieldDescriptor>>) {
    for field in message.fields().filter(|_| message.package_name() == PACKAGE) {
        path.push(field.clone());
        match field.kind() {
            Kind::Message(inner) if !field.is_map() => {
                let before = found.len();
                walk(&inner, path, found);
                assert!(!redacted(&field) || found.len() > before, "{} is secret as a whole", field.full_name());
            }
            _ if redacted(&field) => found.push(path.clone()),
            _ => {}
        }
        path.pop();
    }
}

fn redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").and_then(|value| value.as_bool()) == Some(true)
}

// === impl SecretField ===

impl SecretField {
    /// "CreateConnector: connector.secret_headers".
    pub(super) fn name(&self) -> String {
        format!("{}: {}", self.method.name(), self.dotted())
    }

    fn dotted(&self) -> String {
        self.path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
    }

    /// Returns whether it is used at once, and not stored.
    pub(super) fn is_login(&self) -> bool {
        self.method.input().get_field_by_name("request_id").is_none() || self.method.name() == "EndSession"
    }

    /// Returns whether it is in a resource.
    pub(super) fn is_of_resource(&self) -> bool {
        self.path.len() > 1
    }

    /// Returns whether RevealCredential shows it.
    pub(super) fn is_material(&self) -> bool {
        self.path[0].name() == "material"
    }

    /// The outcome of a valid request. No session has a token that was made up.
    pub(super) fn outcome(&self) -> (Code, &'static str) {
        match self.method.name() {
            "GetSessionUser" | "GetSessionPermissions" => (Code::NotFound, "SESSION_NOT_FOUND"),
            // No authorisation has a state or a completion code that was made up.
            "CompleteAuthorization" => (Code::NotFound, "AUTHORIZATION_NOT_FOUND"),
            _ => (Code::Ok, ""),
        }
    }

    /// A valid request with this secret in it.
    pub(super) fn request(&self, targets: &Targets, unique: &str, secret: &str) -> DynamicMessage {
        let base = self.base(targets, unique);
        let mut request = DynamicMessage::decode(self.method.input(), &*base).unwrap();
        plant(&mut request, &self.path, &self.value(targets, secret));
        request
    }

    /// The secret in the form that the field takes.
    fn value(&self, targets: &Targets, secret: &str) -> String {
        match self.path[self.path.len() - 1].name() {
            "json" if self.path[0].name() == "json_patch" => {
                let path = "/generic/httpAuthenticationPassword";
                serde_json::json!([{ "op": "add", "path": path, "value": secret }]).to_string()
            }
            "json" => serde_json::json!({ "secretHeaders": { "planted": secret } }).to_string(),
            // Text before a PEM block is explanatory (RFC 7468). It is not stored, so logs and answers are what it may show in.
            "private_key_pem" => format!("{secret}\n{}", targets.key_pem),
            _ => secret.to_owned(),
        }
    }

    /// A valid request without the secret. A field that is unknown here is new: add its request.
    fn base(&self, targets: &Targets, unique: &str) -> Vec<u8> {
        let secret = self.dotted();
        let material = match secret.split('.').collect::<Vec<_>>()[..] {
            ["material", "oauth2", "access_token" | "refresh_token" | "id_token"] => Some(oauth2_material("at", "rt")),
            ["material", "api_key", "api_key"] => Some(api_key_material("key")),
            ["material", "basic", "username" | "password"] => Some(basic_material("user", "password")),
            ["material", "client_credentials", "client_id" | "client_secret"] => Some(client_credentials()),
            ["material", "custom", "fields"] => Some(custom()),
            ["connector", "secret_headers"]
            | ["source", "https" | "grpc", "secret_headers"]
            | ["connector", "generic", "http_authentication_password"]
            | ["connector", "egress_proxy_password"]
            | ["connection", "client_secrets", "value"]
            | ["client_secret"]
            | ["password"]
            | ["private_key_pem"]
            | ["imported", "private_key_pem"]
            | ["session_token"]
            | ["completion_code" | "state" | "code"]
            | ["json_patch" | "merge_patch", "json"]
            | ["user", "password"] => None,
            _ => panic!("{} is new: add a valid request with it here", self.name()),
        };
        let credential = || v1::Credential { external_id: Some(unique.to_owned()), ..a_credential("u", "name:main") };
        match self.method.name() {
            "CreateConnector" => {
                v1::CreateConnectorRequest { connector: Some(a_generic_connector(unique)), ..Default::default() }
                    .encode_to_vec()
            }
            "UpdateConnector" => v1::UpdateConnectorRequest {
                reference: targets.connector.clone(),
                connector: Some(a_generic_connector(unique)),
                ..Default::default()
            }
            .encode_to_vec(),
            "AuthenticateUser" => v1::AuthenticateUserRequest {
                connector: targets.connector.clone(),
                login_id: unique.to_owned(),
                ..Default::default()
            }
            .encode_to_vec(),
            "TestConnector" => {
                let (definition, login_id) = match self.is_of_resource() {
                    true => {
                        let client_identity_key = Some(format!("name:{TAKEN}"));
                        let connector = v1::Connector { client_identity_key, ..a_generic_connector(unique) };
                        (Definition::Connector(connector), String::new())
                    }
                    false => (Definition::Reference(targets.connector.clone()), unique.to_owned()),
                };
                let definition = Some(definition);
                v1::TestConnectorRequest { definition, login_id, ..Default::default() }.encode_to_vec()
            }
            "PatchConnector" => {
                v1::PatchConnectorRequest { reference: targets.connector.clone(), ..Default::default() }.encode_to_vec()
            }
            "AuthenticateApplicationUser" => {
                let (application, username) = (targets.application.clone(), unique.to_owned());
                v1::AuthenticateApplicationUserRequest { application, username, ..Default::default() }.encode_to_vec()
            }
            "GetSessionUser" | "GetSessionPermissions" | "EndSession" => {
                // The application is the first field of all of them.
                let application = targets.application.clone();
                v1::GetSessionUserRequest { application, ..Default::default() }.encode_to_vec()
            }
            "CompleteAuthorization" => {
                let user_id = unique.to_owned();
                let (state, code) = match secret.as_str() {
                    "completion_code" => Default::default(),
                    "state" => (String::new(), "a code".to_owned()),
                    _ => ("a".repeat(43), String::new()),
                };
                v1::CompleteAuthorizationRequest { user_id, state, code, ..Default::default() }.encode_to_vec()
            }
            "CreateConnection" => {
                let connection = Some(a_connection(unique, "name:main"));
                v1::CreateConnectionRequest { connection, ..Default::default() }.encode_to_vec()
            }
            "UpdateConnection" => v1::UpdateConnectionRequest {
                reference: targets.connection.clone(),
                connection: Some(a_connection(unique, "name:main")),
                ..Default::default()
            }
            .encode_to_vec(),
            "RotateConnectionSecret" => {
                let reference = targets.connection.clone();
                v1::RotateConnectionSecretRequest { reference, ..Default::default() }.encode_to_vec()
            }
            "CreateCredential" => {
                v1::CreateCredentialRequest { credential: Some(credential()), material, ..Default::default() }
                    .encode_to_vec()
            }
            "SetCredentialSource" => {
                let remote = v1::RemoteSource { url: "https://localhost:3000/".to_owned(), ..Default::default() };
                let endpoint = match self.path[1].name() {
                    "grpc" => v1::credential_source::Endpoint::Grpc(remote),
                    _ => v1::credential_source::Endpoint::Https(remote),
                };
                let (user_id, endpoint) = (Some(unique.to_owned()), Some(endpoint));
                let source = v1::CredentialSource { user_id, endpoint, ..Default::default() };
                v1::SetCredentialSourceRequest { source: Some(source), ..Default::default() }.encode_to_vec()
            }
            "AuthenticateUserConnector" => {
                let (user_id, connector) = ("u".to_owned(), "name:main".to_owned());
                v1::AuthenticateUserConnectorRequest { user_id, connector, material, ..Default::default() }
                    .encode_to_vec()
            }
            "UpdateCredential" => v1::UpdateCredentialRequest {
                reference: targets.credential(self.path[1].name()),
                credential: Some(v1::Credential { external_id: Some(unique.to_owned()), ..Default::default() }),
                material,
                ..Default::default()
            }
            .encode_to_vec(),
            "ImportKey" => {
                let certificate_pem = targets.certificate_pem.clone();
                let key = v1::Key { name: unique.to_owned(), certificate_pem, ..Default::default() };
                v1::ImportKeyRequest { key: Some(key), ..Default::default() }.encode_to_vec()
            }
            "RotateKey" => {
                let imported = v1::KeyImport { certificate_pem: targets.certificate_pem.clone(), ..Default::default() };
                let material = Some(v1::rotate_key_request::Material::Imported(imported));
                let reference = format!("name:{TAKEN}");
                v1::RotateKeyRequest { reference, material, ..Default::default() }.encode_to_vec()
            }
            "CreateUser" => v1::CreateUserRequest { user: Some(a_user(unique)), ..Default::default() }.encode_to_vec(),
            "UpdateUser" => {
                let (reference, user) = ("ext:target".to_owned(), Some(a_user(unique)));
                v1::UpdateUserRequest { reference, user, ..Default::default() }.encode_to_vec()
            }
            _ => panic!("{} is new: add a valid request here", self.name()),
        }
    }
}

/// Sets the text at a path: in a list the first item, in a map an additional entry.
fn plant(message: &mut DynamicMessage, path: &[FieldDescriptor], text: &str) {
    let (field, rest) = path.split_first().expect("a path");
    let mut value = message.get_field(field).into_owned();
    if rest.is_empty() {
        match &mut value {
            Value::Map(entries) => {
                entries.insert(MapKey::String("planted".to_owned()), Value::String(text.to_owned()));
            }
            Value::String(old) => *old = text.to_owned(),
            other => panic!("{} is of a kind that is not supported yet: {other:?}", field.full_name()),
        }
    } else {
        match &mut value {
            Value::Message(inner) => plant(inner, rest, text),
            Value::List(items) => match items.first_mut() {
                Some(Value::Message(inner)) => plant(inner, rest, text),
                _ => panic!("no item in {}", field.full_name()),
            },
            other => panic!("no message in {}: {other:?}", field.full_name()),
        }
    }
    message.set_field(field, value);
}

/// A connector whose log-ins are recorded.
fn a_generic_connector(name: &str) -> v1::Connector {
    let mut connector = v1::Connector { debug: Some(true), ..a_connector(name) };
    if let Some(v1::connector::Kind::Generic(generic)) = &mut connector.kind {
        generic.http_authentication_username = Some("user".to_owned());
    }
    connector
}

fn client_credentials() -> v1::CredentialMaterial {
    let material = v1::ClientCredentialsMaterial { client_id: "id".to_owned(), client_secret: "secret".to_owned() };
    v1::CredentialMaterial { material: Some(v1::credential_material::Material::ClientCredentials(material)) }
}

fn custom() -> v1::CredentialMaterial {
    let material = v1::CustomMaterial { fields: strings([("other", "value")]) };
    v1::CredentialMaterial { material: Some(v1::credential_material::Material::Custom(material)) }
}

// === impl Targets ===

impl Targets {
    /// Creates them in the tenant alpha.
    pub(super) async fn create(server: &impl Callers) -> Self {
        let alpha = server.client("alpha");
        let mut ids = Vec::new();
        for name in ["main", "target", TAKEN] {
            let request =
                v1::CreateConnectorRequest { connector: Some(a_generic_connector(name)), ..Default::default() };
            let created = alpha.connectors().create_connector(request).await.unwrap().into_inner();
            ids.push(created.connector.unwrap().id);
        }
        let link = v1::AddUserConnectorRequest {
            user_id: "u".to_owned(),
            connector: "name:main".to_owned(),
            ..Default::default()
        };
        alpha.user_connectors().add_user_connector(link).await.unwrap();
        let mut connections = Vec::new();
        for name in ["target", TAKEN] {
            let connection = Some(a_connection(name, "name:main"));
            let request = v1::CreateConnectionRequest { connection, ..Default::default() };
            let created = alpha.connections().create_connection(request).await.unwrap().into_inner();
            connections.push(created.connection.unwrap().id);
        }
        let mut credentials = Vec::new();
        let materials = [
            ("oauth2", oauth2_material("at", "rt")),
            ("api_key", api_key_material("key")),
            ("basic", basic_material("user", "password")),
            ("client_credentials", client_credentials()),
            ("custom", custom()),
            (TAKEN, api_key_material("key")),
        ];
        for (kind, material) in materials {
            let external_id = kind.to_owned();
            let request = v1::CreateCredentialRequest {
                credential: Some(v1::Credential { external_id: Some(external_id), ..a_credential("u", "name:main") }),
                material: Some(material),
                ..Default::default()
            };
            let created = alpha.credentials().create_credential(request).await.unwrap().into_inner();
            credentials.push((kind, created.credential.unwrap().id));
        }
        for name in ["target", TAKEN] {
            let user = v1::User { user_id: name.to_owned(), ..a_user(name) };
            let request = v1::CreateUserRequest { user: Some(user), ..Default::default() };
            alpha.users().create_user(request).await.unwrap();
        }
        let application = Some(an_application("target"));
        let request = v1::CreateApplicationRequest { application, ..Default::default() };
        let application = alpha.applications().create_application(request).await.unwrap().into_inner().application;
        let leaf = server.pki().client(Identity::of("outbound"));
        let key =
            v1::Key { name: TAKEN.to_owned(), certificate_pem: leaf.certificate_pem.clone(), ..Default::default() };
        let request =
            v1::ImportKeyRequest { key: Some(key), private_key_pem: leaf.key_pem.clone(), ..Default::default() };
        alpha.keys().import_key(request).await.unwrap();
        Targets {
            connector: ids[1].clone(),
            connection: connections[0].clone(),
            application: application.unwrap().id,
            credentials,
            certificate_pem: leaf.certificate_pem,
            key_pem: leaf.key_pem,
        }
    }

    fn credential(&self, kind: &str) -> String {
        let found = self.credentials.iter().find(|(name, _)| *name == kind);
        found.unwrap_or_else(|| panic!("no credential of the kind {kind}")).1.clone()
    }
}
