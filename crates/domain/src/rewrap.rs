//! Re-wraps: runs that wrap all data keys with the active key-encryption key and, if asked for, seal all secrets with fresh data
//! keys.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::value::time::Timestamp;

/// A re-wrap and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrap {
    pub id: Uuid,
    pub state: RewrapState,
    /// The key-encryption key that data keys are wrapped with.
    pub kek_id: String,
    /// True if secrets are sealed again, too.
    pub reseal: bool,
    pub data_keys_total: i64,
    pub data_keys_done: i64,
    pub secrets_total: i64,
    pub secrets_done: i64,
    pub failed: i64,
    pub start_time: Timestamp,
    pub end_time: Option<Timestamp>,
    /// The time of the last heartbeat of its worker.
    pub heartbeat_time: Timestamp,
}

/// The state of a re-wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewrapState {
    Running,
    Done,
    Failed,
}

// === impl RewrapState ===

impl RewrapState {
    /// The state with a name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Running, Self::Done, Self::Failed].into_iter().find(|state| state.as_str() == name)
    }

    /// The name of this state.
    pub const fn as_str(self) -> &'static str {
        match self {
            RewrapState::Running => "RUNNING",
            RewrapState::Done => "DONE",
            RewrapState::Failed => "FAILED",
        }
    }
}
