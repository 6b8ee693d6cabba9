//! Scopes of OAuth.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::text::bounded_text;
use crate::error::Violation;

/// OAuth scopes (RFC 6749 3.3) in the order given, each once. Each is a `scope-token`, so that the text that an authorisation server gets
/// has as many scopes as this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Vec<String>);

const MAX_SCOPES: usize = 256;
const MAX_SCOPE: usize = 256;
/// The characters of a scope, as an error names them.
const RULE: &str = "ASCII letters, digits and signs, but no \" and no \\ (RFC 6749 3.3)";

// === impl Scopes ===

impl Scopes {
    /// Parses scopes separated by blanks, at most `max` characters in all; an empty text is no scope.
    pub fn parse(field: &str, value: &str, max: usize) -> Result<Self, Violation> {
        let value = bounded_text(field, value, max, true)?;
        let scopes = || value.split(' ').filter(|scope| !scope.is_empty());
        match scopes().all(is_token) {
            true => Ok(Self::collect(scopes())),
            false => Err(Violation::field(field, format!("must be scopes separated by blanks, each of {RULE}"))),
        }
    }

    /// Parses a list of scopes: at most 256, each of 1 to 256 characters; all that are wrong are reported.
    pub fn parse_list<S: AsRef<str>>(field: &str, values: &[S]) -> Result<Self, Vec<Violation>> {
        if values.len() > MAX_SCOPES {
            return Err(vec![Violation::field(field, format!("must be at most {MAX_SCOPES} scopes"))]);
        }
        let check = |(index, value): (usize, &S)| {
            let (field, value) = (format!("{field}[{index}]"), value.as_ref());
            match bounded_text(&field, value, MAX_SCOPE, false) {
                Ok(_) if !is_token(value) => Some(Violation::field(field, format!("must be one scope, of {RULE}"))),
                checked => checked.err(),
            }
        };
        let violations: Vec<Violation> = values.iter().enumerate().filter_map(check).collect();
        match violations.is_empty() {
            true => Ok(Self::collect(values.iter().map(AsRef::as_ref))),
            false => Err(violations),
        }
    }

    /// The scopes, in order.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    fn collect<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut seen = BTreeSet::new();
        Self(values.filter(|value| seen.insert(*value)).map(str::to_owned).collect())
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// Returns true for a `scope-token` (RFC 6749 3.3 and A.4).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_keep_their_order_and_lose_repeats() {
        let scopes = Scopes::parse("scope", "profile  email openid email ", 384).unwrap();
        assert_eq!(scopes.to_string(), "profile email openid");
        assert!(Scopes::parse("scope", "", 384).unwrap().as_slice().is_empty());
        let many: Vec<_> = (0..257).map(|index| index.to_string()).collect();
        assert!(Scopes::parse_list("scopes", &many[..256]).is_ok() && Scopes::parse_list("scopes", &many).is_err());
        let wrong = Scopes::parse_list("scopes", &["", "a", "b c"]).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["scopes[0]", "scopes[2]"]);
        for wrong in ["", " ", "a b", "a\tb", "a\u{a0}b", &"s".repeat(257)] {
            assert!(Scopes::parse_list("scopes", &[wrong]).is_err(), "{wrong:?}");
        }
        assert!(Scopes::parse("scope", &"a".repeat(384), 384).is_ok(), "the limit is of the whole text");
        assert!(Scopes::parse("scope", &"a".repeat(385), 384).is_err());
        assert!(Scopes::parse("scope", "a\tb", 384).is_err());
    }

    #[test]
    fn a_scope_has_the_characters_that_the_standard_gives_it() {
        for byte in 0..=0xff_u8 {
            let scope = format!("a{}b", char::from(byte));
            let good = byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte);
            assert_eq!(Scopes::parse_list("scopes", &[&scope]).is_ok(), good, "{byte:#x}");
            // A blank separates two of them.
            assert_eq!(Scopes::parse("scope", &scope, 384).is_ok(), good || byte == b' ', "{byte:#x}");
        }
        let url = "https://www.googleapis.com/auth/drive.readonly";
        assert!(Scopes::parse_list("scopes", &[url, "read:user", "api://id/.default", "user:email,gist"]).is_ok());
        let wrong = Scopes::parse_list("scopes", &["a\"b"]).unwrap_err();
        let rule = "must be one scope, of ASCII letters, digits and signs, but no \" and no \\ (RFC 6749 3.3)";
        assert_eq!((wrong[0].field.as_str(), wrong[0].description.as_str()), ("scopes[0]", rule));
    }
}
