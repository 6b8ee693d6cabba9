//! Handshakes of probes: the chain of the server is noted, also one that is refused.

use std::sync::{Arc, OnceLock};

use jackfield_domain::key::CertificateFacts;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::certificate_facts;
use super::config::{builder, finished, verifier};
use super::identity::Identity;
use super::trust::Trust;

/// The facts of one handshake that the server has shown so far.
#[derive(Debug)]
pub(crate) struct Inspection {
    verifier: Arc<WebPkiServerVerifier>,
    chain: OnceLock<Vec<CertificateDer<'static>>>,
    version: OnceLock<ProtocolVersion>,
}

/// Makes the parameters of one handshake. The verification is that of all calls.
///
/// # Errors
/// The parameters contradict each other.
pub(crate) fn inspecting_config(
    identity: Option<&Identity>,
    trust: &Trust,
) -> Result<(Arc<ClientConfig>, Arc<Inspection>), Error> {
    let verifier = verifier(trust)?;
    let inspection = Arc::new(Inspection { verifier, chain: OnceLock::new(), version: OnceLock::new() });
    let builder = builder()?.dangerous().with_custom_certificate_verifier(inspection.clone());
    Ok((finished(builder, identity), inspection))
}

// === impl Inspection ===

impl Inspection {
    /// The certificates that the server presented, its own first. One that cannot be read has no facts.
    pub(crate) fn chain(&self) -> Vec<Option<CertificateFacts>> {
        let facts = |der: &CertificateDer<'static>| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            certificate_facts(&certificate, der)
        };
        self.chain.get().into_iter().flatten().map(facts).collect()
    }

    /// The version of TLS, as soon as the server has proved that it has its key.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.version.get().copied()
    }
}

impl ServerCertVerifier for Inspection {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [end_entity].into_iter().chain(intermediates).map(|der| der.clone().into_owned());
        self.chain.get_or_init(|| chain.collect());
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.version.get_or_init(|| ProtocolVersion::TLSv1_2);
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.version.get_or_init(|| ProtocolVersion::TLSv1_3);
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
