//! Identities of several users that are the same: the connections that link them, and the e-mail addresses by which identities are compared.

use serde_json::{Map, Value};

use super::settings::{ConnectionSettings, Linking};
use crate::value::secret::Secret;

// === impl Linking ===

impl Linking {
    /// Returns true if an authorisation of one connection names the users of the other. `is_asked`: the authorisation asks for it.
    pub fn links(self, other: Linking, is_asked: bool) -> bool {
        match (self, other) {
            (Linking::Disabled, _) | (_, Linking::Disabled) => false,
            (Linking::Automatic, Linking::Automatic) => true,
            (Linking::Explicit, _) | (_, Linking::Explicit) => is_asked,
        }
    }
}

// === impl ConnectionSettings ===

impl ConnectionSettings {
    /// Returns true if an authorisation of this connection names other users, at least those of this connection.
    pub fn may_link(&self, is_asked: bool) -> bool {
        self.linking.links(self.linking, is_asked)
    }

    /// Returns true if a profile may have the verified e-mail address that is compared: the claims of the ID token say nothing about it.
    pub fn needs_email(&self, claims: &Map<String, Value>) -> bool {
        self.linking != Linking::Disabled && !has_email(claims)
    }
}

/// The verified e-mail address in the claims of an ID token or else in a profile, as it is compared: without blanks around it, and
/// with ASCII letters in lower case. `None` if the one that has an address does not say that the address is verified. It is personal, so it
/// has no printable form.
pub fn verified_email(claims: &Map<String, Value>, profile: &Map<String, Value>) -> Option<Secret> {
    // What one of them says of its address is not true of the address in the other.
    let source = if has_email(claims) { claims } else { profile };
    let is_verified = match source.get("email_verified")? {
        Value::Bool(is_verified) => *is_verified,
        // Apple sends a text.
        Value::String(text) => text == "true",
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    };
    // Only ASCII: the lower case of U+212A KELVIN SIGN is an ASCII letter, and the address would be that of another person.
    let email = Secret::new(source.get("email")?.as_str()?.trim_ascii().to_ascii_lowercase());
    let parts = email.expose().rsplit_once('@');
    let is_address = parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    (is_verified && is_address).then_some(email)
}

/// Returns true if there is an e-mail address, and a word about its being verified.
fn has_email(members: &Map<String, Value>) -> bool {
    members.get("email").is_some_and(Value::is_string) && members.contains_key("email_verified")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    #[test]
    fn both_connections_allow_it() {
        use Linking::{Automatic, Disabled, Explicit};
        for (one, other, unasked, asked) in [
            (Disabled, Disabled, false, false),
            (Disabled, Explicit, false, false),
            (Disabled, Automatic, false, false),
            (Explicit, Explicit, false, true),
            (Explicit, Automatic, false, true),
            (Automatic, Automatic, true, true),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                let named = [false, true].map(|is_asked| one.links(other, is_asked));
                assert_eq!(named, [unasked, asked], "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn an_address_counts_if_its_source_says_that_it_is_verified() {
        let both = |verified: Value| json!({ "email": "ada@example.com", "email_verified": verified });
        for (claims, profile, expected) in [
            (both(true.into()), json!({}), Some("ada@example.com")),
            (both("true".into()), json!({}), Some("ada@example.com")),
            (both(false.into()), json!({}), None),
            (both("false".into()), json!({}), None),
            (both("True".into()), json!({}), None),
            (both(1.into()), json!({}), None),
            (both(Value::Null), json!({}), None),
            (json!({ "email": "ada@example.com" }), json!({}), None),
            (json!({ "email_verified": true }), json!({}), None),
            (json!({}), both(true.into()), Some("ada@example.com")),
            (json!({}), json!({ "email": "ada@example.com" }), None),
            // An address of one, and a word about that of the other.
            (json!({ "email": "eve@example.com" }), json!({ "email_verified": true }), None),
            (json!({ "email": "eve@example.com" }), both(true.into()), Some("ada@example.com")),
            (both(false.into()), both(true.into()), None),
            (json!({ "email": " Ada@Example.COM\n", "email_verified": true }), json!({}), Some("ada@example.com")),
            (json!({ "email": "ÄDA@example.com", "email_verified": true }), json!({}), Some("Äda@example.com")),
            (
                json!({ "email": "\u{212a}IM@example.com", "email_verified": true }),
                json!({}),
                Some("\u{212a}im@example.com"),
            ),
            (
                json!({ "email": "\u{a0}ada@example.com", "email_verified": true }),
                json!({}),
                Some("\u{a0}ada@example.com"),
            ),
            (json!({ "email": "", "email_verified": true }), json!({}), None),
            (json!({ "email": "unknown", "email_verified": true }), json!({}), None),
            (json!({ "email": "@example.com", "email_verified": true }), json!({}), None),
            (json!({ "email": "ada@", "email_verified": true }), json!({}), None),
            (json!({ "email": ["ada@example.com"], "email_verified": true }), json!({}), None),
        ] {
            let case = format!("{claims} {profile}");
            let found = verified_email(&object(claims), &object(profile));
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{case}");
        }
    }
}
