//! Passwords of users.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_public_assigned;
use zeroize::Zeroizing;

use crate::error::Violation;
use crate::value::secret::Secret;

/// A password in NFKC, so that it is the same on every keyboard (NIST SP 800-63B-4 3.1.1.2). Only its hash is stored.
#[derive(Debug)]
pub struct Password(Secret);

/// The longest password, in bytes as it is sent.
pub const MAX_PASSWORD_BYTES: usize = 1_024;
/// The shortest password that can be set, in characters. NIST SP 800-63B-4 3.1.1.2 asks for 8 at least, and for 15 where
/// nothing but the password is checked, which only the platform knows.
pub const MIN_PASSWORD_CHARS: usize = 8;

// === impl Password ===

impl Password {
    /// Parses a password that is to be set: 8 characters to 1,024 bytes, neither blank nor a masked placeholder.
    pub fn chosen(field: &str, text: String) -> Result<Self, Violation> {
        let password = Self::given(field, text)?;
        let text = password.0.expose();
        if text.chars().count() < MIN_PASSWORD_CHARS {
            let rule = format!("must be at least {MIN_PASSWORD_CHARS} characters long");
            return Err(Violation::field(field, rule));
        }
        // The length is checked already.
        Secret::parse(field, text.to_owned(), usize::MAX)?;
        Ok(password)
    }

    /// Parses a password that someone logs in with: 1 to 1,024 bytes. A password that could not be set is compared all the same.
    pub fn given(field: &str, text: String) -> Result<Self, Violation> {
        let text = Zeroizing::new(text);
        if text.is_empty() {
            return Err(Violation::field(field, "must not be empty"));
        }
        if text.len() > MAX_PASSWORD_BYTES {
            return Err(Violation::field(field, format!("must be at most {MAX_PASSWORD_BYTES} bytes long")));
        }
        Ok(Self(Secret::new(normalized(&text))))
    }

    /// The password itself. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Makes another holder of the same password.
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }
}

/// The text in NFKC. The memory of the result is taken once, so that growing leaves no copies behind. A text with characters
/// that Unicode has not assigned stays as it is: a later version of Unicode could normalise it in another way.
fn normalized(text: &str) -> String {
    if text.is_ascii() || !text.chars().all(is_public_assigned) {
        return text.to_owned();
    }
    let mut normalized = String::with_capacity(text.nfkc().map(char::len_utf8).sum());
    normalized.extend(text.nfkc());
    normalized
}
