//! Applications whose users and permissions a licence server knows.

mod events;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::system::Received;
use jackfield_testkit::{Client, Reply, System, TestServer, fixture, on_both};
use serde_json::{Value, json};
use tonic::Code;

use super::login::{a_login, log_in, rejected, sessions, try_log_in};
use super::sessions::{permissions, user};
use super::{refused, update};
use crate::login::{connector, create};
use crate::steps;

/// The token that the licence server gives.
pub(crate) const TOKEN: &str = "license-token-of-ada";

/// A licence server that knows the user "ada" with the password "right", and has other answers if the test says so.
pub(crate) struct LicenseSystem {
    pub(crate) system: System,
    /// Answers to requests whose path begins with a text.
    others: Arc<Mutex<Vec<(&'static str, Reply)>>>,
}

fn companies() -> Value {
    json!([
        { "company_id": "initech", "company_name": "", "permissions": ["use_app", "write", "not here", "delete"] },
        { "company_id": 7, "company_name": "Acme", "permissions": ["read", "use_app"], "since": 2020 },
        { "company_id": "umbrella", "company_name": "Umbrella", "permissions": ["read", "write"] },
    ])
}

pub(crate) fn error(status: u16, code: &str) -> Reply {
    Reply::new(status, json!({ "message": "No.", "error_code": code, "trace": [] }).to_string())
}

fn answer(request: &Received) -> Reply {
    let token = request.headers.get("x-license-token").map(|token| token.as_bytes());
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let ok = |body: Value| Reply::new(200, body.to_string());
    match request.line.as_str() {
        "POST /v1/auth/authenticate/" if body == json!({ "username": "ada", "password": "right" }) => {
            ok(json!({ "token": TOKEN, "permissions": companies(), "expires_in": 3_600 }))
        }
        "GET /v1/auth/users/profile/" if token == Some(TOKEN.as_bytes()) => {
            ok(json!({ "first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "pin": null }))
        }
        "GET /v1/auth/get-permissions/" if token == Some(TOKEN.as_bytes()) => {
            ok(json!({ "permissions": companies(), "page": 1 }))
        }
        _ => error(401, "NOT_AUTHORIZED"),
    }
}

// === impl LicenseSystem ===

impl LicenseSystem {
    pub(crate) async fn start() -> Self {
        let others: Arc<Mutex<Vec<(&'static str, Reply)>>> = Arc::default();
        let known = Arc::clone(&others);
        let system = System::start(move |request| {
            let others = known.lock().unwrap();
            let other = others.iter().rev().find(|(line, _)| request.line.starts_with(line));
            other.map_or_else(|| answer(request), |(_, reply)| reply.clone())
        });
        LicenseSystem { system: system.await, others }
    }

    pub(crate) fn set(&self, line: &'static str, reply: Reply) {
        self.others.lock().unwrap().push((line, reply));
    }

    pub(crate) fn reset(&self) {
        self.others.lock().unwrap().clear();
    }

    /// Stores a connector for it, and an application. Returns their ids.
    pub(crate) async fn application(&self, client: &Client, name: &str, external_id: Option<&str>) -> (String, String) {
        let mut connector = connector(client, &self.system, name).await;
        let (base_url, application_id) = (self.system.url("/v1"), "of-the-connector".to_owned());
        connector.kind = Some(v1::connector::Kind::License(v1::LicenseConnector { base_url, application_id }));
        let connector = create(client, connector).await.id;
        let external_id = external_id.map(str::to_owned);
        let application = fixture::an_application(name);
        let application = v1::Application { external_id, connector: Some(connector.clone()), ..application };
        (connector, steps::application(client, application).await.id)
    }

    /// The ids of the application in all requests so far.
    fn modules(&self) -> Vec<String> {
        let module = |request: Received| request.headers["x-license-module"].to_str().unwrap().to_owned();
        self.system.received().into_iter().map(module).collect()
    }
}

fn expected_companies() -> Vec<v1::CompanyPermissions> {
    let company = |id: &str, name: &str, permissions: &[&str]| v1::CompanyPermissions {
        company_id: id.to_owned(),
        company_name: name.to_owned(),
        permissions: permissions.iter().map(|slug| (*slug).to_owned()).collect(),
    };
    vec![company("7", "Acme", &["read", "use_app"]), company("initech", "initech", &["use_app", "write"])]
}

fn fault() -> v1::AuthenticateApplicationUserResponse {
    v1::AuthenticateApplicationUserResponse { outcome: v1::LoginOutcome::UpstreamFault.into(), ..Default::default() }
}

async fn secrets(server: &TestServer) -> String {
    server.sql("select count(*) from secret where owner = 'session'").await.concat()
}

on_both! {
    async fn a_user_logs_in_with_profile_and_permissions_of_the_server(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (_, gallery) = license.application(&client, "gallery", Some("app-1")).await;
        // Neither this user nor these permissions count.
        steps::user(&client, v1::User { password: "password of ada".to_owned(), ..fixture::a_user("ada") }).await;
        steps::permit(&client, &gallery, "acme", "ada@example.com", &["use_app", "read"]).await;

        let opened = log_in(&client, "ext:app-1", "ada", "right").await;
        assert_eq!(opened.outcome(), v1::LoginOutcome::Accepted);
        assert_eq!((opened.companies, opened.permissions), (expected_companies(), vec!["read".to_owned(), "use_app".to_owned(), "write".to_owned()]));
        let ada = v1::SessionUser { user_id: "ada@example.com".to_owned(), email: "ada@example.com".to_owned(), first_name: "Ada".to_owned(), last_name: "Lovelace".to_owned(), ..Default::default() };
        assert_eq!(opened.user, Some(ada.clone()));
        let (token, session) = (opened.session_token, opened.session.unwrap());
        assert_eq!(session.user_id, "ada@example.com");
        assert_eq!(license.system.received().len(), 2);

        // Each use asks the server.
        license.set("GET /v1/auth/users/profile/", Reply::new(200, r#"{"first_name": "Augusta"}"#));
        let found = user(&client, &gallery, &token).await.unwrap();
        let augusta = v1::SessionUser { user_id: ada.user_id, first_name: "Augusta".to_owned(), ..Default::default() };
        assert_eq!((found.user, found.session), (Some(augusta), Some(session)));
        assert_eq!(permissions(&client, &gallery, &token).await.unwrap().companies, expected_companies());
        license.set("GET /v1/auth/get-permissions/", Reply::new(200, r#"{"permissions": []}"#));
        let none = permissions(&client, &gallery, &token).await.unwrap();
        assert_eq!((none.companies, none.permissions), (vec![], vec![]));
        assert_eq!(license.modules(), ["app-1"; 5]);

        assert_eq!(log_in(&client, &gallery, "ada", "password of ada").await, rejected());
        assert_eq!(log_in(&client, &gallery, "bob", "right").await, rejected());
        assert_eq!(sessions(&client, "").await.len(), 1);
    }

    async fn a_user_without_an_email_address_has_the_login_id(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (_, gallery) = license.application(&client, "gallery", None).await;
        for body in ["{}".to_owned(), json!({ "email": "e".repeat(129) }).to_string()] {
            license.set("GET /v1/auth/users/profile/", Reply::new(200, body));
            assert_eq!(log_in(&client, &gallery, "ada", "right").await.user.unwrap().user_id, "ada");
        }
        assert_eq!(license.modules(), ["of-the-connector"; 4]);
        license.set("POST", Reply::new(200, format!(r#"{{"token": "{TOKEN}", "permissions": []}}"#)));
        assert_eq!(log_in(&client, &gallery, &"a".repeat(129), "right").await, fault());
    }

    /// A server that fails says nothing about a password.
    async fn what_is_no_answer_of_the_protocol_is_a_fault(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (_, gallery) = license.application(&client, "gallery", None).await;
        let company = |id: usize| json!({ "company_id": id, "permissions": ["use_app"] });
        let many: Vec<_> = (0..401).map(company).collect();
        for reply in [
            Reply::new(500, r#"{"message": "Something went wrong."}"#),
            Reply::new(401, "<html>No.</html>"),
            Reply::new(200, "<html>Hello.</html>"),
            Reply::new(200, &b"\xff"[..]),
            Reply::new(200, r#"{"permissions": []}"#),
            Reply::new(200, r#"{"token": "", "permissions": []}"#),
            Reply::new(200, json!({ "token": TOKEN, "permissions": [{ "company_id": "c".repeat(129), "permissions": ["use_app"] }] }).to_string()),
            Reply::new(200, json!({ "token": TOKEN, "permissions": many }).to_string()),
            error(405, "NOT_ALLOWED"),
            error(400, "INVALID_FORMAT"),
        ] {
            license.set("POST", reply.clone());
            assert_eq!(log_in(&client, &gallery, "ada", "right").await, fault(), "{reply:?}");
        }
        license.reset();
        // The server has just given the token.
        for reply in [error(401, "NOT_AUTHORIZED"), Reply::new(500, "")] {
            license.set("GET /v1/auth/users/profile/", reply);
            assert_eq!(log_in(&client, &gallery, "ada", "right").await, fault());
        }
        assert_eq!(sessions(&client, "").await, []);
        license.reset();
        assert_eq!(log_in(&client, &gallery, "ada", "right").await.outcome(), v1::LoginOutcome::Accepted);
    }

    async fn a_session_of_one_application_is_refused_in_another(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (_, gallery) = license.application(&client, "gallery", None).await;
        let (_, other) = license.application(&client, "other", None).await;
        let token = log_in(&client, &gallery, "ada", "right").await.session_token;
        refused(user(&client, &other, &token).await, Code::PermissionDenied, "APPLICATION_MISMATCH");
        refused(permissions(&client, &other, &token).await, Code::PermissionDenied, "APPLICATION_MISMATCH");
        refused(user(&client, &gallery, TOKEN).await, Code::NotFound, "SESSION_NOT_FOUND");
        assert_eq!(license.system.received().len(), 2);
    }

    async fn a_server_that_cannot_be_asked_ends_no_session(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (directory, gallery) = license.application(&client, "gallery", None).await;
        let token = log_in(&client, &gallery, "ada", "right").await.session_token;
        for reply in [Reply::new(500, ""), Reply::new(401, "<html>"), Reply::new(200, "<html>"), error(403, "NOT_ALLOWED")] {
            license.set("GET", reply);
            let refusal = refused(user(&client, &gallery, &token).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
            assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("connector", &*directory));
            assert_eq!(refusal.details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
            refused(permissions(&client, &gallery, &token).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
        }
        license.reset();
        assert!(user(&client, &gallery, &token).await.is_ok());
        steps::enable(&client, &directory, false).await;
        refused(user(&client, &gallery, &token).await, Code::FailedPrecondition, "CONNECTOR_DISABLED");
        refused(try_log_in(&client, a_login(&gallery, "ada", "right")).await, Code::FailedPrecondition, "CONNECTOR_DISABLED");
        steps::enable(&client, &directory, true).await;
        assert!(permissions(&client, &gallery, &token).await.is_ok());
    }

    async fn a_token_that_the_server_no_longer_accepts_ends_the_session(server) {
        let client = server.client("alpha");
        let license = LicenseSystem::start().await;
        let (_, gallery) = license.application(&client, "gallery", None).await;
        for use_permissions in [false, true] {
            let token = log_in(&client, &gallery, "ada", "right").await.session_token;
            assert_eq!((sessions(&client, "ada@example.com").await.len(), &*secrets(&server).await), (1, "1"));
            license.set("GET", error(401, "NOT_AUTHORIZED"));
            match use_permissions {
                true => drop(refused(permissions(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND")),
                false => drop(refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND")),
            }
            license.reset();
            assert_eq!((sessions(&client, "").await.len(), &*secrets(&server).await), (0, "0"));
            refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
        }
    }

    /// The token is sealed, goes with the session, and to no other server.
    async fn the_token_is_a_secret_of_the_session(server) {
        let client = server.client("alpha");
        let (license, other) = (LicenseSystem::start().await, LicenseSystem::start().await);
        let (directory, gallery) = license.application(&client, "gallery", None).await;
        let token = log_in(&client, &gallery, "ada", "right").await.session_token;
        for table in ["session", "application", "connector", "idempotency", "audit_event"] {
            assert!(!server.sql(&format!("select * from {table}")).await.concat().contains(TOKEN), "{table}");
        }
        let rewrap = v1::RewrapSecretsRequest { reseal: true, ..Default::default() };
        server.client("operator").admin().rewrap_secrets(rewrap).await.unwrap();
        assert!(user(&client, &gallery, &token).await.is_ok());
        let end = |session_token: &str| v1::EndSessionRequest { application: gallery.clone(), session_token: session_token.to_owned(), ..Default::default() };
        assert!(client.applications().end_session(end(&token)).await.unwrap().into_inner().ended);
        assert_eq!(secrets(&server).await, "0");

        let [first, second] = [log_in(&client, &gallery, "ada", "right").await, log_in(&client, &gallery, "ada", "right").await].map(|opened| opened.session_token);
        let kind = |url| Some(v1::connector::Kind::License(v1::LicenseConnector { base_url: url, ..Default::default() }));
        let moved = |url| v1::UpdateConnectorRequest {
            reference: directory.clone(),
            connector: Some(v1::Connector { kind: kind(url), ..Default::default() }),
            update_mask: fixture::mask(["license.base_url"]),
            ..Default::default()
        };
        client.connectors().update_connector(moved(other.system.url("/v1"))).await.unwrap();
        refused(user(&client, &gallery, &first).await, Code::NotFound, "SESSION_NOT_FOUND");
        client.connectors().update_connector(moved(license.system.url("/v2"))).await.unwrap();
        refused(user(&client, &gallery, &first).await, Code::NotFound, "SESSION_NOT_FOUND");
        license.set("GET /v2/auth/users/profile/", Reply::new(200, "{}"));
        assert!(user(&client, &gallery, &second).await.is_ok());
        assert!(other.system.received().is_empty());
        assert_eq!(secrets(&server).await, "1");

        // The sessions of another connector are of no use to the next one.
        update(&client, &gallery, v1::Application { connector: Some(String::new()), ..Default::default() }, &["connector"]).await.unwrap();
        assert_eq!(secrets(&server).await, "0");
    }
}
