//! Patches of JSON documents: JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7396).
//!
//! A document has secrets beside it. A patch can set and remove them, and cannot read them: they are never in the value that
//! tests and copies look at.

mod parse;
mod secrets;

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, PatchErrorKind, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value;

use crate::error::Violation;
use crate::value::text::readable;

pub use json_patch::jsonptr::PointerBuf;
pub use secrets::{SecretChange, SecretPath, Secrets};

/// A patch of a document.
pub struct DocumentPatch {
    /// The field of the request, for violations.
    field: String,
    kind: Kind,
}

enum Kind {
    /// RFC 6902.
    Operations(Vec<PatchOperation>),
    /// RFC 7396.
    Merge(Value),
}

/// A JSON document.
pub struct Document {
    /// Everything but the secrets.
    pub value: Value,
    pub secrets: Secrets,
}

/// The reason why a patch cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub enum PatchFault {
    /// The value that an operation expects is not the present one.
    TestFailed {
        /// The index of the operation, from 0.
        operation: usize,
        path: String,
    },
    Invalid(Violation),
}

/// The document in the middle of a patch.
struct Patching {
    document: Document,
    /// The bytes that operations have copied so far.
    copied: usize,
}

/// The reason why an operation fails.
enum Fault {
    TestFailed,
    /// The fault is that of the path.
    Text(&'static str),
    /// The fault is that of the place that a value is copied or moved from.
    From(PointerBuf, &'static str),
}

/// Bytes of the text of a patch.
pub const MAX_BYTES: usize = 128 * 1024;
/// Operations of a JSON Patch.
pub const MAX_OPERATIONS: usize = 100;
/// Levels of objects and lists in a patch, and in a document after it.
pub const MAX_LEVELS: usize = 32;
/// Bytes that the operations of a patch may copy together. Without this limit, a few copies make a document of any size.
pub const MAX_COPIED_BYTES: usize = 256 * 1024;

const SECRET: &str = "is a secret: it can be set and removed, and not be tested, copied or moved";
const TOO_DEEP: &str = "would nest deeper than 32 levels";
const NO_PLACE: &str = "names a place that does not exist";

// === impl Document ===

impl Document {
    /// Makes a document. Numbers are made comparable: equal ones become the same value, however they are written.
    pub fn new(value: Value, secrets: Secrets) -> Self {
        Document { value: parse::normalized(value), secrets }
    }
}

// === impl DocumentPatch ===

impl DocumentPatch {
    /// Applies the patch. Nothing of a patch that fails is left.
    pub fn apply(&self, document: Document) -> Result<Document, PatchFault> {
        let mut patching = Patching { document, copied: 0 };
        match &self.kind {
            Kind::Merge(patch) => {
                let Document { value, secrets } = &mut patching.document;
                let patch = secrets.merged(patch).map_err(|(path, text)| {
                    PatchFault::Invalid(Violation::field(&self.field, format!("{} {text}", shown(&path))))
                })?;
                json_patch::merge(value, &patch);
            }
            Kind::Operations(operations) => {
                for (index, operation) in operations.iter().enumerate() {
                    let path = operation.path();
                    let invalid = |place: String, text| {
                        let description = format!("operation {index} ({place}) {text}");
                        PatchFault::Invalid(Violation::field(&self.field, description))
                    };
                    patching.step(operation).map_err(|fault| match fault {
                        Fault::TestFailed => PatchFault::TestFailed { operation: index, path: readable(path.as_str()) },
                        Fault::Text(text) => invalid(shown(path), text),
                        Fault::From(from, text) => invalid(format!("from {}", shown(&from)), text),
                    })?;
                }
            }
        }
        Ok(patching.document)
    }
}

// === impl Patching ===

impl Patching {
    fn step(&mut self, operation: &PatchOperation) -> Result<(), Fault> {
        match operation {
            PatchOperation::Test(op) => {
                if self.document.secrets.has(&op.path) {
                    return Err(Fault::Text(SECRET));
                }
                run(&mut self.document.value, operation)
            }
            PatchOperation::Remove(op) => self.remove(&op.path),
            PatchOperation::Add(op) => self.put(&op.path, op.value.clone(), false),
            PatchOperation::Replace(op) => self.put(&op.path, op.value.clone(), true),
            PatchOperation::Copy(op) => {
                let value = self.source(&op.from)?;
                self.copied += weight(&value);
                if self.copied > MAX_COPIED_BYTES {
                    return Err(Fault::Text("copies too much: the copies of a patch are limited to 256 KiB"));
                }
                self.put(&op.path, value, false)
            }
            PatchOperation::Move(op) => {
                let value = self.source(&op.from)?;
                if op.path == op.from {
                    return Ok(());
                }
                if op.path.starts_with(&op.from) {
                    return Err(Fault::Text("moves a value into itself"));
                }
                self.remove(&op.from)?;
                self.put(&op.path, value, false)
            }
        }
    }

    fn remove(&mut self, path: &Pointer) -> Result<(), Fault> {
        let (part, path) = self.part(path);
        run(part, &PatchOperation::Remove(RemoveOperation { path }))
    }

    /// Adds or replaces a value. What it has of secrets goes to the secrets.
    fn put(&mut self, path: &Pointer, mut value: Value, replace: bool) -> Result<(), Fault> {
        if path.count() + levels(&value) > MAX_LEVELS {
            return Err(Fault::Text(TOO_DEEP));
        }
        let secrets = &mut self.document.secrets;
        if secrets.has(path) {
            secrets.check(path, &mut value).map_err(Fault::Text)?;
            if value.is_null() {
                let (_, path) = self.part(path);
                let exists = self.document.secrets.as_value().pointer(path.as_str()).is_some();
                // A secret that is set to null is removed. As with other values, only a replacement needs one to be there.
                return if exists || replace { self.remove(&path) } else { Ok(()) };
            }
        } else {
            secrets.take(path, &mut value).map_err(Fault::Text)?;
        }
        let (part, path) = self.part(path);
        let operation = match replace {
            true => PatchOperation::Replace(ReplaceOperation { path, value }),
            false => PatchOperation::Add(AddOperation { path, value }),
        };
        run(part, &operation)
    }

    /// A copy of the value at a path.
    fn source(&self, from: &Pointer) -> Result<Value, Fault> {
        let found = match self.document.secrets.has(from) {
            true => Err(SECRET),
            false => self.document.value.pointer(from.as_str()).cloned().ok_or(NO_PLACE),
        };
        found.map_err(|text| Fault::From(from.to_owned(), text))
    }

    /// The part of the document that has a path, and the path in it.
    fn part(&mut self, path: &Pointer) -> (&mut Value, PointerBuf) {
        let Document { value, secrets } = &mut self.document;
        if secrets.has(path) { secrets.at(path) } else { (value, path.to_owned()) }
    }
}

fn run(value: &mut Value, operation: &PatchOperation) -> Result<(), Fault> {
    json_patch::patch(value, std::slice::from_ref(operation)).map_err(|error| match error.kind {
        PatchErrorKind::TestFailed => Fault::TestFailed,
        // A test of an absent value is a test that fails: RFC 6902 has no test for absence.
        PatchErrorKind::InvalidPointer if matches!(operation, PatchOperation::Test(_)) => Fault::TestFailed,
        _ => Fault::Text(NO_PLACE),
    })
}

/// Levels of objects and lists.
fn levels(value: &Value) -> usize {
    let inner = match value {
        Value::Object(object) => object.values().map(levels).max(),
        Value::Array(list) => list.iter().map(levels).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + inner.unwrap_or_default()
}

/// About the bytes of a value as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.iter().map(|(key, value)| key.len() + 4 + weight(value)).sum::<usize>() + 2,
        Value::Array(list) => list.iter().map(|value| weight(value) + 1).sum::<usize>() + 2,
        Value::String(text) => text.len() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

fn shown(path: &Pointer) -> String {
    format!("\"{}\"", readable(path.as_str()))
}

#[cfg(test)]
mod tests;
