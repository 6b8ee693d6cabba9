//! Failures of OpenID Connect. No message has a text of a response or of a token: they may be personal, or secret.

use http::StatusCode;

use crate::error::{CallError, Fault};
use crate::tls::TlsFault;

/// A document of an issuer that cannot be had, or not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("status {} instead of 200", .0.as_u16())]
    Status(StatusCode),
    #[error("the body of the response is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body of the response is not a JSON object of the expected form: line {line}, column {column}")]
    BodyMalformed { line: usize, column: usize },
    #[error("{0} is missing, or not usable")]
    Field(&'static str),
    #[error("the issuer is not an https URL without query and fragment; http is for loopback only")]
    IssuerInvalid,
    /// The document is that of another issuer (OpenID Connect Discovery 1.0 4.3).
    #[error("the issuer of the document is not the one that was asked")]
    IssuerMismatch,
}

/// A profile that cannot be had, or not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileFault {
    #[error(transparent)]
    Document(#[from] DocumentFault),
    /// No header can have the access token.
    #[error("no header can have the access token")]
    AccessTokenUnusable,
    /// The profile is that of another user (OpenID Connect Core 1.0 5.3.2).
    #[error("the sub of the profile is not that of the ID token")]
    SubjectWrong,
}

/// The reason why an ID token is none for this client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenFault {
    #[error("the ID token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the ID token is encrypted, which is not supported")]
    Encrypted,
    #[error("the ID token is signed by an algorithm that is not permitted, or not signed")]
    AlgorithmRefused,
    #[error("the typ of the header is that of another kind of token")]
    WrongType,
    #[error("the header has an extension that must be understood (crit)")]
    ExtensionUnknown,
    #[error("the iss of the ID token is not the issuer")]
    WrongIssuer,
    #[error("the aud of the ID token has no client_id of this client")]
    WrongAudience,
    #[error("the azp of the ID token is not this client, or missing while there are several audiences")]
    WrongParty,
    #[error("the ID token has expired")]
    Expired,
    #[error("the iat or the nbf of the ID token is in the future")]
    FromTheFuture,
    #[error("the nonce of the ID token is not the one that was sent")]
    WrongNonce,
    #[error("the sub of the ID token is not 1 to 255 ASCII characters")]
    SubjectInvalid,
    /// A refresh returned the ID token of another user (OpenID Connect Core 1.0 12.2).
    #[error("the sub of the ID token is not the one of the log-in")]
    SubjectChanged,
    #[error("the at_hash of the ID token is not that of the access token")]
    WrongAccessToken,
    #[error("the keys of the issuer cannot be had: {0}")]
    KeysUnreachable(DocumentFault),
    #[error("the issuer has no such key")]
    UnknownKey,
    #[error("the signature of the ID token is wrong")]
    SignatureWrong,
}

// === impl DocumentFault ===

impl DocumentFault {
    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            DocumentFault::Call(error) => error.fault.reason(),
            DocumentFault::Status(_) => "STATUS_UNEXPECTED",
            DocumentFault::BodyTooLarge(_) => "BODY_TOO_LARGE",
            DocumentFault::BodyMalformed { .. } => "BODY_MALFORMED",
            DocumentFault::Field(_) => "FIELD_INVALID",
            DocumentFault::IssuerInvalid => "ISSUER_INVALID",
            DocumentFault::IssuerMismatch => "ISSUER_MISMATCH",
        }
    }

    /// Returns true if a later call may succeed, although nothing is changed.
    pub fn is_transient(&self) -> bool {
        match self {
            DocumentFault::Call(error) => !matches!(error.fault, Fault::Refused(_)),
            DocumentFault::Status(status) => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            DocumentFault::BodyTooLarge(_)
            | DocumentFault::BodyMalformed { .. }
            | DocumentFault::Field(_)
            | DocumentFault::IssuerInvalid
            | DocumentFault::IssuerMismatch => false,
        }
    }

    /// Returns true if the issuer did not answer, or says that it cannot now, so that nothing contradicts what it published before.
    pub fn is_silence(&self) -> bool {
        match self {
            // Another server may be there.
            DocumentFault::Call(CallError { fault: Fault::Tls(TlsFault::ServerCertificate(_)), .. }) => false,
            DocumentFault::Call(CallError { fault, .. }) => {
                fault.is_outage() || matches!(fault, Fault::CallerTimeout | Fault::Busy | Fault::CircuitOpen { .. })
            }
            DocumentFault::Status(_) => self.is_transient(),
            DocumentFault::BodyTooLarge(_)
            | DocumentFault::BodyMalformed { .. }
            | DocumentFault::Field(_)
            | DocumentFault::IssuerInvalid
            | DocumentFault::IssuerMismatch => false,
        }
    }

    /// Returns true if there is no document, so that another place counts: a status that says so, or a page in its place.
    pub(crate) fn is_no_document(&self) -> bool {
        match self {
            DocumentFault::Status(_) => !self.is_transient(),
            DocumentFault::BodyMalformed { .. } => true,
            DocumentFault::Call(_)
            | DocumentFault::BodyTooLarge(_)
            | DocumentFault::Field(_)
            | DocumentFault::IssuerInvalid
            | DocumentFault::IssuerMismatch => false,
        }
    }

    /// Returns true if nothing contradicts what the issuer published before: it does not answer, or there is no document for the moment.
    pub fn keeps_last(&self) -> bool {
        self.is_silence() || self.is_no_document()
    }

    /// Returns true if the issuer publishes nothing.
    pub fn is_absence(&self) -> bool {
        matches!(self, DocumentFault::Status(StatusCode::NOT_FOUND | StatusCode::GONE))
    }

    /// The fault of two places together, in the first of which there is no document. It is that of the first place, unless the second one may
    /// have a document.
    pub(crate) fn or(self, second: DocumentFault) -> DocumentFault {
        if second.is_no_document() { self } else { second }
    }

    /// Returns true if the fault says nothing about the next call: the caller stopped waiting, or there was no place for the call.
    pub(super) fn is_of_caller(&self) -> bool {
        matches!(self, DocumentFault::Call(CallError { fault: Fault::CallerTimeout | Fault::Busy, .. }))
    }
}

// === impl ProfileFault ===

impl ProfileFault {
    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            ProfileFault::Document(fault) => fault.reason(),
            ProfileFault::AccessTokenUnusable => "ACCESS_TOKEN_UNUSABLE",
            ProfileFault::SubjectWrong => "SUBJECT_WRONG",
        }
    }
}

// === impl IdTokenFault ===

impl IdTokenFault {
    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            IdTokenFault::Malformed(_) => "MALFORMED",
            IdTokenFault::Encrypted => "ENCRYPTED",
            IdTokenFault::AlgorithmRefused => "ALGORITHM_REFUSED",
            IdTokenFault::WrongType => "WRONG_TYPE",
            IdTokenFault::ExtensionUnknown => "EXTENSION_UNKNOWN",
            IdTokenFault::WrongIssuer => "WRONG_ISSUER",
            IdTokenFault::WrongAudience => "WRONG_AUDIENCE",
            IdTokenFault::WrongParty => "WRONG_PARTY",
            IdTokenFault::Expired => "EXPIRED",
            IdTokenFault::FromTheFuture => "FROM_THE_FUTURE",
            IdTokenFault::WrongNonce => "WRONG_NONCE",
            IdTokenFault::SubjectInvalid => "SUBJECT_INVALID",
            IdTokenFault::SubjectChanged => "SUBJECT_CHANGED",
            IdTokenFault::WrongAccessToken => "WRONG_ACCESS_TOKEN",
            IdTokenFault::KeysUnreachable(_) => "KEYS_UNREACHABLE",
            IdTokenFault::UnknownKey => "UNKNOWN_KEY",
            IdTokenFault::SignatureWrong => "SIGNATURE_WRONG",
        }
    }
}
