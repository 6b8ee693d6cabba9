//! Log-ins at licence servers.

use std::sync::{Arc, Mutex};

use jackfield_domain::Secret;
use jackfield_domain::connector::{ConnectorKind, License};
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step, Verdict};
use jackfield_upstream::client::{AUTHORIZATION, basic};
use jackfield_upstream::probe::Probe;
use serde_json::{Value, json};

use super::{Provoked, fact, login, made, of_kind, verdict};
use crate::server::{Server, header};
use crate::support::{definition, development, url};

/// A user who may use the application for one of two companies.
pub(super) const GRANT: &str = r#"{"token": "token-of-ada", "permissions": [
    {"company_id": "c-1", "company_name": "One", "permissions": ["read", "use_app"]},
    {"company_id": "c-2", "company_name": "Two", "permissions": ["read"]}]}"#;
/// A user who may use the application for no company.
pub(super) const WITHOUT_COMPANY: &str =
    r#"{"token": "t", "permissions": [{"company_id": "c-1", "company_name": "One", "permissions": ["read"]}]}"#;
/// A response with a company twice.
pub(super) const TWICE: &str = r#"{"token": "t", "permissions": [
    {"company_id": "c", "permissions": ["use_app"]}, {"company_id": "c", "permissions": ["use_app"]}]}"#;

fn license(base: &str, application_id: &str) -> ConnectorKind {
    ConnectorKind::License(License { base_url: url(base), application_id: application_id.to_owned() })
}

fn error(code: &str) -> String {
    json!({ "message": "No.", "error_code": code }).to_string()
}

/// Probes a server with one response. Returns the verdicts and what the server was asked.
async fn asked(
    (status, body): (u16, &str),
    is_real: bool,
    change: impl FnOnce(&mut Probe),
) -> (Vec<Verdict>, Vec<String>) {
    let head = format!("HTTP/1.1 {status} x\r\nlocation: https://moved.example/\r\ncontent-length: {}\r\n", body.len());
    let response = Arc::new(format!("{head}\r\n{body}"));
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    let server = Server::plain(move |mut peer| {
        let (kept, response) = (kept.clone(), response.clone());
        async move {
            while let Some(request) = peer.request().await {
                kept.lock().unwrap().push(request);
                peer.send(response.as_bytes()).await;
            }
        }
    })
    .await;
    let base = format!("http://localhost:{}/api/v1/", server.port());
    let mut a_probe = of_kind(definition(&base), &license(&base, "app-1"), is_real.then(login).flatten());
    change(&mut a_probe);
    let verdicts = made(development(), a_probe).await;
    let requests = requests.lock().unwrap().clone();
    (verdicts, requests)
}

async fn verdicts(response: (u16, &str), is_real: bool) -> Vec<Verdict> {
    asked(response, is_real, |_| ()).await.0
}

fn found(verdicts: &[Verdict], step: Step) -> (Outcome, Reason) {
    let verdict = verdict(verdicts, step);
    (verdict.result, verdict.reason)
}

/// A response to a log-in that should be accepted.
pub(super) async fn of_user(body: &str, result: Outcome) -> Provoked {
    Provoked::new(Step::Body, result, verdicts((200, body), true).await)
}

/// A response whose body is larger than what is read.
pub(super) async fn of_unread(status: u16) -> Vec<Verdict> {
    let narrow = |a_probe: &mut Probe| a_probe.definition.as_mut().unwrap().limits.body = 10;
    asked((status, &error("NOT_AUTHORIZED")), false, narrow).await.0
}

#[tokio::test]
async fn the_log_in_is_that_of_calls() {
    for is_real in [false, true] {
        let (verdicts, requests) = asked((200, GRANT), is_real, |_| ()).await;
        let [request] = &requests[..] else { panic!("it is asked once: {requests:?}") };
        assert!(request.starts_with("POST /api/v1/auth/authenticate/ HTTP/1.1\r\n"), "{request}");
        assert_eq!(header(request, "x-license-module"), Some("app-1"));
        assert_eq!(header(request, "content-type"), Some("application/json"));
        assert_eq!(header(request, "x-license-token"), None);
        let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        if is_real {
            assert_eq!(body, json!({ "username": "ada", "password": "word of Ada" }));
        } else {
            assert!(body["username"].as_str().unwrap().starts_with("jackfield-test-"), "{body}");
            assert_eq!(body["password"].as_str().unwrap().len(), 32);
        }
        let shown = format!("{verdicts:?}");
        assert!(!shown.contains("token-of-ada") && !shown.contains("word of Ada"), "{shown}");
    }
}

#[tokio::test]
async fn a_user_who_does_not_exist_is_rejected_by_an_error_of_the_api() {
    use Outcome::{Failed, Ok, Skipped, Warning};
    const BEFORE: (Outcome, Reason) = (Skipped, Reason::PreviousStepFailed);
    let let_in = (Ok, Reason::CredentialsNotRequired);
    let not_let_in = (Failed, Reason::CredentialsRequired);
    let undecided = (Skipped, Reason::Undecided);
    let no_body = (Skipped, Reason::BodyNotExpected);
    for (status, body, authentication, of_status, of_body) in [
        (401, error("NOT_AUTHORIZED"), let_in, (Ok, Reason::LoginRejected), no_body),
        (401, json!({ "message": "No." }).to_string(), let_in, (Ok, Reason::LoginRejected), no_body),
        (403, error("NOT_AUTHORIZED"), let_in, (Ok, Reason::LoginRejected), no_body),
        // A gateway, or another system.
        (401, "<html>".to_owned(), not_let_in, BEFORE, BEFORE),
        (403, "{}".to_owned(), not_let_in, BEFORE, BEFORE),
        (407, "{}".to_owned(), not_let_in, BEFORE, BEFORE),
        // The path may be wrong.
        (404, error("NOT_FOUND"), let_in, (Warning, Reason::StatusUnusual), no_body),
        (404, "<html>".to_owned(), let_in, (Failed, Reason::StatusUnexpected), BEFORE),
        (405, error("NOT_ALLOWED"), let_in, (Failed, Reason::StatusUnexpected), BEFORE),
        (400, error("UNEXPECTED_VALUE"), let_in, (Failed, Reason::StatusUnexpected), BEFORE),
        (302, String::new(), undecided, (Failed, Reason::Redirected), BEFORE),
        (500, error("NOT_AUTHORIZED"), let_in, (Failed, Reason::StatusUnexpected), BEFORE),
        (500, String::new(), undecided, (Failed, Reason::StatusUnexpected), BEFORE),
        (200, GRANT.to_owned(), let_in, (Failed, Reason::UnknownLoginAccepted), BEFORE),
        (200, "<html>".to_owned(), let_in, (Ok, Reason::Passed), (Failed, Reason::BodyMalformed)),
    ] {
        let verdicts = verdicts((status, &body), false).await;
        let found = [Step::Authentication, Step::Status, Step::Body].map(|step| found(&verdicts, step));
        assert_eq!(found, [authentication, of_status, of_body], "{status} {body} {verdicts:#?}");
    }
}

#[tokio::test]
async fn a_user_who_should_be_accepted_needs_a_token() {
    use Outcome::{Failed, Ok, Skipped, Warning};
    let accepted = (Ok, Reason::LoginAccepted);
    let unread = (Ok, Reason::Passed);
    for (status, body, of_status, of_body) in [
        (200, GRANT.as_bytes(), accepted, (Ok, Reason::Passed)),
        (201, GRANT.as_bytes(), accepted, (Ok, Reason::Passed)),
        (200, WITHOUT_COMPANY.as_bytes(), accepted, (Warning, Reason::CompaniesMissing)),
        (200, b"{\"permissions\": []}", unread, (Failed, Reason::BodyMalformed)),
        (200, b"{\"token\": \"\", \"permissions\": []}", unread, (Failed, Reason::FieldInvalid)),
    ] {
        let verdicts = verdicts((status, std::str::from_utf8(body).unwrap()), true).await;
        assert_eq!(
            [Step::Status, Step::Body].map(|step| found(&verdicts, step)),
            [of_status, of_body],
            "{verdicts:#?}"
        );
    }
    let accepted = verdicts((200, GRANT), true).await;
    assert_eq!(fact(verdict(&accepted, Step::Body), "companies"), "1");
    let rejected = verdicts((401, &error("NOT_AUTHORIZED")), true).await;
    assert_eq!(found(&rejected, Step::Status), (Failed, Reason::LoginRejected));
    assert_eq!(found(&rejected, Step::Body), (Skipped, Reason::PreviousStepFailed));
}

#[tokio::test]
async fn an_unknown_application_is_named() {
    let verdicts = verdicts((400, &error("UNEXPECTED_VALUE")), false).await;
    let status = verdict(&verdicts, Step::Status);
    assert!(status.message.contains("application_id"), "{status:?}");
    assert_eq!((fact(status, "status"), fact(status, "error_code")), ("400", "UNEXPECTED_VALUE"));
}

#[tokio::test]
async fn credentials_of_the_connector_are_told_from_those_of_the_user() {
    let with_basic = |a_probe: &mut Probe| {
        let value = basic("user", &Secret::new("password of the connector".to_owned())).unwrap();
        a_probe.definition.as_mut().unwrap().headers.insert(AUTHORIZATION, value);
    };
    let (rejected, _) = asked((401, &error("NOT_AUTHORIZED")), false, with_basic).await;
    assert_eq!(found(&rejected, Step::Authentication), (Outcome::Ok, Reason::CredentialsAccepted));
    let (refused, _) = asked((401, "<html>"), false, with_basic).await;
    assert_eq!(found(&refused, Step::Authentication), (Outcome::Failed, Reason::CredentialsRefused));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_leaves_the_status_undecided() {
    let verdicts = of_unread(401).await;
    assert_eq!(found(&verdicts, Step::Authentication), (Outcome::Skipped, Reason::Undecided));
    assert_eq!(found(&verdicts, Step::Status), (Outcome::Skipped, Reason::Undecided));
    assert_eq!(found(&verdicts, Step::Body), (Outcome::Failed, Reason::BodyTooLarge));
    // These statuses mean the same whatever the body is.
    for (status, reason) in [(302, Reason::Redirected), (500, Reason::StatusUnexpected)] {
        let verdicts = of_unread(status).await;
        assert_eq!(found(&verdicts, Step::Status), (Outcome::Failed, reason), "{status}");
    }
}

#[tokio::test]
async fn settings_of_which_no_request_can_be_made_fail_at_the_definition() {
    for (base, application_id, named) in [
        ("https://a.example/v1?x=y", "app-1", "must not have a query"),
        ("https://a.example/v1", "a\u{7f}b", "application"),
    ] {
        let a_probe = of_kind(definition(base), &license(base, application_id), None);
        let verdicts = made(development(), a_probe).await;
        let definition = verdict(&verdicts, Step::Definition);
        assert_eq!((definition.result, definition.reason), (Outcome::Failed, Reason::DefinitionInvalid), "{base}");
        assert!(definition.message.contains(named), "{definition:?}");
    }
}
