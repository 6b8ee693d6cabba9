//! Device authorisations (RFC 8628): the user types a code at the provider, and the server asks until they have decided.

use std::time::Duration;

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::{Backend, Client, ManualClock, Reply, TestServer, expect_status, on_both};
use tonic::Code;

use super::{BACK, World, get, issue, start::update, tokens};
use crate::steps;
use crate::storage::eventually;

/// A session that was started, and the code of the user.
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) user_code: String,
}

fn request(world: &World) -> v1::StartAuthorizationRequest {
    v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::Device.into(), ..world.request("ada") }
}

async fn respond(world: &World) -> v1::StartAuthorizationResponse {
    world.client.connections().start_authorization(request(world)).await.unwrap().into_inner()
}

pub(crate) async fn start(world: &World) -> Started {
    let v1::StartAuthorizationResponse { authorization, user_code, .. } = respond(world).await;
    let session = authorization.unwrap();
    assert_eq!(session.state(), State::Started, "{session:?}");
    Started { id: session.id, user_code }
}

/// The last state of a session.
pub(crate) async fn ended(client: &Client, id: &str) -> v1::AuthorizationSession {
    let request = v1::WatchAuthorizationRequest { reference: id.to_owned() };
    let watching = client.connections().watch_authorization(request).await.unwrap().into_inner();
    let last = watching.fold(None, async |_, next| next.unwrap().authorization).await;
    last.unwrap()
}

/// The rest of a session whose secrets are destroyed.
async fn expect_destroyed(server: &TestServer) {
    assert_eq!(server.sql("SELECT count(*) FROM secret WHERE owner = 'authorization_session'").await, ["0"]);
}

/// Waits until the stored pace of the only session is this.
async fn eventually_paced(server: &TestServer, pace: &str) {
    eventually(pace, async || server.sql("SELECT doc FROM authorization_session").await[0].contains(pace)).await;
}

pub(crate) fn error(status: u16, code: &str) -> Option<Reply> {
    Some(Reply::new(status, format!("{{\"error\": \"{code}\"}}")))
}

on_both! {
    async fn a_user_types_a_code_and_a_token_is_issued(server) {
        let world = World::new(&server).await;
        let v1::StartAuthorizationResponse {
            authorization,
            authorization_url,
            user_code,
            verification_uri,
            verification_uri_complete,
        } = respond(&world).await;
        let session = authorization.unwrap();
        assert_eq!(session.completion_mode(), v1::CompletionMode::Device);
        assert!(session.redirect_uri.is_empty() && session.return_uri.is_empty());
        assert_eq!((session.state(), &*authorization_url), (State::Started, ""));
        assert_eq!(verification_uri, "https://as.example.com/device");
        assert_eq!(verification_uri_complete, format!("{verification_uri}?user_code={user_code}"));
        let seconds = |time: Option<prost_types::Timestamp>| time.unwrap().seconds;
        assert!((599..=600).contains(&(seconds(session.expire_time) - seconds(session.create_time))));
        // The user needs some time.
        world.provider.system.requests(3).await;
        assert_eq!(get(&world.client, &session.id).await.unwrap().state(), State::Started);
        world.provider.approve(&user_code).await;
        let completed = ended(&world.client, &session.id).await;
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        assert_eq!(completed.granted_scopes, ["read", "write"]);
        let credential = steps::credential_now(&world.client, &completed.credential).await;
        assert_eq!((&*credential.user_id, credential.refreshable), ("ada", true));
        assert_eq!(&*issue(&world.client, &credential.id).await.token_type, "Bearer");
        expect_destroyed(&server).await;
        // The provider never asked the server to slow down.
        assert!(server.sql("SELECT doc FROM authorization_session").await[0].contains("\"interval\":1}"));
        let polls = world.provider.polls();
        assert!(polls.len() >= 3 && polls.iter().all(|body| body.contains("grant_type=urn%3Aietf")), "{polls:?}");
        // It is not for CompleteAuthorization.
        let state = user_code;
        let request = v1::CompleteAuthorizationRequest { user_id: "ada".to_owned(), state, code: "c".to_owned(), ..Default::default() };
        let refused = world.client.connections().complete_authorization(request).await;
        expect_status(refused, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
    }

    async fn a_credential_is_authorised_again_by_a_code(server) {
        let world = World::with(&server, |connection| connection.scope = Some("openid read".to_owned())).await;
        let credential = world.authorized("ada").await.credential;
        let old = tokens(steps::revealed(&world.client, &credential).await);
        world.provider.openid.asked_without_nonce();
        let again = v1::StartAuthorizationRequest { credential: credential.clone(), ..request(&world) };
        let begun = world.client.connections().start_authorization(again.clone()).await.unwrap().into_inner();
        world.provider.approve(&begun.user_code).await;
        let completed = ended(&world.client, &begun.authorization.unwrap().id).await;
        assert_eq!((completed.state(), &completed.credential), (State::Completed, &credential), "{completed:?}");
        let new = tokens(steps::revealed(&world.client, &credential).await);
        assert!(new.access_token != old.access_token && new.id_token != old.id_token);
        // An ID token of another authorisation, or of another account.
        for (claim, failure) in [("nonce", Failure::IdTokenRefused), ("sub", Failure::AccountMismatch)] {
            world.provider.openid.change(move |token| token.claims[claim] = "another".into());
            let begun = world.client.connections().start_authorization(again.clone()).await.unwrap().into_inner();
            world.provider.approve(&begun.user_code).await;
            let failed = ended(&world.client, &begun.authorization.unwrap().id).await;
            assert_eq!((failed.state(), failed.failure()), (State::Failed, failure), "{failed:?}");
            assert_eq!(tokens(steps::revealed(&world.client, &credential).await), new);
        }
    }

    async fn a_user_can_refuse(server) {
        let world = World::new(&server).await;
        let started = start(&world).await;
        world.provider.refuse(&started.user_code).await;
        let denied = ended(&world.client, &started.id).await;
        assert_eq!((denied.state(), &*denied.failure_detail), (State::Denied, "access_denied"));
        expect_destroyed(&server).await;
    }

    async fn what_the_provider_refuses_ends_it(server) {
        let world = World::new(&server).await;
        for (reply, state, failure) in [
            (error(400, "expired_token"), State::Expired, Failure::Unspecified),
            (error(400, "invalid_grant"), State::Failed, Failure::GrantRefused),
            (error(401, "invalid_client"), State::Failed, Failure::ClientRefused),
        ] {
            world.provider.reply(None);
            let started = start(&world).await;
            world.provider.reply(reply);
            let session = ended(&world.client, &started.id).await;
            assert_eq!((session.state(), session.failure()), (state, failure), "{session:?}");
            expect_destroyed(&server).await;
        }
    }

    async fn a_provider_that_is_asked_too_often_is_asked_less_often_for_good(server) {
        let world = World::new(&server).await;
        let started = start(&world).await;
        eventually_paced(&server, "\"interval\":1}").await;
        world.provider.reply(error(400, "slow_down"));
        let stored = async || server.sql("SELECT doc FROM authorization_session").await.remove(0);
        eventually("the pace is another", async || !stored().await.contains("\"interval\":1}")).await;
        world.provider.reply(None);
        world.provider.approve(&started.user_code).await;
        assert_eq!(ended(&world.client, &started.id).await.state(), State::Completed);
        let pace = stored().await;
        assert!(pace.contains("\"interval\":6}") || pace.contains("\"interval\":11}"), "{pace}");
    }

    async fn a_lost_answer_is_no_end(server) {
        let world = World::new(&server).await;
        let started = start(&world).await;
        world.provider.reply(Some(Reply::new(502, "<html>")));
        eventually_paced(&server, "\"unanswered\":").await;
        world.provider.reply(None);
        world.provider.approve(&started.user_code).await;
        assert_eq!(ended(&world.client, &started.id).await.state(), State::Completed);
    }

    async fn a_code_that_is_spent_after_a_lost_answer_is_not_the_users_doing(server) {
        let world = World::new(&server).await;
        let started = start(&world).await;
        world.provider.reply(Some(Reply::new(502, "<html>")));
        eventually_paced(&server, "\"is_answer_lost\":true").await;
        world.provider.reply(error(400, "invalid_grant"));
        let failed = ended(&world.client, &started.id).await;
        assert_eq!((failed.state(), failed.failure()), (State::Failed, Failure::AnswerLost), "{failed:?}");
        // An endpoint that says that it did not look at the code has lost nothing.
        world.provider.reply(None);
        let started = start(&world).await;
        world.provider.reply(Some(Reply::new(503, "")));
        eventually("a poll was refused", async || {
            server.sql("SELECT doc FROM authorization_session").await.iter().any(|doc| doc.contains("\"unanswered\":1}"))
        }).await;
        world.provider.reply(error(400, "invalid_grant"));
        let failed = ended(&world.client, &started.id).await;
        assert_eq!((failed.state(), failed.failure()), (State::Failed, Failure::GrantRefused), "{failed:?}");
    }

    async fn a_code_is_polled_for_as_long_as_the_provider_says(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let world = World::new(&server).await;
        let body = r#"{"device_code": "d", "user_code": "u", "verification_uri": "https://as.example.com/device", "expires_in": 86400}"#;
        world.provider.reply(Some(Reply::new(200, body)));
        let session = respond(&world).await.authorization.unwrap();
        let seconds = |time: Option<prost_types::Timestamp>| time.unwrap().seconds;
        assert_eq!(seconds(session.expire_time) - seconds(session.create_time), 30 * 60);
        assert!(server.sql("SELECT doc FROM authorization_session").await[0].contains("\"interval\":5}"), "the default");
        clock.advance(Duration::from_secs(30 * 60));
        assert_eq!(ended(&world.client, &session.id).await.state(), State::Expired);
        assert_eq!(world.provider.polls().len(), 0);
    }

    async fn a_session_that_was_cancelled_gets_no_tokens(server) {
        let mut server = server;
        let world = World::new(&server).await;
        let started = start(&world).await;
        world.provider.system.hold();
        world.provider.system.requests(2).await;
        world.provider.approve(&started.user_code).await;
        let cancel = v1::CancelAuthorizationRequest { reference: started.id.clone(), ..Default::default() };
        world.client.connections().cancel_authorization(cancel).await.unwrap();
        expect_destroyed(&server).await;
        world.provider.system.release();
        // The end of the server waits for the poll.
        server.restart().await;
        let client = server.client("alpha");
        assert_eq!(get(&client, &started.id).await.unwrap().state(), State::Cancelled);
        assert_eq!(server.sql("SELECT count(*) FROM credential").await, ["0"]);
        assert_eq!(world.provider.polls().len(), 1);
    }

    async fn a_server_that_dies_while_it_polls_is_replaced(backend: Backend) {
        let mut server = TestServer::start_with(backend, |config| config.refresh.timeout = Duration::from_secs(1)).await;
        let mut world = World::new(&server).await;
        let started = start(&world).await;
        world.provider.system.hold();
        world.provider.system.requests(2).await;
        server.crash();
        world.provider.system.release();
        server.restart().await;
        world.client = server.client("alpha");
        world.provider.approve(&started.user_code).await;
        let completed = ended(&world.client, &started.id).await;
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        assert!(steps::credential_now(&world.client, &completed.credential).await.refreshable);
    }

    async fn what_a_start_needs_is_checked_first(server) {
        let world = World::new(&server).await;
        for (redirect_uri, return_uri) in [(BACK, ""), ("", "https://app.example/home")] {
            let both = v1::StartAuthorizationRequest {
                redirect_uri: redirect_uri.to_owned(),
                return_uri: return_uri.to_owned(),
                ..request(&world)
            };
            let refused = world.client.connections().start_authorization(both).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["completion_mode"]);
        }
        for (reply, failure, detail) in [
            (error(400, "invalid_scope"), Failure::RequestRefused, "invalid_scope"),
            (error(401, "invalid_client"), Failure::ClientRefused, "invalid_client"),
            (error(400, "my own words"), Failure::RequestRefused, "UNKNOWN_ERROR_CODE"),
            (Some(Reply::new(200, "{\"device_code\": \"d\"}")), Failure::ResponseMalformed, "BODY_MALFORMED"),
            (Some(Reply::new(502, "<html>")), Failure::EndpointUnavailable, "STATUS_UNEXPECTED"),
            // To a page where users log in.
            (Some(Reply::new(302, "")), Failure::ClientRefused, "STATUS_UNEXPECTED"),
        ] {
            world.provider.reply(reply);
            let begun = respond(&world).await;
            let session = begun.authorization.unwrap();
            assert_eq!((session.state(), session.failure(), &*session.failure_detail), (State::Failed, failure, detail));
            assert_eq!((&*begun.user_code, &*begun.verification_uri), ("", ""));
            assert_eq!(get(&world.client, &session.id).await.unwrap(), session);
        }
        // It needs neither an authorisation endpoint nor an issuer that is named in responses.
        world.provider.reply(None);
        update(&world, &["authentication_url", "issuer_url", "redirect_uris"], v1::Connection::default()).await;
        start(&world).await;
        update(&world, &["device_authorization_url"], v1::Connection::default()).await;
        let refused = world.client.connections().start_authorization(request(&world)).await;
        let refusal = expect_status(refused, Code::FailedPrecondition, "CONNECTION_INCOMPLETE");
        assert!(refusal.status.message().contains("connector.oauth2.device_authorization_url"), "{:?}", refusal.status);
    }

    async fn a_connection_that_changes_gets_no_tokens(server) {
        let world = World::new(&server).await;
        let started = start(&world).await;
        world.provider.approve(&started.user_code).await;
        update(&world, &["client_id"], v1::Connection { client_id: Some("c2".to_owned()), ..Default::default() }).await;
        let failed = ended(&world.client, &started.id).await;
        assert_eq!((failed.state(), failed.failure()), (State::Failed, Failure::ConnectionChanged), "{failed:?}");
        assert_eq!(world.provider.polls().len(), 0);
    }
}

/// The provider would tell them to slow down otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_poll_once_in_an_interval() {
    let server = TestServer::start(Backend::Postgres).await;
    let _others = [server.replica().await.unwrap(), server.replica().await.unwrap()];
    let world = World::new(&server).await;
    let started = start(&world).await;
    world.provider.system.requests(3).await;
    // While one waits for an answer, the others do not ask, although an interval is over.
    world.provider.system.hold();
    let before = world.provider.polls().len();
    world.provider.system.requests(before + 2).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(world.provider.polls().len(), before + 1);
    world.provider.system.release();
    world.provider.system.requests(before + 3).await;
    assert!(server.sql("SELECT doc FROM authorization_session").await[0].contains("\"interval\":1}"));
    world.provider.approve(&started.user_code).await;
    assert_eq!(ended(&world.client, &started.id).await.state(), State::Completed);
    assert_eq!(server.sql("SELECT count(*) FROM credential").await, ["1"]);
}
