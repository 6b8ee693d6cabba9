//! Events of log-ins that a licence server checks.

use std::sync::Mutex;

use jackfield_api::v1;
use jackfield_testkit::system::Received;
use jackfield_testkit::{Canary, Client, Reply, System, fixture, logs, on_both};
use serde_json::{Value, json};

use super::super::login::{a_login, log_in, rejected};
use super::{LicenseSystem, TOKEN, companies, error, fault};
use crate::login::events::{self, accepted, even, faulty};
use crate::login::{connector, create};
use crate::steps;

/// Has a connector debug.
async fn debug(client: &Client, connector: &str) {
    let request = v1::UpdateConnectorRequest {
        reference: connector.to_owned(),
        connector: Some(v1::Connector { debug: Some(true), ..Default::default() }),
        ..Default::default()
    };
    client.connectors().update_connector(request).await.unwrap();
}

/// An event as that of a log-in to an application.
fn to(application_id: &str, event: v1::ConnectorEvent) -> v1::ConnectorEvent {
    v1::ConnectorEvent {
        operation: v1::ConnectorEventOperation::AuthenticateApplicationUser.into(),
        application_id: application_id.to_owned(),
        ..event
    }
}

on_both! {
    async fn each_log_in_has_an_event_with_its_exact_reason(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (directory, gallery) = license.application(&client, "gallery", Some("app-1")).await;
        log_in(&client, &gallery, "ada", "right").await;
        debug(&client, &directory).await;
        let mut request_ids = Vec::new();
        for (password, outcome) in [("right", v1::LoginOutcome::Accepted), ("wrong", v1::LoginOutcome::Rejected)] {
            let request = a_login(&gallery, "ada", password);
            let response = client.applications().authenticate_application_user(request).await.unwrap();
            request_ids.push(response.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned());
            assert_eq!(response.into_inner().outcome(), outcome);
        }
        let created = json!({ "token": TOKEN, "permissions": companies() }).to_string();
        license.set("POST", Reply::new(201, created));
        assert_eq!(log_in(&client, &gallery, "ada", "right").await.outcome(), v1::LoginOutcome::Accepted);
        license.set("POST", error(404, "NOT_FOUND"));
        assert_eq!(log_in(&client, &gallery, "ada", "right").await, rejected());
        let mut expected = vec![
            accepted(&directory, "ada"),
            events::rejected(&directory, "SYSTEM_REJECTED", Some(401)),
            v1::ConnectorEvent { http_status: Some(201), ..accepted(&directory, "ada") },
            events::rejected(&directory, "SYSTEM_REJECTED", Some(404)),
        ];
        let no_status = "status 500 with no error code neither accepts nor rejects";
        let form = "the body of the response is not JSON of the expected form: line 1, column";
        let field = "the response has an unusable field:";
        for (line, reply, reason, cause) in [
            ("POST", Reply::new(500, ""), "STATUS_UNEXPECTED", no_status.to_owned()),
            ("POST", error(405, "NOT_ALLOWED"), "STATUS_UNEXPECTED", "status 405 with NOT_ALLOWED neither accepts nor rejects".to_owned()),
            ("POST", Reply::new(200, "<html>Hello.</html>"), "BODY_MALFORMED", format!("{form} 1")),
            ("POST", Reply::new(201, "[]"), "BODY_MALFORMED", format!("{form} 0")),
            ("POST", Reply::new(200, &b"\xff"[..]), "BODY_NOT_UTF8", "the body of the response is not UTF-8".to_owned()),
            ("POST", Reply::new(200, r#"{"token": "", "permissions": []}"#), "FIELD_INVALID", format!("{field} token must be 1 to 1024 visible ASCII characters")),
            // The log-in is accepted, and its user cannot be read.
            ("GET", Reply::new(500, ""), "STATUS_UNEXPECTED", no_status.to_owned()),
            ("GET", Reply::new(200, "<html>"), "BODY_MALFORMED", format!("{form} 1")),
        ] {
            license.reset();
            license.set(line, reply.clone());
            assert_eq!(log_in(&client, &gallery, "ada", "right").await, fault(), "{reply:?}");
            expected.push(faulty(&directory, "ada", reason, Some(reply.status.into()), &cause));
        }
        let expected: Vec<_> = expected.into_iter().map(|event| to("app-1", event)).collect();
        let events = events::events(&client, &directory, expected.len()).await;
        assert_eq!(events.iter().map(even).collect::<Vec<_>>(), expected);
        assert_eq!([&events[0].request_id, &events[1].request_id], [&request_ids[0], &request_ids[1]]);
    }

    /// The application has no `external_id`, so its log-ins have the `application_id` of the connector.
    async fn an_event_has_the_application_as_the_server_was_told(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (directory, gallery) = license.application(&client, "gallery", None).await;
        debug(&client, &directory).await;
        log_in(&client, &gallery, "ada", "right").await;
        let events = events::events(&client, &directory, 1).await;
        assert_eq!(events.iter().map(even).collect::<Vec<_>>(), [to(&license.modules()[0], accepted(&directory, "ada"))]);
        assert_eq!(license.modules()[0], "of-the-connector");
    }

    async fn a_server_that_cannot_be_reached_has_its_reason(server) {
        let client = server.client("alpha");
        let license = v1::LicenseConnector { base_url: "http://127.0.0.1:1025/v1".to_owned(), application_id: "app".to_owned() };
        let away = v1::Connector {
            kind: Some(v1::connector::Kind::License(license)),
            debug: Some(true),
            ..fixture::a_connector("away")
        };
        let away = create(&client, away).await.id;
        let gallery = v1::Application { connector: Some(away.clone()), ..fixture::an_application("gallery") };
        let gallery = steps::application(&client, gallery).await.id;
        assert_eq!(log_in(&client, &gallery, "ada", "right").await, fault());
        let events = events::events(&client, &away, 1).await;
        let expected = faulty(&away, "ada", "CONNECT_FAILED", None, "no connection: connection refused");
        assert_eq!(events.iter().map(even).collect::<Vec<_>>(), [to("app", expected)]);
    }

    async fn secrets_that_a_server_sends_back_are_nowhere(server) {
        let everything = logs::everything();
        let client = server.client("alpha");
        let header = Canary::new("a secret header");
        let system = System::start(hostile()).await;
        let license = v1::LicenseConnector { base_url: system.url("/v1"), application_id: "app".to_owned() };
        let hostile = v1::Connector {
            kind: Some(v1::connector::Kind::License(license)),
            secret_headers: fixture::strings([("x-secret", &header.secret)]),
            debug: Some(true),
            ..connector(&client, &system, "hostile").await
        };
        let hostile = create(&client, hostile).await.id;
        let gallery = v1::Application { connector: Some(hostile.clone()), ..fixture::an_application("gallery") };
        let gallery = steps::application(&client, gallery).await.id;
        let mut canaries = vec![header];
        for (username, _) in CASES {
            let password = Canary::new(username);
            let response = log_in(&client, &gallery, username, &password.secret).await;
            assert!(response.session.is_none(), "{username}");
            canaries.push(password);
        }
        let events = events::events(&client, &hostile, CASES.len()).await;
        let found: Vec<_> = events.iter().map(|event| (&*event.login_id, &*event.reason)).collect();
        assert_eq!(found, CASES);

        events::assert_nowhere(&canaries, &server, everything, &hostile).await;
    }
}

/// The user names of a hostile server, with the reason of each log-in. Those with "token" in their names are accepted by it, and
/// the token that they get is sent back when their profile is asked for.
const CASES: [(&str, &str); 14] = [
    ("a page", "BODY_MALFORMED"),
    ("an error", "STATUS_UNEXPECTED"),
    ("a redirect", "STATUS_UNEXPECTED"),
    ("a rejection", "SYSTEM_REJECTED"),
    ("a code", "STATUS_UNEXPECTED"),
    ("no JSON", "BODY_MALFORMED"),
    ("a blank", "FIELD_INVALID"),
    ("a company", "FIELD_INVALID"),
    ("a company twice", "FIELD_INVALID"),
    ("a slug", "FIELD_INVALID"),
    ("a token on a page", "BODY_MALFORMED"),
    ("a token in an error", "STATUS_UNEXPECTED"),
    ("a token in a rejection", "STATUS_UNEXPECTED"),
    ("a token in a name", "FIELD_INVALID"),
];

/// A licence server that sends back every secret that it gets. Its tokens have the password.
fn hostile() -> impl Fn(&Received) -> Reply + Send + Sync + 'static {
    // The user name of the last log-in: a profile is asked for at once.
    let last = Mutex::new(String::new());
    move |request| {
        let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let mut last = last.lock().unwrap();
        match body["username"].as_str() {
            Some(username) => {
                last.replace_range(.., username);
                let learned = format!("{}{}", body["password"].as_str().unwrap(), header("x-secret"));
                answer_to_log_in(username, &learned)
            }
            None => answer_to_token(&last, header("x-license-token")),
        }
    }
}

fn answer_to_log_in(username: &str, learned: &str) -> Reply {
    let long = learned.repeat(20);
    let json = |body: Value| Reply::new(200, body.to_string());
    let company =
        |id: &str, slug: &str| json!({ "company_id": id, "company_name": id, "permissions": ["use_app", slug] });
    let grant = |companies: Value| json(json!({ "token": learned, "permissions": companies }));
    match username {
        "a page" => Reply::new(200, format!("<html>{learned}</html>")),
        "an error" => Reply { headers: vec![("x-echo", learned.to_owned())], ..Reply::new(500, learned.to_owned()) },
        "a redirect" => {
            Reply { headers: vec![("location", format!("/{learned}"))], ..Reply::new(302, learned.to_owned()) }
        }
        "a rejection" => {
            Reply::new(401, json!({ "message": learned, "error_code": "NOT_AUTHORIZED", learned: learned }).to_string())
        }
        "a code" => Reply::new(401, json!({ "message": learned, "error_code": learned }).to_string()),
        "no JSON" => Reply::new(200, format!("{{\"{learned}\": {learned}}}")),
        "a blank" => json(json!({ "token": format!("{learned} {learned}"), "permissions": [] })),
        "a company" => grant(json!([company(&long, "read")])),
        "a company twice" => grant(json!([company(learned, "read"), company(learned, "read")])),
        "a slug" => grant(json!([company("acme", &long)])),
        _ => grant(json!([])),
    }
}

fn answer_to_token(username: &str, token: &str) -> Reply {
    assert!(!token.is_empty());
    match username {
        "a token on a page" => Reply::new(200, format!("<html>{token}</html>")),
        "a token in an error" => Reply::new(500, json!({ "message": token, "error_code": token }).to_string()),
        "a token in a rejection" => {
            Reply::new(401, json!({ "message": token, "error_code": "NOT_AUTHORIZED" }).to_string())
        }
        "a token in a name" => Reply::new(200, json!({ "first_name": token.repeat(20) }).to_string()),
        other => panic!("{other}"),
    }
}
