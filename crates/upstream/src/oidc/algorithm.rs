//! Algorithms of signatures (RFC 7518 3.1, RFC 8037 3.1).

use jsonwebtoken::jwk::ThumbprintHash;

/// An algorithm by which ID tokens may be signed. `none` is not among them, and neither are those with a shared secret: a party that checks
/// such a signature can make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    /// Ed25519.
    EdDsa,
}

/// The names of the algorithms. The last one is the newer name of the one before it (RFC 9864 2.2).
const NAMES: [(&str, Algorithm); 10] = [
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
    ("Ed25519", Algorithm::EdDsa),
];

// === impl Algorithm ===

impl Algorithm {
    /// Finds an algorithm by its name. `None` if tokens may not be signed by it.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.into_iter().find_map(|(known, algorithm)| (known == name).then_some(algorithm))
    }

    pub(super) fn jwa(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as Jwa;
        match self {
            Algorithm::Rs256 => Jwa::RS256,
            Algorithm::Rs384 => Jwa::RS384,
            Algorithm::Rs512 => Jwa::RS512,
            Algorithm::Ps256 => Jwa::PS256,
            Algorithm::Ps384 => Jwa::PS384,
            Algorithm::Ps512 => Jwa::PS512,
            Algorithm::Es256 => Jwa::ES256,
            Algorithm::Es384 => Jwa::ES384,
            Algorithm::EdDsa => Jwa::EdDSA,
        }
    }

    /// The hash of the algorithm, by which `at_hash` is made too. Ed25519 hashes with SHA-512 (RFC 8032 5.1).
    pub(super) fn hash(self) -> ThumbprintHash {
        match self {
            Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 => ThumbprintHash::SHA256,
            Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Es384 => ThumbprintHash::SHA384,
            Algorithm::Rs512 | Algorithm::Ps512 | Algorithm::EdDsa => ThumbprintHash::SHA512,
        }
    }
}
