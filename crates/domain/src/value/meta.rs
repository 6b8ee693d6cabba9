//! What every stored resource has: times, a version and the etag made of them.

use serde::{Deserialize, Serialize};

use crate::value::time::Timestamp;

/// Times and version of a stored resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
}

impl Meta {
    /// Of a resource that is being created.
    pub const fn new(now: Timestamp) -> Self {
        Meta { create_time: now, update_time: now, version: 1 }
    }

    /// After one more change.
    #[must_use]
    pub fn changed(self, now: Timestamp) -> Self {
        Meta { create_time: self.create_time, update_time: now.max(self.update_time), version: self.version + 1 }
    }

    /// The weak entity tag (AIP-154). It holds the time of creation beside the version, so that the etag of a deleted
    /// resource never fits one that was created anew under the same id.
    pub fn etag(&self) -> String {
        format!("W/\"{:x}-{:x}\"", self.create_time.0, self.version)
    }

    /// Whether an etag that a caller sent is the current one; an empty one always is.
    pub fn matches(&self, etag: &str) -> bool {
        etag.is_empty() || etag == self.etag()
    }
}
