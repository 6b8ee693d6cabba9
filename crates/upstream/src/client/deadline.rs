//! The end of a call that is earlier than that of its total timeout.

use tokio::time::Instant;

use crate::error::Fault;

/// A time at which a call ends, and whose time it is. The reason of a call that was cut there tells one from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The caller of this server stops waiting.
    Caller(Instant),
    /// This server gives the system no more time, whether or not a caller waits.
    Server(Instant),
}

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
