//! Bounded texts. Each is a type of its own that can only be made by parsing, so code that holds one need not check it again.
//!
//! Lengths count characters (Unicode scalar values), not bytes.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

use crate::error::Violation;

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a value that was parsed before it was stored.
            pub fn stored(value: String) -> Self {
                Self(value)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
pub(crate) use texts;

texts! {
    /// A display name, trimmed and without control characters. Names are compared by [`Name::key`].
    Name;
    /// An identifier of the caller's choosing, trimmed, without "ext:" and control characters; 1 to 191 characters.
    ExternalId;
    /// The external id of a connection: 1 to 64 ASCII letters, digits, "-", "_", "." and ":" (Authress connectionId).
    Slug;
    /// The platform's id of a user: 1 to 128 characters, kept exactly as it is.
    UserId;
    /// The name of a tenant: 1 to 63 lower-case letters, digits and "-" (a DNS label that begins with a letter).
    TenantName;
    /// The platform's id of a company: 1 to 128 characters, without control and invisible characters and blanks at the ends.
    CompanyId;
    /// A permission of an application: 1 to 64 ASCII letters, digits, "-", "_", "." and ":".
    PermissionSlug;
    /// An ISO 3166-1 alpha-2 country code in upper case.
    CountryCode;
}

/// Longest name of most resources, in characters.
pub const MAX_NAME: usize = 191;
/// Longest name of a connection (Authress data.name), in characters.
pub const MAX_CONNECTION_NAME: usize = 64;
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1_024;

/// Marks that say in which direction a line runs. Descriptions in Arabic and Hebrew need them; in names they would make two
/// different names look the same.
const DIRECTION_MARKS: [char; 3] = ['\u{61C}', '\u{200E}', '\u{200F}'];

const MAX_EXTERNAL_ID: usize = 191;
const MAX_SLUG: usize = 64;
const MAX_USER_ID: usize = 128;
const MAX_COMPANY_ID: usize = 128;
const MAX_TENANT_NAME: usize = 63;

/// The prefix of an external id in a reference.
pub(crate) const EXTERNAL_PREFIX: &str = "ext:";
const PREFIX_TWICE: &str = "must not begin with \"ext:\" twice";

/// Officially assigned codes of ISO 3166-1.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ \
    FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT \
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP \
    MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE \
    RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV \
    TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

// === impl Name ===

impl Name {
    /// Parses a name of 1 to `max` characters after trimming.
    pub fn parse(field: &str, value: &str, max: usize) -> Result<Self, Violation> {
        bounded_text(field, value.trim(), max, false).map(Self)
    }

    /// The form that names are compared by: two names that differ only in letter case, or in how their characters are composed,
    /// have the same.
    pub fn key(&self) -> String {
        fold(&self.0)
    }
}

// === impl ExternalId ===

impl ExternalId {
    /// Parses an external id; one leading "ext:" is dropped. A second one is refused, because the id would change again
    /// when it is sent back as it was read.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        let value = value.trim();
        let value = value.strip_prefix(EXTERNAL_PREFIX).unwrap_or(value).trim();
        if value.starts_with(EXTERNAL_PREFIX) {
            return Err(Violation::field(field, PREFIX_TWICE));
        }
        bounded_text(field, value, MAX_EXTERNAL_ID, false).map(Self)
    }
}

// === impl Slug ===

impl Slug {
    /// Parses the external id of a connection; a leading "ext:" is treated as [`ExternalId::parse`] does.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        let value = value.strip_prefix(EXTERNAL_PREFIX).unwrap_or(value);
        if value.starts_with(EXTERNAL_PREFIX) {
            return Err(Violation::field(field, PREFIX_TWICE));
        }
        slug(field, value).map(Self)
    }
}

// === impl PermissionSlug ===

impl PermissionSlug {
    /// Parses a permission.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        slug(field, value).map(Self)
    }
}

// === impl CompanyId ===

impl CompanyId {
    /// Parses the id of a company.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        identifier(field, value, MAX_COMPANY_ID, false).map(Self)
    }
}

// === impl UserId ===

impl UserId {
    /// Parses the id of a user. Nothing is trimmed: an id that differs in a blank is another user's.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        let value = bounded_text(field, value, MAX_USER_ID, false)?;
        if value.trim() != value {
            return Err(Violation::field(field, "must not begin or end with a blank"));
        }
        Ok(Self(value))
    }
}

// === impl TenantName ===

impl TenantName {
    /// Parses the name of a tenant.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts_well = value.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts_well || value.len() > MAX_TENANT_NAME || !value.chars().all(allowed) || value.ends_with('-') {
            let description = format!(
                "must be 1 to {MAX_TENANT_NAME} lower-case letters, digits and \"-\", begin with a letter and not end with \"-\""
            );
            return Err(Violation::field(field, description));
        }
        Ok(Self(value.to_owned()))
    }
}

// === impl CountryCode ===

impl CountryCode {
    /// Parses a country code.
    pub fn parse(field: &str, value: &str) -> Result<Self, Violation> {
        if !COUNTRIES.split_ascii_whitespace().any(|code| code == value) {
            return Err(Violation::field(field, "must be an ISO 3166-1 alpha-2 country code in upper case"));
        }
        Ok(Self(value.to_owned()))
    }
}

fn slug(field: &str, value: &str) -> Result<String, Violation> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if value.is_empty() || value.chars().count() > MAX_SLUG || !value.chars().all(allowed) {
        let description = format!("must be 1 to {MAX_SLUG} letters, digits, \"-\", \"_\", \".\" or \":\"");
        return Err(Violation::field(field, description));
    }
    Ok(value.to_owned())
}

/// Checks a line of text: at most `max` characters, no control characters, and not blank unless `allow_empty`. Nothing is
/// trimmed.
pub fn bounded_text(field: &str, value: &str, max: usize, allow_empty: bool) -> Result<String, Violation> {
    checked(field, value, max, allow_empty, is_unprintable)
}

/// Checks an identifier as [`bounded_text`] checks a line, and refuses what is no part of one but is easily copied with it: blanks
/// at the ends and invisible characters.
pub fn identifier(field: &str, value: &str, max: usize, allow_empty: bool) -> Result<String, Violation> {
    let value = bounded_text(field, value, max, allow_empty)?;
    match copied_in(&value) {
        Some(fault) => Err(Violation::field(field, fault)),
        None => Ok(value),
    }
}

/// The fault of an identifier or a token with a blank at one of its ends, which no header value has (RFC 9110 5.5), or with
/// an invisible character.
pub(crate) fn copied_in(value: &str) -> Option<&'static str> {
    if value.trim() != value {
        return Some("must not begin or end with a blank");
    }
    value.contains(|c| is_unprintable(c) || is_joiner(c)).then_some("must not contain invisible characters")
}

/// Checks a text for people: at most 1,024 characters, no control characters except line breaks, tabs and the direction
/// marks of Arabic and Hebrew. It may be empty.
pub fn description(field: &str, value: &str) -> Result<String, Violation> {
    let is_allowed = |c| matches!(c, '\n' | '\r' | '\t') || DIRECTION_MARKS.contains(&c);
    checked(field, value, MAX_DESCRIPTION, true, |c| is_unprintable(c) && !is_allowed(c))
}

/// The form in which texts are compared without regard to letter case and to how characters are composed (Unicode D145, in
/// NFC): "é" is one character or two. The text is converted to upper case in between, because only then do "ß" and "SS", or
/// "ς" and "Σ", become the same.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let lower = text.nfd().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfc().collect()
}

/// The text without characters that have no shape, and with the usual form of others that look alike: wide, circled or small ones
/// (NFKC).
pub(crate) fn plain(text: &str) -> String {
    text.nfkc().filter(|c| !(is_unprintable(*c) || is_joiner(*c))).collect()
}

/// Returns true for a character that a line of text must not hold: control characters, line separators, bidirectional
/// overrides (they make a text look like another one), and invisible characters. Joiners and variation selectors are
/// allowed: in some scripts and in emoji they change what is seen.
pub(crate) fn is_unprintable(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let is_invisible = matches!(
        c,
        '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}' | '\u{200B}' | '\u{200E}'
            | '\u{200F}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
    );
    let is_override = matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_invisible || is_override
}

/// Returns true for a character that cannot be seen by itself, and that texts in some scripts and emoji need: soft hyphens,
/// joiners, variation selectors, the blank of Braille, and the formats of shorthand and musical notation. Together with
/// [`is_unprintable`] these include all of `Default_Ignorable_Code_Point` (Unicode, `DerivedCoreProperties.txt`).
fn is_joiner(c: char) -> bool {
    !c.is_ascii()
        && matches!(
            c,
            '\u{AD}' | '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{200C}' | '\u{200D}' | '\u{2800}' | '\u{FE00}'..='\u{FE0F}'
                | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// A key as it can be shown in an error: what cannot be printed is replaced, and a long key is cut.
pub(crate) fn readable(key: &str) -> String {
    const MAX_SHOWN: usize = 128;
    let mut readable: String =
        key.chars().take(MAX_SHOWN).map(|c| if is_unprintable(c) { '\u{FFFD}' } else { c }).collect();
    if key.chars().nth(MAX_SHOWN).is_some() {
        readable.push('…');
    }
    readable
}

fn checked(
    field: &str,
    value: &str,
    max: usize,
    allow_empty: bool,
    refused: impl Fn(char) -> bool,
) -> Result<String, Violation> {
    if !allow_empty && value.trim().is_empty() {
        return Err(Violation::field(field, "must not be blank"));
    }
    if value.chars().count() > max {
        return Err(Violation::field(field, format!("must be at most {max} characters long")));
    }
    if value.chars().any(refused) {
        return Err(Violation::field(field, "must not contain control or invisible characters"));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests;
