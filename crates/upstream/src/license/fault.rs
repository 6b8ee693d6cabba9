//! Failures of the licence API. No message has a value of a response.

use http::StatusCode;

use crate::error::CallError;

/// A call without a usable response. It says nothing about the user or the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LicenseFault {
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request was not sent.
    #[error("{0}")]
    Request(&'static str),
    /// The status and the error code neither accept nor reject.
    #[error("status {} with {} neither accepts nor rejects", status.as_u16(), named(*code))]
    Status { status: StatusCode, code: Option<ErrorCode> },
    /// The status accepts, and the body cannot be used.
    #[error("{flaw}")]
    Body { status: StatusCode, flaw: BodyFlaw },
}

/// The reason why the body of a response cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFlaw {
    #[error("the body of the response is not UTF-8")]
    NotUtf8,
    #[error("the body of the response is not JSON of the expected form: line {line}, column {column}")]
    Malformed { line: usize, column: usize },
    #[error("the response has an unusable field: {0}")]
    Field(String),
}

/// An error code of the licence API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    NotAuthorized,
    NotAllowed,
    NotFound,
    InvalidFormat,
    ExpectedValue,
    UnexpectedValue,
    /// A code that the published clients do not know.
    Other,
}

// === impl LicenseFault ===

impl LicenseFault {
    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            LicenseFault::Call(error) => error.fault.reason(),
            LicenseFault::Request(_) => "REQUEST_INVALID",
            LicenseFault::Status { .. } => "STATUS_UNEXPECTED",
            LicenseFault::Body { flaw, .. } => flaw.reason(),
        }
    }

    /// Returns false if the request provably did not leave.
    pub fn was_sent(&self) -> bool {
        match self {
            LicenseFault::Call(error) => error.sent,
            LicenseFault::Request(_) => false,
            LicenseFault::Status { .. } | LicenseFault::Body { .. } => true,
        }
    }

    /// The status of the response, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            LicenseFault::Status { status, .. } | LicenseFault::Body { status, .. } => Some(*status),
            LicenseFault::Call(_) | LicenseFault::Request(_) => None,
        }
    }
}

// === impl BodyFlaw ===

impl BodyFlaw {
    /// The name of the flaw. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            BodyFlaw::NotUtf8 => "BODY_NOT_UTF8",
            BodyFlaw::Malformed { .. } => "BODY_MALFORMED",
            BodyFlaw::Field(_) => "FIELD_INVALID",
        }
    }
}

// === impl ErrorCode ===

impl ErrorCode {
    pub(super) fn parse(code: &str) -> Self {
        match code {
            "NOT_AUTHORIZED" => ErrorCode::NotAuthorized,
            "NOT_ALLOWED" => ErrorCode::NotAllowed,
            "NOT_FOUND" => ErrorCode::NotFound,
            "INVALID_FORMAT" => ErrorCode::InvalidFormat,
            "EXPECTED_VALUE" => ErrorCode::ExpectedValue,
            "UNEXPECTED_VALUE" => ErrorCode::UnexpectedValue,
            _ => ErrorCode::Other,
        }
    }

    /// The code as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::NotAuthorized => "NOT_AUTHORIZED",
            ErrorCode::NotAllowed => "NOT_ALLOWED",
            ErrorCode::NotFound => "NOT_FOUND",
            ErrorCode::InvalidFormat => "INVALID_FORMAT",
            ErrorCode::ExpectedValue => "EXPECTED_VALUE",
            ErrorCode::UnexpectedValue => "UNEXPECTED_VALUE",
            ErrorCode::Other => "an unknown error code",
        }
    }
}

fn named(code: Option<ErrorCode>) -> &'static str {
    code.map_or("no error code", ErrorCode::as_str)
}
