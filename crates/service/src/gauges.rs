//! Values for metrics that can be read at any time without a query.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_domain::attempts::AttemptLimit;
use jackfield_domain::credential::{RefreshOutcome, RevocationOutcome};
use jackfield_domain::key::Remaining;
use jackfield_domain::rewrap::Rewrap;
use jackfield_domain::{KeyId, TenantId, Timestamp};
use jackfield_store::{Pool, Store};

use crate::refresh::Refreshes;

/// Reads values of the services without keeping them open. Services that are closed have no values.
#[derive(Clone)]
pub struct Gauges(Weak<GaugeSources>);

/// The sources of the values.
pub(crate) struct GaugeSources {
    store: Store,
    rewrap: Mutex<RewrapProgress>,
    expiring: Mutex<ExpiringKeys>,
    /// Attempts that were refused, in the order of [`AttemptLimit::ALL`].
    refused_attempts: [AtomicU64; AttemptLimit::ALL.len()],
    /// Attempts to refresh, in the order of [`RefreshOutcome::NAMES`].
    refreshes: [AtomicU64; RefreshOutcome::NAMES.len()],
    /// Tokens that were to be revoked at their provider, in the order of [`RevocationOutcome::NAMES`].
    revocations: [AtomicU64; RevocationOutcome::NAMES.len()],
    /// Token endpoints that do not answer.
    silent_endpoints: Arc<AtomicU64>,
    /// Journals of received tokens that cannot be written.
    unwritable_journals: Arc<AtomicU64>,
    events_written: AtomicU64,
    events_dropped: AtomicU64,
}

/// The events of connectors since the start of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    pub written: u64,
    /// The queue was full, or the database failed.
    pub dropped: u64,
}

/// The keys of all tenants whose renewal is due, as maintenance found them last.
#[derive(Clone, Debug)]
pub struct ExpiringKeys {
    /// Their number, by the rest of their lifetime.
    pub counts: [(Remaining, u64); Remaining::ALL.len()],
    /// Some of those that expire first, with their expiry.
    pub first: Vec<(TenantId, KeyId, Timestamp)>,
}

/// The progress of the re-wrap that this process works on, or worked on last. Before its first one all values are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewrapProgress {
    /// Workers of this process: one, or none. A second one may take over from one that makes no progress any more.
    pub workers: u32,
    pub data_keys_done: i64,
    pub data_keys_total: i64,
    pub secrets_done: i64,
    pub secrets_total: i64,
    /// Data keys and secrets that could not be re-wrapped, by all re-wraps of this process together.
    pub failed: u64,
}

/// Counts a worker for as long as it lives.
pub(crate) struct AtWork<'a>(&'a GaugeSources);

// === impl ExpiringKeys ===

impl Default for ExpiringKeys {
    fn default() -> Self {
        ExpiringKeys { counts: Remaining::ALL.map(|remaining| (remaining, 0)), first: Vec::new() }
    }
}

// === impl Gauges ===

impl Gauges {
    pub(crate) fn of(sources: &Arc<GaugeSources>) -> Self {
        Gauges(Arc::downgrade(sources))
    }

    /// The connections to the database.
    pub fn pools(&self) -> Vec<Pool> {
        self.0.upgrade().map(|sources| sources.store.pools()).unwrap_or_default()
    }

    /// The number of times that no connection to the database could be opened.
    pub fn connect_failures(&self) -> u64 {
        self.0.upgrade().map(|sources| sources.store.connect_failures()).unwrap_or_default()
    }

    /// True if the last write to the database succeeded; `None` if that is not observed.
    pub fn writable(&self) -> Option<bool> {
        self.0.upgrade().and_then(|sources| sources.store.is_writable())
    }

    /// The number of rows that were read and could not be decoded.
    pub fn damaged_rows(&self) -> u64 {
        jackfield_store::damaged_rows()
    }

    /// The time for which destroyed data has been in the write-ahead log of SQLite.
    pub fn log_overdue(&self) -> Duration {
        self.0.upgrade().map(|sources| sources.store.log_overdue()).unwrap_or_default()
    }

    /// The keys whose renewal is due.
    pub fn expiring_keys(&self) -> ExpiringKeys {
        self.0.upgrade().map(|sources| locked(&sources.expiring).clone()).unwrap_or_default()
    }

    /// The number of log-in attempts that each limit has refused.
    pub fn refused_attempts(&self) -> [(AttemptLimit, u64); AttemptLimit::ALL.len()] {
        let sources = self.0.upgrade();
        AttemptLimit::ALL.map(|limit| {
            let count =
                sources.as_ref().map(|sources| sources.refused_attempts[limit as usize].load(Ordering::Relaxed));
            (limit, count.unwrap_or_default())
        })
    }

    /// The number of attempts to refresh credentials, by outcome.
    pub fn refreshes(&self) -> Vec<(&'static str, u64)> {
        let Some(sources) = self.0.upgrade() else { return Vec::new() };
        let counts = sources.refreshes.iter().map(|count| count.load(Ordering::Relaxed));
        RefreshOutcome::NAMES.iter().copied().zip(counts).collect()
    }

    /// The number of token endpoints that do not answer, and get one refresh at a time.
    pub fn silent_endpoints(&self) -> u64 {
        self.0.upgrade().map(|sources| sources.silent_endpoints.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// The number of journals of received tokens that cannot be written.
    pub fn unwritable_journals(&self) -> u64 {
        self.0.upgrade().map(|sources| sources.unwritable_journals.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// The number of tokens that were to be revoked at their provider, by outcome.
    pub fn revocations(&self) -> Vec<(&'static str, u64)> {
        let Some(sources) = self.0.upgrade() else { return Vec::new() };
        let counts = sources.revocations.iter().map(|count| count.load(Ordering::Relaxed));
        RevocationOutcome::NAMES.iter().copied().zip(counts).collect()
    }

    /// The events of connectors of this process.
    pub fn events(&self) -> EventCounts {
        self.0.upgrade().map(|sources| sources.events()).unwrap_or_default()
    }

    /// The re-wrap of this process.
    pub fn rewrap(&self) -> RewrapProgress {
        self.0.upgrade().map(|sources| *sources.lock()).unwrap_or_default()
    }
}

// === impl GaugeSources ===

impl GaugeSources {
    pub(crate) fn new(store: Store, refreshes: &Refreshes) -> Self {
        GaugeSources {
            store,
            rewrap: Mutex::default(),
            expiring: Mutex::default(),
            refused_attempts: Default::default(),
            refreshes: Default::default(),
            revocations: Default::default(),
            silent_endpoints: refreshes.silent_endpoints(),
            unwritable_journals: refreshes.unwritable_journals(),
            events_written: AtomicU64::default(),
            events_dropped: AtomicU64::default(),
        }
    }

    pub(crate) fn attempt_refused(&self, limit: AttemptLimit) {
        self.refused_attempts[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refresh_ended(&self, outcome: RefreshOutcome) {
        self.refreshes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn revocation_ended(&self, outcome: RevocationOutcome) {
        self.revocations[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn events_written(&self, count: u64) {
        self.events_written.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn events_dropped(&self, count: u64) {
        self.events_dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn events(&self) -> EventCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EventCounts { written: count(&self.events_written), dropped: count(&self.events_dropped) }
    }

    pub(crate) fn expiring_keys_set(&self, keys: ExpiringKeys) {
        *locked(&self.expiring) = keys;
    }

    /// Counts a worker until the result is dropped.
    pub(crate) fn rewrap_begin(&self) -> AtWork<'_> {
        self.lock().workers += 1;
        AtWork(self)
    }

    pub(crate) fn rewrap_advance(&self, rewrap: &Rewrap) {
        let mut progress = self.lock();
        (progress.data_keys_done, progress.data_keys_total) = (rewrap.data_keys_done, rewrap.data_keys_total);
        (progress.secrets_done, progress.secrets_total) = (rewrap.secrets_done, rewrap.secrets_total);
    }

    pub(crate) fn rewrap_fail(&self) {
        self.lock().failed += 1;
    }

    fn lock(&self) -> MutexGuard<'_, RewrapProgress> {
        locked(&self.rewrap)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl AtWork ===

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.lock().workers -= 1;
    }
}
