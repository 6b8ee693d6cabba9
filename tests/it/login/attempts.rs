//! The limits of log-in attempts: what is counted, what is refused, and that no attempt too many reaches a system.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::canary::contains;
use jackfield_testkit::{
    Client, Config, ManualClock, Refusal, Reply, System, TestServer, collect, expect_status, fixture, on_both,
};
use tonic::{Code, Response};

use super::{a_login, a_system, connector, create, log_in};
use crate::steps;

const MINUTE: Duration = Duration::from_secs(60);
pub(super) const REJECTED: v1::LoginOutcome = v1::LoginOutcome::Rejected;
const ACCEPTED: v1::LoginOutcome = v1::LoginOutcome::Accepted;

/// The limits by user and source, by user, and by source.
pub(super) fn limits(user_and_source: u32, user: u32, source: u32) -> impl FnOnce(&mut Config) {
    move |config| {
        config.login.attempts_per_user_and_source = user_and_source;
        config.login.attempts_per_user = user;
        config.login.attempts_per_source = source;
    }
}

/// A log-in from an address; from an unknown one if it is empty.
pub(super) fn from(source: &str, connector: &str, login_id: &str, password: &str) -> v1::AuthenticateUserRequest {
    let event_info = v1::LoginEventInfo { ip_address: source.to_owned(), ..Default::default() };
    v1::AuthenticateUserRequest { event_info: Some(event_info), ..a_login(connector, login_id, password) }
}

async fn outcome(client: &Client, request: v1::AuthenticateUserRequest) -> v1::LoginOutcome {
    log_in(client, request).await.outcome()
}

/// Checks that a log-in is refused by a limit until a time.
async fn refused(client: &Client, request: v1::AuthenticateUserRequest, limit: &str, wait: Duration) -> Refusal {
    let answer = client.connectors().authenticate_user(request).await;
    let refusal = expect_status(answer, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
    assert_eq!(refusal.metadata("quota"), limit);
    assert_eq!(refusal.details.retry_info().unwrap().retry_delay, Some(wait));
    assert_eq!(refusal.details.quota_failure().unwrap().violations[0].subject, limit);
    refusal
}

async fn counts(server: &TestServer) -> String {
    server.sql("select count(*) from login_attempt").await.concat()
}

on_both! {
    async fn attempts_of_a_user_from_a_source_need_a_growing_delay_and_end(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), limits(4, 0, 0)).await;
        let alpha = server.client("alpha");
        let (system, other) = (a_system().await, a_system().await);
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        let other = create(&alpha, connector(&alpha, &other, "other").await).await.id;
        // "stranger" is unknown to the system, and is the same in every respect.
        for (count, login_id) in (1..).zip(["ada", "stranger"]) {
            let wrong = || from("192.0.2.1", &directory, login_id, "wrong");
            assert_eq!(outcome(&alpha, wrong()).await, REJECTED);
            // Login ids are compared as those of users are.
            assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, &login_id.to_uppercase(), "wrong")).await, REJECTED);
            let refusal = refused(&alpha, wrong(), "user_and_source", Duration::from_secs(1)).await;
            let message = "too many log-in attempts with this login id from this address; try again later";
            assert_eq!(refusal.status.message(), message);
            clock.advance(Duration::from_secs(1));
            assert_eq!(outcome(&alpha, wrong()).await, REJECTED);
            refused(&alpha, wrong(), "user_and_source", Duration::from_secs(2)).await;
            clock.advance(Duration::from_secs(2));
            assert_eq!(outcome(&alpha, wrong()).await, REJECTED);
            let rest = 15 * MINUTE - Duration::from_secs(3);
            refused(&alpha, from("192.0.2.1", &directory, login_id, "right"), "user_and_source", rest).await;
            assert_eq!(system.received().len(), 4 * count, "the system is not asked");
        }
        // Nothing else is affected.
        let before = system.received().len();
        assert_eq!(outcome(&alpha, from("192.0.2.2", &directory, "ada", "right")).await, ACCEPTED);
        assert_eq!(outcome(&alpha, from("", &directory, "ada", "right")).await, ACCEPTED);
        assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "bob", "wrong")).await, REJECTED);
        assert_eq!(outcome(&alpha, from("192.0.2.1", &other, "ada", "right")).await, ACCEPTED);
        assert_eq!(system.received().len(), before + 3);

        clock.advance(15 * MINUTE);
        assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "right")).await, ACCEPTED);
        let page = server.metrics_page();
        let of = |limit| TestServer::metric_on(&page, "jackfield_login_attempts_refused_total", &[("limit", limit)]);
        assert_eq!((of("user_and_source"), of("user"), of("source")), (Some(6.0), Some(0.0), Some(0.0)));
    }

    async fn attempts_of_a_user_are_limited_whatever_their_source(backend: Backend) {
        let clock = ManualClock::at_present();
        let server =
            TestServer::start_at(backend, clock.clone(), limits(0, 3, 0)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        for source in ["192.0.2.1", "2001:db8::1", ""] {
            assert_eq!(outcome(&alpha, from(source, &directory, "ada", "wrong")).await, REJECTED);
        }
        for source in ["192.0.2.2", ""] {
            refused(&alpha, from(source, &directory, "ada", "right"), "user", 60 * MINUTE).await;
        }
        // Systems may take these for the same user.
        for spelling in ["ADA", " ada", "a\u{ad}da", "ad\u{fe0f}a", "\u{ff41}da", "\u{24d0}da", "ada\u{e0041}"] {
            refused(&alpha, from("", &directory, spelling, "right"), "user", 60 * MINUTE).await;
        }
        assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "bob", "wrong")).await, REJECTED);
        clock.advance(60 * MINUTE);
        assert_eq!(outcome(&alpha, from("", &directory, "ada", "right")).await, ACCEPTED);
    }

    async fn attempts_from_a_source_are_limited_and_a_success_does_not_help(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), limits(0, 0, 3)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        assert_eq!(outcome(&alpha, from("2001:db8:0:1::1", &directory, "bob", "wrong")).await, REJECTED);
        assert_eq!(outcome(&alpha, from("2001:db8:0:1::2", &directory, "eve", "wrong")).await, REJECTED);
        assert_eq!(outcome(&alpha, from("2001:db8:0:1::3", &directory, "ada", "right")).await, ACCEPTED);
        let refusal = refused(&alpha, from("2001:db8:0:1::4", &directory, "ada", "right"), "source", 60 * MINUTE).await;
        assert_eq!(refusal.status.message(), "too many log-in attempts from this address; try again later");
        assert_eq!(outcome(&alpha, from("2001:db8:0:2::1", &directory, "ada", "right")).await, ACCEPTED);
        assert_eq!(outcome(&alpha, from("", &directory, "ada", "right")).await, ACCEPTED);
        // Of another tenant.
        let beta = server.client("beta");
        let of_beta = create(&beta, connector(&beta, &system, "of beta").await).await.id;
        assert_eq!(outcome(&beta, from("2001:db8:0:1::1", &of_beta, "ada", "right")).await, ACCEPTED);
    }

    async fn a_success_ends_the_count_of_the_user_at_the_source(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), limits(3, 20, 0)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        for _ in 0..5 {
            assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "wrong")).await, REJECTED);
            assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "right")).await, ACCEPTED);
        }
        for _ in 0..2 {
            assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "wrong")).await, REJECTED);
        }
        let wait = Duration::from_secs(1);
        refused(&alpha, from("192.0.2.1", &directory, "ada", "right"), "user_and_source", wait).await;
    }

    async fn an_attempt_that_reached_no_system_is_not_counted(backend: Backend) {
        let server = TestServer::start_with(backend, limits(1, 1, 1)).await;
        let alpha = server.client("alpha");
        let generic = v1::GenericConnector { authentication_url: "http://127.0.0.1:1025/login".to_owned(), ..Default::default() };
        let away = v1::Connector { kind: Some(v1::connector::Kind::Generic(generic)), ..fixture::a_connector("away") };
        let away = create(&alpha, away).await.id;
        for _ in 0..3 {
            let fault = outcome(&alpha, from("192.0.2.1", &away, "ada", "right")).await;
            assert_eq!(fault, v1::LoginOutcome::UpstreamFault);
        }
        // A connector that cannot check log-ins is not asked either.
        steps::enable(&alpha, &away, false).await;
        let disabled = alpha.connectors().authenticate_user(from("192.0.2.1", &away, "ada", "right")).await;
        expect_status(disabled, Code::FailedPrecondition, "CONNECTOR_DISABLED");
        let working = a_system().await;
        let working = create(&alpha, connector(&alpha, &working, "working").await).await.id;
        assert_eq!(outcome(&alpha, from("192.0.2.1", &working, "ada", "right")).await, ACCEPTED);
    }

    /// A system that answers 401 to a wrong password shows which one is right, although that is a fault here.
    async fn an_attempt_that_a_system_answers_with_a_fault_is_counted(backend: Backend) {
        let server = TestServer::start_with(backend, limits(0, 3, 0)).await;
        let alpha = server.client("alpha");
        for (name, status) in [("unauthorized", 401), ("broken", 500)] {
            let system = System::start(move |_| Reply::new(status, "")).await;
            let directory = create(&alpha, connector(&alpha, &system, name).await).await.id;
            for _ in 0..3 {
                let fault = outcome(&alpha, a_login(&directory, "ada", "guess")).await;
                assert_eq!(fault, v1::LoginOutcome::UpstreamFault);
            }
            let over = alpha.connectors().authenticate_user(a_login(&directory, "ada", "guess")).await;
            expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
            assert_eq!(system.received().len(), 3, "{name}");
        }
    }

    /// A test shows if a password is right.
    async fn logins_of_tests_are_attempts(backend: Backend) {
        let server = TestServer::start_with(backend, limits(0, 2, 0)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        let test = async || {
            let request = v1::TestConnectorRequest {
                definition: Some(v1::test_connector_request::Definition::Reference(directory.clone())),
                login_id: "ada".to_owned(),
                password: "guess".to_owned(),
            };
            let mut verdicts = alpha.connectors().test_connector(request).await?.into_inner();
            while verdicts.message().await?.is_some() {}
            Ok::<_, tonic::Status>(Response::new(()))
        };
        for _ in 0..2 {
            test().await.unwrap();
        }
        expect_status(test().await, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        let over = alpha.connectors().authenticate_user(a_login(&directory, "ADA", "right")).await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        assert_eq!(system.received().len(), 2);
    }

    /// Others may be guessing while the user logs in.
    async fn a_success_takes_back_no_attempt_of_others(backend: Backend) {
        let server = TestServer::start_with(backend, limits(10, 4, 0)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        for guess in 0..4 {
            assert_eq!(outcome(&alpha, from("203.0.113.9", &directory, "ada", "right")).await, ACCEPTED);
            assert_eq!(outcome(&alpha, from(&format!("192.0.2.{guess}"), &directory, "ada", "guess")).await, REJECTED);
        }
        let over = alpha.connectors().authenticate_user(from("192.0.2.9", &directory, "ada", "guess")).await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
    }

    async fn a_log_in_by_the_policy_is_one_attempt_of_its_source(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), limits(0, 3, 2)).await;
        let alpha = server.client("alpha");
        let broken = System::start(|_| Reply::new(500, "")).await;
        let (first, second) = (a_system().await, a_system().await);
        let mut rules = Vec::new();
        for (name, system) in [("broken", &broken), ("first", &first), ("second", &second)] {
            let target = create(&alpha, connector(&alpha, system, name).await).await.id;
            let target = Some(v1::routing_rule::Target::Connector(target));
            rules.push(v1::RoutingRule { email_domains: vec!["*".to_owned()], target });
        }
        let routing_policy = Some(v1::RoutingPolicy { rules, ..Default::default() });
        let request = v1::ReplaceRoutingPolicyRequest { routing_policy, ..Default::default() };
        alpha.connectors().replace_routing_policy(request).await.unwrap();
        for _ in 0..2 {
            // One system could not be asked, so the user may be there.
            let fault = outcome(&alpha, from("192.0.2.1", "", "bob", "wrong")).await;
            assert_eq!(fault, v1::LoginOutcome::UpstreamFault);
        }
        refused(&alpha, from("192.0.2.1", "", "eve", "wrong"), "source", 60 * MINUTE).await;
        assert_eq!([&broken, &first, &second].map(|system| system.received().len()), [2, 2, 2]);
        // From elsewhere, the user has one attempt left, at each of the systems.
        assert_eq!(outcome(&alpha, from("", "", "bob", "wrong")).await, v1::LoginOutcome::UpstreamFault);
        refused(&alpha, from("", "", "bob", "wrong"), "user", 60 * MINUTE).await;
        assert_eq!([&broken, &first, &second].map(|system| system.received().len()), [3, 3, 3]);
    }
}

on_both! {
    async fn attempts_at_once_never_exceed_a_limit(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), limits(10, 20, 30)).await;
        let replica = server.replica().await;
        let clients = [server.client("alpha"), replica.as_ref().unwrap_or(&server).client("alpha")];
        let system = a_system().await;
        let directory = create(&clients[0], connector(&clients[0], &system, "directory").await).await.id;
        // Returns how many of 64 were checked.
        let at_once = async |limit: &str| {
            let request = |index: usize| match limit {
                "user" => from(&format!("192.0.2.{index}"), &directory, "ada", "wrong"),
                "source" => from("198.51.100.1", &directory, &format!("user {index}"), "wrong"),
                _ => from("203.0.113.1", &directory, "bob", "wrong"),
            };
            let before = system.received().len();
            let calls = (0..64).map(|index| {
                let (client, request) = (clients[index % 2].clone(), request(index));
                async move { client.connectors().authenticate_user(request).await.map(Response::into_inner) }
            });
            let answers = futures::future::join_all(calls).await;
            let (checked, over): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
            assert_eq!(system.received().len() - before, checked.len(), "{limit}");
            for status in over {
                let refusal = Refusal::check(status.unwrap_err(), Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
                assert_eq!(refusal.metadata("quota"), limit);
            }
            checked.len()
        };
        assert_eq!(at_once("user").await, 20, "from many sources");
        assert_eq!(at_once("source").await, 30, "of many users");
        // Half of these come without a delay. Between two rounds, each delay of the others ends.
        let mut checked = at_once("user_and_source").await;
        assert!((5..=10).contains(&checked), "{checked}");
        for _ in 0..5 {
            clock.advance(MINUTE);
            checked += at_once("user_and_source").await;
        }
        assert_eq!(checked, 10);
    }

    /// A source that may not try any more cannot use up the attempts of a user.
    async fn refused_attempts_at_once_are_not_counted(backend: Backend) {
        let server = TestServer::start_with(backend, limits(0, 6, 3)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        for _ in 0..3 {
            let calls = (0..20).map(|_| alpha.connectors());
            let calls = calls.map(|mut connectors| {
                let request = from("198.51.100.1", &directory, "ada", "wrong");
                async move { connectors.authenticate_user(request).await }
            });
            let answers = futures::future::join_all(calls).await;
            assert!(answers.iter().filter(|answer| answer.is_err()).count() >= 17);
        }
        assert_eq!(system.received().len(), 3);
        let replica = server.replica().await;
        let alpha = replica.as_ref().unwrap_or(&server).client("alpha");
        for _ in 0..3 {
            assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "wrong")).await, REJECTED);
        }
        let over = alpha.connectors().authenticate_user(from("192.0.2.2", &directory, "ada", "wrong")).await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
    }

    async fn successes_at_once_are_all_accepted(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        for _ in 0..5 {
            let logins = (0..40).map(|_| outcome(&alpha, a_login(&directory, "ada", "right")));
            assert!(futures::future::join_all(logins).await.iter().all(|outcome| *outcome == ACCEPTED));
        }
    }

    async fn counts_outlive_the_server_without_names(backend: Backend) {
        let mut server = TestServer::start_with(backend, limits(10, 2, 100)).await;
        let system = a_system().await;
        let alpha = server.client("alpha");
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        let wrong = from("203.0.113.77", &directory, "canary of a login id", "canary of a password");
        assert_eq!(outcome(&alpha, wrong.clone()).await, REJECTED);
        server.restart().await;
        assert_eq!(outcome(&server.client("alpha"), wrong.clone()).await, REJECTED);
        server.crash();
        server.restart().await;
        let over = server.client("alpha").connectors().authenticate_user(wrong).await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        assert_eq!(system.received().len(), 2);
        assert_eq!(counts(&server).await, "3");
        server.stop().await;
        let stored = server.stored_bytes();
        for canary in [&b"canary of a"[..], b"203.0.113.77"] {
            assert!(!contains(&stored, canary), "{canary:?}");
        }
    }

    async fn counts_are_deleted_once_their_window_is_over(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "wrong")).await, REJECTED);
        assert_eq!(outcome(&alpha, from("", &directory, "bob", "wrong")).await, REJECTED);
        assert_eq!(counts(&server).await, "4");
        let purge = async |after| {
            let store = server.store().await;
            let txn = store.write().await.unwrap();
            let now = jackfield_domain::Clock::now(&*clock).plus_micros(after);
            let purged = txn.login_attempts_purge(now, 10).await.unwrap();
            txn.commit().await.unwrap();
            store.close().await;
            purged
        };
        assert_eq!(purge(15 * 60_000_000 - 1).await, 0);
        assert_eq!(purge(15 * 60_000_000).await, 1, "of the user and the source");
        assert_eq!(purge(60 * 60_000_000).await, 3);
        assert_eq!(counts(&server).await, "0");
    }

    async fn without_limits_nothing_is_counted(backend: Backend) {
        let server = TestServer::start_with(backend, limits(0, 0, 0)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        for _ in 0..12 {
            assert_eq!(outcome(&alpha, from("192.0.2.1", &directory, "ada", "wrong")).await, REJECTED);
        }
        assert_eq!(counts(&server).await, "0");
    }
}

on_both! {
    async fn attempts_at_applications_are_limited_too(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), limits(0, 2, 5)).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        let gallery = steps::application(&alpha, fixture::an_application("Gallery")).await.id;
        let other = steps::application(&alpha, fixture::an_application("Other")).await.id;
        let asking = v1::Application { connector: Some(directory.clone()), ..fixture::an_application("Asking") };
        let asking = steps::application(&alpha, asking).await.id;
        steps::user(&alpha, fixture::a_user("ann")).await;
        let try_log_in = async |application: &str, username: &str, password: &str, source: &str| {
            let event_info = Some(v1::LoginEventInfo { ip_address: source.to_owned(), ..Default::default() });
            let request = v1::AuthenticateApplicationUserRequest {
                application: application.to_owned(),
                username: username.to_owned(),
                password: password.to_owned(),
                event_info,
            };
            alpha.applications().authenticate_application_user(request).await
        };
        let outcome = async |application: &str, username: &str, password: &str, source: &str| {
            try_log_in(application, username, password, source).await.unwrap().into_inner().outcome()
        };
        let right = "password of the fixture";
        for username in ["ann", "stranger"] {
            for _ in 0..2 {
                assert_eq!(outcome(&gallery, username, "wrong", "").await, REJECTED);
            }
            let over = try_log_in(&gallery, username, right, "").await;
            let refusal = expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
            assert_eq!(refusal.metadata("quota"), "user");
            assert_eq!(refusal.status.message(), "too many log-in attempts with this login id; try again later");
        }
        // All of them compare the same password.
        let over = try_log_in(&other, "ann", right, "").await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");

        // The attempts at a connector are those of all that ask it.
        assert_eq!(outcome(&asking, "ada", "wrong", "").await, REJECTED);
        assert_eq!(log_in(&alpha, a_login(&directory, "ada", "wrong")).await.outcome(), REJECTED);
        let over = try_log_in(&asking, "ada", "right", "").await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        assert_eq!(system.received().len(), 2);

        // The attempts from a source are those at all applications.
        for index in 0..5 {
            let application = if index % 2 == 0 { &gallery } else { &asking };
            assert_eq!(outcome(application, &format!("user {index}"), "wrong", "192.0.2.1").await, REJECTED);
        }
        let over = try_log_in(&other, "ann", right, "192.0.2.1").await;
        let refusal = expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        assert_eq!(refusal.metadata("quota"), "source");
        let sessions = collect::items(alpha.applications().list_sessions(v1::ListSessionsRequest::default()).await);
        assert_eq!(sessions.await.unwrap(), []);
    }
}
