//! TestConnector for licence servers.

use jackfield_api::v1;
use jackfield_api::v1::{ConnectorTestReason as Reason, ConnectorTestResult as Outcome, ConnectorTestStep as Step};
use jackfield_testkit::{Client, Reply, System, TestServer, expect_status, fixture, on_both};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

use super::{fact, found, inline, stored, verdicts, with_login};
use crate::license_api::{PASSWORD, ann, application, served};
use crate::login::{connector, create};
use crate::steps;

/// A licence server that knows the user "ada" with the password "right".
async fn a_license_system() -> System {
    System::start(|request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let is_ada = body == json!({ "username": "ada", "password": "right" });
        match (request.line.as_str(), is_ada) {
            ("POST /v1/auth/authenticate/", true) => {
                let company =
                    json!({ "company_id": "initech", "company_name": "Initech", "permissions": ["use_app", "read"] });
                Reply::new(200, json!({ "token": "license-token-of-ada", "permissions": [company] }).to_string())
            }
            ("POST /v1/auth/authenticate/", false) => {
                Reply::new(401, json!({ "message": "No.", "error_code": "NOT_AUTHORIZED" }).to_string())
            }
            _ => Reply::new(404, "<html>no such page</html>"),
        }
    })
    .await
}

fn license(base_url: &str, application_id: &str) -> Option<v1::connector::Kind> {
    let (base_url, application_id) = (base_url.to_owned(), application_id.to_owned());
    Some(v1::connector::Kind::License(v1::LicenseConnector { base_url, application_id }))
}

async fn a_connector(client: &Client, system: &System, base_url: &str) -> v1::Connector {
    v1::Connector { kind: license(base_url, "app-1"), ..connector(client, system, "licences").await }
}

fn results(verdicts: &[v1::TestConnectorResponse]) -> [(Outcome, Reason); 4] {
    [Step::ClientCertificate, Step::Authentication, Step::Status, Step::Body].map(|step| found(verdicts, step))
}

on_both! {
    async fn a_licence_server_gets_a_log_in_that_it_has_to_reject(server) {
        let alpha = server.client("alpha");
        let system = a_license_system().await;
        let definition = a_connector(&alpha, &system, &system.url("/v1")).await;
        let before = verdicts(&alpha, inline(definition.clone())).await;
        let connector = create(&alpha, definition).await;
        let after = verdicts(&alpha, stored(&connector.id)).await;
        for verdicts in [before, after] {
            assert_eq!(
                results(&verdicts),
                [
                    (Outcome::Ok, Reason::ClientCertificateAccepted),
                    (Outcome::Ok, Reason::CredentialsNotRequired),
                    (Outcome::Ok, Reason::LoginRejected),
                    (Outcome::Skipped, Reason::BodyNotExpected),
                ],
                "{verdicts:#?}"
            );
            assert_eq!(fact(&verdicts, Step::Status, "error_code"), "NOT_AUTHORIZED");
        }
        let received = system.received();
        assert_eq!(received.len(), 2, "each test is one request");
        for received in received {
            assert_eq!(received.line, "POST /v1/auth/authenticate/");
            assert_eq!(received.headers["x-license-module"], "app-1");
            let body: Value = serde_json::from_slice(&received.body).unwrap();
            assert!(body["username"].as_str().unwrap().starts_with("jackfield-test-"), "{body}");
            assert!(!body["password"].as_str().unwrap().is_empty(), "{body}");
        }
    }

    async fn a_real_log_in_at_a_licence_server_shows_its_companies(server) {
        let alpha = server.client("alpha");
        let system = a_license_system().await;
        let definition = a_connector(&alpha, &system, &system.url("/v1")).await;
        let right = verdicts(&alpha, with_login(inline(definition.clone()), "ada", "right")).await;
        assert_eq!(found(&right, Step::Status), (Outcome::Ok, Reason::LoginAccepted));
        assert_eq!(found(&right, Step::Body), (Outcome::Ok, Reason::Passed));
        assert_eq!(fact(&right, Step::Body, "companies"), "1");
        let shown = format!("{right:?}");
        assert!(!shown.contains("license-token-of-ada") && !shown.contains("Initech"), "{shown}");
        let wrong = verdicts(&alpha, with_login(inline(definition), "ada", "wrong")).await;
        assert_eq!(found(&wrong, Step::Status), (Outcome::Failed, Reason::LoginRejected));
        assert_eq!(found(&wrong, Step::Body), (Outcome::Skipped, Reason::PreviousStepFailed));
    }

    async fn a_wrong_base_url_is_found_before_it_is_stored(server) {
        let alpha = server.client("alpha");
        let system = a_license_system().await;
        let definition = a_connector(&alpha, &system, &system.url("/v2")).await;
        let other_path = verdicts(&alpha, inline(definition)).await;
        assert_eq!(found(&other_path, Step::Status), (Outcome::Failed, Reason::StatusUnexpected));
        assert_eq!(system.received().len(), 1);
    }

    async fn a_wrong_application_is_found_before_it_is_stored(backend: Backend) {
        let server = served(backend, |_| {}).await;
        let alpha = server.client("alpha");
        application(&alpha, "gallery", None).await;
        ann(&alpha).await;
        let definition = |application_id: &str| v1::Connector {
            kind: license(&server.license_api_base(), application_id),
            ..fixture::a_connector("gallery of another Jackfield")
        };
        let unknown = verdicts(&alpha, inline(definition("other"))).await;
        assert_eq!(found(&unknown, Step::Status), (Outcome::Failed, Reason::StatusUnexpected));
        assert_eq!(fact(&unknown, Step::Status, "error_code"), "UNEXPECTED_VALUE");
        let known = verdicts(&alpha, inline(definition("gallery"))).await;
        assert_eq!(found(&known, Step::Status), (Outcome::Ok, Reason::LoginRejected));

        let with_ann = || with_login(inline(definition("gallery")), "ann", PASSWORD);
        let without_company = verdicts(&alpha, with_ann()).await;
        assert_eq!(found(&without_company, Step::Status), (Outcome::Ok, Reason::LoginAccepted));
        assert_eq!(found(&without_company, Step::Body), (Outcome::Warning, Reason::CompaniesMissing));
        steps::permit(&alpha, "ext:gallery", "initech", "ann-1", &["use_app"]).await;
        let with_company = verdicts(&alpha, with_ann()).await;
        assert_eq!(found(&with_company, Step::Body), (Outcome::Ok, Reason::Passed));
    }

    /// A test shows if a password is right.
    async fn log_ins_of_tests_are_attempts_to_log_in_to_applications(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.login.attempts_per_user_and_source = 0;
            config.login.attempts_per_user = 2;
            config.login.attempts_per_source = 0;
        })
        .await;
        let alpha = server.client("alpha");
        let system = a_license_system().await;
        let connector = create(&alpha, a_connector(&alpha, &system, &system.url("/v1")).await).await.id;
        let gallery = application(&alpha, "gallery", Some(connector.clone())).await;
        for _ in 0..2 {
            let wrong = verdicts(&alpha, with_login(stored(&connector), "ada", "guess")).await;
            assert_eq!(found(&wrong, Step::Status), (Outcome::Failed, Reason::LoginRejected));
        }
        let over: Result<Response<()>, Status> = alpha
            .connectors()
            .test_connector(with_login(stored(&connector), "ada", "right"))
            .await
            .map(|response| response.map(drop));
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        let log_in = v1::AuthenticateApplicationUserRequest {
            application: gallery,
            username: "ADA".to_owned(),
            password: "right".to_owned(),
            ..Default::default()
        };
        let over = alpha.applications().authenticate_application_user(log_in).await;
        expect_status(over, Code::ResourceExhausted, "LOGIN_ATTEMPTS_EXCEEDED");
        assert_eq!(system.received().len(), 2);
        // Log-ins of users who do not exist are not attempts.
        let made_up = verdicts(&alpha, stored(&connector)).await;
        assert_eq!(found(&made_up, Step::Status), (Outcome::Ok, Reason::LoginRejected));
    }
}
