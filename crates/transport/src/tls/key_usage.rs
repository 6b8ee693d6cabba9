//! The key usage of the certificates of clients, which rustls leaves to others: who may sign certificates, and whose key may
//! sign a handshake.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, OwnedCertRevocationList, RevocationOptionsBuilder,
    VerifiedPath,
};
use x509_parser::prelude::{FromDer, KeyUsage, X509Certificate};

/// A verifier that also demands the key usages of RFC 5280 6.1.4 (n) and RFC 8446 4.4.2.2, where a certificate states any.
#[derive(Debug)]
pub(super) struct KeyUsageVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    /// The lists that the path is also checked against; without lists, revocation is not checked.
    revocation_lists: Vec<CertRevocationList<'static>>,
    enforce_crl_expiration: bool,
}

/// Refuses an authority whose own certificate says that it signs no certificates.
pub(super) fn check_authority(certificate: &CertificateDer<'_>) -> Result<(), String> {
    if allows(certificate, KeyUsage::key_cert_sign) {
        return Ok(());
    }
    let subject = X509Certificate::from_der(certificate).map(|(_, certificate)| certificate.subject().to_string());
    let subject = subject.unwrap_or_default();
    Err(format!("the authority {subject} may not sign certificates: its key usage lacks keyCertSign"))
}

/// Returns whether a certificate states no key usage, or one that includes this.
fn allows(certificate: &CertificateDer<'_>, usage: fn(&KeyUsage) -> bool) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    match certificate.key_usage() {
        Ok(Some(stated)) => usage(stated.value),
        Ok(None) => true,
        Err(_) => false,
    }
}

// === impl KeyUsageVerifier ===

impl KeyUsageVerifier {
    /// Makes a verifier around one with the same authorities and lists.
    ///
    /// # Errors
    /// A list cannot be read.
    pub(super) fn new(
        inner: Arc<dyn ClientCertVerifier>,
        roots: Arc<RootCertStore>,
        lists: &[CertificateRevocationListDer<'_>],
        enforce_crl_expiration: bool,
    ) -> Result<Self, webpki::Error> {
        let read = |list: &CertificateRevocationListDer<'_>| OwnedCertRevocationList::from_der(list).map(Into::into);
        let revocation_lists = lists.iter().map(read).collect::<Result<_, _>>()?;
        Ok(KeyUsageVerifier { inner, roots, revocation_lists, enforce_crl_expiration })
    }

    /// Looks for a path to an authority on which every issuer may sign certificates and nothing is revoked.
    fn check_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let may_issue = |path: &VerifiedPath<'_>| {
            let mut issuers = path.intermediate_certificates();
            match issuers.all(|issuer| allows(&issuer.der(), KeyUsage::key_cert_sign)) {
                true => Ok(()),
                false => Err(webpki::Error::UnknownIssuer),
            }
        };
        let algorithms = super::crypto::provider().signature_verification_algorithms.all;
        let usage = webpki::KeyUsage::client_auth();
        let leaf = EndEntityCert::try_from(leaf)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revocation_lists.iter().collect();
        // As in the inner verifier, the whole chain is checked, and a certificate whose issuer has no list is refused.
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(options) if self.enforce_crl_expiration => {
                Some(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
            }
            Ok(options) => Some(options.build()),
            Err(_) => None,
        };
        leaf.verify_for_usage(algorithms, &self.roots.roots, intermediates, now, usage, revocation, Some(&may_issue))?;
        Ok(())
    }
}

impl ClientCertVerifier for KeyUsageVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now)?;
        let refused = Error::InvalidCertificate(CertificateError::InvalidPurpose);
        if !allows(leaf, KeyUsage::digital_signature) {
            return Err(refused);
        }
        self.check_path(leaf, intermediates, now).map_err(|_| refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
