//! The ends of sessions that are not completed: nothing of them stays, and no user can pile them up.

use std::time::Duration;

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_api::v1::AuthorizationState as State;
use jackfield_testkit::{Client, ManualClock, TestServer, expect_status, on_both};
use tonic::{Code, Response};

use super::{World, callback, complete, get};
use crate::steps;
use crate::storage::eventually;

/// The number of sealed secrets of sessions.
async fn secrets(server: &TestServer) -> String {
    server.sql("SELECT count(*) FROM secret WHERE owner = 'authorization_session'").await.remove(0)
}

async fn states(client: &Client, sessions: &[v1::AuthorizationSession]) -> Vec<State> {
    let sessions = sessions.iter().map(|session| get(client, &session.id));
    futures::future::join_all(sessions).await.into_iter().map(|session| session.unwrap().state()).collect()
}

on_both! {
    async fn a_user_has_ten_open_sessions_for_a_connection(server) {
        let world = World::new(&server).await;
        let (others, _) = world.start(world.request("eve")).await;
        let (first, brought) = world.visited("ada").await;
        let request = v1::WatchAuthorizationRequest { reference: first.id.clone() };
        let mut watching = world.client.connections().watch_authorization(request).await.unwrap().into_inner();
        let mut sessions = vec![first];
        for _ in 1..12 {
            sessions.push(world.start(world.request("ada")).await.0);
        }
        let expected = [vec![State::Cancelled; 2], vec![State::Started; 10]].concat();
        assert_eq!(states(&world.client, &sessions).await, expected, "the oldest end");
        assert_eq!(states(&world.client, &[others]).await, [State::Started]);
        assert_eq!(secrets(&server).await, "11");
        let ended = complete(&world.client, brought.completion("ada")).await.map(Response::new);
        expect_status(ended, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        let mut last = State::Started;
        while let Some(next) = watching.next().await {
            last = next.unwrap().authorization.unwrap().state();
        }
        assert_eq!(last, State::Cancelled);
        // Those that have ended do not count.
        for session in &sessions[2..] {
            let cancel = v1::CancelAuthorizationRequest { reference: session.id.clone(), ..Default::default() };
            world.client.connections().cancel_authorization(cancel).await.unwrap();
        }
        world.authorized("ada").await;
        let newest = world.start(world.request("ada")).await.0;
        assert_eq!(states(&world.client, &[newest]).await, [State::Started]);
    }

    async fn a_user_who_is_unlinked_is_not_linked_again(server) {
        let world = World::new(&server).await;
        let connector = world.connection.connector.clone();
        // Before there is a link, and when there is one.
        for removed in [false, true] {
            let (session, brought) = world.visited("ada").await;
            let others = world.start(world.request("eve")).await.0;
            let request = v1::RemoveUserConnectorRequest {
                user_id: "ada".to_owned(),
                connector: connector.clone(),
                ..Default::default()
            };
            let validated = v1::RemoveUserConnectorRequest { validate_only: true, ..request.clone() };
            world.client.user_connectors().remove_user_connector(validated).await.unwrap();
            assert_eq!(states(&world.client, std::slice::from_ref(&session)).await, [State::Started]);
            let answer = world.client.user_connectors().remove_user_connector(request).await.unwrap().into_inner();
            assert_eq!((answer.removed, answer.authorizations_cancelled), (removed, 1));
            let only = "there is no such link; authorisations of the user that were open for the connector were cancelled";
            assert_eq!(answer.warning, if removed { "" } else { only });
            assert_eq!(states(&world.client, &[session, others]).await, [State::Cancelled, State::Started]);
            let ended = complete(&world.client, brought.completion("ada")).await.map(Response::new);
            expect_status(ended, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
            assert_eq!(world.provider.redeemed().len(), 0);
            steps::link(&world.client, "ada", &connector).await;
        }
        // By the id of the link.
        let session = world.start(world.request("ada")).await.0;
        let reference = steps::link(&world.client, "ada", &connector).await.id;
        let request = v1::RemoveUserConnectorRequest { reference, ..Default::default() };
        assert!(world.client.user_connectors().remove_user_connector(request).await.unwrap().into_inner().removed);
        assert_eq!(states(&world.client, &[session]).await, [State::Cancelled]);
    }

    async fn a_credential_that_is_revoked_or_deleted_gets_no_tokens_afterwards(server) {
        let world = World::new(&server).await;
        // When it is valid, when it was revoked already, and when it is deleted.
        let credential = world.authorized("ada").await.credential;
        for (step, deletes) in [(0, false), (1, false), (2, true)] {
            let request = v1::StartAuthorizationRequest { credential: credential.clone(), ..world.request("ada") };
            let (session, url) = world.start(request).await;
            let brought = world.provider.visit(&url).await;
            let others = [world.start(world.request("ada")).await.0, world.start(world.request("eve")).await.0];
            let watch = v1::WatchAuthorizationRequest { reference: session.id.clone() };
            let mut watching = world.client.connections().watch_authorization(watch).await.unwrap().into_inner();
            for validate_only in [true, false] {
                let mut client = world.client.credentials();
                let reference = credential.clone();
                if deletes {
                    let request = v1::DeleteCredentialRequest { reference, validate_only, ..Default::default() };
                    client.delete_credential(request).await.unwrap();
                } else {
                    let request = v1::RevokeCredentialRequest { reference, validate_only, ..Default::default() };
                    assert_eq!(client.revoke_credential(request).await.unwrap().into_inner().revoked, step == 0);
                }
                let expected = if validate_only { State::Started } else { State::Cancelled };
                assert_eq!(states(&world.client, std::slice::from_ref(&session)).await, [expected], "{step}");
            }
            assert_eq!(states(&world.client, &others).await, [State::Started; 2], "they are for no credential");
            let late = complete(&world.client, brought.completion("ada")).await.map(Response::new);
            expect_status(late, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
            let mut last = State::Started;
            while let Some(next) = watching.next().await {
                last = next.unwrap().authorization.unwrap().state();
            }
            assert_eq!(last, State::Cancelled);
        }
        assert_eq!(world.provider.redeemed().len(), 1);
        assert_eq!(secrets(&server).await, "6", "of those that go on");
    }

    async fn tokens_that_are_coming_do_not_bring_a_revoked_credential_back(server) {
        let world = World::new(&server).await;
        let credential = world.authorized("ada").await.credential;
        let request = v1::StartAuthorizationRequest { credential: credential.clone(), ..world.request("ada") };
        let (session, url) = world.start(request).await;
        let brought = world.provider.visit(&url).await;
        world.provider.system.hold();
        let revoked = async {
            world.provider.system.requests(2).await;
            assert_eq!(states(&world.client, std::slice::from_ref(&session)).await, [State::Confirmed]);
            let request = v1::RevokeCredentialRequest { reference: credential.clone(), ..Default::default() };
            let revoked = world.client.credentials().revoke_credential(request).await;
            world.provider.system.release();
            revoked.unwrap()
        };
        let (completed, _) = tokio::join!(complete(&world.client, brought.completion("ada")), revoked);
        assert_eq!(completed.unwrap().state(), State::Cancelled);
        let facts = steps::credential_now(&world.client, &credential).await;
        assert_eq!((facts.state(), facts.refreshable), (v1::CredentialState::Revoked, false));
        assert_eq!(server.sql("SELECT count(*) FROM secret WHERE name = 'material'").await, ["0"]);
    }

    async fn with_a_connection_its_sessions_are_deleted(server) {
        let world = World::new(&server).await;
        let (session, brought) = world.visited("ada").await;
        let delete = v1::DeleteConnectionRequest { reference: world.connection.id.clone(), ..Default::default() };
        world.client.connections().delete_connection(delete).await.unwrap();
        let gone = get(&world.client, &session.id).await.map(Response::new);
        expect_status(gone, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        // A connection with the same id is another one.
        let connection = v1::Connection { id: String::new(), etag: String::new(), ..world.connection.clone() };
        let secret = v1::ClientSecret {
            value: jackfield_testkit::oauth::CLIENT.1.to_owned(),
            ..Default::default()
        };
        let connection = Some(v1::Connection { client_secrets: vec![secret], ..connection });
        let request =
            v1::CreateConnectionRequest { id: world.connection.id.clone(), connection, ..Default::default() };
        world.client.connections().create_connection(request).await.unwrap();
        let late = complete(&world.client, brought.completion("ada")).await.map(Response::new);
        expect_status(late, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        assert_eq!(world.provider.redeemed().len(), 0);
        assert_eq!(secrets(&server).await, "0");
    }

    async fn a_session_whose_time_is_over_is_not_cancelled(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = callback::server(backend, &clock).await;
        let world = callback::world(&server).await;
        let session = world.start(world.request("ada")).await.0;
        clock.advance(Duration::from_secs(10 * 60));
        let (user_id, connector) = ("ada".to_owned(), world.connection.connector.clone());
        let request = v1::RemoveUserConnectorRequest { user_id, connector, ..Default::default() };
        let answer = world.client.user_connectors().remove_user_connector(request).await.unwrap().into_inner();
        assert_eq!((answer.removed, answer.authorizations_cancelled), (false, 0));
        assert_eq!(answer.warning, "there is no such link; nothing was changed");
        assert_eq!(states(&world.client, &[session]).await, [State::Expired]);
    }

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
        let of_all = async |client: &Client| {
            let sessions = [&late, &unbrought, &unheard, &silent].map(|session| get(client, &session.id));
            futures::future::join_all(sessions).await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        let before = of_all(&world.client).await;
        assert_eq!(before.iter().map(v1::AuthorizationSession::state).collect::<Vec<_>>(), [State::Expired, State::Expired, State::Expired, State::Failed]);
        // Maintenance begins at the start.
        server.restart().await;
        eventually("nothing is sealed", async || secrets(&server).await == "0").await;
        assert_eq!(of_all(&server.client("alpha")).await, before, "what is known of them is the same");
    }
}
