//! Token endpoints that do not answer: few grants are in doubt, however long it lasts.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{ProviderFault, ProviderOptions, TestServer, on_both};
use tonic::Code;

use super::world::{World, eventually, refused};

/// The requests in a row without an answer after which an endpoint counts as silent.
const UNANSWERED: usize = 5;

fn silent(server: &TestServer) -> f64 {
    server.metric("jackfield_credential_refresh_silent_endpoints", &[]).unwrap()
}

/// The credentials whose response was lost.
async fn lost(world: &World, credentials: impl IntoIterator<Item = &String>) -> usize {
    let mut lost = 0;
    for credential in credentials {
        lost += usize::from(world.facts(credential).await.state() == v1::CredentialState::Indeterminate);
    }
    lost
}

on_both! {
    /// No other user loses a grant, and all are refreshed once the provider answers.
    async fn a_provider_that_hangs_gets_one_refresh_at_a_time(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            (config.refresh.ahead, config.refresh.timeout) = (true, Duration::from_secs(1));
            (config.refresh.max_concurrent, config.refresh.max_per_second) = (8, 100);
        })
        .await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let gate = Gate::closed();
        let held = gate.clone();
        world.provider.fail_by(move |_, _| ProviderFault::none().held(&held));
        let mut grants = Vec::new();
        for number in 0..24 {
            grants.push(world.expired(&format!("user-{number}")).await);
        }
        // The schedule sends six at once. They get no answer, and after a pause one tries.
        eventually("it counts as silent", || silent(&server) == 1.0).await;
        world.sent(world.provider.requests().len() + 1).await;
        gate.open();
        eventually("it answers", || silent(&server) == 0.0).await;
        eventually("all are refreshed", || grants.iter().all(|grant| world.provider.exchanges(grant.family) == 1)).await;
        assert_eq!(world.provider.reuses(grants[0].family), 0);
        let lost = lost(&world, grants.iter().map(|grant| &grant.credential)).await;
        // Up to four that were sent in the places of the first ones, and probes.
        assert!((UNANSWERED..=13).contains(&lost), "{lost} of 24 are lost");
    }

    /// A caller learns when to come again, and nothing was attempted for it. Other endpoints are asked.
    async fn callers_are_refused_while_an_endpoint_is_silent(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        world.provider.fail_by(|_, _| ProviderFault::answer_lost());
        for number in 0..UNANSWERED {
            assert_eq!(silent(&server), 0.0);
            let grant = world.expired(&format!("lost-{number}")).await;
            refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        }
        assert_eq!((silent(&server), world.provider.requests().len()), (1.0, UNANSWERED));
        let [expired, good] = [world.expired("ada").await, world.granted("bob", 25).await];
        let refusal = refused(world.issue(&expired.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        let wait = refusal.details.retry_info().and_then(|retry| retry.retry_delay).unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(10), "{wait:?}");
        refused(world.refresh(&good.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.issue(&good.credential).await.unwrap().access_token, good.access_token);
        assert_eq!(world.provider.requests().len(), UNANSWERED);
        for (grant, obstacle) in [(&expired, v1::ErrorReason::UpstreamUnavailable), (&good, v1::ErrorReason::Unspecified)] {
            let explained = world.explain(&grant.credential).await;
            assert_eq!((explained.obstacle(), explained.next_step()), (obstacle, v1::NextStep::Wait), "{explained:?}");
            assert!(explained.explanation.contains("CIRCUIT_OPEN"), "{explained:?}");
            assert_eq!(explained.attempts, [], "nothing was attempted");
            let facts = explained.credential.unwrap();
            assert_eq!((facts.failure_class(), facts.refresh_failure_count), (v1::FailureClass::Unspecified, 0));
        }
    }

    /// An outage whose front answers at once leaves no more grants in doubt than one that hangs.
    async fn failures_count_as_no_answer(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let outage = [500, 200, 502, 504, 200].map(|status| match status {
            200 => ProviderFault::web_page(),
            _ => ProviderFault::status(status),
        });
        for (number, fault) in outage.into_iter().enumerate() {
            assert_eq!(silent(&server), 0.0);
            let grant = world.expired(&format!("lost-{number}")).await;
            world.provider.fail([fault]);
            refused(world.issue(&grant.credential).await, Code::FailedPrecondition, "REAUTH_REQUIRED");
        }
        assert_eq!((silent(&server), world.provider.requests().len()), (1.0, UNANSWERED));
        let expired = world.expired("ada").await;
        refused(world.issue(&expired.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.provider.requests().len(), UNANSWERED);
    }

    /// They have waits of their own, and leave no grant in doubt.
    async fn refusals_are_answers(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        for (number, fault) in [
            ProviderFault::answer_lost(),
            ProviderFault::answer_lost(),
            ProviderFault::answer_lost(),
            ProviderFault::answer_lost(),
            ProviderFault::too_many(Duration::ZERO),
            ProviderFault::answer_lost(),
            ProviderFault::error(400, "invalid_grant"),
            ProviderFault::status(500),
        ].into_iter().enumerate() {
            let grant = world.expired(&format!("ada-{number}")).await;
            world.provider.fail([fault]);
            world.issue(&grant.credential).await.unwrap_err();
        }
        assert_eq!((silent(&server), world.provider.requests().len()), (0.0, 8));
        let grant = world.expired("bob").await;
        world.issue(&grant.credential).await.unwrap();
    }
}
