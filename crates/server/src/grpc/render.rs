//! From domain types to messages, as far as several resources share it.

use std::time::Duration;

use jackfield_domain::Timestamp;
use jackfield_domain::value::json::JsonObject;
use prost_types::{ListValue, Struct, value::Kind};
use serde_json::{Map, Value};

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds(), nanos: time.subsec_nanos() }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

/// An empty object reads as absent.
pub(super) fn json(object: JsonObject) -> Option<Struct> {
    let object = Map::from(object);
    (!object.is_empty()).then(|| json_object(object))
}

/// An empty text reads as absent.
pub(super) fn text(text: impl Into<String>) -> Option<String> {
    Some(text.into()).filter(|text| !text.is_empty())
}

pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn json_object(object: Map<String, Value>) -> Struct {
    Struct { fields: object.into_iter().map(|(name, value)| (name, json_value(value))).collect() }
}

fn json_value(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(json_value).collect() }),
        Value::Object(object) => Kind::StructValue(json_object(object)),
    };
    prost_types::Value { kind: Some(kind) }
}
