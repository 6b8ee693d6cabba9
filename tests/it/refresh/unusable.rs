//! Responses with a good access token, and with a refresh token that cannot be used. The provider may have replaced the one that was sent.

use std::sync::Arc;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::provider::{Gate, Rotation};
use jackfield_testkit::{ManualClock, ProviderFault, ProviderOptions, TestServer, on_both};
use serde_json::{Value, json};
use tonic::Code;

use super::world::{World, refused};

fn answered(refresh_token: Value) -> ProviderFault {
    ProviderFault::members([("refresh_token", refresh_token)])
}

on_both! {
    /// The access token is good until it expires.
    async fn the_refresh_token_before_is_not_sent_again(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let values = [json!(7), json!(true), json!({ "token": "r" }), json!("r\u{0}"), json!("r".repeat(200 << 10))];
        for (number, value) in values.into_iter().enumerate() {
            let grant = world.expired(&format!("ada-{number}")).await;
            let sent = world.provider.requests().len();
            world.provider.fail([answered(value)]);
            let issued = world.issue(&grant.credential).await.unwrap();
            assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token, "{number}");
            let facts = world.facts(&grant.credential).await;
            let found = (facts.state(), facts.failure_class(), &*facts.failure_reason, facts.version);
            let lost = (v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate, "REFRESH_TOKEN_INVALID", 2);
            assert_eq!(found, lost, "{number}");
            assert!(!facts.refreshable && facts.next_refresh_time.is_none(), "{number}: {facts:?}");
            assert!(facts.last_refresh_time.is_some(), "{number}: {facts:?}");
            let stored = world.reveal(&grant.credential).await;
            assert_eq!((&*stored.access_token, &*stored.refresh_token), (&*issued.access_token, ""), "{number}");

            assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, issued.access_token, "{number}");
            let refusal = refused(world.refresh(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            assert!(refusal.status.message().contains("REFRESH_TOKEN_INVALID"), "{refusal:?}");
            assert_eq!((world.provider.requests().len() - sent, world.provider.reuses(grant.family)), (1, 0), "{number}");
            let explained = world.explain(&grant.credential).await;
            let found = (explained.obstacle(), explained.next_step());
            assert_eq!(found, (v1::ErrorReason::Unspecified, v1::NextStep::Reauthorize), "{number}: {explained:?}");
            let [attempt] = &explained.attempts[..] else { panic!("{number}: {explained:?}") };
            let found = (attempt.outcome(), &*attempt.reason, attempt.status);
            assert_eq!(found, (v1::RefreshOutcome::Refreshed, "REFRESH_TOKEN_INVALID", 200), "{number}");

            // New tokens of the same user end it.
            let again = world.provider.grant("ada", &["read"]);
            world.replace_all(&grant.credential, &again.access_token, &again.refresh_token).await;
            assert_eq!(world.refresh(&grant.credential).await.unwrap().state(), v1::CredentialState::Valid, "{number}");
        }
    }

    /// Then there is nothing to keep, and the refresh token that was sent is lost all the same.
    async fn one_beside_an_access_token_that_cannot_be_used_is_a_lost_response(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::members([("refresh_token", json!(7)), ("expires_in", json!(-1))])]);
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        let facts = world.facts(&grant.credential).await;
        let found = (facts.state(), &*facts.failure_reason, facts.version);
        assert_eq!(found, (v1::CredentialState::Indeterminate, "EXPIRES_IN_INVALID", 1));
        refused(world.refresh(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!((world.provider.requests().len(), world.provider.reuses(grant.family)), (1, 0));
    }

    /// Then the refresh token that was sent is still stored, and may be spent.
    async fn an_access_token_that_is_stored_meanwhile_stays_without_it(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([answered(json!(7)).held(&gate)]);
        let replace = async {
            world.sent(1).await;
            world.replace(&grant.credential, "another").await;
            gate.open();
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), replace);
        assert_eq!(issued.unwrap().access_token, "another");
        let facts = world.facts_when(&grant.credential, |facts| !facts.refreshable).await;
        let found = (facts.state(), &*facts.failure_reason, facts.next_refresh_time);
        assert_eq!(found, (v1::CredentialState::Indeterminate, "REFRESH_TOKEN_INVALID", None));
        let stored = world.reveal(&grant.credential).await;
        assert_eq!((&*stored.access_token, &*stored.refresh_token), ("another", ""));
        refused(world.refresh(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!((world.provider.requests().len(), world.provider.reuses(grant.family)), (1, 0));
    }

    /// A provider that has shown over a day that it does not replace refresh tokens has not spent the one that was sent.
    async fn a_refresh_token_that_stays_is_kept(backend: Backend) {
        let options = ProviderOptions { rotation: Rotation::Never, ..ProviderOptions::default() };
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| {
            (config.reveal.enabled, config.refresh.ahead) = (true, false);
        })
        .await;
        let world = World::on(&server, options).await;
        let grant = world.expired("ada").await;
        let before = world.reveal(&grant.credential).await.refresh_token;
        for hours in [0, 13, 12] {
            clock.advance(Duration::from_secs(hours * 3_600));
            world.issue(&grant.credential).await.unwrap();
        }
        for value in [json!(7), Value::Null] {
            clock.advance(Duration::from_secs(2 * 3_600));
            world.provider.fail([answered(value)]);
            let refreshed = world.refresh(&grant.credential).await.unwrap();
            assert_eq!((refreshed.state(), &*refreshed.failure_reason), (v1::CredentialState::Valid, ""));
            let stored = world.reveal(&grant.credential).await;
            assert_eq!(stored.access_token, world.provider.live(grant.family).unwrap().access_token);
            assert_eq!(stored.refresh_token, before);
        }
    }

    /// It may be no error at all, and the refresh token may be the only one that is good.
    async fn a_new_refresh_token_beside_an_error_that_is_not_known_is_kept(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        for (number, error) in [json!("maintenance"), json!(false)].into_iter().enumerate() {
            let grant = world.granted(&format!("ada-{number}"), 20).await;
            world.provider.fail([ProviderFault::members([("error", error)])]);
            // The token that there was is still good.
            assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token, "{number}");
            let facts = world.failed(&grant.credential).await;
            let found = (facts.failure_class(), &*facts.failure_reason, facts.version);
            assert_eq!(found, (v1::FailureClass::Transient, "TOKEN_REFUSED", 2), "{number}");
            let live = world.provider.live(grant.family).unwrap();
            assert_eq!(world.reveal(&grant.credential).await.refresh_token, live.refresh_token, "{number}");
        }
    }
}
