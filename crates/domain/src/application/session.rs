//! Sessions: what a log-in to an application gives a user.

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::login::AuthenticatedUser;
use crate::user::{EmailAddress, PhoneNumber, User, Username};
use crate::value::id::{ApplicationId, SessionId, UserUuid};
use crate::value::json::JsonObject;
use crate::value::meta::Meta;
use crate::value::secret::Secret;
use crate::value::text::UserId;
use crate::value::time::Timestamp;
use crate::value::url::HttpUrl;

/// A session. It never changes; it is ended, or it expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub application: ApplicationId,
    pub user_id: UserId,
    pub holder: SessionHolder,
    pub token_digest: TokenDigest,
    pub expire_time: Timestamp,
    pub meta: Meta,
}

/// The user of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionHolder {
    /// A user of the tenant, who is looked up whenever the session is used.
    User(UserUuid),
    /// A user of another system, as it described the user at the log-in.
    External(Box<UserProfile>),
    /// A user of the licence server at a URL. It is asked about the user whenever the session is used, with a token that it gave and
    /// that is kept as a secret of the session.
    License { base_url: HttpUrl },
}

/// A description of a user, as applications get it.
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

/// The name of the token of a licence server among the secrets of a session.
pub const LICENSE_TOKEN_COLUMN: &str = "license_token";

/// The most sessions of a user in an application. Another log-in ends the oldest one.
pub const MAX_SESSIONS: u64 = 100;

/// The longest token that is looked up. Those that are made here are shorter.
const MAX_SESSION_TOKEN: usize = 256;

// === impl Session ===

impl Session {
    /// Returns true if the session can be used at a time.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expire_time
    }
}

// === impl UserProfile ===

impl From<User> for UserProfile {
    fn from(user: User) -> Self {
        let text = |text: Option<String>| text.unwrap_or_default();
        UserProfile {
            username: text(user.username.map(Username::into)),
            email: text(user.email.map(EmailAddress::into)),
            phone_number: text(user.phone_number.map(PhoneNumber::into)),
            first_name: user.first_name,
            last_name: user.last_name,
            data: user.data,
        }
    }
}

impl From<AuthenticatedUser> for UserProfile {
    fn from(user: AuthenticatedUser) -> Self {
        let AuthenticatedUser { id: _, username, email, phone_number, first_name, last_name, data } = user;
        UserProfile { username, email, phone_number, first_name, last_name, data }
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
