//! Refreshes that fail: what the credential says, what callers get, and that no refresh token is sent twice.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::provider::{Gate, GraceAnswer, Rotation};
use jackfield_testkit::{ManualClock, ProviderFault, ProviderOptions, TestServer, fixture, on_both};
use serde_json::{Value, json};
use tonic::Code;

use super::world::{World, refused};

/// The faults after which the response counts as lost.
fn lost() -> Vec<ProviderFault> {
    vec![
        ProviderFault::answer_lost(),
        ProviderFault::answer_cut(),
        ProviderFault::answer_replaced(502),
        ProviderFault::huge(10 << 20),
        ProviderFault::web_page(),
        ProviderFault::error(500, "server_error"),
        ProviderFault::nested(),
    ]
}

/// An ID token of a user.
fn id_token(subject: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(json!({ "alg": "EdDSA" })), part(json!({ "sub": subject })))
}

on_both! {
    async fn a_refresh_token_whose_response_was_lost_is_not_sent_again(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let healthy = world.good("healthy").await;
        for (number, fault) in lost().into_iter().enumerate() {
            let what = format!("{fault:?}").chars().take(200).collect::<String>();
            let grant = world.expired(&format!("ada-{number}")).await;
            let sent = world.provider.requests().len();
            world.provider.fail([fault]);
            refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            let facts = world.facts(&grant.credential).await;
            let found = (facts.state(), facts.failure_class(), facts.refresh_failure_count, facts.version);
            assert_eq!(found, (v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate, 1, 1), "{what}");
            assert!(!facts.failure_reason.is_empty() && facts.next_refresh_time.is_none(), "{what}: {facts:?}");
            refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            refused(world.refresh(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            assert_eq!((world.provider.requests().len() - sent, world.provider.reuses(grant.family)), (1, 0), "{what}");
            // The endpoint answers, and is asked further.
            world.refresh(&healthy.credential).await.unwrap();
        }
    }

    async fn a_failed_refresh_leaves_a_token_that_is_good(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        // It is replaced before it is issued if it can be.
        let grant = world.granted("ada", 25).await;
        world.provider.fail([ProviderFault::answer_lost()]);
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token);
        assert_eq!(world.failed(&grant.credential).await.state(), v1::CredentialState::Indeterminate);
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token);
        assert_eq!(world.provider.requests().len(), 1);
    }

    /// The time for which the provider accepts a refresh token again is used once, and at once.
    async fn a_lost_response_is_asked_for_again_within_the_grace_period(backend: Backend) {
        for grace_answer in [GraceAnswer::LivePair, GraceAnswer::NewPair] {
            let server = TestServer::start(backend).await;
            let options = ProviderOptions { grace: Duration::from_secs(60), grace_answer, ..ProviderOptions::default() };
            let grace = |connection: &mut v1::Connection| {
                connection.refresh_token_grace_period = Some(fixture::milliseconds(60_000));
            };
            let world = World::with(&server, options, grace).await;
            let grant = world.expired("ada").await;
            world.provider.fail([ProviderFault::answer_lost()]);
            let issued = world.issue(&grant.credential).await.unwrap();
            assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
            assert_eq!(world.provider.requests().len(), 2);
            let twice = world.expired("bob").await;
            world.provider.fail([ProviderFault::answer_lost(), ProviderFault::answer_lost()]);
            // It is asked for once more after a pause: there is time for that.
            refused(world.issue(&twice.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            assert_eq!(world.provider.requests().len(), 4);
            let facts = world.facts(&twice.credential).await;
            assert_eq!((facts.state(), facts.failure_class()), (v1::CredentialState::Expired, v1::FailureClass::Transient));
        }
    }

    /// A refresh token that was good after a loss was not spent by it, whatever the time.
    async fn a_loss_that_was_made_good_does_not_come_back(server) {
        let grace = Duration::from_secs(4);
        let options = ProviderOptions { rotation: Rotation::Never, grace, ..ProviderOptions::default() };
        let world = World::with(&server, options, |connection| {
            connection.refresh_token_grace_period = Some(fixture::milliseconds(4_000));
        })
        .await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::answer_lost()]);
        world.issue(&grant.credential).await.unwrap();
        tokio::time::sleep(grace).await;
        let refreshed = world.refresh(&grant.credential).await.unwrap();
        assert_eq!((refreshed.state(), world.provider.requests().len()), (v1::CredentialState::Valid, 3));
    }

    /// A long outage does not hide that the refresh token was used before it.
    async fn a_loss_is_remembered_however_many_attempts_follow_it(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| config.refresh.ahead = false).await;
        let options = ProviderOptions { grace: Duration::from_secs(60), ..ProviderOptions::default() };
        let world = World::with(&server, options, |connection| {
            connection.refresh_token_grace_period = Some(fixture::milliseconds(60_000));
        })
        .await;
        let grant = world.expired("ada").await;
        let later = (0..14).map(|_| ProviderFault::status(425));
        world.provider.fail(std::iter::once(ProviderFault::answer_lost()).chain(later));
        for _ in 0..13 {
            refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            clock.advance(Duration::from_secs(180));
        }
        assert_eq!(world.provider.requests().len(), 14, "the first was repeated");
        assert_eq!(world.explain(&grant.credential).await.attempts.len(), 10);
        // The time of the database goes on by itself.
        server.sql("UPDATE refresh_attempt SET sent_time = sent_time - 120000000").await;
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!((world.provider.requests().len(), world.provider.reuses(grant.family)), (14, 0));
        assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Indeterminate);
    }

    /// With less time left than a request takes, none is sent.
    async fn a_grace_period_that_ends_too_soon_is_not_used(server) {
        let options = ProviderOptions { grace: Duration::from_secs(60), ..ProviderOptions::default() };
        let world = World::with(&server, options, |connection| {
            connection.refresh_token_grace_period = Some(fixture::milliseconds(1_900));
        })
        .await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::answer_lost()]);
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!(world.provider.requests().len(), 1);
    }

    /// What was refused is another one by then.
    async fn a_refusal_says_nothing_about_tokens_that_are_stored_meanwhile(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::error(400, "invalid_grant").held(&gate)]);
        let replace = async {
            world.sent(1).await;
            let again = world.provider.grant("ada", &["read"]);
            world.replace_all(&grant.credential, &again.access_token, &again.refresh_token).await;
            gate.open();
            again.access_token
        };
        let (issued, access_token) = tokio::join!(world.issue(&grant.credential), replace);
        assert_eq!(issued.unwrap().access_token, access_token);
        assert_eq!(world.facts(&grant.credential).await.state(), v1::CredentialState::Valid);
    }

    /// Without an access token it is not usable, but it is not lost either.
    async fn a_flaw_in_the_first_response_is_not_the_end(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| config.reveal.enabled = true).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.provider.grant("ada", &["read"]);
        world.provider.fail([ProviderFault::members([("access_token", Value::Null)])]);
        let id = world.store("ada", "", &grant.refresh_token, None).await;
        refused(world.issue(&id).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        let facts = world.facts(&id).await;
        assert_eq!((facts.state(), facts.failure_class()), (v1::CredentialState::Expired, v1::FailureClass::Transient));
        clock.advance(Duration::from_secs(60));
        let issued = world.issue(&id).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_eq!(world.provider.reuses(grant.family), 0);
    }

    /// Three responses over a day show that the refresh token stays. Fewer do not, because providers may replace it now and then; nor do three
    /// within minutes, because some give the same token again within a time of reuse.
    async fn a_lost_response_is_harmless_where_refresh_tokens_are_not_replaced(backend: Backend) {
        let options = ProviderOptions { rotation: Rotation::Never, ..ProviderOptions::default() };
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = World::on(&server, options).await;
        let [grant, rare, quick] = [world.expired("ada").await, world.expired("bob").await, world.expired("eve").await];
        for hours in [0, 13, 12] {
            clock.advance(Duration::from_secs(hours * 3_600));
            world.issue(&grant.credential).await.unwrap();
        }
        // Two responses with a day between them, and three at once.
        world.issue(&rare.credential).await.unwrap();
        for _ in 0..3 {
            world.refresh(&quick.credential).await.unwrap();
        }
        clock.advance(Duration::from_secs(25 * 3_600));
        world.issue(&rare.credential).await.unwrap();
        clock.advance(Duration::from_secs(2 * 3_600));
        for early in [&rare, &quick] {
            world.provider.fail([ProviderFault::answer_lost()]);
            refused(world.issue(&early.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        }
        world.provider.fail([ProviderFault::answer_lost()]);
        refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.facts(&grant.credential).await.failure_class(), v1::FailureClass::Transient);
        let explained = world.explain(&grant.credential).await;
        assert_eq!(explained.attempts[0].outcome(), v1::RefreshOutcome::Lost);
        clock.advance(Duration::from_secs(60));
        let issued = world.issue(&grant.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
    }

    async fn a_refused_refresh_token_needs_the_user(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.end(grant.family);
        let answer = world.issue(&grant.credential).await;
        let status = refused(answer, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert!(status.status.message().contains("invalid_grant"), "{status:?}");
        let facts = world.facts(&grant.credential).await;
        assert_eq!((facts.state(), facts.failure_class()), (v1::CredentialState::NeedsReauth, v1::FailureClass::Permanent));
        assert_eq!((&*facts.failure_reason, facts.next_refresh_time), ("invalid_grant", None));
        refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!(world.provider.requests().len(), 1, "it is not asked again");

        // New tokens of the same user make it usable again.
        let again = world.provider.grant("ada", &["read"]);
        world.replace_all(&grant.credential, &again.access_token, &again.refresh_token).await;
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, again.access_token);
        assert_eq!(world.refresh(&grant.credential).await.unwrap().state(), v1::CredentialState::Valid);
    }

    async fn a_provider_that_is_away_is_asked_again_later(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| config.refresh.ahead = false).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        for (count, fault) in (1..).zip([
            ProviderFault::status(503),
            ProviderFault::too_many(Duration::from_secs(7)),
            ProviderFault::error(503, "temporarily_unavailable"),
            ProviderFault::error(400, "temporarily_unavailable"),
            ProviderFault::error_with_200("slow_down"),
            ProviderFault::status(421),
            ProviderFault::status(425),
        ]) {
            world.provider.fail([fault]);
            refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            let facts = world.facts(&grant.credential).await;
            let found = (facts.failure_class(), facts.refresh_failure_count, facts.state());
            assert_eq!(found, (v1::FailureClass::Transient, count, v1::CredentialState::Expired));
            // No request leaves before the wait is over.
            refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            assert_eq!(world.provider.requests().len(), count as usize);
            clock.advance(Duration::from_secs(180));
        }
        let issued = world.issue(&grant.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_eq!(world.facts(&grant.credential).await.refresh_failure_count, 0);
        assert_eq!(world.provider.reuses(grant.family), 0);
    }

    async fn a_refused_client_is_the_fault_of_the_connection(server) {
        let world = World::with(&server, ProviderOptions::default(), |connection| {
            connection.client_secrets[0].value = "another secret".to_owned();
        })
        .await;
        let [ada, bob] = [world.expired("ada").await, world.expired("bob").await];
        let answer = world.issue(&ada.credential).await;
        let status = refused(answer, Code::FailedPrecondition, "CONNECTION_REFUSED");
        assert!(status.status.message().contains("invalid_client"), "{status:?}");
        refused(world.issue(&bob.credential).await, Code::FailedPrecondition, "CONNECTION_REFUSED");
        assert_eq!(world.provider.requests().len(), 1, "the second one does not ask");
        let facts = world.facts(&ada.credential).await;
        assert_eq!((facts.state(), facts.failure_class()), (v1::CredentialState::Expired, v1::FailureClass::Connection));

        world.set_secrets(&["another secret", "client-secret-1"]).await;
        for grant in [&ada, &bob] {
            let issued = world.issue(&grant.credential).await.unwrap();
            assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        }
    }

    async fn a_new_refresh_token_is_kept_whatever_else_is_wrong(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        for (number, member) in [
            ("access_token", Value::Null),
            ("access_token", Value::from("")),
            ("expires_in", Value::from(-1)),
            ("expires_in", Value::from("soon")),
            ("token_type", Value::from(7)),
        ].into_iter().enumerate() {
            let what = format!("{member:?}");
            let grant = world.granted(&format!("ada-{number}"), 20).await;
            world.provider.fail([ProviderFault::members([member])]);
            // The token that there was is still good.
            assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token, "{what}");
            let facts = world.failed(&grant.credential).await;
            assert_eq!((facts.failure_class(), facts.version), (v1::FailureClass::Transient, 2), "{what}");
            let live = world.provider.live(grant.family).unwrap();
            assert_eq!(world.reveal(&grant.credential).await.refresh_token, live.refresh_token, "{what}");
        }
    }

    /// Their refresh token is kept: it may be the only one that is good.
    async fn tokens_of_another_account_are_not_issued(backend: Backend) {
        for rotation in [Rotation::Always, Rotation::Never] {
            let server = TestServer::start(backend).await;
            let world = World::on(&server, ProviderOptions { rotation, ..ProviderOptions::default() }).await;
            let issued = world.provider.grant("ada", &["read"]);
            let material = v1::OAuth2Material {
                access_token: issued.access_token.clone(),
                refresh_token: issued.refresh_token.clone(),
                id_token: id_token("ada"),
                expire_time: Some(fixture::seconds_from_now(20)),
                ..Default::default()
            };
            let id = world.store_material("ada", Material::Oauth2(material)).await;
            world.provider.fail([ProviderFault::members([("id_token", id_token("eve").into())])]);
            // The token that there was is still good.
            assert_eq!(world.issue(&id).await.unwrap().access_token, issued.access_token);
            let facts = world.failed(&id).await;
            let found = (facts.state(), facts.failure_class(), &*facts.failure_reason, facts.next_refresh_time);
            let expected = (v1::CredentialState::NeedsReauth, v1::FailureClass::Permanent, "SUBJECT_CHANGED", None);
            assert_eq!(found, expected, "{rotation:?}");
            let live = world.provider.live(issued.family).unwrap();
            let stored = world.reveal(&id).await;
            assert_eq!((stored.refresh_token, stored.id_token), (live.refresh_token, id_token("ada")), "{rotation:?}");
            refused(world.refresh(&id).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
            assert_eq!(world.provider.requests().len(), 1, "it is not asked again");
            let explained = world.explain(&id).await;
            assert_eq!(explained.next_step(), v1::NextStep::Reauthorize);
            assert!(explained.explanation.contains("SUBJECT_CHANGED"), "{explained:?}");
        }
    }

    async fn an_id_token_of_the_same_account_replaces_the_one_before(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let issued = world.provider.grant("ada", &["read"]);
        let material = v1::OAuth2Material {
            access_token: issued.access_token,
            refresh_token: issued.refresh_token,
            id_token: id_token("ada"),
            expire_time: Some(fixture::seconds_from_now(-60)),
            ..Default::default()
        };
        let id = world.store_material("ada", Material::Oauth2(material)).await;
        let again = format!("{}again", id_token("ada"));
        for (sent, stored) in [(Value::from(&*again), &*again), (Value::from("not a token"), "not a token")] {
            world.provider.fail([ProviderFault::members([("id_token", sent)])]);
            assert_eq!(world.refresh(&id).await.unwrap().state(), v1::CredentialState::Valid);
            assert_eq!(world.reveal(&id).await.id_token, stored);
        }
    }

    /// The reason, the step and the outcome of the last attempt, for each way in which it can end.
    async fn every_failure_is_explained(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let healthy = world.good("healthy").await;
        let explained = world.explain(&healthy.credential).await;
        assert_eq!((explained.obstacle(), explained.next_step()), (v1::ErrorReason::Unspecified, v1::NextStep::None));
        world.refresh(&healthy.credential).await.unwrap();
        let explained = world.explain(&healthy.credential).await;
        let [attempt] = &explained.attempts[..] else { panic!("{explained:?}") };
        let found = (attempt.outcome(), attempt.credential_version, attempt.status);
        assert_eq!(found, (v1::RefreshOutcome::Refreshed, 1, 200));
        assert!(attempt.begin_time.is_some() && attempt.end_time.is_some());
        for (number, (fault, obstacle, step, outcome, reason, status)) in [
            (ProviderFault::answer_lost(), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Lost, "CONNECTION_LOST", 0),
            (ProviderFault::answer_cut(), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Lost, "CONNECTION_LOST", 0),
            (ProviderFault::web_page(), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Lost, "BODY_MALFORMED", 200),
            (ProviderFault::huge(10 << 20), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Lost, "BODY_TOO_LARGE", 0),
            (ProviderFault::status(500), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Lost, "STATUS_UNEXPECTED", 500),
            (ProviderFault::status(503), v1::ErrorReason::UpstreamUnavailable, v1::NextStep::Wait, v1::RefreshOutcome::NotProcessed, "STATUS_UNEXPECTED", 503),
            (ProviderFault::error(400, "invalid_grant"), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Refused, "invalid_grant", 400),
            (ProviderFault::error(400, "interaction_required"), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Refused, "interaction_required", 400),
            (ProviderFault::error_with_200("bad_refresh_token"), v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize, v1::RefreshOutcome::Refused, "bad_refresh_token", 200),
            // Last, because the provider is not asked again for a while.
            (ProviderFault::error(400, "invalid_scope"), v1::ErrorReason::ConnectionRefused, v1::NextStep::CorrectConnection, v1::RefreshOutcome::ConnectionRefused, "invalid_scope", 400),
        ].into_iter().enumerate() {
            let grant = world.expired(&format!("ada-{number}")).await;
            world.provider.fail([fault]);
            world.issue(&grant.credential).await.unwrap_err();
            let explained = world.explain(&grant.credential).await;
            assert_eq!((explained.obstacle(), explained.next_step()), (obstacle, step), "{reason}: {explained:?}");
            let [attempt] = &explained.attempts[..] else { panic!("{reason}: {explained:?}") };
            let found = (attempt.outcome(), &*attempt.reason, attempt.status);
            assert_eq!(found, (outcome, reason, status), "{explained:?}");
            assert!(explained.explanation.contains(reason), "{explained:?}");
            assert_eq!(explained.credential.unwrap().failure_reason, reason);
            // The endpoint answers, and is asked further.
            world.refresh(&healthy.credential).await.unwrap();
        }
    }

    async fn what_cannot_be_refreshed_needs_the_user(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.provider.grant("ada", &["read"]);
        let past = Some(fixture::seconds_from_now(-60));
        let none = world.store("ada", &grant.access_token, "", past).await;
        refused(world.issue(&none).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        refused(world.refresh(&none).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        let client = v1::ClientCredentialsMaterial { client_id: "a".to_owned(), client_secret: "b".to_owned() };
        let client = world.store_material("bob", Material::ClientCredentials(client)).await;
        refused(world.refresh(&client).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert_eq!(world.provider.requests().len(), 0);
    }

    /// A process that ends between the request and the response.
    async fn a_crash_during_a_refresh_costs_no_grant(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| {
            config.reveal.enabled = true;
            config.refresh.timeout = Duration::from_secs(1);
        })
        .await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::none().held(&Gate::closed())]);
        tokio::select! {
            answer = world.issue(&grant.credential) => panic!("the provider has not answered: {answer:?}"),
            () = world.sent(1) => {}
        }
        server.crash();
        server.restart().await;
        let client = server.client("alpha");
        let answer = world.issue_by(&client, &grant.credential).await;
        let status = refused(answer, Code::FailedPrecondition, "REAUTH_REQUIRED");
        assert!(status.status.message().contains("PROCESS_ENDED"), "{status:?}");
        assert_eq!((world.provider.requests().len(), world.provider.reuses(grant.family)), (1, 0));
    }
}
