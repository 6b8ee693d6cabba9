//! What can be looked at at any time without asking the database: for metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_store::{Pool, RewrapRow};

use crate::open::{Services, Shared};

/// Looks at services without keeping them; of services that are gone there is nothing to see.
#[derive(Clone)]
pub struct Gauges(Weak<Shared>);

/// How the re-wrap stands that this process works on, or worked on last. Its first one begins all at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewrapProgress {
    /// Workers of this process: one, or none. A second takes over from one that gives no sign of life any more.
    pub workers: u32,
    pub data_keys_done: i64,
    pub data_keys_total: i64,
    pub secrets_done: i64,
    pub secrets_total: i64,
    /// Data keys and secrets that could not be wrapped anew, by all re-wraps of this process together.
    pub failed: u64,
}

/// Where workers leave their progress.
#[derive(Debug, Default)]
pub(crate) struct RewrapBoard(Mutex<RewrapProgress>);

/// A worker counts as long as this lives.
pub(crate) struct AtWork<'a>(&'a RewrapBoard);

// === impl Gauges ===

impl Gauges {
    pub(crate) fn of(services: &Services) -> Self {
        Gauges(Arc::downgrade(&services.shared))
    }

    /// The connections to the database.
    pub fn pools(&self) -> Vec<Pool> {
        self.0.upgrade().map(|shared| shared.store.pools()).unwrap_or_default()
    }

    /// How often no connection to the database could be opened.
    pub fn connect_failures(&self) -> u64 {
        self.0.upgrade().map(|shared| shared.store.connect_failures()).unwrap_or_default()
    }

    /// Whether the last write to the database succeeded, if that is looked at.
    pub fn writable(&self) -> Option<bool> {
        self.0.upgrade().and_then(|shared| shared.store.is_writable())
    }

    /// How often a row was met that could not be read.
    pub fn damaged_rows(&self) -> u64 {
        jackfield_store::damaged_rows()
    }

    /// For how long something is in the write-ahead log of SQLite that was destroyed.
    pub fn log_overdue(&self) -> Duration {
        self.0.upgrade().map(|shared| shared.store.log_overdue()).unwrap_or_default()
    }

    /// The re-wrap of this process.
    pub fn rewrap(&self) -> RewrapProgress {
        self.0.upgrade().map(|shared| *shared.rewraps.lock()).unwrap_or_default()
    }
}

// === impl RewrapBoard ===

impl RewrapBoard {
    /// A worker begins; it ends when the result is dropped.
    pub(crate) fn begin(&self) -> AtWork<'_> {
        self.lock().workers += 1;
        AtWork(self)
    }

    /// What is done of how much.
    pub(crate) fn advance(&self, row: &RewrapRow) {
        let mut progress = self.lock();
        (progress.data_keys_done, progress.data_keys_total) = (row.data_keys_done, row.data_keys_total);
        (progress.secrets_done, progress.secrets_total) = (row.secrets_done, row.secrets_total);
    }

    /// One more has failed.
    pub(crate) fn fail(&self) {
        self.lock().failed += 1;
    }

    fn lock(&self) -> MutexGuard<'_, RewrapProgress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl AtWork ===

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.lock().workers -= 1;
    }
}
