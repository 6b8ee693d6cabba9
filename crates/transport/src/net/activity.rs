//! The calls of a connection that are under way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The number of calls under way, and the time at which the last one ended.
#[derive(Debug)]
pub(super) struct Activity {
    open: AtomicUsize,
    last: Mutex<Instant>,
}

/// One call under way.
pub(super) struct ActiveCall(Arc<Activity>);

// === impl Activity ===

impl Activity {
    pub(super) fn new() -> Self {
        Activity { open: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    /// Returns whether no call is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Returns whether several calls are under way.
    pub(super) fn has_several(&self) -> bool {
        self.open.load(Ordering::Acquire) > 1
    }

    /// Returns whether there has been no call for this long.
    pub(super) fn idle(&self, now: Instant, timeout: Duration) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_empty() && now.saturating_duration_since(last) >= timeout
    }
}

impl ActiveCall {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::AcqRel);
        ActiveCall(activity)
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
