//! Small, valid messages. A test takes one and changes the fields that it is about.

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_domain::application::TokenDigest;
use jackfield_domain::{Clock, SystemClock};
use prost_types::{Duration, Struct, Timestamp, Value, value::Kind};

/// The id that the key has in the example of the FusionAuth Generic Connector.
pub const FUSIONAUTH_KEY_ID: &str = "ce485a91-906f-4615-af75-81d37dc71e90";

/// The smallest connector: a generic one.
pub fn a_connector(name: &str) -> v1::Connector {
    let generic = v1::GenericConnector {
        authentication_url: "http://localhost:3000/api/authenticate".to_owned(),
        migrate_users: Some(false),
        ..Default::default()
    };
    v1::Connector { name: name.to_owned(), kind: Some(v1::connector::Kind::Generic(generic)), ..Default::default() }
}

/// An application with a vocabulary.
pub fn an_application(name: &str) -> v1::Application {
    let permission =
        |slug: &str, description: &str| v1::Permission { slug: slug.to_owned(), description: description.to_owned() };
    v1::Application {
        name: name.to_owned(),
        permissions: vec![
            permission("use_app", "May use the application"),
            permission("read", ""),
            permission("write", ""),
        ],
        ..Default::default()
    }
}

/// The digest by which a session token is stored.
pub fn token_digest(token: &str) -> TokenDigest {
    TokenDigest::new(jackfield_vault::sha256(token.as_bytes()))
}

/// The example of the FusionAuth Generic Connector, field for field. The key with [`FUSIONAUTH_KEY_ID`] must exist.
pub fn the_fusionauth_connector() -> v1::Connector {
    let generic = v1::GenericConnector {
        authentication_url: "http://localhost:3000/api/authenticate".to_owned(),
        http_authentication_username: Some("basicUsername".to_owned()),
        http_authentication_password: "basicPassword".to_owned(),
        migrate_users: Some(false),
        ..Default::default()
    };
    v1::Connector {
        name: "My Generic Connector".to_owned(),
        kind: Some(v1::connector::Kind::Generic(generic)),
        headers: strings([("header1", "value1"), ("header2", "value2")]),
        connect_timeout: Some(milliseconds(100)),
        read_timeout: Some(milliseconds(100)),
        client_identity_key: Some(FUSIONAUTH_KEY_ID.to_owned()),
        data: Some(object([("modifiedBy", "richard")])),
        debug: Some(true),
        ..Default::default()
    }
}

/// A connector for OAuth providers.
pub fn an_oauth2_connector(name: &str) -> v1::Connector {
    let oauth2 = v1::OAuth2Connector { issuer_url: Some("https://login.example.com".to_owned()), ..Default::default() };
    v1::Connector { name: name.to_owned(), kind: Some(v1::connector::Kind::Oauth2(oauth2)), ..Default::default() }
}

/// A connection for this connector, with the fields of an Authress connection.
pub fn a_connection(name: &str, connector: &str) -> v1::Connection {
    v1::Connection {
        name: name.to_owned(),
        connector: connector.to_owned(),
        r#type: v1::ConnectionType::Oauth2.into(),
        authentication_url: Some("https://login.example.com/authorize".to_owned()),
        token_url: Some("https://login.example.com/token".to_owned()),
        issuer_url: Some("https://login.example.com".to_owned()),
        client_id: Some("jackfield".to_owned()),
        client_secrets: vec![v1::ClientSecret {
            secret_id: "2026".to_owned(),
            value: "client secret of the fixture".to_owned(),
            create_time: None,
        }],
        supported_content_type: v1::TokenContentType::Form.into(),
        scope: Some("profile email openid".to_owned()),
        parameters: strings([("access_type", "offline")]),
        linking: v1::LinkingType::Explicit.into(),
        tags: strings([("team", "a")]),
        ..Default::default()
    }
}

/// The facts of a credential of this user and connector.
pub fn a_credential(user_id: &str, connector: &str) -> v1::Credential {
    v1::Credential { user_id: user_id.to_owned(), connector: connector.to_owned(), ..Default::default() }
}

/// OAuth tokens that are valid for an hour.
pub fn oauth2_material(access_token: &str, refresh_token: &str) -> v1::CredentialMaterial {
    let oauth2 = v1::OAuth2Material {
        access_token: access_token.to_owned(),
        refresh_token: refresh_token.to_owned(),
        expire_time: Some(seconds_from_now(3600)),
        scopes: vec!["email".to_owned(), "profile".to_owned()],
        ..Default::default()
    };
    material(v1::credential_material::Material::Oauth2(oauth2))
}

/// An API key.
pub fn api_key_material(api_key: &str) -> v1::CredentialMaterial {
    let api_key = v1::ApiKeyMaterial { api_key: api_key.to_owned() };
    material(v1::credential_material::Material::ApiKey(api_key))
}

/// A user name and password.
pub fn basic_material(username: &str, password: &str) -> v1::CredentialMaterial {
    let basic = v1::BasicMaterial { username: username.to_owned(), password: password.to_owned() };
    material(v1::credential_material::Material::Basic(basic))
}

/// A credential source of a user, or of the tenant if it is empty: a client that holds a stream open.
pub fn a_stream_source(user_id: &str) -> v1::CredentialSource {
    v1::CredentialSource {
        user_id: Some(user_id.to_owned()).filter(|user_id| !user_id.is_empty()),
        tenant_wide: user_id.is_empty(),
        endpoint: Some(v1::credential_source::Endpoint::Stream(v1::StreamSource {})),
        ..Default::default()
    }
}

/// A configuration of this credential, with one workflow switched on.
pub fn a_configuration(credential: &str, external_id: &str) -> v1::Configuration {
    let workflow = v1::WorkflowSettings { enabled: true, settings: Some(object([("folder", "inbox")])) };
    v1::Configuration {
        credential: credential.to_owned(),
        external_id: Some(external_id.to_owned()),
        shared_settings: Some(object([("language", "en")])),
        workflow_settings: BTreeMap::from([("sync".to_owned(), workflow)]),
        ..Default::default()
    }
}

/// A user with this user name and a password.
pub fn a_user(username: &str) -> v1::User {
    v1::User {
        username: Some(username.to_owned()),
        password: "password of the fixture".to_owned(),
        ..Default::default()
    }
}

/// A tenant.
pub fn a_tenant(name: &str) -> v1::Tenant {
    v1::Tenant { name: name.to_owned(), ..Default::default() }
}

/// An object whose values are strings.
pub fn object<const N: usize>(fields: [(&str, &str); N]) -> Struct {
    let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    Struct { fields: fields.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect() }
}

/// A map of strings.
pub fn strings<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A field mask of these paths.
pub fn mask<const N: usize>(paths: [&str; N]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.map(str::to_owned).to_vec() })
}

/// A duration, which may be negative.
pub fn milliseconds(milliseconds: i64) -> Duration {
    let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
    Duration { seconds, nanos: i32::try_from(rest * 1_000_000).expect("less than a second") }
}

/// A point in time; a negative number means the past.
pub fn seconds_from_now(seconds: i64) -> Timestamp {
    let now = SystemClock.now();
    Timestamp { seconds: now.seconds() + seconds, nanos: now.subsec_nanos() }
}

fn material(material: v1::credential_material::Material) -> v1::CredentialMaterial {
    v1::CredentialMaterial { material: Some(material) }
}
