//! Clients that say who they are by a signature (`private_key_jwt`: OpenID Connect Core 1.0 9, RFC 7523 2.2 and its revision
//! draft-ietf-oauth-rfc7523bis). The authorisation server has the public key, and there is no secret that both know.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::{Clock, Secret};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use serde::Serialize;
use uuid::Uuid;

use crate::tls::{IdentityError, signing_key};

/// A client with a private key, at one authorisation server.
pub struct ClientAssertion {
    client_id: String,
    /// The issuer of the authorisation server. It is the only audience: an assertion with another one could be used elsewhere.
    issuer: String,
    key: AssertionKey,
    has_type: bool,
    clock: Arc<dyn Clock>,
}

/// A private key, and the algorithm by which it signs.
pub struct AssertionKey {
    key: Arc<dyn SigningKey>,
    /// The name of the key at the server.
    kid: Option<String>,
    algorithm: &'static Algorithm,
}

/// The scheme by which keys of RSA sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaScheme {
    /// RS256, which all servers know.
    Pkcs1,
    /// PS256, which the FAPI 2.0 Security Profile demands (5.4.1).
    Pss,
}

/// The reason why there is no assertion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    #[error(transparent)]
    Key(#[from] IdentityError),
    #[error("private key: it is none of RSA, P-256, P-384 and Ed25519")]
    Unsupported,
    #[error("the private key did not sign")]
    NotSigned,
}

#[derive(Debug, PartialEq, Eq)]
struct Algorithm {
    name: &'static str,
    scheme: SignatureScheme,
    /// Bytes of a number in a signature by ECDSA.
    number: Option<usize>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
}

/// The type of the parameter `client_assertion` (RFC 7523 2.2).
pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The type that says what the signature is for, so that it counts for nothing else (RFC 8725 3.11).
const TYPE: &str = "client-authentication+jwt";
/// The time for which an assertion is good, in seconds.
const LIFETIME: i64 = 60;

const RS256: Algorithm = Algorithm { name: "RS256", scheme: SignatureScheme::RSA_PKCS1_SHA256, number: None };
const PS256: Algorithm = Algorithm { name: "PS256", scheme: SignatureScheme::RSA_PSS_SHA256, number: None };
const ES256: Algorithm = Algorithm { name: "ES256", scheme: SignatureScheme::ECDSA_NISTP256_SHA256, number: Some(32) };
const ES384: Algorithm = Algorithm { name: "ES384", scheme: SignatureScheme::ECDSA_NISTP384_SHA384, number: Some(48) };
const ED_DSA: Algorithm = Algorithm { name: "EdDSA", scheme: SignatureScheme::ED25519, number: None };

// === impl ClientAssertion ===

impl ClientAssertion {
    /// Takes the id of a client, the issuer of the authorisation server, and the key of the client there.
    pub fn new(client_id: String, issuer: String, key: AssertionKey, clock: Arc<dyn Clock>) -> Self {
        ClientAssertion { client_id, issuer, key, has_type: true, clock }
    }

    /// The same without an explicit type, for servers that refuse one.
    #[must_use]
    pub fn without_type(self) -> Self {
        ClientAssertion { has_type: false, ..self }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Makes an assertion, which is good once and for a minute.
    pub(super) fn sign(&self) -> Result<Secret, AssertionError> {
        let ClientAssertion { client_id, issuer, key, has_type, clock } = self;
        let header = Header { alg: key.algorithm.name, typ: has_type.then_some(TYPE), kid: key.kid.as_deref() };
        let iat = clock.now().seconds();
        let jti = Uuid::now_v7().to_string();
        let claims = Claims { iss: client_id, sub: client_id, aud: issuer, jti, iat, exp: iat + LIFETIME };
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())?);
        Ok(Secret::new(format!("{message}.{signature}")))
    }
}

impl fmt::Debug for ClientAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAssertion").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

fn part(value: &impl Serialize) -> String {
    // Texts and numbers can always be written as JSON.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

// === impl AssertionKey ===

impl AssertionKey {
    /// Reads an unencrypted private key. Its kind decides the algorithm, with the scheme for one of RSA.
    ///
    /// # Errors
    /// The text is no private key, or one of another kind.
    pub fn from_pem(private_key_pem: &Secret, kid: Option<String>, rsa: RsaScheme) -> Result<Self, AssertionError> {
        let key = signing_key(private_key_pem)?;
        let of_rsa = match rsa {
            RsaScheme::Pkcs1 => &RS256,
            RsaScheme::Pss => &PS256,
        };
        let known = [of_rsa, &ES256, &ES384, &ED_DSA];
        let algorithm = known.into_iter().find(|algorithm| key.choose_scheme(&[algorithm.scheme]).is_some());
        Ok(AssertionKey { algorithm: algorithm.ok_or(AssertionError::Unsupported)?, kid, key })
    }

    /// Returns whether a private key signs assertions, by the algorithm of its public key as the facts of a certificate name it.
    pub fn signs(public_key_algorithm: &str) -> bool {
        public_key_algorithm.starts_with("RSA ") || ["EC P-256", "EC P-384", "Ed25519"].contains(&public_key_algorithm)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AssertionError> {
        let signer = self.key.choose_scheme(&[self.algorithm.scheme]).ok_or(AssertionError::NotSigned)?;
        let signature = signer.sign(message).map_err(|_| AssertionError::NotSigned)?;
        match self.algorithm.number {
            Some(size) => fixed(&signature, size).ok_or(AssertionError::NotSigned),
            None => Ok(signature),
        }
    }
}

/// A signature by ECDSA with numbers of a fixed size (RFC 7518 3.4), from one in DER, where they have only as many bytes as they need.
fn fixed(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let (rest, numbers) = element(der, 0x30)?;
    let (numbers, r) = element(numbers, 0x02)?;
    let (numbers, s) = element(numbers, 0x02)?;
    if !rest.is_empty() || !numbers.is_empty() {
        return None;
    }
    let mut signature = Vec::with_capacity(2 * size);
    for number in [r, s] {
        // A zero keeps the number from being a negative one.
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        signature.resize(signature.len() + size.checked_sub(number.len())?, 0);
        signature.extend_from_slice(number);
    }
    Some(signature)
}

/// The rest after an element of DER, and the content of the element. Signatures are shorter than 256 bytes.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, content) = match der.strip_prefix(&[tag])? {
        [0x81, length, content @ ..] => (*length, content),
        [length @ ..=0x7f, content @ ..] => (*length, content),
        _ => return None,
    };
    let (content, rest) = content.split_at_checked(length.into())?;
    Some((rest, content))
}

#[cfg(test)]
mod tests;
