//! The text of a patch.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::{DocumentPatch, Kind, MAX_BYTES, MAX_LEVELS, MAX_OPERATIONS, levels};
use crate::error::Violation;
use crate::value::json;

const NO_LIST: &str = "must be a list of operations (RFC 6902)";
const NO_OPERATION: &str = "needs an \"op\" (add, remove, replace, move, copy or test) and the members that RFC 6902 gives it: \
                            the pointer \"path\", and \"value\" or the pointer \"from\"";

// === impl DocumentPatch ===

impl DocumentPatch {
    /// Reads a JSON Patch (RFC 6902). `field` is the name of the text in violations.
    pub fn operations(field: &str, text: &str) -> Result<Self, Violation> {
        let wrong = |description: String| Violation::field(field, description);
        let Value::Array(list) = read(field, text)? else { return Err(wrong(NO_LIST.to_owned())) };
        if list.len() > MAX_OPERATIONS {
            return Err(wrong(format!("must have at most {MAX_OPERATIONS} operations")));
        }
        let mut operations = Vec::with_capacity(list.len());
        for (index, operation) in list.into_iter().enumerate() {
            // The type is also read from a list of its name and its members.
            let operation = operation.is_object().then(|| serde_json::from_value::<PatchOperation>(operation));
            let Some(Ok(operation)) = operation else {
                return Err(wrong(format!("operation {index} {NO_OPERATION}")));
            };
            operations.push(operation);
        }
        // A value keeps the last of two members with the same name. The text still has both.
        if serde_json::from_str::<Patch>(text).is_err() {
            return Err(wrong("has an operation with a member that is given twice".to_owned()));
        }
        Ok(DocumentPatch { field: field.to_owned(), kind: Kind::Operations(operations) })
    }

    /// Reads a JSON Merge Patch (RFC 7396).
    pub fn merge(field: &str, text: &str) -> Result<Self, Violation> {
        Ok(DocumentPatch { field: field.to_owned(), kind: Kind::Merge(read(field, text)?) })
    }
}

pub(super) fn normalized(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            // A number of JSON is finite.
            let same = number.as_f64().and_then(|value| json::number("", value).ok());
            same.unwrap_or(Value::Number(number))
        }
        Value::Array(list) => Value::Array(list.into_iter().map(normalized).collect()),
        Value::Object(object) => {
            Value::Object(object.into_iter().map(|(key, value)| (key, normalized(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

fn read(field: &str, text: &str) -> Result<Value, Violation> {
    if text.is_empty() {
        return Err(Violation::field(field, "is required"));
    }
    if text.len() > MAX_BYTES {
        return Err(Violation::field(field, format!("is larger than {} KiB", MAX_BYTES / 1024)));
    }
    // The message of the parser would repeat what the caller sent, secrets included.
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let description = format!("is not JSON, or nests too deep: line {}, column {}", error.line(), error.column());
        Violation::field(field, description)
    })?;
    if levels(&value) > MAX_LEVELS {
        return Err(Violation::field(field, format!("nests deeper than {MAX_LEVELS} levels")));
    }
    Ok(normalized(value))
}
