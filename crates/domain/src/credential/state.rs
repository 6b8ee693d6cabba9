//! The kinds and states of credentials.

use serde::{Deserialize, Serialize};

use crate::names::names;

names! {
    /// The state of a credential.
    pub enum CredentialState {
        Pending = "PENDING",
        Valid = "VALID",
        /// A valid credential reads as expired once its token has expired. Stored only if there is a refresh token and no access token yet.
        Expired = "EXPIRED",
        NeedsReauth = "NEEDS_REAUTH",
        Revoked = "REVOKED",
        Indeterminate = "INDETERMINATE",
    }
}

names! {
    /// The kind of material of a credential.
    pub enum CredentialKind {
        OAuth2 = "OAUTH2",
        ApiKey = "API_KEY",
        Basic = "BASIC",
        ClientCredentials = "CLIENT_CREDENTIALS",
        ClientCertificate = "CLIENT_CERTIFICATE",
        Custom = "CUSTOM",
    }
}

/// The reason why the last renewal failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureClass {
    Transient,
    Permanent,
    Connection,
    Indeterminate,
}

// === impl FailureClass ===

impl FailureClass {
    /// Returns whether no attempt follows, because only a user can help.
    pub fn is_final(self) -> bool {
        matches!(self, FailureClass::Permanent | FailureClass::Indeterminate)
    }
}
