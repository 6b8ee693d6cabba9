//! Templates of user ids: names of claims in braces, with text around them, such as `{tid}|{sub}`.

use serde_json::{Map, Value};

use super::settings::DEFAULT_USER_ID_EXPRESSION;
use crate::error::Violation;
use crate::value::text::bounded_text;

/// The longest user id of a provider, in characters.
pub const MAX_PROVIDER_USER_ID: usize = 256;

/// The reason why a template yields no user id. No message has a value: a claim may be personal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserIdFault {
    /// Neither the claims nor the profile have the name.
    #[error("{{{0}}} is neither in the claims nor in the profile")]
    Missing(String),
    /// The value is null, a list, an object, or a number with a fraction. Two users could have the same text for it.
    #[error("{{{0}}} is not a text, a whole number or a boolean")]
    NotScalar(String),
    #[error("{{{0}}} is empty")]
    Empty(String),
    /// The template was not checked before it was stored.
    #[error("the template {0}")]
    Template(&'static str),
    /// The rule of texts that the user id breaks.
    #[error("the user id {0}")]
    Unusable(String),
}

// === impl UserIdFault ===

impl UserIdFault {
    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            UserIdFault::Missing(_) => "USER_ID_MISSING",
            UserIdFault::NotScalar(_) => "USER_ID_NOT_SCALAR",
            UserIdFault::Empty(_) => "USER_ID_EMPTY",
            UserIdFault::Template(_) => "USER_ID_EXPRESSION_INVALID",
            UserIdFault::Unusable(_) => "USER_ID_UNUSABLE",
        }
    }
}

enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Checks a template for user ids: names in braces, with text around them. A template without a name would give all users
/// the same id.
///
/// # Errors
/// The template is none.
pub fn check_user_id_expression(field: &str, expression: &str) -> Result<(), Violation> {
    pieces(expression).map(drop).map_err(|fault| Violation::field(field, fault))
}

/// The user id at a provider, by a template over the claims of an ID token and the members of a profile. A name that is in both is
/// that of the claims, which are signed. An empty template is the default one.
///
/// # Errors
/// A name has no value, or no usable one.
pub fn user_id_of(
    expression: &str,
    claims: &Map<String, Value>,
    profile: &Map<String, Value>,
) -> Result<String, UserIdFault> {
    let expression = if expression.is_empty() { DEFAULT_USER_ID_EXPRESSION } else { expression };
    let mut text = String::new();
    for piece in pieces(expression).map_err(UserIdFault::Template)? {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Name(name) => {
                let value = claims.get(name).or_else(|| profile.get(name));
                text.push_str(&scalar(name, value.ok_or_else(|| UserIdFault::Missing(name.to_owned()))?)?);
            }
        }
    }
    let unusable = |violation: Violation| UserIdFault::Unusable(violation.description.to_string());
    bounded_text("user_id", &text, MAX_PROVIDER_USER_ID, false).map_err(unusable)
}

/// The text of a value that has exactly one.
fn scalar(name: &str, value: &Value) -> Result<String, UserIdFault> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(UserIdFault::Empty(name.to_owned())),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        // A number beyond 64 bits is read as the nearest one with a fraction.
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(UserIdFault::NotScalar(name.to_owned()))
        }
    }
}

fn pieces(expression: &str) -> Result<Vec<Piece<'_>>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = expression;
    let mut has_name = false;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        match inner {
            Some((name, _)) if name.trim().is_empty() => return Err("has empty braces"),
            Some((name, after)) if !name.contains('{') => {
                pieces.push(Piece::Name(name.trim()));
                rest = after;
            }
            _ => return Err("has unbalanced or nested braces"),
        }
        has_name = true;
    }
    if !has_name {
        return Err("must have at least one name in braces, such as {sub}");
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    fn evaluated(expression: &str) -> Result<String, UserIdFault> {
        let claims = object(json!({
            "sub": "s-1", "tid": "t", "n": 9_007_199_254_740_993_u64, "minus": -1, "yes": true, "null": null,
            "list": ["a"], "map": { "a": 1 }, "half": 0.5, "one": 1.0, "empty": "", "blank": " ", "long": "x".repeat(257),
            "line": "a\nb", "https://a.example/id": "u", "Sub": "other",
        }));
        let profile = object(json!({ "sub": "profile", "login": "octo", "id": 583_231 }));
        user_id_of(expression, &claims, &profile)
    }

    #[test]
    fn a_template_yields_a_user_id() {
        for (expression, expected) in [
            ("{sub}", "s-1"),
            ("", "s-1"),
            ("{tid}|{sub}", "t|s-1"),
            ("a-{ sub }-{sub}z", "a-s-1-s-1z"),
            ("{n}", "9007199254740993"),
            ("{minus}{yes}", "-1true"),
            ("{https://a.example/id}", "u"),
            ("github|{id}|{login}", "github|583231|octo"),
            ("{Sub}", "other"),
        ] {
            assert_eq!(evaluated(expression).as_deref(), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn a_value_that_is_not_there_or_has_no_text_is_named() {
        let named = |name: &str| name.to_owned();
        for (expression, expected) in [
            ("{tid}|{oid}", UserIdFault::Missing(named("oid"))),
            ("{null}", UserIdFault::NotScalar(named("null"))),
            ("{list}", UserIdFault::NotScalar(named("list"))),
            ("{map}", UserIdFault::NotScalar(named("map"))),
            ("{half}", UserIdFault::NotScalar(named("half"))),
            ("{one}", UserIdFault::NotScalar(named("one"))),
            ("{tid}{empty}", UserIdFault::Empty(named("empty"))),
            ("{tid}{blank}", UserIdFault::Empty(named("blank"))),
            ("{long}", UserIdFault::Unusable(named("must be at most 256 characters long"))),
            ("{line}", UserIdFault::Unusable(named("must not contain control or invisible characters"))),
            ("sub", UserIdFault::Template("must have at least one name in braces, such as {sub}")),
        ] {
            assert_eq!(evaluated(expression), Err(expected), "{expression}");
        }
        assert_eq!(UserIdFault::Missing(named("oid")).to_string(), "{oid} is neither in the claims nor in the profile");
    }

    #[test]
    fn a_template_has_names_in_braces() {
        for good in ["{sub}", "{tid}|{sub}", "x{a}y{b}z", "{a b}"] {
            assert!(check_user_id_expression("user_id_expression", good).is_ok(), "{good}");
        }
        for (wrong, expected) in [
            ("sub", "must have at least one name in braces, such as {sub}"),
            ("", "must have at least one name in braces, such as {sub}"),
            ("{}", "has empty braces"),
            ("{sub}{ }", "has empty braces"),
            ("{sub", "has unbalanced or nested braces"),
            ("sub}", "has unbalanced or nested braces"),
            ("{a{b}}", "has unbalanced or nested braces"),
            ("{sub}}", "has unbalanced or nested braces"),
        ] {
            assert_eq!(check_user_id_expression("f", wrong).unwrap_err().description, expected, "{wrong}");
        }
    }
}
