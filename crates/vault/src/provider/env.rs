//! A keyring in the value of an environment variable.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::KeyringError;
use crate::keyring::Keyring;

/// Reads the value of a variable: the text form of a keyring, or the same in base64, on one line or wrapped as `base64`
/// wraps it. The caller reads the variable.
///
/// # Errors
/// As [`Keyring::parse`].
pub fn load(value: &str) -> Result<Keyring, KeyringError> {
    if value.trim().is_empty() {
        return Err(KeyringError::invalid("keyring", "is empty: nothing is in the variable"));
    }
    if value.contains("\\n") && !value.contains('\n') {
        let reason = "has the two characters \\n where its lines should break: give it with line breaks, or in base64";
        return Err(KeyringError::invalid("keyring", reason));
    }
    // The text form cannot be mistaken for base64: it has quotes and equals signs within it.
    let mut line = Zeroizing::new(String::with_capacity(value.len()));
    line.extend(value.split_ascii_whitespace());
    let mut decoded = Zeroizing::new(Vec::with_capacity(line.len()));
    if STANDARD.decode_vec(line.as_bytes(), &mut decoded).is_ok() {
        let text = std::str::from_utf8(&decoded)
            .map_err(|_| KeyringError::invalid("keyring", "is base64, but of something that is not text"))?;
        return Keyring::parse(text);
    }
    // Some shells and files leave a carriage return at the end, which TOML refuses.
    Keyring::parse(value.trim_end())
}
