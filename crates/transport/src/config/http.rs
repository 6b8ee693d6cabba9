//! The HTTP listener: an interface of HTTP/1.1 in front of the calls. The service behind decides which section of the
//! configuration it has.

use std::net::SocketAddr;

use super::{CertificateFiles, PrincipalConfig};

/// An HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpListen {
    /// Its name in logs and metrics.
    pub name: &'static str,
    pub address: SocketAddr,
    /// Its certificate. `None`: plaintext.
    pub certificate: Option<CertificateFiles>,
    /// The caller that every request is: clients present no certificate.
    pub principal: PrincipalConfig,
}
