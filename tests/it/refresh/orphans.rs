//! Attempts whose server has ended: they are settled soon, although no caller asks for their credential.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Backend, ProviderFault, ProviderOptions, TestServer, fixture, on_both};
use tokio::time::{Instant, sleep};

use super::world::{Grant, World};

/// The time by which an attempt has to be settled, after the end of its lease.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A server whose leases end after 3 s.
async fn hasty(backend: Backend) -> TestServer {
    TestServer::start_with(backend, |config| config.refresh.timeout = Duration::from_secs(1)).await
}

/// Has a server crash while the provider holds back its answer to a refresh, and starts it again. No caller asks for the credential any more.
async fn crashed_during_a_refresh(server: &mut TestServer, world: World, grant: &Grant) -> World {
    world.provider.fail([ProviderFault::none().held(&Gate::closed())]);
    tokio::select! {
        answer = world.issue(&grant.credential) => panic!("the provider has not answered: {answer:?}"),
        () = world.sent(1) => {}
    }
    server.crash();
    server.restart().await;
    World { client: server.client("alpha"), ..world }
}

/// Waits until the newest attempt of a credential has an end, without asking for its token.
async fn settled(world: &World, grant: &Grant) -> v1::ExplainCredentialResponse {
    let until = Instant::now() + SETTLED_WITHIN + Duration::from_secs(3);
    loop {
        let explained = world.explain(&grant.credential).await;
        if explained.attempts.iter().all(|attempt| attempt.outcome() != v1::RefreshOutcome::Unspecified) {
            return explained;
        }
        assert!(Instant::now() < until, "{explained:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The server was only slow, and another one has taken it for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_not_processed_is_no_loss_once_that_is_reported() {
    let minute = Duration::from_secs(60);
    let server = TestServer::start_with(Backend::Postgres, |config| config.refresh.timeout = minute).await;
    let _replica = server.replica().await.unwrap();
    let world = World::on(&server, ProviderOptions::default()).await;
    let timeout = || Some(fixture::milliseconds(60_000));
    let connector = v1::Connector { read_timeout: timeout(), total_timeout: timeout(), ..Default::default() };
    let request = v1::UpdateConnectorRequest {
        reference: world.connector.clone(),
        connector: Some(connector),
        ..Default::default()
    };
    world.client.connectors().update_connector(request).await.unwrap();
    let grant = world.expired("ada").await;
    let gate = Gate::closed();
    world.provider.fail([ProviderFault::status(503).held(&gate)]);
    tokio::select! {
        answer = world.issue(&grant.credential) => panic!("the provider has not answered: {answer:?}"),
        () = world.sent(1) => {}
    }
    server.sql("UPDATE refresh_lease SET until_time = 0").await;
    let explained = settled(&world, &grant).await;
    let facts = explained.credential.unwrap();
    let found = (facts.state(), facts.failure_class(), &*facts.failure_reason, facts.next_refresh_time);
    let expected = (v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate, "PROCESS_ENDED", None);
    assert_eq!(found, expected);

    gate.open();
    let facts =
        world.facts_when(&grant.credential, |facts| facts.failure_class() != v1::FailureClass::Indeterminate).await;
    let found = (facts.state(), facts.failure_class(), facts.refresh_failure_count, facts.version);
    // Its token has expired.
    assert_eq!(found, (v1::CredentialState::Expired, v1::FailureClass::Transient, 1, 1), "{facts:?}");
    assert!(facts.next_refresh_time.is_some(), "it is tried again");
    let attempts = world.explain(&grant.credential).await.attempts;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| (attempt.outcome(), attempt.status)).collect();
    assert_eq!((outcomes, world.provider.requests().len()), (vec![(v1::RefreshOutcome::NotProcessed, 503)], 1));
}

on_both! {
    async fn one_that_may_have_spent_its_refresh_token_needs_the_user(backend: Backend) {
        let mut server = hasty(backend).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let world = crashed_during_a_refresh(&mut server, world, &grant).await;
        let explained = settled(&world, &grant).await;
        let [attempt] = &explained.attempts[..] else { panic!("{explained:?}") };
        assert_eq!((attempt.outcome(), &*attempt.reason), (v1::RefreshOutcome::Lost, "PROCESS_ENDED"));
        let expected = (v1::ErrorReason::ReauthRequired, v1::NextStep::Reauthorize);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        let facts = explained.credential.unwrap();
        let found = (facts.state(), facts.failure_class(), &*facts.failure_reason, facts.refresh_failure_count);
        let expected = (v1::CredentialState::Indeterminate, v1::FailureClass::Indeterminate, "PROCESS_ENDED", 1);
        assert_eq!(found, expected);
        assert_eq!((world.provider.requests().len(), world.provider.reuses(grant.family)), (1, 0));
        let lost = server.metric("jackfield_credential_refreshes_total", &[("outcome", "unknown")]);
        assert_eq!(lost, Some(1.0));
    }

    /// The time for which the provider accepts it again passes, whether or not a caller asks.
    async fn one_whose_refresh_token_is_accepted_again_is_repeated(backend: Backend) {
        let mut server = hasty(backend).await;
        let options = ProviderOptions { grace: Duration::from_secs(120), ..ProviderOptions::default() };
        let world = World::with(&server, options, |connection| {
            connection.refresh_token_grace_period = Some(fixture::milliseconds(120_000));
        })
        .await;
        let grant = world.expired("ada").await;
        let world = crashed_during_a_refresh(&mut server, world, &grant).await;
        let explained = settled(&world, &grant).await;
        let attempts: Vec<_> = explained.attempts.iter().map(|attempt| (attempt.outcome(), &*attempt.reason)).collect();
        assert_eq!(attempts, [(v1::RefreshOutcome::Refreshed, ""), (v1::RefreshOutcome::Lost, "PROCESS_ENDED")]);
        let facts = explained.credential.unwrap();
        assert_eq!((facts.state(), facts.version), (v1::CredentialState::Valid, 2));
        let issued = world.issue(&grant.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);
        assert_eq!((world.provider.requests().len(), world.provider.reuses(grant.family)), (2, 0));
    }

    /// It says nothing about what a caller has stored meanwhile.
    async fn one_of_other_material_has_an_end_alone(backend: Backend) {
        let mut server = hasty(backend).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.expired("ada").await;
        let world = crashed_during_a_refresh(&mut server, world, &grant).await;
        let again = world.provider.grant("ada", &["read"]);
        world.replace_all(&grant.credential, &again.access_token, &again.refresh_token).await;
        let explained = settled(&world, &grant).await;
        assert_eq!(explained.attempts[0].outcome(), v1::RefreshOutcome::Lost);
        let facts = explained.credential.unwrap();
        let found = (facts.state(), facts.failure_class(), facts.refresh_failure_count);
        assert_eq!(found, (v1::CredentialState::Valid, v1::FailureClass::Unspecified, 0));
        assert_eq!(world.refresh(&grant.credential).await.unwrap().version, 3);
    }
}
