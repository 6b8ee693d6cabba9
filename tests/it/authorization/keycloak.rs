//! Authorisations and refreshes at a Keycloak, which others wrote. It takes minutes to start: the test command runs this module on demand
//! (`tests/run --keycloak`), and leaves it out otherwise, by name.
//!
//! Its realm replaces refresh tokens, and ends the session of one that comes a second time.

use std::collections::BTreeSet;

use jackfield_api::v1::AuthorizationState as State;
use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::npm::{Browser, Decision, Landed};
use jackfield_testkit::{Backend, Keycloak, TestServer, fixture};
use tonic::Code;

use super::client_key::imported;
use super::device::ended;
use super::npm::World;
use super::{BACK, complete};
use crate::refresh::world::refused;
use crate::steps;

/// The secrets of the clients of the realm.
const SECRET: &str = "s:1 %+ of the client";
const SECRET_OF_SERVICE: &str = "s:2 %+ of the client";

/// Tests whose logic does not depend on the database, each with a connection as the client of that name.
macro_rules! at_keycloak {
    ($($(#[$meta:meta])* async fn $name:ident($server:ident, $keycloak:ident) $body:block)*) => { $(
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            // The first test starts it, which takes longer than a test may.
            let $keycloak = Keycloak::shared().await;
            jackfield_testkit::backend::in_time(async {
                let $server = TestServer::start(Backend::Sqlite).await;
                $body
            })
            .await;
        }
    )* };
}

impl World<&'static Keycloak> {
    /// A world whose connection is the client of this name.
    async fn of(
        server: &TestServer,
        keycloak: &'static Keycloak,
        client: &str,
        change: impl FnOnce(&mut v1::Connection),
    ) -> Self {
        World::connected(server, keycloak, &keycloak.issuer(), |_, connection| {
            connection.client_id = Some(client.to_owned());
            connection.client_secrets = vec![v1::ClientSecret { value: SECRET.to_owned(), ..Default::default() }];
            // It gives offline access to those who ask for the scope.
            connection.parameters.clear();
            change(connection);
        })
        .await
    }
}

at_keycloak! {
    async fn a_user_authorises_and_the_token_is_good_there(server, keycloak) {
        let world = World::of(&server, keycloak, "c1", |_| {}).await;
        let credential = world.authorized("ada").await;
        assert!(credential.refreshable && !credential.provider_account_id().is_empty(), "{credential:?}");
        let scopes: BTreeSet<&str> = credential.scopes.iter().map(String::as_str).collect();
        assert_eq!(scopes, BTreeSet::from(["email", "offline_access", "openid", "profile"]));
        // It says that the refresh token ends after 0 s, and means that it does not end.
        assert_eq!(credential.authorization_expire_time, None);
        let issued = world.issue(&credential.id).await.unwrap();
        assert_eq!((&*issued.token_type, issued.expire_time.is_some()), ("Bearer", true));
        let (status, profile) = world.profile(&issued.access_token).await;
        assert_eq!((status, &profile["preferred_username"], &profile["sub"]), (200, &"ada".into(), &credential.provider_account_id().into()));
    }

    async fn a_credential_is_authorised_again_by_its_own_account_alone(server, keycloak) {
        let world = World::of(&server, keycloak, "c1", |_| {}).await;
        let credential = world.authorized("ada").await;
        let before = world.tokens(&credential.id).await;
        let request = v1::StartAuthorizationRequest { credential: credential.id.clone(), ..world.request("ada") };
        let brought = world.brought(request, "eve", Decision::Permit).await;
        assert_eq!((&*brought.uri, brought.iss.as_deref()), (BACK, Some(&*keycloak.issuer())));
        let failed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed.failure(), v1::AuthorizationFailure::AccountMismatch, "{failed:?}");
        assert_eq!(world.tokens(&credential.id).await, before);
    }

    async fn each_refresh_replaces_the_refresh_token(server, keycloak) {
        let world = World::of(&server, keycloak, "c1", |_| {}).await;
        let credential = world.authorized("ada").await.id;
        let mut sent = BTreeSet::from([world.tokens(&credential).await.refresh_token]);
        for version in 2..=4 {
            assert_eq!(world.refresh(&credential).await.unwrap().version, version);
            let tokens = world.tokens(&credential).await;
            assert_eq!(world.profile(&tokens.access_token).await.0, 200);
            assert!(sent.insert(tokens.refresh_token), "it is another one each time");
        }
    }

    async fn a_session_that_another_has_ended_needs_the_user(server, keycloak) {
        let world = World::of(&server, keycloak, "c1", |_| {}).await;
        let credential = world.authorized("ada").await.id;
        let spent = world.tokens(&credential).await.refresh_token;
        world.refresh(&credential).await.unwrap();
        let live = world.tokens(&credential).await;
        assert_eq!(world.spend(("c1", SECRET), &spent).await, "invalid_grant");
        assert_eq!(world.profile(&live.access_token).await.0, 401, "the session is over");
        refused(world.refresh(&credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        let facts = world.facts(&credential).await;
        assert_eq!((facts.state(), &*facts.failure_reason), (v1::CredentialState::NeedsReauth, "invalid_grant"));
        assert_eq!(world.explain(&credential).await.next_step(), v1::NextStep::Reauthorize);
        // The same credential works again once its user has authorised it.
        let again = world.again(&facts).await;
        assert_eq!((again.state(), &again.credential), (State::Completed, &credential), "{again:?}");
        assert_eq!(world.refresh(&credential).await.unwrap().state(), v1::CredentialState::Valid);
    }

    async fn a_client_signs(server, keycloak) {
        let client = server.client("alpha");
        imported(&client, "own", &keycloak.signer).await;
        let world = World::of(&server, keycloak, "signer", |connection| {
            connection.client_secrets.clear();
            connection.client_authentication = v1::ClientAuthentication::PrivateKeyJwt.into();
            connection.client_key = Some("name:own".to_owned());
        })
        .await;
        let credential = world.authorized("ada").await.id;
        for version in 2..=3 {
            assert_eq!(world.refresh(&credential).await.unwrap().version, version);
        }
        let issued = world.issue(&credential).await.unwrap();
        assert_eq!(world.profile(&issued.access_token).await.0, 200);
        world.revoke(credential).await;
    }

    async fn a_client_gets_tokens_for_itself(server, keycloak) {
        let world = World::of(&server, keycloak, "service", |connection| {
            connection.client_secrets[0].value = SECRET_OF_SERVICE.to_owned();
            connection.grant_type = v1::ConnectionGrantType::ClientCredentials.into();
            connection.scope = Some("openid".to_owned());
            connection.redirect_uris.clear();
        })
        .await;
        steps::link(&world.client, "ada", &world.connection.connector).await;
        let (connection, connector) = (world.connection.id.clone(), &world.connection.connector);
        let facts = v1::Credential { connection, ..fixture::a_credential("ada", connector) };
        let material = v1::CredentialMaterial { material: Some(Material::Oauth2(v1::OAuth2Material::default())) };
        let credential = steps::credential(&world.client, facts, material).await.id;
        let first = world.issue(&credential).await.unwrap();
        let (status, profile) = world.profile(&first.access_token).await;
        assert_eq!((status, &profile["preferred_username"]), (200, &"service-account-service".into()));
        assert_eq!(world.refresh(&credential).await.unwrap().state(), v1::CredentialState::Valid);
        assert_ne!(world.issue(&credential).await.unwrap().access_token, first.access_token);
        assert_eq!(world.tokens(&credential).await.refresh_token, "");
    }

    async fn revoked_tokens_are_not_good_there(server, keycloak) {
        let world = World::of(&server, keycloak, "c1", |_| {}).await;
        let credential = world.authorized("ada").await.id;
        let tokens = world.tokens(&credential).await;
        assert_eq!(world.profile(&tokens.access_token).await.0, 200);
        world.revoke(credential.clone()).await;
        assert_eq!(world.profile(&tokens.access_token).await.0, 401);
        assert_eq!(world.spend(("c1", SECRET), &tokens.refresh_token).await, "invalid_grant");
        refused(world.issue(&credential).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
    }

    async fn a_user_types_a_code_on_another_device(server, keycloak) {
        let world = World::of(&server, keycloak, "device", |_| {}).await;
        let request = v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::Device.into(), ..world.request("ada") };
        let started = world.client.connections().start_authorization(request).await.unwrap().into_inner();
        let session = started.authorization.unwrap();
        let landed = Browser::default().visit(&started.verification_uri_complete, "ada", Decision::Permit).await;
        assert!(matches!(landed, Landed::Page(_)), "{landed:?}");
        let completed = ended(&world.client, &session.id).await;
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        let issued = world.issue(&completed.credential).await.unwrap();
        assert_eq!(world.profile(&issued.access_token).await.1["preferred_username"], "ada");
        assert_eq!(world.refresh(&completed.credential).await.unwrap().version, 2);
    }

    async fn a_user_who_typed_a_code_refuses_there(server, keycloak) {
        let world = World::of(&server, keycloak, "device", |_| {}).await;
        let request = v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::Device.into(), ..world.request("ada") };
        let started = world.client.connections().start_authorization(request).await.unwrap().into_inner();
        Browser::default().visit(&started.verification_uri_complete, "ada", Decision::Refuse).await;
        let denied = ended(&world.client, &started.authorization.unwrap().id).await;
        assert_eq!((denied.state(), &*denied.failure_detail), (State::Denied, "access_denied"), "{denied:?}");
    }
}
