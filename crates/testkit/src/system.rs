//! An outside system: an HTTPS server that demands client certificates, and whose responses a test decides.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::pki::Pki;

/// A running system. It ends when this value is dropped.
pub struct System {
    address: SocketAddr,
    pki: Pki,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    received: Arc<Mutex<Vec<Received>>>,
    gate: Arc<Gate>,
    task: JoinHandle<()>,
    _directory: TempDir,
}

/// A request that a system received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method and path with the query, such as `POST /login`.
    pub line: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The certificate of the client, as DER.
    pub certificate: Vec<u8>,
}

/// The response of a system.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers in addition to those of HTTP itself.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// The gate before the responses of a system.
#[derive(Debug)]
struct Gate {
    is_open: watch::Sender<bool>,
    /// The number of requests whose responses are made, and may wait at the gate.
    requests: watch::Sender<usize>,
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

// === impl System ===

impl System {
    /// Starts a system.
    ///
    /// # Panics
    /// Panics if it does not start.
    #[expect(clippy::disallowed_methods, reason = "the task ends with the system")]
    pub async fn start(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let pki = Pki::create(directory.path());
        let acceptor = Arc::new(Mutex::new(acceptor(&pki, None)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Gate { is_open: watch::Sender::new(true), requests: watch::Sender::new(0) });
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&received), Arc::new(handler));
        let (current, before) = (Arc::clone(&acceptor), Arc::clone(&gate));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = locked(&current).clone();
                tokio::spawn(serve(acceptor, stream, Arc::clone(&handler), Arc::clone(&log), Arc::clone(&before)));
            }
        });
        System { address, pki, acceptor, received, gate, task, _directory: directory }
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// The authority of its certificate and of the certificates that it demands.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// From the next connection on, accepts clients whose chain ends as this one does, too: with an authority, or with a
    /// certificate that signed itself.
    ///
    /// # Panics
    /// Panics if these are no certificates.
    pub fn trust(&self, certificate_pem: &str) {
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes());
        let last = chain.last().expect("a certificate").expect("a certificate");
        *locked(&self.acceptor) = acceptor(&self.pki, Some(last));
    }

    /// From now on responses wait, until [`System::release`].
    pub fn hold(&self) {
        self.gate.is_open.send_replace(false);
    }

    /// Sends the responses that wait.
    pub fn release(&self) {
        self.gate.is_open.send_replace(true);
    }

    /// Waits until this many requests have come since the start.
    ///
    /// # Panics
    /// Panics if the system has ended.
    pub async fn requests(&self, count: usize) {
        self.gate.requests.subscribe().wait_for(|requests| *requests >= count).await.expect("a system");
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.received).clone()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Reply ===

impl Reply {
    /// A response of this status, with a body.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Reply { status, headers: Vec::new(), body: body.into() }
    }
}

/// Accepts clients of the authority, and of another one.
fn acceptor(pki: &Pki, other: Option<CertificateDer<'static>>) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(demanding(pki, other)))
}

/// TLS with the certificate of an authority, for clients of this authority, and of another one.
pub(crate) fn demanding(pki: &Pki, other: Option<CertificateDer<'static>>) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("an authority")).expect("an authority");
    if let Some(other) = other {
        roots.add(other).expect("an authority");
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let chain = CertificateDer::pem_file_iter(pki.path("server.pem")).expect("a chain");
    let chain = chain.collect::<Result<_, _>>().expect("a chain");
    let key = PrivateKeyDer::from_pem_file(pki.path("server-key.pem")).expect("a key");
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key);
    config.expect("a pair")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    handler: Arc<Handler>,
    log: Arc<Mutex<Vec<Received>>>,
    gate: Arc<Gate>,
) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default();
    let service = service_fn(|request: Request<Incoming>| {
        let (handler, log, certificate) = (Arc::clone(&handler), Arc::clone(&log), certificate.clone());
        let gate = Arc::clone(&gate);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let line = format!("{} {}", head.method, head.uri);
            let received = Received { line, headers: head.headers, body, certificate };
            let reply = handler(&received);
            locked(&log).push(received);
            gate.requests.send_modify(|requests| *requests += 1);
            // It ends with the system.
            let _ = gate.is_open.subscribe().wait_for(|is_open| *is_open).await;
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(reply.body)).expect("a response"))
        }
    });
    // A client may go away at any time.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
