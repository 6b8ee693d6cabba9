//! The expressiveness of updates without a mask: every mutable scalar field has presence, or there is a reason why it
//! need not.

use std::collections::BTreeSet;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{PACKAGE, field_comment, methods};

const REQUIRED: &str = "it is required, so its default is not a valid value";
const FIXED: &str = "it is set once";
const SECRET: &str =
    "absent keeps the secret, and so does the empty text that a form sends; clearing it requires a mask";
const ENUM: &str = "its zero value is UNSPECIFIED, which means absent";
const ENTRY: &str = "its parent is given as a whole";

/// Fields without presence, with the reason why that does no harm.
const WITHOUT: [(&str, &str); 41] = [
    ("Application.name", REQUIRED),
    ("Permission.slug", ENTRY),
    ("Permission.description", ENTRY),
    ("Connector.name", REQUIRED),
    ("Connector.egress_proxy_password", SECRET),
    ("GenericConnector.authentication_url", REQUIRED),
    ("GenericConnector.http_authentication_password", SECRET),
    ("LicenseConnector.base_url", REQUIRED),
    ("LicenseConnector.application_id", REQUIRED),
    ("Connection.name", REQUIRED),
    ("Connection.connector", FIXED),
    ("Connection.type", ENUM),
    ("Connection.supported_content_type", ENUM),
    ("Connection.linking", ENUM),
    ("Connection.client_authentication", ENUM),
    ("Connection.grant_type", FIXED),
    ("ClientSecret.secret_id", ENTRY),
    ("ClientSecret.value", SECRET),
    ("Credential.user_id", FIXED),
    ("Credential.connector", FIXED),
    ("Credential.connection", FIXED),
    ("Configuration.credential", FIXED),
    ("WorkflowSettings.enabled", ENTRY),
    ("OAuth2Material.access_token", ENTRY),
    ("OAuth2Material.refresh_token", SECRET),
    ("OAuth2Material.id_token", SECRET),
    ("OAuth2Material.token_type", ENTRY),
    ("ApiKeyMaterial.api_key", REQUIRED),
    ("BasicMaterial.username", ENTRY),
    ("BasicMaterial.password", ENTRY),
    ("ClientCredentialsMaterial.client_id", REQUIRED),
    ("ClientCredentialsMaterial.client_secret", REQUIRED),
    ("ClientCertificateMaterial.key", REQUIRED),
    ("Key.name", REQUIRED),
    ("Key.type", ENUM),
    ("Key.certificate_pem", REQUIRED),
    ("User.user_id", FIXED),
    ("User.password", SECRET),
    ("UserRegistration.application_id", ENTRY),
    ("*.id", "it is the identity of the resource"),
    ("*.etag", "it is the state in which the resource was read"),
];

#[test]
fn mutable_fields_have_presence() {
    let mut listed: BTreeSet<_> = WITHOUT.iter().map(|(field, _)| *field).collect();
    assert_eq!(listed.len(), WITHOUT.len());
    let mut unlisted = Vec::new();
    for field in updated_fields() {
        let name = format!("{}.{}", field.parent_message().name(), field.name());
        let is_identity = matches!(field.name(), "id" | "etag");
        let name = if is_identity { format!("*.{}", field.name()) } else { name };
        let output_only = !is_identity && field_comment(&field).starts_with("Output only.");
        if output_only || field.is_list() || field.is_map() || field.supports_presence() {
            assert!(!WITHOUT.iter().any(|(listed, _)| *listed == name), "{name} needs no reason");
            continue;
        }
        if !listed.remove(&*name) && !WITHOUT.iter().any(|(listed, _)| *listed == name) {
            unlisted.push(name);
        }
    }
    assert_eq!(unlisted, Vec::<String>::new(), "make it optional, or say why it need not be");
    assert!(listed.is_empty(), "not there: {listed:?}");
}

#[test]
fn the_zero_of_an_enum_is_not_a_value() {
    for field in updated_fields() {
        if let Kind::Enum(kind) = field.kind() {
            let zero = kind.get_value(0).unwrap();
            assert!(zero.name().ends_with("_UNSPECIFIED"), "{}", field.full_name());
            let comment = super::comment(kind.parent_file().name(), zero.path());
            let says =
                comment.starts_with("Absent") || comment.contains("Never sent") || comment.contains("did not fail");
            assert!(says, "{}: {comment}", zero.full_name());
        }
    }
}

/// The fields of everything in an update, except those of protobuf itself.
fn updated_fields() -> Vec<FieldDescriptor> {
    let mut messages: Vec<MessageDescriptor> = Vec::new();
    let mut fields = Vec::new();
    for method in methods().into_iter().filter(|method| method.name().starts_with("Update")) {
        messages.extend(method.input().fields().filter_map(|field| field.kind().as_message().cloned()));
    }
    let mut seen = BTreeSet::new();
    while let Some(message) = messages.pop() {
        let is_entry = message.is_map_entry();
        if message.package_name() != PACKAGE || !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        messages.extend(message.fields().filter_map(|field| field.kind().as_message().cloned()));
        fields.extend(message.fields().filter(|_| !is_entry));
    }
    assert!(fields.len() > 100, "{}", fields.len());
    fields
}
