//! Accepts connections: with caps, with a bounded number of concurrent handshakes, and without spinning when a resource
//! runs out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::Clock;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, ConnectionPermit};
use super::certificate;
use super::connection::ServedConnection;
use super::http1::{self, HttpFront};
use super::listener::{Listener, Socket};
use super::state::{CutShort, NetState};
use crate::call::identity::{self, ConfiguredPrincipal, Principals, Unknown};
use crate::call::methods::Methods;
use crate::call::peer::{ConnectInfo, Peer};
use crate::call::stack::Stack;
use crate::config::TransportConfig;
use crate::observe::metrics::Metrics;
use crate::tls::TlsReloader;

/// The pause after an error that will not go away at once, such as too few file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The acceptor of all listeners.
#[derive(Clone)]
pub(crate) struct Acceptor(pub(super) Arc<NetState>);

/// The way in which a listener identifies its callers.
#[derive(Clone)]
pub(crate) enum Security {
    /// By client certificates.
    Tls(Arc<TlsReloader>),
    /// Not at all: all callers are this one.
    Plaintext(Option<Arc<ConfiguredPrincipal>>),
    /// Not at all, and only health is asked for.
    Health,
}

// === impl Acceptor ===

impl Acceptor {
    /// Makes the acceptor. `drain` ends accepting and sends connections away; `kill` ends everything.
    pub(crate) fn new(
        config: &TransportConfig,
        metrics: Metrics,
        methods: Arc<Methods>,
        clock: Arc<dyn Clock>,
        drain: CancellationToken,
        kill: CancellationToken,
    ) -> Self {
        Acceptor(Arc::new(NetState {
            config: config.clone(),
            metrics,
            methods,
            clock,
            tasks: TaskTracker::new(),
            drain,
            kill,
            cut: CutShort::default(),
            principals: Principals::new(&config.principals),
            admission: Admission::new(&config.limits, &config.tls),
            health_admission: Admission::of_health(&config.limits, &config.tls),
        }))
    }

    /// Returns the tasks of all connections and accept loops.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Returns the counts of what did not end by itself when the server stopped.
    pub(crate) fn cut_short(&self) -> &CutShort {
        &self.0.cut
    }

    /// Returns the principals of the configuration.
    pub(crate) fn principals(&self) -> &Principals {
        &self.0.principals
    }

    /// Accepts from a listener in the background until drain.
    pub(crate) fn spawn(&self, name: &'static str, listener: Listener, security: Security, stack: Stack) {
        let shared = self.0.clone();
        self.0.tasks.spawn(async move {
            let admission = match security {
                Security::Health => &shared.health_admission,
                Security::Tls(_) | Security::Plaintext(_) => &shared.admission,
            };
            let serve =
                |socket, peer, permit| serve(shared.clone(), socket, peer, security.clone(), stack.clone(), permit);
            let accept_all = accept_all(&shared, name, &listener, admission, serve);
            shared.drain.run_until_cancelled(accept_all).await;
            // The socket is closed here, before connections are drained: new ones go elsewhere.
        });
    }

    /// Accepts from the HTTP listener in the background until drain.
    pub(crate) fn spawn_http(&self, name: &'static str, listener: Listener, front: HttpFront) {
        let (shared, front) = (self.0.clone(), Arc::new(front));
        self.0.tasks.spawn(async move {
            let serve = |socket, peer, permit| http1::serve(shared.clone(), front.clone(), socket, peer, permit);
            let accept_all = accept_all(&shared, name, &listener, front.admission(), serve);
            shared.drain.run_until_cancelled(accept_all).await;
        });
    }
}

/// Accepts the connections that are admitted, and has each served in the background.
async fn accept_all<F: Future<Output = ()> + Send + 'static>(
    shared: &Arc<NetState>,
    name: &'static str,
    listener: &Listener,
    admission: &Admission,
    serve: impl Fn(Socket, Peer, ConnectionPermit) -> F,
) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.metrics.accept_error();
                if !is_of_one_connection(&error) {
                    tracing::error!(listener = name, error.message = %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        match admission.admit(peer.ip()) {
            Ok(permit) => {
                let open = shared.metrics.connection_open(name);
                let work = serve(socket, peer, permit);
                let kill = shared.kill.clone();
                shared.tasks.spawn(async move {
                    kill.run_until_cancelled(work).await;
                    drop(open);
                });
            }
            // It is closed at once: a client that is refused can go elsewhere, one that waits in the backlog cannot.
            Err(cap) => shared.metrics.connection_refused(cap),
        }
    }
}

/// Serves one connection from its first byte to its last.
async fn serve(
    shared: Arc<NetState>,
    socket: Socket,
    peer: Peer,
    security: Security,
    stack: Stack,
    permit: ConnectionPermit,
) {
    let cause = match security {
        Security::Plaintext(_) | Security::Health => {
            let caller = if let Security::Plaintext(caller) = security { caller } else { None };
            // Clients of the Unix socket have no address that could be counted.
            let local = match peer {
                Peer::Unix => shared.admission.admit_caller(caller.as_deref()).map(Some),
                Peer::Tcp(_) => Ok(None),
            };
            let _local = match local {
                Ok(counted) => counted,
                Err(cap) => return shared.metrics.connection_refused(cap),
            };
            let info = ConnectInfo::new(peer, socket.local_addr(), Vec::new(), caller.ok_or(Unknown::NoCertificate));
            ServedConnection { shared: &shared, info, stack, certificate_ends: std::future::pending() }
                .serve(socket)
                .await
        }
        Security::Tls(tls) => {
            let Some((socket, info)) = handshake(&shared, socket, peer, &tls).await else { return };
            let _identity = match shared.admission.admit_caller(info.caller().ok().as_deref()) {
                Ok(counted) => counted,
                Err(cap) => return shared.metrics.connection_refused(cap),
            };
            let certificate_ends = certificate::ends(info.certificates().to_vec(), tls, shared.clock.clone());
            ServedConnection { shared: &shared, info, stack, certificate_ends }.serve(socket).await
        }
    };
    shared.metrics.connection_ended(cause);
    drop(permit);
}

/// Does the TLS handshake of a caller who has a certificate.
async fn handshake(
    shared: &NetState,
    socket: Socket,
    peer: Peer,
    tls: &TlsReloader,
) -> Option<(TlsStream<Socket>, ConnectInfo)> {
    let server = || tls.current().server.clone();
    let stream = tls_handshake(shared, &shared.admission, socket, peer, server).await?;
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(b"h2") {
        handshake_failed(shared, peer, "no_h2", "the client does not offer h2");
        return None;
    }
    let certificates: Vec<_> =
        connection.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let caller = match certificates.first() {
        Some(leaf) => shared.principals.identify(leaf),
        None => Err(Unknown::NoCertificate),
    };
    if let (Err(unknown), Some(leaf)) = (&caller, certificates.first()) {
        let claims = identity::claims(leaf);
        tracing::info!(
            client.address = peer.ip().map(display),
            client.port = peer.port(),
            certificate = claims,
            "certificate of an unknown client: {unknown}"
        );
    }
    let info = ConnectInfo::new(peer, stream.get_ref().0.local_addr(), certificates, caller);
    Some((stream, info))
}

/// Does a TLS handshake within its deadline, which includes the wait for a permit.
pub(super) async fn tls_handshake(
    shared: &NetState,
    admission: &Admission,
    socket: Socket,
    peer: Peer,
    server: impl FnOnce() -> Arc<rustls::ServerConfig>,
) -> Option<TlsStream<Socket>> {
    let work = async {
        // A peer that has not sent its hello waits without a permit, so that silent peers cannot take those of others.
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await?;
        let _turn = admission.handshake(peer.ip()).await;
        hello.into_stream(server()).await
    };
    // A peer in the middle of a handshake has nothing to lose: it is dropped at drain.
    let work = shared.drain.run_until_cancelled(timeout(shared.config.tls.handshake_timeout, work));
    match work.await? {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => handshake_failed(shared, peer, handshake_error(&error), &error.to_string()),
        Err(_) => handshake_failed(shared, peer, "timeout", "the handshake took too long"),
    }
    None
}

fn handshake_failed(shared: &NetState, peer: Peer, cause: &'static str, error: &str) {
    shared.metrics.handshake_failed(cause);
    tracing::debug!(
        client.address = peer.ip().map(display),
        client.port = peer.port(),
        error.message = error,
        "tls handshake failed"
    );
}

/// Returns the kind of a failed handshake for the metric: few values, whatever clients do.
fn handshake_error(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => "no_certificate",
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_)) => "bad_certificate",
        Some(rustls::Error::AlertReceived(_)) => "refused_by_client",
        Some(_) => "protocol",
        None => "io",
    }
}

/// Returns whether an error concerns only the connection that was to be accepted, and not the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}
