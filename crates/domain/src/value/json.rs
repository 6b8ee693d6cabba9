//! JSON objects that callers keep with a resource, whose limits bound the work of every reader; and the reading of JSON that others send.

mod objects_only;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::objects_only::ObjectsOnly;
use crate::error::Violation;

/// A JSON object of any shape: at most 16 levels, 2,000 values, 64 keys per object, 64 KiB as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonObject(Map<String, Value>);

/// Levels of objects and lists, the outermost included.
pub const MAX_LEVELS: usize = 16;
/// Values, those of inner objects and lists included.
pub const MAX_VALUES: usize = 2_000;
/// Keys of one object.
pub const MAX_KEYS: usize = 64;
/// Bytes as compact JSON.
pub const MAX_BYTES: usize = 64 * 1024;
const BYTE_ORDER_MARK: char = '\u{feff}';

// === impl JsonObject ===

impl JsonObject {
    /// Checks an object against the limits. Numbers are finite already: `Value` has no other.
    pub fn parse(field: &str, object: Map<String, Value>) -> Result<Self, Violation> {
        let mut values = 0;
        let object = JsonObject(object);
        match check_object(&object.0, 1, &mut values) {
            Err(description) => Err(Violation::field(field, description)),
            Ok(()) if object.size() > MAX_BYTES => {
                Err(Violation::field(field, format!("is larger than {} KiB", MAX_BYTES / 1024)))
            }
            Ok(()) => Ok(object),
        }
    }

    /// Wraps an object that was checked before it was stored.
    pub fn stored(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// The object itself.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns true if it has no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes as compact JSON.
    pub fn size(&self) -> usize {
        serde_json::to_vec(&self.0).map_or(usize::MAX, |json| json.len())
    }
}

impl From<JsonObject> for Map<String, Value> {
    fn from(object: JsonObject) -> Self {
        object.0
    }
}

/// Reads a text of JSON that someone else wrote. A struct is an object there, at each level: a list of its fields in order, which
/// `serde_json::from_str` takes as well, is an error. A byte order mark at its beginning is skipped (RFC 8259 8.1).
///
/// # Errors
/// The text is not JSON, or not of this type. The message may quote it.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(without_mark(text));
    let value = T::deserialize(ObjectsOnly(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// A text of JSON that someone else wrote, without a byte order mark at its beginning (RFC 8259 8.1).
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// A JSON number, or what is wrong with it: JSON has neither infinities nor NaN.
pub fn number(field: &str, value: f64) -> Result<Value, Violation> {
    // Whole numbers stay whole: `1` and not `1.0`. Beyond 2^53 one f64 represents several of them.
    const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= MAX_WHOLE && !(value == 0.0 && value.is_sign_negative()) {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        return Ok(Value::from(value as i64));
    }
    match serde_json::Number::from_f64(value) {
        Some(number) => Ok(Value::Number(number)),
        None => Err(Violation::field(field, "must not hold numbers that are infinite or not a number")),
    }
}

fn check_object(object: &Map<String, Value>, level: usize, values: &mut usize) -> Result<(), String> {
    if object.len() > MAX_KEYS {
        return Err(format!("has an object with more than {MAX_KEYS} keys"));
    }
    check_members(object.values(), level, values)
}

fn check_members<'a>(members: impl Iterator<Item = &'a Value>, level: usize, values: &mut usize) -> Result<(), String> {
    if level > MAX_LEVELS {
        return Err(format!("nests deeper than {MAX_LEVELS} levels"));
    }
    for member in members {
        *values += 1;
        if *values > MAX_VALUES {
            return Err(format!("holds more than {MAX_VALUES} values"));
        }
        match member {
            Value::Object(object) => check_object(object, level + 1, values)?,
            Value::Array(list) => check_members(list.iter(), level + 1, values)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<JsonObject, Violation> {
        let Value::Object(object) = value else { panic!("an object is needed") };
        JsonObject::parse("connector.data", object)
    }

    fn nested(levels: usize, list: bool) -> Value {
        let inner = (2..levels).fold(json!({}), |inner, _| if list { json!([inner]) } else { json!({ "a": inner }) });
        if levels > 1 { json!({ "a": inner }) } else { json!({}) }
    }

    #[test]
    fn limits_hold_exactly() {
        for list in [false, true] {
            assert!(parse(nested(16, list)).is_ok());
            assert_eq!(parse(nested(17, list)).unwrap_err().description, "nests deeper than 16 levels");
        }
        let keys = |count: usize| (0..count).map(|key| (key.to_string(), json!(1))).collect::<Map<_, _>>();
        assert!(parse(json!({ "inner": keys(64) })).is_ok());
        assert_eq!(
            parse(json!({ "inner": keys(65) })).unwrap_err().description,
            "has an object with more than 64 keys"
        );
        assert!(parse(json!({ "list": vec![1; 1_999] })).is_ok());
        assert_eq!(parse(json!({ "list": vec![1; 2_000] })).unwrap_err().description, "holds more than 2000 values");
        assert!(parse(json!({ "a": "x".repeat(MAX_BYTES - 8) })).is_ok());
        assert_eq!(parse(json!({ "a": "x".repeat(MAX_BYTES - 7) })).unwrap_err().description, "is larger than 64 KiB");
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        name: String,
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        map: std::collections::HashMap<String, Box<Inner>>,
        #[serde(default)]
        pair: Option<(u8, Inner)>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: i64,
        b: Option<f64>,
    }

    #[test]
    fn a_struct_is_read_from_an_object_alone() {
        let good = r#"{"name": "\u00e9", "inner": {"a": -1, "b": 0.5}, "list": [{"a": 1}], "map": {"x": {"a": 2}},
            "pair": [3, {"a": 4}], "more": [[1]]}"#;
        let outer: Outer = read(good).unwrap();
        assert_eq!(outer, serde_json::from_str(good).unwrap());
        assert_eq!((&*outer.name, outer.inner), ("é", Some(Inner { a: -1, b: Some(0.5) })));
        assert_eq!(read::<Vec<Inner>>(r#"[{"a": 1}, {"a": 2, "b": null}]"#).unwrap().len(), 2);
        for list in [
            r#"["x", null, [], {}, null]"#,
            r#"{"name": "x", "inner": [1, 2]}"#,
            r#"{"name": "x", "list": [[1, 2]]}"#,
            r#"{"name": "x", "list": [{"a": 1}, [1, 2]]}"#,
            r#"{"name": "x", "map": {"y": [1, 2]}}"#,
            r#"{"name": "x", "pair": [3, [1, 2]]}"#,
        ] {
            assert!(serde_json::from_str::<Outer>(list).is_ok(), "serde itself reads {list}");
            let error = read::<Outer>(list).unwrap_err();
            assert!(error.is_data() && error.line() == 1, "{list}: {error:?}");
        }
    }

    #[test]
    fn what_serde_refuses_is_refused() {
        for wrong in [
            "",
            "{",
            "null",
            r#"{"name": "x"} 1"#,
            r#"{"name": "x", "name": "y"}"#,
            r#"{"name": 1}"#,
            r#"{"name": "x", "list": {"a": 1}}"#,
            r#"{"name": "x", "list": [{"a": 1.0}]}"#,
            r#"{"name": "x", "pair": [3, {"a": 4}, 5]}"#,
            &format!(r#"{{"name": {}"#, "[".repeat(100_000)),
        ] {
            let (ours, theirs) = (read::<Outer>(wrong).unwrap_err(), serde_json::from_str::<Outer>(wrong).unwrap_err());
            assert_eq!(ours.classify(), theirs.classify(), "{wrong}");
        }
        let ignored = format!(r#"{{"x": {}{}, "name": "x"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(read::<Outer>(&ignored).is_ok(), "an unknown member is passed over");
    }

    #[test]
    fn a_byte_order_mark_at_the_beginning_is_skipped() {
        let inner: Inner = read("\u{feff}{\"a\": 1}").unwrap();
        assert_eq!((inner.a, inner.b), (1, None));
        for wrong in ["\u{feff}", "\u{feff}\u{feff}{\"a\": 1}", " \u{feff}{\"a\": 1}", "{\"a\": 1}\u{feff}"] {
            assert!(read::<Inner>(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn size_counts_escapes() {
        assert!(parse(json!({ "a": "\u{1}".repeat(MAX_BYTES / 6) })).is_err());
    }

    #[test]
    fn numbers_are_finite_and_whole_ones_stay_whole() {
        assert_eq!(number("data", 3.0), Ok(json!(3)));
        assert_eq!(number("data", -9_007_199_254_740_992.0), Ok(json!(-9_007_199_254_740_992_i64)));
        assert_eq!(number("data", 0.5), Ok(json!(0.5)));
        assert_eq!(number("data", 1e300), Ok(json!(1e300)));
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(number("data", wrong).is_err());
        }
    }
}
