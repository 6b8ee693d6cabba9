//! The issuer of an authorisation response (RFC 9207): the defence against a provider that passes the code of another one off as its own.

use serde::{Deserialize, Serialize};

use super::AuthorizationFailure;
use crate::document::is_default;

/// The issuer that a response must name, as it was when the session began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedIssuer {
    #[serde(default, skip_serializing_if = "is_default")]
    pub issuer: Option<String>,
    /// The provider says that its responses name their issuer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_advertised: bool,
}

// === impl ExpectedIssuer ===

impl ExpectedIssuer {
    /// Checks the issuer of a response, errors included (RFC 9207 2.4). The texts are compared as they are. Where a connection names no
    /// issuer, a response that does is refused: there is nothing to compare it with.
    ///
    /// # Errors
    /// The response names another issuer, or none although it should.
    pub fn check(&self, iss: Option<&str>) -> Result<(), AuthorizationFailure> {
        match (iss, self.is_advertised) {
            (Some(iss), _) if self.issuer.as_deref() == Some(iss) => Ok(()),
            (Some(_), _) => Err(AuthorizationFailure::IssuerMismatch),
            (None, true) => Err(AuthorizationFailure::IssuerMissing),
            (None, false) => Ok(()),
        }
    }
}
