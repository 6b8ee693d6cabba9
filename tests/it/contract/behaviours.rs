//! The behaviour of each field (AIP-203): every field that a request can contain has an annotation, and its comment
//! agrees with it.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::prost_types::FileOptions;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::secrets::{HAND_OUT, reachable, redacted};
use super::{PACKAGE, POOL, comment, field_comment, messages, methods};

/// The allowed combinations of behaviours.
const COMBINATIONS: [&[&str]; 8] = [
    &["OPTIONAL"],
    &["REQUIRED"],
    &["OPTIONAL", "INPUT_ONLY"],
    &["OPTIONAL", "IMMUTABLE"],
    &["REQUIRED", "IMMUTABLE"],
    &["REQUIRED", "INPUT_ONLY"],
    &["OUTPUT_ONLY"],
    &["IDENTIFIER"],
];

/// Returns whether a message occurs only in answers, so that its fields need no annotation.
fn is_response(message: &MessageDescriptor) -> bool {
    message.name().ends_with("Response")
}

/// The behaviours of a field, in the order in which they are written.
pub(crate) fn behaviours(field: &FieldDescriptor) -> Vec<String> {
    let extension = POOL.get_extension_by_name("google.api.field_behavior").expect("the annotation");
    let names = POOL.get_enum_by_name("google.api.FieldBehavior").expect("its values");
    let options = field.options();
    let said = options.get_extension(&extension);
    let numbers = said.as_list().expect("a list").iter().filter_map(|value| value.as_enum_number());
    numbers.map(|number| names.get_value(number).expect("a known value").name().to_owned()).collect()
}

pub(crate) fn is(field: &FieldDescriptor, behaviour: &str) -> bool {
    behaviours(field).iter().any(|said| said == behaviour)
}

/// All messages that a sender can fill in: requests, and the messages in their fields that are not output only.
fn sent() -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    let mut rest: Vec<_> = methods().iter().map(|method| method.input()).collect();
    while let Some(message) = rest.pop() {
        if sent.insert(message.full_name().to_owned()) {
            let inner = message.fields().filter(|field| !is(field, "OUTPUT_ONLY"));
            rest.extend(inner.filter_map(|field| field.kind().as_message().cloned()));
        }
    }
    sent
}

/// All fields of the contract.
pub(crate) fn fields() -> Vec<FieldDescriptor> {
    messages().iter().flat_map(|message| message.fields().collect::<Vec<_>>()).collect()
}

#[test]
fn every_field_has_a_behaviour() {
    let sent = sent();
    let mut wrong = Vec::new();
    for field in fields() {
        let (message, said) = (field.parent_message(), behaviours(&field));
        let is_member = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
        let is_request = message.name().ends_with("Request");
        let right = if is_response(message) {
            said.is_empty()
        } else if !sent.contains(message.full_name()) {
            said == ["OUTPUT_ONLY"] || said == ["IDENTIFIER"]
        } else if is_member {
            said == ["OPTIONAL"]
        } else {
            let fits = COMBINATIONS.iter().any(|combination| said == *combination);
            let of_resources = ["IMMUTABLE", "OUTPUT_ONLY", "IDENTIFIER"];
            fits && !(is_request && of_resources.iter().any(|behaviour| is(&field, behaviour)))
        };
        if !right {
            wrong.push(format!("{}: {said:?}", field.full_name()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "the README of the contract has the rule");
    // Messages that only the server fills in are not among them.
    for name in ["Certificate", "Rewrap", "UserConnector"] {
        assert!(!sent.contains(&format!("{PACKAGE}.{name}")), "{name}");
    }
}

#[test]
fn comments_agree_with_the_annotations() {
    let mut wrong = Vec::new();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for field in fields() {
        let text = field_comment(&field).split_whitespace().collect::<Vec<_>>().join(" ");
        for (behaviour, says) in [
            ("REQUIRED", text.starts_with("Required. ") || text.starts_with("Required on create. ")),
            ("OUTPUT_ONLY", text.starts_with("Output only. ")),
            ("INPUT_ONLY", text.trim_start_matches("Required. ").starts_with("Write-only. ")),
            ("IMMUTABLE", text.ends_with("May not be changed.")),
        ] {
            if says != is(&field, behaviour) {
                wrong.push(format!("{}: {behaviour} is {}, and {text:?}", field.full_name(), !says));
            }
            *found.entry(behaviour).or_default() += usize::from(says);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(found.values().all(|count| *count > 3), "{found:?}");
}

/// There is one limit, in one place.
#[test]
fn every_user_id_of_a_request_refers_to_its_limits() {
    let sent = sent();
    let of_users = fields().into_iter().filter(|field| field.name() == "user_id" && !is(field, "OUTPUT_ONLY"));
    let of_users: Vec<_> = of_users.filter(|field| sent.contains(field.parent_message().full_name())).collect();
    assert!(of_users.len() > 15, "{of_users:?}");
    for field in of_users {
        let text = field_comment(&field).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("; see UserConnector.user_id."), "{}: {text}", field.full_name());
    }
}

#[test]
fn a_secret_that_never_comes_back_is_input_only() {
    let mut handed_out = BTreeMap::new();
    for method in methods().iter().filter(|method| HAND_OUT.contains(&method.name())) {
        reachable(&method.output(), &mut handed_out);
    }
    let mut count = 0;
    for field in fields().iter().filter(|field| !is_response(field.parent_message())) {
        let comes_back = |message: &MessageDescriptor| handed_out.contains_key(message.full_name());
        let inner = field.kind().as_message().is_some_and(comes_back);
        let never = redacted(field) && !inner && !comes_back(field.parent_message());
        assert_eq!(is(field, "INPUT_ONLY"), never, "{}", field.full_name());
        count += usize::from(never);
    }
    assert_eq!(
        count, 20,
        "the passwords, the secret headers, the client secrets, the private keys, the patches, the session tokens, and what browsers \
         bring back"
    );
}

/// Generated documentation shows the members of a oneof but not the oneof itself.
#[test]
fn members_of_a_oneof_document_its_rules() {
    let mut count = 0;
    for message in messages() {
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            count += 1;
            let own = comment(oneof.parent_file().name(), oneof.path());
            assert!(!own.contains('\n') && own.len() < 60, "{}: {own}", oneof.full_name());
            for field in oneof.fields() {
                assert!(field_comment(&field).contains("Exactly one of"), "{}", field.full_name());
            }
        }
    }
    assert_eq!(count, 8);
}

/// Clients use the public file, so our copy must be compatible with it.
#[test]
fn the_annotation_is_the_public_one() {
    let extension = POOL.get_extension_by_name("google.api.field_behavior").unwrap();
    assert_eq!(
        (extension.number(), extension.containing_message().full_name()),
        (1052, "google.protobuf.FieldOptions")
    );
    assert!(extension.is_list());
    let Kind::Enum(values) = extension.kind() else { panic!("{:?}", extension.kind()) };
    assert_eq!(values.full_name(), "google.api.FieldBehavior");
    let values: Vec<_> = values.values().map(|value| (value.number(), value.name().to_owned())).collect();
    let expected = [
        "FIELD_BEHAVIOR_UNSPECIFIED",
        "OPTIONAL",
        "REQUIRED",
        "OUTPUT_ONLY",
        "INPUT_ONLY",
        "IMMUTABLE",
        "UNORDERED_LIST",
        "NON_EMPTY_DEFAULT",
        "IDENTIFIER",
    ];
    assert_eq!(
        values,
        expected.iter().enumerate().map(|(number, name)| (number as i32, (*name).to_owned())).collect::<Vec<_>>()
    );

    let file = extension.parent_file();
    assert_eq!((file.name(), file.package_name()), ("google/api/field_behavior.proto", "google.api"));
    let expected = FileOptions {
        go_package: Some("google.golang.org/genproto/googleapis/api/annotations;annotations".to_owned()),
        java_multiple_files: Some(true),
        java_outer_classname: Some("FieldBehaviorProto".to_owned()),
        java_package: Some("com.google.api".to_owned()),
        objc_class_prefix: Some("GAPI".to_owned()),
        ..FileOptions::default()
    };
    assert_eq!(file.file_descriptor_proto().options, Some(expected));
}
