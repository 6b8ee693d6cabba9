//! Digests of public things. Crypto is called in this crate only, so that there is one place to look at.

use aws_lc_rs::digest;

/// SHA-256, for fingerprints of certificates and the like. For anything secret use a keyed
/// [`fingerprint`](crate::DataKey::fingerprint).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn sha256_of_the_standard_example() {
        // FIPS 180-2, appendix B.1.
        let sum = super::sha256(b"abc");
        assert_eq!(sum[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(sum[28..], [0xf2, 0x00, 0x15, 0xad]);
    }
}
