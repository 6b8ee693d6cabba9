//! Secrets as a type: no printable form, no copy, no serialisation, wiped when dropped.

use zeroize::Zeroizing;

use crate::error::Violation;
use crate::value::text::copied_in;

/// A secret text. It can be read only through [`Secret::expose`], which a reviewer can search for.
pub struct Secret(Zeroizing<String>);

/// A change of a stored secret. An absent value keeps it; clearing is an explicit act, because secrets are write-only.
#[derive(Debug, Default)]
pub enum SecretPatch<S = Secret> {
    /// Leave the stored secret as it is.
    #[default]
    Keep,
    /// Replace it.
    Set(S),
    /// Remove it.
    Clear,
}

// === impl Secret ===

impl Secret {
    /// Wraps a text that is known to be good, such as one that was just opened.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Checks a text that a caller sent: 1 to `max_chars` characters, not blank, and not a masked placeholder.
    pub fn parse(field: &str, value: String, max_chars: usize) -> Result<Self, Violation> {
        let secret = Self::new(value);
        let value = secret.expose();
        if value.is_empty() {
            return Err(Violation::field(field, "must not be empty"));
        }
        if value.trim().is_empty() {
            return Err(Violation::field(field, "must not be blank"));
        }
        if value.chars().count() > max_chars {
            return Err(Violation::field(field, format!("must be at most {max_chars} characters long")));
        }
        if is_placeholder(value) {
            return Err(Violation::placeholder(field));
        }
        Ok(secret)
    }

    /// Checks a text as [`Secret::parse`] does, and refuses control characters: the secret is sent in a header or a form,
    /// and they could end the header and begin another.
    pub fn parse_line(field: &str, value: String, max_chars: usize) -> Result<Self, Violation> {
        let secret = Self::parse(field, value, max_chars)?;
        if secret.expose().contains(char::is_control) {
            return Err(Violation::field(field, "must not contain control characters"));
        }
        Ok(secret)
    }

    /// Checks a token or key as [`Secret::parse_line`] does, and refuses what is no part of one but is easily copied with
    /// it: blanks at the ends and invisible characters.
    pub fn parse_token(field: &str, value: String, max_chars: usize) -> Result<Self, Violation> {
        let secret = Self::parse_line(field, value, max_chars)?;
        match copied_in(secret.expose()) {
            Some(fault) => Err(Violation::field(field, fault)),
            None => Ok(secret),
        }
    }

    /// The secret itself. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Makes another holder of the same secret. There is no `Clone`, so that copies are made on purpose.
    pub fn duplicate(&self) -> Self {
        Self::new(self.0.to_string())
    }
}

// === impl SecretPatch ===

impl SecretPatch {
    /// The secret after the change.
    #[must_use]
    pub fn applied(self, stored: Option<Secret>) -> Option<Secret> {
        match self {
            SecretPatch::Keep => stored,
            SecretPatch::Set(secret) => Some(secret),
            SecretPatch::Clear => None,
        }
    }
}

impl<S> SecretPatch<S> {
    /// Changes the flag which says that a secret is stored.
    pub(crate) fn apply_to_flag(&self, is_set: &mut bool) {
        match self {
            SecretPatch::Keep => {}
            SecretPatch::Set(_) => *is_set = true,
            SecretPatch::Clear => *is_set = false,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Returns true for a text that user interfaces show in place of a secret. Storing one would destroy the real secret.
fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    let masked = |c: char| matches!(c, '*' | '•' | '●' | '·' | 'x' | 'X' | '.');
    let all_masked = value.chars().count() >= 3 && value.chars().all(masked) && {
        let first = value.chars().next();
        value.chars().all(|c| Some(c) == first)
    };
    let bare = value.trim_matches(|c: char| matches!(c, '[' | ']' | '<' | '>' | '(' | ')' | '{' | '}' | '*' | '_'));
    all_masked
        || ["redacted", "masked", "hidden", "secret_redacted", "unchanged", "filtered"]
            .iter()
            .any(|word| bare.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ViolationKind;

    #[test]
    fn placeholders_are_refused_and_real_secrets_are_not() {
        for placeholder in ["****", "********", "REDACTED", "[redacted]", "<masked>", "•••••", "xxxx", "**REDACTED**"]
        {
            assert!(Secret::parse("password", placeholder.into(), 99).is_err(), "{placeholder}");
        }
        for real in ["basicPassword", "a*b*c", "*1*", "xxy", "hunter2", "..x", "**"] {
            assert!(Secret::parse("password", real.into(), 99).is_ok(), "{real}");
        }
    }

    #[test]
    fn a_blank_secret_is_called_blank_and_a_line_has_no_controls() {
        for blank in [" ", " \t\n"] {
            let violation = Secret::parse("password", blank.into(), 99).unwrap_err();
            assert_eq!((&*violation.description, violation.kind), ("must not be blank", ViolationKind::Field));
        }
        for broken in ["a\r\nX-Injected: 1", "a\0", "\u{85}a"] {
            assert!(Secret::parse("password", broken.into(), 99).is_ok());
            assert!(Secret::parse_line("password", broken.into(), 99).is_err(), "{broken:?}");
        }
        assert!(Secret::parse_line("password", "pass wörd".into(), 99).is_ok());
    }

    #[test]
    fn a_token_has_no_blank_at_its_ends_and_nothing_invisible() {
        for (slip, expected) in [
            (" k", "must not begin or end with a blank"),
            ("k ", "must not begin or end with a blank"),
            ("k\u{a0}", "must not begin or end with a blank"),
            ("\u{3000}k", "must not begin or end with a blank"),
            ("\u{feff}k", "must not contain invisible characters"),
            ("k\u{200b}", "must not contain invisible characters"),
            ("k\u{200d}k", "must not contain invisible characters"),
            ("k\u{fe0f}", "must not contain invisible characters"),
            ("k\u{ad}k", "must not contain invisible characters"),
            ("\u{200b}", "must not contain invisible characters"),
            ("k\n", "must not contain control characters"),
            (" ", "must not be blank"),
        ] {
            let violation = Secret::parse_token("api_key", slip.into(), 99).unwrap_err();
            assert_eq!((violation.field.as_ref(), violation.description.as_ref()), ("api_key", expected), "{slip:?}");
        }
        for good in ["k", "two words", "clé", "sk-live_/+=~.Z"] {
            assert!(Secret::parse_token("api_key", good.into(), 99).is_ok(), "{good}");
        }
    }

    #[test]
    fn length_counts_characters() {
        assert!(Secret::parse("password", "ä".repeat(10), 10).is_ok());
        assert!(Secret::parse("password", "ä".repeat(11), 10).is_err());
        assert!(Secret::parse("password", String::new(), 10).is_err());
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", SecretPatch::Set(Secret::new("canary".into()))), "Set([redacted])");
    }
}
