//! Digests of verified e-mail addresses, by which identities are compared.

use serde::{Deserialize, Serialize};

/// A keyed digest of a verified e-mail address, as hexadecimal digits. The address itself is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EmailDigest(String);

// === impl EmailDigest ===

impl EmailDigest {
    /// Makes the digest from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
