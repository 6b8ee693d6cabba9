//! The texts of a request, each of which may be a reference.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value};

/// The paths of all text fields of a request, including those of nested messages.
pub(super) fn text_paths(message: &DynamicMessage, descriptor: &MessageDescriptor) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for field in descriptor.fields().filter(|field| !field.is_map()) {
        match field.kind() {
            Kind::String => paths.push(vec![field.name().to_owned()]),
            Kind::Message(inner)
                if inner.package_name() == "jackfield.v1" && !field.is_list() && message.has_field(&field) =>
            {
                let value = message.get_field(&field);
                let below = text_paths(value.as_message().unwrap(), &inner);
                paths.extend(below.into_iter().map(|path| [vec![field.name().to_owned()], path].concat()));
            }
            _ => {}
        }
    }
    paths
}

/// Puts a text in the place of the one at a path.
pub(super) fn set(message: &mut DynamicMessage, path: &[String], text: &str) {
    let (first, rest) = path.split_first().unwrap();
    let field = message.descriptor().get_field_by_name(first).unwrap();
    if !rest.is_empty() {
        return set(message.get_field_mut(&field).as_message_mut().unwrap(), rest, text);
    }
    let text = match field.name() {
        "json" => serde_json::json!({ "trustBundleKey": text }).to_string(),
        _ => text.to_owned(),
    };
    let text = Value::String(text);
    let value = if field.is_list() { Value::List(vec![text]) } else { text };
    message.set_field(&field, value);
}
