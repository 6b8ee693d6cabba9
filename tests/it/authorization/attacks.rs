//! A party that is not the user, the principal or the tenant of a session wins nothing with it, and no code leaves before that is known.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::data::principal;
use jackfield_testkit::{Brought, ManualClock, OAuthProvider, TestServer, expect_status, on_both};
use tonic::{Code, Response};

use super::start::update;
use super::{BACK, World, complete, get};
use crate::steps;

/// Completes with what was brought, changed somehow, and returns the state and the failure.
async fn ends(world: &World, change: impl FnOnce(&mut Brought)) -> (State, Failure, String) {
    let (session, mut brought) = world.visited("ada").await;
    change(&mut brought);
    let ended = complete(&world.client, brought.completion("ada")).await.unwrap();
    assert_eq!(get(&world.client, &session.id).await.unwrap(), ended);
    // It is used once.
    let again = complete(&world.client, brought.completion("ada")).await;
    expect_status(again.map(Response::new), Code::FailedPrecondition, "AUTHORIZATION_ENDED");
    (ended.state(), ended.failure(), ended.failure_detail)
}

/// Checks that the log has an attack, in one line without what the browser brought.
pub(super) fn warned(session: &v1::AuthorizationSession, reason: &str, query: &str) {
    let log = jackfield_testkit::logs::text();
    let line = log.lines().find(|line| line.contains(&session.id) && line.contains(reason) && line.contains("WARN"));
    let line = line.unwrap_or_else(|| panic!("{reason} is not logged"));
    for value in query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1)) {
        assert!(!line.contains(value), "{line}");
    }
}

on_both! {
    async fn the_issuer_is_checked_before_the_code_goes_anywhere(server) {
        let world = World::new(&server).await;
        let evil = || Some("https://evil.example".to_owned());
        let mismatch = (State::Failed, Failure::IssuerMismatch, String::new());
        let missing = (State::Failed, Failure::IssuerMissing, String::new());
        assert_eq!(ends(&world, |brought| brought.iss = evil()).await, mismatch);
        assert_eq!(ends(&world, |brought| brought.iss = Some("https://as.example.com/".to_owned())).await, mismatch);
        assert_eq!(ends(&world, |brought| brought.iss = Some(String::new())).await, mismatch);
        assert_eq!(ends(&world, |brought| brought.iss = None).await, missing);
        // Of an error of another issuer nothing is believed.
        let error = |brought: &mut Brought, iss| {
            (brought.code, brought.error, brought.iss) = (String::new(), "access_denied".to_owned(), iss);
        };
        assert_eq!(ends(&world, |brought| error(brought, evil())).await, mismatch);
        assert_eq!(ends(&world, |brought| error(brought, None)).await, missing);
        assert_eq!(world.provider.redeemed(), Vec::<String>::new());
    }

    async fn the_uri_of_an_application_needs_an_issuer_in_the_answers(server) {
        // An application may have one URI for several connections. A provider of one of them could send the browser there with the code of
        // another, and nothing would tell them apart.
        let world = World::with(&server, |connection| connection.iss_parameter_supported = None).await;
        for redirect_uri in ["", BACK] {
            let request =
                v1::StartAuthorizationRequest { redirect_uri: redirect_uri.to_owned(), ..world.request("ada") };
            let refused = world.client.connections().start_authorization(request).await;
            let refusal = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
            refusal.expect_fields(&["redirect_uri"]);
            assert!(format!("{:?}", refusal.status).contains("iss_parameter_supported"), "{:?}", refusal.status);
        }
    }

    async fn a_code_goes_only_to_the_endpoint_and_the_client_that_it_is_for(server) {
        let world = World::new(&server).await;
        let other = OAuthProvider::start(&[BACK]).await;
        let changes = [
            ("token_url", v1::Connection { token_url: Some(other.system.url("/token")), ..Default::default() }),
            ("client_id", v1::Connection { client_id: Some("c2".to_owned()), ..Default::default() }),
        ];
        for (path, change) in changes {
            let (session, brought) = world.visited("ada").await;
            update(&world, &[path], change).await;
            let failed = complete(&world.client, brought.completion("ada")).await.unwrap();
            assert_eq!((failed.state(), failed.failure()), (State::Failed, Failure::ConnectionChanged), "{path}");
            assert_eq!(get(&world.client, &session.id).await.unwrap(), failed);
            update(&world, &[path], world.connection.clone()).await;
        }
        assert_eq!((world.provider.redeemed().len(), other.redeemed().len()), (0, 0));
        // A secret can be replaced at any time.
        let brought = world.visited("ada").await.1;
        let value = jackfield_testkit::oauth::CLIENT.1.to_owned();
        let secret = v1::ClientSecret { secret_id: "new".to_owned(), value, ..Default::default() };
        update(&world, &["client_secrets"], v1::Connection { client_secrets: vec![secret], ..Default::default() }).await;
        assert_eq!(complete(&world.client, brought.completion("ada")).await.unwrap().state(), State::Completed);
    }

    async fn errors_of_the_provider_end_the_session(server) {
        let world = World::new(&server).await;
        world.provider.deny();
        assert_eq!(ends(&world, |_| {}).await, (State::Denied, Failure::Unspecified, "access_denied".to_owned()));
        let error = |code: &'static str| move |brought: &mut Brought| brought.error = code.to_owned();
        let failed = |detail: &str| (State::Failed, Failure::ProviderError, detail.to_owned());
        assert_eq!(ends(&world, error("invalid_scope")).await, failed("invalid_scope"));
        assert_eq!(ends(&world, error("the secret is s3cr3t")).await, failed("UNKNOWN_ERROR_CODE"));
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn a_link_that_was_passed_on_wins_nothing(server) {
        let world = World::new(&server).await;
        // Eve starts it, and has Ada open the link: Ada's browser brings the code to the application, where Ada is logged in.
        let (session, brought) = world.visited("eve").await;
        let failed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!((failed.state(), failed.failure()), (State::Failed, Failure::UserMismatch));
        warned(&session, "USER_MISMATCH", &format!("state={}&code={}", brought.state, brought.code));
        let eve = complete(&world.client, brought.completion("eve")).await;
        expect_status(eve.map(Response::new), Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        assert_eq!(get(&world.client, &session.id).await.unwrap(), failed);
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn the_session_and_its_user_are_checked_before_the_connection(server) {
        let world = World::new(&server).await;
        let (_, ended) = world.visited("ada").await;
        complete(&world.client, ended.completion("ada")).await.unwrap();
        let (_, brought) = world.visited("ada").await;
        let (_, of_eve) = world.visited("eve").await;
        steps::enable(&world.client, &world.connection.connector, false).await;
        let again = complete(&world.client, ended.completion("ada")).await.map(Response::new);
        expect_status(again, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        let failed = complete(&world.client, of_eve.completion("ada")).await.unwrap();
        assert_eq!(failed.failure(), Failure::UserMismatch);
        // It is for this user, so its code waits for the connector.
        let refused = complete(&world.client, brought.completion("ada")).await.map(Response::new);
        expect_status(refused, Code::FailedPrecondition, "CONNECTOR_DISABLED");
        steps::enable(&world.client, &world.connection.connector, true).await;
        assert_eq!(complete(&world.client, brought.completion("ada")).await.unwrap().state(), State::Completed);
    }

    async fn another_principal_or_tenant_cannot_complete_it(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.identity.principals.push(principal("second", "alpha", &["*"]));
        })
        .await;
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        let second = server.client("second");
        let refused = complete(&second, brought.completion("ada")).await.map(Response::new);
        expect_status(refused, Code::FailedPrecondition, "AUTHORIZATION_MISMATCH");
        let cancel = v1::CancelAuthorizationRequest { reference: session.id.clone(), ..Default::default() };
        let refused = second.connections().cancel_authorization(cancel).await;
        expect_status(refused, Code::FailedPrecondition, "AUTHORIZATION_MISMATCH");
        assert_eq!(get(&second, &session.id).await.unwrap(), session, "it is visible, and nothing was changed");
        let beta = server.client("beta");
        let refused = complete(&beta, brought.completion("ada")).await.map(Response::new);
        expect_status(refused, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        let refused = get(&beta, &session.id).await.map(Response::new);
        expect_status(refused, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        assert_eq!(world.provider.redeemed().len(), 0);
        let completed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(completed.state(), State::Completed);
    }

    async fn a_session_ends_after_ten_minutes_or_when_it_is_cancelled(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        clock.advance(Duration::from_secs(10 * 60));
        assert_eq!(get(&world.client, &session.id).await.unwrap().state(), State::Expired);
        let late = complete(&world.client, brought.completion("ada")).await;
        expect_status(late.map(Response::new), Code::FailedPrecondition, "AUTHORIZATION_ENDED");

        let (session, brought) = world.visited("ada").await;
        let cancel = || v1::CancelAuthorizationRequest { reference: session.id.clone(), ..Default::default() };
        for _ in 0..2 {
            let cancelled = world.client.connections().cancel_authorization(cancel()).await.unwrap().into_inner();
            assert_eq!(cancelled.authorization.unwrap().state(), State::Cancelled);
        }
        let late = complete(&world.client, brought.completion("ada")).await;
        expect_status(late.map(Response::new), Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        assert_eq!(world.provider.redeemed().len(), 0);
        let completed = world.authorized("ada").await;
        let cancel = v1::CancelAuthorizationRequest { reference: completed.id, ..Default::default() };
        let refused = world.client.connections().cancel_authorization(cancel).await;
        expect_status(refused, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
    }

    async fn two_that_complete_at_once_redeem_once(server) {
        let world = World::new(&server).await;
        let brought = world.visited("ada").await.1;
        let calls = (0..8).map(|_| complete(&world.client, brought.completion("ada")));
        let outcomes = futures::future::join_all(calls).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len(), world.provider.redeemed().len()), (1, 7, 1));
        for lost in lost {
            expect_status(lost.map(Response::new), Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        }
    }

    async fn a_caller_that_leaves_does_not_lose_the_tokens(server) {
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        let request = v1::WatchAuthorizationRequest { reference: session.id.clone() };
        let mut watching = world.client.connections().watch_authorization(request).await.unwrap().into_inner();
        world.provider.system.hold();
        let (client, completion) = (world.client.clone(), brought.completion("ada"));
        let call = tokio::spawn(async move { complete(&client, completion).await });
        // It leaves while the code is redeemed.
        world.provider.system.requests(1).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(get(&world.client, &session.id).await.unwrap().state(), State::Confirmed);
        world.provider.system.release();
        let mut last = State::Started;
        while let Some(next) = futures::StreamExt::next(&mut watching).await {
            last = next.unwrap().authorization.unwrap().state();
        }
        assert_eq!(last, State::Completed);
    }
}
