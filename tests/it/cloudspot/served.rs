//! The published clients against Jackfield, unchanged.

use jackfield_api::v1;
use jackfield_testkit::cloudspot::RELEASES;
use jackfield_testkit::{TestServer, on_both};
use serde_json::{Value, json};

use super::{python, python_once};
use crate::license_api::chain::Origin;
use crate::license_api::{PASSWORD, ann, application, on_loopback, served};
use crate::steps;

/// The calls that a release has, after a log-in.
fn calls(release: &str) -> Value {
    let log_in = json!(["authenticate", "ann@example.com", PASSWORD]);
    match release {
        // Its get_permissions calls an endpoint that it does not have.
        "1.0.0" => json!([log_in, ["get_user"]]),
        _ => json!([
            log_in,
            ["get_user"],
            ["get_permissions"],
            ["get_company_permissions", "acme"],
            ["get_company_permissions", "umbrella"],
            ["get_company_permissions", "unknown"]
        ]),
    }
}

on_both! {
    async fn a_user_logs_in_with_profile_and_permissions(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, base) = (server.client("alpha"), server.license_api_base());
        ann(&alpha).await;
        let gallery = application(&alpha, "gallery", None).await;
        steps::permit(&alpha, &gallery, "acme", "ann-1", &["use_app", "read"]).await;
        steps::permit(&alpha, &gallery, "initech", "ann-1", &["use_app"]).await;
        steps::permit(&alpha, &gallery, "umbrella", "ann-1", &["read"]).await;
        let companies = json!([
            { "company_id": "acme", "company_name": "acme", "permissions": ["read", "use_app"] },
            { "company_id": "initech", "company_name": "initech", "permissions": ["use_app"] },
        ]);
        for release in RELEASES {
            let outcomes = python(release, &base, "gallery", calls(release)).await;
            assert!(outcomes.iter().all(|outcome| outcome.get("error").is_none()), "{release}: {outcomes:?}");
            assert_eq!(outcomes[0]["companies"], companies, "{release}");
            assert_eq!(outcomes[0]["token"].as_str().unwrap().len(), 43);
            assert_eq!(outcomes[1]["user"], json!({ "first_name": "Ann", "last_name": "Größe", "email": "ann@example.com" }), "{release}");
            if let [_, _, all, acme, umbrella, unknown] = &outcomes[..] {
                assert_eq!(all["companies"], companies);
                let slugs = [acme, umbrella, unknown].map(|outcome| outcome["returned"].clone());
                assert_eq!(slugs, [json!(["read", "use_app"]), json!([]), json!([])]);
            }
        }
    }

    async fn what_is_refused_is_an_error_that_the_client_knows(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let (alpha, base) = (server.client("alpha"), server.license_api_base());
        ann(&alpha).await;
        let gallery = application(&alpha, "gallery", None).await;
        application(&alpha, "other", None).await;
        let [first, newest] = RELEASES;
        let log_in = |password: &str| json!(["authenticate", "ann", password]);
        for (application, password) in [("gallery", "wrong"), ("none", PASSWORD)] {
            assert_eq!(python_once(newest, &base, application, log_in(password)).await["error"], "BadCredentials");
            // The first release does not know error codes.
            assert_eq!(python_once(first, &base, application, log_in(password)).await["error"], "AttributeError");
        }
        let session = python_once(newest, &base, "gallery", log_in(PASSWORD)).await["token"].as_str().unwrap().to_owned();
        let uses = json!([["get_user", session], ["get_permissions", session], ["get_company_permissions", "acme", session]]);
        let elsewhere = python(newest, &base, "other", uses.clone()).await;
        let end = v1::EndSessionRequest { application: gallery, session_token: session, ..Default::default() };
        assert!(alpha.applications().end_session(end).await.unwrap().into_inner().ended);
        for outcomes in [elsewhere, python(newest, &base, "gallery", uses).await] {
            let errors: Vec<_> = outcomes.iter().map(|outcome| (&outcome["error"], &outcome["message"])).collect();
            let (error, message) = (json!("NoValidToken"), json!("No valid token found."));
            assert_eq!(errors, [(&error, &message), (&error, &message), (&json!("Exception"), &message)]);
        }
    }

    /// The clients know one error of log-ins, and read its body.
    async fn too_many_attempts_are_an_error_that_the_client_knows(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.license_api = on_loopback();
            config.login.attempts_per_user = 1;
        });
        let server = server.await;
        let (alpha, base) = (server.client("alpha"), server.license_api_base());
        ann(&alpha).await;
        application(&alpha, "gallery", None).await;
        let [_, newest] = RELEASES;
        assert_eq!(python_once(newest, &base, "gallery", json!(["authenticate", "ann", "wrong"])).await["error"], "BadCredentials");
        for release in RELEASES {
            let refused = python_once(release, &base, "gallery", json!(["authenticate", "ann", PASSWORD])).await;
            assert_eq!(refused["error"], "BadCredentials", "{release}: {refused}");
        }
    }

    /// The users are those of another server, which is asked over its own licence API.
    async fn a_user_of_another_server_logs_in(backend: Backend) {
        let (origin, server) = (Origin::start(backend).await, served(backend, |_| {}).await);
        let base = server.license_api_base();
        origin.application(&server.client("alpha")).await;
        for release in RELEASES {
            let outcomes = python(release, &base, "gallery", calls(release)).await;
            assert!(outcomes.iter().all(|outcome| outcome.get("error").is_none()), "{release}: {outcomes:?}");
            assert_eq!(outcomes[0]["companies"][0]["permissions"], json!(["read", "use_app"]), "{release}");
            assert_eq!(outcomes[1]["user"], json!({ "first_name": "Ann", "last_name": "Größe", "email": "ann@example.com" }), "{release}");
        }
        let [_, newest] = RELEASES;
        let wrong = python_once(newest, &base, "gallery", json!(["authenticate", "ann", "wrong"])).await;
        assert_eq!(wrong["error"], "BadCredentials");
    }

    async fn without_codes_errors_are_those_that_the_first_release_knows(backend: Backend) {
        let server = served(backend, |license_api| license_api.error_codes = false).await;
        let (alpha, base) = (server.client("alpha"), server.license_api_base());
        ann(&alpha).await;
        application(&alpha, "gallery", None).await;
        for release in RELEASES {
            for (application, password) in [("gallery", "wrong"), ("none", PASSWORD)] {
                let log_in = python_once(release, &base, application, json!(["authenticate", "ann", password])).await;
                assert_eq!(log_in["error"], "BadCredentials", "{release}: {application}");
            }
            let user = python_once(release, &base, "gallery", json!(["get_user", "unknown"])).await;
            assert_eq!(user["error"], "NoValidToken", "{release}");
        }
    }
}
