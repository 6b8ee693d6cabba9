//! Probes: a server that provokes every verdict there is.

mod connection;
mod course;
mod license;
mod response;
mod steps;
mod tls;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jackfield_domain::connector::{ConnectorKind, Generic, HttpBasic};
use jackfield_domain::kek::BoxFuture;
use jackfield_domain::login::{LoginId, password};
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step, Verdict};
use jackfield_domain::{Clock as _, Secret, SystemClock, TenantId};
use jackfield_upstream::client::{Definition, DefinitionError, Network, Proxy};
use jackfield_upstream::egress::Policy;
use jackfield_upstream::probe::{Owner, Plan, Probe, probe};
use jackfield_upstream::resolve::Resolver;
use tokio::time::Instant;

use crate::pki::{Authority, Content, HOUR};
use crate::server::Server;
use crate::support::{Answers, definition, development, network, url};

/// A resolver that cannot be reached.
struct Broken;

/// The verdict that a scenario is about, and all verdicts of its probe.
struct Provoked {
    step: Step,
    result: Outcome,
    verdicts: Vec<Verdict>,
}

/// A connector of the kind generic.
fn generic(text: &str) -> ConnectorKind {
    ConnectorKind::Generic(Generic {
        authentication_url: url(text),
        username: None,
        password_set: false,
        migrate_users: false,
    })
}

/// A login of an end user.
fn login() -> Option<(LoginId, Secret)> {
    Some((LoginId::parse("login_id", "ada").unwrap(), password("password", "word of Ada".to_owned()).unwrap()))
}

/// Definition and plan of a probe with a made-up login.
fn of(text: &str) -> Probe {
    of_kind(definition(text), &generic(text), None)
}

fn of_kind(definition: Definition, kind: &ConnectorKind, login: Option<(LoginId, Secret)>) -> Probe {
    Probe {
        owner: Owner { tenant: TenantId::generate(), connector: None },
        client: None,
        definition: Ok(definition),
        plan: Plan::of(kind, login),
        now: SystemClock.now(),
        deadline: None,
    }
}

/// The verdicts of a probe. There is one of each step, in order.
async fn made(network: Network, a_probe: Probe) -> Vec<Verdict> {
    let verdicts: Vec<_> = probe(Arc::new(network), a_probe).collect().await;
    let steps: Vec<_> = verdicts.iter().map(|verdict| verdict.step).collect();
    assert_eq!(steps, Step::ALL);
    verdicts
}

fn verdict(verdicts: &[Verdict], step: Step) -> &Verdict {
    verdicts.iter().find(|verdict| verdict.step == step).unwrap()
}

fn fact<'a>(verdict: &'a Verdict, name: &str) -> &'a str {
    let found = verdict.facts.iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", verdict.facts)).1.as_str()
}

impl Resolver for Broken {
    fn resolve<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(io::Error::other("away")) })
    }
}

// === impl Provoked ===

impl Provoked {
    fn new(step: Step, result: Outcome, verdicts: Vec<Verdict>) -> Self {
        Provoked { step, result, verdicts }
    }
}

async fn by_definition(change: impl FnOnce(&mut Probe), step: Step, result: Outcome) -> Provoked {
    let server = Server::plain(|peer| peer.serve("")).await;
    let mut a_probe = of(&format!("http://localhost:{}/", server.port()));
    change(&mut a_probe);
    Provoked::new(step, result, made(development(), a_probe).await)
}

/// A client identity that this side can see a flaw of.
async fn by_identity(content: Content) -> Provoked {
    let identity = Authority::new("clients").issue(&content).identity();
    let change = |a_probe: &mut Probe| a_probe.definition.as_mut().unwrap().identity = Some(identity);
    by_definition(change, Step::Definition, Outcome::Warning).await
}

async fn by_network(network: Network, text: &str, step: Step) -> Provoked {
    Provoked::new(step, Outcome::Failed, made(network, of(text)).await)
}

/// A proxy with one response.
async fn by_proxy(response: &str) -> Provoked {
    let server = Server::answering(response).await;
    let proxy = Proxy::new(&url(&format!("http://proxy.example:{}", server.port())), None).unwrap();
    let network = network(Policy::default().allow("proxy.example").unwrap(), Answers::of(&["127.0.0.1"]));
    let mut a_probe = of("https://login.example/");
    a_probe.definition.as_mut().unwrap().proxy = Some(proxy);
    Provoked::new(Step::Proxy, Outcome::Failed, made(network, a_probe).await)
}

/// A scenario of each reason. A reason without one does not compile.
async fn provoke(reason: Reason) -> Provoked {
    use Outcome::{Failed, Ok, Skipped, Warning};
    let soon = (-1_000 * HOUR, HOUR);
    let client = |validity| Content { validity, ..Content::client("caller.example") };
    let server = |validity| Content { validity, ..Content::server("login.example") };
    match reason {
        Reason::Passed => by_definition(|_| (), Step::Definition, Ok).await,
        Reason::Undecided => response::of_plain("", Step::Authentication, Skipped).await,
        Reason::PreviousStepFailed => {
            let provoked = by_network(network(Policy::default(), Answers::default()), "https://a.example/", Step::Dns);
            Provoked { step: Step::Body, result: Skipped, ..provoked.await }
        }
        Reason::CallerTimeout => {
            let soon = Instant::now() + Duration::from_millis(100);
            response::of_silent(|a_probe| a_probe.deadline = Some(soon)).await
        }

        Reason::DefinitionInvalid => {
            let change = |a_probe: &mut Probe| a_probe.definition = Err(DefinitionError::Credentials);
            by_definition(change, Step::Definition, Failed).await
        }
        Reason::ClientIdentityExpired => by_identity(client((-2 * HOUR, -HOUR))).await,
        Reason::ClientIdentityNotYetValid => by_identity(client((HOUR, 2 * HOUR))).await,
        Reason::ClientIdentityWrongUsage => by_identity(server((-HOUR, HOUR))).await,
        Reason::ClientIdentityExpiresSoon => by_identity(client(soon)).await,

        Reason::UrlMissing => {
            let plan = || Plan::of(&ConnectorKind::HttpBasic(HttpBasic { base_url: None }), None);
            by_definition(|a_probe| a_probe.plan = plan(), Step::Url, Skipped).await
        }
        Reason::UrlInvalid => {
            let plan = || Plan::of(&generic("https://0x7f.1/"), None);
            by_definition(|a_probe| a_probe.plan = plan(), Step::Url, Failed).await
        }
        Reason::PlainHttp => by_definition(|_| (), Step::Url, Warning).await,
        Reason::EgressRefused => by_network(development(), "https://10.0.0.1/", Step::EgressPolicy).await,

        Reason::AddressLiteral => {
            let server = Server::plain(|peer| peer.serve("")).await;
            let text = format!("http://127.0.0.1:{}/", server.port());
            Provoked::new(Step::Dns, Skipped, made(development(), of(&text)).await)
        }
        Reason::Unresolved => {
            let network = Network { resolver: Box::new(Answers::default()), ..development() };
            by_network(network, "https://login.example/", Step::Dns).await
        }
        Reason::NameServersFailed => {
            let network = Network { resolver: Box::new(Broken), ..development() };
            by_network(network, "https://login.example/", Step::Dns).await
        }
        Reason::Busy => course::of_busy().await,
        Reason::ConnectFailed => {
            let port = Server::plain(|peer| peer.serve("")).await.port();
            by_network(development(), &format!("https://login.example:{port}/"), Step::Tcp).await
        }
        Reason::ConnectTimeout => tls::of_raw(b"", Step::Tls).await,

        Reason::NoProxy => by_definition(|_| (), Step::Proxy, Skipped).await,
        Reason::ProxyFailed => by_proxy("HTTP/1.1 403 Forbidden\r\n\r\n").await,
        Reason::ProxyAuthenticationFailed => by_proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await,

        Reason::NoTls => by_definition(|_| (), Step::Tls, Skipped).await,
        Reason::TlsNotSpoken => tls::of_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", Step::Tls).await,
        // A fatal alert: an internal error.
        Reason::TlsFailed => tls::of_raw(&[21, 3, 3, 0, 2, 2, 80], Step::Tls).await,
        Reason::TlsIncompatible => tls::of_other_protocol().await,
        Reason::ServerCertificateExpired => tls::of_server(server((-2 * HOUR, -HOUR)), Failed).await,
        Reason::ServerCertificateNotYetValid => tls::of_server(server((HOUR, 2 * HOUR)), Failed).await,
        Reason::ServerCertificateUnknownAuthority => tls::of_stranger().await,
        Reason::ServerCertificateOtherHost => tls::of_server(Content::server("other.example"), Failed).await,
        Reason::ServerCertificateWrongUsage => tls::of_server(Content::client("login.example"), Failed).await,
        Reason::ServerCertificateInvalid => tls::of_authority().await,
        Reason::ServerCertificateExpiresSoon => tls::of_server(server(soon), Warning).await,

        Reason::ClientCertificateNotRequested => tls::not_requested().await,
        Reason::ClientCertificateNotRequired => tls::not_required().await,
        Reason::ClientCertificateAccepted => tls::of_client(Some(Content::client("caller.example")), Ok).await,
        Reason::ClientCertificateRequired => tls::of_client(None, Failed).await,
        Reason::ClientCertificateExpired => tls::of_client(Some(client((-2 * HOUR, -HOUR))), Failed).await,
        Reason::ClientCertificateNotYetValid => tls::of_client(Some(client((HOUR, 2 * HOUR))), Failed).await,
        Reason::ClientCertificateWrongUsage => tls::of_client(Some(server((-HOUR, HOUR))), Failed).await,
        Reason::ClientCertificateRevoked => tls::of_revoked().await,
        Reason::ClientCertificateUnknownAuthority => tls::of_unknown_client().await,
        Reason::ClientCertificateDenied => tls::of_denied().await,
        Reason::ClientCertificateRefused => tls::of_page().await,

        Reason::CredentialsAccepted => response::with_basic(404, Ok).await,
        Reason::CredentialsNotRequired => response::of_status(404, Step::Authentication, Ok).await,
        Reason::CredentialsOfUsers => response::of_base(401, Step::Authentication, Skipped).await,
        Reason::CredentialsRefused => response::with_basic(401, Failed).await,
        Reason::CredentialsRequired => response::of_status(403, Step::Authentication, Failed).await,

        Reason::LoginAccepted => response::of_user(response::USER, Step::Status, Ok).await,
        Reason::LoginRejected => response::of_status(404, Step::Status, Ok).await,
        Reason::UnknownLoginAccepted => response::of_status(200, Step::Status, Failed).await,
        Reason::Redirected => response::of_status(302, Step::Status, Failed).await,
        Reason::StatusUnusual => response::of_status(422, Step::Status, Warning).await,
        Reason::StatusUnexpected => response::of_status(500, Step::Status, Failed).await,
        Reason::ReadTimeout => response::of_silent(|_| ()).await,
        Reason::TotalTimeout => response::of_trickle().await,
        Reason::ConnectionLost => response::of_plain("", Step::Status, Failed).await,
        Reason::ResponseMalformed => response::of_plain("SSH-2.0\r\n", Step::Status, Failed).await,
        Reason::HeadersTooLarge => response::of_large_head().await,

        Reason::BodyNotExpected => response::of_status(404, Step::Body, Skipped).await,
        Reason::BodyTooLarge => {
            let response = "HTTP/1.1 404 Not Found\r\ncontent-length: 10000000\r\n\r\n";
            response::of_plain(response, Step::Body, Failed).await
        }
        Reason::BodyEncoded => {
            let response = "HTTP/1.1 404 Not Found\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n";
            response::of_plain(response, Step::Body, Failed).await
        }
        Reason::BodyNotUtf8 => response::of_user(b"{\"user\": \"\xff\"}", Step::Body, Failed).await,
        Reason::BodyMalformed => response::of_user(b"<html>", Step::Body, Failed).await,
        Reason::UserMissing => response::of_user(b"{}", Step::Body, Failed).await,
        Reason::UserIdInvalid => response::of_user(br#"{"user": {"id": "7"}}"#, Step::Body, Failed).await,
        Reason::UserUnnamed => {
            let body = br#"{"user": {"id": "11111111-1111-4111-8111-111111111111"}}"#;
            response::of_user(body, Step::Body, Failed).await
        }
        Reason::UserInvalid => {
            // Data of more levels than are kept.
            let data = r#"{"a":"#.repeat(20) + "1" + &"}".repeat(20);
            let user = r#""id": "11111111-1111-4111-8111-111111111111", "username": "ada""#;
            let body = format!(r#"{{"user": {{{user}, "data": {data}}}}}"#);
            response::of_user(body, Step::Body, Failed).await
        }
        Reason::UserInactive => response::of_user(br#"{"user": {"active": false}}"#, Step::Body, Failed).await,
        Reason::UserExpired => response::of_user(br#"{"user": {"expiry": 1}}"#, Step::Body, Failed).await,
        Reason::IssuerMismatch => response::of_discovery(|_| "https://other.example".to_owned(), "x").await,
        Reason::EndpointMissing => response::of_discovery(|issuer| issuer.to_owned(), "/relative").await,
        Reason::FieldInvalid => license::of_user(license::TWICE, Failed).await,
        Reason::CompaniesMissing => license::of_user(license::WITHOUT_COMPANY, Warning).await,

        Reason::ConnectionInactive | Reason::ConnectorDisabled => connection::of_finding(Warning, reason).await,
        Reason::ConnectionTypeUnsupported
        | Reason::ClientIdMissing
        | Reason::ClientSecretMissing
        | Reason::ClientKeyMissing
        | Reason::IssuerMissing => connection::of_finding(Failed, reason).await,
        Reason::ClientAccepted => {
            connection::of_answer(400, r#"{"error": "invalid_grant"}"#, Step::Authentication, Ok).await
        }
        Reason::ClientRefused => connection::of_token(&["wrong"], &[], Step::Authentication, Failed).await,
        Reason::ClientSecretRefused => {
            let answers = &[("one", (400, r#"{"error": "invalid_grant"}"#))];
            connection::of_token(&["wrong", "one"], answers, Step::Authentication, Warning).await
        }
        Reason::UnissuedCodeAccepted => {
            let tokens = r#"{"access_token": "a", "token_type": "Bearer"}"#;
            connection::of_answer(200, tokens, Step::Status, Failed).await
        }
        Reason::GrantUnsupported => {
            connection::of_answer(400, r#"{"error": "unauthorized_client"}"#, Step::Status, Warning).await
        }
        Reason::EndpointDiffers => connection::of_other_endpoint().await,
        Reason::KeysMissing => connection::of_no_keys().await,
    }
}

#[tokio::test]
async fn every_reason_has_a_server_that_provokes_it() {
    let mut wrong = Vec::new();
    for &reason in Reason::ALL {
        let Provoked { step, result, verdicts } = provoke(reason).await;
        let found = verdict(&verdicts, step);
        // Whatever has to be looked at has a hint, and after a step that failed there is no other.
        let is_trouble = matches!(result, Outcome::Failed | Outcome::Warning);
        let failed = verdicts.iter().position(|verdict| verdict.result == Outcome::Failed);
        let mut after = verdicts.iter().skip(failed.map_or(Step::ALL.len(), |failed| failed + 1));
        let is_right = (found.result, found.reason) == (result, reason)
            && found.message.ends_with('.')
            && found.message.len() > 10
            && (!is_trouble || !reason.hint().is_empty())
            && after.all(|verdict| verdict.reason == Reason::PreviousStepFailed);
        if !is_right {
            wrong.push((reason, verdicts));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
