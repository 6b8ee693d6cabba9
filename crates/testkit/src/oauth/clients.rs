//! Clients that say who they are by a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_as::client::ClientAuth;
use oauth_as::client_assertion::AssertionKeys;
use oauth_as::jwt::{Jwk, JwsAlg, JwsVerifier};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::{OAuthProvider, locked};

/// The check of signatures by ES256, which the server leaves to others.
pub(super) struct Es256;

// === impl OAuthProvider ===

impl OAuthProvider {
    /// From now on the client signs assertions by this private key, of P-256, and has no secret. Their only audience is the issuer.
    ///
    /// # Panics
    /// Panics if it is no such key.
    pub async fn register_signer(&self, redirect_uris: &[&str], key_pem: &str) {
        let pair = KeyPair::from_pem(key_pem).expect("a private key");
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = Jwk::from_json(&json!({ "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) }));
        let keys = AssertionKeys::PublicKeys { alg: JwsAlg::Es256, keys: vec![jwk.expect("a public key")] };
        self.register_as(ClientAuth::ConfidentialAssertion { keys }, redirect_uris).await;
    }

    /// From now on the client presents this certificate wherever it posts, and has no secret (RFC 8705 2.2).
    ///
    /// # Panics
    /// Panics if it is no certificate.
    pub async fn register_certificate(&self, redirect_uris: &[&str], certificate_pem: &str) {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).expect("a certificate");
        *locked(&self.certificate) = Some(certificate.to_vec());
        self.register_as(ClientAuth::Public, redirect_uris).await;
    }
}

// === impl Es256 ===

impl JwsVerifier for Es256 {
    fn alg(&self) -> JwsAlg {
        JwsAlg::Es256
    }

    fn verify(&self, key: &Jwk, message: &[u8], signature: &[u8]) -> bool {
        let Jwk::Ec { x, y, .. } = key else { return false };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
        let point = [vec![4], decoded(x), decoded(y)].concat();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms.mapping;
        let of = |(scheme, _): &&(SignatureScheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256;
        let (_, algorithms) = algorithms.iter().find(of).expect("ECDSA");
        let signature = der_of(signature);
        algorithms.iter().any(|algorithm| algorithm.verify_signature(&point, message, &signature).is_ok())
    }
}

/// A signature of two numbers of 32 bytes in DER.
fn der_of(signature: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        let sign: &[u8] = if bytes[start] > 0x7f { &[0] } else { &[] };
        let value = [sign, &bytes[start..]].concat();
        [vec![2, value.len() as u8], value].concat()
    };
    let numbers: Vec<u8> = signature.chunks(32).flat_map(number).collect();
    [vec![0x30, numbers.len() as u8], numbers].concat()
}
