//! Client identities: a certificate chain with its private key.

use std::sync::Arc;

use jackfield_domain::Secret;
use jackfield_domain::key::CertificateFacts;
use jackfield_domain::value::pem::{CERTIFICATE_LABELS, PRIVATE_KEY_LABELS, Pem, PemFault};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::certificate_facts;
use super::config::provider;
use super::fault::ClientCertificateFault;

/// A certificate chain with its private key, ready to be used. Clones share both.
#[derive(Clone)]
pub struct Identity(pub(crate) Arc<IdentityParts>);

/// The parts of an identity.
pub(crate) struct IdentityParts {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
    /// The end of the certificate of the chain that ends first.
    chain_not_after: i64,
    is_for_clients: bool,
}

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
        let key = private_key(private_key_pem)?;
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError::OtherKey,
            rustls::Error::InvalidCertificate(_) => IdentityError::NoCertificate,
            _ => IdentityError::Unsupported,
        })?;
        let leaf = key.cert.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
        let (_, leaf) = leaf.ok_or(IdentityError::NoCertificate)?;
        let usage = leaf.extended_key_usage().ok().flatten();
        let is_for_clients = usage.is_none_or(|usage| usage.value.client_auth || usage.value.any);
        let (not_before, not_after) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        let chain_not_after = key.cert.iter().filter_map(super::certificate::not_after).min().unwrap_or(not_after);
        let parts = IdentityParts { key: Arc::new(key), not_before, not_after, chain_not_after, is_for_clients };
        Ok(Identity(Arc::new(parts)))
    }

    /// The end of the certificate of the chain that ends first, in seconds since 1970.
    pub(crate) fn chain_not_after(&self) -> i64 {
        self.0.chain_not_after
    }

    /// Chain and key, as rustls wants them.
    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.0.key
    }

    /// The facts of the certificate; `None` if its validity is outside the years 1 to 9999.
    pub(crate) fn facts(&self) -> Option<CertificateFacts> {
        let der = self.0.key.cert.first()?;
        let (_, leaf) = X509Certificate::from_der(der).ok()?;
        certificate_facts(&leaf, der)
    }

    /// The flaw that servers will find now, as far as the certificate itself shows it. Servers often do not say what they found.
    pub(crate) fn flaw(&self) -> Option<ClientCertificateFault> {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        if now > self.0.not_after {
            Some(ClientCertificateFault::Expired)
        } else if now < self.0.not_before {
            Some(ClientCertificateFault::NotYetValid)
        } else {
            (!self.0.is_for_clients).then_some(ClientCertificateFault::WrongUsage)
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The private key of a text, ready to sign.
///
/// # Errors
/// There is none, or more than one, or one of a kind that is not supported.
pub(crate) fn signing_key(private_key_pem: &Secret) -> Result<Arc<dyn SigningKey>, IdentityError> {
    let key = private_key(private_key_pem)?;
    provider().key_provider.load_private_key(key).map_err(|_| IdentityError::Unsupported)
}

/// The only private key of a text, which must hold nothing else.
fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let pem = Pem::new(pem.expose().as_bytes()).map_err(IdentityError::PrivateKey)?;
    pem.only(PRIVATE_KEY_LABELS).map_err(IdentityError::PrivateKey)?;
    let keys: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(pem.text().as_bytes()).collect();
    let mut keys = keys.map_err(|_| IdentityError::NoPrivateKey)?;
    let key = keys.pop().ok_or(IdentityError::NoPrivateKey)?;
    if keys.is_empty() { Ok(key) } else { Err(IdentityError::SeveralPrivateKeys) }
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
