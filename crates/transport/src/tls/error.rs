//! The error of certificates that cannot be used.

use jackfield_domain::Timestamp;

/// The reason why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} holds no usable {what}: {message}")]
    Content { path: String, what: &'static str, message: String },
    #[error("the certificate of the server in {path} expired at {time}: put a new one there")]
    Expired { path: String, time: Timestamp },
    #[error("the certificate of the server in {path} is not valid before {time}")]
    NotYetValid { path: String, time: Timestamp },
    #[error("certificate and private key do not match: {0}")]
    KeyPair(rustls::Error),
    #[error("client authorities: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}
