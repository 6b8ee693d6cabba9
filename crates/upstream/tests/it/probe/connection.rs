//! Connections: token endpoints, discovery documents and key sets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::probe::{
    ProbeEndpoint as Endpoint, ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step, Verdict,
};
use jackfield_domain::value::url::RedirectUri;
use jackfield_upstream::client::basic;
use jackfield_upstream::oauth::ClientAuthentication;
use jackfield_upstream::probe::{
    ConnectionProbe, DocumentUse, Finding, Plan, Probe, ProbedCode, TokenCheck, probe_connection,
};

use super::{Provoked, fact, of, verdict};
use crate::server::{Peer, Server, header};
use crate::support::{client, definition, development, url};

/// An answer of a token endpoint: status and body.
type Answer = (u16, &'static str);

const INVALID_GRANT: Answer = (400, r#"{"error": "invalid_grant"}"#);
const INVALID_CLIENT: Answer = (401, r#"{"error": "invalid_client"}"#);
const KEY: &str = r#"{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// The verdicts of a probe of a connection.
async fn made(connector: Probe, findings: Vec<Finding>, plans: Vec<(Endpoint, Plan)>) -> Vec<Verdict> {
    let probe = ConnectionProbe { connector, authenticated: None, findings, plans, seeks_keys: true };
    probe_connection(Arc::new(development()), probe).collect().await
}

/// The verdicts about one endpoint. There is one of each step, in order.
fn about(verdicts: Vec<Verdict>, endpoint: Endpoint) -> Vec<Verdict> {
    let verdicts: Vec<_> = verdicts.into_iter().filter(|verdict| verdict.endpoint == Some(endpoint)).collect();
    assert_eq!(verdicts.iter().map(|verdict| verdict.step).collect::<Vec<_>>(), Step::ALL, "{endpoint:?}");
    verdicts
}

/// A connection that lacks something.
pub(super) async fn of_finding(result: Outcome, reason: Reason) -> Provoked {
    let finding = Finding { result, reason, message: "The connection lacks something.".to_owned() };
    let verdicts = made(of("https://login.example/"), vec![finding], Vec::new()).await;
    Provoked::new(Step::Definition, result, verdicts)
}

/// The verdicts about a token endpoint that answers by client secret, and the bodies that it got. A secret that is not among them is unknown to
/// it.
async fn token(secrets: &[&str], answers: &'static [(&'static str, Answer)]) -> (Vec<Verdict>, Vec<String>) {
    token_of(ProbedCode::Authorization, secrets, answers).await
}

async fn token_of(
    sends: ProbedCode,
    secrets: &[&str],
    answers: &'static [(&'static str, Answer)],
) -> (Vec<Verdict>, Vec<String>) {
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&bodies);
    let server = Server::plain(move |mut peer: Peer| {
        let kept = Arc::clone(&kept);
        async move {
            let Some(request) = peer.request().await else { return };
            kept.lock().unwrap().push(request.split("\r\n\r\n").nth(1).unwrap().to_owned());
            let authorization = header(&request, "authorization").unwrap();
            let is_of = |secret: &str| basic("c1", &Secret::new(secret.to_owned())).unwrap() == authorization;
            let known = answers.iter().find(|(secret, _)| is_of(secret));
            let (status, body) = known.map_or(INVALID_CLIENT, |(_, answer)| *answer);
            let length = body.len();
            let location = "location: https://moved.example/\r\n";
            peer.send(format!("HTTP/1.1 {status} Status\r\n{location}content-length: {length}\r\n\r\n{body}")).await;
        }
    })
    .await;
    let text = format!("http://localhost:{}/token", server.port());
    let authentications = secrets.iter().map(|secret| ClientAuthentication::SecretBasic {
        client_id: "c1".to_owned(),
        client_secret: Secret::new((*secret).to_owned()),
    });
    let check = TokenCheck {
        client: Arc::new(client(development(), definition(&text))),
        url: url(&text),
        authentications: authentications.collect(),
        content_type: TokenContentType::Form,
        sends,
        parameters: BTreeMap::new(),
        redirect_uri: RedirectUri::stored("https://app.example/back".to_owned()),
        code: Secret::new("a-code".to_owned()),
        code_verifier: Secret::new("a-verifier".to_owned()),
    };
    let verdicts = made(of(&text), Vec::new(), vec![(Endpoint::Token, Plan::token(check))]).await;
    let bodies = bodies.lock().unwrap().clone();
    (about(verdicts, Endpoint::Token), bodies)
}

pub(super) async fn of_token(
    secrets: &[&str],
    answers: &'static [(&'static str, Answer)],
    step: Step,
    result: Outcome,
) -> Provoked {
    Provoked::new(step, result, token(secrets, answers).await.0)
}

pub(super) async fn of_answer(status: u16, body: &'static str, step: Step, result: Outcome) -> Provoked {
    let answers: &'static [(&'static str, Answer)] = Box::leak(Box::new([("one", (status, body))]));
    of_token(&["one"], answers, step, result).await
}

/// A provider with these documents, in which `ISSUER` is its issuer. The connection has another token endpoint, unless it is that of the
/// document.
async fn documents(token_endpoint: &str, keys: &str) -> Vec<Verdict> {
    let (issuer, known) = tokio::sync::watch::channel(String::new());
    let keys = keys.to_owned();
    let server = Server::plain(move |mut peer: Peer| {
        let (issuer, keys) = (known.borrow().clone(), keys.clone());
        async move {
            let Some(request) = peer.request().await else { return };
            match request.split(' ').nth(1).unwrap() {
                "/jwks" => peer.respond(&keys).await,
                _ => {
                    let document = serde_json::json!({
                        "issuer": issuer, "authorization_endpoint": "https://a.example/authorize",
                        "token_endpoint": "https://a.example/token", "jwks_uri": format!("{issuer}/jwks"),
                    });
                    peer.respond(&document.to_string()).await;
                }
            }
        }
    })
    .await;
    let text = format!("http://localhost:{}", server.port());
    issuer.send_replace(text.clone());
    let plan = Plan::discovery(&text, DocumentUse::IdTokens, vec![("token_endpoint", url(token_endpoint))]).unwrap();
    made(of(&text), Vec::new(), vec![(Endpoint::Discovery, plan)]).await
}

/// A provider whose token endpoint is another one than that of the connection.
pub(super) async fn of_other_endpoint() -> Provoked {
    let verdicts = documents("https://other.example/token", &format!(r#"{{"keys": [{KEY}]}}"#)).await;
    Provoked::new(Step::Body, Outcome::Warning, about(verdicts, Endpoint::Discovery))
}

/// A provider whose keys are for something else.
pub(super) async fn of_no_keys() -> Provoked {
    let verdicts = documents("https://a.example/token", r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#).await;
    Provoked::new(Step::Body, Outcome::Failed, about(verdicts, Endpoint::Keys))
}

#[tokio::test]
async fn each_client_secret_is_judged_and_none_is_shown() {
    let two: &[(&str, Answer)] = &[("one", INVALID_GRANT), ("two", INVALID_GRANT)];
    let (verdicts, bodies) = token(&["one", "wrong", "two"], two).await;
    let found = verdict(&verdicts, Step::Authentication);
    assert_eq!((found.result, found.reason), (Outcome::Warning, Reason::ClientSecretRefused));
    assert!(found.message.contains("number 2"), "{}", found.message);
    let facts = ["client_secret.1", "client_secret.2", "client_secret.3"].map(|name| fact(found, name));
    assert_eq!(facts, ["accepted", "refused", "accepted"]);
    assert_eq!(verdict(&verdicts, Step::Status).reason, Reason::Passed);
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| body.contains("grant_type=authorization_code") && !body.contains("refresh")));
    let shown = format!("{verdicts:?}");
    assert!(!shown.contains("wrong") && !shown.contains("a-code") && !shown.contains("a-verifier"), "{shown}");
}

#[tokio::test]
async fn the_answer_to_a_code_that_was_not_issued_is_judged() {
    use Outcome::{Failed, Ok, Skipped, Warning};
    let (unknown, refused) = ((Skipped, Reason::Undecided), (Failed, Reason::ClientRefused));
    for (status, body, authentication, expected) in [
        (400, r#"{"error": "invalid_grant"}"#, (Ok, Reason::ClientAccepted), (Ok, Reason::Passed)),
        // GitHub
        (200, r#"{"error": "bad_verification_code"}"#, (Ok, Reason::ClientAccepted), (Ok, Reason::Passed)),
        (400, r#"{"error": "invalid_request"}"#, unknown, (Warning, Reason::StatusUnusual)),
        (401, r#"{"error": "invalid_client"}"#, refused, (Skipped, Reason::PreviousStepFailed)),
        // Something in front of the endpoint may have it for all.
        (401, "", unknown, (Failed, Reason::StatusUnexpected)),
        (401, "<html>", unknown, (Failed, Reason::StatusUnexpected)),
        (302, "", unknown, (Failed, Reason::Redirected)),
        (404, "", unknown, (Failed, Reason::StatusUnexpected)),
        (200, "<html>", unknown, (Failed, Reason::StatusUnexpected)),
        (503, r#"{"error": "temporarily_unavailable"}"#, unknown, (Failed, Reason::StatusUnexpected)),
    ] {
        let Provoked { verdicts, .. } = of_answer(status, body, Step::Status, expected.0).await;
        let found = |step| (verdict(&verdicts, step).result, verdict(&verdicts, step).reason);
        assert_eq!(found(Step::Authentication), authentication, "{status} {body} {verdicts:#?}");
        assert_eq!(found(Step::Status), expected, "{status} {body} {verdicts:#?}");
    }
}

#[tokio::test]
async fn a_client_that_uses_no_codes_need_not_be_permitted_to() {
    const FORBIDDEN: &[(&str, Answer)] = &[("one", (400, r#"{"error": "unauthorized_client"}"#))];
    for (sends, expected) in [
        (ProbedCode::Authorization, (Outcome::Warning, Reason::GrantUnsupported)),
        (ProbedCode::Device, (Outcome::Warning, Reason::GrantUnsupported)),
        (ProbedCode::Unused, (Outcome::Ok, Reason::Passed)),
    ] {
        let (verdicts, _) = token_of(sends, &["one"], FORBIDDEN).await;
        assert_eq!(verdict(&verdicts, Step::Authentication).reason, Reason::ClientAccepted);
        let found = verdict(&verdicts, Step::Status);
        assert_eq!((found.result, found.reason), expected);
    }
}

/// The client may be permitted to use nothing else.
#[tokio::test]
async fn a_client_whose_users_have_device_codes_is_tested_with_one() {
    const REFUSED: &[(&str, Answer)] = &[("one", (400, r#"{"error": "expired_token"}"#))];
    let (verdicts, bodies) = token_of(ProbedCode::Device, &["one"], REFUSED).await;
    assert_eq!(verdict(&verdicts, Step::Authentication).reason, Reason::ClientAccepted);
    let found = verdict(&verdicts, Step::Status);
    assert_eq!((found.result, found.reason), (Outcome::Ok, Reason::Passed));
    let [body] = &bodies[..] else { panic!("{bodies:?}") };
    assert!(body.contains("device_code=a-code") && !body.contains("authorization_code"), "{body}");
}

/// A server that accepts another secret does not refuse all.
#[tokio::test]
async fn a_401_without_an_error_code_is_about_the_client_if_another_secret_is_accepted() {
    const ONE: &[(&str, Answer)] = &[("one", (401, "")), ("two", INVALID_GRANT)];
    const NONE: &[(&str, Answer)] = &[("one", (401, "")), ("two", (401, ""))];
    for (answers, expected, facts) in [
        (ONE, (Outcome::Warning, Reason::ClientSecretRefused), ["refused", "accepted"]),
        (NONE, (Outcome::Skipped, Reason::Undecided), ["unknown", "unknown"]),
    ] {
        let (verdicts, bodies) = token(&["one", "two"], answers).await;
        let found = verdict(&verdicts, Step::Authentication);
        assert_eq!((found.result, found.reason), expected, "{verdicts:#?}");
        assert_eq!(["client_secret.1", "client_secret.2"].map(|name| fact(found, name)), facts);
        assert_eq!((bodies.len(), found.message.contains("401")), (2, answers == NONE), "{}", found.message);
    }
}

/// The certificate of the connection is presented where the client says who it is.
#[tokio::test]
async fn verdicts_tell_whose_certificate_is_presented() {
    let server = Server::plain(|mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let text = format!("http://localhost:{}/endpoint", server.port());
    let plans = vec![
        (Endpoint::DeviceAuthorization, Plan::posted(url(&text))),
        (Endpoint::Revocation, Plan::posted(url(&text))),
        (Endpoint::Profile, Plan::endpoint(url(&text))),
    ];
    let (connector, authenticated, findings) = (of(&text), Some(of(&text)), Vec::new());
    let probe = ConnectionProbe { connector, authenticated, findings, plans, seeks_keys: true };
    let verdicts: Vec<Verdict> = probe_connection(Arc::new(development()), probe).collect().await;
    for verdict in &verdicts {
        let expected = matches!(verdict.endpoint, Some(Endpoint::DeviceAuthorization | Endpoint::Revocation));
        assert_eq!(verdict.has_client_key, expected, "{verdict:?}");
    }
    assert_eq!(verdicts.len(), 1 + 3 * Step::ALL.len());
}

#[tokio::test]
async fn an_endpoint_that_does_not_decide_is_asked_once() {
    const AWAY: &[(&str, Answer)] = &[("one", (503, "")), ("two", INVALID_GRANT)];
    let (verdicts, bodies) = token(&["one", "two"], AWAY).await;
    let found = verdict(&verdicts, Step::Authentication);
    assert_eq!((found.result, found.reason), (Outcome::Skipped, Reason::Undecided));
    assert_eq!((fact(found, "client_secret.2"), bodies.len()), ("unknown", 1));
}

#[tokio::test]
async fn a_discovery_document_leads_to_its_keys() {
    let verdicts = documents("https://a.example/token", &format!(r#"{{"keys": [{KEY}, {{"kty": "oct"}}]}}"#)).await;
    let definition = verdicts.first().unwrap();
    assert_eq!((definition.endpoint, definition.reason), (Some(Endpoint::Connection), Reason::Passed));
    let keys = about(verdicts.clone(), Endpoint::Keys);
    let body = verdict(&keys, Step::Body);
    assert_eq!((body.reason, fact(body, "keys"), fact(body, "usable_keys")), (Reason::Passed, "2", "1"));
    assert_eq!(verdict(&about(verdicts, Endpoint::Discovery), Step::Body).reason, Reason::Passed);
}
