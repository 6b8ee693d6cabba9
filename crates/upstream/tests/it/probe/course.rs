//! The course of a probe: what is sent, what is shown, and when.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use jackfield_domain::connector::{ConnectorKind, OAuth2Endpoints};
use jackfield_domain::probe::{ProbeReason as Reason, ProbeResult as Outcome, ProbeStep as Step, Verdict};
use jackfield_upstream::client::{Definition, Proxy};
use jackfield_upstream::egress::Policy;
use jackfield_upstream::error::Fault;
use jackfield_upstream::probe::probe;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Provoked, fact, generic, made, of, of_kind, verdict};
use crate::pki::{Authority, HOUR};
use crate::server::{Peer, Server, header};
use crate::support::{Answers, client, definition, development, fault, network, request, target, url};

const REJECTED: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// A server that rejects every log-in, and keeps the requests.
async fn recorder() -> (Server, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    let server = Server::plain(move |mut peer| {
        let kept = kept.clone();
        async move {
            while let Some(request) = peer.request().await {
                kept.lock().unwrap().push(request);
                peer.send(REJECTED).await;
            }
        }
    });
    (server.await, requests)
}

/// A client whose only place is taken.
pub(super) async fn of_busy() -> Provoked {
    of_wait_for_place(None).await
}

/// A test that waits for a place among the requests of its connector, which is not there before the caller has left.
pub(super) async fn of_wait_for_place(patience: Option<Duration>) -> Provoked {
    let server = Server::plain(|mut peer| async move {
        peer.request().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let text = format!("http://localhost:{}/", server.port());
    let limited = || {
        let mut definition = definition(&text);
        definition.limits.concurrency = 1;
        definition.timeouts.read = Duration::from_secs(60);
        definition.timeouts.connect = Duration::from_millis(100);
        definition
    };
    let client = Arc::new(client(development(), limited()));
    let mut a_probe = of_kind(limited(), &generic(&text), None);
    a_probe.client = Some(client.clone());
    a_probe.deadline = patience.map(|patience| tokio::time::Instant::now() + patience);
    let verdicts = tokio::select! {
        biased;
        _ = client.send(request(&text)) => panic!("there is no response"),
        verdicts = made(development(), a_probe) => verdicts,
    };
    assert_eq!(server.accepted(), 1, "the test did not call");
    Provoked::new(Step::Dns, Outcome::Failed, verdicts)
}

#[tokio::test]
async fn the_wait_for_a_place_is_not_taken_for_that_for_a_name_server() {
    for (patience, reason, whose) in [
        (None, Reason::Busy, "The connect timeout"),
        (Some(Duration::from_millis(50)), Reason::CallerTimeout, "The time of the caller"),
    ] {
        let provoked = of_wait_for_place(patience).await;
        let found = verdict(&provoked.verdicts, provoked.step);
        let waited = "ended while the test waited for a place among the max_concurrent_requests of the connector. The \
                      name was not resolved.";
        assert_eq!((found.reason, found.message.as_str()), (reason, &*format!("{whose} {waited}")));
    }
}

#[tokio::test]
async fn a_test_takes_a_place_as_long_as_it_calls() {
    let (server, _) = recorder().await;
    let text = format!("http://localhost:{}/", server.port());
    let mut limited = definition(&text);
    (limited.limits.concurrency, limited.timeouts.connect) = (1, Duration::from_millis(100));
    let client = Arc::new(client(development(), limited));
    let mut a_probe = of(&text);
    a_probe.client = Some(client.clone());
    let mut verdicts = probe(Arc::new(development()), a_probe);
    while verdicts.next().await.unwrap().step != Step::Tcp {}
    assert_eq!(fault(&client, &text).await, Fault::Busy);
    assert_eq!(verdicts.collect::<Vec<_>>().await.len(), 6);
    assert_eq!(client.send(request(&text)).await.unwrap().status, 404);
}

#[tokio::test]
async fn an_endpoint_for_browsers_gets_neither_identity_nor_headers() {
    let (server, requests) = recorder().await;
    let text = format!("http://localhost:{}/authorize", server.port());
    let endpoints = OAuth2Endpoints { authorization_url: Some(url(&text)), ..OAuth2Endpoints::default() };
    let mut definition = Definition { origins: Vec::new(), ..definition(&text) };
    definition.headers.insert("x-static", "of the definition".parse().unwrap());
    made(development(), of_kind(definition, &ConnectorKind::OAuth2(endpoints.clone()), None)).await;
    assert_eq!(header(&requests.lock().unwrap()[0], "x-static"), None);

    let text = format!("https://login.example:{}/authorize", server.port());
    let endpoints = OAuth2Endpoints { authorization_url: Some(url(&text)), ..endpoints };
    for (origins, expected) in [(Vec::new(), true), (vec![target(&text)], false)] {
        let definition = Definition { origins, ..crate::support::definition(&text) };
        let a_probe = of_kind(definition, &ConnectorKind::OAuth2(endpoints.clone()), None);
        let verdicts = made(development(), a_probe).await;
        let found = verdict(&verdicts, Step::Url);
        assert_eq!((found.reason, found.message.contains("not sent")), (Reason::Passed, expected));
    }
}

#[tokio::test]
async fn a_made_up_login_is_sent_over_a_connection_of_its_own() {
    let (server, requests) = recorder().await;
    let text = format!("http://localhost:{}/login?a=b", server.port());
    for _ in 0..2 {
        let mut a_probe = of(&text);
        let headers = &mut a_probe.definition.as_mut().unwrap().headers;
        headers.insert("x-static", "of the definition".parse().unwrap());
        let verdicts = made(development(), a_probe).await;
        assert_eq!(verdict(&verdicts, Step::Status).reason, Reason::LoginRejected);
    }
    assert_eq!(server.accepted(), 2);
    let requests = requests.lock().unwrap();
    let bodies: Vec<Value> = requests
        .iter()
        .map(|request| {
            assert!(request.starts_with("POST /login?a=b HTTP/1.1\r\n"), "{request}");
            assert_eq!(header(request, "x-static"), Some("of the definition"));
            serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
        })
        .collect();
    for body in &bodies {
        assert!(body["loginId"].as_str().unwrap().starts_with("jackfield-test-"), "{body}");
        assert_eq!(body["password"].as_str().unwrap().len(), 32);
    }
    assert_ne!(bodies[0]["loginId"], bodies[1]["loginId"]);
    assert_ne!(bodies[0]["password"], bodies[1]["password"]);
}

#[tokio::test]
async fn the_handshake_is_shown() {
    let authority = Authority::new("authority");
    let config = authority.server("login.example", Some(&authority));
    let server = Server::tls(config, |mut peer: Peer| async move {
        peer.request().await;
        peer.send(REJECTED).await;
    })
    .await;
    let mut a_probe = of(&format!("https://login.example:{}/", server.port()));
    let definition = a_probe.definition.as_mut().unwrap();
    definition.trust = authority.trust();
    definition.identity = Some(authority.client("caller.example").identity());
    let verdicts = made(development(), a_probe).await;
    assert!(verdicts.iter().all(|verdict| verdict.result != Outcome::Failed), "{verdicts:#?}");

    let definition = verdict(&verdicts, Step::Definition);
    assert_eq!(fact(definition, "trusted_authorities"), "1");
    assert_eq!(fact(definition, "client_identity.subject"), "CN=caller.example");
    assert_eq!(fact(verdict(&verdicts, Step::Dns), "address"), "127.0.0.1");
    assert_eq!(fact(verdict(&verdicts, Step::Tcp), "peer"), format!("127.0.0.1:{}", server.port()));
    let tls = verdict(&verdicts, Step::Tls);
    let names: Vec<&str> = tls.facts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..4], ["version", "cipher_suite", "key_exchange_group", "certificates"]);
    for (name, value) in [
        ("version", "TLSv1_3"),
        ("cipher_suite", "TLS13_AES_256_GCM_SHA384"),
        ("key_exchange_group", "X25519MLKEM768"),
        ("certificates", "1"),
        ("certificate.1.subject", "CN=login.example"),
        ("certificate.1.names", "DNS:login.example"),
        ("certificate.1.issuer", "CN=authority"),
        ("certificate.1.days_left", "0"),
        ("certificate.1.public_key_algorithm", "EC P-256"),
    ] {
        assert_eq!(fact(tls, name), value, "{name}");
    }
    assert_eq!(fact(tls, "certificate.1.fingerprint_sha256").len(), 64);
}

#[tokio::test]
async fn days_left_count_down() {
    let authority = Authority::new("authority");
    for (hours, days) in [(72, "2"), (25, "1"), (-1, "-1")] {
        let content = crate::pki::Content { validity: (-100 * HOUR, hours * HOUR), ..crate::pki::Content::client("a") };
        let server = Server::plain(|peer| peer.serve("")).await;
        let mut a_probe = of(&format!("http://localhost:{}/", server.port()));
        a_probe.definition.as_mut().unwrap().identity = Some(authority.issue(&content).identity());
        let verdicts = made(development(), a_probe).await;
        let definition = verdict(&verdicts, Step::Definition);
        assert_eq!(fact(definition, "client_identity.days_left"), days, "{hours}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_show_what_the_resolver_knows() {
    let answers = Answers::of(&["203.0.114.1", "10.11.12.13"]);
    let verdicts = made(network(Policy::default(), answers), of("https://login.example/")).await;
    let dns = verdict(&verdicts, Step::Dns);
    assert_eq!((dns.result, dns.reason), (Outcome::Failed, Reason::EgressRefused));
    assert!(dns.message.contains("private"), "{}", dns.message);
    let shown = format!("{verdicts:?}");
    assert!(!shown.contains("10.11.12.13") && !shown.contains("203.0.114.1"), "{shown}");
}

#[tokio::test]
async fn a_permission_in_spite_of_a_rule_has_its_cause_in_the_message() {
    let (server, _) = recorder().await;
    let development = "because development mode allows loopback";
    for (host, of_policy, of_dns) in [("localhost", true, true), ("127.0.0.1", true, false)] {
        let verdicts = made(crate::support::development(), of(&format!("http://{host}:{}/", server.port()))).await;
        for (step, expected) in [(Step::EgressPolicy, of_policy), (Step::Dns, of_dns)] {
            let message = &verdict(&verdicts, step).message;
            assert_eq!(message.contains(development), expected, "{host} {message}");
        }
    }
    let allowed = |entry: &str| network(Policy::default().allow(entry).unwrap(), Answers::of(&["127.0.0.1"]));
    for (entry, url, step) in [
        ("127.0.0.0/8", "https://login.example:1024/", Step::Dns),
        ("login.example", "https://login.example:1024/", Step::Dns),
        ("127.0.0.1", "https://127.0.0.1:1024/", Step::EgressPolicy),
    ] {
        let verdicts = made(allowed(entry), of(url)).await;
        let message = &verdict(&verdicts, step).message;
        assert!(message.contains("because egress.allow has an entry for it"), "{message}");
        assert_eq!(format!("{verdicts:?}").matches("because").count(), 1, "{verdicts:?}");
        // In development mode, the operator is the tenant.
        let allowed = network(Policy::default().with_development().allow(entry).unwrap(), Answers::of(&["127.0.0.1"]));
        let verdicts = made(allowed, of(url)).await;
        let message = &verdict(&verdicts, step).message;
        assert!(message.contains(&format!("because egress.allow has {entry:?}")), "{message}");
    }
}

#[tokio::test]
async fn the_proxy_of_the_connector_is_used() {
    let authority = Authority::new("authority");
    let server = Server::tls(authority.server("login.example", None), |mut peer: Peer| async move {
        peer.request().await;
        peer.send(REJECTED).await;
    })
    .await;
    let to = server.address;
    let proxy = Server::plain(move |mut peer| async move {
        let request = peer.request().await.unwrap();
        assert!(request.starts_with("CONNECT login.example:443 HTTP/1.1\r\n"), "{request}");
        let mut upstream = TcpStream::connect(to).await.unwrap();
        peer.send("HTTP/1.1 200 Connection established\r\n\r\n").await;
        let _ = tokio::io::copy_bidirectional(&mut peer.io, &mut upstream).await;
    })
    .await;
    let answers = Answers::of(&["127.0.0.1"]);
    let network = || network(Policy::default().allow("proxy.example").unwrap(), answers.clone());
    let definition = |text: &str| Definition {
        trust: authority.trust(),
        proxy: Some(Proxy::new(&url(&format!("http://proxy.example:{}", proxy.port())), None).unwrap()),
        ..definition(text)
    };
    let through = |text: &str| of_kind(definition(text), &generic(text), None);
    let verdicts = made(network(), through("https://login.example/")).await;
    assert!(verdicts.iter().all(|verdict| verdict.result != Outcome::Failed), "{verdicts:#?}");
    assert_eq!(fact(verdict(&verdicts, Step::Dns), "name"), "proxy.example");
    assert_eq!(fact(verdict(&verdicts, Step::Proxy), "proxy"), format!("proxy.example:{}", proxy.port()));
    assert_eq!(answers.asked(), 1, "only the name of the proxy is resolved");
    let message = &verdict(&verdicts, Step::Dns).message;
    assert!(message.contains("because egress.allow has an entry for it"), "{message}");

    for refused in ["https://metadata.google.internal/", "https://10.0.0.1/", "https://vault/"] {
        let verdicts = made(network(), through(refused)).await;
        assert_eq!(verdict(&verdicts, Step::EgressPolicy).reason, Reason::EgressRefused, "{refused}");
    }
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn verdicts_come_while_the_probe_goes_on_and_it_ends_with_its_caller() {
    let closed = Arc::new(tokio::sync::Notify::new());
    let notify = closed.clone();
    let server = Server::plain(move |mut peer| {
        let notify = notify.clone();
        async move {
            peer.request().await;
            // The status is there, and the body never comes.
            peer.send("HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n").await;
            assert!(peer.request().await.is_none());
            notify.notify_one();
        }
    })
    .await;
    let mut a_probe = of(&format!("http://localhost:{}/", server.port()));
    a_probe.definition.as_mut().unwrap().timeouts.read = Duration::from_secs(60);
    let mut verdicts = probe(Arc::new(development()), a_probe);
    let mut found: Vec<Verdict> = Vec::new();
    while found.last().is_none_or(|verdict| verdict.step != Step::Status) {
        found.push(tokio::time::timeout(Duration::from_secs(10), verdicts.next()).await.unwrap().unwrap());
    }
    assert_eq!(found.last().unwrap().reason, Reason::LoginRejected);
    assert!(tokio::time::timeout(Duration::from_millis(100), verdicts.next()).await.is_err());
    drop(verdicts);
    tokio::time::timeout(Duration::from_secs(10), closed.notified()).await.unwrap();
}

#[tokio::test]
async fn the_patience_of_the_caller_counts_while_connecting() {
    let server = Server::raw(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let mut a_probe = of(&format!("https://login.example:{}/", server.port()));
    a_probe.deadline = Some(tokio::time::Instant::now() + Duration::from_millis(100));
    let verdicts = made(development(), a_probe).await;
    assert_eq!(verdict(&verdicts, Step::Tls).reason, Reason::CallerTimeout);
}
