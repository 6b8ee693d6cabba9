//! The claims of ID tokens.

use std::fmt;

use jackfield_domain::Timestamp;
use serde_json::{Map, Value};

use super::fault::IdTokenFault;

/// The claims of an ID token that is valid. They are personal, so `Debug` prints none.
#[derive(Clone, PartialEq)]
pub struct IdTokenClaims {
    /// The id of the user, which is unique for the issuer.
    pub subject: String,
    pub email: Option<String>,
    /// False if the issuer does not say that the address belongs to the user.
    pub is_email_verified: bool,
    /// The domain of the organisation (Google's `hd`).
    pub hosted_domain: Option<String>,
    /// The tenant of the organisation (Microsoft's `tid`).
    pub tenant: Option<String>,
    /// The end of the ID token.
    pub expire_time: Timestamp,
    pub issue_time: Timestamp,
    /// All claims.
    pub all: Map<String, Value>,
}

// === impl IdTokenClaims ===

impl IdTokenClaims {
    /// Takes claims that were checked, except for `sub`.
    pub(super) fn of(
        all: Map<String, Value>,
        expire_time: Timestamp,
        issue_time: Timestamp,
    ) -> Result<Self, IdTokenFault> {
        let text = |name: &str| all.get(name).and_then(Value::as_str).map(str::to_owned);
        let subject = text("sub").filter(|subject| (1..=255).contains(&subject.len()) && subject.is_ascii());
        Ok(IdTokenClaims {
            subject: subject.ok_or(IdTokenFault::SubjectInvalid)?,
            email: text("email"),
            // Some issuers send a text.
            is_email_verified: match all.get("email_verified") {
                Some(Value::Bool(is_verified)) => *is_verified,
                Some(Value::String(text)) => text == "true",
                _ => false,
            },
            hosted_domain: text("hd"),
            tenant: text("tid"),
            expire_time,
            issue_time,
            all,
        })
    }
}

impl fmt::Debug for IdTokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdTokenClaims").field("claims", &self.all.len()).finish_non_exhaustive()
    }
}
