//! The facts of a connection; every request of it carries them in its extensions.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use jackfield_domain::Error;
use rustls_pki_types::CertificateDer;

use super::fair_semaphore::Share;
use super::identity::{ConfiguredPrincipal, Unknown};

/// A connection and its caller.
#[derive(Clone, Debug)]
pub struct ConnectInfo(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: Peer,
    local: Option<SocketAddr>,
    certificates: Vec<CertificateDer<'static>>,
    caller: Result<Arc<ConfiguredPrincipal>, Unknown>,
    withdrawn: AtomicBool,
    /// The share of this caller in all calls.
    calls: OnceLock<Share>,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over the Unix socket.
    Unix,
}

// === impl ConnectInfo ===

impl ConnectInfo {
    pub(crate) fn new(
        peer: Peer,
        local: Option<SocketAddr>,
        certificates: Vec<CertificateDer<'static>>,
        caller: Result<Arc<ConfiguredPrincipal>, Unknown>,
    ) -> Self {
        let (withdrawn, calls) = (AtomicBool::new(false), OnceLock::new());
        ConnectInfo(Arc::new(Inner { peer, local, certificates, caller, withdrawn, calls }))
    }

    /// Returns the other end.
    pub fn peer(&self) -> Peer {
        self.0.peer
    }

    /// Returns the address of this end; a Unix socket has none.
    pub fn local(&self) -> Option<SocketAddr> {
        self.0.local
    }

    /// Returns the certificates that the client presented, its own first; none on a plaintext connection.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }

    /// Returns the caller.
    ///
    /// # Errors
    /// Unauthenticated: the caller is unknown, or its certificate has expired or was revoked since the handshake.
    pub fn caller(&self) -> Result<Arc<ConfiguredPrincipal>, Error> {
        if self.0.withdrawn.load(Ordering::Acquire) {
            return Err(Error::Unauthenticated { message: "the client certificate is no longer valid".into() });
        }
        self.0.caller.as_ref().map(Arc::clone).map_err(Error::from)
    }

    /// Returns the name of a known caller for the log, also when its certificate is no longer valid.
    pub(crate) fn principal(&self) -> Option<&str> {
        self.0.caller.as_ref().ok().map(|caller| &*caller.name)
    }

    /// Returns the share of this caller in all calls, which is looked up at the first call.
    pub(crate) fn calls(&self, find: impl FnOnce() -> Share) -> &Share {
        self.0.calls.get_or_init(find)
    }

    /// Makes the caller of this connection unknown from now on.
    pub(crate) fn withdraw(&self) {
        self.0.withdrawn.store(true, Ordering::Release);
    }
}

// === impl Peer ===

impl Peer {
    /// Returns the address; a Unix socket has none.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }

    /// Returns the port; a Unix socket has none.
    pub fn port(self) -> Option<u16> {
        match self {
            Peer::Tcp(address) => Some(address.port()),
            Peer::Unix => None,
        }
    }

    /// Returns the name of its transport in the conventions.
    pub fn transport(self) -> &'static str {
        match self {
            Peer::Tcp(_) => "tcp",
            Peer::Unix => "unix",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// Returns what counts as one address: an IPv6 customer usually has a whole /64.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}
