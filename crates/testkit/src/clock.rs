//! A clock that only tests advance.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jackfield_domain::{Clock, SystemClock, Timestamp};

/// A clock that does not move until a test advances it.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

// === impl ManualClock ===

impl ManualClock {
    /// A clock set to the current time.
    pub fn at_present() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(SystemClock.now().0)))
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).expect("a time in reach"), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
