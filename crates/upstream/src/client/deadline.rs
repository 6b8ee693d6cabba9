//! The end of a call that is earlier than that of its total timeout.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::error::Fault;

/// A time at which a call ends, and whose time it is. The reason of a call that was cut there tells one from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The caller of this server stops waiting.
    Caller(Instant),
    /// This server gives the system no more time, whether or not a caller waits.
    Server(Instant),
}

/// The delay of a timer from which on this process has stood still: it was stopped, or its machine was.
const LATE: Duration = Duration::from_millis(50);
/// The time that it gets then to read what has come meanwhile.
const MOMENT: Duration = Duration::from_millis(200);

// === impl Deadline ===

impl Deadline {
    /// The time itself.
    pub fn at(self) -> Instant {
        match self {
            Deadline::Caller(at) | Deadline::Server(at) => at,
        }
    }

    /// The fault of a call that takes longer.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Deadline::Caller(_) => Fault::CallerTimeout,
            Deadline::Server(_) => Fault::TotalTimeout,
        }
    }
}

/// Waits until a time has passed. A process that stood still gets a moment more: an answer that came meanwhile is not lost, although the timers
/// fire before the runtime knows of it.
pub(super) async fn passed(at: Instant) {
    sleep_until(at).await;
    if at.elapsed() > LATE {
        sleep(MOMENT).await;
    }
}

/// The outcome of some work; `None` if a time passes before.
pub(super) async fn within<T>(at: Instant, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        outcome = work => Some(outcome),
        () = passed(at) => None,
    }
}
