//! Ways in which a client says who it is at `oidc-provider`, and the tokens that it gets for itself.

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::npm::Decision;
use jackfield_testkit::pki::Leaf;
use jackfield_testkit::{Backend, Flaw, Identity, NpmPackage, Pki, TestServer, fixture};
use serde_json::{Value, json};
use tonic::Code;

use super::{World, registered_with};
use crate::authorization::client_key::imported;
use crate::authorization::complete;
use crate::refresh::world::refused;
use crate::{key, steps};

/// A world with one client at the server.
async fn with_client(server: &TestServer, registration: &Value, change: impl FnOnce(&mut v1::Connection)) -> World {
    World::on(server, NpmPackage::OidcProvider, &json!({ "clients": [registration] }), change).await
}

on_sqlite! {
    /// The secret has characters that are encoded differently in a header and in a body. The other tests send it in a header.
    async fn a_client_sends_its_secret_in_the_body(server) {
        let registration = registered_with(&json!({ "token_endpoint_auth_method": "client_secret_post" }));
        let world = with_client(&server, &registration, |connection| {
            connection.client_authentication = v1::ClientAuthentication::ClientSecretPost.into();
        })
        .await;
        let credential = world.authorized("ada").await;
        assert_eq!(world.refresh(&credential.id).await.unwrap().version, 2);
    }

    /// The server replaces the refresh tokens of such a client, by its own rule.
    async fn a_client_without_a_secret(server) {
        let registration = registered_with(&json!({ "client_secret": null, "token_endpoint_auth_method": "none" }));
        let world = with_client(&server, &registration, |connection| {
            connection.client_authentication = v1::ClientAuthentication::None.into();
            connection.client_secrets.clear();
        })
        .await;
        let credential = world.authorized("ada").await.id;
        let before = world.tokens(&credential).await.refresh_token;
        world.refresh(&credential).await.unwrap();
        assert_ne!(world.tokens(&credential).await.refresh_token, before);
        assert_eq!(world.outcomes("refresh_token").await, (1, Vec::new()));
    }

    async fn another_secret_is_tried_where_one_is_refused(server) {
        let wrong = v1::ClientSecret { secret_id: "old".to_owned(), value: "wrong".to_owned(), ..Default::default() };
        let world = with_client(&server, &registered_with(&json!({})), |connection| {
            connection.client_secrets.insert(0, wrong);
        })
        .await;
        let credential = world.authorized("ada").await.id;
        let (good, errors) = world.outcomes("authorization_code").await;
        assert_eq!((good, errors.len(), &errors[0]["error"]), (1, 1, &json!("invalid_client")), "{errors:?}");
        // The good one comes first from now on.
        world.refresh(&credential).await.unwrap();
        assert_eq!(world.outcomes("refresh_token").await, (1, Vec::new()));
    }

    /// The server takes each assertion once.
    async fn a_client_signs(server) {
        let [own, another] = ["own", "another"].map(|name| server.pki().client(Identity::of(name)));
        let registration = registered_with(&json!({
            "client_secret": null,
            "token_endpoint_auth_method": "private_key_jwt",
            "certificate": own.certificate_pem,
        }));
        let client = server.client("alpha");
        imported(&client, "own", &own).await;
        imported(&client, "another", &another).await;
        let signs = |connection: &mut v1::Connection, key: &str| {
            connection.client_authentication = v1::ClientAuthentication::PrivateKeyJwt.into();
            connection.client_key = Some(format!("name:{key}"));
        };
        let world = with_client(&server, &registration, |connection| {
            connection.client_secrets.clear();
            signs(connection, "own");
        })
        .await;
        let credential = world.authorized("ada").await.id;
        for version in 2..=3 {
            assert_eq!(world.refresh(&credential).await.unwrap().version, version);
        }
        assert_eq!(world.outcomes("refresh_token").await, (2, Vec::new()));

        let mut change = v1::Connection::default();
        signs(&mut change, "another");
        update(&world, change, ["client_key"]).await;
        let refusal = refused(world.refresh(&credential).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
        assert!(refusal.status.message().contains("invalid_client"), "{refusal:?}");
        let brought = world.brought(world.request("eve"), "eve", Decision::Permit).await;
        let failed = complete(&world.client, brought.completion("eve")).await.unwrap();
        assert_eq!(failed.failure(), v1::AuthorizationFailure::ClientRefused, "{failed:?}");
        // What there was is good as before.
        let issued = world.issue(&credential).await.unwrap();
        assert!(!world.find(&issued.access_token).await.is_null());

        let mut change = v1::Connection::default();
        signs(&mut change, "own");
        update(&world, change, ["client_key"]).await;
        assert_eq!(world.refresh(&credential).await.unwrap().version, 4);
        world.revoke(credential).await;
    }

    async fn a_client_presents_its_certificate(server) {
        let own = server.pki().client(Identity::of("own"));
        presents(&server, "tls_client_auth", v1::ClientAuthentication::TlsClientAuth, &own).await;
    }

    async fn a_client_presents_a_certificate_that_signed_itself(server) {
        let own = server.pki().flawed_client(Identity::of("own"), Flaw::SelfSigned);
        let method = v1::ClientAuthentication::SelfSignedTlsClientAuth;
        presents(&server, "self_signed_tls_client_auth", method, &own).await;
    }

    async fn a_client_gets_tokens_for_itself(server) {
        let registration = registered_with(&json!({
            "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": [],
        }));
        let world = with_client(&server, &registration, |connection| {
            connection.grant_type = v1::ConnectionGrantType::ClientCredentials.into();
            connection.scope = Some(String::new());
            connection.redirect_uris.clear();
            connection.parameters.clear();
        })
        .await;
        steps::link(&world.client, "ada", &world.connection.connector).await;
        let (connection, connector) = (world.connection.id.clone(), &world.connection.connector);
        let facts = v1::Credential { connection, ..fixture::a_credential("ada", connector) };
        let material = v1::CredentialMaterial { material: Some(Material::Oauth2(v1::OAuth2Material::default())) };
        let credential = steps::credential(&world.client, facts, material).await.id;
        let first = world.issue(&credential).await.unwrap();
        assert_eq!(world.find(&first.access_token).await["kind"], "ClientCredentials");
        assert_eq!(world.refresh(&credential).await.unwrap().state(), v1::CredentialState::Valid);
        let second = world.issue(&credential).await.unwrap();
        assert_ne!(second.access_token, first.access_token);
        assert!(!world.find(&second.access_token).await.is_null());
        assert_eq!(world.tokens(&credential).await.refresh_token, "", "the standard knows none for this grant");
        assert_eq!(world.outcomes("client_credentials").await, (2, Vec::new()));
    }
}

/// Authorises, refreshes and revokes with a client that presents a certificate at the endpoints for certificates. Its tokens are bound to
/// the certificate (RFC 8705 3).
async fn presents(server: &TestServer, name: &str, method: v1::ClientAuthentication, own: &Leaf) {
    let client = server.client("alpha");
    imported(&client, "own", own).await;
    imported(&client, "another", &server.pki().client(Identity::of("another"))).await;
    let tls = Pki::create(&server.data_dir().join("npm"));
    let tls_file = |name: &str| std::fs::read_to_string(tls.path(name)).unwrap();
    let trust = v1::Key { name: "trust".to_owned(), certificate_pem: tls.ca_pem(), ..Default::default() };
    let trust = key::import(&client, v1::ImportKeyRequest { key: Some(trust), ..Default::default() }).await;
    let registration = registered_with(&json!({
        "client_secret": null,
        "token_endpoint_auth_method": name,
        "certificate": own.certificate_pem,
        "tls_client_certificate_bound_access_tokens": true,
    }));
    // The authority of the server's own certificate is another one than that of its clients.
    let tls = json!({ "key": tls_file("server-key.pem"), "cert": tls_file("server.pem"), "ca": server.pki().ca_pem() });
    let settings = json!({ "clients": [registration], "rotates": true, "tls": tls });
    let world = World::with(server, NpmPackage::OidcProvider, &settings, |connector, connection| {
        connector.trust_bundle_key = Some(trust.id);
        connection.client_secrets.clear();
        connection.client_authentication = method.into();
        connection.client_key = Some("name:own".to_owned());
    })
    .await;
    let credential = world.authorized("ada").await.id;
    for version in 2..=3 {
        assert_eq!(world.refresh(&credential).await.unwrap().version, version);
    }
    let tokens = world.tokens(&credential).await;
    assert!(world.find(&tokens.access_token).await["certificate"].is_string(), "it is bound to the certificate");

    let another = v1::Connection { client_key: Some("name:another".to_owned()), ..Default::default() };
    update(&world, another, ["client_key"]).await;
    refused(world.refresh(&credential).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
    assert_eq!(world.issue(&credential).await.unwrap().access_token, tokens.access_token);
    assert_eq!(world.outcomes("refresh_token").await.1[0]["error"], "invalid_client");

    let own = v1::Connection { client_key: Some("name:own".to_owned()), ..Default::default() };
    update(&world, own, ["client_key"]).await;
    assert_eq!(world.refresh(&credential).await.unwrap().version, 4);
    world.revoke(credential).await;
}

async fn update<const N: usize>(world: &World, connection: v1::Connection, mask: [&str; N]) {
    let request = v1::UpdateConnectionRequest {
        reference: world.connection.id.clone(),
        connection: Some(connection),
        update_mask: fixture::mask(mask),
        ..Default::default()
    };
    world.client.connections().update_connection(request).await.unwrap();
}
