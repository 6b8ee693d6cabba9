//! Random tokens.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::{Error, Result, Secret};
use zeroize::Zeroizing;

/// Makes a token of 256 random bits: 43 characters of base64 in the alphabet for URLs (RFC 4648 5), without padding.
///
/// # Errors
/// `Internal` if the machine has no random numbers.
pub fn random_token() -> Result<Secret> {
    let mut bits = Zeroizing::new([0; 32]);
    rand::fill(&mut *bits).map_err(|_| Error::internal("the machine has no random numbers"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(*bits)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn tokens_have_256_bits_and_differ() {
        let (one, other) = (super::random_token().unwrap(), super::random_token().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert_ne!(one.expose(), other.expose());
    }
}
