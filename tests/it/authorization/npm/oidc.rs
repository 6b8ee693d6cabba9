//! Authorisations at `oidc-provider`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_api::v1;
use jackfield_api::v1::AuthorizationState as State;
use jackfield_testkit::npm::{Browser, Decision, Landed};
use jackfield_testkit::{Backend, TestServer};
use serde_json::{Value, json};
use tonic::Code;

use super::World;
use crate::authorization::complete;
use crate::authorization::device::ended;
use crate::refresh::world::refused;

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The name of the key that signed a token.
fn key_of(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

on_sqlite! {
    async fn a_user_authorises_and_the_token_is_good_there(server) {
        let world = World::rotating(&server).await;
        let credential = world.authorized("ada").await;
        assert_eq!((credential.provider_account_id(), credential.refreshable), ("ada", true));
        let scopes: BTreeSet<&str> = credential.scopes.iter().map(String::as_str).collect();
        assert_eq!(scopes, BTreeSet::from(["offline_access", "openid"]));
        let issued = world.issue(&credential.id).await.unwrap();
        assert_eq!((&*issued.token_type, issued.expire_time.is_some()), ("Bearer", true));
        let found = world.find(&issued.access_token).await;
        assert_eq!((&found["kind"], &found["account"]), (&json!("AccessToken"), &json!("ada")));
        let (status, profile) = world.profile(&issued.access_token).await;
        assert_eq!((status, &profile["sub"]), (200, &json!("ada")));
        assert_eq!(world.outcomes("authorization_code").await, (1, Vec::new()));
    }

    async fn a_user_refuses_there(server) {
        let world = World::rotating(&server).await;
        let brought = world.brought(world.request("ada"), "ada", Decision::Refuse).await;
        let denied = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!((denied.state(), &*denied.failure_detail), (State::Denied, "access_denied"));
        assert_eq!(world.outcomes("authorization_code").await, (0, Vec::new()));
    }

    async fn a_credential_is_authorised_again_by_its_own_account_alone(server) {
        let world = World::rotating(&server).await;
        let credential = world.authorized("ada").await;
        let before = world.tokens(&credential.id).await;
        let request = v1::StartAuthorizationRequest { credential: credential.id.clone(), ..world.request("ada") };
        let brought = world.brought(request, "eve", Decision::Permit).await;
        let failed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(failed.failure(), v1::AuthorizationFailure::AccountMismatch, "{failed:?}");
        assert_eq!(world.tokens(&credential.id).await, before);
        assert_eq!(world.facts(&credential.id).await, credential);
        let again = world.again(&credential).await;
        assert_eq!((again.state(), &again.credential), (State::Completed, &credential.id), "{again:?}");
        assert_ne!(world.tokens(&credential.id).await.access_token, before.access_token);
    }

    async fn a_code_is_good_once(server) {
        let world = World::rotating(&server).await;
        let brought = world.brought(world.request("ada"), "ada", Decision::Permit).await;
        let completed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        // The session is over, so nothing is sent: the server would end the grant.
        let twice = complete(&world.client, brought.completion("ada")).await;
        refused(twice, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        assert_eq!(world.outcomes("authorization_code").await, (1, Vec::new()));
        let issued = world.issue(&completed.credential).await.unwrap();
        assert!(!world.find(&issued.access_token).await.is_null());
    }

    /// The server asks for a confirmation, and for a log-in. It names no interval, so it is polled every five seconds.
    async fn a_user_types_a_code_there(server) {
        let world = World::rotating(&server).await;
        let request = v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::Device.into(), ..world.request("ada") };
        let started = world.client.connections().start_authorization(request).await.unwrap().into_inner();
        let session = started.authorization.unwrap();
        assert_eq!(session.state(), State::Started, "{session:?}");
        let landed = Browser::default().visit(&started.verification_uri_complete, "ada", Decision::Permit).await;
        assert!(matches!(landed, Landed::Page(_)), "{landed:?}");
        let completed = ended(&world.client, &session.id).await;
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        let credential = world.facts(&completed.credential).await;
        assert_eq!((credential.provider_account_id(), credential.refreshable), ("ada", true));
        let issued = world.issue(&credential.id).await.unwrap();
        assert_eq!(world.find(&issued.access_token).await["account"], "ada");
        assert_eq!(world.outcomes(DEVICE_CODE).await.0, 1);
    }

    async fn a_user_who_typed_a_code_refuses_there(server) {
        let world = World::rotating(&server).await;
        let request = v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::Device.into(), ..world.request("ada") };
        let started = world.client.connections().start_authorization(request).await.unwrap().into_inner();
        Browser::default().visit(&started.verification_uri_complete, "ada", Decision::Refuse).await;
        let denied = ended(&world.client, &started.authorization.unwrap().id).await;
        assert_eq!((denied.state(), &*denied.failure_detail), (State::Denied, "access_denied"), "{denied:?}");
    }

    /// The new key was not published before it signed.
    async fn a_new_key_of_the_server_is_fetched(server) {
        let world = World::rotating(&server).await;
        let credential = world.authorized("ada").await;
        let old = key_of(&world.tokens(&credential.id).await.id_token);
        world.provider.tell("rotate", json!({})).await;
        let again = world.again(&credential).await;
        assert_eq!(again.state(), State::Completed, "{again:?}");
        let new = key_of(&world.tokens(&credential.id).await.id_token);
        assert_ne!(new, old);
        // What the server had stored is good as before, whatever key signs the ID tokens of refreshes.
        world.provider.tell("rotate", json!({})).await;
        assert_eq!(world.refresh(&credential.id).await.unwrap().state(), v1::CredentialState::Valid);
        let issued = world.issue(&credential.id).await.unwrap();
        assert!(!world.find(&issued.access_token).await.is_null());
    }

    async fn revoked_tokens_are_not_good_there(server) {
        let world = World::rotating(&server).await;
        let credential = world.authorized("ada").await;
        let tokens = world.tokens(&credential.id).await;
        for token in [&tokens.access_token, &tokens.refresh_token] {
            assert!(!world.find(token).await.is_null());
        }
        world.revoke(credential.id.clone()).await;
        for token in [&tokens.access_token, &tokens.refresh_token] {
            assert!(world.find(token).await.is_null());
        }
        let (status, _) = world.profile(&tokens.access_token).await;
        assert_eq!(status, 401);
        assert_eq!(world.provider.tell("outcomes", json!({})).await["revoked"], 1, "the grant is over");
        refused(world.issue(&credential.id).await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
    }
}
