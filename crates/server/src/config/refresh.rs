//! `[refresh]`: the replacement of access tokens before they expire.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jackfield_service::{RefreshBudget, RefreshSettings};
use jackfield_transport::config::duration;
use serde::{Deserialize, Serialize};

/// The refreshes of credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refresh {
    /// True if tokens are replaced ahead of their expiry.
    pub ahead: bool,
    /// The longest time that a token endpoint may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The requests to the token endpoint of a connection at once.
    pub max_concurrent: u32,
    /// The requests to the token endpoint of a connection in a second.
    pub max_per_second: u32,
    /// The directory of received tokens that are not stored yet. Empty: `journal` in the data directory.
    pub journal: PathBuf,
}

/// The longest time that a token endpoint can be given.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

// === impl Refresh ===

impl Refresh {
    /// The settings of refreshes.
    pub fn settings(&self, data_dir: &Path) -> RefreshSettings {
        let Refresh { ahead, timeout, max_concurrent, max_per_second, journal } = self;
        let journal = if journal.as_os_str().is_empty() { data_dir.join("journal") } else { journal.clone() };
        let budget = RefreshBudget { concurrency: *max_concurrent, rate: *max_per_second, ahead: *ahead };
        RefreshSettings { timeout: *timeout, journal, budget }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.timeout < Duration::from_secs(1) || self.timeout > MAX_TIMEOUT {
            problems.push("refresh.timeout: must be at least 1 s and at most 60 s".to_owned());
        }
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Refresh {
            ahead: true,
            timeout: Duration::from_secs(10),
            max_concurrent: 16,
            max_per_second: 50,
            journal: PathBuf::new(),
        }
    }
}
