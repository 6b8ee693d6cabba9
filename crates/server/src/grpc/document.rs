//! Resources as JSON documents, in the canonical JSON form of protobuf (ProtoJSON).

use std::sync::LazyLock;

use jackfield_api::message::ResourceMessage;
use jackfield_domain::request::document_patch::{Document, PointerBuf, SecretPath, Secrets};
use jackfield_domain::request::mask::{Mask, Path};
use jackfield_domain::value::json::without_mark;
use jackfield_domain::{Error, Result, Violation, Violations};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde_json::{Map, Value};

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(jackfield_api::SOURCE_DESCRIPTOR_SET).ok());

/// The package of the contract.
const PACKAGE: &str = <jackfield_api::v1::Connector as prost::Name>::PACKAGE;

/// The document of a resource, without what is output only, but with id and etag. Maps, lists and free JSON are there even if
/// they are empty, so that a patch can add to them.
pub(super) fn to_document<M: ResourceMessage + prost::Name>(resource: &M) -> Result<Document> {
    let descriptor = descriptor::<M>()?;
    let mut message = DynamicMessage::new(descriptor.clone());
    message.transcode_from(resource).map_err(Error::internal)?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut value = message.serialize_with_options(serde_json::value::Serializer, &options).map_err(Error::internal)?;
    for path in M::OUTPUT_ONLY.iter().filter(|path| !is_identity(path)).chain(M::SECRETS) {
        pointer(&descriptor, path).delete(&mut value);
    }
    for field in descriptor.fields().filter(is_struct).filter(|field| !message.has_field(field)) {
        value[field.json_name()] = Value::Object(Map::new());
    }
    let secrets = M::SECRETS.iter().filter_map(|path| {
        let pointer = pointer(&descriptor, path);
        field(&descriptor, path).map(|field| SecretPath { pointer, is_map: field.is_map() })
    });
    let stored = M::SECRETS.iter().flat_map(|path| stored(&message, path, &pointer(&descriptor, path)));
    Ok(Document::new(value, Secrets::new(secrets.collect(), stored)))
}

/// The resource that a document describes, and the mask of an update that makes it so: all fields, except secrets that stay.
pub(super) fn from_document<M>(document: Document) -> Result<(M, Mask)>
where
    M: ResourceMessage + prost::Name + Default,
{
    let descriptor = descriptor::<M>()?;
    let Document { mut value, secrets } = document;
    let changes = secrets.changes();
    for change in &changes {
        if let Some(text) = &change.text {
            let mut pointer = change.pointer.clone();
            change.key.iter().for_each(|key| pointer.push_back(key.as_str()));
            // It fails only where a list has taken the place of an object, which is refused below.
            let _ = pointer.assign(&mut value, Value::String(text.clone()));
        }
    }
    for path in M::OUTPUT_ONLY.iter().filter(|path| !is_identity(path)) {
        pointer(&descriptor, path).delete(&mut value);
    }
    let mut violations = Violations::default();
    check(&descriptor, &value, <M as ResourceMessage>::NAME, &mut violations);
    violations.into_result(Some(()))?;
    let message = DynamicMessage::deserialize(descriptor.clone(), value).map_err(Error::internal)?;
    let absent: Vec<_> = descriptor.fields().filter(|field| is_choice(field) && !message.has_field(field)).collect();
    let is_given = |path: &&&str| {
        let first = path.split('.').next();
        !path.ends_with(".*") && !M::SECRETS.contains(path) && !absent.iter().any(|field| Some(field.name()) == first)
    };
    let fields = M::PATHS.iter().filter(is_given).map(|path| Path::new(path.split('.').map(str::to_owned)));
    let secrets = M::SECRETS.iter().flat_map(|path| {
        let of_this = changes.iter().filter(|change| change.pointer == pointer(&descriptor, path));
        of_this.map(|change| Path::new(path.split('.').map(str::to_owned).chain(change.key.clone())))
    });
    let mask = Mask::Paths(fields.chain(secrets).collect());
    Ok((message.transcode_to().map_err(Error::internal)?, mask))
}

/// A message as JSON.
pub(super) fn to_json<M: prost::Name>(message: &M) -> Result<Vec<u8>> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>()?);
    dynamic.transcode_from(message).map_err(Error::internal)?;
    serde_json::to_vec(&dynamic).map_err(Error::internal)
}

/// The message that a text in JSON has, which someone else wrote; `None` if it is not one. The message of the parser would repeat values, so it is dropped.
pub(super) fn from_json<M: prost::Name + Default>(text: &[u8]) -> Option<M> {
    let text = without_mark(std::str::from_utf8(text).ok()?);
    let mut parser = serde_json::Deserializer::from_str(text);
    let dynamic = DynamicMessage::deserialize(descriptor::<M>().ok()?, &mut parser).ok()?;
    parser.end().ok()?;
    dynamic.transcode_to().ok()
}

/// Finds members that are unknown, and values that are not of the type of their field.
fn check(descriptor: &MessageDescriptor, value: &Value, name: &str, violations: &mut Violations) {
    let Value::Object(members) = value else {
        violations.push(Violation::field(name, "must be an object"));
        return;
    };
    let mut chosen = Vec::new();
    for (key, value) in members {
        let Some(field) = descriptor.get_field_by_json_name(key) else {
            let known = descriptor.get_field_by_name(key);
            let hint = known.map(|field| format!(": it is named {} in JSON", field.json_name())).unwrap_or_default();
            let key: String = key.chars().take(64).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
            violations.push(Violation::field(name, format!("has no member \"{key}\"{hint}")));
            continue;
        };
        if value.is_null() {
            continue;
        }
        if is_choice(&field) {
            chosen.push(field.name().to_owned());
        }
        let name = format!("{name}.{}", field.name());
        match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() && inner.package_name() == PACKAGE => {
                check(&inner, value, &name, violations);
            }
            _ => {
                let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
                // The message of the parser would repeat the value.
                if DynamicMessage::deserialize(descriptor.clone(), alone).is_err() {
                    violations.push(Violation::field(name, form(&field)));
                }
            }
        }
    }
    if let [first, second, ..] = &chosen[..] {
        let name = format!("{name}.{second}");
        violations.push(Violation::field(name, format!("must not be given together with {first}")));
    }
}

/// A sentence about the JSON form of a field.
fn form(field: &FieldDescriptor) -> &'static str {
    match field.kind() {
        _ if field.is_map() => "must be an object whose values are strings",
        _ if field.is_list() => "must be a list of values of its type",
        Kind::String => "must be a string",
        Kind::Bool => "must be true or false",
        Kind::Enum(_) => "must be the name of a value of its type",
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Duration" => "must be a duration in seconds, for example \"1.5s\"",
            "google.protobuf.Timestamp" => "must be a time, for example \"2026-01-31T12:00:00Z\"",
            _ => "must be an object",
        },
        _ => "must be a number that fits its type",
    }
}

/// The secrets that are stored at a path: the field beside a text says that it is set, and the field beside a map has its keys.
fn stored(message: &DynamicMessage, path: &str, pointer: &PointerBuf) -> Vec<PointerBuf> {
    let (parents, name) = path.rsplit_once('.').map_or((None, path), |(parents, name)| (Some(parents), name));
    let mut message = message.clone();
    for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
        let inner = message.get_field_by_name(parent).and_then(|value| value.as_message().cloned());
        let Some(inner) = inner else { return Vec::new() };
        message = inner;
    }
    let is_set = message.get_field_by_name(&format!("{name}_set")).and_then(|value| value.as_bool());
    let names = message.get_field_by_name(&format!("{}_names", name.trim_end_matches('s')));
    let names = names.as_ref().and_then(|names| names.as_list()).unwrap_or_default();
    let entries = names.iter().filter_map(|name| Some(pointer.with_trailing_token(name.as_str()?)));
    is_set.unwrap_or_default().then(|| pointer.clone()).into_iter().chain(entries).collect()
}

fn descriptor<M: prost::Name>() -> Result<MessageDescriptor> {
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&M::full_name()));
    descriptor.ok_or_else(|| Error::internal(format!("the contract does not describe {}", M::NAME)))
}

/// The field at a path of field names.
fn field(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    match path.split_once('.') {
        None => message.get_field_by_name(path),
        Some((name, rest)) => field(message.get_field_by_name(name)?.kind().as_message()?, rest),
    }
}

/// The place of a field in documents.
fn pointer(message: &MessageDescriptor, path: &str) -> PointerBuf {
    let mut pointer = PointerBuf::new();
    let mut above = String::new();
    for name in path.split('.') {
        above = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        let name = field(message, &above).map_or_else(|| name.to_owned(), |field| field.json_name().to_owned());
        pointer.push_back(name);
    }
    pointer
}

fn is_identity(path: &str) -> bool {
    matches!(path, "id" | "etag")
}

fn is_struct(field: &FieldDescriptor) -> bool {
    let is = field.kind().as_message().is_some_and(|message| message.full_name() == "google.protobuf.Struct");
    is && !field.is_list() && !field.is_map()
}

/// Returns true for a member of a oneof.
fn is_choice(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}
