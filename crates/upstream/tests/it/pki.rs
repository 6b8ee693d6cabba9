//! Certificates: an authority, servers, and clients with and without flaws.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jackfield_domain::Secret;
use jackfield_upstream::tls::{Identity, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientCertVerifierBuilder, NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub(crate) const HOUR: i64 = 3600;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key, as PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The content of a certificate.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) usage: ExtendedKeyUsagePurpose,
    /// Seconds from now.
    pub(crate) validity: (i64, i64),
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, (-HOUR, 24 * HOUR));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::from_pem(&self.0.pem()).unwrap()
    }

    pub(crate) fn issue(&self, content: &Content) -> Leaf {
        self.issue_with(content, |_| ())
    }

    pub(crate) fn issue_with(&self, content: &Content, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params(&content.name, content.validity);
        params.subject_alt_names = CertificateParams::new([content.name.clone()]).unwrap().subject_alt_names;
        params.extended_key_usages = vec![content.usage.clone()];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A list with one certificate that is revoked, as PEM.
    pub(crate) fn revokes(&self, leaf: &Leaf) -> String {
        let der = leaf.der();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.raw_serial()),
            revocation_time: epoch + since_epoch(-HOUR),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: epoch + since_epoch(-HOUR),
            next_update: epoch + since_epoch(24 * HOUR),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    pub(crate) fn client(&self, name: &str) -> Leaf {
        self.issue(&Content::client(name))
    }

    /// The configuration of a server with a certificate of this authority, which may demand one of its clients.
    pub(crate) fn server(&self, name: &str, clients: Option<&Authority>) -> ServerConfig {
        self.server_of(&Content::server(name), clients, rustls::ALL_VERSIONS)
    }

    pub(crate) fn server_of(
        &self,
        content: &Content,
        clients: Option<&Authority>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let verifier = match clients {
            Some(authority) => authority.clients().build().unwrap(),
            None => Arc::new(NoClientAuth),
        };
        config(&self.issue(content), verifier, versions)
    }

    /// As [`Authority::server`], but clients may come without a certificate.
    pub(crate) fn server_that_asks(&self, name: &str) -> ServerConfig {
        let verifier = self.clients().allow_unauthenticated().build().unwrap();
        self.server_with(&Content::server(name), verifier)
    }

    /// The configuration of a server that checks its clients in a way of its own.
    pub(crate) fn server_with(&self, content: &Content, verifier: Arc<dyn ClientCertVerifier>) -> ServerConfig {
        config(&self.issue(content), verifier, rustls::ALL_VERSIONS)
    }

    pub(crate) fn clients(&self) -> ClientCertVerifierBuilder {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
    }
}

// === impl Content ===

impl Content {
    pub(crate) fn client(name: &str) -> Self {
        Content { name: name.to_owned(), usage: ExtendedKeyUsagePurpose::ClientAuth, validity: (-HOUR, HOUR) }
    }

    pub(crate) fn server(name: &str) -> Self {
        Content { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Content::client(name) }
    }
}

// === impl Leaf ===

impl Leaf {
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &Secret::new(self.key.clone())).unwrap()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// The configuration of a server with a certificate.
pub(crate) fn config(
    leaf: &Leaf,
    verifier: Arc<dyn ClientCertVerifier>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.der()], key)
        .unwrap()
}

fn params(name: &str, (from, until): (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let epoch = date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + since_epoch(from), epoch + since_epoch(until));
    params.use_authority_key_identifier_extension = true;
    params
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the machine's clock")]
fn since_epoch(seconds_from_now: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Duration::from_secs(now.checked_add_signed(seconds_from_now).unwrap())
}
