//! The kinds and states of credentials.

use serde::{Deserialize, Serialize};

/// The state of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CredentialState {
    Pending,
    Valid,
    /// Never stored: a valid credential reads as expired once its token has expired.
    Expired,
    NeedsReauth,
    Revoked,
    Indeterminate,
}

/// The kind of material of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CredentialKind {
    #[serde(rename = "OAUTH2")]
    OAuth2,
    ApiKey,
    Basic,
    ClientCredentials,
    ClientCertificate,
    Custom,
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

// === impl CredentialState ===

impl CredentialState {
    /// The names, as filters and the database use them.
    pub const NAMES: &'static [&'static str] =
        &["PENDING", "VALID", "EXPIRED", "NEEDS_REAUTH", "REVOKED", "INDETERMINATE"];

    /// The name of this state.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialState::Pending => "PENDING",
            CredentialState::Valid => "VALID",
            CredentialState::Expired => "EXPIRED",
            CredentialState::NeedsReauth => "NEEDS_REAUTH",
            CredentialState::Revoked => "REVOKED",
            CredentialState::Indeterminate => "INDETERMINATE",
        }
    }
}

// === impl CredentialKind ===

impl CredentialKind {
    /// The names, as filters and the database use them.
    pub const NAMES: &'static [&'static str] =
        &["OAUTH2", "API_KEY", "BASIC", "CLIENT_CREDENTIALS", "CLIENT_CERTIFICATE", "CUSTOM"];

    /// The name of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialKind::OAuth2 => "OAUTH2",
            CredentialKind::ApiKey => "API_KEY",
            CredentialKind::Basic => "BASIC",
            CredentialKind::ClientCredentials => "CLIENT_CREDENTIALS",
            CredentialKind::ClientCertificate => "CLIENT_CERTIFICATE",
            CredentialKind::Custom => "CUSTOM",
        }
    }
}
