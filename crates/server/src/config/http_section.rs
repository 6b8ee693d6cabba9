//! The part that the sections of all HTTP listeners have.

use std::net::SocketAddr;
use std::path::Path;

use jackfield_transport::config::{CertificateFiles, HttpListen, PrincipalConfig, TlsFiles};

/// The address and the certificate of an HTTP listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpSection<'a> {
    /// The name of the section.
    pub name: &'static str,
    pub(super) address: &'a str,
    pub(super) certificate: &'a Path,
    pub(super) private_key: &'a Path,
    pub(super) plaintext: bool,
    pub(super) allow_plaintext_public: bool,
}

// === impl HttpSection ===

impl HttpSection<'_> {
    /// Returns what is wrong with this part. Without an address nothing of it is used.
    pub(super) fn problems(&self) -> Vec<String> {
        let (name, mut problems) = (self.name, Vec::new());
        let Some(address) = self.socket_address() else { return problems };
        if self.plaintext && !address.ip().is_loopback() && !self.allow_plaintext_public {
            problems.push(format!(
                "{name}.plaintext: {address} is not loopback; set {name}.allow_plaintext_public to serve it without TLS"
            ));
        }
        if self.has_certificate() == self.private_key.as_os_str().is_empty() {
            problems.push(format!("{name}.private_key: must be set together with {name}.certificate"));
        }
        problems
    }

    /// Returns the address of the listener, if there is one.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    /// Returns whether the section names a certificate.
    pub fn has_certificate(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// Returns the certificate of the listener, that of gRPC if it has none of its own. `None` if there is no listener or it
    /// is in plaintext.
    pub fn certificate_files(&self, of_grpc: &TlsFiles) -> Option<CertificateFiles> {
        self.socket_address().filter(|_| !self.plaintext)?;
        let (certificate, private_key) = match self.has_certificate() {
            true => (self.certificate, self.private_key),
            false => (&*of_grpc.certificate, &*of_grpc.private_key),
        };
        Some(CertificateFiles { certificate: certificate.to_owned(), private_key: private_key.to_owned() })
    }

    pub(super) fn listener(&self, of_grpc: &TlsFiles, principal: PrincipalConfig) -> Option<HttpListen> {
        let (address, certificate) = (self.socket_address()?, self.certificate_files(of_grpc));
        Some(HttpListen { name: self.name, address, certificate, principal })
    }
}
