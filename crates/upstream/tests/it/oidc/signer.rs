//! Keys of an issuer, and what is signed by them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _,
};
use serde_json::{Value, json};

/// A key pair with the algorithm that it signs by.
pub(super) struct Signer {
    pub(super) kid: Option<&'static str>,
    algorithm: Algorithm,
    pair: KeyPair,
}

/// Bytes of PKCS #8 before the key of RSA with 2,048 bits.
const RSA_FRAME: usize = 26;

// === impl Signer ===

impl Signer {
    pub(super) fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &PKCS_ED25519,
            _ => &PKCS_RSA_SHA256,
        };
        Signer { kid: Some(kid), algorithm, pair: KeyPair::generate_for(kind).unwrap() }
    }

    pub(super) fn algorithm(&self) -> Value {
        serde_json::to_value(self.algorithm).unwrap()
    }

    /// The public key, as an issuer publishes it.
    pub(super) fn jwk(&self) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let raw = self.pair.der_bytes();
        let mut jwk = match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = if self.algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
                let (x, y) = raw[1..].split_at(raw.len() / 2);
                json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) })
            }
            Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(raw) }),
            _ => {
                let (n, e) = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(raw).unwrap();
                json!({ "kty": "RSA", "n": encoded(&n), "e": encoded(&e) })
            }
        };
        if let Some(kid) = self.kid {
            jwk["kid"] = kid.into();
        }
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token with these claims.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm() });
        if let Some(kid) = self.kid {
            header["kid"] = kid.into();
        }
        self.sign_with(&header, claims)
    }

    /// A token with this header, whatever it says.
    pub(super) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let pkcs8 = self.pair.serialize_der();
        let key = match self.algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&pkcs8),
            Algorithm::EdDSA => EncodingKey::from_ed_der(&pkcs8),
            _ => EncodingKey::from_rsa_der(&pkcs8[RSA_FRAME..]),
        };
        sign_by(&key, self.algorithm, header, claims)
    }
}

/// A token that is signed by a shared secret.
pub(super) fn sign_by_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    sign_by(&EncodingKey::from_secret(secret), Algorithm::HS256, header, claims)
}

fn sign_by(key: &EncodingKey, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    let signature = signer.try_sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
