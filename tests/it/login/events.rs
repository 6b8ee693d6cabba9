//! Events of connectors: what operators learn about log-ins, and callers do not.

mod kept;
mod secrecy;

use std::time::Duration;

use jackfield_api::v1;
use jackfield_domain::Clock as _;
use jackfield_testkit::{Client, ManualClock, Reply, System, TestServer, collect, fixture, on_both};
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::secrecy::assert_nowhere;
use super::{USER_ID, a_login, a_system, a_user, connector, create, log_in};
use crate::steps;

/// A connector that debugs.
async fn debugging(client: &Client, system: &System, name: &str) -> v1::Connector {
    let definition = v1::Connector { debug: Some(true), ..connector(client, system, name).await };
    create(client, definition).await
}

/// The events of a connector, the oldest first.
async fn listed(client: &Client, connector: &str) -> Vec<v1::ConnectorEvent> {
    let request = v1::ListConnectorEventsRequest { connector: connector.to_owned(), ..Default::default() };
    collect::items(client.connectors().list_connector_events(request).await).await.unwrap()
}

/// The events of a connector as soon as there are so many.
pub(crate) async fn events(client: &Client, connector: &str, count: usize) -> Vec<v1::ConnectorEvent> {
    for _ in 0..400 {
        let events = listed(client, connector).await;
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("there are no {count} events: {:?}", listed(client, connector).await);
}

/// The number of events that the server has written.
fn written(server: &TestServer) -> Option<f64> {
    server.metric("jackfield_connector_events_total", &[("result", "written")])
}

/// An event without what differs from run to run.
pub(crate) fn even(event: &v1::ConnectorEvent) -> v1::ConnectorEvent {
    let (id, request_id): (Uuid, Uuid) = (event.id.parse().unwrap(), event.request_id.parse().unwrap());
    assert_eq!(id.get_version_num(), 7);
    assert!(!request_id.is_nil());
    let took = event.duration.as_ref().unwrap();
    assert!((0..60).contains(&took.seconds) && (took.seconds, took.nanos) != (0, 0), "{took:?}");
    assert!(event.create_time.is_some());
    v1::ConnectorEvent {
        id: String::new(),
        request_id: String::new(),
        duration: None,
        create_time: None,
        ..event.clone()
    }
}

/// An accepted log-in of a connector.
pub(crate) fn accepted(connector: &str, login_id: &str) -> v1::ConnectorEvent {
    v1::ConnectorEvent {
        connector: connector.to_owned(),
        operation: v1::ConnectorEventOperation::AuthenticateUser.into(),
        outcome: v1::ConnectorEventOutcome::Accepted.into(),
        reason: "SYSTEM_ACCEPTED".to_owned(),
        http_status: Some(200),
        login_id: login_id.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn faulty(
    connector: &str,
    login_id: &str,
    reason: &str,
    http_status: Option<i32>,
    cause: &str,
) -> v1::ConnectorEvent {
    v1::ConnectorEvent {
        outcome: v1::ConnectorEventOutcome::UpstreamFault.into(),
        reason: reason.to_owned(),
        cause: cause.to_owned(),
        http_status,
        ..accepted(connector, login_id)
    }
}

pub(crate) fn rejected(connector: &str, reason: &str, http_status: Option<i32>) -> v1::ConnectorEvent {
    v1::ConnectorEvent {
        outcome: v1::ConnectorEventOutcome::Rejected.into(),
        reason: reason.to_owned(),
        http_status,
        ..accepted(connector, "ada")
    }
}

/// A system that answers each login id in another way.
async fn a_moody_system() -> System {
    System::start(|request| {
        let login: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match login["loginId"].as_str() {
            Some("ada") => Reply::new(200, a_user().to_string()),
            Some("html") => Reply::new(200, "<html></html>"),
            Some("broken") => Reply::new(500, ""),
            _ => Reply::new(404, ""),
        }
    })
    .await
}

on_both! {
    async fn each_log_in_has_an_event_with_its_exact_reason(server) {
        let alpha = server.client("alpha");
        let system = a_moody_system().await;
        let id = debugging(&alpha, &system, "moody").await.id;
        let mut request_ids = Vec::new();
        for login_id in ["ada", "stranger", "html", "broken"] {
            let request = v1::AuthenticateUserRequest { application_id: "app".to_owned(), ..a_login(&id, login_id, "right") };
            let response = alpha.connectors().authenticate_user(request).await.unwrap();
            request_ids.push(response.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned());
        }
        let events = events(&alpha, &id, 4).await;
        let expected = [
            accepted(&id, "ada"),
            v1::ConnectorEvent { login_id: "stranger".to_owned(), ..rejected(&id, "SYSTEM_REJECTED", Some(404)) },
            faulty(&id, "html", "BODY_MALFORMED", Some(200), "the body of the response is not JSON of the expected form: line 1, column 1"),
            faulty(&id, "broken", "STATUS_UNEXPECTED", Some(500), "status 500 Internal Server Error neither accepts nor rejects a log-in: 200 accepts it, 404 rejects it"),
        ];
        let expected = expected.map(|event| v1::ConnectorEvent { application_id: "app".to_owned(), ..event });
        assert_eq!(events.iter().map(even).collect::<Vec<_>>(), expected);
        assert_eq!(events.iter().map(|event| event.request_id.clone()).collect::<Vec<_>>(), request_ids);
        assert_eq!((written(&server), server.metric("jackfield_connector_events_total", &[("result", "dropped")])), (Some(4.0), Some(0.0)));
    }

    async fn a_system_that_cannot_be_reached_has_its_reason(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let anonymous = v1::Connector { client_identity_key: None, debug: Some(true), ..connector(&alpha, &system, "anonymous").await };
        let generic = v1::GenericConnector { authentication_url: "http://127.0.0.1:1025/login".to_owned(), ..Default::default() };
        let away = v1::Connector {
            kind: Some(v1::connector::Kind::Generic(generic)),
            debug: Some(true),
            ..fixture::a_connector("away")
        };
        for (definition, reason, cause) in [
            (anonymous, "CLIENT_CERTIFICATE_REFUSED", "TLS: the server refused the client certificate: one is required"),
            (away, "CONNECT_FAILED", "no connection: connection refused"),
        ] {
            let id = create(&alpha, definition).await.id;
            log_in(&alpha, a_login(&id, "ada", "right")).await;
            let events = events(&alpha, &id, 1).await;
            assert_eq!(events.iter().map(even).collect::<Vec<_>>(), [faulty(&id, "ada", reason, None, cause)]);
        }
    }

    async fn a_log_in_to_an_application_says_which(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let id = debugging(&alpha, &system, "directory").await.id;
        let gallery = v1::Application {
            external_id: Some("gallery".to_owned()),
            connector: Some(id.clone()),
            ..fixture::an_application("Gallery")
        };
        let application = steps::application(&alpha, gallery).await.id;
        for password in ["right", "wrong"] {
            let (username, password) = ("ada".to_owned(), password.to_owned());
            let request = v1::AuthenticateApplicationUserRequest { application: application.clone(), username, password, event_info: None };
            alpha.applications().authenticate_application_user(request).await.unwrap();
        }
        let events = events(&alpha, &id, 2).await;
        let expected = [accepted(&id, "ada"), rejected(&id, "SYSTEM_REJECTED", Some(404))].map(|event| v1::ConnectorEvent {
            operation: v1::ConnectorEventOperation::AuthenticateApplicationUser.into(),
            application_id: "gallery".to_owned(),
            ..event
        });
        assert_eq!(events.iter().map(even).collect::<Vec<_>>(), expected);
    }

    /// The caller gets the same answer to all rejections.
    async fn rejections_of_migrated_users_are_exact(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let mut definition = v1::Connector { debug: Some(true), ..connector(&alpha, &system, "directory").await };
        if let Some(v1::connector::Kind::Generic(generic)) = &mut definition.kind {
            generic.migrate_users = Some(true);
        }
        let id = create(&alpha, definition).await.id;
        let log_in = async |password: &str| log_in(&alpha, a_login(&id, "ada", password)).await;
        let change = async |user: v1::User, path: &str| {
            let update_mask = fixture::mask([path]);
            let request = v1::UpdateUserRequest { reference: format!("ext:{USER_ID}"), user: Some(user), update_mask, ..Default::default() };
            alpha.users().update_user(request).await.unwrap();
        };
        log_in("right").await;
        log_in("right").await;
        let wrong = log_in("wrong").await;
        let long = log_in(&"x".repeat(1_000)).await;
        change(v1::User::default(), "password").await;
        let missing = log_in("right").await;
        change(v1::User { enabled: Some(false), ..Default::default() }, "enabled").await;
        let disabled = log_in("right").await;
        assert_eq!((&long, &missing, &disabled), (&wrong, &wrong, &wrong));
        let here = |outcome: v1::ConnectorEvent| v1::ConnectorEvent { http_status: None, ..outcome };
        let expected = [
            accepted(&id, "ada"),
            here(v1::ConnectorEvent { reason: "PASSWORD_RIGHT".to_owned(), ..accepted(&id, "ada") }),
            rejected(&id, "PASSWORD_WRONG", None),
            rejected(&id, "PASSWORD_WRONG", None),
            rejected(&id, "PASSWORD_MISSING", None),
            rejected(&id, "USER_DISABLED", None),
        ];
        assert_eq!(events(&alpha, &id, 6).await.iter().map(even).collect::<Vec<_>>(), expected);
    }

    async fn a_user_who_cannot_be_migrated_is_named(server) {
        let alpha = server.client("alpha");
        steps::user(&alpha, v1::User { username: Some("ada".to_owned()), ..Default::default() }).await;
        let system = a_system().await;
        let mut definition = v1::Connector { debug: Some(true), ..connector(&alpha, &system, "directory").await };
        if let Some(v1::connector::Kind::Generic(generic)) = &mut definition.kind {
            generic.migrate_users = Some(true);
        }
        let id = create(&alpha, definition).await.id;
        log_in(&alpha, a_login(&id, "ada", "right")).await;
        let expected = v1::ConnectorEvent { reason: "USER_NOT_MIGRATED".to_owned(), ..accepted(&id, "ada") };
        assert_eq!(events(&alpha, &id, 1).await.iter().map(even).collect::<Vec<_>>(), [expected]);
    }

    async fn only_a_connector_that_debugs_has_events(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let alpha = server.client("alpha");
        let system = a_system().await;
        let silent = create(&alpha, connector(&alpha, &system, "silent").await).await.id;
        let until = |seconds: i64| {
            let time = clock.now().plus_micros(seconds * 1_000_000);
            Some(prost_types::Timestamp { seconds: time.seconds(), nanos: time.subsec_nanos() })
        };
        let over = v1::Connector { debug: Some(true), debug_until: until(-60), ..connector(&alpha, &system, "over").await };
        let over = create(&alpha, over).await.id;
        let off = v1::Connector { debug: Some(false), debug_until: until(600), ..connector(&alpha, &system, "off").await };
        let off = create(&alpha, off).await.id;
        let soon = v1::Connector { debug: Some(true), debug_until: until(600), ..connector(&alpha, &system, "soon").await };
        let soon = create(&alpha, soon).await.id;
        let log_in_to_all = async || {
            for id in [&silent, &over, &off, &soon] {
                for (login_id, password) in [("ada", "right"), ("ada", "wrong")] {
                    log_in(&alpha, a_login(id, login_id, password)).await;
                }
            }
        };
        log_in_to_all().await;
        assert_eq!(events(&alpha, &soon, 2).await.len(), 2);
        clock.advance(Duration::from_secs(1_200));
        log_in_to_all().await;

        // An event that comes after them shows that there are no more.
        let last = debugging(&alpha, &system, "last").await.id;
        log_in(&alpha, a_login(&last, "ada", "right")).await;
        events(&alpha, &last, 1).await;
        assert_eq!(written(&server), Some(3.0));
        for id in [&silent, &over, &off] {
            assert_eq!(listed(&alpha, id).await, []);
        }
        assert_eq!(listed(&alpha, &soon).await.len(), 2, "those that were recorded stay");
    }

    /// Each connector that the routing policy has asked has its own event.
    async fn each_connector_of_a_route_has_an_event(server) {
        let alpha = server.client("alpha");
        let (empty, full) = (System::start(|_| Reply::new(404, "")).await, a_system().await);
        let empty = debugging(&alpha, &empty, "empty").await.id;
        let full = debugging(&alpha, &full, "full").await.id;
        let rule = |connector: &str| v1::RoutingRule {
            email_domains: vec!["*".to_owned()],
            target: Some(v1::routing_rule::Target::Connector(connector.to_owned())),
        };
        let routing_policy = Some(v1::RoutingPolicy { rules: vec![rule(&empty), rule(&full)], ..Default::default() });
        let request = v1::ReplaceRoutingPolicyRequest { routing_policy, ..Default::default() };
        alpha.connectors().replace_routing_policy(request).await.unwrap();
        log_in(&alpha, a_login("", "ada", "right")).await;
        let (first, second) = (events(&alpha, &empty, 1).await, events(&alpha, &full, 1).await);
        assert_eq!(first.iter().map(even).collect::<Vec<_>>(), [rejected(&empty, "SYSTEM_REJECTED", Some(404))]);
        assert_eq!(second.iter().map(even).collect::<Vec<_>>(), [accepted(&full, "ada")]);
        assert_eq!(first[0].request_id, second[0].request_id);
        let all = events(&alpha, "", 2).await;
        assert_eq!(all, [first, second].concat());
    }
}
