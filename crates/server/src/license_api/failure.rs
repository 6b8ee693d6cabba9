//! Errors of the licence API. The status says whose mistake it is, which the published clients do not look at: to them every
//! failed log-in is one with bad credentials.

use http::{Method, StatusCode};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// An error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    /// The published clients know none for failures of the server.
    pub(super) code: Option<ErrorCode>,
    pub(super) message: String,
    /// The method that the path has.
    pub(super) allow: Option<Method>,
    /// Seconds after which the request may be repeated.
    pub(super) retry_after: Option<u64>,
}

/// An error code that the published clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorCode {
    NotAuthorized,
    NotAllowed,
    NotFound,
    InvalidFormat,
    ExpectedValue,
    UnexpectedValue,
}

/// The wait if a failure does not say how long.
const RETRY_AFTER: u64 = 1;

// === impl Failure ===

impl Failure {
    pub(super) fn new(status: StatusCode, code: Option<ErrorCode>, message: impl Into<String>) -> Self {
        Failure { status, code, message: message.into(), allow: None, retry_after: None }
    }

    /// Something that is missing.
    pub(super) fn expected(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, Some(ErrorCode::ExpectedValue), message)
    }

    /// Something that cannot be used.
    pub(super) fn unexpected(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, Some(ErrorCode::UnexpectedValue), message)
    }

    /// A user whose password is not right.
    pub(super) fn rejected() -> Self {
        Failure::not_authorized("Username or password not correct.")
    }

    /// A token that is missing, unknown, or of another application, or whose session has ended.
    pub(super) fn no_token() -> Self {
        Failure::not_authorized("No valid token found.")
    }

    /// A system that cannot be asked.
    pub(super) fn unavailable() -> Self {
        let message = "The users cannot be checked at the moment. Try again.";
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, None, message);
        Failure { retry_after: Some(RETRY_AFTER), ..failure }
    }

    fn not_authorized(message: &str) -> Self {
        Failure::new(StatusCode::UNAUTHORIZED, Some(ErrorCode::NotAuthorized), message)
    }

    /// The failure of a log-in that ended with a status.
    pub(super) fn of_log_in(status: &Status) -> Self {
        match reason(status).as_str() {
            "FIELD_INVALID" => Failure::unexpected(status.message()),
            _ => Failure::of(status),
        }
    }

    /// The failure of the use of a session that ended with a status.
    pub(super) fn of_session(status: &Status) -> Self {
        match reason(status).as_str() {
            "SESSION_NOT_FOUND" | "APPLICATION_MISMATCH" | "FIELD_INVALID" | "PLACEHOLDER_SECRET" => {
                Failure::no_token()
            }
            _ => Failure::of(status),
        }
    }

    fn of(status: &Status) -> Self {
        match reason(status).as_str() {
            "APPLICATION_NOT_FOUND" | "REFERENCE_INVALID" => {
                return Failure::unexpected("X-LICENSE-MODULE names no application.");
            }
            "APPLICATION_DISABLED" => return Failure::unexpected("The application is disabled."),
            _ => {}
        }
        let failure = match status.code() {
            Code::ResourceExhausted => Failure::new(StatusCode::TOO_MANY_REQUESTS, None, "Too many requests."),
            Code::Ok
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::Unimplemented
            | Code::InvalidArgument => {
                return Failure::new(StatusCode::INTERNAL_SERVER_ERROR, None, "Something went wrong.");
            }
            // A tenant or a connector that an operator has to mend, and what will pass.
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::Unauthenticated => Failure::unavailable(),
        };
        Failure { retry_after: Some(retry_after(status)), ..failure }
    }
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The code as it is sent.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ErrorCode::NotAuthorized => "NOT_AUTHORIZED",
            ErrorCode::NotAllowed => "NOT_ALLOWED",
            ErrorCode::NotFound => "NOT_FOUND",
            ErrorCode::InvalidFormat => "INVALID_FORMAT",
            ErrorCode::ExpectedValue => "EXPECTED_VALUE",
            ErrorCode::UnexpectedValue => "UNEXPECTED_VALUE",
        }
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Whole seconds, so that a client that waits for them waits long enough.
fn retry_after(status: &Status) -> u64 {
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    delay
        .map_or(RETRY_AFTER, |delay| delay.as_millis().div_ceil(1_000).try_into().unwrap_or(RETRY_AFTER))
        .max(RETRY_AFTER)
}
