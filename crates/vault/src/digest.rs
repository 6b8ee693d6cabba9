//! Digests of public data, and the comparison of secrets. Only this crate calls cryptography, so that there is one place to review.

use std::io::{self, Read};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use jackfield_domain::Secret;

/// Returns true if two secrets are the same. The time that this takes says only if their lengths are.
pub fn secrets_are_equal(one: &Secret, other: &Secret) -> bool {
    verify_slices_are_equal(one.expose().as_bytes(), other.expose().as_bytes()).is_ok()
}

/// SHA-256, for fingerprints of certificates and the like. For anything secret use a keyed
/// [`fingerprint`](crate::DataKey::fingerprint).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

/// SHA-256 of everything that a reader yields.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(mut reader: impl Read) -> io::Result<[u8; 32]> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => context.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(context.finish().as_ref());
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sha256_of_a_reader_is_that_of_its_bytes() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        assert_eq!(super::sha256_of(&bytes[..]).unwrap(), super::sha256(&bytes));
    }

    #[test]
    fn secrets_are_equal_as_a_whole() {
        let equal = |one: &str, other: &str| {
            let secret = |text: &str| jackfield_domain::Secret::new(text.to_owned());
            super::secrets_are_equal(&secret(one), &secret(other))
        };
        assert!(equal("", "") && equal("abc", "abc"));
        assert!(!equal("abc", "abd") && !equal("abc", "ab") && !equal("", "a"));
    }

    #[test]
    fn sha256_of_the_standard_example() {
        // FIPS 180-2, appendix B.1.
        let sum = super::sha256(b"abc");
        assert_eq!(sum[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(sum[28..], [0xf2, 0x00, 0x15, 0xad]);
    }
}
