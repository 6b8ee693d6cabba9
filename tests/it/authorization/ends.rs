//! The ends of sessions that are not completed: nothing of them stays, and nobody can pile them up.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::AuthorizationState as State;
use jackfield_testkit::{ManualClock, TestServer, expect_status, on_both};
use tonic::{Code, Response};

use super::{World, callback, complete, get};
use crate::storage::eventually;

/// The number of sealed secrets of sessions.
async fn secrets(server: &TestServer) -> String {
    server.sql("SELECT count(*) FROM secret WHERE owner = 'authorization_session'").await.remove(0)
}

on_both! {
    async fn an_expired_session_keeps_no_secret(backend: Backend) {
        let clock = ManualClock::at_present();
        let mut server = callback::server(backend, &clock).await;
        let world = callback::world(&server).await;
        // One that is completed too late, one that comes back to the listener too late, and two of which nothing is heard.
        let (late, brought) = world.visited("ada").await;
        let (unbrought, url) = callback::start(&world, "ada").await;
        let target = callback::sent_back(&world, &url).await;
        let (silent, url) = callback::start(&world, "eve").await;
        assert_eq!(callback::browse(&server, "GET", &callback::sent_back(&world, &url).await).await.status, 303);
        let (unheard, _) = world.start(world.request("eve")).await;
        assert_eq!(secrets(&server).await, "5", "four code verifiers and a code");
        clock.advance(Duration::from_secs(10 * 60));
        let ended = complete(&world.client, brought.completion("ada")).await.map(Response::new);
        expect_status(ended, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        assert_eq!(secrets(&server).await, "4");
        assert_eq!(callback::browse(&server, "GET", &target).await.status, 410);
        assert_eq!(secrets(&server).await, "3");
        let of_all = async |client: &jackfield_testkit::Client| {
            let sessions = [&late, &unbrought, &unheard, &silent].map(|session| get(client, &session.id));
            futures::future::join_all(sessions).await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        let before = of_all(&world.client).await;
        assert_eq!(before.iter().map(v1::AuthorizationSession::state).collect::<Vec<_>>(), [State::Expired, State::Expired, State::Expired, State::Failed]);
        // Maintenance begins at the start.
        server.restart().await;
        eventually("nothing is sealed", async || secrets(&server).await == "0").await;
        assert_eq!(of_all(&server.client("alpha")).await, before, "what is told of them is the same");
    }
}
