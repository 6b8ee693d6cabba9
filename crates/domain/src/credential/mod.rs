//! Credentials: the authorised material of users. [`Credential`] has the public facts, [`Material`] the secrets.

mod email;
mod explain;
mod list;
mod material;
mod outlook;
mod patch;
mod refresh;
mod rejection;
mod revocation;
mod state;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::error::{Violation, Violations};
use crate::patch::FieldPatch;
use crate::request::reference::Ref;
use crate::value::id::{ConfigurationId, ConnectionId, ConnectorId, CredentialId, KeyId, UserConnectorId};
use crate::value::json::JsonObject;
use crate::value::maps::Labels;
use crate::value::meta::Meta;
use crate::value::text::{ExternalId, UserId};
use crate::value::time::Timestamp;

pub use email::EmailDigest;
pub use explain::{
    Explanation, NextStep, ParentStates, REFRESH_TOKEN_INVALID, SUBJECT_CHANGED, TOKEN_TYPE_DOWNGRADED, loss_of,
    tokens_refused,
};
pub use list::SCHEMA;
pub use material::{
    ALTERNATE_COLUMN, IssuedToken, MATERIAL_COLUMN, MAX_CUSTOM_FIELDS, MAX_CUSTOM_FIELDS_BYTES, Material,
    MaterialPatch, OAuth2Material, TokensPatch, check_custom_fields, custom_fields_after,
};
pub use outlook::{RefreshHold, RefreshOutlook};
pub use patch::{CredentialDraft, CredentialParents, CredentialPatch};
pub use refresh::{
    LEAST_VALIDITY, RefreshAttempt, RefreshEnd, RefreshOutcome, backoff as refresh_backoff, refresh_time,
};
pub use rejection::{ApiAnswer, ChallengeError, Remedy, TokenRejection};
pub use revocation::{RevocationOutcome, RevokedTokenKind, TokenRevocation};
pub use state::{CredentialKind, CredentialState, FailureClass};

/// The facts of a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    pub id: CredentialId,
    #[serde(default, skip_serializing_if = "is_default")]
    pub external_id: Option<ExternalId>,
    pub user_id: UserId,
    pub connector: ConnectorId,
    #[serde(default, skip_serializing_if = "is_default")]
    pub connection: Option<ConnectionId>,
    pub user_connector: UserConnectorId,
    /// The key of a client certificate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub key: Option<KeyId>,
    pub kind: CredentialKind,
    /// The stored state; [`Credential::state_at`] gives the current one.
    pub state: CredentialState,
    #[serde(default, skip_serializing_if = "is_default")]
    pub scopes: Vec<String>,
    /// The scopes that the authorisation asked for; none if a caller stored the material.
    #[serde(default, skip_serializing_if = "is_default")]
    pub requested_scopes: Vec<String>,
    /// The type of the access token; empty if there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_type: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub expire_time: Option<Timestamp>,
    /// The time at which the provider ends the authorisation, as it said with the refresh token that is stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub authorization_expire_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider_account_id: String,
    /// A digest of the verified e-mail address of the account, from the authorisation that brought the material. `None` if the address was not
    /// known, or if the connection did not link users then.
    #[serde(default, skip_serializing_if = "is_default")]
    pub email_digest: Option<EmailDigest>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider_data: JsonObject,
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Labels,
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_default: bool,
    /// Counts changes of the material, from 1.
    pub material_version: i64,
    /// True if there is a refresh token, or a client that gets others; [`Credential::refreshes`] tells whether that is of use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refreshable: bool,
    /// Its tokens are those of the client of its connection, which gets others without a refresh token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_grant: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_refresh_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub refresh_failure_count: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure_class: Option<FailureClass>,
    /// The reason of the last failure; empty if the last refresh did not fail.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure_reason: String,
    /// The version of the connection through which the last attempt failed. `None`: it is not known, or the last refresh did not fail.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure_connection_version: Option<i64>,
    /// The time at which the token is refreshed, or a refresh that failed is tried again. `None`: the server does not refresh it by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub next_refresh_time: Option<Timestamp>,
    /// The responses without a new refresh token since the last that had one, up to a few. The last of these few is counted only if it came
    /// long enough after the first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refresh_token_kept_count: u8,
    /// The time of the first of these responses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refresh_token_kept_time: Option<Timestamp>,
    /// The rejections of its tokens that callers reported, the newest first. New material from outside ends them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rejections: Vec<TokenRejection>,
    pub default_configuration: ConfigurationId,
    pub meta: Meta,
}

/// A credential, as IssueAccessToken names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// By id or external id.
    Ref(Ref),
    /// The default credential of a user for a connector.
    DefaultOf { user_id: UserId, connector: Ref },
    /// The newest credential of a user from a connection (Authress).
    OfConnection { user_id: UserId, connection: Ref },
}

/// The longest validity that IssueAccessToken can be asked for, in microseconds: 24 hours.
pub const MAX_MIN_VALIDITY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// The scope that asks for a refresh token (OpenID Connect Core 11). Many providers do not name it among those that they grant.
const OFFLINE_ACCESS: &str = "offline_access";

/// The responses without a new refresh token after which it is believed that the provider does not replace it.
const ENOUGH_KEPT: u8 = 3;
/// The least time between the first and the last of them, in microseconds: 24 hours. Some providers give the same token again within a time of
/// reuse, and replace it after that.
const KEPT_MICROS: i64 = 24 * 3_600 * 1_000_000;

// === impl Credential ===

impl Credential {
    /// The state at a time. A valid credential is expired from the expiry of its token on.
    pub fn state_at(&self, now: Timestamp) -> CredentialState {
        match (self.state, self.expire_time) {
            (CredentialState::Valid, Some(expiry)) if expiry <= now => CredentialState::Expired,
            (state, _) => state,
        }
    }

    /// Returns whether there is a token among its material, which may have expired.
    pub fn has_token(&self) -> bool {
        self.kind != CredentialKind::OAuth2 || !self.token_type.is_empty()
    }

    /// The scopes that were asked for and not granted. Without a token none are granted, and none are known to be missing.
    pub fn missing_scopes(&self) -> Vec<String> {
        let is_granted = |scope: &String| {
            self.scopes.contains(scope) || (scope == OFFLINE_ACCESS && self.refreshable) || !self.has_token()
        };
        self.requested_scopes.iter().filter(|scope| !is_granted(scope)).cloned().collect()
    }

    /// Notes whether there is a refresh token among its material.
    pub fn note_refresh_token(&mut self, is_there: bool) {
        self.refreshable = is_there || self.client_grant;
    }

    /// Returns whether the server can refresh it: with a refresh token or as the client, through a connection.
    pub fn refreshes(&self) -> bool {
        self.refreshable && self.connection.is_some() && self.kind == CredentialKind::OAuth2
    }

    /// Returns whether its first access token is still to be got, and no attempt was made.
    pub fn awaits_exchange(&self) -> bool {
        self.refreshes() && !self.has_token() && self.failure_class.is_none()
    }

    /// Returns whether its user can authorise it again through its connection.
    pub fn can_be_authorized(&self) -> bool {
        self.connection.is_some() && self.kind == CredentialKind::OAuth2 && !self.client_grant
    }

    /// Sets the time of the first refresh of new material. A refresh token without an access token is exchanged at once.
    pub fn schedule(&mut self, now: Timestamp) {
        self.next_refresh_time = match self.state {
            _ if !self.refreshes() => None,
            CredentialState::NeedsReauth => {
                self.state = CredentialState::Expired;
                Some(now)
            }
            _ => Some(refresh_time(self.id, now, self.expire_time)),
        };
    }

    /// Returns whether a refresh token may be good for one use only. It is, unless the provider has shown several times, over a day, that it is
    /// not: some replace it now and then. A client that needs none spends none.
    pub fn refresh_token_rotates(&self) -> bool {
        // Without the time of the first, it was believed too soon.
        !self.client_grant && (self.refresh_token_kept_count < ENOUGH_KEPT || self.refresh_token_kept_time.is_none())
    }

    /// Notes whether a response had a new refresh token, and when it came.
    pub fn note_rotation(&mut self, rotated: bool, time: Timestamp) {
        if rotated {
            self.forget_kept();
            return;
        }
        if self.refresh_token_kept_time.is_none() {
            self.refresh_token_kept_count = 0;
        }
        let first = *self.refresh_token_kept_time.get_or_insert(time);
        let is_long = time.0.saturating_sub(first.0) >= KEPT_MICROS;
        let most = if is_long { ENOUGH_KEPT } else { ENOUGH_KEPT - 1 };
        let count = self.refresh_token_kept_count;
        self.refresh_token_kept_count = count.max(count.saturating_add(1).min(most));
    }

    /// Forgets that responses had no new refresh token: there is another one now.
    pub fn forget_kept(&mut self) {
        (self.refresh_token_kept_count, self.refresh_token_kept_time) = (0, None);
    }

    /// Forgets failures of refreshes.
    pub fn forget_failures(&mut self) {
        (self.refresh_failure_count, self.failure_class, self.failure_connection_version) = (0, None, None);
        self.failure_reason.clear();
    }

    /// Changes the facts that callers set, or returns what would be wrong with the result. The use case handles the
    /// default, the material and the parents.
    pub fn apply(&mut self, patch: &CredentialPatch) -> Result<(), Vec<Violation>> {
        let CredentialPatch {
            external_id,
            provider_account_id: account,
            provider_data: data,
            labels,
            is_default: _,
            material: _,
            parents: _,
        } = patch;
        let mut violations = Violations::default();
        external_id.apply("credential.external_id", &mut self.external_id, &mut violations);
        if account.as_ref().is_some_and(|account| *account != self.provider_account_id) {
            // It is that of another account.
            self.email_digest = None;
        }
        account.apply("credential.provider_account_id", &mut self.provider_account_id, &mut violations);
        data.apply("credential.provider_data", &mut self.provider_data, &mut violations);
        labels.apply("credential.labels", &mut self.labels, &mut violations);
        violations.into_whole(())
    }
}

#[cfg(test)]
mod tests;
