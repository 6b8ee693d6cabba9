//! The text form of a keyring. The parser describes and locates errors itself, because messages of TOML and serde quote
//! the text, which is secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jackfield_domain::Timestamp;
use toml::{Table, Value};
use zeroize::{Zeroize, Zeroizing};

use super::{Key, KeyInfo, KeyState, Keyring};
use crate::cipher::KEY_LEN;
use crate::error::KeyringError;

const HEADER: &str = "\
# Keyring of Jackfield: the key-encryption keys, which wrap the data keys of all tenants. Keep it secret, and keep a copy
# apart from the database: without it no stored secret can be opened again.
#
# active          id of the key that wraps new data keys
# [[key]] id      1 to 64 letters, digits, '.', '_' or '-'; never reused
#         state   staged (unwraps, to become active later), active, or retired (unwraps, to be removed later)
#         created when the key was made (RFC 3339)
#         secret  32 random bytes in base64
";

const FIELDS: [&str; 2] = ["active", "key"];
const KEY_FIELDS: [&str; 4] = ["id", "state", "created", "secret"];
const MAX_ID_LEN: usize = 64;
/// The name of the keyring as a whole in errors.
const KEYRING: &str = "keyring";

/// A TOML table that is wiped when it is dropped.
struct SecretTable(Table);

/// Writes a keyring, oldest key first.
pub(super) fn print(keyring: &Keyring) -> Zeroizing<String> {
    let keys = keyring.sorted();
    // The id, time and base64 of a key are well below this, so the text never grows and is never copied.
    let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + 128 + 256 * keys.len()));
    text.push_str(HEADER);
    text.push_str("active = \"");
    text.push_str(keyring.active_id());
    text.push_str("\"\n");
    for Key { info, secret } in keys {
        text.push_str("\n[[key]]\nid = \"");
        text.push_str(&info.id);
        text.push_str("\"\nstate = \"");
        text.push_str(info.state.as_str());
        text.push_str("\"\ncreated = ");
        text.push_str(&info.created.to_string());
        text.push_str("\nsecret = \"");
        STANDARD.encode_string(secret.as_slice(), &mut text);
        text.push_str("\"\n");
    }
    text
}

/// Reads a keyring.
pub(super) fn parse(text: &str) -> Result<Keyring, KeyringError> {
    let mut table = SecretTable(text.parse().map_err(|error: toml::de::Error| syntax(text, error.span()))?);
    check_fields(&table.0, KEYRING, &FIELDS)?;
    let active_id = take_string(&mut table.0, KEYRING, "active")?;
    let mut active = None;
    let mut others = Vec::<Key>::new();
    for (index, value) in take_keys(&mut table.0)?.iter_mut().enumerate() {
        let key = parse_key(index, value)?;
        let place = place(index, &key.info.id);
        let is_active = key.info.id == *active_id;
        if is_active != (key.info.state == KeyState::Active) {
            return Err(KeyringError::invalid(place, "state and the field active at the top disagree"));
        }
        for earlier in active.iter().chain(&others) {
            if earlier.info.id == key.info.id {
                return Err(KeyringError::invalid(place, "id is that of an earlier key"));
            }
            if earlier.secret == key.secret {
                return Err(KeyringError::invalid(place, "secret is that of an earlier key"));
            }
        }
        if is_active {
            active = Some(key);
        } else {
            others.push(key);
        }
    }
    let active = active.ok_or_else(|| KeyringError::invalid(KEYRING, "active names none of the keys"))?;
    Ok(Keyring { active, others })
}

fn parse_key(index: usize, value: &mut Value) -> Result<Key, KeyringError> {
    let unnamed = format!("{KEYRING}, key {}", index + 1);
    let Value::Table(table) = value else {
        return Err(KeyringError::invalid(unnamed, "must be a table"));
    };
    check_fields(table, &unnamed, &KEY_FIELDS)?;
    let id = take_string(table, &unnamed, "id")?;
    if !is_id(&id) {
        return Err(KeyringError::invalid(unnamed, "id must be 1 to 64 letters, digits, '.', '_' or '-'"));
    }
    let place = place(index, &id);
    let state = KeyState::parse(&take_string(table, &place, "state")?)
        .ok_or_else(|| KeyringError::invalid(&place, "state must be staged, active or retired"))?;
    let created = take_time(table, &place)?;
    let secret = take_secret(table, &place)?;
    Ok(Key { info: KeyInfo { id: id.to_string(), state, created }, secret })
}

fn take_secret(table: &mut Table, place: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let invalid = |reason: &str| KeyringError::invalid(place, format!("secret {reason}"));
    let text = take_string(table, place, "secret")?;
    // Large enough for any text: decoding must not grow the buffer and leave a copy behind.
    let mut secret = Zeroizing::new(Vec::with_capacity(text.len()));
    STANDARD.decode_vec(text.as_bytes(), &mut secret).map_err(|_| invalid("is not base64 with padding"))?;
    if secret.len() != KEY_LEN {
        return Err(invalid(&format!("has {} bytes, not {KEY_LEN}", secret.len())));
    }
    if secret.iter().all(|byte| *byte == secret[0]) {
        return Err(invalid("is not random: all its bytes are equal"));
    }
    Ok(secret)
}

fn take_time(table: &mut Table, place: &str) -> Result<Timestamp, KeyringError> {
    let text = match table.remove("created") {
        Some(Value::Datetime(time)) => Zeroizing::new(time.to_string()),
        Some(Value::String(text)) => Zeroizing::new(text),
        Some(mut other) => {
            wipe(&mut other);
            return Err(KeyringError::invalid(place, "created must be a date and time"));
        }
        None => return Err(KeyringError::invalid(place, "created is missing")),
    };
    let time = Timestamp::parse_rfc3339(&text).filter(|time| (Timestamp::MIN..=Timestamp::MAX).contains(time));
    time.ok_or_else(|| KeyringError::invalid(place, "created must be a date and time with offset, as in RFC 3339"))
}

fn take_string(table: &mut Table, place: &str, field: &str) -> Result<Zeroizing<String>, KeyringError> {
    match table.remove(field) {
        Some(Value::String(text)) => Ok(Zeroizing::new(text)),
        Some(mut other) => {
            wipe(&mut other);
            Err(KeyringError::invalid(place, format!("{field} must be a string")))
        }
        None => Err(KeyringError::invalid(place, format!("{field} is missing"))),
    }
}

fn take_keys(table: &mut Table) -> Result<&mut Vec<Value>, KeyringError> {
    match table.get_mut("key") {
        Some(Value::Array(keys)) if !keys.is_empty() => Ok(keys),
        Some(Value::Array(_)) | None => Err(KeyringError::invalid(KEYRING, "there must be at least one key")),
        Some(_) => Err(KeyringError::invalid(KEYRING, "key must be an array of tables, [[key]]")),
    }
}

/// Refuses unknown fields. A name that is too long for a field is not shown: it may be a misplaced secret.
fn check_fields(table: &Table, place: &str, known: &[&str]) -> Result<(), KeyringError> {
    match table.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) if name.len() <= 16 => Err(KeyringError::invalid(place, format!("field {name:?} is not known"))),
        Some(_) => Err(KeyringError::invalid(place, "has a field that is not known")),
    }
}

fn is_id(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_ID_LEN).contains(&text.len()) && text.chars().all(letter)
}

fn place(index: usize, id: &str) -> String {
    format!("{KEYRING}, key {} ({id})", index + 1)
}

fn syntax(text: &str, span: Option<std::ops::Range<usize>>) -> KeyringError {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    KeyringError::Syntax { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

// === impl SecretTable ===

impl Drop for SecretTable {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, value)| wipe(value));
    }
}
