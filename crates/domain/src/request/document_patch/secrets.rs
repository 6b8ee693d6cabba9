//! The secrets of a document: which there are, and which a patch sets or removes.

use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::{Map, Value};

use crate::value::maps::same_header;

/// The place of a secret in documents.
#[derive(Clone, Debug)]
pub struct SecretPath {
    pub pointer: PointerBuf,
    /// True for a map of secrets, whose keys are names of headers.
    pub is_map: bool,
}

/// The secrets of a document. Where one is stored, they have [`STORED`] in its place; where a patch gives one, its text.
pub struct Secrets {
    paths: Vec<SecretPath>,
    before: Value,
    now: Value,
}

/// A secret that a patch sets or removes.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretChange {
    /// The place of the secret, or of the map that has it.
    pub pointer: PointerBuf,
    /// The entry of a map; `None` for a secret that is no map, and for a map that is replaced as a whole.
    pub key: Option<String>,
    /// The new secret; `None` if it is removed.
    pub text: Option<String>,
}

/// The mark of a stored secret. No patch can give it: a secret is a text.
const STORED: Value = Value::Bool(true);

const NO_TEXT: &str = "is a secret, which must be a string or null";
const NO_TEXTS: &str = "has secrets, which must be strings or null";

// === impl Secrets ===

impl Secrets {
    /// Makes the secrets of a document. `stored` are those that there are: the places of texts, and the keys of maps.
    pub fn new(paths: Vec<SecretPath>, stored: impl IntoIterator<Item = PointerBuf>) -> Self {
        let mut before = Value::Object(Map::new());
        for SecretPath { pointer, is_map } in &paths {
            assign(&mut before, pointer, Value::Object(Map::new()));
            if !is_map {
                // Only the objects around it have to be there.
                let _ = pointer.delete(&mut before);
            }
        }
        stored.into_iter().for_each(|pointer| assign(&mut before, &pointer, STORED));
        Secrets { paths, now: before.clone(), before }
    }

    /// The secrets that a patch changed.
    pub fn changes(&self) -> Vec<SecretChange> {
        let mut changes = Vec::new();
        for SecretPath { pointer, is_map } in &self.paths {
            let (before, now) = (self.before.pointer(pointer.as_str()), self.now.pointer(pointer.as_str()));
            let change = |key: Option<&String>, now: Option<&Value>| SecretChange {
                pointer: pointer.clone(),
                key: key.cloned(),
                text: now.and_then(Value::as_str).map(str::to_owned),
            };
            if before == now {
                continue;
            }
            if !is_map {
                changes.push(change(None, now));
                continue;
            }
            let (none, map) = (Map::new(), |value: Option<&Value>| value.and_then(Value::as_object).cloned());
            let (before, now) = (map(before).unwrap_or_default(), map(now).unwrap_or(none));
            if !now.values().any(|value| *value == STORED) {
                changes.push(change(None, None));
            }
            let gone = before.keys().filter(|key| !now.contains_key(*key));
            changes.extend(gone.map(|key| change(Some(key), None)));
            let set = now.iter().filter(|(_, value)| **value != STORED);
            changes.extend(set.map(|(key, value)| change(Some(key), Some(value))));
        }
        changes
    }

    /// Returns true if a path is that of a secret, or below it.
    pub(super) fn has(&self, path: &Pointer) -> bool {
        self.above(path).is_some()
    }

    /// The place of the value at the path of a secret. Names of headers are those that are stored, whatever their letter case.
    pub(super) fn at(&mut self, path: &Pointer) -> (&mut Value, PointerBuf) {
        let mut path = path.to_owned();
        if let Some((parent, key)) = path.split_back()
            && self.is_map(parent)
            && let Some(Value::Object(map)) = self.now.pointer(parent.as_str())
        {
            path = parent.with_trailing_token(stored_key(map, &key.decoded()));
        }
        (&mut self.now, path)
    }

    pub(super) fn as_value(&self) -> &Value {
        &self.now
    }

    /// Checks the value for the path of a secret. Nulls are left out of maps.
    pub(super) fn check(&self, path: &Pointer, value: &mut Value) -> Result<(), &'static str> {
        let is_map = self.is_map(path);
        match value {
            Value::Null => Ok(()),
            Value::String(_) if !is_map => Ok(()),
            Value::Object(map) if is_map => {
                map.retain(|_, value| !value.is_null());
                if map.values().all(Value::is_string) { Ok(()) } else { Err(NO_TEXTS) }
            }
            _ if is_map => Err(NO_TEXTS),
            _ => Err(NO_TEXT),
        }
    }

    /// Takes the secrets out of a value that is about to be put at a path above them. As in an update, absent secrets stay.
    pub(super) fn take(&mut self, path: &Pointer, value: &mut Value) -> Result<(), &'static str> {
        for SecretPath { pointer, .. } in self.paths.clone() {
            if pointer.starts_with(path)
                && let Some(inner) = pointer.strip_prefix(path)
                && let Some(mut secret) = inner.delete(value)
            {
                self.check(&pointer, &mut secret)?;
                if !secret.is_null() && secret.as_object().is_none_or(|map| !map.is_empty()) {
                    assign(&mut self.now, &pointer, secret);
                }
            }
        }
        Ok(())
    }

    /// Merges the secrets of a merge patch, and returns the patch without them. An error has the place and the fault.
    pub(super) fn merged(&mut self, patch: &Value) -> Result<Value, (PointerBuf, &'static str)> {
        let mut patch = patch.clone();
        for SecretPath { pointer, is_map } in self.paths.clone() {
            // Below a text there is nothing to delete.
            let Some(secret) = patch.pointer(pointer.as_str()).is_some().then(|| pointer.delete(&mut patch)).flatten()
            else {
                continue;
            };
            match secret {
                Value::Object(entries) if is_map => {
                    for (key, value) in entries {
                        let path = pointer.with_trailing_token(key.as_str());
                        if !value.is_null() && !value.is_string() {
                            return Err((path, NO_TEXT));
                        }
                        let (now, path) = self.at(&path);
                        match value {
                            Value::Null => drop(path.delete(now)),
                            text => assign(now, &path, text),
                        }
                    }
                }
                Value::Null if is_map => assign(&mut self.now, &pointer, Value::Object(Map::new())),
                Value::Null => drop(pointer.delete(&mut self.now)),
                Value::String(_) if !is_map => assign(&mut self.now, &pointer, secret),
                _ => return Err((pointer, if is_map { NO_TEXTS } else { NO_TEXT })),
            }
        }
        Ok(patch)
    }

    fn above(&self, path: &Pointer) -> Option<&SecretPath> {
        self.paths.iter().find(|secret| path.starts_with(&secret.pointer))
    }

    fn is_map(&self, path: &Pointer) -> bool {
        self.paths.iter().any(|secret| secret.is_map && *secret.pointer == *path)
    }
}

/// The key of a map that names the same header, or else the key itself.
fn stored_key(map: &Map<String, Value>, key: &str) -> String {
    map.keys().find(|stored| same_header(stored, key)).map_or(key, String::as_str).to_owned()
}

/// Sets a value, with the objects around it.
fn assign(document: &mut Value, pointer: &Pointer, value: Value) {
    // It fails only where a list is in the way, and the places of secrets have none.
    let _ = pointer.assign(document, value);
}
