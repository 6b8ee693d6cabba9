//! JSON objects that say who a user is. Readers differ in which of two members of the same name counts, so an object that has one twice can
//! say one thing to its issuer and another one here. RFC 7519 4 lets a reader refuse such claims.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of an object in which each name is there once. Objects within it do not name a user, so they are not checked.
pub(super) struct Members(pub(super) Map<String, Value>);

/// The visitor of such an object.
struct MembersVisitor;

// === impl Members ===

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
        let mut all = Map::new();
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            // The name is that of another system, so the message does not have it.
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Members(all))
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::value::json;

    use super::*;

    #[test]
    fn a_member_that_is_there_twice_is_refused() {
        let good = r#"{"sub": "u1", "email_verified": false, "Email_verified": true, "inner": {"a": 1, "a": 2}}"#;
        assert_eq!(json::read::<Members>(good).unwrap().0.len(), 4);
        assert!(json::read::<Members>("{}").unwrap().0.is_empty());
        for wrong in [
            r#"{"email_verified": false, "email_verified": true}"#,
            r#"{"sub": "u1", "login": "ada", "sub": "u1"}"#,
            // The same name, written in two ways.
            r#"{"sub": "u1", "s\u0075b": "u2"}"#,
            r#"{"sub": null, "sub": "u1"}"#,
            r#"["sub", "u1"]"#,
            "null",
            "",
        ] {
            assert!(json::read::<Members>(wrong).is_err(), "{wrong}");
            assert!(serde_json::from_slice::<Members>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
