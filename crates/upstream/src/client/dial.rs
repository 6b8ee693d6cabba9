//! The way to a connection. The policy is enforced here: the addresses that are checked are those that are dialled.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::definition::Proxy;
use super::io::{Socket, Stream, Traffic};
use super::tunnel::tunnel;
use crate::egress::{Allowance, Policy, Refusal, Target};
use crate::error::{Fault, Phase};
use crate::observe::Metrics;
use crate::resolve::Resolver;
use crate::tls::{ClientAuth, Identity, TlsFault, not_after, server_name};

/// The network as all clients see it: the policy, the resolver of names, and the metrics of calls.
pub struct Network {
    pub policy: Policy,
    pub resolver: Box<dyn Resolver>,
    pub metrics: Metrics,
}

/// A connection, after the handshake if there is one.
pub(crate) struct Connected {
    pub(super) stream: Stream,
    pub(super) traffic: Arc<Traffic>,
    pub(crate) auth: ClientAuth,
    /// The end of the certificate that ends first: that of the server, or one of the client. Seconds since 1970.
    pub(super) not_after: Option<i64>,
}

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The pause before a connection that failed at once is tried once more: a server that restarts is away for a moment.
const PAUSE: Duration = Duration::from_millis(100);

// === impl Connected ===

impl Connected {
    /// The TLS session, if there is one.
    pub(crate) fn session(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Stream::Tls(stream) => Some(stream.get_ref().1),
            Stream::Plain(_) => None,
        }
    }

    /// Has the connection end with the identity of the client, if the server knows it by that.
    pub(super) fn rest_on(&mut self, identity: Option<&Identity>) {
        if let Some(identity) = identity
            && matches!(self.auth, ClientAuth::Presented(_) | ClientAuth::Resumed)
        {
            self.not_after = self.not_after.into_iter().chain([identity.chain_not_after()]).min();
        }
    }
}

// === impl Network ===

impl Network {
    /// Connects to a target, directly or through a proxy, and does the handshake.
    pub(super) async fn connect(
        &self,
        target: &Target,
        proxy: Option<&Proxy>,
        tls: &Arc<ClientConfig>,
        deadline: Instant,
    ) -> Result<Connected, Fault> {
        self.check(target, proxy)?;
        let addresses = self.resolve(target, proxy, deadline).await?;
        let mut stream = dial(&addresses, peer(target, proxy).port(), deadline).await?;
        if let Some(proxy) = proxy {
            tunnelled(&mut stream, target, proxy, deadline).await?;
        }
        handshake(stream, target, tls, deadline).await
    }

    /// Checks what can be checked of a target before anything is resolved. Its URL was checked before.
    pub(crate) fn check(&self, target: &Target, proxy: Option<&Proxy>) -> Result<(), Refusal> {
        let Some(proxy) = proxy else { return Ok(()) };
        self.policy.check_proxied(target)?;
        self.policy.check_proxy(&proxy.target, proxy.target.address().as_slice())
    }

    /// The allowances without which a target would be refused before anything is resolved.
    pub(crate) fn allowances(&self, target: &Target, proxy: Option<&Proxy>) -> BTreeSet<Allowance> {
        let Some(proxy) = proxy else { return self.policy.allowances(target, target.address().as_slice()) };
        let mut allowances = self.policy.proxied_allowances(target);
        allowances.extend(self.policy.proxy_allowances(&proxy.target, proxy.target.address().as_slice()));
        allowances
    }

    /// The allowances without which the addresses that are dialled would be refused.
    pub(crate) fn address_allowances(
        &self,
        target: &Target,
        proxy: Option<&Proxy>,
        addresses: &[IpAddr],
    ) -> BTreeSet<Allowance> {
        match proxy {
            Some(proxy) => self.policy.proxy_allowances(&proxy.target, addresses),
            None => self.policy.allowances(target, addresses),
        }
    }

    /// Resolves the name of what is dialled once, and checks all addresses.
    pub(crate) async fn resolve(
        &self,
        target: &Target,
        proxy: Option<&Proxy>,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Fault> {
        let peer = peer(target, proxy);
        let addresses = match peer.address() {
            Some(address) => vec![address],
            None => {
                let name = peer.host().to_string();
                let answer = within(deadline, Phase::Resolving, self.resolver.resolve(&name)).await?;
                answer.map_err(|_| Fault::NameServersFailed)?
            }
        };
        match proxy {
            Some(_) => self.policy.check_proxy(peer, &addresses)?,
            None => self.policy.check_addresses(peer, &addresses)?,
        }
        if addresses.is_empty() { Err(Fault::Unresolved) } else { Ok(addresses) }
    }
}

/// The peer that is dialled.
pub(crate) fn peer<'a>(target: &'a Target, proxy: Option<&'a Proxy>) -> &'a Target {
    proxy.map_or(target, |proxy| &proxy.target)
}

/// Dials exactly these addresses, one after the other.
pub(crate) async fn dial(addresses: &[IpAddr], port: u16, deadline: Instant) -> Result<TcpStream, Fault> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let mut outcome = dial_each(addresses, port, deadline).await;
    if matches!(outcome, Err(Fault::Connect(_))) && Instant::now() + PAUSE < deadline {
        tokio::time::sleep(PAUSE).await;
        outcome = dial_each(addresses, port, deadline).await;
    }
    outcome
}

/// Has the proxy make a connection a tunnel to the target.
pub(crate) async fn tunnelled(
    stream: &mut TcpStream,
    target: &Target,
    proxy: &Proxy,
    deadline: Instant,
) -> Result<(), Fault> {
    Ok(within(deadline, Phase::Tunnelling, tunnel(stream, target, proxy)).await??)
}

/// Does the handshake, if the target has one.
pub(crate) async fn handshake(
    stream: TcpStream,
    target: &Target,
    tls: &Arc<ClientConfig>,
    deadline: Instant,
) -> Result<Connected, Fault> {
    let traffic = Traffic::new();
    let socket = Socket::new(stream, traffic.clone());
    if !target.is_https() {
        let (stream, auth) = (Stream::Plain(socket), ClientAuth::NotRequested);
        return Ok(Connected { stream, traffic, auth, not_after: None });
    }
    let name = server_name(target.host()).ok_or(TlsFault::Other)?;
    let handshake = TlsConnector::from(tls.clone()).connect(name, socket);
    let (stream, auth) = within(deadline, Phase::Handshaking, ClientAuth::of(handshake)).await?;
    let stream = stream.map_err(|error| match TlsFault::find(&error).unwrap_or(TlsFault::Ended).after(auth) {
        TlsFault::NoTls if traffic.began_with_tls() => TlsFault::Other,
        fault => fault,
    })?;
    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    let auth = if is_resumed { ClientAuth::Resumed } else { auth };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let not_after = chain.first().and_then(not_after);
    Ok(Connected { stream: Stream::Tls(Box::new(stream)), traffic, auth, not_after })
}

/// Dials addresses in turn. Each gets an equal share of the time that is left, so that one that is silent leaves time for
/// the others.
async fn dial_each(addresses: &[IpAddr], port: u16, deadline: Instant) -> Result<TcpStream, Fault> {
    let mut fault = Fault::Unresolved;
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - index) as u32;
        match dial_one(SocketAddr::new(*address, port), now + share).await {
            Ok(stream) => return Ok(stream),
            Err(refused @ Fault::Refused(_)) => return Err(refused),
            Err(failed) => fault = failed,
        }
    }
    Err(fault)
}

async fn dial_one(address: SocketAddr, deadline: Instant) -> Result<TcpStream, Fault> {
    let failed = |error: std::io::Error| Fault::Connect(error.kind());
    let stream = within(deadline, Phase::Connecting, TcpStream::connect(address)).await?.map_err(failed)?;
    let peer = stream.peer_addr().map_err(failed)?;
    if (peer.ip().to_canonical(), peer.port()) != (address.ip().to_canonical(), address.port()) {
        return Err(Refusal::Peer.into());
    }
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

async fn within<T>(deadline: Instant, phase: Phase, work: impl Future<Output = T>) -> Result<T, Fault> {
    timeout_at(deadline, work).await.map_err(|_| Fault::ConnectTimeout(phase))
}
