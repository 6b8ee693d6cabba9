//! Failures of refreshes, as all who wait for one see them.

use std::time::Duration;

use jackfield_domain::credential::{
    FailureClass, REFRESH_TOKEN_INVALID, RefreshEnd, RefreshOutcome, loss_of, tokens_refused,
};
use jackfield_domain::error::{Precondition, RefreshDelay};
use jackfield_domain::{Error, Resource, Timestamp};
use jackfield_upstream::oauth::{TokenFailure, TokenFault};

use super::expected::ExpectedRefresh;
use super::hold::{CIRCUIT_OPEN, PROVIDER_PAUSE};
use crate::planted::{PlantedBug, planted};

/// The reason why there are no new tokens.
#[derive(Debug)]
pub(crate) enum RefreshError {
    /// The last attempt failed, and no other is made now.
    Failed(Failure),
    /// It is not finished, and its caller cannot wait any longer, or another replica has the lease for longer than it should.
    InProgress { retry_after: Duration },
    /// Nothing was attempted.
    Other(Error),
}

/// The failure of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(super) outcome: RefreshOutcome,
    /// The class that the credential shows. A lost response is transient where the refresh token can be sent again.
    pub(super) class: FailureClass,
    pub(super) reason: String,
    /// The wait until the next attempt may be made.
    pub(super) retry_after: Duration,
    /// True if the provider does not accept the client, so that all credentials of the connection would fail.
    pub(super) refuses_client: bool,
    /// The pause that the provider asked for, for all requests of the client.
    pub(super) pause: Option<Duration>,
    /// The status of the response, if there was one.
    pub(super) status: Option<u16>,
    /// The version of the connection through which the attempt was made, if that is known.
    pub(super) connection_version: Option<i64>,
}

/// The wait before a refresh is scheduled again that cannot be attempted as things are.
const POSTPONED: Duration = Duration::from_secs(5 * 60);
/// The wait before a refresh is tried again through a connection that the provider refuses.
const CONNECTION_RETRY_AFTER: Duration = Duration::from_secs(60);

// === impl RefreshError ===

impl RefreshError {
    /// The error for a caller who needs a new token.
    pub(crate) fn to_error(&self, expected: &ExpectedRefresh) -> Error {
        let refused =
            |reason, message| Error::precondition(reason, Resource::Credential, expected.identity.id, message);
        match self {
            RefreshError::InProgress { retry_after } => in_progress(expected, *retry_after),
            RefreshError::Other(error) => copied(error, expected),
            RefreshError::Failed(Failure { class, reason, retry_after, .. }) => match class {
                FailureClass::Permanent => {
                    let message = match tokens_refused(reason) {
                        Some(tokens) => format!(
                            "the provider answered a refresh with {tokens} ({reason}): the user has to authorise again"
                        ),
                        None => format!(
                            "the provider refused the refresh token ({reason}): the user has to authorise again"
                        ),
                    };
                    refused(Precondition::ReauthRequired, message)
                }
                FailureClass::Indeterminate => {
                    let message = format!("{}: the user has to authorise again", loss_of(reason));
                    refused(Precondition::ReauthRequired, message)
                }
                FailureClass::Connection => {
                    let message =
                        format!("the provider does not accept the client or the request of the connection: {reason}");
                    let id = expected.connection.map(|id| id.to_string()).unwrap_or_default();
                    Error::precondition(Precondition::ConnectionRefused, Resource::Connection, id, message)
                }
                FailureClass::Transient => Error::RefreshDelayed {
                    cause: RefreshDelay::Provider,
                    resource: Resource::Connector,
                    id: expected.connector.to_string(),
                    retry_after: *retry_after,
                    message: delay_of(reason),
                },
            },
        }
    }
}

impl From<Error> for RefreshError {
    fn from(error: Error) -> Self {
        RefreshError::Other(error)
    }
}

// === impl Failure ===

impl Failure {
    /// The failure of an exchange. Endpoints that do not rotate refresh tokens can be asked again when a response was lost.
    pub(super) fn of(fault: &TokenFault, rotates: bool, backoff: Duration) -> Self {
        let (outcome, class) = match fault.class() {
            TokenFailure::Transient => (RefreshOutcome::NotProcessed, FailureClass::Transient),
            TokenFailure::Unknown if planted(PlantedBug::LostIsRepeated) => {
                (RefreshOutcome::NotProcessed, FailureClass::Transient)
            }
            TokenFailure::Unknown => (RefreshOutcome::Unknown, class_of_lost(rotates)),
            TokenFailure::Grant | TokenFailure::User => (RefreshOutcome::Refused, FailureClass::Permanent),
            TokenFailure::Connection | TokenFailure::Request | TokenFailure::Pending => {
                (RefreshOutcome::ConnectionRefused, FailureClass::Connection)
            }
        };
        let reason = match fault {
            TokenFault::Refused { code, .. } if code.is_known() => code.as_str(),
            other => other.reason(),
        };
        let asked = fault.retry_after().unwrap_or_default();
        let least = if outcome == RefreshOutcome::ConnectionRefused { CONNECTION_RETRY_AFTER } else { backoff };
        // One that some providers have for a user as well says nothing about the other credentials of the connection.
        let refuses_client = match fault {
            TokenFault::Refused { code, .. } => {
                fault.class() == TokenFailure::Connection && code.as_str() != "access_denied"
            }
            TokenFault::Call(error) => error.refuses_certificate(),
            TokenFault::Request(_) | TokenFault::Status { .. } | TokenFault::BodyMalformed { .. } => false,
        };
        let (reason, retry_after) = (reason.to_owned(), asked.max(least));
        let (pause, status) = (pause_of(fault, retry_after), fault.status());
        Failure { refuses_client, pause, status, ..Failure::new(outcome, class, reason, retry_after) }
    }

    /// Has those who wait for another attempt wait for so long at the least.
    pub(super) fn outlast(&mut self, rest: Duration) {
        self.retry_after = self.retry_after.max(rest);
    }

    /// The end of its attempt.
    pub(super) fn end(&self, time: Timestamp) -> RefreshEnd {
        let Failure { outcome, reason, status, .. } = self;
        RefreshEnd { time, outcome: *outcome, reason: reason.clone(), status: *status }
    }

    /// The failure of a client that asks for tokens of its own: there is no user who could authorise again.
    pub(super) fn of_client_grant(self) -> Self {
        match self.class {
            FailureClass::Permanent => {
                let retry_after = self.retry_after.max(CONNECTION_RETRY_AFTER);
                Failure { status: self.status, ..Failure::of_connection(self.reason, retry_after) }
            }
            FailureClass::Connection | FailureClass::Transient | FailureClass::Indeterminate => self,
        }
    }

    /// The last failure, as a credential shows it.
    pub(super) fn of_last(class: FailureClass, reason: &str, retry_after: Duration) -> Self {
        let outcome = match class {
            FailureClass::Permanent => RefreshOutcome::Refused,
            FailureClass::Indeterminate => RefreshOutcome::Unknown,
            FailureClass::Connection => RefreshOutcome::ConnectionRefused,
            FailureClass::Transient => RefreshOutcome::NotProcessed,
        };
        Failure::new(outcome, class, reason.to_owned(), retry_after)
    }

    /// The failure of a connection whose client the provider refused a short time ago.
    pub(super) fn of_client(reason: String, retry_after: Duration) -> Self {
        Failure { refuses_client: true, ..Failure::of_connection(reason, retry_after) }
    }

    /// The failure of an attempt that used nothing.
    pub(super) fn not_processed(reason: &str, retry_after: Duration) -> Self {
        let (outcome, class) = (RefreshOutcome::NotProcessed, FailureClass::Transient);
        Failure::new(outcome, class, reason.to_owned(), retry_after)
    }

    /// The failure of a response whose access token is not used, though the refresh token is known that is good now; or the other way round.
    pub(super) fn flawed(reason: &str, retry_after: Duration) -> Self {
        match tokens_refused(reason) {
            _ if reason == REFRESH_TOKEN_INVALID => Failure::unknown(reason),
            Some(_) => Failure::of_last(FailureClass::Permanent, reason, Duration::ZERO),
            None => Failure::not_processed(reason, retry_after),
        }
    }

    /// The failure of a response that does not say what became of the refresh token.
    pub(super) fn lost(reason: &str, rotates: bool, retry_after: Duration) -> Self {
        let (outcome, class) = (RefreshOutcome::Unknown, class_of_lost(rotates));
        Failure::new(outcome, class, reason.to_owned(), retry_after)
    }

    /// The failure of a refresh that cannot be attempted because of the connection or the connector.
    pub(super) fn postponed(reason: &str) -> Self {
        Failure::of_connection(reason.to_owned(), POSTPONED)
    }

    fn of_connection(reason: String, retry_after: Duration) -> Self {
        let (outcome, class) = (RefreshOutcome::ConnectionRefused, FailureClass::Connection);
        Failure::new(outcome, class, reason, retry_after)
    }

    /// The failure of an attempt whose process ended, or whose response cannot be read.
    pub(super) fn unknown(reason: &str) -> Self {
        let (outcome, class) = (RefreshOutcome::Unknown, FailureClass::Indeterminate);
        Failure::new(outcome, class, reason.to_owned(), Duration::ZERO)
    }

    fn new(outcome: RefreshOutcome, class: FailureClass, reason: String, retry_after: Duration) -> Self {
        let (refuses_client, pause, status, connection_version) = (false, None, None, None);
        Failure { outcome, class, reason, retry_after, refuses_client, pause, status, connection_version }
    }
}

/// The class of a lost response.
fn class_of_lost(rotates: bool) -> FailureClass {
    if rotates { FailureClass::Indeterminate } else { FailureClass::Transient }
}

/// The pause of all requests that a response asks for: with 429, which is about how many there are, or with a time. The provider has not
/// processed the request.
fn pause_of(fault: &TokenFault, wait: Duration) -> Option<Duration> {
    let (TokenFault::Refused { status, retry_after, .. } | TokenFault::Status { status, retry_after }) = fault else {
        return None;
    };
    let is_limit = status.as_u16() == 429 && retry_after.is_none();
    retry_after.or(is_limit.then_some(wait)).filter(|_| fault.class() == TokenFailure::Transient)
}

/// The reason for which the provider is not asked, for people.
fn delay_of(reason: &str) -> String {
    match reason {
        CIRCUIT_OPEN => format!("the token endpoint did not answer several requests in a row ({reason})"),
        PROVIDER_PAUSE => format!("the provider asked for a pause ({reason}), and no refresh is sent before it ends"),
        // It may not have been asked, or have answered without tokens that can be used.
        _ => format!("the provider has given no new token yet ({reason})"),
    }
}

fn in_progress(expected: &ExpectedRefresh, retry_after: Duration) -> Error {
    Error::RefreshDelayed {
        cause: RefreshDelay::InProgress,
        resource: Resource::Credential,
        id: expected.identity.id.to_string(),
        retry_after,
        message: "the credential is being refreshed, and there is no new token yet".to_owned(),
    }
}

/// The same error for another caller.
fn copied(error: &Error, expected: &ExpectedRefresh) -> Error {
    let source = || error.to_string().into();
    match error {
        Error::NotFound { resource, reference, by } => {
            Error::NotFound { resource: *resource, reference: reference.clone(), by: by.clone() }
        }
        Error::Precondition { reason, resource, id, message } => {
            Error::Precondition { reason: *reason, resource: *resource, id: id.clone(), message: message.clone() }
        }
        Error::TenantUnknown { tenant } => Error::TenantUnknown { tenant: tenant.clone() },
        Error::UpstreamUnavailable { connector, retry_after } => {
            Error::UpstreamUnavailable { connector: connector.clone(), retry_after: *retry_after }
        }
        Error::StoreUnavailable { retry_after, .. } => {
            Error::StoreUnavailable { retry_after: *retry_after, source: source() }
        }
        // The change was not requested by a caller, so there is no request id to repeat it with.
        Error::OutcomeUnknown { .. } => in_progress(expected, UNKNOWN_RETRY_AFTER),
        Error::JournalUnwritable { retry_after } => Error::JournalUnwritable { retry_after: *retry_after },
        Error::ServerUnavailable { retry_after } => Error::ServerUnavailable { retry_after: *retry_after },
        Error::DecryptFailed { resource, id } => Error::DecryptFailed { resource: *resource, id: id.clone() },
        _ => Error::internal(error.to_string()),
    }
}

/// The wait after a commit whose outcome is not known.
const UNKNOWN_RETRY_AFTER: Duration = Duration::from_secs(1);
