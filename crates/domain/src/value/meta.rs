//! Times, version and etag of stored resources.

use serde::{Deserialize, Serialize};

use crate::value::time::Timestamp;

/// Times and version of a stored resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The time of its creation.
    pub create_time: Timestamp,
    /// The time of its last change.
    pub update_time: Timestamp,
    /// The number of its changes, from 1.
    pub version: i64,
}

impl Meta {
    /// Makes the meta of a new resource.
    pub const fn new(now: Timestamp) -> Self {
        Meta { create_time: now, update_time: now, version: 1 }
    }

    /// Makes the meta after one more change.
    #[must_use]
    pub fn changed(self, now: Timestamp) -> Self {
        Meta { create_time: self.create_time, update_time: now.max(self.update_time), version: self.version + 1 }
    }

    /// The weak entity tag (AIP-154). It is made of the time of creation and the version, so that the etag of a deleted resource
    /// never matches a new one with the same id.
    pub fn etag(&self) -> String {
        format!("W/\"{:x}-{:x}\"", self.create_time.0, self.version)
    }

    /// Returns true if an etag that a caller sent is the current one, or empty.
    pub fn matches(&self, etag: &str) -> bool {
        etag.is_empty() || etag == self.etag()
    }
}
