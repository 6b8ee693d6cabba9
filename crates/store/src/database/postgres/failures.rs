//! Attempts to open a session that failed.

use std::time::Duration;

use tokio::time::Instant;

/// Attempts to open a session that failed.
#[derive(Default)]
pub(super) struct Failures {
    count: u64,
    /// The error of the last attempt, unless it succeeded.
    last: Option<String>,
    logged: Option<Instant>,
}

/// The time between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

// === impl Failures ===

impl Failures {
    pub(super) fn note(&mut self, text: String, open: u32) {
        self.count += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            tracing::warn!(
                error.message = text,
                database.connections = open,
                "no further connection to the database can be opened"
            );
        }
        self.last = Some(text);
    }

    /// The number of attempts that failed.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The error of the last attempt, unless it succeeded.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Notes that an attempt succeeded. Returns whether the last one had failed.
    pub(super) fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}
