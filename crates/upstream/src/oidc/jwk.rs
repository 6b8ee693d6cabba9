//! Keys of issuers as they publish them (RFC 7517, RFC 7518 6, RFC 8037 2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde::Deserialize;

use super::algorithm::Algorithm;

/// A key by which signatures can be checked.
pub(super) struct Jwk {
    kid: Option<String>,
    /// The one algorithm that the key is for, if its issuer says so.
    algorithm: Option<Algorithm>,
    kind: Kind,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The members of a key that count here. Members of other forms make the key unusable.
#[derive(Deserialize)]
pub(super) struct Members {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
}

/// The sizes of the modulus of RSA, in bytes.
const RSA_SIZES: std::ops::RangeInclusive<usize> = 256..=1024;

// === impl Jwk ===

impl Jwk {
    /// Takes a key. `None` if no signature can be checked by it, or none should.
    pub(super) fn of(members: Members) -> Option<Self> {
        let is_for_signatures = members.usage.as_deref().is_none_or(|usage| usage == "sig")
            && members.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        // A private key that was published is known to all.
        if !is_for_signatures || members.d.is_some() {
            return None;
        }
        let (kind, key) = members.key()?;
        let algorithm = match &members.alg {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        Some(Jwk { kid: members.kid, algorithm, kind, key })
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Returns true if the key may be used with an algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.signs_by(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Returns true if a signature is by this key, which fits the algorithm.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm.jwa(), &self.key);
        verifier.is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
    }
}

// === impl Kind ===

impl Kind {
    fn signs_by(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => self == Kind::Rsa,
            Algorithm::Es256 => self == Kind::P256,
            Algorithm::Es384 => self == Kind::P384,
            Algorithm::EdDsa => self == Kind::Ed25519,
        }
    }
}

// === impl Members ===

impl Members {
    fn key(&self) -> Option<(Kind, DecodingKey)> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (decoded(self.n.as_ref())?, decoded(self.e.as_ref())?);
                // Some write zeros before the number.
                let modulus = &modulus[modulus.iter().position(|byte| *byte != 0)?..];
                let key = DecodingKey::from_rsa_raw_components(modulus, &exponent);
                RSA_SIZES.contains(&modulus.len()).then_some((Kind::Rsa, key))
            }
            ("EC", Some("P-256")) => Some((Kind::P256, self.point(32)?)),
            ("EC", Some("P-384")) => Some((Kind::P384, self.point(48)?)),
            ("OKP", Some("Ed25519")) => {
                let key = decoded(self.x.as_ref()).filter(|key| key.len() == 32)?;
                Some((Kind::Ed25519, DecodingKey::from_ed_der(&key)))
            }
            _ => None,
        }
    }

    /// A point on a curve with coordinates of so many bytes (SEC 1 2.3.3).
    fn point(&self, size: usize) -> Option<DecodingKey> {
        let coordinate = |text| decoded(text).filter(|coordinate| coordinate.len() == size);
        let (x, y) = (coordinate(self.x.as_ref())?, coordinate(self.y.as_ref())?);
        Some(DecodingKey::from_ec_der(&[&[4][..], &x, &y].concat()))
    }
}

fn decoded(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}
