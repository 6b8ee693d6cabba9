//! ID tokens and profiles: whose tokens a response has is known before anything of it is stored.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::oauth::IdToken;
use jackfield_testkit::{ManualClock, OAuthProvider, TestServer, expect_status, fixture, on_both};
use serde_json::{Value, json};
use tonic::Code;

use super::device::ended;
use super::{World, complete, tokens};
use crate::steps;

const ACCOUNT: &str = "account-of-ada";
const CONFIGURATION: &str = "/.well-known/openid-configuration";

fn openid(connection: &mut v1::Connection) {
    connection.scope = Some("openid read".to_owned());
}

/// A world whose issuer has to be asked where its keys are.
async fn discovering(server: &TestServer) -> World {
    let issuer = |provider: &OAuthProvider| v1::OAuth2Connector {
        issuer_url: Some(provider.system.url("")),
        ..Default::default()
    };
    let world = World::on(server, issuer, |_, connection| {
        openid(connection);
        connection.issuer_url = None;
    })
    .await;
    let issuer = world.provider.system.url("");
    world.provider.openid.change(move |token| token.claims["iss"] = issuer.as_str().into());
    world
}

/// The metadata of an issuer.
fn metadata(world: &World, issuer: &str) -> Value {
    let url = |path| world.provider.system.url(path);
    json!({
        "issuer": issuer,
        "authorization_endpoint": url("/authorize"),
        "token_endpoint": url("/token"),
        "jwks_uri": url("/jwks"),
        "userinfo_endpoint": url("/userinfo"),
        "id_token_signing_alg_values_supported": ["EdDSA"],
    })
}

/// Authorises a user at the issuer of the connector.
async fn authorized(world: &World) -> v1::AuthorizationSession {
    let (_, mut brought) = world.visited("ada").await;
    brought.iss = Some(world.provider.system.url(""));
    complete(&world.client, brought.completion("ada")).await.unwrap()
}

/// The reason and the detail of a failure.
fn failed(session: &v1::AuthorizationSession) -> (Failure, &str) {
    assert_eq!(session.state(), State::Failed, "{session:?}");
    (session.failure(), &session.failure_detail)
}

/// A world without ID tokens whose provider has a profile.
async fn with_profile(server: &TestServer, change: impl FnOnce(&mut v1::Connection)) -> World {
    let profile = |provider: &OAuthProvider| v1::OAuth2Connector {
        profile_url: Some(provider.system.url("/profile")),
        ..Default::default()
    };
    World::on(server, profile, |_, connection| change(connection)).await
}

on_both! {
    async fn an_id_token_names_the_account(server) {
        let world = World::with(&server, openid).await;
        let session = world.authorized("ada").await;
        let credential = steps::credential_now(&world.client, &session.credential).await;
        assert_eq!(credential.provider_account_id(), ACCOUNT);
        let id_token = tokens(steps::revealed(&world.client, &credential.id).await).id_token;
        assert_eq!(id_token.split('.').count(), 3);
        // The keys are kept, and fetched again for one that is not known.
        let again = world.again(&credential).await;
        assert_eq!((again.state(), world.provider.fetched("/jwks")), (State::Completed, 1));
        world.provider.openid.rotate();
        assert_eq!(world.again(&credential).await.state(), State::Completed);
        assert_eq!(world.provider.fetched("/jwks"), 2);
    }

    async fn an_id_token_of_something_else_changes_nothing(server) {
        let world = World::with(&server, openid).await;
        let credential = world.authorized("ada").await.credential;
        let before = steps::credential_now(&world.client, &credential).await;
        let material = steps::revealed(&world.client, &credential).await;
        type Change = fn(&mut IdToken);
        let cases: [(Change, &str); 24] = [
            (|it| it.absent = true, "MISSING"),
            (|it| it.text = Some("a token".to_owned()), "MALFORMED"),
            (|it| it.text = Some("a.b.c.d.e".to_owned()), "ENCRYPTED"),
            (|it| it.claims["iss"] = "https://evil.example".into(), "WRONG_ISSUER"),
            (|it| it.claims["iss"] = "https://as.example.com/".into(), "WRONG_ISSUER"),
            (|it| it.claims["iss"] = Value::Null, "WRONG_ISSUER"),
            (|it| it.claims["aud"] = "c2".into(), "WRONG_AUDIENCE"),
            (|it| it.claims["aud"] = json!([]), "WRONG_AUDIENCE"),
            (|it| it.claims["aud"] = json!(["c1", "c2"]), "WRONG_PARTY"),
            (|it| it.claims["azp"] = "c2".into(), "WRONG_PARTY"),
            (|it| it.claims["nonce"] = "of another session".into(), "WRONG_NONCE"),
            (|it| it.claims["nonce"] = Value::Null, "WRONG_NONCE"),
            (|it| it.claims["exp"] = 1_000_000_000.into(), "EXPIRED"),
            (|it| it.claims["exp"] = Value::Null, "MALFORMED"),
            (|it| it.claims["iat"] = 9_000_000_000_u64.into(), "FROM_THE_FUTURE"),
            (|it| it.claims["nbf"] = 9_000_000_000_u64.into(), "FROM_THE_FUTURE"),
            (|it| it.claims["sub"] = "".into(), "SUBJECT_INVALID"),
            (|it| it.claims["at_hash"] = "of another token".into(), "WRONG_ACCESS_TOKEN"),
            (|it| it.header["alg"] = "none".into(), "ALGORITHM_REFUSED"),
            (|it| it.header["alg"] = "HS256".into(), "ALGORITHM_REFUSED"),
            (|it| it.header["typ"] = "logout+jwt".into(), "WRONG_TYPE"),
            (|it| it.header["crit"] = json!(["b64"]), "EXTENSION_UNKNOWN"),
            (|it| it.header["kid"] = "unknown".into(), "UNKNOWN_KEY"),
            (IdToken::forge, "SIGNATURE_WRONG"),
        ];
        let mut sent = world.provider.redeemed().len();
        for (change, detail) in cases {
            world.provider.openid.change(change);
            let session = world.again(&before).await;
            assert_eq!(failed(&session), (Failure::IdTokenRefused, detail));
            assert!(!session.failure_message.is_empty() && session.credential == credential);
            sent += 1;
            assert_eq!(world.provider.redeemed().len(), sent, "a code is sent once");
        }
        assert_eq!(world.provider.fetched("/jwks"), 2, "an unknown key has the keys fetched again, but not often");
        assert_eq!(steps::credential_now(&world.client, &credential).await, before);
        assert_eq!(steps::revealed(&world.client, &credential).await, material);
        world.provider.openid.change(|_| {});
        assert_eq!(world.again(&before).await.state(), State::Completed);
    }

    async fn an_issuer_is_asked_where_its_keys_are(backend: Backend) {
        let server = TestServer::start_at(backend, ManualClock::at_present(), |_| {}).await;
        let world = discovering(&server).await;
        let issuer = world.provider.system.url("");
        let mut of_another = metadata(&world, &issuer);
        of_another["issuer"] = "https://evil.example".into();
        let mut without_keys = metadata(&world, &issuer);
        without_keys["jwks_uri"] = Value::Null;
        let good = metadata(&world, &issuer);
        for (status, document, detail) in [
            (200, &of_another, "ISSUER_MISMATCH"),
            (200, &without_keys, "FIELD_INVALID"),
            (200, &json!([]), "BODY_MALFORMED"),
            (404, &good, "STATUS_UNEXPECTED"),
        ] {
            world.provider.openid.publish(CONFIGURATION, status, document);
            assert_eq!(failed(&authorized(&world).await), (Failure::IssuerUnavailable, detail));
            // It is remembered for a moment, until the connection is changed.
            world.provider.openid.publish(CONFIGURATION, 200, &good);
            assert_eq!(failed(&authorized(&world).await), (Failure::IssuerUnavailable, detail));
            touch(&world).await;
        }
        assert_eq!(world.provider.redeemed().len(), 0, "no code was spent in vain");
        let fetched = world.provider.fetched(CONFIGURATION);
        let session = authorized(&world).await;
        assert_eq!(session.state(), State::Completed, "{session:?}");
        assert_eq!(authorized(&world).await.state(), State::Completed);
        assert_eq!(world.provider.fetched(CONFIGURATION), fetched + 1, "it is kept");
        let credential = steps::credential_now(&world.client, &session.credential).await;
        assert_eq!(credential.provider_account_id(), ACCOUNT);
        // Those that the issuer says count, not all that are permitted.
        let mut others = good.clone();
        others["id_token_signing_alg_values_supported"] = json!(["RS256"]);
        world.provider.openid.publish(CONFIGURATION, 200, &others);
        touch(&world).await;
        assert_eq!(failed(&authorized(&world).await), (Failure::IdTokenRefused, "ALGORITHM_REFUSED"));
    }

    async fn no_code_is_spent_without_keys(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let world = World::with(&server, openid).await;
        world.provider.openid.publish("/jwks", 503, &json!({}));
        let brought = world.visited("ada").await.1;
        let away = complete(&world.client, brought.completion("ada")).await.map(tonic::Response::new);
        expect_status(away, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.provider.redeemed().len(), 0);
        // The code is good as long as the session, so the user need not go there again.
        world.provider.openid.publish("/jwks", 200, &json!({ "keys": [] }));
        clock.advance(Duration::from_secs(5));
        let session = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed(&session), (Failure::IdTokenRefused, "UNKNOWN_KEY"));
    }

    async fn an_expression_names_the_account(server) {
        let world = World::with(&server, |connection| {
            openid(connection);
            connection.user_id_expression = Some("{tid}|{sub}".to_owned());
        })
        .await;
        let brought = world.visited("ada").await.1;
        let session = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed(&session), (Failure::AccountUnknown, "USER_ID_MISSING"));
        world.provider.openid.change(|token| token.claims["tid"] = 7.into());
        let credential = world.authorized("ada").await.credential;
        let credential = steps::credential_now(&world.client, &credential).await;
        assert_eq!(credential.provider_account_id(), format!("7|{ACCOUNT}"));
    }

    async fn a_profile_has_what_the_id_token_lacks(backend: Backend) {
        let server = TestServer::start_at(backend, ManualClock::at_present(), |_| {}).await;
        let world = discovering(&server).await;
        world.provider.openid.publish(CONFIGURATION, 200, &metadata(&world, &world.provider.system.url("")));
        let expression = v1::Connection { user_id_expression: Some("{login}".to_owned()), ..Default::default() };
        assert_eq!(authorized(&world).await.state(), State::Completed);
        assert_eq!(world.provider.fetched("/userinfo"), 0, "the ID token has everything");
        update(&world, "user_id_expression", expression).await;
        assert_eq!(failed(&authorized(&world).await), (Failure::ProfileUnavailable, "STATUS_UNEXPECTED"));
        world.provider.openid.publish("/userinfo", 200, &json!({ "sub": "another", "login": "ada" }));
        assert_eq!(failed(&authorized(&world).await), (Failure::ProfileUnavailable, "SUBJECT_WRONG"));
        world.provider.openid.publish("/userinfo", 200, &json!({ "sub": ACCOUNT, "login": "ada" }));
        let credential = authorized(&world).await.credential;
        assert_eq!(steps::credential_now(&world.client, &credential).await.provider_account_id(), "ada");
        let asked = world.provider.system.received().into_iter().rfind(|it| it.line == "GET /userinfo").unwrap();
        let token = tokens(steps::revealed(&world.client, &credential).await).access_token;
        assert_eq!(asked.headers["authorization"], format!("Bearer {token}"));
    }

    async fn a_profile_alone_names_the_account(server) {
        let world = with_profile(&server, |connection| connection.user_id_expression = Some("github|{id}".to_owned())).await;
        world.provider.openid.publish("/profile", 200, &json!({ "id": 583_231, "login": "octo" }));
        let credential = steps::credential_now(&world.client, &world.authorized("ada").await.credential).await;
        assert_eq!(credential.provider_account_id(), "github|583231");
        let material = steps::revealed(&world.client, &credential.id).await;
        world.provider.openid.publish("/profile", 200, &json!({ "id": 7 }));
        assert_eq!(failed(&world.again(&credential).await), (Failure::AccountMismatch, ""));
        world.provider.openid.publish("/profile", 200, &json!({ "login": "octo" }));
        assert_eq!(failed(&world.again(&credential).await), (Failure::AccountUnknown, "USER_ID_MISSING"));
        world.provider.openid.publish("/profile", 404, &json!({}));
        assert_eq!(failed(&world.again(&credential).await), (Failure::ProfileUnavailable, "STATUS_UNEXPECTED"));
        assert_eq!(steps::credential_now(&world.client, &credential.id).await, credential);
        assert_eq!(steps::revealed(&world.client, &credential.id).await, material);
        // One that is away keeps the tokens waiting, also those of a server that stops.
        world.provider.openid.publish("/profile", 500, &json!({}));
        let session = world.again(&credential).await;
        assert_eq!(session.state(), State::Confirmed, "{session:?}");
        assert_eq!(steps::revealed(&world.client, &credential.id).await, material);
        world.provider.openid.publish("/profile", 200, &json!({ "id": 583_231 }));
        let mut server = server;
        server.restart().await;
        let client = server.client("alpha");
        assert_eq!(ended(&client, &session.id).await.state(), State::Completed);
        assert_ne!(steps::revealed(&client, &credential.id).await, material);
    }

    async fn another_account_is_refused_unless_it_is_permitted(server) {
        let world = World::with(&server, openid).await;
        let credential = steps::credential_now(&world.client, &world.authorized("ada").await.credential).await;
        let material = steps::revealed(&world.client, &credential.id).await;
        world.provider.openid.change(|token| token.claims["sub"] = "another".into());
        let session = world.again(&credential).await;
        assert_eq!(failed(&session), (Failure::AccountMismatch, ""));
        assert_eq!(steps::credential_now(&world.client, &credential.id).await, credential);
        assert_eq!(steps::revealed(&world.client, &credential.id).await, material);
        assert_eq!(world.again_with(&credential, true).await.state(), State::Completed);
        let changed = steps::credential_now(&world.client, &credential.id).await;
        assert_eq!(changed.provider_account_id(), "another");
        assert_ne!(steps::revealed(&world.client, &credential.id).await, material);
        assert_eq!(world.again(&changed).await.state(), State::Completed);
        // Another credential may have any account.
        world.provider.openid.change(|_| {});
        let other = world.authorized("ada").await.credential;
        assert_eq!(steps::credential_now(&world.client, &other).await.provider_account_id(), ACCOUNT);
    }

    async fn an_account_that_a_caller_gave_is_compared(server) {
        let world = World::with(&server, openid).await;
        steps::link(&world.client, "ada", &world.connection.connector).await;
        let imported = async |account: Option<&str>| {
            let facts = v1::Credential {
                connection: world.connection.id.clone(),
                provider_account_id: account.map(str::to_owned),
                ..fixture::a_credential("ada", &world.connection.connector)
            };
            steps::credential(&world.client, facts, fixture::oauth2_material("at", "rt")).await
        };
        let given = imported(Some("of the caller")).await;
        assert_eq!(given.provider_account_id(), "of the caller");
        assert_eq!(failed(&world.again(&given).await), (Failure::AccountMismatch, ""));
        assert_eq!(world.again_with(&given, true).await.state(), State::Completed);
        let none = imported(None).await;
        assert_eq!(world.again(&none).await.state(), State::Completed);
        for credential in [given, none] {
            let now = steps::credential_now(&world.client, &credential.id).await;
            assert_eq!(now.provider_account_id(), ACCOUNT);
        }
    }

    async fn an_account_that_nothing_tells_is_none(server) {
        let world = World::new(&server).await;
        let credential = steps::credential_now(&world.client, &world.authorized("ada").await.credential).await;
        assert_eq!(credential.provider_account_id, None);
        assert_eq!(world.again(&credential).await.state(), State::Completed);
        let material = steps::revealed(&world.client, &credential.id).await;
        // It gets an account after a session began.
        let request = v1::StartAuthorizationRequest { credential: credential.id.clone(), ..world.request("ada") };
        let brought = world.provider.visit(&world.start(request.clone()).await.1).await;
        let update = v1::UpdateCredentialRequest {
            reference: credential.id.clone(),
            credential: Some(v1::Credential { provider_account_id: Some("mine".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        world.client.credentials().update_credential(update).await.unwrap();
        let session = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed(&session), (Failure::AccountUnknown, ""));
        assert_eq!(steps::revealed(&world.client, &credential.id).await, material);
        // From then on, the user is not even sent away.
        let refused = world.client.connections().start_authorization(request).await;
        expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["allow_account_change"]);
        let now = steps::credential_now(&world.client, &credential.id).await;
        assert_eq!(now.provider_account_id(), "mine");
        assert_eq!(world.again_with(&now, true).await.state(), State::Completed);
        assert_eq!(steps::credential_now(&world.client, &credential.id).await.provider_account_id, None);
    }

    async fn nothing_is_kept_of_a_connection_or_a_connector_that_was(server) {
        let world = discovering(&server).await;
        world.provider.openid.publish(CONFIGURATION, 200, &metadata(&world, &world.provider.system.url("")));
        let fetched = async |expected: usize| {
            assert_eq!(authorized(&world).await.state(), State::Completed);
            let fetched = [CONFIGURATION, "/jwks"].map(|path| world.provider.fetched(path));
            assert_eq!(fetched, [expected; 2]);
        };
        fetched(1).await;
        fetched(1).await;
        let update = v1::UpdateConnectorRequest {
            reference: world.connection.connector.clone(),
            connector: Some(v1::Connector { description: Some("changed".to_owned()), ..Default::default() }),
            update_mask: fixture::mask(["description"]),
            ..Default::default()
        };
        world.client.connectors().update_connector(update).await.unwrap();
        fetched(2).await;
        let (reference, cascade) = (world.connection.id.clone(), true);
        let delete = v1::DeleteConnectionRequest { reference, cascade, ..Default::default() };
        world.client.connections().delete_connection(delete).await.unwrap();
        let secrets = world.provider.connection("", "").client_secrets;
        let again = v1::Connection { client_secrets: secrets, ..world.connection.clone() };
        let (connection, id) = (Some(again), world.connection.id.clone());
        let create = v1::CreateConnectionRequest { connection, id, ..Default::default() };
        world.client.connections().create_connection(create).await.unwrap();
        fetched(3).await;
    }

    async fn a_consumer_has_no_business_account(server) {
        let world = World::with(&server, |connection| {
            openid(connection);
            connection.require_business_account = Some(true);
        })
        .await;
        let brought = world.visited("ada").await.1;
        let session = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed(&session), (Failure::BusinessAccountRequired, ""));
        world.provider.openid.change(|token| token.claims["hd"] = "example.com".into());
        assert_eq!(world.authorized("ada").await.state(), State::Completed);
    }
}

/// Changes the connection, so that nothing is kept that was fetched for it.
async fn touch(world: &World) {
    let tags = fixture::strings([("now", "changed")]);
    update(world, "tags", v1::Connection { tags, ..Default::default() }).await;
}

async fn update(world: &World, path: &'static str, connection: v1::Connection) {
    let request = v1::UpdateConnectionRequest {
        reference: world.connection.id.clone(),
        connection: Some(connection),
        update_mask: fixture::mask([path]),
        ..Default::default()
    };
    world.client.connections().update_connection(request).await.unwrap();
}
