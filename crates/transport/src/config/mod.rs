//! The sections of the configuration that the transport reads.

mod http;
mod identity;
mod limits;
mod listen;
mod telemetry;
mod values;

use std::path::PathBuf;

pub use self::http::HttpListen;
pub use self::identity::{Identity, PrincipalConfig};
pub use self::limits::{Deadlines, Drain, Limits, Streams};
pub use self::listen::{Listen, Tls};
pub use self::telemetry::{LogFormat, Telemetry};
pub use self::values::{Size, duration};

/// The config of a server.
#[derive(Clone, Debug, Default)]
pub struct TransportConfig {
    pub listen: Listen,
    pub tls: Tls,
    /// Their paths are spelt out.
    pub tls_files: TlsFiles,
    pub limits: Limits,
    pub streams: Streams,
    pub deadlines: Deadlines,
    pub drain: Drain,
    pub telemetry: Telemetry,
    /// The known callers, the built-in one included.
    pub principals: Vec<PrincipalConfig>,
    /// The HTTP listeners.
    pub http: Vec<HttpListen>,
}

/// Paths of a certificate and its private key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

/// Paths of the certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    pub client_ca: PathBuf,
    pub client_crl: Option<PathBuf>,
}
