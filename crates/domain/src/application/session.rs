//! Sessions: what a log-in to an application gives a user.

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::Violation;
use crate::value::id::{ApplicationId, SessionId};
use crate::value::json::JsonObject;
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::UserId;
use crate::value::time::Timestamp;

/// A session. It never changes; it is ended, or it expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub application: ApplicationId,
    pub user_id: UserId,
    /// The user as the connector described it at the log-in. `None` for a user of the tenant, which is looked up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub profile: Option<UserProfile>,
    pub token_digest: TokenDigest,
    pub expire_time: Timestamp,
    pub meta: Meta,
}

/// A description of a user, without what the password belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserProfile {
    pub username: String,
    pub email: String,
    pub phone_number: String,
    pub first_name: String,
    pub last_name: String,
    pub data: JsonObject,
}

/// The token of a session: the base64 of 32 random bytes, in the alphabet for URLs.
pub struct SessionToken(Secret);

/// The SHA-256 of a session token as hexadecimal digits. A token has so many random bits that it cannot be found from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenDigest(String);

/// The name of a session in a call.
pub enum SessionRef {
    /// By its id.
    Id(SessionId),
    /// By its token.
    Token(SessionToken),
}

/// The longest token that is looked up. Those that are made here are shorter.
const MAX_SESSION_TOKEN: usize = 256;

// === impl Session ===

impl Session {
    /// Returns true if the session can be used at a time.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expire_time
    }
}

// === impl SessionToken ===

impl SessionToken {
    /// Wraps a token that was just made.
    pub fn new(token: Secret) -> Self {
        Self(token)
    }

    /// Checks a token that a caller sent.
    pub fn parse(field: &str, text: String) -> Result<Self, Violation> {
        Secret::parse_token(field, text, MAX_SESSION_TOKEN).map(Self)
    }

    /// The token itself. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

// === impl TokenDigest ===

impl TokenDigest {
    /// Makes the digest from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
