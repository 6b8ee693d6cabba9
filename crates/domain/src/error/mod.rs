//! The one error type of the domain. Each variant has a meaning. Only the transport knows gRPC codes and details; it maps
//! [`Error`] in one exhaustive table.
//!
//! The fields of a variant may be sent to the caller. A cause that must not be sent (a database message, say) is a `source`: it
//! is logged once, at the boundary.

mod violation;

use std::time::Duration;

use crate::attempts::AttemptLimit;
use crate::credential_source::SourceFault;
use crate::resource::Resource;

pub use violation::{Violation, ViolationKind, Violations};

/// The cause of an error, for the log only.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Short for a result of the domain.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong. All violations are here, not only the first.
    #[error("invalid request")]
    Invalid(Vec<Violation>),
    /// There is no such resource, or the caller may not see it.
    #[error("{resource} not found")]
    NotFound {
        resource: Resource,
        /// The reference that the caller gave; empty if only `by` names the resource.
        reference: String,
        /// Other fields of the request that name it or narrow the search, and their values.
        by: Vec<(&'static str, String)>,
    },
    /// The id, name, external id or login id belongs to another resource.
    #[error("{resource} exists already")]
    Taken { resource: Resource, what: Taken, value: String },
    /// The etag is stale.
    #[error("{resource} was changed in between")]
    EtagMismatch { resource: Resource, id: String },
    /// Other resources use this one.
    #[error("{resource} is in use")]
    InUse { resource: Resource, id: String, by: Vec<Use> },
    /// The resource is in a state that does not allow the call. The id is empty if there is none yet.
    #[error("precondition failed")]
    Precondition { reason: Precondition, resource: Resource, id: String, message: String },
    /// The request id was used before with another body.
    #[error("request id reused")]
    RequestIdConflict { request_id: String },
    /// The caller is unknown.
    #[error("caller unknown")]
    Unauthenticated { message: String },
    /// The caller lacks a right.
    #[error("right {right} missing")]
    ScopeDenied { right: &'static str },
    /// The session belongs to another application than the call names.
    #[error("session of another application")]
    ApplicationMismatch { application: String },
    /// The caller's tenant does not exist.
    #[error("tenant unknown")]
    TenantUnknown { tenant: String },
    /// A limit of the server is reached.
    #[error("{what} over the limit")]
    QuotaExceeded { what: &'static str, limit: u64 },
    /// Too many calls at once.
    #[error("too many calls")]
    RateLimited { retry_after: Duration },
    /// Too many log-in attempts. It says nothing about the user, who may not exist.
    #[error("too many log-in attempts")]
    LoginAttemptsExceeded { limit: AttemptLimit, retry_after: Duration },
    /// The database did not say whether it has counted a log-in attempt, which it may have. Nothing was checked.
    #[error("log-in attempt may be counted")]
    AttemptUnanswered {
        retry_after: Duration,
        #[source]
        source: Cause,
    },
    /// The database cannot be reached, is full or is busy; nothing was written.
    #[error("store unavailable")]
    StoreUnavailable {
        retry_after: Duration,
        #[source]
        source: Cause,
    },
    /// The change may or may not have been made: the database was lost while it committed, or the call had to end before it was
    /// done. `retry_after` is set if the same request can be sent again without a second effect.
    #[error("outcome unknown")]
    OutcomeUnknown {
        retry_after: Option<Duration>,
        #[source]
        source: Cause,
    },
    /// The system of a connector could not be asked, or its response cannot be used.
    #[error("system of a connector unavailable")]
    UpstreamUnavailable { connector: String, retry_after: Duration },
    /// A caller needs a token that only a refresh gives, and has to come again for it. The message says why. The resource is the one that is
    /// waited for: the connector of a provider that gives none, and else the credential.
    #[error("no new token yet: {}", .cause.as_str())]
    RefreshDelayed { cause: RefreshDelay, resource: Resource, id: String, retry_after: Duration, message: String },
    /// Received tokens could not be kept, so none are asked for.
    #[error("the journal of received tokens cannot be written")]
    JournalUnwritable { retry_after: Duration },
    /// A credential source gave no material that can be used. The message names fields, and no value that the source gave.
    #[error("credential source failed: {}", .fault.as_str())]
    SourceFailed { fault: SourceFault, id: String, message: String, retry_after: Option<Duration> },
    /// The server sheds load or shuts down.
    #[error("server unavailable")]
    ServerUnavailable { retry_after: Duration },
    /// The deadline has passed.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// A stored secret does not open.
    #[error("secret of {resource} does not open")]
    DecryptFailed { resource: Resource, id: String },
    /// A stored row cannot be read: it was damaged, or another program wrote it. The id is empty where it is not known.
    #[error("row of {resource} cannot be read")]
    DataDamaged {
        resource: Resource,
        id: String,
        #[source]
        source: Cause,
    },
    /// A defect of this program.
    #[error("internal error")]
    Internal(#[source] Cause),
}

/// The part of a resource that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    ExternalId,
    Id,
    LoginId,
    Name,
}

/// A state that does not allow a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    ApplicationDisabled,
    AuthorizationEnded,
    AuthorizationMismatch,
    ConnectionInactive,
    ConnectionIncomplete,
    ConnectionRefused,
    ConnectionRequired,
    ConnectorDisabled,
    CredentialNotValid,
    DefaultConfiguration,
    KeyExpired,
    OwnTenant,
    PatchTestFailed,
    ReauthRequired,
    RevealDisabled,
    ScopeMissing,
}

/// The cause for which a refresh has brought no token yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshDelay {
    /// The provider is away, or has asked for a pause.
    Provider,
    /// The refresh is not finished, and goes on.
    InProgress,
    /// The token was replaced a moment ago, or replacing it again and again has not helped.
    TooSoon,
}

/// The users of a resource that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub resource: Resource,
    pub count: u64,
}

/// The wait before a change of unknown outcome is sent again.
const OUTCOME_RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Error ===

impl Error {
    /// Makes the error for a request with a single fault.
    pub fn invalid(violation: Violation) -> Self {
        Error::Invalid(vec![violation])
    }

    /// Makes the error for a defect: something that cannot happen if the code is right.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Error::Internal(cause.into())
    }

    /// Makes the error for a reference that names nothing the caller may see.
    pub fn not_found(resource: Resource, reference: impl std::fmt::Display) -> Self {
        Error::NotFound { resource, reference: reference.to_string(), by: Vec::new() }
    }

    /// Makes the error for a resource that is named by fields other than a reference, or by a reference and other fields.
    pub fn not_found_by(
        resource: Resource,
        reference: Option<String>,
        by: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        Error::NotFound { resource, reference: reference.unwrap_or_default(), by: by.into_iter().collect() }
    }

    /// Makes the error for a state that does not allow the call.
    pub fn precondition(
        reason: Precondition,
        resource: Resource,
        id: impl std::fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Error::Precondition { reason, resource, id: id.to_string(), message: message.into() }
    }

    /// Makes the error for a change that may or may not have been made. A request with an id can be sent again: the change is then
    /// made once, or found to have been made.
    pub fn outcome_unknown(has_request_id: bool, source: impl Into<Cause>) -> Self {
        Error::OutcomeUnknown { retry_after: has_request_id.then_some(OUTCOME_RETRY_AFTER), source: source.into() }
    }

    /// Returns true if the same call may succeed later without a change by the caller.
    pub const fn retryable(&self) -> bool {
        match self {
            Error::SourceFailed { fault, .. } => fault.is_transient(),
            Error::RateLimited { .. }
            | Error::LoginAttemptsExceeded { .. }
            | Error::AttemptUnanswered { .. }
            | Error::StoreUnavailable { .. }
            | Error::OutcomeUnknown { retry_after: Some(_), .. }
            | Error::UpstreamUnavailable { .. }
            | Error::RefreshDelayed { .. }
            | Error::JournalUnwritable { .. }
            | Error::ServerUnavailable { .. } => true,
            Error::Invalid(_)
            | Error::NotFound { .. }
            | Error::Taken { .. }
            | Error::EtagMismatch { .. }
            | Error::InUse { .. }
            | Error::Precondition { .. }
            | Error::RequestIdConflict { .. }
            | Error::Unauthenticated { .. }
            | Error::ScopeDenied { .. }
            | Error::ApplicationMismatch { .. }
            | Error::TenantUnknown { .. }
            | Error::QuotaExceeded { .. }
            | Error::OutcomeUnknown { retry_after: None, .. }
            | Error::DeadlineExceeded
            | Error::DecryptFailed { .. }
            | Error::DataDamaged { .. }
            | Error::Internal(_) => false,
        }
    }

    /// The stable reason on the wire, `ErrorReason` of the contract without its prefix.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Invalid(violations) => invalid_reason(violations),
            Error::NotFound { resource, .. } => resource.not_found_reason(),
            Error::Taken { what: Taken::Id, .. } => "ID_TAKEN",
            Error::Taken { what: Taken::Name, .. } => "NAME_TAKEN",
            Error::Taken { what: Taken::ExternalId, .. } => "EXTERNAL_ID_TAKEN",
            Error::Taken { what: Taken::LoginId, .. } => "LOGIN_ID_TAKEN",
            Error::EtagMismatch { .. } => "ETAG_MISMATCH",
            Error::InUse { .. } => "IN_USE",
            Error::Precondition { reason, .. } => reason.as_str(),
            Error::RequestIdConflict { .. } => "REQUEST_ID_CONFLICT",
            Error::Unauthenticated { .. } => "CALLER_UNAUTHENTICATED",
            Error::ScopeDenied { .. } => "SCOPE_DENIED",
            Error::ApplicationMismatch { .. } => "APPLICATION_MISMATCH",
            Error::TenantUnknown { .. } => "TENANT_UNKNOWN",
            Error::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Error::RateLimited { .. } => "RATE_LIMITED",
            Error::LoginAttemptsExceeded { .. } => "LOGIN_ATTEMPTS_EXCEEDED",
            Error::AttemptUnanswered { .. } | Error::StoreUnavailable { .. } => "STORE_UNAVAILABLE",
            Error::OutcomeUnknown { .. } => "OUTCOME_UNKNOWN",
            Error::UpstreamUnavailable { .. } => "UPSTREAM_UNAVAILABLE",
            Error::RefreshDelayed { cause, .. } => cause.as_str(),
            Error::SourceFailed { fault, .. } => fault.as_str(),
            Error::JournalUnwritable { .. } | Error::ServerUnavailable { .. } => "SERVER_UNAVAILABLE",
            Error::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Error::DecryptFailed { .. } => "DECRYPT_FAILED",
            Error::DataDamaged { .. } => "DATA_DAMAGED",
            Error::Internal(_) => "INTERNAL",
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Error::invalid(violation)
    }
}

/// The reason of a whole request: the kind that all its violations share, or FIELD_INVALID.
fn invalid_reason(violations: &[Violation]) -> &'static str {
    let mut kinds = violations.iter().map(|violation| violation.kind);
    let first = kinds.next().unwrap_or(ViolationKind::Field);
    if kinds.all(|kind| kind == first) { first.as_str() } else { ViolationKind::Field.as_str() }
}

// === impl Precondition ===

impl Precondition {
    /// The reason on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Precondition::ApplicationDisabled => "APPLICATION_DISABLED",
            Precondition::AuthorizationEnded => "AUTHORIZATION_ENDED",
            Precondition::AuthorizationMismatch => "AUTHORIZATION_MISMATCH",
            Precondition::ConnectionInactive => "CONNECTION_INACTIVE",
            Precondition::ConnectionIncomplete => "CONNECTION_INCOMPLETE",
            Precondition::ConnectionRefused => "CONNECTION_REFUSED",
            Precondition::ConnectionRequired => "CONNECTION_REQUIRED",
            Precondition::ConnectorDisabled => "CONNECTOR_DISABLED",
            Precondition::CredentialNotValid => "CREDENTIAL_NOT_VALID",
            Precondition::DefaultConfiguration => "DEFAULT_CONFIGURATION",
            Precondition::KeyExpired => "KEY_EXPIRED",
            Precondition::PatchTestFailed => "PATCH_TEST_FAILED",
            Precondition::ReauthRequired => "REAUTH_REQUIRED",
            Precondition::OwnTenant => "IN_USE",
            Precondition::RevealDisabled => "REVEAL_DISABLED",
            Precondition::ScopeMissing => "SCOPE_MISSING",
        }
    }
}

// === impl RefreshDelay ===

impl RefreshDelay {
    /// The reason on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            RefreshDelay::Provider => "UPSTREAM_UNAVAILABLE",
            RefreshDelay::InProgress => "REFRESH_IN_PROGRESS",
            RefreshDelay::TooSoon => "REFRESH_TOO_SOON",
        }
    }
}

// === impl Violations ===

impl Violations {
    /// Returns `value`, or an error with all violations if there are any.
    ///
    /// The value is an `Option` because a parser that found a violation has no whole value to give.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            None if self.is_empty() => Err(Error::internal("a value is missing without a violation")),
            _ => Err(Error::Invalid(self.into_vec())),
        }
    }
}
