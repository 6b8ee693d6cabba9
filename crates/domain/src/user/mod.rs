//! Users whose passwords Jackfield checks itself.

mod attempt_key;
mod list;
mod login_id;
mod password;
mod registration;

use serde::{Deserialize, Serialize};

use crate::connector::Connector;
use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::patch::patchable;
use crate::request::map_patch::MapPatch;
use crate::value::id::{ConnectorId, UserUuid};
use crate::value::json::JsonObject;
use crate::value::maps::Labels;
use crate::value::meta::Meta;
use crate::value::secret::SecretPatch;
use crate::value::text::{UserId, bounded_text};
use crate::value::time::Timestamp;

pub use attempt_key::{attempt_key, pin_key};
pub use list::SCHEMA;
pub use login_id::{EmailAddress, PhoneNumber, Username, login_key};
pub use password::{MAX_PASSWORD_BYTES, MIN_PASSWORD_CHARS, Password};
pub use registration::{MAX_APPLICATION_ID, MAX_REGISTRATIONS, MAX_ROLE, MAX_ROLES, Registration, registrations};

patchable! {
    /// A user, without the password.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct User in "user", blank(id: UserUuid, user_id: UserId, meta: Meta);

    /// A change of a user. A new user is a change of a blank one.
    pub struct UserPatch;

    fixed {
        id: UserUuid = id,
        /// The platform's id of the user.
        user_id: UserId = user_id,
    }
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        username: Option<Username>,
        #[serde(default, skip_serializing_if = "is_default")]
        email: Option<EmailAddress>,
        #[serde(default, skip_serializing_if = "is_default")]
        phone_number: Option<PhoneNumber>,
        #[serde(default, skip_serializing_if = "is_default")]
        first_name: String,
        #[serde(default, skip_serializing_if = "is_default")]
        last_name: String,
        #[serde(default, skip_serializing_if = "is_default")]
        data: JsonObject,
        #[serde(default, skip_serializing_if = "is_default")]
        registrations: Vec<Registration>,
        enabled: bool = true,
    }
    fixed {
        /// True if the hash of a password is sealed.
        #[serde(default, skip_serializing_if = "is_default")]
        password_set: bool,
        /// The connector that the user was migrated from. It may have been deleted since.
        #[serde(default, skip_serializing_if = "is_default")]
        connector: Option<ConnectorId>,
        /// The creation time of that connector. Another connector may have its id since.
        #[serde(default, skip_serializing_if = "is_default")]
        connector_create_time: Option<Timestamp>,
    }
    patched {
        #[serde(default, skip_serializing_if = "is_default")]
        labels: Labels => MapPatch<Labels>,
    }
    fixed {
        meta: Meta = meta,
    }
    patched {}
    patch only {
        user_id: Option<UserId>,
        password: SecretPatch<Password>,
        origin: Option<UserOrigin>,
    }
}

/// The connector that a user was migrated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserOrigin {
    pub connector: ConnectorId,
    /// The creation time of the connector.
    pub create_time: Timestamp,
}

/// A user as the system of a connector describes them.
#[derive(Clone, Debug, Default)]
pub struct ExternalUser {
    /// The id of the user in that system.
    pub id: String,
    pub username: String,
    pub email: String,
    pub phone_number: String,
    pub first_name: String,
    pub last_name: String,
    pub data: JsonObject,
    pub registrations: Vec<Registration>,
}

/// The column of the sealed hash of the password.
pub const PASSWORD_COLUMN: &str = "password";

/// The longest first or last name, in characters.
pub const MAX_PERSON_NAME: usize = 128;

const NO_LOGIN_ID: &str = "is required, unless email or phone_number is given";

// === impl User ===

impl User {
    /// Makes a user from a patch that has everything required.
    pub fn create(id: UserUuid, patch: &UserPatch, meta: Meta) -> Result<Self, Vec<Violation>> {
        let user_id = patch.user_id.clone().unwrap_or_else(|| UserId::stored(id.to_string()));
        User::blank(id, user_id, meta).patched(patch, meta)
    }

    /// This user after a patch, or what is wrong with the result.
    pub fn patched(mut self, patch: &UserPatch, meta: Meta) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        self.apply(patch, &mut violations);
        patch.password.apply_to_flag(&mut self.password_set);
        if let Some(UserOrigin { connector, create_time }) = patch.origin {
            self.connector = Some(connector);
            self.connector_create_time = Some(create_time);
        }
        if patch.user_id.as_ref().is_some_and(|user_id| *user_id != self.user_id) {
            violations.push(Violation::field("user.user_id", "may not be changed"));
        }
        if self.login_ids().is_empty() {
            violations.push(Violation::field("user.username", NO_LOGIN_ID));
        }
        self.meta = meta;
        violations.into_whole(self)
    }

    /// Returns true if the user was migrated from a connector, and not from a deleted one with the same id.
    pub fn is_from(&self, origin: &UserOrigin) -> bool {
        let UserOrigin { connector, create_time } = *origin;
        self.connector == Some(connector) && self.connector_create_time == Some(create_time)
    }

    /// What the user can log in with.
    pub fn login_ids(&self) -> Vec<&str> {
        let User { username, email, phone_number, .. } = self;
        let username = username.as_ref().map(Username::as_str);
        let email = email.as_ref().map(EmailAddress::as_str);
        let phone_number = phone_number.as_ref().map(PhoneNumber::as_str);
        [username, email, phone_number].into_iter().flatten().collect()
    }
}

// === impl UserOrigin ===

impl From<&Connector> for UserOrigin {
    fn from(connector: &Connector) -> Self {
        UserOrigin { connector: connector.id, create_time: connector.meta.create_time }
    }
}

// === impl UserPatch ===

impl UserPatch {
    /// Returns true if the patch has a password. It is not compared with what is stored.
    pub fn sets_secrets(&self) -> bool {
        matches!(self.password, SecretPatch::Set(_))
    }

    /// The change that makes a user what the system of a connector says, with the password that it accepted. The other system may
    /// have had weaker rules for passwords. A login id that cannot be one here is left out; one must remain. Long names are cut.
    pub fn of_external(user: ExternalUser, origin: UserOrigin, password: Password) -> Result<Self, Vec<Violation>> {
        let ExternalUser { id, username, email, phone_number, first_name, last_name, data, registrations } = user;
        let mut violations = Violations::default();
        let name = |field, text: &str| {
            let cut: String = text.chars().take(MAX_PERSON_NAME).collect();
            bounded_text(field, &cut, MAX_PERSON_NAME, true)
        };
        let patch = UserPatch {
            user_id: violations.check(UserId::parse("user.user_id", &id)),
            username: Some(Username::parse("user.username", &username).ok()),
            email: Some(EmailAddress::parse("user.email", &email).ok()),
            phone_number: Some(PhoneNumber::parse("user.phone_number", &phone_number).ok()),
            first_name: violations.check(name("user.first_name", &first_name)),
            last_name: violations.check(name("user.last_name", &last_name)),
            data: Some(data),
            registrations: violations.check_all(self::registrations("user.registrations", registrations)),
            password: SecretPatch::Set(password),
            origin: Some(origin),
            ..UserPatch::default()
        };
        violations.into_whole(patch)
    }
}

#[cfg(test)]
mod tests;
