//! Bounded maps of texts: labels, headers, parameters.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;

use serde::{Deserialize, Serialize};

use super::scopes::Scopes;
use super::secret::Secret;
use super::text::{bounded_text, readable};
use crate::error::Violation;

macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(BTreeMap<String, String>);

        impl $name {
            /// Wraps a map that was parsed before it was stored.
            pub fn stored(map: BTreeMap<String, String>) -> Self {
                Self(map)
            }

            /// The entries in the order of their keys.
            pub fn iter(&self) -> Iter<'_, String, String> {
                self.0.iter()
            }

            /// The value of a key.
            pub fn get(&self, key: &str) -> Option<&str> {
                self.0.get(key).map(String::as_str)
            }

            /// Returns true if there is no entry.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// The map itself.
            pub fn as_map(&self) -> &BTreeMap<String, String> {
                &self.0
            }
        }

        impl From<$name> for BTreeMap<String, String> {
            fn from(map: $name) -> Self {
                map.0
            }
        }

        impl<'a> IntoIterator for &'a $name {
            type Item = (&'a String, &'a String);
            type IntoIter = Iter<'a, String, String>;

            fn into_iter(self) -> Self::IntoIter {
                self.0.iter()
            }
        }
    )*};
}

maps! {
    /// Labels for selection: at most 64; keys 1 to 63 characters of letters, digits, "-", "_", ".", "/"; values at most
    /// 128 characters without control characters.
    Labels;
    /// HTTP headers: at most 64; names are tokens (RFC 9110 5.6.2) of at most 128 characters, values at most 4,096 visible
    /// characters. Headers that belong to the connection rather than to the request are refused.
    Headers;
    /// Parameters of authorisation requests (RFC 6749 4.1.1), passed on as they are: at most 64; names 1 to 128, values at
    /// most 2,048 characters. Those that belong to a request of OAuth itself are refused.
    AuthorizationParameters;
    /// Parameters of the request that exchanges a code for tokens (RFC 6749 4.1.3), with the same rules.
    TokenParameters;
    /// Parameters of the request that refreshes tokens (RFC 6749 6), with the same rules.
    RefreshParameters;
}

const MAX_ENTRIES: usize = 64;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 128;
const MAX_HEADER_NAME: usize = 128;
const MAX_HEADER_VALUE: usize = 4_096;
const MAX_PARAMETER_NAME: usize = 128;
const MAX_PARAMETER_VALUE: usize = 2_048;
/// The parameter that has scopes (RFC 6749 3.3).
const SCOPE: &str = "scope";

/// Headers that say how this connection or message is framed (RFC 9110 7.6.1, RFC 9112), and those that follow from the request
/// itself or change how the response is sent.
const REFUSED_HEADERS: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Parameters that say what a request of OAuth is about, who makes it, and what its answer belongs to. They are those of RFC 6749, 7521,
/// 7636, 8628, 9101, 9207 and 9449, of OpenID Connect Core, and of OAuth 2.0 Multiple Response Type Encoding Practices. If one of them could be
/// replaced, the answer would belong to another request, or come another way.
const RESERVED_PARAMETERS: [&str; 23] = [
    "assertion",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "device_code",
    "dpop_jkt",
    "error",
    "grant_type",
    "iss",
    "nonce",
    "redirect_uri",
    "refresh_token",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "state",
    "user_code",
];

/// Returns true for a header that a caller may not set.
pub fn is_refused_header(name: &str) -> bool {
    REFUSED_HEADERS.iter().any(|refused| refused.eq_ignore_ascii_case(name))
}

// === impl Labels ===

impl Labels {
    /// Parses labels; every fault is reported.
    pub fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::from_iter(check_entries(field, map.len()));
        for (key, value) in &map {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            if key.is_empty() || key.len() > MAX_LABEL_KEY || !key.chars().all(allowed) {
                let rule = "must be 1 to 63 letters, digits, \"-\", \"_\", \".\" or \"/\"";
                violations.push(Violation::field(field, format!("key {} {rule}", shown(key))));
            } else {
                violations.extend(bounded_text(&map_entry(field, key), value, MAX_LABEL_VALUE, true).err());
            }
        }
        if violations.is_empty() { Ok(Self(map)) } else { Err(violations) }
    }
}

// === impl Headers ===

impl Headers {
    /// Parses headers; every fault is reported.
    pub fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::from_iter(check_entries(field, map.len()));
        violations.extend(header_names(field, map.keys()));
        violations.extend(map.iter().filter_map(|(name, value)| header_value(field, name, value).err()));
        if violations.is_empty() { Ok(Self(map)) } else { Err(violations) }
    }
}

// === impl AuthorizationParameters ===

impl AuthorizationParameters {
    /// Parses parameters; every fault is reported. The scopes are those of the connection, or of the authorisation.
    pub fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        parameters(field, map, &[SCOPE]).map(Self)
    }
}

// === impl TokenParameters ===

impl TokenParameters {
    /// Parses parameters; every fault is reported.
    pub fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        parameters(field, map, &[]).map(Self)
    }
}

// === impl RefreshParameters ===

impl RefreshParameters {
    /// Parses parameters; every fault is reported.
    pub fn parse(field: &str, map: BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        parameters(field, map, &[]).map(Self)
    }
}

/// Checks parameters of a request of OAuth. `reserved` are names that only this request reserves.
fn parameters(
    field: &str,
    map: BTreeMap<String, String>,
    reserved: &[&str],
) -> Result<BTreeMap<String, String>, Vec<Violation>> {
    let mut violations = Vec::from_iter(check_entries(field, map.len()));
    for (name, value) in &map {
        if bounded_text(field, name, MAX_PARAMETER_NAME, false).is_err() {
            let rule = format!("must be 1 to {MAX_PARAMETER_NAME} characters without control characters");
            violations.push(Violation::field(field, format!("name {} {rule}", shown(name))));
        } else if RESERVED_PARAMETERS.contains(&name.as_str()) || reserved.contains(&name.as_str()) {
            let description = "is reserved: it follows from the connection and the request, and cannot be set";
            violations.push(Violation::field(map_entry(field, name), description));
        } else if name == SCOPE {
            violations.extend(Scopes::parse(&map_entry(field, name), value, MAX_PARAMETER_VALUE).err());
        } else {
            violations.extend(bounded_text(&map_entry(field, name), value, MAX_PARAMETER_VALUE, true).err());
        }
    }
    if violations.is_empty() { Ok(map) } else { Err(violations) }
}

/// Parses headers whose values are secrets, with the limits of [`Headers`]. No violation repeats a value.
pub fn secret_headers(field: &str, map: BTreeMap<String, String>) -> Result<BTreeMap<String, Secret>, Vec<Violation>> {
    let mut violations = Vec::from_iter(check_entries(field, map.len()));
    violations.extend(header_names(field, map.keys()));
    let mut headers = BTreeMap::new();
    for (name, value) in map {
        let checked = header_value(field, &name, &value);
        match checked.and_then(|()| Secret::parse(&map_entry(field, &name), value, MAX_HEADER_VALUE)) {
            Ok(secret) => drop(headers.insert(name, secret)),
            Err(violation) => violations.push(violation),
        }
    }
    if violations.is_empty() { Ok(headers) } else { Err(violations) }
}

/// Checks the name of an HTTP header that a connector sends.
pub fn header_name(field: &str, name: &str) -> Result<String, Violation> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > MAX_HEADER_NAME || !name.chars().all(token) {
        let description = format!("{} is not a header name of 1 to {MAX_HEADER_NAME} characters", shown(name));
        return Err(Violation::field(field, description));
    }
    if is_refused_header(name) {
        let name = shown(name);
        let description =
            format!("header {name} cannot be set: it belongs to the connection or follows from the request");
        return Err(Violation::field(field, description));
    }
    Ok(name.to_owned())
}

/// Finds invalid names of headers, and names that differ only in letter case.
fn header_names<'a>(field: &str, names: impl Iterator<Item = &'a String>) -> Vec<Violation> {
    let mut lower = BTreeMap::new();
    let mut violations = Vec::new();
    for name in names {
        match header_name(field, name) {
            Err(violation) => violations.push(violation),
            Ok(name) => {
                if let Some(other) = lower.insert(name.to_ascii_lowercase(), name.clone()) {
                    let description = format!("header {} is given twice, also as {}", shown(&name), shown(&other));
                    violations.push(Violation::field(field, description));
                }
            }
        }
    }
    violations
}

fn header_value(field: &str, name: &str, value: &str) -> Result<(), Violation> {
    let visible = |byte: u8| (0x20..0x7f).contains(&byte) || byte == b'\t';
    if value.len() > MAX_HEADER_VALUE || !value.bytes().all(visible) || value.trim() != value {
        let description = format!(
            "must be at most {MAX_HEADER_VALUE} visible ASCII characters, not beginning or ending with a blank"
        );
        return Err(Violation::field(map_entry(field, name), description));
    }
    Ok(())
}

/// Refuses a map with too many entries.
pub fn check_entries(field: &str, entries: usize) -> Option<Violation> {
    let description = || format!("must have at most {MAX_ENTRIES} entries");
    (entries > MAX_ENTRIES).then(|| Violation::field(field, description()))
}

/// Path of an entry; a key that is not plain is in backquotes, as in update masks.
pub fn map_entry(field: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { format!("{field}.{key}") } else { format!("{field}.`{}`", readable(key)) }
}

fn shown(key: &str) -> String {
    format!("\"{}\"", readable(key))
}

/// Returns true if two names are those of one header (RFC 9110 5.1).
pub fn same_header(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests;
