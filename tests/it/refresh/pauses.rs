//! Pauses that a provider asks for: they hold for all refreshes of the connection.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::provider::Endpoint;
use jackfield_testkit::{ManualClock, ProviderFault, ProviderOptions, Reply, TestServer, on_both};
use tonic::Code;

use super::world::{World, eventually, refused};

const HOUR: Duration = Duration::from_secs(3_600);

/// A status with a pause of 30 s.
fn status_with_pause(status: u16) -> ProviderFault {
    let headers = vec![("retry-after", "30".to_owned())];
    ProviderFault::refused(Reply { headers, ..Reply::new(status, "") })
}

on_both! {
    async fn a_pause_is_one_of_the_whole_connection(backend: Backend) {
        for fault in [ProviderFault::too_many(Duration::from_secs(30)), status_with_pause(503)] {
            let clock = ManualClock::at_present();
            let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
            let world = World::on(&server, ProviderOptions::default()).await;
            let [ada, bob, good] =
                [world.expired("ada").await, world.expired("bob").await, world.granted("eve", 25).await];
            world.provider.fail([fault]);
            refused(world.issue(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            let refusals = [world.issue(&bob.credential).await.map(|_| ()), world.refresh(&bob.credential).await.map(|_| ())];
            for refusal in refusals {
                let refusal = refused(refusal, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
                assert!(refusal.status.message().contains("PROVIDER_PAUSE"), "{refusal:?}");
                let wait = refusal.details.retry_info().and_then(|retry| retry.retry_delay).unwrap();
                assert_eq!(wait, Duration::from_secs(30), "the clock stands still");
            }
            assert_eq!(world.issue(&good.credential).await.unwrap().access_token, good.access_token);
            refused(world.report(&good.credential, 1).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            assert_eq!(world.provider.requests().len(), 1, "the provider is not asked");
            let explained = world.explain(&bob.credential).await;
            let expected = (v1::ErrorReason::UpstreamUnavailable, v1::NextStep::Wait);
            assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
            assert!(explained.explanation.contains("PROVIDER_PAUSE"), "{explained:?}");
            assert_eq!((&*explained.attempts, explained.next_attempt_time), (&[][..], None), "nothing was attempted");
            let explained = world.explain(&good.credential).await;
            assert_eq!((explained.obstacle(), explained.next_step()), (v1::ErrorReason::Unspecified, v1::NextStep::Wait));

            clock.advance(Duration::from_secs(30));
            for grant in [&bob, &ada] {
                let issued = world.issue(&grant.credential).await.unwrap();
                assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
            }
        }
    }

    /// It is the pause of a client. Another one is worth a try.
    async fn a_connection_that_changes_is_asked_again(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::too_many(Duration::from_secs(600))]);
        refused(world.issue(&grant.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        let another = world.expired("bob").await;
        refused(world.issue(&another.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        world.set_secrets(&["client-secret-1", "another"]).await;
        world.issue(&another.credential).await.unwrap();
        assert_eq!(world.provider.requests().len(), 2);
    }

    /// The credential whose request was answered with the pause has it in its facts, which outlast the server.
    async fn a_change_of_the_connection_ends_the_wait_of_a_credential(server) {
        let mut server = server;
        let mut world = World::on(&server, ProviderOptions::default()).await;
        let [ada, bob] = [world.expired("ada").await, world.expired("bob").await];
        world.provider.fail([ProviderFault::too_many(HOUR), ProviderFault::too_many(HOUR)]);
        refused(world.issue(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        server.restart().await;
        world.client = server.client("alpha");
        refused(world.issue(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        refused(world.refresh(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        refused(world.issue(&bob.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.provider.requests().len(), 2, "the second server learns of it from the second credential");

        world.set_secrets(&["client-secret-1", "another"]).await;
        for grant in [&ada, &bob] {
            let explained = world.explain(&grant.credential).await;
            let expected = (v1::ErrorReason::Unspecified, v1::NextStep::None);
            assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        }
        world.provider.fail([ProviderFault::too_many(HOUR)]);
        refused(world.issue(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        refused(world.refresh(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert_eq!(world.provider.requests().len(), 3, "the wait after the change holds");

        world.set_secrets(&["client-secret-1"]).await;
        let issued = world.issue(&ada.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(ada.family).unwrap().access_token);
        world.refresh(&bob.credential).await.unwrap();
        assert_eq!(world.provider.requests().len(), 5);
    }

    /// A status of itself asks for none: other credentials are refreshed.
    async fn an_error_without_a_time_is_no_pause(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let [ada, bob] = [world.expired("ada").await, world.expired("bob").await];
        world.provider.fail([ProviderFault::status(503)]);
        refused(world.issue(&ada.credential).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        world.issue(&bob.credential).await.unwrap();
    }

    async fn the_schedule_waits_for_the_end_of_a_pause(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            // One at a time, so that none is on its way when the provider asks for the pause.
            (config.refresh.ahead, config.refresh.max_concurrent) = (true, 1);
        })
        .await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let arrivals = Arc::<Mutex<Vec<Instant>>>::default();
        let seen = Arc::clone(&arrivals);
        world.provider.fail_by(move |endpoint, number| {
            assert_eq!(endpoint, Endpoint::Token);
            seen.lock().unwrap().push(Instant::now());
            match number {
                0 => ProviderFault::too_many(Duration::from_secs(4)),
                _ => ProviderFault::none(),
            }
        });
        let grants = join_all((0..4).map(|number| {
            let world = &world;
            async move { world.expired(&format!("user-{number}")).await }
        }));
        let grants = grants.await;
        eventually("all are refreshed", || grants.iter().all(|grant| world.provider.exchanges(grant.family) == 1)).await;
        let arrivals = arrivals.lock().unwrap();
        // The provider notes them a little later than the server has its answer.
        assert!(arrivals[1] - arrivals[0] > Duration::from_millis(3_900), "{arrivals:?}");
        assert_eq!(arrivals.len(), 5);
    }
}
