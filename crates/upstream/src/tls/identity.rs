//! Client identities: a certificate chain with its private key.

use std::sync::Arc;

use jackfield_domain::Secret;
use jackfield_domain::value::pem::{CERTIFICATE_LABELS, PRIVATE_KEY_LABELS, Pem, PemFault};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::provider;

/// A certificate chain with its private key, ready to be used.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<CertifiedKey>);

/// The reason why a chain and a key are no identity. No message has a part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("certificate: {0}")]
    Certificate(PemFault),
    #[error("certificate: there is none in PEM, or one that cannot be read")]
    NoCertificate,
    #[error("private key: {0}")]
    PrivateKey(PemFault),
    #[error("private key: there is none in PEM, or one that cannot be read, such as an encrypted one")]
    NoPrivateKey,
    #[error("private key: there are several")]
    SeveralPrivateKeys,
    #[error("private key: it does not belong to the first certificate")]
    OtherKey,
    #[error("private key: its kind is not supported")]
    Unsupported,
}

// === impl Identity ===

impl Identity {
    /// Reads a chain, the leaf first, and the unencrypted private key of the leaf.
    ///
    /// # Errors
    /// One of them cannot be used, or they do not belong together.
    pub fn from_pem(certificate_pem: &str, private_key_pem: &Secret) -> Result<Self, IdentityError> {
        let chain = certificates(certificate_pem).map_err(IdentityError::Certificate)?;
        let chain = chain.filter(|chain| !chain.is_empty()).ok_or(IdentityError::NoCertificate)?;
        let pem = Pem::new(private_key_pem.expose().as_bytes()).map_err(IdentityError::PrivateKey)?;
        pem.only(PRIVATE_KEY_LABELS).map_err(IdentityError::PrivateKey)?;
        let keys: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(pem.text().as_bytes()).collect();
        let mut keys = keys.map_err(|_| IdentityError::NoPrivateKey)?;
        let key = keys.pop().ok_or(IdentityError::NoPrivateKey)?;
        if !keys.is_empty() {
            return Err(IdentityError::SeveralPrivateKeys);
        }
        match CertifiedKey::from_der(chain, key, provider()) {
            Ok(key) => Ok(Identity(Arc::new(key))),
            Err(rustls::Error::InconsistentKeys(_)) => Err(IdentityError::OtherKey),
            Err(rustls::Error::InvalidCertificate(_)) => Err(IdentityError::NoCertificate),
            Err(_) => Err(IdentityError::Unsupported),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// All certificates of a text, which must hold nothing else. `None`: one of them cannot be read.
pub(super) fn certificates(pem: &str) -> Result<Option<Vec<CertificateDer<'static>>>, PemFault> {
    let pem = Pem::new(pem.as_bytes())?;
    pem.only(CERTIFICATE_LABELS)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text().as_bytes()).collect();
    let Ok(certificates) = read else { return Ok(None) };
    pem.all_read(certificates.len())?;
    Ok(Some(certificates))
}
