//! Refreshes that hang: the provider takes the request and says nothing. A token that is good for as long as its caller needs it is issued
//! meanwhile, and no call ends for want of an answer.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::provider::Gate;
use jackfield_testkit::{Backend, ProviderFault, ProviderOptions, TestServer, on_both};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::world::{World, refused};

/// The longest time that a caller waits who can do without the refresh, and as much again for a slow machine.
const SOON: Duration = Duration::from_secs(3);
/// A deadline that is over long before the provider is given up.
const DEADLINE: Duration = Duration::from_secs(2);

/// A server that waits for providers for longer than the calls of these tests last.
async fn patient(backend: Backend) -> TestServer {
    TestServer::start_with(backend, |config| config.refresh.timeout = Duration::from_secs(30)).await
}

/// Asks for a token that is good for so many seconds.
async fn issue(
    world: &World,
    credential: &str,
    seconds: i64,
    deadline: Duration,
) -> Result<v1::IssueAccessTokenResponse, Status> {
    let min_validity = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = v1::IssueAccessTokenRequest { reference: credential.to_owned(), min_validity, ..Default::default() };
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    world.client.credentials().issue_access_token(request).await.map(Response::into_inner)
}

on_both! {
    async fn a_token_that_is_good_enough_is_issued_while_its_refresh_hangs(backend: Backend) {
        let server = patient(backend).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.granted("ada", 28).await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let begin = Instant::now();
        let issued = issue(&world, &grant.credential, 5, DEADLINE * 5).await.unwrap();
        assert_eq!((&issued.access_token, issued.credential_version), (&grant.access_token, 1));
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        world.sent(1).await;
        // A caller who comes later does not wait at all, by whichever name.
        tokio::time::sleep_until(begin + Duration::from_millis(1_100)).await;
        let begin = Instant::now();
        for _ in 0..5 {
            assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, grant.access_token);
            let issued = world.issue_of("name:provider", "ada", &["read"]).await.unwrap();
            assert_eq!(issued.access_token, grant.access_token);
        }
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        let explained = world.explain(&grant.credential).await;
        assert!(explained.explanation.contains("a refresh is under way"), "{explained:?}");
        assert_eq!(world.provider.requests().len(), 1, "one refresh is under way");
        gate.open();
        world.facts_when(&grant.credential, |facts| facts.version == 2).await;
        assert_eq!(world.provider.requests().len(), 1, "it went on");
        let live = world.provider.live(grant.family).unwrap();
        assert_eq!(world.issue(&grant.credential).await.unwrap().access_token, live.access_token);
    }

    /// A demand that the token does not fulfil is not ignored, and the caller learns what there is.
    async fn a_token_that_is_not_good_for_long_enough_is_an_error(backend: Backend) {
        let server = patient(backend).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let grant = world.granted("ada", 28).await;
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate)]);
        let refusal = issue(&world, &grant.credential, 60, DEADLINE).await;
        let refusal = refused(refusal, Code::Unavailable, "REFRESH_IN_PROGRESS");
        let message = refusal.status.message();
        assert!(message.contains("the present token is good until 20") && message.contains("min_validity"), "{message}");
        assert!(refusal.details.retry_info().is_some());
        gate.open();
        let issued = issue(&world, &grant.credential, 60, DEADLINE * 5).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(grant.family).unwrap().access_token);

        let another = world.granted("bob", 28).await;
        world.provider.fail([ProviderFault::status(503)]);
        let refusal = issue(&world, &another.credential, 60, DEADLINE * 5).await;
        let refusal = refused(refusal, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        assert!(refusal.status.message().contains("less than min_validity"), "{refusal:?}");
        assert_eq!(issue(&world, &another.credential, 5, DEADLINE).await.unwrap().access_token, another.access_token);
    }

    /// The call has an answer before its deadline, and the refresh goes on.
    async fn whoever_needs_the_new_token_is_told_to_come_again(backend: Backend) {
        let server = patient(backend).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let [grant, good] = [world.expired("ada").await, world.good("bob").await];
        let gate = Gate::closed();
        world.provider.fail([ProviderFault::none().held(&gate), ProviderFault::none().held(&gate)]);
        refused(issue(&world, &grant.credential, 0, DEADLINE).await, Code::Unavailable, "REFRESH_IN_PROGRESS");
        let mut request = Request::new(v1::RefreshCredentialRequest { reference: grant.credential.clone() });
        request.set_timeout(DEADLINE);
        let refresh = world.client.credentials().refresh_credential(request).await;
        refused(refresh.map(Response::into_inner), Code::Unavailable, "REFRESH_IN_PROGRESS");
        let request = v1::ReportTokenRejectedRequest {
            reference: good.credential.clone(),
            credential_version: 1,
            ..Default::default()
        };
        let mut request = Request::new(request);
        request.set_timeout(DEADLINE);
        let report = world.client.credentials().report_token_rejected(request).await;
        refused(report.map(Response::into_inner), Code::Unavailable, "REFRESH_IN_PROGRESS");
        gate.open();
        for grant in [&grant, &good] {
            assert_eq!(world.refresh(&grant.credential).await.unwrap().state(), v1::CredentialState::Valid);
            assert_eq!(world.provider.reuses(grant.family), 0);
        }
    }
}
