//! Client certificates of public authorities, which stop issuing them.

use std::borrow::Cow;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The roots of public authorities. The default are those that browsers trust.
#[derive(Clone, Debug)]
pub struct PublicRoots(Cow<'static, [TrustAnchor<'static>]>);

// === impl PublicRoots ===

impl Default for PublicRoots {
    fn default() -> Self {
        PublicRoots(Cow::Borrowed(webpki_roots::TLS_SERVER_ROOTS))
    }
}

impl PublicRoots {
    /// The authorities of these certificates. One that cannot be read is left out.
    pub fn of_pem(certificate_pem: &str) -> Self {
        let anchor =
            |der: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(der).ok().map(|anchor| anchor.to_owned());
        PublicRoots(Cow::Owned(certificates(certificate_pem).iter().filter_map(anchor).collect()))
    }

    /// Returns a warning if a chain leads to one of these authorities. Only the certificates are looked at: if the chain lacks the
    /// intermediate certificates, there is no warning.
    pub(super) fn warning(&self, certificate_pem: &str) -> Option<String> {
        leads_to(&certificates(certificate_pem), &self.0).then(|| {
            "the certificate was issued by a public authority: all of these stop issuing client certificates by 15 March \
             2027, so this one cannot be renewed after that; use one of a private authority"
                .to_owned()
        })
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map_while(Result::ok).collect()
}

/// Returns true if there is a valid path from the first certificate to one of the roots. The time is the latest at which a certificate
/// of the chain becomes valid, so that the answer to a chain never changes.
fn leads_to(chain: &[CertificateDer<'_>], roots: &[TrustAnchor<'_>]) -> bool {
    let begins = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        u64::try_from(certificate.validity().not_before.timestamp()).ok()
    };
    let (Some((leaf, intermediates)), Some(time)) = (chain.split_first(), chain.iter().filter_map(begins).max()) else {
        return false;
    };
    let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let Ok(leaf) = EndEntityCert::try_from(leaf) else { return false };
    leaf.verify_for_usage(algorithms, roots, intermediates, time, KeyUsage::client_auth(), None, None).is_ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str, is_ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    fn authority(name: &str) -> Authority {
        CertifiedIssuer::self_signed(params(name, true), KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_chain_leads_to_the_root_that_has_signed_it_and_not_to_its_namesake() {
        let (root, namesake) = (authority("root"), authority("root"));
        let intermediate =
            CertifiedIssuer::signed_by(params("intermediate", true), KeyPair::generate().unwrap(), &root).unwrap();
        let leaf = params("leaf", false).signed_by(&KeyPair::generate().unwrap(), &intermediate).unwrap();
        let [leaf, intermediate] = [leaf.der().clone(), intermediate.der().clone()];
        let anchor = |authority: &Authority| webpki::anchor_from_trusted_cert(authority.der()).unwrap().to_owned();
        let chain = [leaf.clone(), intermediate];
        assert!(leads_to(&chain, &[anchor(&namesake), anchor(&root)]));
        assert!(!leads_to(&chain, &[anchor(&namesake)]));
        assert!(!leads_to(&[leaf], &[anchor(&root)]), "the intermediate is missing");
        assert!(!leads_to(&[], &[anchor(&root)]));
    }

    #[test]
    fn the_public_roots_are_known_and_private_ones_are_not_among_them() {
        assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
        let own = authority("own");
        let leaf = params("leaf", false).signed_by(&KeyPair::generate().unwrap(), &own).unwrap();
        assert_eq!(PublicRoots::default().warning(&(leaf.pem() + &own.pem())), None);
        let warning = PublicRoots::of_pem(&own.pem()).warning(&(leaf.pem() + &own.pem()));
        assert!(warning.is_some_and(|warning| warning.contains("public authority")));
    }
}
