//! Login ids: the user name, the email address and the phone number that a user can log in with. All of them share one name
//! space in a tenant, so what a user types names at most one user.

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::value::text::{MAX_NAME, fold, identifier, texts};

texts! {
    /// A user name, trimmed: 1 to 191 characters, without control and invisible characters. One that is a phone number is kept as
    /// one.
    Username;
    /// An email address, trimmed: at most 254 characters (RFC 5321 4.5.3.1.3), with an "@" and no blanks.
    EmailAddress;
    /// A phone number in the international form of E.164: "+" and 7 to 15 digits.
    PhoneNumber;
}

/// The longest email address, in characters.
const MAX_EMAIL: usize = 254;
const MIN_PHONE_DIGITS: usize = 7;
const MAX_PHONE_DIGITS: usize = 15;

/// The form in which login ids are compared: a phone number without what people write between its digits, any other text
/// without regard to letter case and to how characters are composed.
pub fn login_key(text: &str) -> String {
    international_number(text).unwrap_or_else(|| fold(text.trim()))
}

// === impl Username ===

impl Username {
    /// Parses a user name.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let text = international_number(text).unwrap_or_else(|| text.trim().to_owned());
        identifier(field, &text, MAX_NAME, false).map(Self)
    }
}

// === impl EmailAddress ===

impl EmailAddress {
    /// Parses an email address. Only its shape is checked: whether it exists is known to its mail server alone.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let text = identifier(field, text.trim(), MAX_EMAIL, false)?;
        match text.rsplit_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace) => {
                Ok(Self(text))
            }
            _ => Err(Violation::field(field, "must be an email address, such as name@example.com")),
        }
    }
}

// === impl PhoneNumber ===

impl PhoneNumber {
    /// Parses a phone number. Blanks, "-", ".", "/", "(" and ")" between its digits are dropped.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let wrong = || {
            let rule = format!("must be \"+\" and {MIN_PHONE_DIGITS} to {MAX_PHONE_DIGITS} digits (E.164)");
            Violation::field(field, rule)
        };
        international_number(text).map(Self).ok_or_else(wrong)
    }
}

/// "+" and the digits of a text that is a phone number in the international form; `None` for any other text.
fn international_number(text: &str) -> Option<String> {
    let rest = text.trim().strip_prefix('+')?;
    let is_between = |c: char| matches!(c, ' ' | '-' | '.' | '/' | '(' | ')');
    let digits: String = rest.chars().filter(|c| !is_between(*c)).take(MAX_PHONE_DIGITS + 1).collect();
    let is_number = (MIN_PHONE_DIGITS..=MAX_PHONE_DIGITS).contains(&digits.len())
        && digits.chars().all(|c| c.is_ascii_digit())
        && !digits.starts_with('0');
    is_number.then(|| format!("+{digits}"))
}
