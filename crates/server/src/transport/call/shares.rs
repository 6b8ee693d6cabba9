//! Places that are counted: so many in all, and of them no caller and no tenant takes more than its share. Connections, calls,
//! lists, watches, probes and conversations with reflection each have such places.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jackfield_domain::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of which no caller and no tenant can take all.
#[derive(Debug)]
pub(crate) struct Shares<C, T> {
    by_caller: Rooms<C>,
    by_tenant: Rooms<T>,
    total: Arc<Semaphore>,
}

/// What one caller of one tenant can take of them. It may be kept, so that it is looked up once.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    of_caller: Option<Arc<Semaphore>>,
    of_tenant: Arc<Semaphore>,
    total: Arc<Semaphore>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _of_caller: Option<OwnedSemaphorePermit>,
    _of_tenant: OwnedSemaphorePermit,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// Of what there is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Caller,
    Tenant,
    Total,
}

/// Rooms with the same number of places, one for each key.
#[derive(Debug)]
pub(crate) struct Rooms<K> {
    places: usize,
    rooms: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// When to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Shares ===

impl<C: Eq + Hash, T: Eq + Hash> Shares<C, T> {
    /// So many places, and the shares that are configured.
    pub(crate) fn new(total: u32, per_caller: u32, per_tenant: u32) -> Self {
        Shares {
            by_caller: Rooms::new(share(per_caller, total)),
            by_tenant: Rooms::new(share(per_tenant, total)),
            total: Arc::new(Semaphore::new(total as usize)),
        }
    }

    /// The share of a caller of a tenant. One without a name takes of its tenant's share only.
    pub(crate) fn of(&self, caller: Option<C>, tenant: T) -> Share {
        Share {
            of_caller: caller.map(|caller| self.by_caller.of(caller)),
            of_tenant: self.by_tenant.of(tenant),
            total: Arc::clone(&self.total),
        }
    }

    /// One of all places, of nobody's share: before it is known who comes.
    pub(crate) fn enter_total(&self) -> Result<OwnedSemaphorePermit, Full> {
        enter(&self.total, Full::Total)
    }
}

// === impl Share ===

impl Share {
    /// A place.
    pub(crate) fn enter(&self) -> Result<Place, Full> {
        let place = self.enter_share()?;
        Ok(Place { _of_all: Some(enter(&self.total, Full::Total)?), ..place })
    }

    /// As [`Share::enter`], for one who has a place of all already.
    pub(crate) fn enter_share(&self) -> Result<Place, Full> {
        Ok(Place {
            _of_caller: self.of_caller.as_ref().map(|room| enter(room, Full::Caller)).transpose()?,
            _of_tenant: enter(&self.of_tenant, Full::Tenant)?,
            _of_all: None,
        })
    }
}

fn enter(room: &Arc<Semaphore>, full: Full) -> Result<OwnedSemaphorePermit, Full> {
    Arc::clone(room).try_acquire_owned().map_err(|_| full)
}

/// The share of one caller or tenant: what is configured, but at most three quarters of all places. With fewer than four places
/// there are no shares.
fn share(configured: u32, total: u32) -> u32 {
    if total < 4 { configured } else { configured.min(total - total / 4) }
}

// === impl Full ===

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        match full {
            // Who takes more than its share is told so.
            Full::Caller | Full::Tenant => Error::RateLimited { retry_after: RETRY_AFTER },
            // It is the server that is full, whoever filled it.
            Full::Total => Error::ServerUnavailable { retry_after: RETRY_AFTER },
        }
    }
}

// === impl Rooms ===

impl<K: Eq + Hash> Rooms<K> {
    pub(crate) fn new(places: u32) -> Self {
        Rooms { places: places as usize, rooms: Mutex::default() }
    }

    /// The room of a key.
    pub(crate) fn of(&self, key: K) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(&key) {
            return Arc::clone(room);
        }
        // Those in which nobody is are not kept: places hold their rooms.
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        Arc::clone(rooms.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.places))))
    }

    /// A place in the room of a key; `None` when it is full.
    pub(crate) fn enter(&self, key: K) -> Option<OwnedSemaphorePermit> {
        self.of(key).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_all() {
        for (configured, total, expected) in
            [(250, 1_000, 250), (250, 100, 75), (1_500, 2_000, 1_500), (8, 8, 6), (9, 4, 3), (5, 1, 5), (2, 3, 2)]
        {
            assert_eq!(share(configured, total), expected, "{configured} of {total}");
        }
    }

    #[test]
    fn whoever_is_over_its_share_is_told_before_the_server_is_full() {
        let shares = Shares::new(5, 1, 2);
        let enter = |caller, tenant| shares.of(caller, tenant).enter();
        let places = [enter(Some("a"), "one"), enter(Some("b"), "one"), enter(None, "two"), enter(None, "two")];
        let _places = places.map(Result::unwrap);
        assert_eq!(enter(Some("a"), "three").unwrap_err(), Full::Caller);
        assert_eq!(enter(Some("c"), "one").unwrap_err(), Full::Tenant);
        let last = shares.enter_total().unwrap();
        assert_eq!(enter(Some("c"), "three").unwrap_err(), Full::Total);
        assert_eq!(shares.enter_total().unwrap_err(), Full::Total);
        let of_share = shares.of(Some("c"), "three").enter_share().unwrap();
        assert_eq!(enter(Some("c"), "four").unwrap_err(), Full::Caller);
        drop((last, of_share));
        enter(Some("c"), "three").unwrap();
    }

    #[test]
    fn rooms_in_which_nobody_is_are_not_kept() {
        let rooms = Rooms::new(1);
        let (place, kept) = (rooms.enter(1), rooms.of(2));
        assert!(place.is_some() && rooms.enter(1).is_none());
        for key in 3..100 {
            assert!(rooms.enter(key).is_some());
        }
        assert!(rooms.enter(1).is_none() && Arc::ptr_eq(&rooms.of(2), &kept));
        assert_eq!(rooms.rooms.lock().unwrap().len(), 3, "the two that are in use, and the last one");
    }
}
