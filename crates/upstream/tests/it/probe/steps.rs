//! Reasons that several steps can have: each of these steps has a server that provokes it there.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use jackfield_domain::connector::Timeouts;
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step, Verdict};
use jackfield_upstream::client::{Definition, Network, Proxy};
use jackfield_upstream::egress::Policy;
use jackfield_upstream::error::{CallError, Fault, Phase};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::{by_network, by_proxy, generic, license, made, of, of_kind, response, verdict};
use crate::dns::{Answer, DnsServer};
use crate::pki::Authority;
use crate::server::Server;
use crate::support::{Answers, client, definition, development, fail, network, url};

/// A way to a system that is there up to a step, and then silent.
struct Silent {
    network: Network,
    definition: Definition,
    text: String,
    /// It ends with this value.
    _peer: Box<dyn Any>,
}

/// A machine whose queue of connections is full, so that it answers no more.
struct Full {
    listener: TcpListener,
    _queued: Vec<TcpStream>,
}

/// The reasons, and the steps that can have them.
const STEPS: [(Reason, &[Step]); 9] = [
    (Reason::Undecided, &[Step::ClientCertificate, Step::Authentication, Step::Status]),
    (Reason::EgressRefused, &[Step::EgressPolicy, Step::Dns]),
    (Reason::NoTls, &[Step::Tls, Step::ClientCertificate]),
    (Reason::ConnectTimeout, &[Step::Dns, Step::Tcp, Step::Proxy, Step::Tls]),
    (Reason::CallerTimeout, &[Step::Dns, Step::Tcp, Step::Proxy, Step::Tls, Step::Status, Step::Body]),
    (Reason::TotalTimeout, &[Step::Dns, Step::Tcp, Step::Proxy, Step::Tls, Step::Status, Step::Body]),
    (Reason::ReadTimeout, &[Step::Status, Step::Body]),
    (Reason::ConnectionLost, &[Step::Status, Step::Body]),
    (Reason::ResponseMalformed, &[Step::Status, Step::Body]),
];
/// Timeouts that a step outlasts. With the second one, also a machine that does much else gets as far as that step.
const PATIENCE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(4)];
const LONG: Duration = Duration::from_secs(60);
const HEAD: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n";

// === impl Full ===

impl Full {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut queued = Vec::new();
        let connect = || timeout(Duration::from_millis(50), TcpStream::connect(listener.local_addr().unwrap()));
        while let Ok(stream) = connect().await {
            queued.push(stream.unwrap());
        }
        Full { listener, _queued: queued }
    }
}

// === impl Silent ===

impl Silent {
    async fn at(step: Step) -> Self {
        let of = |network: Network, text: String, peer: Box<dyn Any>| Silent {
            network,
            definition: definition(&text),
            text,
            _peer: peer,
        };
        let silent = async |sent: &'static str| {
            Server::plain(move |mut peer| async move {
                peer.request().await;
                peer.send(sent).await;
                std::future::pending::<()>().await;
            })
            .await
        };
        match step {
            Step::Dns => {
                let dns = DnsServer::start(|_| Answer::Silence).await;
                let network = network(Policy::default(), dns.resolver());
                of(network, "https://login.example/".to_owned(), Box::new(dns))
            }
            Step::Tcp => {
                let full = Full::new().await;
                let port = full.listener.local_addr().unwrap().port();
                of(development(), format!("https://login.example:{port}/"), Box::new(full))
            }
            Step::Proxy => {
                let proxy = silent("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2").await;
                let address = url(&format!("http://proxy.example:{}", proxy.port()));
                let network = network(Policy::default().with_development(), Answers::of(&["127.0.0.1"]));
                let mut silent = of(network, "https://login.example/".to_owned(), Box::new(proxy));
                silent.definition.proxy = Some(Proxy::new(&address, None).unwrap());
                silent
            }
            // It takes what is sent for the beginning of a request.
            Step::Tls => {
                let server = silent("").await;
                of(development(), format!("https://login.example:{}/", server.port()), Box::new(server))
            }
            Step::Status | Step::Body => {
                let server = silent(if step == Step::Body { HEAD } else { "" }).await;
                of(development(), format!("http://localhost:{}/", server.port()), Box::new(server))
            }
            other => panic!("{other:?} waits for nothing"),
        }
    }

    /// The verdicts of a probe whose timeouts are long, except the one with this reason.
    async fn probed(mut self, reason: Reason, patience: Duration) -> Vec<Verdict> {
        let Timeouts { connect, read, total } = &mut self.definition.timeouts;
        (*connect, *read, *total) = (LONG, LONG, LONG);
        let mut deadline = None;
        match reason {
            Reason::ConnectTimeout => *connect = patience,
            Reason::ReadTimeout => *read = patience,
            Reason::TotalTimeout => *total = patience,
            Reason::CallerTimeout => deadline = Some(Instant::now() + patience),
            other => panic!("{other:?} is the reason of no timeout"),
        }
        let mut a_probe = of_kind(self.definition, &generic(&self.text), None);
        a_probe.deadline = deadline;
        made(self.network, a_probe).await
    }
}

/// A server that asks for a certificate, reads the request, and ends the connection.
async fn of_end_after_asking() -> Vec<Verdict> {
    let authority = Authority::new("authority");
    let server = Server::tls(authority.server_that_asks("login.example"), |mut peer| async move {
        peer.request().await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut peer.io).await;
    })
    .await;
    let mut a_probe = of(&format!("https://login.example:{}/", server.port()));
    let definition = a_probe.definition.as_mut().unwrap();
    (definition.trust, definition.identity) = (authority.trust(), Some(authority.client("caller.example").identity()));
    made(development(), a_probe).await
}

/// The verdicts of a probe in which a step has a reason.
async fn provoke(reason: Reason, step: Step, patience: Duration) -> Vec<Verdict> {
    match (reason, step) {
        (Reason::Undecided, Step::ClientCertificate | Step::Authentication) => of_end_after_asking().await,
        (Reason::Undecided, _) => license::of_unread(401).await,
        (Reason::EgressRefused, Step::EgressPolicy) => {
            by_network(development(), "https://10.0.0.1/", step).await.verdicts
        }
        (Reason::EgressRefused, _) => {
            let network = network(Policy::default(), Answers::of(&["10.0.0.1"]));
            by_network(network, "https://login.example/", step).await.verdicts
        }
        (Reason::NoTls, _) => response::of_plain(HEAD, step, Outcome::Skipped).await.verdicts,
        (Reason::ConnectionLost, Step::Status) => response::of_plain("", step, Outcome::Failed).await.verdicts,
        (Reason::ConnectionLost, _) => response::of_plain(HEAD, step, Outcome::Failed).await.verdicts,
        (Reason::ResponseMalformed, Step::Status) => {
            response::of_plain("SSH-2.0\r\n", step, Outcome::Failed).await.verdicts
        }
        (Reason::ResponseMalformed, _) => {
            let chunk = "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\nno number\r\n";
            response::of_plain(chunk, step, Outcome::Failed).await.verdicts
        }
        _ => Silent::at(step).await.probed(reason, patience).await,
    }
}

/// The verdict of a step for which a reason is expected. It is another one if the machine was too slow each time.
async fn provoked(reason: Reason, step: Step) -> (Verdict, Vec<Verdict>) {
    let mut verdicts = Vec::new();
    for patience in PATIENCE {
        verdicts = provoke(reason, step, patience).await;
        if verdict(&verdicts, step).reason == reason {
            break;
        }
    }
    (verdict(&verdicts, step).clone(), verdicts)
}

#[tokio::test]
async fn every_step_that_can_have_a_reason_has_a_server_that_provokes_it() {
    let pairs = STEPS.iter().flat_map(|(reason, steps)| steps.iter().map(move |step| (*reason, *step)));
    join_all(pairs.map(async |(reason, step)| {
        let (found, verdicts) = provoked(reason, step).await;
        let result = match reason {
            Reason::Undecided | Reason::NoTls => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        assert_eq!((found.reason, found.result), (reason, result), "{step:?} {verdicts:#?}");
        let phase = match step {
            Step::Dns => "resolving the name",
            Step::Tcp => "connecting",
            Step::Proxy => "the proxy connected",
            _ => "negotiating TLS",
        };
        let says_step = found.message.ends_with(&format!("it ended while {phase}."));
        assert_eq!(says_step, reason == Reason::ConnectTimeout, "{}", found.message);
    }))
    .await;
}

/// The contract names the same steps.
#[test]
fn the_contract_names_the_steps_of_a_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/jackfield/v1/connector_test.proto");
    let contract = std::fs::read_to_string(path).unwrap();
    // Verdicts of which the other tests have a case at each step.
    let elsewhere = [Reason::TlsFailed];
    let mut checked = 0;
    for reason in Reason::ALL.iter().filter(|reason| !elsewhere.contains(reason)) {
        let value = format!("  CONNECTOR_TEST_REASON_{} = ", reason.as_str());
        let before = contract.split(&value).next().unwrap();
        let comment = before.rsplit(";\n").next().unwrap();
        let Some((_, named)) = comment.split_once("Steps: ") else { continue };
        let words = named.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let named: BTreeSet<&str> = words.filter(|word| word.len() > 2).collect();
        let (_, steps) = STEPS.iter().find(|(known, _)| known == reason).unwrap_or_else(|| panic!("{reason:?}"));
        assert_eq!(steps.iter().map(|step| step.as_str()).collect::<BTreeSet<_>>(), named, "{reason:?}");
        checked += 1;
    }
    assert_eq!(checked, STEPS.len());
}

#[tokio::test]
async fn the_error_of_a_connect_timeout_says_in_which_step() {
    let phases = [
        (Step::Dns, Phase::Resolving, "resolving the name"),
        (Step::Tcp, Phase::Connecting, "connecting"),
        (Step::Proxy, Phase::Tunnelling, "the proxy connected"),
        (Step::Tls, Phase::Handshaking, "negotiating TLS"),
    ];
    join_all(phases.map(async |(step, phase, text)| {
        let mut found = None;
        for patience in PATIENCE {
            let mut silent = Silent::at(step).await;
            silent.definition.timeouts = Timeouts { connect: patience, read: LONG, total: LONG };
            found = Some(fail(&client(silent.network, silent.definition), &silent.text).await);
            if found == Some(CallError { fault: Fault::ConnectTimeout(phase), sent: false }) {
                break;
            }
        }
        let expected = CallError { fault: Fault::ConnectTimeout(phase), sent: false };
        assert_eq!(found.as_ref(), Some(&expected));
        assert_eq!(expected.to_string(), format!("no connection within the connect timeout: it ended while {text}"));
    }))
    .await;
}

#[tokio::test]
async fn a_proxy_fails_in_many_ways() {
    for (response, expected) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "it refused with status 403"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "it refused with status 101"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "its response is not HTTP/1.1"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "its response is not HTTP/1.1"),
        ("", "it ended the connection: unexpected end of file"),
        ("HTTP/1.1 200 OK\r\n", "it ended the connection: unexpected end of file"),
        (&"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), "the headers of its response are larger than the limit"),
    ] {
        let verdicts = by_proxy(response).await.verdicts;
        let found = verdict(&verdicts, Step::Proxy);
        assert_eq!((found.reason, found.result), (Reason::ProxyFailed, Outcome::Failed), "{response:.40}");
        assert_eq!(found.message, format!("The proxy: {expected}."), "{response:.40}");
    }
}
