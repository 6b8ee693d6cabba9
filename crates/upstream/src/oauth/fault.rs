//! Failures of a token endpoint. No message has a text of a response: what a server says may be a secret that it was sent.

use std::time::Duration;

use http::StatusCode;

use crate::error::{CallError, Fault};

/// An exchange without tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request cannot be made.
    #[error("{0}")]
    Request(&'static str),
    /// The response has an error code (RFC 6749 5.2). Some servers send one with status 200.
    #[error("the token endpoint refused: {}, status {}", code.name, status.as_u16())]
    Refused { status: StatusCode, code: ErrorCode, retry_after: Option<Duration> },
    /// The response is neither a success nor has it an error code.
    #[error("status {} without an error code of OAuth", status.as_u16())]
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// The status says success, and the body is neither JSON nor a form, or lacks what it must have.
    #[error(
        "the endpoint gave no usable answer: its body is neither a JSON object nor a form, or lacks a member that it must have"
    )]
    BodyMalformed { status: StatusCode },
}

/// The class of a failure. It says if the grant may be spent, and who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFailure {
    /// The grant was not used: the request did not leave, or the endpoint says that it did not process it.
    Transient,
    /// The request left, and what became of it is unknown: the grant may be spent.
    Unknown,
    /// The grant is refused: it is spent, revoked or was never one.
    Grant,
    /// The client is refused, or the endpoint is none: the set-up of the connection is wrong.
    Connection,
    /// A part of the request is refused that other endpoints need.
    Request,
    /// The user has to act at the provider.
    User,
    /// The user has not decided yet (RFC 8628 3.5).
    Pending,
}

/// An error code of a token endpoint that is known here. Others have no name: a server may send anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode {
    name: &'static str,
    /// `None` if the status says more.
    class: Option<TokenFailure>,
}

/// The codes of RFC 6749 (5.2, 4.1.2.1), RFC 8628 (3.5), RFC 8707 (2), RFC 9449 (5) and OpenID Connect Core (3.1.2.6), and those of providers
/// that have their own.
const CODES: [(&str, TokenFailure); 29] = [
    ("invalid_request", TokenFailure::Request),
    ("invalid_client", TokenFailure::Connection),
    ("invalid_grant", TokenFailure::Grant),
    ("unauthorized_client", TokenFailure::Connection),
    ("unsupported_grant_type", TokenFailure::Connection),
    ("invalid_scope", TokenFailure::Request),
    ("access_denied", TokenFailure::User),
    ("server_error", TokenFailure::Unknown),
    ("temporarily_unavailable", TokenFailure::Transient),
    ("authorization_pending", TokenFailure::Pending),
    // The poll for a device code is slower then.
    ("slow_down", TokenFailure::Transient),
    ("expired_token", TokenFailure::Grant),
    ("invalid_target", TokenFailure::Request),
    ("invalid_dpop_proof", TokenFailure::Request),
    ("use_dpop_nonce", TokenFailure::Request),
    ("interaction_required", TokenFailure::User),
    ("login_required", TokenFailure::User),
    ("consent_required", TokenFailure::User),
    // Microsoft
    ("mfa_required", TokenFailure::User),
    ("authorization_declined", TokenFailure::User),
    // GitHub
    ("bad_verification_code", TokenFailure::Grant),
    ("bad_refresh_token", TokenFailure::Grant),
    ("incorrect_client_credentials", TokenFailure::Connection),
    // Slack
    ("invalid_code", TokenFailure::Grant),
    ("invalid_refresh_token", TokenFailure::Grant),
    ("token_revoked", TokenFailure::Grant),
    ("bad_client_secret", TokenFailure::Connection),
    ("invalid_client_id", TokenFailure::Connection),
    ("ratelimited", TokenFailure::Transient),
];

// === impl TokenFault ===

impl TokenFault {
    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            TokenFault::Call(error) => error.fault.reason(),
            TokenFault::Request(_) => "REQUEST_INVALID",
            TokenFault::Refused { .. } => "TOKEN_REFUSED",
            TokenFault::Status { .. } => "STATUS_UNEXPECTED",
            TokenFault::BodyMalformed { .. } => "BODY_MALFORMED",
        }
    }

    /// The class of the failure.
    pub fn class(&self) -> TokenFailure {
        match self {
            // An endpoint that refuses the certificate has not read the request, although it was written.
            TokenFault::Call(error) if error.refuses_certificate() => TokenFailure::Connection,
            TokenFault::Call(CallError { sent: true, .. }) | TokenFault::BodyMalformed { .. } => TokenFailure::Unknown,
            TokenFault::Call(CallError { fault: Fault::Refused(_), .. }) | TokenFault::Request(_) => {
                TokenFailure::Connection
            }
            TokenFault::Call(_) => TokenFailure::Transient,
            TokenFault::Refused { status, code, .. } => match (code.class, of_status(*status)) {
                // Auth0 and Atlassian refuse a client in this way.
                (Some(TokenFailure::User), _)
                    if *status == StatusCode::UNAUTHORIZED && code.name == "access_denied" =>
                {
                    TokenFailure::Connection
                }
                // A server that says that it fails, and by its status that it did not process the request. So a code is not about the client.
                (
                    Some(TokenFailure::Unknown | TokenFailure::Connection | TokenFailure::Request),
                    TokenFailure::Transient,
                ) => TokenFailure::Transient,
                // The status says that it failed on the way, or sends the caller elsewhere after the work. The code may be about a part of it.
                (Some(_), TokenFailure::Unknown) if code.spares_grant() && !is_success(*status) => {
                    TokenFailure::Unknown
                }
                (Some(class), _) => class,
                // It may be about this grant alone.
                (None, TokenFailure::Connection) => TokenFailure::Transient,
                (None, class) => class,
            },
            TokenFault::Status { status, .. } => of_status(*status),
        }
    }

    /// Returns true if the request did not leave, or the status or the error code says that it was not processed, so that it may be sent
    /// again.
    pub fn is_unprocessed(&self) -> bool {
        match self {
            TokenFault::Call(error) => !error.sent && self.class() == TokenFailure::Transient,
            TokenFault::Refused { status, code, .. } => {
                of_status(*status) == TokenFailure::Transient
                    || code.class == Some(TokenFailure::Transient) && self.class() == TokenFailure::Transient
            }
            TokenFault::Status { status, .. } => of_status(*status) == TokenFailure::Transient,
            TokenFault::Request(_) | TokenFault::BodyMalformed { .. } => false,
        }
    }

    /// Returns true if the endpoint says that it does not accept the client, so that it has not looked at the grant. Only then may the
    /// same grant be sent with another secret. A server that fails, or says nothing, may have used the grant.
    pub fn refuses_client(&self) -> bool {
        const CODES: [&str; 3] = ["invalid_client", "incorrect_client_credentials", "bad_client_secret"];
        match self {
            TokenFault::Refused { status, code, .. } if *status == StatusCode::UNAUTHORIZED => {
                CODES.contains(&code.name) || ["access_denied", "unauthorized_client"].contains(&code.name)
            }
            TokenFault::Refused { status, code, .. } => {
                let is_certain = !status.is_server_error() && self.class() != TokenFailure::Unknown;
                is_certain && CODES.contains(&code.name)
            }
            // A gateway may have said so, after the endpoint.
            TokenFault::Status { .. }
            | TokenFault::Call(_)
            | TokenFault::Request(_)
            | TokenFault::BodyMalformed { .. } => false,
        }
    }

    /// Returns whether the endpoint said what became of the grant; `None` if the request did not leave.
    pub fn is_conclusive(&self) -> Option<bool> {
        match self {
            TokenFault::Call(error) if !error.sent && !error.refuses_certificate() => None,
            TokenFault::Request(_) => None,
            _ => Some(self.class() != TokenFailure::Unknown),
        }
    }

    /// The status of the response, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            TokenFault::Refused { status, .. }
            | TokenFault::Status { status, .. }
            | TokenFault::BodyMalformed { status } => Some(status.as_u16()),
            TokenFault::Call(_) | TokenFault::Request(_) => None,
        }
    }

    /// The wait that the endpoint asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            TokenFault::Refused { retry_after, .. } | TokenFault::Status { retry_after, .. } => *retry_after,
            TokenFault::Call(CallError { fault: Fault::CircuitOpen { retry_after }, .. }) => Some(*retry_after),
            TokenFault::Call(_) | TokenFault::Request(_) | TokenFault::BodyMalformed { .. } => None,
        }
    }
}

// === impl ErrorCode ===

impl ErrorCode {
    pub(super) fn parse(code: &str) -> Self {
        match CODES.iter().find(|(name, _)| *name == code) {
            Some((name, class)) => ErrorCode { name, class: Some(*class) },
            None => ErrorCode { name: "an unknown error code", class: None },
        }
    }

    /// Returns whether it is a known one.
    pub fn is_known(self) -> bool {
        self.class.is_some()
    }

    /// Returns whether it says that the grant is not good.
    pub(super) fn refuses_grant(self) -> bool {
        self.class == Some(TokenFailure::Grant)
    }

    /// Returns whether it says that the grant was not used.
    fn spares_grant(self) -> bool {
        use TokenFailure::{Connection, Request, Transient};
        matches!(self.class, Some(Transient | Connection | Request))
    }

    /// The code as it was sent, if it is a known one.
    pub fn as_str(self) -> &'static str {
        self.name
    }
}

/// Returns whether a response with a status may have tokens.
pub(super) fn is_success(status: StatusCode) -> bool {
    [StatusCode::OK, StatusCode::CREATED].contains(&status)
}

/// The class of a response by its status alone.
fn of_status(status: StatusCode) -> TokenFailure {
    match status.as_u16() {
        // The request was not complete, went to the wrong server, came too early or too often, or the server is overloaded.
        421 | 425 | 429 | 503 => TokenFailure::Transient,
        // A gateway may have sent the request on before its time was over.
        408 => TokenFailure::Unknown,
        // The request is to be sent elsewhere as it is (RFC 9110 15.4), so it was not processed here. It is not followed.
        301 | 307 | 308 | 400..=499 => TokenFailure::Connection,
        // A gateway may have lost the response of the server behind it. Other redirects are sent when the work is done.
        _ => TokenFailure::Unknown,
    }
}
