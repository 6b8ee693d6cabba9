//! The caps on connections: in all, from one address, of one client, of one tenant.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::call::fair_semaphore::{FairSemaphore, Full, KeyedSemaphores, Permit};
use crate::call::identity::ConfiguredPrincipal;
use crate::call::peer::network;
use crate::config::{Limits, Tls};

/// The counts of the gRPC listeners together, or of the one for health.
#[derive(Debug)]
pub(super) struct Admission {
    by_ip: KeyedSemaphores<IpAddr>,
    /// Unknown callers count as one tenant.
    shares: FairSemaphore<Arc<str>, Option<String>>,
    handshakes: Arc<Semaphore>,
    handshakes_by_ip: KeyedSemaphores<IpAddr>,
}

/// A permit for a connection, given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _of_ip: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

/// The most connections of the health listener. Probes come from few places and do not stay.
const MAX_HEALTH_CONNECTIONS: u32 = 256;

// === impl Admission ===

impl Admission {
    pub(super) fn new(limits: &Limits, tls: &Tls) -> Self {
        Admission {
            by_ip: KeyedSemaphores::new(limits.max_connections_per_ip),
            shares: FairSemaphore::new(
                limits.max_connections,
                limits.max_connections_per_identity,
                limits.max_connections_per_tenant,
            ),
            handshakes: Arc::new(Semaphore::new(tls.max_handshakes as usize)),
            handshakes_by_ip: KeyedSemaphores::new(tls.max_handshakes_per_ip),
        }
    }

    /// Makes the counts of the health listener: a client that fills the others leaves room for probes, and the other way
    /// round.
    pub(super) fn of_health(limits: &Limits, tls: &Tls) -> Self {
        let max_connections = limits.max_connections.min(MAX_HEALTH_CONNECTIONS);
        Admission::new(&Limits { max_connections, ..limits.clone() }, tls)
    }

    /// Takes a permit for a connection from an address, which a Unix socket lacks. The error names the cap that is reached.
    pub(super) fn admit(&self, ip: Option<IpAddr>) -> Result<ConnectionPermit, &'static str> {
        let of_ip = ip.map(|ip| self.by_ip.try_acquire(network(ip)).ok_or("per_ip")).transpose()?;
        Ok(ConnectionPermit { _of_ip: of_ip, _of_all: self.shares.try_acquire_total().map_err(cap)? })
    }

    /// Takes a permit for one more connection of a client; an unknown one is identified only by its address.
    pub(super) fn admit_caller(&self, caller: Option<&ConfiguredPrincipal>) -> Result<Permit, &'static str> {
        let (name, tenant) = caller.map(|caller| (caller.name.clone(), caller.tenant.clone())).unzip();
        self.shares.of(name, tenant).try_acquire_share().map_err(cap)
    }

    /// Waits for a permit to make a handshake; the caller bounds the wait.
    pub(super) async fn handshake(&self, ip: Option<IpAddr>) -> impl Sized + use<> {
        let mut by_ip = None;
        if let Some(ip) = ip {
            // Connections of one address wait for each other first, so that they cannot take all permits.
            by_ip = self.handshakes_by_ip.of(network(ip)).acquire_owned().await.ok();
        }
        let total = self.handshakes.clone().acquire_owned().await.ok();
        (by_ip, total)
    }
}

/// Returns the cap that is reached, as the metric names it.
fn cap(full: Full) -> &'static str {
    match full {
        Full::Caller => "per_identity",
        Full::Tenant => "per_tenant",
        Full::Total => "total",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(total: u32, per_ip: u32) -> Admission {
        let limits = Limits { max_connections: total, max_connections_per_ip: per_ip, ..Limits::default() };
        Admission::new(&limits, &Tls::default())
    }

    #[test]
    fn places_are_given_back() {
        let admission = admission(2, 2);
        let ip = Some(IpAddr::from([192, 0, 2, 1]));
        let first = admission.admit(ip).unwrap();
        let _second = admission.admit(ip).unwrap();
        assert_eq!(admission.admit(ip).unwrap_err(), "per_ip");
        assert_eq!(admission.admit(None).unwrap_err(), "total");
        drop(first);
        admission.admit(ip).unwrap();
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let admission = admission(10, 1);
        let _first = admission.admit(Some(IpAddr::from([192, 0, 2, 1]))).unwrap();
        assert!(admission.admit(Some(IpAddr::from([192, 0, 2, 2]))).is_ok());
    }

    #[test]
    fn a_64_is_one_address_and_mapped_addresses_are_v4() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:2".parse().unwrap()));
        assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }

    #[tokio::test]
    async fn handshakes_of_one_address_wait_and_those_of_another_do_not() {
        let tls = Tls { max_handshakes: 10, max_handshakes_per_ip: 1, ..Tls::default() };
        let admission = Admission::new(&Limits::default(), &tls);
        let (one, other) = (Some(IpAddr::from([192, 0, 2, 1])), Some(IpAddr::from([192, 0, 2, 2])));
        let first = admission.handshake(one).await;
        let short = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(short, admission.handshake(one)).await.is_err());
        admission.handshake(other).await;
        drop(first);
        admission.handshake(one).await;
    }
}
