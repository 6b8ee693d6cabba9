//! Responses, and the lack of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_domain::connector::{ConnectorKind, HttpBasic, OAuth2Endpoints};
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step, Verdict};
use jackfield_upstream::client::{AUTHORIZATION, basic};
use jackfield_upstream::probe::Probe;

use super::{Provoked, fact, generic, login, made, of, of_kind, verdict};
use crate::server::{Peer, Server};
use crate::support::{definition, development, url};

pub(super) const USER: &[u8] = br#"{"user": {"id": "11111111-1111-4111-8111-111111111111", "email": "a@example.com"}}"#;

/// Starts a server without TLS, and makes a probe for its URL.
async fn probed<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(Peer) -> F + Send + Sync + 'static,
    a_probe: impl FnOnce(&str) -> Probe,
    step: Step,
    result: Outcome,
) -> Provoked {
    let server = Server::plain(handle).await;
    let a_probe = a_probe(&format!("http://localhost:{}/", server.port()));
    Provoked::new(step, result, made(development(), a_probe).await)
}

/// A server that sends this response and closes the connection.
pub(super) async fn of_plain(response: &'static str, step: Step, result: Outcome) -> Provoked {
    let handle = move |mut peer: Peer| async move {
        peer.request().await;
        peer.send(response).await;
    };
    probed(handle, of, step, result).await
}

fn with_status(status: u16) -> impl Fn(Peer) -> futures::future::BoxFuture<'static, ()> + Send + Sync {
    move |mut peer| {
        Box::pin(async move {
            peer.request().await;
            let location = "location: https://moved.example/secret?token=secret\r\n";
            let challenge = "www-authenticate: Basic realm=\"of the system\"\r\n";
            peer.send(format!("HTTP/1.1 {status} Status\r\n{location}{challenge}content-length: 0\r\n\r\n")).await;
        })
    }
}

pub(super) async fn of_status(status: u16, step: Step, result: Outcome) -> Provoked {
    let provoked = probed(with_status(status), of, step, result).await;
    let authentication = verdict(&provoked.verdicts, Step::Authentication);
    assert_eq!(fact(authentication, "status"), status.to_string());
    provoked
}

/// The base URL of an API whose users have credentials.
pub(super) async fn of_base(status: u16, step: Step, result: Outcome) -> Provoked {
    let a_probe = |text: &str| {
        let kind = ConnectorKind::HttpBasic(HttpBasic { base_url: Some(url(text)) });
        of_kind(definition(text), &kind, None)
    };
    probed(with_status(status), a_probe, step, result).await
}

/// The endpoints of an OAuth provider without an issuer.
async fn of_endpoint(status: u16, result: Outcome) -> Provoked {
    let a_probe = |text: &str| {
        let endpoints = OAuth2Endpoints { token_url: Some(url(text)), ..OAuth2Endpoints::default() };
        of_kind(definition(text), &ConnectorKind::OAuth2(endpoints), None)
    };
    probed(with_status(status), a_probe, Step::Status, result).await
}

pub(super) async fn with_basic(status: u16, result: Outcome) -> Provoked {
    let a_probe = |text: &str| {
        let mut a_probe = of(text);
        let value = basic("user", &Secret::new("password of the connector".to_owned())).unwrap();
        a_probe.definition.as_mut().unwrap().headers.insert(AUTHORIZATION, value);
        a_probe
    };
    probed(with_status(status), a_probe, Step::Authentication, result).await
}

/// A log-in with the right password.
pub(super) async fn of_user(body: impl Into<Vec<u8>>, step: Step, result: Outcome) -> Provoked {
    let body: Vec<u8> = body.into();
    let handle = move |mut peer: Peer| {
        let body = body.clone();
        async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())).await;
            peer.send(body).await;
        }
    };
    probed(handle, |text| of_kind(definition(text), &generic(text), login()), step, result).await
}

pub(super) async fn of_discovery(issuer: impl Fn(&str) -> String, token_endpoint: &'static str) -> Provoked {
    let (sender, receiver) = tokio::sync::watch::channel(String::new());
    let handle = move |mut peer: Peer| {
        let issuer = receiver.borrow().clone();
        async move {
            let request = peer.request().await.unwrap();
            assert!(request.starts_with("GET /tenant/.well-known/openid-configuration HTTP/1.1\r\n"), "{request}");
            let document = serde_json::json!({
                "issuer": issuer, "authorization_endpoint": "https://a.example/authorize",
                "token_endpoint": token_endpoint, "jwks_uri": "https://a.example/jwks",
            });
            peer.respond(&document.to_string()).await;
        }
    };
    let a_probe = |text: &str| {
        let own = format!("{text}tenant/");
        sender.send_replace(issuer(&own));
        let endpoints = OAuth2Endpoints { issuer_url: Some(url(&own)), ..OAuth2Endpoints::default() };
        of_kind(definition(text), &ConnectorKind::OAuth2(endpoints), None)
    };
    probed(handle, a_probe, Step::Body, Outcome::Failed).await
}

/// A server that reads the request and says nothing.
pub(super) async fn of_silent(change: impl FnOnce(&mut Probe)) -> Provoked {
    let handle = |mut peer: Peer| async move {
        peer.request().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    let a_probe = |text: &str| {
        let mut a_probe = of(text);
        change(&mut a_probe);
        a_probe
    };
    probed(handle, a_probe, Step::Status, Outcome::Failed).await
}

/// A server that sends its body byte by byte.
pub(super) async fn of_trickle() -> Provoked {
    let handle = |mut peer: Peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 404 Not Found\r\ncontent-length: 1000\r\n\r\n").await;
        for _ in 0..1_000 {
            peer.send("x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let a_probe = |text: &str| {
        let mut a_probe = of(text);
        a_probe.definition.as_mut().unwrap().timeouts.total = Duration::from_millis(600);
        a_probe
    };
    probed(handle, a_probe, Step::Body, Outcome::Failed).await
}

pub(super) async fn of_large_head() -> Provoked {
    let handle = |mut peer: Peer| async move {
        peer.request().await;
        peer.send(format!("HTTP/1.1 404 Not Found\r\nx-large: {}\r\n\r\n", "x".repeat(200_000))).await;
    };
    probed(handle, of, Step::Status, Outcome::Failed).await
}

#[tokio::test]
async fn statuses_are_judged_by_what_was_asked() {
    use Outcome::{Failed, Ok, Skipped, Warning};
    let of_status = |status| of_status(status, Step::Status, Ok);
    let of_base = |status| of_base(status, Step::Status, Ok);
    let of_endpoint = |status| of_endpoint(status, Ok);
    let found = |provoked: Provoked| {
        let status = verdict(&provoked.verdicts, Step::Status);
        (status.result, status.reason)
    };
    for (status, expected) in [
        (400, (Warning, Reason::StatusUnusual)),
        (408, (Failed, Reason::StatusUnexpected)),
        (429, (Failed, Reason::StatusUnexpected)),
        (204, (Failed, Reason::StatusUnexpected)),
        (503, (Failed, Reason::StatusUnexpected)),
    ] {
        assert_eq!(found(of_status(status).await), expected, "log-in, {status}");
    }
    for (status, expected) in [
        (204, (Ok, Reason::Passed)),
        (401, (Ok, Reason::Passed)),
        (302, (Warning, Reason::Redirected)),
        (404, (Warning, Reason::StatusUnusual)),
        (407, (Skipped, Reason::PreviousStepFailed)),
        (500, (Failed, Reason::StatusUnexpected)),
    ] {
        assert_eq!(found(of_base(status).await), expected, "base URL, {status}");
    }
    for (status, expected) in [
        (200, (Ok, Reason::Passed)),
        (400, (Ok, Reason::Passed)),
        (405, (Ok, Reason::Passed)),
        (302, (Warning, Reason::Redirected)),
        (404, (Failed, Reason::StatusUnexpected)),
        (418, (Warning, Reason::StatusUnusual)),
        (502, (Failed, Reason::StatusUnexpected)),
    ] {
        assert_eq!(found(of_endpoint(status).await), expected, "endpoint, {status}");
    }
}

#[tokio::test]
async fn a_status_that_is_a_warning_is_no_failure_afterwards() {
    for status in [400, 405, 422] {
        let Provoked { verdicts, .. } = of_status(status, Step::Status, Outcome::Warning).await;
        let found = |step| (verdict(&verdicts, step).result, verdict(&verdicts, step).reason);
        assert_eq!(found(Step::Status), (Outcome::Warning, Reason::StatusUnusual), "{status}");
        assert_eq!(found(Step::Body), (Outcome::Skipped, Reason::BodyNotExpected), "{status}");
    }
}

#[tokio::test]
async fn a_login_that_should_be_accepted_fails_when_it_is_rejected() {
    for (status, expected) in [(404, Reason::LoginRejected), (422, Reason::LoginRejected)] {
        let a_probe = |text: &str| of_kind(definition(text), &generic(text), login());
        let Provoked { verdicts, .. } = probed(with_status(status), a_probe, Step::Status, Outcome::Failed).await;
        let found = verdict(&verdicts, Step::Status);
        assert_eq!((found.result, found.reason), (Outcome::Failed, expected), "{status}");
    }
}

#[tokio::test]
async fn facts_have_origins_and_schemes_and_nothing_else_of_headers() {
    let Provoked { verdicts, .. } = of_status(302, Step::Status, Outcome::Failed).await;
    let status = verdict(&verdicts, Step::Status);
    assert_eq!((fact(status, "challenge"), fact(status, "location")), ("Basic", "https://moved.example"));
    assert!(!format!("{verdicts:?}").contains("secret"), "{verdicts:#?}");
    let Provoked { verdicts, .. } = with_basic(401, Outcome::Failed).await;
    assert!(!format!("{verdicts:?}").contains("of the system"), "{verdicts:#?}");
    assert!(!format!("{verdicts:?}").contains("dXNlcjpw"), "{verdicts:#?}");
}

/// A provider that has documents at these paths, with its issuer in them, and the probe of it. The first connection ends with its response.
async fn of_documents(documents: &'static [(&'static str, &'static str)]) -> (Vec<Verdict>, usize) {
    let issuer: Arc<OnceLock<String>> = Arc::default();
    let known = issuer.clone();
    let server = Server::plain(move |mut peer: Peer| {
        let issuer = known.clone();
        async move {
            let request = peer.request().await.unwrap();
            let path = request.split(' ').nth(1).unwrap();
            match documents.iter().find(|(known, _)| *known == path) {
                Some((_, document)) => peer.respond(&document.replace("ISSUER", issuer.get().unwrap())).await,
                None => peer.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await,
            }
        }
    })
    .await;
    let text = issuer.get_or_init(|| format!("http://localhost:{}/tenant", server.port()));
    let endpoints = OAuth2Endpoints { issuer_url: Some(url(text)), ..OAuth2Endpoints::default() };
    let verdicts = made(development(), of_kind(definition(text), &ConnectorKind::OAuth2(endpoints), None)).await;
    (verdicts, server.accepted())
}

#[tokio::test]
async fn a_provider_without_a_discovery_document_may_have_metadata() {
    use Outcome::{Failed, Ok, Skipped};
    const OPENID: &str = "/tenant/.well-known/openid-configuration";
    const METADATA: &str = "/.well-known/oauth-authorization-server/tenant";
    const LIST: &str = r#"["ISSUER", null, "https://a.example/token", null]"#;
    const GOOD: &str = r#"{"issuer": "ISSUER", "token_endpoint": "https://a.example/token"}"#;
    const MIXED: &str = r#"{"issuer": "ISSUER", "token_endpoint": "https://a.example/token", "jwks_uri": 7}"#;
    for (documents, status, body, connections) in [
        (&[(METADATA, GOOD)][..], (Ok, Reason::Passed), (Ok, Reason::Passed), 2),
        (&[(METADATA, r#"{"issuer": "ISSUER"}"#)], (Ok, Reason::Passed), (Failed, Reason::EndpointMissing), 2),
        (&[(METADATA, r#"{"issuer": "other"}"#)], (Ok, Reason::Passed), (Failed, Reason::IssuerMismatch), 2),
        (&[], (Failed, Reason::StatusUnexpected), (Skipped, Reason::PreviousStepFailed), 2),
        (&[(METADATA, LIST)], (Ok, Reason::Passed), (Failed, Reason::BodyMalformed), 2),
        // A page for all paths is no document.
        (&[(OPENID, "<!doctype html>"), (METADATA, GOOD)], (Ok, Reason::Passed), (Ok, Reason::Passed), 2),
        (&[(OPENID, "<!doctype html>")], (Ok, Reason::Passed), (Failed, Reason::BodyMalformed), 2),
        // A member that is not needed may be wrong.
        (&[(METADATA, MIXED)], (Ok, Reason::Passed), (Ok, Reason::Passed), 2),
        // A discovery document that is there counts, and needs more.
        (&[(OPENID, GOOD), (METADATA, GOOD)], (Ok, Reason::Passed), (Failed, Reason::EndpointMissing), 1),
    ] {
        let (verdicts, accepted) = of_documents(documents).await;
        let found = |step| (verdict(&verdicts, step).result, verdict(&verdicts, step).reason);
        assert_eq!((found(Step::Status), found(Step::Body)), (status, body), "{documents:?} {verdicts:#?}");
        assert_eq!(accepted, connections, "{documents:?}");
    }
}

#[tokio::test]
async fn a_discovery_document_of_the_issuer_is_good() {
    let provoked = of_discovery(|issuer| issuer.to_owned(), "https://a.example/token").await;
    let body = verdict(&provoked.verdicts, Step::Body);
    assert_eq!((body.result, body.reason), (Outcome::Ok, Reason::Passed));
    assert_eq!(fact(body, "token_endpoint"), "https://a.example/token");
}
