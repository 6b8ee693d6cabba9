//! Clients for tests.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use jackfield_domain::TenantId;
use jackfield_domain::connector::Timeouts;
use jackfield_domain::kek::BoxFuture;
use jackfield_domain::value::url::HttpUrl;
use jackfield_upstream::client::{Client, Definition, Limits, Network, Places, Request, Response};
use jackfield_upstream::clients::ClientId;
use jackfield_upstream::egress::{Policy, Target};
use jackfield_upstream::error::{CallError, Fault};
use jackfield_upstream::observe::Metrics;
use jackfield_upstream::resolve::Resolver;
use jackfield_upstream::tls::Trust;
use uuid::Uuid;

/// A resolver with one answer for every name. It counts the questions.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) asked: Arc<AtomicUsize>,
}

// === impl Answers ===

impl Answers {
    pub(crate) fn of(addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Answers { addresses, asked: Arc::default() }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolver for Answers {
    fn resolve<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(self.addresses.clone()) })
    }
}

pub(crate) fn url(text: &str) -> HttpUrl {
    HttpUrl::parse("url", text, 2048).unwrap()
}

pub(crate) fn target(text: &str) -> Target {
    Target::parse(&url(text)).unwrap()
}

/// The network of development: every name is this machine.
pub(crate) fn development() -> Network {
    network(Policy::default().with_development(), Answers::of(&["127.0.0.1"]))
}

pub(crate) fn network(policy: Policy, resolver: impl Resolver) -> Network {
    Network { policy, resolver: Box::new(resolver), metrics: Metrics::default() }
}

/// A definition for an origin, with short timeouts.
pub(crate) fn definition(origin: &str) -> Definition {
    Definition {
        origins: vec![target(origin)],
        identity: None,
        identity_origins: None,
        headers: HeaderMap::new(),
        trust: Trust::public(),
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            read: Duration::from_millis(300),
            total: Duration::from_secs(10),
        },
        limits: Limits::default(),
        proxy: None,
        propagate_trace_context: false,
    }
}

/// The id of a client for a connector.
pub(crate) fn client_id() -> ClientId {
    (TenantId(Uuid::now_v7()), Uuid::now_v7())
}

pub(crate) fn client(network: Network, definition: Definition) -> Client {
    Client::new(Arc::new(network), definition, Arc::new(Places::new(100))).unwrap()
}

pub(crate) fn request(text: &str) -> Request {
    Request { method: Method::GET, url: url(text), headers: HeaderMap::new(), body: Bytes::new(), deadline: None }
}

pub(crate) fn post(text: &str, body: &'static str) -> Request {
    Request { method: Method::POST, body: Bytes::from_static(body.as_bytes()), ..request(text) }
}

/// Makes a call that must succeed.
pub(crate) async fn get(client: &Client, text: &str) -> Response {
    client.send(request(text)).await.unwrap()
}

/// Makes a call that must fail.
pub(crate) async fn fail(client: &Client, text: &str) -> CallError {
    client.send(request(text)).await.unwrap_err()
}

pub(crate) async fn fault(client: &Client, text: &str) -> Fault {
    fail(client, text).await.fault
}
