//! Authenticated encryption with a subkey, and the layout of the bytes around it. The caller decides what is sealed and
//! where it belongs.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, hmac, rand};
use zeroize::Zeroizing;

/// Length of every secret key here, in bytes.
pub(crate) const KEY_LEN: usize = 32;

const VERSION: u8 = 1;
const COMMITMENT_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// Salt of HKDF. The keys come from a random source, so the salt only has to differ from that of other applications.
const SALT: &[u8] = b"jackfield";

/// The algorithms of a sealed value, named by its second byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// AES-256-GCM-SIV, subkeys and commitment by HKDF-SHA-256. A repeated nonce reveals only that two plaintexts are
    /// equal, so uses of a key need not be counted.
    Aes256GcmSiv = 1,
}

/// The purpose of a subkey. Keys of different purposes are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Sealing values in the database.
    Seal,
    /// Page tokens.
    Token,
    /// Fingerprints of requests.
    Fingerprint,
    /// Wrapping data keys.
    Wrap,
}

/// A subkey ready to seal and open.
pub(crate) struct Cipher {
    suite: Suite,
    key: LessSafeKey,
    commitment: [u8; COMMITMENT_LEN],
}

/// The output length of HKDF: 32 bytes, both for a key and for a commitment.
struct Length32;

// === impl Cipher ===

impl Cipher {
    /// Derives the subkey for a purpose from a secret.
    pub(crate) fn derive(secret: &[u8], purpose: Purpose) -> Result<Self, Unspecified> {
        let suite = Suite::Aes256GcmSiv;
        let key = derive(secret, suite, purpose, b"key")?;
        let key = LessSafeKey::new(UnboundKey::new(suite.algorithm(), &*key)?);
        let commitment = *derive(secret, suite, purpose, b"commitment")?;
        Ok(Cipher { suite, key, commitment })
    }

    /// Seals under a random nonce. `head` and `aad` are both authenticated; `head` also precedes the result in the
    /// clear.
    pub(crate) fn seal(&self, head: &[u8], aad: &[&[u8]], plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce)?;
        let start = 2 + head.len() + COMMITMENT_LEN + NONCE_LEN;
        // Wiped if sealing fails halfway. The capacity is exact, so the buffer never grows and leaves no copy behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(start + plaintext.len() + TAG_LEN));
        sealed.extend_from_slice(&[VERSION, self.suite as u8]);
        sealed.extend_from_slice(head);
        sealed.extend_from_slice(&self.commitment);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let aad = Aad::from(self.aad(head, aad));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, &mut sealed[start..])?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(std::mem::take(&mut *sealed))
    }

    /// Opens what [`seal`](Self::seal) made with this key, head and associated data; `None` for everything else.
    pub(crate) fn open(&self, head: &[u8], aad: &[&[u8]], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (suite, rest) = split_suite(sealed)?;
        let rest = rest.strip_prefix(head)?;
        let (commitment, rest) = rest.split_first_chunk::<COMMITMENT_LEN>()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
        if suite != self.suite || verify_slices_are_equal(commitment, &self.commitment).is_err() {
            return None;
        }
        let aad = Aad::from(self.aad(head, aad));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        let length = self.key.open_in_place(nonce, aad, &mut plaintext).ok()?.len();
        plaintext.truncate(length);
        Some(plaintext)
    }

    fn aad(&self, head: &[u8], aad: &[&[u8]]) -> Vec<u8> {
        tuple([&[VERSION], &[self.suite as u8], head].into_iter().chain(aad.iter().copied()))
    }
}

/// The suite of sealed bytes and what follows it; `None` if this version of the program does not know the format.
pub(crate) fn split_suite(sealed: &[u8]) -> Option<(Suite, &[u8])> {
    match sealed {
        [VERSION, suite, rest @ ..] => Some((Suite::from_byte(*suite)?, rest)),
        _ => None,
    }
}

/// The least number of bytes that follow the head.
pub(crate) const fn min_len_after_head() -> usize {
    COMMITMENT_LEN + NONCE_LEN + TAG_LEN
}

/// A key for HMAC-SHA-256, derived from a secret.
pub(crate) fn hmac_key(secret: &[u8], purpose: Purpose) -> Result<hmac::Key, Unspecified> {
    let key = derive(secret, Suite::Aes256GcmSiv, purpose, b"key")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*key))
}

/// Fresh random bytes for a key.
pub(crate) fn random_key() -> Result<Zeroizing<Vec<u8>>, Unspecified> {
    let mut key = Zeroizing::new(vec![0; KEY_LEN]);
    rand::fill(&mut key)?;
    Ok(key)
}

/// Encodes a tuple so that no two tuples give the same bytes: each part follows its length.
pub(crate) fn tuple<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&length_prefix(part));
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The encoded length of a part, as it is in a tuple.
pub(crate) fn length_prefix(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

fn derive(
    secret: &[u8],
    suite: Suite,
    purpose: Purpose,
    output: &[u8],
) -> Result<Zeroizing<[u8; KEY_LEN]>, Unspecified> {
    let info = tuple([&[VERSION], &[suite as u8], purpose.label(), output]);
    let mut key = Zeroizing::new([0; KEY_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret).expand(&[&info], Length32)?.fill(&mut *key)?;
    Ok(key)
}

// === impl Suite ===

impl Suite {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Suite::Aes256GcmSiv),
            _ => None,
        }
    }

    const fn algorithm(self) -> &'static Algorithm {
        match self {
            Suite::Aes256GcmSiv => &AES_256_GCM_SIV,
        }
    }
}

// === impl Purpose ===

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Purpose::Seal => b"seal",
            Purpose::Token => b"token",
            Purpose::Fingerprint => b"fingerprint",
            Purpose::Wrap => b"wrap",
        }
    }
}

// === impl Length32 ===

impl hkdf::KeyType for Length32 {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two vectors of RFC 8452, appendix C.2.
    #[test]
    fn gcm_siv_is_that_of_rfc_8452() {
        let mut key = [0; 32];
        key[0] = 1;
        let mut nonce = [0; 12];
        nonce[0] = 3;
        let key = LessSafeKey::new(UnboundKey::new(Suite::Aes256GcmSiv.algorithm(), &key).unwrap());
        for (plaintext, expected) in [
            (vec![], "07f5f4169bbf55a8400cd47ea6fd400f"),
            (vec![1, 0, 0, 0, 0, 0, 0, 0], "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
        ] {
            let mut sealed = plaintext;
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).unwrap();
            assert_eq!(sealed.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
        }
    }

    #[test]
    fn tuples_do_not_collide() {
        let tuples: [&[&[u8]]; 7] = [&[], &[b""], &[b"", b""], &[b"ab"], &[b"a", b"b"], &[b"ab", b""], &[b"", b"ab"]];
        let mut bytes: Vec<_> = tuples.iter().map(|parts| tuple(parts.iter().copied())).collect();
        bytes.sort();
        bytes.dedup();
        assert_eq!(bytes.len(), tuples.len());
    }

    #[test]
    fn purposes_have_independent_keys() {
        let secret = [7; KEY_LEN];
        let purposes = [Purpose::Seal, Purpose::Token, Purpose::Fingerprint, Purpose::Wrap];
        for sealing in purposes {
            let sealed = Cipher::derive(&secret, sealing).unwrap().seal(b"", &[], b"text").unwrap();
            for opening in purposes {
                let opened = Cipher::derive(&secret, opening).unwrap().open(b"", &[], &sealed);
                assert_eq!(opened.is_some(), sealing == opening, "{sealing:?} {opening:?}");
            }
        }
    }

    /// A value with the commitment of one key and the ciphertext of another opens with neither key.
    #[test]
    fn commitment_is_checked_separately_from_the_tag() {
        let cipher = Cipher::derive(&[7; KEY_LEN], Purpose::Seal).unwrap();
        let other = Cipher::derive(&[8; KEY_LEN], Purpose::Seal).unwrap();
        let mut sealed = cipher.seal(b"", &[], b"text").unwrap();
        assert!(cipher.open(b"", &[], &sealed).is_some());
        sealed[2..2 + COMMITMENT_LEN].copy_from_slice(&other.commitment);
        assert!(cipher.open(b"", &[], &sealed).is_none());
        assert!(other.open(b"", &[], &sealed).is_none());
    }
}
