//! Log-ins: what a system is asked, and what it says about a user.

use std::net::IpAddr;

use uuid::Uuid;

use crate::error::Violation;
use crate::names::names;
use crate::user::{EmailAddress, ExternalUser, Password, PhoneNumber, Registration, User, Username};
use crate::value::json::JsonObject;
use crate::value::secret::Secret;
use crate::value::text::bounded_text;

/// The login id of an end user, as the end user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginId(String);

/// A log-in that a system is asked to check. It has no printable form.
pub struct LoginAttempt {
    pub login_id: LoginId,
    pub password: Secret,
    /// The application to which the user logs in.
    pub application_id: Option<String>,
    pub no_jwt: bool,
    pub new_device: bool,
    pub event: LoginEvent,
}

/// Facts of a log-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginEvent {
    pub ip_address: Option<IpAddr>,
    pub user_agent: String,
    pub device_name: String,
    pub device_type: String,
}

/// The outcome of a log-in, as the caller learns it.
#[derive(Clone, Debug, PartialEq)]
pub enum LoginOutcome {
    Accepted(Box<AcceptedLogin>),
    /// An unknown user and a wrong password are the same.
    Rejected,
    /// The system could not be asked, or its response cannot be used.
    UpstreamFault,
}

names! {
    /// The reason of a log-in that was checked. Only operators learn it: callers cannot distinguish rejections.
    pub enum LoginReason {
        /// The system accepted the log-in.
        SystemAccepted = "SYSTEM_ACCEPTED",
        /// The system accepted the log-in, but the user could not be stored here. The log says why.
        UserNotMigrated = "USER_NOT_MIGRATED",
        /// The system rejected the log-in. It does not say if the user is unknown or the password is wrong.
        SystemRejected = "SYSTEM_REJECTED",
        /// The system answered with a user who is deactivated there.
        UserInactive = "USER_INACTIVE",
        /// The system answered with a user whose account has ended there.
        UserExpired = "USER_EXPIRED",
        /// The user was migrated, and the password is right.
        PasswordRight = "PASSWORD_RIGHT",
        /// The user was migrated, and the password is wrong.
        PasswordWrong = "PASSWORD_WRONG",
        /// The user was migrated, and has no password.
        PasswordMissing = "PASSWORD_MISSING",
        /// There is no such user any more: it was deleted while the log-in was checked.
        UserUnknown = "USER_UNKNOWN",
        /// The user is disabled here. The password may be wrong, too.
        UserDisabled = "USER_DISABLED",
    }
}

/// A user whose log-in was accepted, with the registrations of the user.
#[derive(Clone, Debug, PartialEq)]
pub struct AcceptedLogin {
    pub user: AuthenticatedUser,
    pub registrations: Vec<Registration>,
}

/// A user as a system describes them. At least one of user name, email and phone number is not empty.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthenticatedUser {
    pub id: Uuid,
    pub username: String,
    pub email: String,
    pub phone_number: String,
    pub first_name: String,
    pub last_name: String,
    pub data: JsonObject,
}

/// The longest login id, in characters.
pub const MAX_LOGIN_ID: usize = 256;
/// The longest password, in characters.
pub const MAX_PASSWORD: usize = 1_024;

// === impl LoginId ===

impl LoginId {
    /// Checks a login id. Blanks at its ends are part of it: the system decides what they mean.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        if text.trim().is_empty() {
            return Err(Violation::field(field, "is required"));
        }
        bounded_text(field, text, MAX_LOGIN_ID, false).map(LoginId)
    }

    /// The login id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl LoginAttempt ===

impl LoginAttempt {
    /// The password as users of this deployment have it; `None` if it is longer than theirs can be.
    pub fn chosen_password(&self) -> Option<Password> {
        Password::given("password", self.password.expose().to_owned()).ok()
    }
}

// === impl AcceptedLogin ===

/// A user who was migrated. The id is that of the system.
impl From<User> for AcceptedLogin {
    fn from(user: User) -> Self {
        let text = |text: Option<String>| text.unwrap_or_default();
        let id = Uuid::try_parse(user.user_id.as_str()).unwrap_or(user.id.0);
        let authenticated = AuthenticatedUser {
            id,
            username: text(user.username.map(Username::into)),
            email: text(user.email.map(EmailAddress::into)),
            phone_number: text(user.phone_number.map(PhoneNumber::into)),
            first_name: user.first_name,
            last_name: user.last_name,
            data: user.data,
        };
        AcceptedLogin { user: authenticated, registrations: user.registrations }
    }
}

impl From<AcceptedLogin> for ExternalUser {
    fn from(accepted: AcceptedLogin) -> Self {
        let AcceptedLogin { user, registrations } = accepted;
        let AuthenticatedUser { id, username, email, phone_number, first_name, last_name, data } = user;
        ExternalUser { id: id.to_string(), username, email, phone_number, first_name, last_name, data, registrations }
    }
}

/// Checks the length of a password, and nothing else: whether it is right is for the system to say.
pub fn password(field: &str, text: String) -> Result<Secret, Violation> {
    let password = Secret::new(text);
    match password.expose().chars().count() {
        0 => Err(Violation::field(field, "is required")),
        1..=MAX_PASSWORD => Ok(password),
        _ => Err(Violation::field(field, format!("must be at most {MAX_PASSWORD} characters long"))),
    }
}
