//! How many connections there may be: in all, from one address, of one client, of one tenant.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::config::{Limits, Tls};
use crate::identity::Caller;

/// The counts of the gRPC listeners together, or of the one for health.
#[derive(Debug)]
pub(super) struct Admission {
    total: Counter<()>,
    by_ip: Counter<IpAddr>,
    by_identity: Counter<Arc<str>>,
    /// Those who are nobody are one.
    by_tenant: Counter<Option<String>>,
    handshakes: Arc<Semaphore>,
    handshakes_by_ip: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    max_handshakes_per_ip: usize,
}

/// A place among the connections, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _total: Counted<()>,
    _by_ip: Option<Counted<IpAddr>>,
}

/// Counts by key, up to a limit.
#[derive(Clone, Debug)]
pub(crate) struct Counter<K: Eq + Hash + Clone> {
    counts: Arc<Mutex<HashMap<K, u32>>>,
    limit: u32,
}

/// One of those counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Eq + Hash + Clone> {
    counter: Counter<K>,
    key: K,
}

/// Probes come from few places and do not stay.
const MAX_HEALTH_CONNECTIONS: u32 = 256;

// === impl Admission ===

impl Admission {
    pub(super) fn new(limits: &Limits, tls: &Tls) -> Self {
        Admission {
            total: Counter::new(limits.max_connections),
            by_ip: Counter::new(limits.max_connections_per_ip),
            by_identity: Counter::new(share(limits.max_connections_per_identity, limits.max_connections)),
            by_tenant: Counter::new(share(limits.max_connections_per_tenant, limits.max_connections)),
            handshakes: Arc::new(Semaphore::new(tls.max_handshakes as usize)),
            handshakes_by_ip: Mutex::default(),
            max_handshakes_per_ip: tls.max_handshakes_per_ip as usize,
        }
    }

    /// For the listener of health: whoever fills the others leaves room for probes, and whoever fills it, for calls.
    pub(super) fn of_health(limits: &Limits, tls: &Tls) -> Self {
        let max_connections = limits.max_connections.min(MAX_HEALTH_CONNECTIONS);
        Admission::new(&Limits { max_connections, ..limits.clone() }, tls)
    }

    /// A place for a connection from an address; a Unix socket has none. Else the cap that is reached.
    pub(super) fn admit(&self, ip: Option<IpAddr>) -> Result<Place, &'static str> {
        let by_ip = ip.map(|ip| self.by_ip.enter(network(ip)).ok_or("per_ip")).transpose()?;
        let total = self.total.enter(()).ok_or("total")?;
        Ok(Place { _total: total, _by_ip: by_ip })
    }

    /// A place for one more connection of a client, or of one who is nobody, who has only its address for a name.
    pub(super) fn admit_caller(&self, caller: Option<&Caller>) -> Result<impl Sized + use<>, &'static str> {
        let of_identity = caller.map(|caller| self.by_identity.enter(caller.name.clone()).ok_or("per_identity"));
        let of_tenant = self.by_tenant.enter(caller.map(|caller| caller.tenant.clone())).ok_or("per_tenant")?;
        Ok((of_identity.transpose()?, of_tenant))
    }

    /// Waits for its turn to make a handshake; the caller bounds the wait.
    pub(super) async fn handshake(&self, ip: Option<IpAddr>) -> impl Sized + use<> {
        let mut by_ip = None;
        if let Some(ip) = ip {
            // One address waits for itself first, so that it cannot hold the places of all.
            by_ip = self.handshakes_of(network(ip)).acquire_owned().await.ok();
        }
        let total = self.handshakes.clone().acquire_owned().await.ok();
        (by_ip, total)
    }

    fn handshakes_of(&self, ip: IpAddr) -> Arc<Semaphore> {
        let mut gates = self.handshakes_by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        // Gates that nobody is at are not kept: the map is as large as the number of handshakes.
        gates.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.available_permits() < self.max_handshakes_per_ip);
        gates.entry(ip).or_insert_with(|| Arc::new(Semaphore::new(self.max_handshakes_per_ip))).clone()
    }
}

/// The share of one caller or tenant: what is configured, but at most three quarters of all places. With fewer than four places
/// there are no shares.
pub(crate) fn share(configured: u32, total: u32) -> u32 {
    if total < 4 { configured } else { configured.min(total - total / 4) }
}

/// What counts as one address: an IPv6 customer usually has a whole /64.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

// === impl Counter ===

impl<K: Eq + Hash + Clone> Counter<K> {
    pub(crate) fn new(limit: u32) -> Self {
        Counter { counts: Arc::default(), limit }
    }

    /// One more of this key; `None` when there are as many as there may be.
    pub(crate) fn enter(&self, key: K) -> Option<Counted<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // A count of 0 that is left behind here takes a limit of 0, which no configuration has.
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Counted { counter: self.clone(), key })
    }
}

impl<K: Eq + Hash + Clone> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counter.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.key);
            }
        }
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
    fn a_share_is_never_all() {
        for (configured, total, expected) in
            [(250, 1_000, 250), (250, 100, 75), (1_500, 2_000, 1_500), (8, 8, 6), (9, 4, 3), (5, 1, 5), (2, 3, 2)]
        {
            assert_eq!(share(configured, total), expected, "{configured} of {total}");
        }
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
