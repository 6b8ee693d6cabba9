//! ConnectionService: the stored and returned fields of connections. Limits, naming, updates and deletion are in the
//! modules below.

mod delete;
mod identity;
mod limits;
pub(crate) mod probe;
mod rotate;
mod secrets;
mod update;

use std::collections::BTreeMap;

use jackfield_api::v1;
use jackfield_testkit::{Client, collect, fixture, on_both};
use tonic::{Response, Status};

use crate::connector;

on_both! {
    async fn every_field_comes_back(server) {
        let alpha = server.client("alpha");
        let connector = connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let given = everything();
        let created = create(&alpha, given.clone()).await;
        let mut expected = v1::Connection {
            id: created.id.clone(),
            connector: connector.id,
            create_time: created.create_time,
            update_time: created.create_time,
            etag: created.etag.clone(),
            ..given
        };
        for secret in &mut expected.client_secrets {
            secret.value.clear();
            secret.create_time = created.create_time;
        }
        assert_eq!(created, expected);
        assert!(created.create_time.is_some() && !created.etag.is_empty());
        assert_eq!(get(&alpha, &created.id).await.unwrap(), expected);
        assert_eq!(get(&alpha, "name:sign in").await.unwrap(), expected);
        assert_eq!(get(&alpha, "ext:con_1.A-b:c").await.unwrap(), expected);
        assert_eq!(list(&alpha).await, [expected]);
    }

    async fn absent_values_become_the_documented_defaults(server) {
        let alpha = server.client("alpha");
        let connector = connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let created = create(&alpha, a_small_one("small")).await;
        let expected = v1::Connection {
            id: created.id.clone(),
            name: "small".to_owned(),
            connector: connector.id,
            r#type: v1::ConnectionType::Oauth2.into(),
            supported_content_type: v1::TokenContentType::Json.into(),
            user_id_expression: Some("{sub}".to_owned()),
            trust_identity_user_id: Some(false),
            scope: Some("profile email openid".to_owned()),
            require_business_account: Some(false),
            linking: v1::LinkingType::Disabled.into(),
            client_authentication: v1::ClientAuthentication::ClientSecretBasic.into(),
            iss_parameter_supported: Some(false),
            grant_type: v1::ConnectionGrantType::AuthorizationCode.into(),
            active: Some(true),
            create_time: created.create_time,
            update_time: created.create_time,
            etag: created.etag.clone(),
            ..Default::default()
        };
        assert_eq!(created, expected);
        let id: uuid::Uuid = created.id.parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        // An empty scope is a value: it removes the scopes.
        let given = v1::Connection { scope: Some(String::new()), ..a_small_one("without scopes") };
        assert_eq!(create(&alpha, given).await.scope.as_deref(), Some(""));
    }

    async fn every_value_of_the_enums_comes_back(server) {
        use v1::{ClientAuthentication, ConnectionType, LinkingType, TokenContentType};
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let types = [
            ConnectionType::Oauth2,
            ConnectionType::Saml2,
            ConnectionType::Webauthn,
            ConnectionType::Password,
            ConnectionType::OpenidLegacy,
        ];
        for (index, connection_type) in types.into_iter().enumerate() {
            let linking = [LinkingType::Disabled, LinkingType::Explicit, LinkingType::Automatic][index % 3];
            let content_type = [TokenContentType::Json, TokenContentType::Form][index % 2];
            let authentication = [
                ClientAuthentication::None,
                ClientAuthentication::ClientSecretBasic,
                ClientAuthentication::ClientSecretPost,
            ][index % 3];
            let given = v1::Connection {
                r#type: connection_type.into(),
                linking: linking.into(),
                supported_content_type: content_type.into(),
                client_authentication: authentication.into(),
                ..a_small_one(connection_type.as_str_name())
            };
            let id = create(&alpha, given).await.id;
            let found = get(&alpha, &id).await.unwrap();
            assert_eq!((found.r#type(), found.linking()), (connection_type, linking));
            assert_eq!(found.supported_content_type(), content_type);
            assert_eq!(found.client_authentication(), authentication);
        }
    }

    async fn output_only_fields_are_ignored_on_create(server) {
        let alpha = server.client("alpha");
        connector::create(&alpha, fixture::an_oauth2_connector("Gmail")).await;
        let past = Some(fixture::seconds_from_now(-9_999));
        let mut given = v1::Connection {
            id: fixture::FUSIONAUTH_KEY_ID.to_owned(),
            create_time: past,
            update_time: past,
            etag: "x".to_owned(),
            ..everything()
        };
        given.client_secrets[0].create_time = past;
        let created = create(&alpha, given.clone()).await;
        assert_ne!(created.id, given.id);
        assert_ne!(created.etag, given.etag);
        assert!(created.create_time.is_some() && created.create_time != past);
        assert_eq!(created.update_time, created.create_time);
        assert_eq!(created.client_secrets[0].create_time, created.create_time);
    }
}

/// A connection for the connector `Gmail` with a value other than the default in every field.
pub(crate) fn everything() -> v1::Connection {
    let url = |path: &str| format!("https://login.example.com/{path}");
    let secret = |secret_id: &str, value: &str| v1::ClientSecret {
        secret_id: secret_id.to_owned(),
        value: value.to_owned(),
        create_time: None,
    };
    v1::Connection {
        name: "Sign in".to_owned(),
        external_id: Some("con_1.A-b:c".to_owned()),
        connector: "name:gmail".to_owned(),
        r#type: v1::ConnectionType::Saml2.into(),
        authentication_url: Some(url("sso")),
        token_url: Some(url("token")),
        issuer_url: Some("urn:example:entity".to_owned()),
        provider_certificate: Some("-----BEGIN CERTIFICATE-----\nMAYwADAAAwA=\n-----END CERTIFICATE-----\n".to_owned()),
        client_id: Some("client of ours".to_owned()),
        client_secrets: vec![secret("2", "second"), secret("", "without id"), secret("1", "first")],
        user_data_location: Some("CH".to_owned()),
        provider_tenant_id: Some("tenant 1".to_owned()),
        developer_account_id: Some("DEV1".to_owned()),
        supported_content_type: v1::TokenContentType::Form.into(),
        oidc_user_endpoint_url: Some(url("me")),
        user_id_expression: Some("{iss}/{email}".to_owned()),
        trust_identity_user_id: Some(true),
        scope: Some("email https://example.com/scope".to_owned()),
        parameters: fixture::strings([("access_type", "offline"), ("prompt", "")]),
        require_business_account: Some(true),
        linking: v1::LinkingType::Automatic.into(),
        active: Some(false),
        tags: fixture::strings([("team", "a"), ("app/part", "b")]),
        redirect_uris: vec!["https://app.example.com/b?c=d".to_owned(), "com.example.app:/callback".to_owned()],
        revocation_url: Some(url("revoke")),
        jwks_url: Some(url("jwks")),
        device_authorization_url: Some(url("device")),
        client_authentication: v1::ClientAuthentication::ClientSecretPost.into(),
        token_parameters: fixture::strings([("audience", "a"), ("scope", "b")]),
        refresh_parameters: fixture::strings([("scope", "c")]),
        refresh_token_grace_period: Some(fixture::milliseconds(1_500)),
        return_uris: vec!["https://app.example.com/back".to_owned()],
        iss_parameter_supported: Some(true),
        grant_type: v1::ConnectionGrantType::AuthorizationCode.into(),
        ..Default::default()
    }
}

/// The smallest connection for the connector `Gmail`.
fn a_small_one(name: &str) -> v1::Connection {
    v1::Connection { name: name.to_owned(), connector: "name:Gmail".to_owned(), ..Default::default() }
}

/// Creates a connection.
pub(crate) async fn create(client: &Client, connection: v1::Connection) -> v1::Connection {
    try_create(client, connection).await.unwrap().into_inner().connection.unwrap()
}

async fn try_create(
    client: &Client,
    connection: v1::Connection,
) -> Result<Response<v1::CreateConnectionResponse>, Status> {
    let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    client.connections().create_connection(request).await
}

async fn get(client: &Client, reference: &str) -> Result<v1::Connection, Status> {
    let request = v1::GetConnectionRequest { reference: reference.to_owned() };
    Ok(client.connections().get_connection(request).await?.into_inner().connection.unwrap())
}

async fn list(client: &Client) -> Vec<v1::Connection> {
    collect::items(client.connections().list_connections(v1::ListConnectionsRequest::default()).await).await.unwrap()
}

async fn update<const N: usize>(
    client: &Client,
    reference: &str,
    paths: [&str; N],
    connection: v1::Connection,
) -> Result<v1::Connection, Status> {
    let request = v1::UpdateConnectionRequest {
        reference: reference.to_owned(),
        connection: Some(connection),
        update_mask: fixture::mask(paths),
        ..Default::default()
    };
    Ok(client.connections().update_connection(request).await?.into_inner().connection.unwrap())
}

/// A map with this many entries.
fn numbered(entries: usize) -> BTreeMap<String, String> {
    (0..entries).map(|index| (format!("k{index}"), "v".to_owned())).collect()
}
