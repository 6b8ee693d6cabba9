//! The return of the browser of a cookie-bound session: however often it loads its page, one code is redeemed, and its page says what is true.

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::{ManualClock, on_both};

use super::bound::{Browser, ended, request, start, visited};
use super::callback::{HOME, browse_with, server, world};
use super::get;
use crate::steps;

on_both! {
    async fn pages_that_are_loaded_again_wait_for_one_redemption(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        for return_uri in ["", HOME] {
            let request = v1::StartAuthorizationRequest { return_uri: return_uri.to_owned(), ..request(&world, "ada") };
            let mut ada = Browser::of("ada");
            let (session, target) = visited((&world, &server), &mut ada, request).await;
            let redeemed = world.provider.redeemed().len();
            let cookie = ada.cookie();
            let headers = [("cookie", &*cookie)];
            world.provider.system.hold();
            let pages = join_all((0..8).map(|_| browse_with(&server, "GET", &target, &headers)));
            let release = async {
                world.provider.system.requests(redeemed + 1).await;
                assert_eq!(ended(&world, &session).await.0, State::Confirmed);
                world.provider.system.release();
            };
            let (pages, ()) = tokio::join!(pages, release);
            for page in pages {
                match return_uri.is_empty() {
                    true => assert!(page.status == 200 && page.body.contains("<h1>Done</h1>"), "{}", page.body),
                    false => assert_eq!((page.status, page.headers.get("location").map(|to| &**to)), (303, Some(HOME))),
                }
            }
            assert_eq!(ended(&world, &session).await.0, State::Completed);
            assert_eq!(world.provider.redeemed().len(), redeemed + 1);
        }
    }

    async fn a_browser_does_not_come_back_in_vain_for_ever(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let mut ada = Browser::of("ada");
        let (session, target) = visited((&world, &server), &mut ada, request(&world, "ada")).await;
        let (other, other_target) = visited((&world, &server), &mut ada, request(&world, "ada")).await;
        steps::enable(&world.client, &world.connection.connector, false).await;
        for _ in 0..9 {
            assert_eq!(ada.open(&server, &target).await.status, 503, "the code can be brought again");
        }
        assert_eq!(ended(&world, &session).await.0, State::Started);
        assert_eq!(ada.open(&server, &target).await.status, 400);
        let failed = get(&world.client, &session.id).await.unwrap();
        let expected = (State::Failed, Failure::EndpointUnavailable, "CONNECTOR_DISABLED");
        assert_eq!((failed.state(), failed.failure(), &*failed.failure_detail), expected);
        steps::enable(&world.client, &world.connection.connector, true).await;
        assert_eq!(ada.open(&server, &target).await.status, 400);
        assert_eq!(world.provider.redeemed().len(), 0);
        assert_eq!(ada.open(&server, &other_target).await.status, 200, "each session has its own count");
        assert_eq!(ended(&world, &other).await.0, State::Completed);
    }

    async fn at_its_end_a_cookie_bound_session_keeps_no_secret(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let secrets = async || {
            server.sql("SELECT count(*) FROM secret WHERE owner = 'authorization_session'").await.remove(0)
        };
        let mut ada = Browser::of("ada");
        let openid = || {
            let scopes = ["openid", "read"].map(str::to_owned).to_vec();
            v1::StartAuthorizationRequest { scopes, ..request(&world, "ada") }
        };
        let (completed, target) = visited((&world, &server), &mut ada, openid()).await;
        assert_eq!(secrets().await, "3", "the URL of the provider, the code verifier and the nonce");
        assert_eq!(ada.open(&server, &target).await.status, 200);
        assert_eq!((ended(&world, &completed).await.0, secrets().await), (State::Completed, "0".to_owned()));

        let (_, connect) = start(&world, openid()).await;
        assert_eq!(Browser::of("eve").open(&server, &connect).await.status, 400);
        assert_eq!(secrets().await, "0", "it was opened by another user");
        let (_, target) = visited((&world, &server), &mut ada, openid()).await;
        assert_eq!(Browser::of("ada").open(&server, &target).await.status, 400);
        assert_eq!(secrets().await, "0", "it came back in another browser");
        let (session, _) = visited((&world, &server), &mut ada, openid()).await;
        let cancel = v1::CancelAuthorizationRequest { reference: session.id, ..Default::default() };
        world.client.connections().cancel_authorization(cancel).await.unwrap();
        assert_eq!(secrets().await, "0", "it was cancelled");
        world.provider.deny();
        let (_, target) = visited((&world, &server), &mut ada, openid()).await;
        assert_eq!(ada.open(&server, &target).await.status, 200);
        assert_eq!(secrets().await, "0", "the user said no");
    }
}
