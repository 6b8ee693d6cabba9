//! A URL that hides its password.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A URL that may hold a password. Printing it in any way hides what is between `//` and `@`, and the query.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretUrl(String);

// === impl SecretUrl ===

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        SecretUrl(url.into())
    }

    /// Returns the URL itself, password included. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the URL without user information and query. Everything before the last `@` may be a password, even in a text
    /// that is not a URL.
    pub fn redacted(&self) -> String {
        let (url, query) = match self.0.split_once('?') {
            Some((url, query)) => (url, Some(query)),
            None => (self.0.as_str(), None),
        };
        // Where it is not clear what is a query and what a password, nothing is shown.
        if query.is_some_and(|query| query.contains('@')) {
            return format!("{}[redacted]", scheme(url));
        }
        let url = match url.rsplit_once('@') {
            Some((before, rest)) => format!("{}[redacted]@{rest}", scheme(before)),
            None => url.to_owned(),
        };
        if query.is_some() { format!("{url}?[redacted]") } else { url }
    }
}

/// The scheme of a URL with what follows it up to the authority (RFC 3986); nothing if there is none.
fn scheme(url: &str) -> &str {
    let Some((scheme, rest)) = url.split_once(':') else { return "" };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return "";
    }
    let slashes = if rest.starts_with("//") { 2 } else { 0 };
    &url[..scheme.len() + 1 + slashes]
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(SecretUrl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_hide_passwords() {
        for (url, shown) in [
            ("postgres://me:hunter2@db.example:5432/jackfield", "postgres://[redacted]@db.example:5432/jackfield"),
            ("postgres://me:hun@ter2@db/j?password=hunter2", "postgres://[redacted]@db/j?[redacted]"),
            ("sqlite:data/jackfield.sqlite3", "sqlite:data/jackfield.sqlite3"),
            ("", ""),
            ("postgres:/me:hunter2@db/j", "postgres:[redacted]@db/j"),
            ("postgres:me:hunter2//@db/j", "postgres:[redacted]@db/j"),
            ("hunter 2:x@db", "[redacted]@db"),
            ("postgres://me:hun?ter2@db/j", "postgres://[redacted]"),
            ("postgres://me@db/j?password=hun@ter2", "postgres://[redacted]"),
        ] {
            let url = SecretUrl::new(url);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_value(&url).unwrap(), shown);
        }
    }
}
