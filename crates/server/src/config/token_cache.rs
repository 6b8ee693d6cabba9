//! `[token_cache]`: opened tokens in memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use jackfield_transport::config::{Size, duration};

/// The tokens that IssueAccessToken keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenCache {
    /// The number of tokens. 0: none.
    pub max_tokens: u32,
    /// The memory that they may take together.
    pub max_bytes: Size,
    /// With PostgreSQL: how long a token may still be handed out, and a connector be used as it was, after another replica has
    /// changed them.
    #[serde(with = "duration")]
    pub max_staleness: Duration,
}

impl Default for TokenCache {
    fn default() -> Self {
        TokenCache { max_tokens: 10_000, max_bytes: Size::mib(16), max_staleness: Duration::from_secs(1) }
    }
}
