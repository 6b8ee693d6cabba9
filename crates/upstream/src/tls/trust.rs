//! The authorities whose certificates a server may present.

use std::sync::{Arc, LazyLock};

use jackfield_domain::value::pem::PemFault;
use rustls::RootCertStore;

use super::identity::certificates;

/// Authorities: the public ones, or those of a bundle and no others. Clones share them.
#[derive(Clone)]
pub struct Trust(pub(crate) Arc<RootCertStore>);

/// The reason why a bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("{0}")]
    Pem(#[from] PemFault),
    #[error("there is no certificate in PEM, or one that cannot be read")]
    NoCertificate,
    #[error("certificate {0} cannot be an authority: it is damaged, or of an old version")]
    NoAuthority(usize),
}

/// The authorities that Mozilla trusts. All who trust them share one list.
static PUBLIC: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    Arc::new(roots)
});

// === impl Trust ===

impl Trust {
    /// Trusts the public authorities.
    pub fn public() -> Self {
        Trust(PUBLIC.clone())
    }

    /// Trusts the authorities of a bundle, and no others.
    ///
    /// # Errors
    /// The bundle is empty or not completely readable.
    pub fn from_pem(pem: &str) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let certificates = certificates(pem)?.ok_or(TrustError::NoCertificate)?;
        for (index, certificate) in certificates.into_iter().enumerate() {
            roots.add(certificate).map_err(|_| TrustError::NoAuthority(index + 1))?;
        }
        if roots.is_empty() {
            return Err(TrustError::NoCertificate);
        }
        Ok(Trust(Arc::new(roots)))
    }

    /// The number of authorities.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if these are the public authorities.
    pub(crate) fn is_public(&self) -> bool {
        Arc::ptr_eq(&self.0, &PUBLIC)
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({} authorities)", self.0.len())
    }
}
