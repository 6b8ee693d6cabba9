//! Refreshes of credentials at an authorisation server that replaces refresh tokens, and ends a grant when one is used twice.

mod client;
mod endpoint;
mod ends;
mod facts;
mod failures;
mod hanging;
mod import;
mod journal;
mod meanwhile;
mod orphans;
mod outlook;
mod pauses;
mod recreated;
mod reports;
mod silence;
mod unusable;
mod unwritable;
pub(crate) mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Backend, ManualClock, ProviderFault, ProviderOptions, TestServer, on_both};
use tonic::Code;

use self::world::{World, eventually, refused};

on_both! {
    async fn an_expired_token_is_replaced_before_it_is_issued(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let issued = world.issue(&grant.credential).await.unwrap();
        let live = world.provider.live(grant.family).unwrap();
        assert_eq!((&issued.access_token, &*issued.token_type, issued.credential_version), (&live.access_token, "Bearer", 2));
        assert_eq!(issued.scopes, ["read", "write"]);
        assert_eq!(world.issue(&grant.credential).await.unwrap(), issued, "it is issued until it runs out");
        assert_eq!(world.provider.exchanges(grant.family), 1);
        let refreshed = server.metric("jackfield_credential_refreshes_total", &[("outcome", "refreshed")]);
        assert_eq!(refreshed, Some(1.0));

        let facts = world.facts(&grant.credential).await;
        assert_eq!((facts.state(), facts.version, facts.refresh_failure_count), (v1::CredentialState::Valid, 2, 0));
        assert!(facts.last_refresh_time.is_some() && facts.refreshable);
        let lifetime = facts.expire_time.unwrap().seconds - facts.last_refresh_time.unwrap().seconds;
        assert!((3_590..=3_600).contains(&lifetime), "{lifetime}");
        let ahead = facts.expire_time.unwrap().seconds - facts.next_refresh_time.unwrap().seconds;
        assert!((2_390..=2_530).contains(&ahead), "{ahead}");
    }

    async fn callers_at_once_have_one_exchange(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::none().delayed(Duration::from_millis(300))]);
        let issued = join_all((0..50).map(|_| world.issue(&grant.credential))).await;
        let live = world.provider.live(grant.family).unwrap();
        assert!(issued.into_iter().all(|issued| issued.unwrap().access_token == live.access_token));
        assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (1, 0));
    }

    async fn a_refresh_goes_on_without_its_caller(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        tokio::select! {
            answer = world.issue(&grant.credential) => panic!("the provider has not answered: {answer:?}"),
            () = world.sent(1) => {}
        }
        gate.open();
        let issued = world.issue(&grant.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_eq!(world.provider.exchanges(grant.family), 1);
    }

    async fn a_refresh_that_a_caller_asks_for_replaces_a_good_token(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token);
        let facts = world.refresh(&grant.credential).await.unwrap();
        assert_eq!((facts.version, facts.state()), (2, v1::CredentialState::Valid));
        let issued = world.issue(&grant.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_ne!(issued.access_token, grant.access_token);
    }

    async fn a_rejected_token_is_replaced_once(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |_| {}).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.good("ada").await;
        let reports = join_all((0..10).map(|_| world.report(&grant.credential, 1))).await;
        let live = world.provider.live(grant.family).unwrap();
        for token in reports.into_iter().map(|report| report.unwrap().issued.unwrap()) {
            assert_eq!((&token.access_token, token.credential_version), (&live.access_token, 2));
        }
        assert_eq!(world.report(&grant.credential, 1).await.unwrap().issued.unwrap().credential_version, 2);
        assert_eq!(world.provider.exchanges(grant.family), 1);
        // By then it is no longer a young one.
        clock.advance(Duration::from_secs(60));
        assert_eq!(world.report(&grant.credential, 2).await.unwrap().issued.unwrap().credential_version, 3);
        let unknown = world.report(&grant.credential, 4).await;
        refused(unknown, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
        let none = world.report(&grant.credential, 0).await;
        refused(none, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["credential_version"]);
    }

    /// The user's id at the provider finds nothing, and neither does another user.
    async fn the_newest_credential_of_a_user_and_a_connection_is_issued(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let [first, newest, of_bob] = [world.good("ada").await, world.expired("ada").await, world.good("bob").await];
        let issued = world.issue_of("name:provider", "ada", &["read"]).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(newest.family).unwrap().access_token);
        assert_eq!((&issued.credential, issued.credential_version), (&newest.credential, 2));
        assert_eq!(issued.next_refresh_time, None, "no server refreshes it by itself");
        assert_eq!(world.issue_of(&world.connection.id, "bob", &[]).await.unwrap().access_token, of_bob.access_token);
        world.delete(&newest.credential).await;
        assert_eq!(world.issue_of("name:Provider", "ada", &[]).await.unwrap().access_token, first.access_token);
        refused(world.issue_of("name:Provider", "eve", &[]).await, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        refused(world.issue_of("name:another", "ada", &[]).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        let missing = world.issue_of("name:Provider", "ada", &["read", "b", "c"]).await;
        let missing = refused(missing, Code::FailedPrecondition, "SCOPE_MISSING");
        assert!(missing.status.message().ends_with(": b c"), "{missing:?}");
    }

    async fn a_validity_that_no_token_has_is_refused_without_a_refresh(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let two_hours = async || {
            let min_validity = Some(prost_types::Duration { seconds: 7_200, nanos: 0 });
            let request = v1::IssueAccessTokenRequest { reference: grant.credential.clone(), min_validity, ..Default::default() };
            world.client.credentials().issue_access_token(request).await
        };
        for _ in 0..3 {
            refused(two_hours().await, Code::FailedPrecondition, "CREDENTIAL_NOT_VALID");
            assert_eq!(world.provider.exchanges(grant.family), 1);
        }
        world.issue(&grant.credential).await.unwrap();
    }

    /// The schedule refreshes them, without a call.
    async fn a_backlog_keeps_within_the_budget_of_its_connection(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.refresh.ahead = true;
            (config.refresh.max_concurrent, config.refresh.max_per_second) = (4, 40);
        })
        .await;
        let world = World::on(&server, ProviderOptions::default()).await;
        world.provider.fail_by(|_, _| ProviderFault::none().delayed(Duration::from_millis(100)));
        let grants = join_all((0..40).map(|number| {
            let world = &world;
            async move { world.expired(&format!("user-{number}")).await }
        }));
        let (begin, grants) = (Instant::now(), grants.await);
        eventually("all are refreshed", || grants.iter().all(|grant| world.provider.exchanges(grant.family) == 1)).await;
        let totals = world.provider.totals();
        assert_eq!((totals.exchanges, totals.reuses), (40, 0));
        assert!(begin.elapsed() > Duration::from_millis(900), "40 in a second: {:?}", begin.elapsed());
    }

    /// Some servers send 0 where they mean that they do not tell it.
    async fn a_lifetime_of_0_is_not_told(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::members([("expires_in", 0.into())])]);
        let issued = world.issue(&grant.credential).await.unwrap();
        assert_eq!(issued.expire_time, None);
        assert!(world.facts(&grant.credential).await.next_refresh_time.is_some());
    }

    /// The schedule refreshes them, without a call.
    async fn tokens_are_replaced_ahead_of_their_expiry(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| config.refresh.ahead = true).await;
        let options = ProviderOptions { lifetime: Duration::from_secs(90), clock: Arc::clone(&clock) as _, ..ProviderOptions::default() };
        let world = World::on(&server, options).await;
        let grants = [world.good("ada").await, world.good("bob").await];
        for count in 1..=2 {
            // Half of the lifetime.
            clock.advance(Duration::from_secs(45));
            eventually("each is refreshed", || grants.iter().all(|grant| world.provider.exchanges(grant.family) == count)).await;
        }
        for grant in &grants {
            assert_eq!(world.provider.reuses(grant.family), 0);
            assert!(world.facts(&grant.credential).await.last_refresh_time.is_some());
        }
    }

    /// The provider is not asked again and again for a credential that is not used.
    async fn tokens_that_live_for_a_second_are_replaced_once_a_minute(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, Arc::clone(&clock) as _, |config| config.refresh.ahead = true).await;
        let options = ProviderOptions { lifetime: Duration::from_secs(1), clock: Arc::clone(&clock) as _, ..ProviderOptions::default() };
        let world = World::on(&server, options).await;
        let grant = world.expired("ada").await;
        eventually("it is refreshed", || world.provider.exchanges(grant.family) == 1).await;
        clock.advance(Duration::from_secs(50));
        // The schedule looks each second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(world.provider.exchanges(grant.family), 1);
        clock.advance(Duration::from_secs(10));
        eventually("it is refreshed again", || world.provider.exchanges(grant.family) == 2).await;
    }

    async fn relabelling_costs_no_refresh(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        world.provider.fail([ProviderFault::none().answering_after(Duration::from_millis(400))]);
        let relabel = async {
            for number in 0..20 {
                world.relabel(&grant.credential, number).await;
            }
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), relabel);
        assert_eq!(issued.unwrap().access_token, world.provider.live(grant.family).unwrap().access_token);
        let facts = world.facts(&grant.credential).await;
        assert_eq!((facts.version, &*facts.labels["number"]), (2, "19"));
    }

    async fn material_that_a_caller_stores_meanwhile_stays(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let replace = async {
            world.sent(1).await;
            world.replace(&grant.credential, "stored meanwhile").await;
            gate.open();
        };
        let (_, ()) = tokio::join!(world.refresh(&grant.credential), replace);
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, "stored meanwhile");
        // The refresh token that was sent is spent, and the one that came for it is stored.
        assert_eq!(world.facts(&grant.credential).await.version, 3);
        let live = world.provider.live(grant.family).unwrap();
        assert_eq!(world.reveal(&grant.credential).await.refresh_token, live.refresh_token);
        world.refresh(&grant.credential).await.unwrap();
        assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (2, 0));
    }

    async fn a_credential_that_is_deleted_meanwhile_stays_deleted(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let delete = async {
            world.sent(1).await;
            world.delete(&grant.credential).await;
            gate.open();
        };
        let (issued, ()) = tokio::join!(world.issue(&grant.credential), delete);
        refused(issued, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        assert_eq!(server.sql("SELECT COUNT(*) AS count FROM refresh_attempt").await, ["0"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_have_one_exchange() {
    let server = TestServer::start(Backend::Postgres).await;
    let others = [server.replica().await.unwrap(), server.replica().await.unwrap()];
    let world = World::on(&server, ProviderOptions::default()).await;
    let grant = world.expired("ada").await;
    world.provider.fail([ProviderFault::none().delayed(Duration::from_millis(500))]);
    let clients = [server.client("alpha"), others[0].client("alpha"), others[1].client("alpha")];
    let calls = clients.iter().flat_map(|client| (0..20).map(|_| world.issue_by(client, &grant.credential)));
    let issued = join_all(calls).await;
    let live = world.provider.live(grant.family).unwrap();
    assert!(issued.into_iter().all(|issued| issued.unwrap().access_token == live.access_token));
    assert_eq!((world.provider.exchanges(grant.family), world.provider.reuses(grant.family)), (1, 0));
}
