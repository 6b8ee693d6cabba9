//! The identity of the server: its certificate and private key.

use std::sync::Arc;

use jackfield_domain::Timestamp;
use jackfield_domain::value::pem::Pem;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::TlsError;
use super::file::{CERTIFICATE, PRIVATE_KEY, content_error, parse, read};
use crate::config::TlsFiles;

/// The files as they were read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyPair {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
}

// === impl KeyPair ===

impl KeyPair {
    pub(super) async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(KeyPair { certificate: read(&files.certificate).await?, private_key: read(&files.private_key).await? })
    }

    /// Refuses a chain of the server if a part of it is not valid now.
    pub(super) fn check_validity(&self, files: &TlsFiles, now: Timestamp) -> Result<(), TlsError> {
        let path = || files.certificate.display().to_string();
        for certificate in parse::<CertificateDer<'static>>(&self.certificate, &files.certificate, CERTIFICATE)? {
            let (_, certificate) = X509Certificate::from_der(&certificate)
                .map_err(|error| content_error(&files.certificate, CERTIFICATE, &error))?;
            let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
            let time = |seconds: i64| Timestamp(seconds.saturating_mul(1_000_000));
            if now.seconds() > until.timestamp() {
                return Err(TlsError::Expired { path: path(), time: time(until.timestamp()) });
            }
            if now < time(from.timestamp()) {
                return Err(TlsError::NotYetValid { path: path(), time: time(from.timestamp()) });
            }
        }
        Ok(())
    }

    pub(super) fn build(&self, files: &TlsFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
        let certificates = parse::<CertificateDer<'static>>(&self.certificate, &files.certificate, CERTIFICATE)?;
        let mut private_keys = parse::<PrivateKeyDer<'static>>(&self.private_key, &files.private_key, PRIVATE_KEY)?;
        if private_keys.len() > 1 {
            return Err(content_error(&files.private_key, PRIVATE_KEY, &"there are several"));
        }
        let key = CertifiedKey::from_der(certificates, private_keys.remove(0), provider);
        key.map(Arc::new).map_err(TlsError::KeyPair)
    }

    /// The earliest end of validity in the chain.
    pub(super) fn valid_until(&self) -> Option<i64> {
        not_after(&self.certificate)
    }
}

/// The earliest end of validity of certificates, in seconds since 1970.
pub(super) fn not_after(bytes: &[u8]) -> Option<i64> {
    let pem = Pem::new(bytes).ok()?;
    let certificates = CertificateDer::pem_slice_iter(pem.text().as_bytes()).filter_map(Result::ok);
    let ends = certificates.filter_map(|certificate| {
        let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.min()
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
