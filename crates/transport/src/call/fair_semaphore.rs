//! Counted permits of which no caller and no tenant takes more than its share. Connections, calls,
//! lists, watches, probes and conversations with reflection each have such permits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jackfield_domain::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A semaphore of which no caller and no tenant can take all permits.
#[derive(Debug)]
pub struct FairSemaphore<C, T> {
    by_caller: KeyedSemaphores<C>,
    by_tenant: KeyedSemaphores<T>,
    total: Arc<Semaphore>,
}

/// The share of one caller of one tenant. It may be kept, so that it is looked up once.
#[derive(Clone, Debug)]
pub struct Share {
    of_caller: Option<Arc<Semaphore>>,
    of_tenant: Arc<Semaphore>,
    total: Arc<Semaphore>,
}

/// A permit, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _of_caller: Option<OwnedSemaphorePermit>,
    _of_tenant: OwnedSemaphorePermit,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Caller,
    Tenant,
    Total,
}

/// Semaphores with the same number of permits, one for each key.
#[derive(Debug)]
pub struct KeyedSemaphores<K> {
    permits: usize,
    semaphores: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// The time after which a refused caller should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl FairSemaphore ===

impl<C: Eq + Hash, T: Eq + Hash> FairSemaphore<C, T> {
    /// Makes a semaphore of `total` permits with the configured shares.
    pub fn new(total: u32, per_caller: u32, per_tenant: u32) -> Self {
        FairSemaphore {
            by_caller: KeyedSemaphores::new(share(per_caller, total)),
            by_tenant: KeyedSemaphores::new(share(per_tenant, total)),
            total: Arc::new(Semaphore::new(total as usize)),
        }
    }

    /// Returns the share of a caller of a tenant. A caller without a name counts only against the share of its tenant.
    pub fn of(&self, caller: Option<C>, tenant: T) -> Share {
        Share {
            of_caller: caller.map(|caller| self.by_caller.of(caller)),
            of_tenant: self.by_tenant.of(tenant),
            total: Arc::clone(&self.total),
        }
    }

    /// Takes one of all permits but none of a share, before the caller is known.
    pub fn try_acquire_total(&self) -> Result<OwnedSemaphorePermit, Full> {
        try_acquire(&self.total, Full::Total)
    }
}

// === impl Share ===

impl Share {
    /// Takes a permit.
    pub fn try_acquire(&self) -> Result<Permit, Full> {
        let permit = self.try_acquire_share()?;
        Ok(Permit { _of_all: Some(try_acquire(&self.total, Full::Total)?), ..permit })
    }

    /// Takes a permit as [`Share::try_acquire`] does, for a caller that already has one of all permits.
    pub fn try_acquire_share(&self) -> Result<Permit, Full> {
        Ok(Permit {
            _of_caller: self.of_caller.as_ref().map(|semaphore| try_acquire(semaphore, Full::Caller)).transpose()?,
            _of_tenant: try_acquire(&self.of_tenant, Full::Tenant)?,
            _of_all: None,
        })
    }
}

fn try_acquire(semaphore: &Arc<Semaphore>, full: Full) -> Result<OwnedSemaphorePermit, Full> {
    Arc::clone(semaphore).try_acquire_owned().map_err(|_| full)
}

/// Returns the share of one caller or tenant: what is configured, but at most three quarters of all permits. With fewer
/// than four permits there are no shares.
pub fn share(configured: u32, total: u32) -> u32 {
    if total < 4 { configured } else { configured.min(total - total / 4) }
}

// === impl Full ===

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        match full {
            // The caller takes more than its share.
            Full::Caller | Full::Tenant => Error::RateLimited { retry_after: RETRY_AFTER },
            // The server is full, whichever callers filled it.
            Full::Total => Error::ServerUnavailable { retry_after: RETRY_AFTER },
        }
    }
}

// === impl KeyedSemaphores ===

impl<K: Eq + Hash> KeyedSemaphores<K> {
    pub fn new(permits: u32) -> Self {
        KeyedSemaphores { permits: permits as usize, semaphores: Mutex::default() }
    }

    /// Returns the semaphore of a key.
    pub fn of(&self, key: K) -> Arc<Semaphore> {
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = semaphores.get(&key) {
            return Arc::clone(semaphore);
        }
        // Unused ones are not kept: permits hold their semaphores.
        semaphores.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        Arc::clone(semaphores.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.permits))))
    }

    /// Takes a permit of the semaphore of a key; `None` if there is none left.
    pub fn try_acquire(&self, key: K) -> Option<OwnedSemaphorePermit> {
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
    fn a_caller_over_its_share_is_refused_before_the_server_is_full() {
        let shares = FairSemaphore::new(5, 1, 2);
        let try_acquire = |caller, tenant| shares.of(caller, tenant).try_acquire();
        let permits = [
            try_acquire(Some("a"), "one"),
            try_acquire(Some("b"), "one"),
            try_acquire(None, "two"),
            try_acquire(None, "two"),
        ];
        let _permits = permits.map(Result::unwrap);
        assert_eq!(try_acquire(Some("a"), "three").unwrap_err(), Full::Caller);
        assert_eq!(try_acquire(Some("c"), "one").unwrap_err(), Full::Tenant);
        let last = shares.try_acquire_total().unwrap();
        assert_eq!(try_acquire(Some("c"), "three").unwrap_err(), Full::Total);
        assert_eq!(shares.try_acquire_total().unwrap_err(), Full::Total);
        let of_share = shares.of(Some("c"), "three").try_acquire_share().unwrap();
        assert_eq!(try_acquire(Some("c"), "four").unwrap_err(), Full::Caller);
        drop((last, of_share));
        try_acquire(Some("c"), "three").unwrap();
    }

    #[test]
    fn rooms_in_which_nobody_is_are_not_kept() {
        let semaphores = KeyedSemaphores::new(1);
        let (permit, kept) = (semaphores.try_acquire(1), semaphores.of(2));
        assert!(permit.is_some() && semaphores.try_acquire(1).is_none());
        for key in 3..100 {
            assert!(semaphores.try_acquire(key).is_some());
        }
        assert!(semaphores.try_acquire(1).is_none() && Arc::ptr_eq(&semaphores.of(2), &kept));
        assert_eq!(semaphores.semaphores.lock().unwrap().len(), 3, "the two that are in use, and the last one");
    }
}
