//! Refused requests, with their statuses and codes.

use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::{ManualClock, Reply, System, TestServer, on_both};
use serde_json::json;

use super::{PASSWORD, ann, application, get, log_in, on_loopback, request, send, served, token};
use crate::login::{a_system, connector, create};
use crate::{application as applications, steps};

const LOG_IN: &str = "POST /api/v1/auth/authenticate/";
const MODULE: (&str, &str) = ("x-license-module", "gallery");

on_both! {
    async fn a_log_in_that_is_not_accepted(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, address) = (server.client("alpha"), server.license_api_address());
        ann(&alpha).await;
        application(&alpha, "gallery", None).await;
        for (username, password) in [("ann", "wrong"), ("unknown", PASSWORD)] {
            log_in(address, "gallery", username, password).await.expect(401, "NOT_AUTHORIZED");
        }
        for application in ["none", "name:gallery", "ext:ext:gallery", "ext:", "\u{e9}"] {
            log_in(address, application, "ann", PASSWORD).await.expect(400, "UNEXPECTED_VALUE");
        }
        log_in(address, "gallery", " ", PASSWORD).await.expect(400, "UNEXPECTED_VALUE");
        log_in(address, "gallery", "ann", &"x".repeat(1_025)).await.expect(400, "UNEXPECTED_VALUE");
        log_in(address, " ", "ann", PASSWORD).await.expect(400, "EXPECTED_VALUE");
        // The applications of another tenant are unknown.
        application(&server.client("beta"), "theirs", None).await;
        log_in(address, "theirs", "ann", PASSWORD).await.expect(400, "UNEXPECTED_VALUE");
        let disabled = v1::Application { enabled: Some(false), ..Default::default() };
        applications::update(&alpha, "ext:gallery", disabled, &[]).await.unwrap();
        log_in(address, "gallery", "ann", PASSWORD).await.expect(400, "UNEXPECTED_VALUE");
    }

    async fn requests_that_cannot_be_read(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, address) = (server.client("alpha"), server.license_api_address());
        ann(&alpha).await;
        application(&alpha, "gallery", None).await;
        let good = json!({ "username": "ann", "password": PASSWORD });
        for body in ["", "{", "[]", "\"ann\"", r#"["ann", "p"]"#, r#"{"username": 1, "password": "p"}"#, r#"{"username": "a", "username": "b", "password": "p"}"#, &"[".repeat(10_000)] {
            let answer = send(address, &request(LOG_IN, &[MODULE], body)).await;
            answer.expect(400, "INVALID_FORMAT");
        }
        let mut latin = request(LOG_IN, &[MODULE], r#"{"username": "ann", "password": "?"}"#);
        *latin.iter_mut().rev().find(|byte| **byte == b'?').unwrap() = 0xe9;
        send(address, &latin).await.expect(400, "INVALID_FORMAT");
        for body in ["{}", r#"{"username": "ann"}"#, r#"{"username": null, "password": "p"}"#] {
            send(address, &request(LOG_IN, &[MODULE], body)).await.expect(400, "EXPECTED_VALUE");
        }
        send(address, &request(LOG_IN, &[], &good.to_string())).await.expect(400, "EXPECTED_VALUE");
        send(address, &request(LOG_IN, &[MODULE, MODULE], &good.to_string())).await.expect(400, "UNEXPECTED_VALUE");
        for path in ["/", "/api/v2/auth/authenticate/", "/auth/authenticate/", "/api/v1/auth/impersonation-validation/", "/api/v1/auth/get-company-permissions/", "/metrics"] {
            send(address, &request(&format!("GET {path}"), &[MODULE], "")).await.expect(404, "NOT_FOUND");
        }
        for (line, allowed) in [("GET /api/v1/auth/authenticate/", "post"), ("DELETE /api/v1/auth/users/profile/", "get"), ("POST /api/v1/auth/get-permissions/", "get")] {
            let answer = send(address, &request(line, &[MODULE], "")).await;
            answer.expect(405, "NOT_ALLOWED");
            assert_eq!(answer.header("allow"), Some(allowed));
        }
        // Members that are not known are ignored, and so are a query and a missing slash at the end.
        let mut more = good;
        more["remember"] = json!({ "me": [true] });
        let line = "POST /api/v1/auth/authenticate?a=b";
        assert_eq!(send(address, &request(line, &[MODULE], &more.to_string())).await.status, 200);
    }

    /// Attempts are limited by login id, and the client learns how long it has to wait.
    async fn too_many_attempts_with_one_login_id(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |config| {
            config.license_api = on_loopback();
            (config.login.attempts_per_user, config.login.user_window) = (2, Duration::from_secs(600));
        });
        let server = server.await;
        let (alpha, address) = (server.client("alpha"), server.license_api_address());
        ann(&alpha).await;
        application(&alpha, "gallery", None).await;
        for (username, password) in [("ann", PASSWORD), ("stranger", "any")] {
            for _ in 0..2 {
                log_in(address, "gallery", username, "wrong").await.expect(401, "NOT_AUTHORIZED");
            }
            clock.advance(Duration::from_millis(1_500));
            let refused = log_in(address, "gallery", username, password).await;
            // The part of a second is waited for as well.
            assert_eq!((refused.status, refused.header("retry-after")), (429, Some("599")), "{refused:?}");
            assert_eq!(refused.json(), json!({ "message": "Too many requests." }));
            assert_eq!(refused.header("content-type"), Some("application/json"));
        }
        clock.advance(Duration::from_secs(600));
        assert_eq!(log_in(address, "gallery", "ann", PASSWORD).await.status, 200);
    }

    async fn a_token_that_is_not_valid(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, address) = (server.client("alpha"), server.license_api_address());
        ann(&alpha).await;
        let gallery = application(&alpha, "gallery", None).await;
        application(&alpha, "other", None).await;
        steps::permit(&alpha, &gallery, "acme/1 ü", "ann-1", &["use_app", "read"]).await;
        let session = token(&log_in(address, "gallery", "ann", PASSWORD).await);
        let company = "auth/get-company-permissions/acme/1%20%C3%BC/";
        let paths = ["auth/users/profile/", "auth/get-permissions/", company];
        for path in paths {
            assert_eq!(get(address, path, "gallery", &session).await.status, 200, "{path}");
            for wrong in ["", "wrong", "****", &"x".repeat(300)] {
                get(address, path, "gallery", wrong).await.expect(401, "NOT_AUTHORIZED");
            }
            get(address, path, "other", &session).await.expect(401, "NOT_AUTHORIZED");
            get(address, path, "none", &session).await.expect(400, "UNEXPECTED_VALUE");
        }
        assert_eq!(get(address, company, "gallery", &session).await.json(), json!({ "permissions": ["read", "use_app"] }));
        let unknown = get(address, "auth/get-company-permissions/initech/", "gallery", &session).await;
        assert_eq!((unknown.status, unknown.json()), (200, json!({ "permissions": [] })));
        get(address, "auth/get-company-permissions/%ff/", "gallery", &session).await.expect(400, "INVALID_FORMAT");
        let end = v1::EndSessionRequest { application: gallery, session_token: session.clone(), ..Default::default() };
        assert!(alpha.applications().end_session(end).await.unwrap().into_inner().ended);
        for path in paths {
            get(address, path, "gallery", &session).await.expect(401, "NOT_AUTHORIZED");
        }
    }

    /// A system that cannot be asked is no mistake of the user.
    async fn a_system_that_cannot_be_asked(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, address) = (server.client("alpha"), server.license_api_address());
        let system = System::start(|_| Reply::new(500, "")).await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        application(&alpha, "gallery", Some(directory.clone())).await;
        let unavailable = async || {
            let answer = log_in(address, "gallery", "ada", "right").await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
            assert_eq!(answer.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["message"]);
        };
        unavailable().await;
        steps::enable(&alpha, &directory, false).await;
        unavailable().await;
    }

    /// The system of a connector learns whom the user comes from.
    async fn a_connector_checks_the_log_in(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, address) = (server.client("alpha"), server.license_api_address());
        let system = a_system().await;
        let directory = create(&alpha, connector(&alpha, &system, "directory").await).await.id;
        application(&alpha, "gallery", Some(directory)).await;
        let body = json!({ "username": "ada", "password": "right" }).to_string();
        let answer = send(address, &request(LOG_IN, &[MODULE, ("user-agent", "a client/1.0")], &body)).await;
        let profile = get(address, "auth/users/profile/", "gallery", &token(&answer)).await.json();
        assert_eq!(profile, json!({ "first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com" }));
        let asked: serde_json::Value = serde_json::from_slice(&system.received()[0].body).unwrap();
        assert_eq!((&asked["applicationId"], &asked["eventInfo"]["ipAddress"], &asked["eventInfo"]["userAgent"]), (&json!("gallery"), &json!(null), &json!("a client/1.0")));
    }
}
