//! Accounts of organisations, as providers tell them from those of consumers.

use serde_json::{Map, Value};

/// The tenant of all personal accounts at Microsoft.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// Returns true if the claims of an ID token, or the members of a profile, name the organisation of the account: its domain (Google's
/// `hd`), or its tenant (Microsoft's `tid`). A provider that says neither may have sent the account of a consumer.
pub fn is_business_account(claims: &Map<String, Value>, profile: &Map<String, Value>) -> bool {
    let text = |name| {
        let value = claims.get(name).or_else(|| profile.get(name)).and_then(Value::as_str);
        value.map(str::trim).filter(|text| !text.is_empty())
    };
    text("hd").is_some() || text("tid").is_some_and(|tenant| !tenant.eq_ignore_ascii_case(CONSUMERS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_of_an_organisation_names_it() {
        let none = Map::new();
        for (members, expected) in [
            (json!({}), false),
            (json!({ "email": "ada@example.com" }), false),
            (json!({ "hd": "example.com" }), true),
            (json!({ "hd": " " }), false),
            (json!({ "hd": true }), false),
            (json!({ "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47" }), true),
            (json!({ "tid": CONSUMERS }), false),
            (json!({ "tid": CONSUMERS.to_uppercase() }), false),
            (json!({ "tid": null }), false),
        ] {
            let Value::Object(members) = members else { panic!("an object") };
            assert_eq!(is_business_account(&members, &none), expected, "{members:?}");
            assert_eq!(is_business_account(&none, &members), expected, "{members:?}");
        }
        // What is signed counts.
        let Value::Object(consumer) = json!({ "tid": CONSUMERS }) else { panic!("an object") };
        let Value::Object(other) = json!({ "tid": "t" }) else { panic!("an object") };
        assert!(!is_business_account(&consumer, &other));
    }
}
