//! Answers of a server that goes wrong (`oauth2-mock-server`). Each has its own reason, and what there was is good as before.

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State, FailureClass};
use jackfield_testkit::{Backend, NpmPackage, TestServer, fixture};
use serde_json::{Value, json};
use tonic::Code;

use super::World;
use crate::refresh::world::refused;

/// The account that the server always names.
const ACCOUNT: &str = "johndoe";

/// A world with a server that grants the scopes that the token endpoint is asked for.
async fn mocked(server: &TestServer) -> World {
    World::on(server, NpmPackage::MockServer, &json!({}), |connection| {
        connection.scope = Some("openid read".to_owned());
        connection.parameters.clear();
        connection.token_parameters = fixture::strings([("scope", "openid read")]);
        connection.refresh_parameters = fixture::strings([("scope", "openid read")]);
    })
    .await
}

/// From now on, the answers of the token endpoint are changed so.
async fn change(world: &World, change: Value) {
    world.provider.tell("change", change).await;
}

on_sqlite! {
    async fn an_answer_to_a_code_that_is_wrong_changes_nothing(server) {
        let world = mocked(&server).await;
        let credential = world.authorized("ada").await;
        assert_eq!(credential.provider_account_id(), ACCOUNT);
        let before = world.tokens(&credential.id).await;
        let unusable = |member: Value, detail| (json!({ "members": member }), Failure::TokenUnusable, detail);
        let claim = |claim: Value, detail| (json!({ "claims": claim }), Failure::IdTokenRefused, detail);
        let rejected = |change: Value, detail| (change, Failure::IdTokenRefused, detail);
        let cases = [
            unusable(json!({ "access_token": null }), "ACCESS_TOKEN_MISSING"),
            unusable(json!({ "access_token": "" }), "ACCESS_TOKEN_MISSING"),
            unusable(json!({ "access_token": "a\nb" }), "ACCESS_TOKEN_UNUSABLE"),
            unusable(json!({ "expires_in": -1 }), "EXPIRES_IN_INVALID"),
            unusable(json!({ "expires_in": "soon" }), "EXPIRES_IN_INVALID"),
            unusable(json!({ "expires_in": [3600] }), "EXPIRES_IN_INVALID"),
            unusable(json!({ "token_type": "" }), "TOKEN_TYPE_INVALID"),
            unusable(json!({ "token_type": { "name": "Bearer" } }), "TOKEN_TYPE_INVALID"),
            unusable(json!({ "scope": 7 }), "SCOPE_INVALID"),
            unusable(json!({ "refresh_token": 7 }), "REFRESH_TOKEN_INVALID"),
            (json!({ "page": "<h1>Please log in</h1>" }), Failure::AnswerLost, "BODY_MALFORMED"),
            (json!({ "status": 500 }), Failure::AnswerLost, "STATUS_UNEXPECTED"),
            (json!({ "members": { "error": "invalid_grant" } }), Failure::GrantRefused, "invalid_grant"),
            rejected(json!({ "members": { "id_token": null } }), "MISSING"),
            rejected(json!({ "members": { "id_token": "a token" } }), "MALFORMED"),
            claim(json!({ "iss": "https://evil.example" }), "WRONG_ISSUER"),
            claim(json!({ "iss": null }), "WRONG_ISSUER"),
            claim(json!({ "aud": "another" }), "WRONG_AUDIENCE"),
            claim(json!({ "aud": ["c1", "another"] }), "WRONG_PARTY"),
            claim(json!({ "azp": "another" }), "WRONG_PARTY"),
            claim(json!({ "nonce": "of another session" }), "WRONG_NONCE"),
            claim(json!({ "nonce": null }), "WRONG_NONCE"),
            claim(json!({ "exp": 1_000_000_000 }), "EXPIRED"),
            claim(json!({ "iat": 9_000_000_000_u64 }), "FROM_THE_FUTURE"),
            claim(json!({ "nbf": 9_000_000_000_u64 }), "FROM_THE_FUTURE"),
            claim(json!({ "sub": null }), "SUBJECT_INVALID"),
            claim(json!({ "at_hash": "of another token" }), "WRONG_ACCESS_TOKEN"),
            rejected(json!({ "signature": "none" }), "ALGORITHM_REFUSED"),
            rejected(json!({ "signature": "another" }), "SIGNATURE_WRONG"),
            rejected(json!({ "header": { "kid": "unknown" } }), "UNKNOWN_KEY"),
            rejected(json!({ "header": { "typ": "logout+jwt" } }), "WRONG_TYPE"),
            (json!({ "claims": { "sub": "another" } }), Failure::AccountMismatch, ""),
        ];
        for (mutation, failure, detail) in cases {
            change(&world, mutation.clone()).await;
            let session = world.again(&credential).await;
            assert_eq!((session.state(), session.failure()), (State::Failed, failure), "{mutation}: {session:?}");
            assert_eq!(session.failure_detail, detail, "{mutation}");
            assert!(!session.failure_message.is_empty());
            assert_eq!(world.tokens(&credential.id).await, before, "{mutation}");
        }
        assert_eq!(world.facts(&credential.id).await, credential);
        change(&world, json!({})).await;
        assert_eq!(world.again(&credential).await.state(), State::Completed);
    }

    async fn an_expiry_that_is_absent_or_absurd_is_none(server) {
        let world = mocked(&server).await;
        for expires_in in [Value::Null, json!(0), json!(99_999_999_999_u64), json!("99999999999")] {
            change(&world, json!({ "members": { "expires_in": expires_in } })).await;
            let credential = world.authorized("ada").await;
            assert_eq!((credential.expire_time, credential.state()), (None, v1::CredentialState::Valid), "{expires_in}");
            let refreshed = world.refresh(&credential.id).await.unwrap();
            assert_eq!((refreshed.expire_time, refreshed.state()), (None, v1::CredentialState::Valid), "{expires_in}");
            assert!(refreshed.next_refresh_time.is_some(), "{expires_in}");
        }
    }

    /// The access token that there was is issued, and a new refresh token is kept whatever else is wrong.
    async fn an_answer_to_a_refresh_that_is_wrong_leaves_the_token(server) {
        let world = mocked(&server).await;
        let flawed = |member: Value, reason| (json!({ "members": member }), FailureClass::Transient, reason);
        let cases = [
            flawed(json!({ "access_token": null }), "ACCESS_TOKEN_MISSING"),
            flawed(json!({ "access_token": "a\nb" }), "ACCESS_TOKEN_UNUSABLE"),
            flawed(json!({ "expires_in": -1 }), "EXPIRES_IN_INVALID"),
            flawed(json!({ "token_type": 7 }), "TOKEN_TYPE_INVALID"),
            flawed(json!({ "scope": 7 }), "SCOPE_INVALID"),
            (json!({ "page": "<h1>Please log in</h1>" }), FailureClass::Indeterminate, "BODY_MALFORMED"),
            (json!({ "status": 500 }), FailureClass::Indeterminate, "STATUS_UNEXPECTED"),
            (json!({ "members": { "error": "invalid_grant" } }), FailureClass::Permanent, "invalid_grant"),
        ];
        for (number, (mutation, class, reason)) in cases.into_iter().enumerate() {
            change(&world, json!({})).await;
            let credential = world.authorized(&format!("ada-{number}")).await.id;
            let before = world.tokens(&credential).await;
            change(&world, mutation.clone()).await;
            assert!(world.refresh(&credential).await.is_err(), "{mutation}");
            let facts = world.facts(&credential).await;
            assert_eq!((facts.failure_class(), &*facts.failure_reason), (class, reason), "{mutation}: {facts:?}");
            let explained = world.explain(&credential).await;
            assert_eq!(explained.attempts[0].reason, reason, "{explained:?}");
            let after = world.tokens(&credential).await;
            assert_eq!((&after.access_token, &after.id_token), (&before.access_token, &before.id_token), "{mutation}");
            let is_kept = class == FailureClass::Transient;
            assert_eq!(after.refresh_token != before.refresh_token, is_kept, "{mutation}");
            assert_eq!(world.issue(&credential).await.unwrap().access_token, before.access_token, "{mutation}");
        }
    }

    /// They are not issued, but the refresh token is kept: it may be the only one that is good.
    async fn tokens_of_another_account_are_not_issued(server) {
        let world = mocked(&server).await;
        let credential = world.authorized("ada").await.id;
        let before = world.tokens(&credential).await;
        change(&world, json!({ "claims": { "sub": "another" } })).await;
        let refusal = refused(world.refresh(&credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert!(refusal.status.message().contains("SUBJECT_CHANGED"), "{refusal:?}");
        let facts = world.facts(&credential).await;
        let found = (facts.state(), facts.failure_class(), &*facts.failure_reason);
        assert_eq!(found, (v1::CredentialState::NeedsReauth, FailureClass::Permanent, "SUBJECT_CHANGED"));
        let explained = world.explain(&credential).await;
        assert_eq!((explained.next_step(), &*explained.attempts[0].reason), (v1::NextStep::Reauthorize, "SUBJECT_CHANGED"));
        let after = world.tokens(&credential).await;
        assert_eq!((&after.access_token, &after.id_token), (&before.access_token, &before.id_token));
        assert_ne!(after.refresh_token, before.refresh_token);
        assert_eq!(world.issue(&credential).await.unwrap().access_token, before.access_token);
        // It is not asked again, whatever it would say now.
        change(&world, json!({})).await;
        refused(world.refresh(&credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        let again = world.again(&facts).await;
        assert_eq!(again.state(), State::Completed, "{again:?}");
        assert_eq!(world.refresh(&credential).await.unwrap().state(), v1::CredentialState::Valid);
    }

    /// No proof of possession is asked for yet, so no type is below what was asked for. A caller learns which one it is.
    async fn the_type_of_a_token_is_told_as_it_comes(server) {
        let world = mocked(&server).await;
        for (sent, told) in [(json!("bearer"), "Bearer"), (Value::Null, "Bearer"), (json!("mac"), "mac")] {
            change(&world, json!({ "members": { "token_type": sent } })).await;
            let credential = world.authorized("ada").await.id;
            assert_eq!(world.issue(&credential).await.unwrap().token_type, told);
            world.refresh(&credential).await.unwrap();
            assert_eq!(world.issue(&credential).await.unwrap().token_type, told);
        }
    }
}
