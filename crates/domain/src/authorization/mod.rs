//! Authorisations: the handshakes by which users permit connections to act for them (RFC 6749 4.1, RFC 8628).

mod browser;
mod device;
mod issuer;

use serde::{Deserialize, Serialize};

use crate::document::is_default;
use crate::names::names;
use crate::request::reference::Ref;
use crate::value::id::{AuthorizationSessionId, ConnectionId, CredentialId};
use crate::value::meta::Meta;
use crate::value::scopes::Scopes;
use crate::value::secret::Secret;
use crate::value::text::UserId;
use crate::value::time::Timestamp;
use crate::value::url::{HttpUrl, RedirectUri};

pub use browser::{
    AUTHORIZATION_URL_COLUMN, BrowserBinding, BrowserCookies, CONNECT_PATH, MAX_VAIN_RETURNS, connect_url, cookie_name,
};
pub use device::{DEVICE_CODE_COLUMN, DEVICE_MICROS, DeviceInvitation, DevicePolling};
pub use issuer::ExpectedIssuer;

/// One handshake. It is used once, by the principal that started it and for the user that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationSession {
    pub id: AuthorizationSessionId,
    /// The name of the principal that started it.
    pub principal: String,
    pub user_id: UserId,
    pub connection: ConnectionId,
    /// The credential that is authorised again; once the session is completed, the one that it ended in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credential: Option<CredentialId>,
    /// The time at which the credential that is authorised again was made: a later one with its id is another one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credential_create_time: Option<Timestamp>,
    /// The version of its material, if it was revoked already. One that is revoked later stays so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revoked_version: Option<i64>,
    /// The scopes that are asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scopes: Vec<String>,
    /// The scopes that were granted, once the session is completed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub granted_scopes: Vec<String>,
    /// The URI to which the provider sends the browser. `None` if no browser comes back, because the provider is polled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub redirect_uri: Option<RedirectUri>,
    /// The URI of the application to which the browser is sent after a callback. `None` if the application takes the response itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub return_uri: Option<RedirectUri>,
    /// The pace at which the provider is polled. `None` if a browser comes back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device: Option<DevicePolling>,
    /// The browser that has to come back. `None` if the application knows whose browser it is, or if none comes back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub browser: Option<BrowserBinding>,
    pub issuer: ExpectedIssuer,
    pub client: AuthorizationClient,
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_account_change: bool,
    /// Other users with the same identity are asked for: connections with explicit linking tell of them only then.
    #[serde(default, skip_serializing_if = "is_default")]
    pub find_linked_users: bool,
    /// Other users with the same identity, once the session is completed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub linked_users: Vec<UserId>,
    /// The credential of each of them: a user whose credential is gone is not named any more. Empty if an earlier release
    /// has completed it: then they stay named.
    #[serde(default, skip_serializing_if = "is_default")]
    pub linked_credentials: Vec<CredentialId>,
    /// The stored state; [`AuthorizationSession::settled`] gives the current one.
    pub state: AuthorizationState,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure: Option<AuthorizationFailure>,
    /// More about the failure: a known error code, or the name of a fault. Never a text that a provider sent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failure_detail: String,
    /// A keyed digest of the state of the authorisation request.
    pub state_digest: AuthorizationDigest,
    /// A keyed digest of the completion code.
    #[serde(default, skip_serializing_if = "is_default")]
    pub completion_digest: Option<AuthorizationDigest>,
    /// The end of the present state, if it does not change before.
    pub expire_time: Timestamp,
    pub meta: Meta,
}

/// The client to which a code is given, and the token endpoint to which the client sends it, as both were when the session began. The client
/// secret is no part of it: it may be replaced at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationClient {
    pub token_url: HttpUrl,
    pub client_id: String,
}

names! {
    /// The state of an authorisation.
    #[derive(Hash)]
    pub enum AuthorizationState {
        /// The user was sent to the provider.
        Started = "STARTED",
        /// The callback listener has the response, and the application has not confirmed it.
        Returned = "RETURNED",
        /// The application has confirmed the user, and the code is being redeemed; or the tokens for a device code are being stored.
        Confirmed = "CONFIRMED",
        Completed = "COMPLETED",
        /// The user or the provider denied the access.
        Denied = "DENIED",
        Failed = "FAILED",
        Cancelled = "CANCELLED",
        Expired = "EXPIRED",
    }
}

names! {
    /// The reason why an authorisation failed. Names do not change.
    #[derive(Hash)]
    pub enum AuthorizationFailure {
        IssuerMismatch = "ISSUER_MISMATCH",
        IssuerMissing = "ISSUER_MISSING",
        UserMismatch = "USER_MISMATCH",
        ProviderError = "PROVIDER_ERROR",
        ResponseMalformed = "RESPONSE_MALFORMED",
        CodeExpired = "CODE_EXPIRED",
        GrantRefused = "GRANT_REFUSED",
        ClientRefused = "CLIENT_REFUSED",
        RequestRefused = "REQUEST_REFUSED",
        UserActionRequired = "USER_ACTION_REQUIRED",
        EndpointUnavailable = "ENDPOINT_UNAVAILABLE",
        AnswerLost = "ANSWER_LOST",
        TokenUnusable = "TOKEN_UNUSABLE",
        ConnectionChanged = "CONNECTION_CHANGED",
        CredentialMissing = "CREDENTIAL_MISSING",
        NotStored = "NOT_STORED",
        Interrupted = "INTERRUPTED",
        IssuerUnavailable = "ISSUER_UNAVAILABLE",
        IdTokenRefused = "ID_TOKEN_REFUSED",
        ProfileUnavailable = "PROFILE_UNAVAILABLE",
        AccountUnknown = "ACCOUNT_UNKNOWN",
        AccountMismatch = "ACCOUNT_MISMATCH",
        BusinessAccountRequired = "BUSINESS_ACCOUNT_REQUIRED",
        WrongBrowser = "WRONG_BROWSER",
    }
}

/// A keyed digest of a secret by which a session is found, as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthorizationDigest(String);

/// A handshake that is to be started.
#[derive(Debug)]
pub struct AuthorizationDraft {
    pub connection: Ref,
    pub user_id: UserId,
    /// `None`: the scopes of the connection.
    pub scopes: Option<Scopes>,
    pub delivery: Delivery,
    /// The credential that is authorised again.
    pub credential: Option<Ref>,
    pub allow_account_change: bool,
    pub find_linked_users: bool,
}

/// The way in which the response of the provider comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To the application, at one of its own redirect URIs. `None`: the only one that the connection has.
    Application(Option<RedirectUri>),
    /// To the callback listener, which sends the browser to a URI of the application.
    Callback(RedirectUri),
    /// To the callback listener, which knows the browser by a cookie, and may send it to a URI of the application afterwards.
    CookieBound(Option<RedirectUri>),
    /// With a device code: the user types it at the provider, no browser comes back, and the token endpoint is polled.
    Device,
}

/// A session that was started.
#[derive(Debug)]
pub struct StartedAuthorization {
    pub session: AuthorizationSession,
    /// `None` if the session has ended at once, because the provider refused it.
    pub invitation: Option<Invitation>,
}

/// The part of a start that is for the user.
#[derive(Debug)]
pub enum Invitation {
    /// The URL to which the user is sent. It has the state, which is a secret.
    Redirect(Secret),
    Device(DeviceInvitation),
}

/// The part of a call that says how a handshake ended.
#[derive(Debug)]
pub enum AuthorizationAnswer {
    /// The code that the callback listener gave to the browser.
    CompletionCode(Secret),
    /// The response that the application received at its redirect URI.
    Response(AuthorizationResponse),
}

/// An authorisation response (RFC 6749 4.1.2), with its issuer (RFC 9207).
#[derive(Debug)]
pub struct AuthorizationResponse {
    pub state: Secret,
    pub iss: Option<String>,
    pub result: AuthorizationResult,
}

/// The result in an authorisation response.
#[derive(Debug)]
pub enum AuthorizationResult {
    Code(Secret),
    /// An error code. It came through a browser, so it may be anything.
    Error(String),
    /// Neither of them, or more than one.
    Malformed,
}

/// The scope that asks for an ID token (OpenID Connect Core 3.1.2.1).
pub const OPENID: &str = "openid";
/// The time for which a session can be used: 10 minutes, in microseconds.
pub const SESSION_MICROS: i64 = 10 * 60 * 1_000_000;
/// The time for which a code is kept after it came back: 60 seconds, in microseconds (RFC 6749 4.1.2 gives it 10 minutes at most).
pub const CODE_MICROS: i64 = 60 * 1_000_000;
/// The time after which a redemption that has not ended counts as interrupted, in microseconds. It is longer than any redemption takes.
pub const REDEEM_MICROS: i64 = 15 * 60 * 1_000_000;
/// The time for which a session is kept after its end, so that its outcome can be read: 24 hours, in microseconds.
pub const KEEP_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// The longest state and completion code that are looked up, in characters. Those that are made here are shorter.
pub const MAX_STATE: usize = 256;
/// The longest code, error code and issuer of a response, in characters.
pub const MAX_CODE: usize = 4_096;
pub const MAX_ERROR: usize = 256;
pub const MAX_ISSUER: usize = 2_048;
/// The detail of a failure by an error code that is not known, and so not repeated.
pub const UNKNOWN_ERROR_CODE: &str = "UNKNOWN_ERROR_CODE";
/// The column of the sealed code verifier (RFC 7636 4.1).
pub const CODE_VERIFIER_COLUMN: &str = "code_verifier";
/// The column of the sealed nonce (OpenID Connect Core 3.1.2.1).
pub const NONCE_COLUMN: &str = "nonce";
/// The column of the sealed code that a callback brought.
pub const CODE_COLUMN: &str = "code";

/// Error codes of authorisation responses that are shown: those of RFC 6749 (4.1.2.1), RFC 8707 (2) and OpenID Connect Core (3.1.2.6), and
/// those of providers for a user who refuses.
const ERROR_CODES: [&str; 20] = [
    "access_denied",
    "account_selection_required",
    "authorization_declined",
    "consent_required",
    "interaction_required",
    "invalid_request",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_scope",
    "invalid_target",
    "login_required",
    "registration_not_supported",
    "request_not_supported",
    "request_uri_not_supported",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_response_type",
    "user_cancelled_authorize",
    "user_cancelled_login",
];
/// Those by which the user, or the provider for the user, says no.
const DENIALS: [&str; 4] =
    ["access_denied", "authorization_declined", "user_cancelled_authorize", "user_cancelled_login"];

// === impl AuthorizationSession ===

impl AuthorizationSession {
    /// Returns true if the session counts as open although its time is over: its secrets are of no use any more.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.state.is_open() && self.expire_time <= now
    }

    /// The session as it is at a time: a state whose time is over has become another one.
    #[must_use]
    pub fn settled(mut self, now: Timestamp) -> Self {
        let is_over = self.expire_time <= now;
        let (state, failure) = match self.state {
            AuthorizationState::Started if is_over => (AuthorizationState::Expired, None),
            AuthorizationState::Returned if is_over => {
                (AuthorizationState::Failed, Some(AuthorizationFailure::CodeExpired))
            }
            AuthorizationState::Confirmed if is_over => {
                (AuthorizationState::Failed, Some(AuthorizationFailure::Interrupted))
            }
            state => (state, self.failure),
        };
        (self.state, self.failure) = (state, failure);
        self
    }

    /// Returns true if tokens that came for this session may be stored. Those for a device code may come before the session is confirmed.
    pub fn takes_tokens(&self, now: Timestamp) -> bool {
        match self.state {
            AuthorizationState::Confirmed => true,
            AuthorizationState::Started => self.device.is_some() && !self.is_overdue(now),
            AuthorizationState::Returned
            | AuthorizationState::Completed
            | AuthorizationState::Denied
            | AuthorizationState::Failed
            | AuthorizationState::Cancelled
            | AuthorizationState::Expired => false,
        }
    }

    /// Returns true if the tokens have to come with an ID token.
    pub fn asks_for_id_token(&self) -> bool {
        self.scopes.iter().any(|scope| scope == OPENID)
    }

    /// The code in a response to this session, or how the session ends by it. Of a response of another issuer nothing else is looked at.
    pub fn judge<'a>(&self, response: &'a AuthorizationResponse) -> Result<&'a Secret, AuthorizationEnd> {
        self.issuer.check(response.iss.as_deref()).map_err(|failure| AuthorizationEnd::failed(failure, ""))?;
        match &response.result {
            AuthorizationResult::Code(code) => Ok(code),
            AuthorizationResult::Error(code) => Err(AuthorizationEnd::of_error(code)),
            AuthorizationResult::Malformed => {
                Err(AuthorizationEnd::failed(AuthorizationFailure::ResponseMalformed, ""))
            }
        }
    }

    /// Goes on to a state that has an end of its own.
    pub fn advance(&mut self, state: AuthorizationState, now: Timestamp, micros: i64) {
        self.state = state;
        self.expire_time = now.plus_micros(micros);
        self.meta = self.meta.changed(now);
    }

    /// Ends the session. Nothing finds it by its secrets any more but to say that it has ended.
    pub fn end(&mut self, end: AuthorizationEnd, now: Timestamp) {
        let (state, failure, detail) = match end {
            AuthorizationEnd::Completed => (AuthorizationState::Completed, None, String::new()),
            AuthorizationEnd::Cancelled => (AuthorizationState::Cancelled, None, String::new()),
            AuthorizationEnd::Expired => (AuthorizationState::Expired, None, String::new()),
            AuthorizationEnd::Denied { detail } => (AuthorizationState::Denied, None, detail),
            AuthorizationEnd::Failed { failure, detail } => (AuthorizationState::Failed, Some(failure), detail),
        };
        (self.failure, self.failure_detail) = (failure, detail);
        self.advance(state, now, 0);
    }
}

/// The way in which a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationEnd {
    Completed,
    Cancelled,
    Expired,
    Denied { detail: String },
    Failed { failure: AuthorizationFailure, detail: String },
}

// === impl AuthorizationEnd ===

impl AuthorizationEnd {
    /// The end for a reason, with more about it.
    pub fn failed(failure: AuthorizationFailure, detail: impl Into<String>) -> Self {
        AuthorizationEnd::Failed { failure, detail: detail.into() }
    }

    /// The end that an error code of an authorisation response means. A code that is not known is not repeated.
    pub fn of_error(code: &str) -> Self {
        let known = ERROR_CODES.iter().find(|known| **known == code).copied();
        match known {
            Some(code) if DENIALS.contains(&code) => AuthorizationEnd::Denied { detail: code.to_owned() },
            _ => Self::failed(AuthorizationFailure::ProviderError, known.unwrap_or(UNKNOWN_ERROR_CODE)),
        }
    }
}

// === impl AuthorizationAnswer ===

impl AuthorizationAnswer {
    /// Returns true if it brings a code, or finds one.
    pub const fn has_code(&self) -> bool {
        match self {
            AuthorizationAnswer::CompletionCode(_) => true,
            AuthorizationAnswer::Response(response) => matches!(response.result, AuthorizationResult::Code(_)),
        }
    }
}

// === impl AuthorizationState ===

impl AuthorizationState {
    /// Returns true if the session can still be completed or cancelled.
    pub const fn is_open(self) -> bool {
        matches!(self, AuthorizationState::Started | AuthorizationState::Returned)
    }

    /// Returns true if nothing more becomes of the session.
    pub const fn is_final(self) -> bool {
        !matches!(self, AuthorizationState::Started | AuthorizationState::Returned | AuthorizationState::Confirmed)
    }
}

// === impl AuthorizationFailure ===

impl AuthorizationFailure {
    /// The reason in words.
    pub const fn message(self) -> &'static str {
        match self {
            AuthorizationFailure::IssuerMismatch => "the response names another issuer than the connection (iss)",
            AuthorizationFailure::IssuerMissing => {
                "the response does not name its issuer (iss), which the provider does"
            }
            AuthorizationFailure::UserMismatch => "the session was started for another user",
            AuthorizationFailure::ProviderError => "the provider refused the authorisation request",
            AuthorizationFailure::ResponseMalformed => {
                "the response lacks what it must have, or has more than one of it"
            }
            AuthorizationFailure::CodeExpired => "the application did not confirm the user within 60 seconds",
            AuthorizationFailure::GrantRefused => "the token endpoint refused the code, or device code",
            AuthorizationFailure::ClientRefused => "the endpoint refused the client, or it is none",
            AuthorizationFailure::RequestRefused => "the endpoint refused a part of the request",
            AuthorizationFailure::UserActionRequired => "the user has to act at the provider first",
            AuthorizationFailure::EndpointUnavailable => "the endpoint could not be asked",
            AuthorizationFailure::AnswerLost => "the answer of the token endpoint was lost, so the code may be spent",
            AuthorizationFailure::TokenUnusable => "the token endpoint did not return a usable access token",
            AuthorizationFailure::ConnectionChanged => {
                "the connection has another client_id or token endpoint than when the authorisation was started"
            }
            AuthorizationFailure::CredentialMissing => "the credential was deleted in between",
            AuthorizationFailure::NotStored => "the tokens could not be stored",
            AuthorizationFailure::Interrupted => {
                "the exchange of the code did not end, so it is not known what became of it"
            }
            AuthorizationFailure::IssuerUnavailable => {
                "the metadata or the keys of the issuer cannot be had, or not be used"
            }
            AuthorizationFailure::IdTokenRefused => "the ID token is missing, or is none for this authorisation",
            AuthorizationFailure::ProfileUnavailable => {
                "the profile of the user cannot be had, or is that of another user"
            }
            AuthorizationFailure::AccountUnknown => {
                "nothing says which account it is, or not what user_id_expression asks for"
            }
            AuthorizationFailure::AccountMismatch => "the user chose another account than the credential has",
            AuthorizationFailure::BusinessAccountRequired => "the account is not known to be one of an organisation",
            AuthorizationFailure::WrongBrowser => "another browser came back than the one that opened the connect URL",
        }
    }
}

// === impl AuthorizationDigest ===

impl AuthorizationDigest {
    /// Makes the digest from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The part of the path of the callback listener by which a connection is known there: no two connections have the same one, of whichever
/// tenants. `digest` is a digest of both ids.
pub fn callback_context(digest: [u8; 32]) -> String {
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns true for a text that could be such a part.
pub fn is_callback_context(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns true for a text that could be the state of a request: 256 bits in base64 (RFC 4648 5).
pub fn is_state(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// The URI of the callback listener for a connection.
pub fn callback_uri(public_url: &HttpUrl, context: &str) -> RedirectUri {
    RedirectUri::stored(format!("{}/callback/{context}", public_url.as_str().trim_end_matches('/')))
}

#[cfg(test)]
mod tests;
