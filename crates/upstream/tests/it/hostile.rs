//! Thousands of URLs that lead to a forbidden address: by their text, by the answers of a DNS server, by redirects. None of
//! them causes a connection. Clients with a fault are found.

mod lures;
mod planted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_domain::value::url::HttpUrl;
use jackfield_upstream::client::{Client, Definition, Request};
use jackfield_upstream::egress::{Policy, Refusal, UrlFault};
use jackfield_upstream::error::{CallError, Fault};
use jackfield_upstream::resolve::Resolver;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use self::lures::{ADDRESSES, DISGUISED, LURES, Lure, OWN, PUBLIC, answer, disguises};
use crate::dns::DnsServer;
use crate::pki::Authority;
use crate::server::Server;
use crate::support::{client, definition, get, network, request};

/// A listener that sees connections to any address of this machine, on one port.
struct Canary {
    port: u16,
    has_ipv6: bool,
    seen: Arc<Mutex<Vec<IpAddr>>>,
    task: JoinHandle<()>,
}

/// An address that no URL leads to.
const MARK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 99, 99, 99));

// === impl Canary ===

impl Canary {
    #[expect(clippy::disallowed_methods, reason = "the task ends with the test")]
    async fn start() -> Self {
        // The first is for IPv4, too.
        let (listener, has_ipv6) = match TcpListener::bind("[::]:0").await {
            Ok(listener) => (listener, true),
            Err(_) => (TcpListener::bind("0.0.0.0:0").await.unwrap(), false),
        };
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                noted.lock().unwrap().push(stream.local_addr().unwrap().ip().to_canonical());
            }
        });
        Canary { port, has_ipv6, seen, task }
    }

    /// The addresses to which there were connections since the last time.
    async fn seen(&self) -> Vec<IpAddr> {
        // Connections are seen in their order, and this one is the last.
        drop(TcpStream::connect((MARK, self.port)).await.unwrap());
        loop {
            {
                let mut seen = self.seen.lock().unwrap();
                if seen.pop_if(|last| *last == MARK).is_some() {
                    return std::mem::take(&mut *seen);
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that asks a DNS server, and whose circuit breaker stays closed.
fn caller(policy: Policy, resolver: impl Resolver) -> Client {
    let mut definition = definition("https://login.example/");
    definition.limits.failures = u32::MAX;
    client(network(policy, resolver), definition)
}

async fn call(client: &Client, url: HttpUrl) -> CallError {
    client.send(Request { url, ..request("https://login.example/") }).await.expect_err("no response")
}

#[track_caller]
fn assert_refused(error: &CallError, url: &str) {
    assert_eq!((error.fault.reason(), error.sent), ("EGRESS_REFUSED", false), "{url}");
}

fn public() -> Policy {
    Policy::default().allow(PUBLIC).unwrap()
}

/// Returns true if a call was refused because of its host, and not because of something else in the URL.
fn is_of_host(fault: &Fault) -> bool {
    use UrlFault::{HostForm, HostName, TrailingDot};
    matches!(fault, Fault::Refused(Refusal::Address { .. } | Refusal::Url(HostForm(_) | HostName | TrailingDot)))
}

/// URLs with a scheme in all disguises of some addresses. No two of them are the same.
fn disguised(scheme: &str, addresses: &[&str], port: u16) -> BTreeSet<String> {
    let rests = ["", "/", "/latest/meta-data", "?@login.example", "//login.example", "/%2e%2e/"];
    let hosts = addresses.iter().flat_map(|address| disguises(address.parse().unwrap()));
    hosts.flat_map(|host| rests.map(|rest| format!("{scheme}://{host}:{port}{rest}"))).collect()
}

#[tokio::test]
async fn no_disguise_of_a_forbidden_address_causes_a_connection() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let client = caller(public(), dns.resolver());
    let mut called = 0;
    let mut unreadable = BTreeMap::<String, usize>::new();
    for text in ["https", "hTTpS"].iter().flat_map(|scheme| disguised(scheme, &DISGUISED, canary.port)) {
        match HttpUrl::parse("url", &text, 2048) {
            Ok(url) => {
                let error = call(&client, url).await;
                assert_refused(&error, &text);
                assert!(is_of_host(&error.fault), "{text} {error:?}");
                called += 1;
            }
            Err(refused) => *unreadable.entry(refused.description).or_default() += 1,
        }
    }
    assert_eq!(canary.seen().await, [] as [IpAddr; 0]);
    assert!(called > 5000, "the host of {called} different URLs was checked");
    assert!(dns.asked() > 0, "some of them are names");
    // The domain refuses the others, which never come this far: of each address, two have a user.
    let by_user = unreadable.get("must not contain user information");
    assert_eq!(by_user, Some(&(2 * DISGUISED.len() * 6 * 2)), "{unreadable:?}");
}

/// Plain http is for this machine in development, so its host is looked at as well.
#[tokio::test]
async fn no_disguise_causes_a_connection_by_http() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let elsewhere: Vec<_> = DISGUISED.into_iter().filter(|address| !OWN.contains(address)).collect();
    let development = public().with_development();
    for (policy, addresses, permitted) in
        [(public(), &DISGUISED[..], "nothing"), (development, &elsewhere, "localhost")]
    {
        let client = caller(policy, dns.resolver());
        for text in disguised("http", addresses, canary.port) {
            let Ok(url) = HttpUrl::parse("url", &text, 2048) else { continue };
            if !text.contains(permitted) {
                assert_refused(&call(&client, url).await, &text);
            }
        }
        assert_eq!(canary.seen().await, [] as [IpAddr; 0]);
    }
}

#[tokio::test]
async fn no_answer_of_a_name_server_causes_a_connection() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let client = caller(public(), dns.resolver());
    let mut called = 0;
    for lure in LURES {
        for address in ADDRESSES {
            for label in ["a", "login", "xn--bcher-kva", "xn--80ak6aa92e", "_x"] {
                let text = lure.url(address.parse().unwrap(), label, canary.port);
                let url = HttpUrl::parse("url", &text, 2048).unwrap();
                if lure == Lure::Rebinding {
                    // The first answer is a host that may be called, and does not speak TLS.
                    let error = call(&client, url.clone()).await;
                    assert_ne!(error.fault.reason(), "EGRESS_REFUSED", "{text}");
                    assert_eq!(canary.seen().await, [PUBLIC.parse::<IpAddr>().unwrap()], "{text}");
                }
                let asked = dns.asked();
                assert_refused(&call(&client, url).await, &text);
                assert!(dns.asked() > asked, "{text} is asked for");
                called += 1;
            }
        }
    }
    assert_eq!(canary.seen().await, [] as [IpAddr; 0]);
    assert_eq!(called, LURES.len() * ADDRESSES.len() * 5);
}

/// Without this, the tests above would also pass with a canary that sees nothing.
#[tokio::test]
async fn the_canary_sees_what_the_policy_allows() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let allowed = public().allow("127.0.0.0/8").and_then(|policy| policy.allow("::1")).unwrap();
    let client = caller(allowed, dns.resolver());
    let is_local = |address: &str| canary.has_ipv6 || !address.contains("::1");
    let hosts = ["127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:7f08:901]", "localhost", "login.example"];
    for text in hosts.iter().filter(|host| is_local(host)) {
        let url = format!("https://{text}:{}/", canary.port);
        call(&client, HttpUrl::parse("url", &url, 2048).unwrap()).await;
        assert_eq!(canary.seen().await.len(), 1, "{url}");
    }
    for lure in LURES {
        for address in
            ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"].into_iter().filter(|address| is_local(address))
        {
            let address: IpAddr = address.parse().unwrap();
            let url = lure.url(address, "a", canary.port);
            call(&client, HttpUrl::parse("url", &url, 2048).unwrap()).await;
            assert_eq!(canary.seen().await, [lure.dialled(address)], "{url}");
        }
    }
}

/// Calls a server that redirects to all disguises of some addresses, and to some lures. A client with a fault follows with another one.
async fn redirected(canary: &Canary, dns: &DnsServer, addresses: &[&str], follow: Option<&Client>) -> usize {
    let port = canary.port;
    let hosts: Vec<_> = addresses.iter().flat_map(|address| disguises(address.parse().unwrap())).collect();
    let mut locations: Vec<_> = hosts.iter().map(|host| format!("https://{host}:{port}/latest")).collect();
    locations.extend(hosts.iter().map(|host| format!("//{host}:{port}/")));
    locations.extend(LURES.map(|lure| lure.url("127.0.0.1".parse().unwrap(), "a", port)));
    let count = locations.len();
    let authority = Authority::new("authority");
    let locations = Arc::new(locations);
    let server = Server::tls(authority.server("moved.example", None), move |mut peer| {
        let locations = locations.clone();
        async move {
            let codes = ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"];
            while let Some(request) = peer.request().await {
                let index: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
                let (code, location) = (codes[index % codes.len()], &locations[index]);
                let refresh = format!("refresh: 0; url={location}");
                peer.send(format!("HTTP/1.1 {code}\r\nlocation: {location}\r\n{refresh}\r\ncontent-length: 0\r\n\r\n"))
                    .await;
            }
        }
    })
    .await;
    let origin = format!("https://moved.example:{}/", server.port());
    let mut definition = Definition { trust: authority.trust(), ..definition(&origin) };
    definition.timeouts.read = Duration::from_secs(10);
    let policy = public().allow("moved.example").unwrap();
    let client = client(network(policy, dns.resolver()), definition);
    for index in 0..count {
        let response = get(&client, &format!("{origin}{index}")).await;
        let location = response.headers.get("location").and_then(|location| location.to_str().ok());
        assert!(response.status.is_redirection() && response.headers.contains_key("location"), "{index}");
        let location = location.and_then(|location| HttpUrl::parse("location", location, 2048).ok());
        if let (Some(follow), Some(location)) = (follow, location) {
            call(follow, location).await;
        }
    }
    assert_eq!(server.accepted(), 1);
    count
}

#[tokio::test]
async fn no_redirect_causes_a_connection() {
    let (canary, dns) = (Canary::start().await, DnsServer::start(answer).await);
    let count = redirected(&canary, &dns, &DISGUISED, None).await;
    assert_eq!(canary.seen().await, [] as [IpAddr; 0]);
    assert_eq!(dns.asked(), 2, "only the name of the server is asked for");
    assert!(count > 1000, "{count}");
}
