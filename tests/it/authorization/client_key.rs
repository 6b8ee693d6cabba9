//! Clients that say who they are by the key of their connection: they sign an assertion, or present a certificate.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_api::v1;
use jackfield_api::v1::{
    ConnectionTestEndpoint as Endpoint, ConnectorTestReason as Reason, ConnectorTestResult as Outcome,
    ConnectorTestStep as Step,
};
use jackfield_testkit::oauth::{CLIENT, ISSUER};
use jackfield_testkit::pki::Leaf;
use jackfield_testkit::{
    Client, Flaw, Identity, ManualClock, OAuthProvider, Received, System, TestServer, expect_status, fixture, on_both,
};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

use super::{BACK, World, complete, issue};
use crate::connection::probe::{found, lacking, verdicts};
use crate::{key, steps};

const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// The metadata of the issuer whose path is `/tenant`.
const METADATA: &str = "/.well-known/oauth-authorization-server/tenant";

/// Imports a client identity.
pub(super) async fn imported(client: &Client, name: &str, leaf: &Leaf) -> v1::Key {
    let key = v1::Key { name: name.to_owned(), certificate_pem: leaf.certificate_pem.clone(), ..Default::default() };
    let private_key_pem = leaf.key_pem.clone();
    key::import(client, v1::ImportKeyRequest { key: Some(key), private_key_pem, ..Default::default() }).await
}

/// A world whose client says who it is by a key in place of a secret.
async fn with_key(server: &TestServer, method: v1::ClientAuthentication) -> (World, Leaf, v1::Key) {
    let has_certificate = method != v1::ClientAuthentication::PrivateKeyJwt;
    let keys = |provider: &OAuthProvider| v1::OAuth2Connector {
        jwks_url: Some(provider.system.url("/jwks")),
        ..Default::default()
    };
    let mut world = World::on(server, keys, |provider, connection| {
        // Its metadata tell whether there are endpoints for certificates.
        if has_certificate {
            connection.issuer_url = Some(provider.system.url(""));
            connection.revocation_url = Some(provider.system.url("/revoke"));
        }
    })
    .await;
    let leaf = match method {
        v1::ClientAuthentication::SelfSignedTlsClientAuth => {
            world.provider.system.pki().flawed_client(Identity::of("login"), Flaw::SelfSigned)
        }
        _ => world.provider.system.pki().client(Identity::of("login")),
    };
    let key = imported(&world.client, "login", &leaf).await;
    let change = v1::Connection {
        client_authentication: method.into(),
        client_key: Some("name:login".to_owned()),
        ..Default::default()
    };
    world.connection = updated(&world, change, ["client_authentication", "client_key", "client_secrets"]).await;
    assert_eq!(world.connection.client_key.as_ref(), Some(&key.id));
    (world, leaf, key)
}

async fn updated<const N: usize>(world: &World, connection: v1::Connection, mask: [&str; N]) -> v1::Connection {
    let request = v1::UpdateConnectionRequest {
        reference: world.connection.id.clone(),
        connection: Some(connection),
        update_mask: fixture::mask(mask),
        ..Default::default()
    };
    world.client.connections().update_connection(request).await.unwrap().into_inner().connection.unwrap()
}

/// A world whose client presents a certificate that the provider knows.
async fn with_certificate(server: &TestServer) -> World {
    let (world, leaf, _) = with_key(server, v1::ClientAuthentication::TlsClientAuth).await;
    world.provider.register_certificate(&[BACK], &leaf.certificate_pem).await;
    world
}

/// The discovery document of a provider that has other endpoints for certificates.
fn document(world: &World) -> Value {
    let url = |path| world.provider.system.url(path);
    json!({
        "issuer": url(""),
        "authorization_endpoint": url("/authorize"),
        "token_endpoint": url("/token"),
        "jwks_uri": url("/jwks"),
        "revocation_endpoint": url("/revoke"),
        "device_authorization_endpoint": url("/device_authorization"),
        "mtls_endpoint_aliases": {
            "token_endpoint": url("/mtls/token"),
            "revocation_endpoint": url("/mtls/revoke"),
            "device_authorization_endpoint": url("/mtls/device_authorization"),
        },
    })
}

/// The requests to the token endpoint for certificates, and to that for others.
fn redeemed(world: &World) -> [usize; 2] {
    ["/mtls/token", "/token"].map(|path| posted(&world.provider.system, path).len())
}

/// Header and claims of an assertion at the beginning of a text.
fn read(text: &str) -> (Value, Value) {
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let mut parts = text.split(['.', '&']);
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

/// Authorises a user, as far as the provider lets it happen.
async fn session(world: &World, user: &str) -> v1::AuthorizationSession {
    let mut brought = world.visited(user).await.1;
    brought.iss.clone_from(&world.connection.issuer_url);
    complete(&world.client, brought.completion(user)).await.unwrap()
}

/// The failure of an authorisation of a user.
async fn failure(world: &World, user: &str) -> v1::AuthorizationFailure {
    session(world, user).await.failure()
}

fn posted(system: &System, path: &str) -> Vec<Received> {
    let line = format!("POST {path}");
    system.received().into_iter().filter(|received| received.line == line).collect()
}

async fn refresh(world: &World, credential: &str) -> v1::Credential {
    try_refresh(world, credential).await.unwrap().into_inner().credential.unwrap()
}

async fn try_refresh(world: &World, credential: &str) -> Result<Response<v1::RefreshCredentialResponse>, Status> {
    let request = v1::RefreshCredentialRequest { reference: credential.to_owned() };
    world.client.credentials().refresh_credential(request).await
}

/// Gives a key other material, at once.
async fn rotate(world: &World, key: &v1::Key, leaf: &Leaf) {
    let (certificate_pem, private_key_pem) = (leaf.certificate_pem.clone(), leaf.key_pem.clone());
    let material = v1::rotate_key_request::Material::Imported(v1::KeyImport { certificate_pem, private_key_pem });
    let request = v1::RotateKeyRequest { reference: key.id.clone(), material: Some(material), ..Default::default() };
    world.client.keys().rotate_key(request).await.unwrap();
}

on_both! {
    async fn a_client_signs_for_the_issuer(server) {
        let (world, leaf, _) = with_key(&server, v1::ClientAuthentication::PrivateKeyJwt).await;
        assert_eq!(failure(&world, "eve").await, v1::AuthorizationFailure::ClientRefused, "it has a secret there");
        world.provider.register_signer(&[BACK], &leaf.key_pem).await;
        let credential = world.authorized("ada").await.credential;
        assert_eq!(refresh(&world, &credential).await.version, 2);
        assert!(!issue(&world.client, &credential).await.access_token.is_empty());
        let bodies = world.provider.redeemed();
        let assertions: Vec<&str> = bodies.iter().filter_map(|body| body.split("client_assertion=").nth(1)).collect();
        let read: Vec<(Value, Value)> = assertions.into_iter().map(read).collect();
        let [_, (header, first), (_, second)] = &read[..] else { panic!("{bodies:?}") };
        assert_eq!(*header, json!({ "alg": "ES256", "typ": "client-authentication+jwt" }));
        assert_eq!((&first["aud"], &first["iss"], &first["sub"]), (&json!(ISSUER), &json!(CLIENT.0), &json!(CLIENT.0)));
        assert_eq!(first["exp"].as_i64().unwrap() - first["iat"].as_i64().unwrap(), 60);
        assert_ne!(first["jti"], second["jti"], "each request has one of its own");

        let found = found(&verdicts(&world.client, &world.connection.id).await, Endpoint::Token, Step::Authentication);
        assert_eq!(found, (Outcome::Ok, Reason::ClientAccepted));

        // An assertion for another one could be used elsewhere, so the server refuses it.
        let elsewhere = v1::Connection { issuer_url: Some(format!("{ISSUER}/token")), ..Default::default() };
        updated(&world, elsewhere, ["issuer_url"]).await;
        let request = v1::RefreshCredentialRequest { reference: credential };
        let refused = world.client.credentials().refresh_credential(request).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTION_REFUSED");
    }

    async fn a_client_presents_the_certificate_of_its_connection(server) {
        presents_its_certificate(&server, v1::ClientAuthentication::TlsClientAuth).await;
    }

    async fn a_client_presents_a_certificate_that_signed_itself(server) {
        presents_its_certificate(&server, v1::ClientAuthentication::SelfSignedTlsClientAuth).await;
    }

    async fn a_certificate_goes_to_the_endpoints_for_certificates(server) {
        let world = with_certificate(&server).await;
        let system = &world.provider.system;
        let mut metadata = document(&world);
        metadata["revocation_endpoint"] = system.url("/another").into();
        world.provider.openid.publish(CONFIGURATION, 200, &metadata);
        let session = session(&world, "ada").await;
        assert_eq!(session.state(), v1::AuthorizationState::Completed, "{session:?}");
        assert_eq!(redeemed(&world), [1, 0]);
        let device = v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::Device.into(), ..world.request("eve") };
        let started = world.client.connections().start_authorization(device).await.unwrap().into_inner();
        assert!(!started.user_code.is_empty());
        let of_device = ["/mtls/device_authorization", "/device_authorization"].map(|path| posted(system, path).len());
        assert_eq!(of_device, [1, 0]);
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        let accepted = found(&verdicts, Endpoint::Token, Step::Authentication);
        assert_eq!(accepted, (Outcome::Ok, Reason::ClientAccepted), "{verdicts:#?}");
        assert_eq!(posted(system, "/token").len(), 0);
        // The metadata name another endpoint for revocations than the connection, so their alias is none of it.
        let tested = posted(system, "/revoke").len();
        let request = v1::RevokeCredentialRequest { reference: session.credential, ..Default::default() };
        world.client.credentials().revoke_credential(request).await.unwrap();
        assert_eq!((posted(system, "/mtls/revoke").len(), posted(system, "/revoke").len() - tested), (0, 2));
    }

    /// Metadata need neither keys nor an authorisation endpoint. A member that is not needed may be wrong.
    async fn an_issuer_without_a_discovery_document_has_endpoints_in_its_metadata(server) {
        let mut world = with_certificate(&server).await;
        let url = |path| world.provider.system.url(path);
        let issuer = url("/tenant");
        let metadata = json!({
            "issuer": issuer,
            "token_endpoint": url("/token"),
            "userinfo_endpoint": 7,
            "grant_types_supported": "all",
            "mtls_endpoint_aliases": { "token_endpoint": url("/mtls/token"), "revocation_endpoint": false },
        });
        // A page for all paths is no document.
        let page = "/tenant/.well-known/openid-configuration";
        world.provider.openid.publish(page, 200, &json!("You are in a hotel"));
        world.provider.openid.publish(METADATA, 200, &metadata);
        let change = v1::Connection { issuer_url: Some(issuer), ..Default::default() };
        world.connection = updated(&world, change, ["issuer_url"]).await;
        let session = session(&world, "ada").await;
        assert_eq!(session.state(), v1::AuthorizationState::Completed, "{session:?}");
        assert_eq!(redeemed(&world), [1, 0]);
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        let accepted = found(&verdicts, Endpoint::Token, Step::Authentication);
        assert_eq!(accepted, (Outcome::Ok, Reason::ClientAccepted), "{verdicts:#?}");
        let body = found(&verdicts, Endpoint::Discovery, Step::Body);
        assert_eq!(body, (Outcome::Warning, Reason::EndpointDiffers), "{verdicts:#?}");
        assert_eq!(redeemed(&world), [2, 0]);
    }

    async fn the_last_endpoints_are_used_while_the_issuer_is_away(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| config.refresh.ahead = false).await;
        let world = with_certificate(&server).await;
        let openid = &world.provider.openid;
        openid.publish(CONFIGURATION, 200, &document(&world));
        let credential = session(&world, "ada").await.credential;
        // It is overloaded, and then its metadata are not there for a moment.
        for (number, status) in [(2, 503), (3, 404)] {
            openid.publish(CONFIGURATION, status, &json!({}));
            clock.advance(Duration::from_secs(2 * 3_600));
            assert_eq!(refresh(&world, &credential).await.version, number);
            assert_eq!(redeemed(&world), [usize::try_from(number).unwrap(), 0], "{status}");
        }
        // The document of another issuer says that the last one is not good any more.
        let mut other = document(&world);
        other["issuer"] = "https://other.example".into();
        for (status, body) in [(200, &other), (503, &other)] {
            openid.publish(CONFIGURATION, status, body);
            clock.advance(Duration::from_secs(10));
            expect_status(try_refresh(&world, &credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        }
        assert_eq!(redeemed(&world), [3, 0], "nothing is sent");
        openid.publish(CONFIGURATION, 200, &document(&world));
        clock.advance(Duration::from_secs(10));
        assert_eq!(refresh(&world, &credential).await.version, 4);
    }

    async fn a_revocation_waits_for_the_metadata_of_the_issuer(server) {
        let world = with_certificate(&server).await;
        let (openid, system) = (&world.provider.openid, &world.provider.system);
        openid.publish(CONFIGURATION, 200, &document(&world));
        let credential = session(&world, "ada").await.credential;
        // What was fetched for a connection is forgotten when it is changed.
        let change = v1::Connection { name: "Renamed".to_owned(), ..Default::default() };
        updated(&world, change, ["name"]).await;
        openid.publish(CONFIGURATION, 503, &json!({}));
        let asked = world.provider.fetched(CONFIGURATION);
        let request = v1::RevokeCredentialRequest { reference: credential, ..Default::default() };
        let back = async {
            while world.provider.fetched(CONFIGURATION) == asked {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // The response has left.
            tokio::time::sleep(Duration::from_millis(200)).await;
            openid.publish(CONFIGURATION, 200, &document(&world));
        };
        let mut credentials = world.client.credentials();
        let (revoked, ()) = tokio::join!(credentials.revoke_credential(request), back);
        let outcomes = revoked.unwrap().into_inner().revocations;
        assert!(outcomes.iter().all(|it| it.outcome() == v1::RevocationOutcome::Revoked), "{outcomes:?}");
        assert_eq!((outcomes.len(), posted(system, "/mtls/revoke").len(), posted(system, "/revoke").len()), (2, 2, 0));
    }

    /// Neither a circuit breaker nor a fault that is remembered.
    async fn a_test_leaves_the_metadata_of_the_issuer_to_calls(server) {
        let world = with_certificate(&server).await;
        let openid = &world.provider.openid;
        openid.publish(CONFIGURATION, 503, &json!({}));
        for _ in 0..6 {
            let verdicts = verdicts(&world.client, &world.connection.id).await;
            let accepted = found(&verdicts, Endpoint::Token, Step::Authentication);
            assert_eq!(accepted, (Outcome::Ok, Reason::ClientAccepted), "{verdicts:#?}");
            let status = found(&verdicts, Endpoint::Discovery, Step::Status);
            assert_eq!(status, (Outcome::Failed, Reason::StatusUnexpected), "{verdicts:#?}");
        }
        assert_eq!(redeemed(&world), [0, 6]);
        openid.publish(CONFIGURATION, 200, &document(&world));
        let session = session(&world, "ada").await;
        assert_eq!(session.state(), v1::AuthorizationState::Completed, "{session:?}");
        assert_eq!(redeemed(&world), [1, 6]);
    }

    async fn a_rotated_key_that_signs_is_tried_at_once(server) {
        a_rotated_key_is_tried_at_once(&server, v1::ClientAuthentication::PrivateKeyJwt).await;
    }

    async fn a_rotated_certificate_is_tried_at_once(server) {
        a_rotated_key_is_tried_at_once(&server, v1::ClientAuthentication::TlsClientAuth).await;
    }

    async fn hints_name_the_key_that_expires(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = with_certificate(&server).await;
        // The certificates are valid for an hour.
        clock.advance(Duration::from_secs(58 * 60));
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        for (endpoint, key) in [(Endpoint::Token, "client_key"), (Endpoint::Discovery, "client_identity_key")] {
            let of_step = |it: &&v1::TestConnectionResponse| it.endpoint() == endpoint && it.step() == Step::Definition;
            let verdict = verdicts.iter().find(of_step).unwrap();
            assert_eq!(verdict.reason(), Reason::ClientIdentityExpiresSoon, "{verdicts:#?}");
            assert_eq!(verdict.hint, format!("Rotate the key that {key} names."));
        }
    }

    async fn a_certificate_that_is_refused_loses_no_grant(server) {
        let (world, leaf, key) = with_key(&server, v1::ClientAuthentication::SelfSignedTlsClientAuth).await;
        world.provider.system.trust(&leaf.certificate_pem);
        world.provider.register_certificate(&[BACK], &leaf.certificate_pem).await;
        let credential = session(&world, "ada").await.credential;
        let other = world.provider.system.pki().flawed_client(Identity::of("other"), Flaw::SelfSigned);
        let other = imported(&world.client, "other", &other).await;
        let with = |key: &v1::Key| v1::Connection { client_key: Some(key.id.clone()), ..Default::default() };
        updated(&world, with(&other), ["client_key"]).await;
        let request = v1::RefreshCredentialRequest { reference: credential.clone() };
        let refused = world.client.credentials().refresh_credential(request).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTION_REFUSED");
        let facts = steps::credential_now(&world.client, &credential).await;
        assert_eq!((facts.state(), facts.failure_class()), (v1::CredentialState::Valid, v1::FailureClass::Connection));
        assert_eq!(facts.failure_reason, "CLIENT_CERTIFICATE_REFUSED");
        updated(&world, with(&key), ["client_key"]).await;
        assert_eq!(refresh(&world, &credential).await.version, 2);
    }

    async fn a_key_must_fit(server) {
        let world = World::new(&server).await;
        let pki = server.pki();
        let bundle = v1::Key { name: "bundle".to_owned(), certificate_pem: pki.ca_pem(), ..Default::default() };
        key::import(&world.client, v1::ImportKeyRequest { key: Some(bundle), ..Default::default() }).await;
        let jwt = v1::ClientAuthentication::PrivateKeyJwt;
        let refused = expect_status(try_key(&world, "bundle", jwt).await, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(refused.fields(), ["connection.client_key"]);
        expect_status(try_key(&world, "none", jwt).await, Code::NotFound, "KEY_NOT_FOUND");
        imported(&server.client("beta"), "theirs", &pki.client(Identity::of("theirs"))).await;
        expect_status(try_key(&world, "theirs", jwt).await, Code::NotFound, "KEY_NOT_FOUND");

        let used = imported(&world.client, "used", &pki.client(Identity::of("used"))).await;
        try_key(&world, "used", jwt).await.unwrap();
        let request = v1::DeleteKeyRequest { reference: used.id.clone(), ..Default::default() };
        expect_status(world.client.keys().delete_key(request).await, Code::FailedPrecondition, "IN_USE");
        let request = v1::GetKeyRequest { reference: used.id };
        let used = world.client.keys().get_key(request).await.unwrap().into_inner().key.unwrap();
        assert_eq!(used.used_by_count, 1);
    }

    async fn a_client_without_its_key_is_incomplete(server) {
        let world = World::with(&server, |connection| {
            connection.client_authentication = v1::ClientAuthentication::PrivateKeyJwt.into();
        })
        .await;
        let started = world.client.connections().start_authorization(world.request("ada")).await;
        expect_status(started, Code::FailedPrecondition, "CONNECTION_INCOMPLETE");
        let verdicts = verdicts(&world.client, &world.connection.id).await;
        assert_eq!(lacking(&verdicts), [Reason::ClientKeyMissing]);
    }
}

async fn try_key(
    world: &World,
    name: &str,
    method: v1::ClientAuthentication,
) -> Result<tonic::Response<v1::UpdateConnectionResponse>, tonic::Status> {
    let connection = v1::Connection {
        client_authentication: method.into(),
        client_key: Some(format!("name:{name}")),
        ..Default::default()
    };
    let request = v1::UpdateConnectionRequest {
        reference: world.connection.id.clone(),
        connection: Some(connection),
        ..Default::default()
    };
    world.client.connections().update_connection(request).await
}

/// The provider refuses a client whose key it does not know, which is not sent again for a while, unless it has another key.
async fn a_rotated_key_is_tried_at_once(server: &TestServer, method: v1::ClientAuthentication) {
    let (world, leaf, key) = with_key(server, method).await;
    let provider = &world.provider;
    let register = async |leaf: &Leaf| match method {
        v1::ClientAuthentication::PrivateKeyJwt => provider.register_signer(&[BACK], &leaf.key_pem).await,
        _ => provider.register_certificate(&[BACK], &leaf.certificate_pem).await,
    };
    register(&leaf).await;
    let credential = session(&world, "ada").await.credential;
    let [unknown, known] = ["unknown", "known"].map(|name| provider.system.pki().client(Identity::of(name)));
    rotate(&world, &key, &unknown).await;
    let mut sent = provider.redeemed().len();
    for requests in [1, 0] {
        let refused = try_refresh(&world, &credential).await;
        expect_status(refused, Code::FailedPrecondition, "CONNECTION_REFUSED");
        sent += requests;
        assert_eq!(provider.redeemed().len(), sent, "it is not asked again");
    }
    rotate(&world, &key, &known).await;
    register(&known).await;
    assert_eq!(refresh(&world, &credential).await.version, 2);
}

async fn presents_its_certificate(server: &TestServer, method: v1::ClientAuthentication) {
    let (world, leaf, _) = with_key(server, method).await;
    let system = &world.provider.system;
    system.trust(&leaf.certificate_pem);
    world.provider.register_certificate(&[BACK], &leaf.certificate_pem).await;
    let credential = session(&world, "ada").await.credential;
    assert_eq!(refresh(&world, &credential).await.version, 2);
    let request = v1::RevokeCredentialRequest { reference: credential, ..Default::default() };
    world.client.credentials().revoke_credential(request).await.unwrap();
    let (sent, revoked) = (posted(system, "/token"), posted(system, "/revoke"));
    assert_eq!((sent.len(), revoked.len()), (2, 2));
    let own = &sent[0].certificate;
    for request in sent.iter().chain(&revoked) {
        assert!(request.certificate == *own && String::from_utf8_lossy(&request.body).contains("client_id="));
    }
    let read = system.received().into_iter().filter(|received| received.line.starts_with("GET "));
    assert!(read.into_iter().all(|received| received.certificate != *own), "documents are read as the connector");
}
