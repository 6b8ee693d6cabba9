//! Timeouts of connectors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Violation, Violations};
use crate::patch::{FieldPatch, Patch};

/// Time limits of calls to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Resolving the name, TCP, the tunnel of a proxy, and TLS; more than 0, at most 60 s.
    pub connect: Duration,
    /// Between two reads; more than 0, at most 300 s.
    pub read: Duration,
    /// The whole call; more than 0, at most 600 s, not less than `connect`.
    pub total: Duration,
}

/// A change of timeouts. An inner `None` asks for the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeoutsPatch {
    pub connect: Option<Option<Duration>>,
    pub read: Option<Option<Duration>>,
    pub total: Option<Option<Duration>>,
}

/// The longest time for connecting.
pub const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time between two reads.
pub const MAX_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest time for a whole call.
pub const MAX_TOTAL_TIMEOUT: Duration = Duration::from_secs(600);

const DEFAULT_CONNECT: Duration = Duration::from_secs(5);
const DEFAULT_READ: Duration = Duration::from_secs(10);
const DEFAULT_TOTAL: Duration = Duration::from_secs(30);

// === impl Timeouts ===

impl Timeouts {
    fn resolve(connect: Option<Duration>, read: Option<Duration>, total: Option<Duration>) -> Self {
        let connect = connect.unwrap_or(DEFAULT_CONNECT);
        let read = read.unwrap_or(DEFAULT_READ);
        let total = total.unwrap_or_else(|| DEFAULT_TOTAL.max(connect + read));
        Timeouts { connect, read, total }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts::resolve(None, None, None)
    }
}

// === impl TimeoutsPatch ===

impl TimeoutsPatch {
    /// Finds a total that is shorter than the time for connecting, regardless of what is stored.
    pub(super) fn contradiction(&self) -> Option<Violation> {
        let (connect, total) = (self.connect?.unwrap_or(DEFAULT_CONNECT), self.total??);
        (total < connect).then(total_too_short)
    }
}

impl Patch for TimeoutsPatch {
    fn is_empty(&self) -> bool {
        let TimeoutsPatch { connect, read, total } = self;
        [connect, read, total].iter().all(|timeout| timeout.is_none())
    }
}

impl FieldPatch<Timeouts> for TimeoutsPatch {
    fn apply(&self, _path: &str, timeouts: &mut Timeouts, violations: &mut Violations) {
        *timeouts = Timeouts::resolve(
            self.connect.unwrap_or(Some(timeouts.connect)),
            self.read.unwrap_or(Some(timeouts.read)),
            self.total.unwrap_or(Some(timeouts.total)),
        );
        if timeouts.total < timeouts.connect {
            violations.push(total_too_short());
        }
    }
}

fn total_too_short() -> Violation {
    Violation::field("connector.total_timeout", "must not be less than connect_timeout")
}
