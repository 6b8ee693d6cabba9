//! A keyring in the value of an environment variable.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::KeyringError;
use crate::keyring::Keyring;

/// Reads the value of a variable: the text form of a keyring, or the same in base64 where a value has to be one line.
/// Reading the variable is the caller's business.
///
/// # Errors
/// As [`Keyring::parse`].
pub fn load(value: &str) -> Result<Keyring, KeyringError> {
    // The text form cannot be taken for base64: it has quotes and blanks.
    let line = value.trim();
    let mut decoded = Zeroizing::new(Vec::with_capacity(line.len()));
    if !line.is_empty() && STANDARD.decode_vec(line, &mut decoded).is_ok() {
        let text = std::str::from_utf8(&decoded)
            .map_err(|_| KeyringError::invalid("keyring", "is base64, but of something that is not text"))?;
        return Keyring::parse(text);
    }
    Keyring::parse(value)
}
