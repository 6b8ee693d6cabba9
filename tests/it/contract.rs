//! The contract itself, read from its descriptor: the rules for every service, method, message and field.

pub(crate) mod behaviours;
mod languages;
mod presence;
pub(crate) mod reasons;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

pub(crate) const PACKAGE: &str = "jackfield.v1";

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(jackfield_api::FILE_DESCRIPTOR_SET).expect("the descriptor set decodes"));

/// Comments by file and path within it (descriptor.proto, SourceCodeInfo).
static COMMENTS: LazyLock<BTreeMap<(String, Vec<i32>), String>> = LazyLock::new(|| {
    let mut comments = BTreeMap::new();
    for file in POOL.files() {
        let info = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
        for location in info.location {
            let comment = location.leading_comments().trim().to_owned();
            comments.insert((file.name().to_owned(), location.path), comment);
        }
    }
    comments
});

/// Methods that may change something but take no request id: repeats return the current state, or call the other system again,
/// and their answers contain secrets that are not stored for repeats.
const WITHOUT_REQUEST_ID: [&str; 11] = [
    "AuthenticateApplicationUser",
    "AuthenticateUser",
    "CompleteAuthorization",
    "GetUserConnectionCredentials",
    "IssueAccessToken",
    "RefreshCredential",
    "ReportTokenRejected",
    "RevealCredential",
    "StartAuthorization",
    "TestConnection",
    "TestConnector",
];

/// Methods that stream the results of one piece of work.
const REPORTS: [&str; 2] = ["TestConnection", "TestConnector"];

/// Methods that stream the states of one thing.
const WATCHES: [&str; 1] = ["WatchAuthorization"];

/// Methods in which both sides send messages.
const CONVERSATIONS: [&str; 1] = ["ServeCredentials"];

/// Methods about the credential source of a user, or of the tenant, which has no other name.
const OF_A_SOURCE: [&str; 2] = ["DeleteCredentialSource", "GetCredentialSource"];

/// Methods that name a session, which is not done by reference: by its application and its token.
const OF_A_SESSION: [&str; 2] = ["GetSessionUser", "GetSessionPermissions"];

/// Methods without a reference, because there is only one such resource.
const WITHOUT_REFERENCE: [&str; 3] = ["GetRewrap", "GetRoutingPolicy", "GetServerInfo"];

pub(crate) fn methods() -> Vec<MethodDescriptor> {
    let services: Vec<_> = POOL.services().filter(|service| service.package_name() == PACKAGE).collect();
    services.iter().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn messages() -> Vec<MessageDescriptor> {
    POOL.all_messages().filter(|message| message.package_name() == PACKAGE && !message.is_map_entry()).collect()
}

/// The message of this name.
pub(crate) fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("{PACKAGE}.{name}")).expect("a message of the contract")
}

fn comment(file: &str, path: &[i32]) -> &'static str {
    COMMENTS.get(&(file.to_owned(), path.to_vec())).map_or("", String::as_str)
}

fn field_comment(field: &FieldDescriptor) -> &'static str {
    comment(field.parent_file().name(), field.path())
}

fn method_comment(method: &MethodDescriptor) -> &'static str {
    comment(method.parent_file().name(), method.path())
}

fn reads_only(method: &MethodDescriptor) -> bool {
    let level = method.options().get_field_by_name("idempotency_level").and_then(|level| level.as_enum_number());
    level == Some(1)
}

/// The field of a message with this name and type: a full name for messages, otherwise "string", "bool" and so on.
fn has_field(message: &MessageDescriptor, name: &str, kind: &str) -> bool {
    message.get_field_by_name(name).is_some_and(|field| match field.kind() {
        Kind::Message(message) => message.full_name() == kind,
        other => format!("{other:?}") == kind,
    })
}

#[test]
fn the_contract_has_its_services() {
    let services: BTreeSet<_> = methods().iter().map(|method| method.parent_service().name().to_owned()).collect();
    let expected = [
        "AdminService",
        "ApplicationService",
        "ConfigurationService",
        "ConnectionService",
        "ConnectorService",
        "CredentialsService",
        "KeyService",
        "UserConnectorService",
        "UserService",
    ];
    assert!(services.iter().eq(expected), "{services:?}");
}

#[test]
fn everything_has_a_comment() {
    let mut bare = Vec::new();
    let mut check = |name: &str, file: &str, path: &[i32]| {
        if comment(file, path).is_empty() {
            bare.push(name.to_owned());
        }
    };
    for service in POOL.services().filter(|service| service.package_name() == PACKAGE) {
        check(service.full_name(), service.parent_file().name(), service.path());
    }
    for method in methods() {
        check(method.full_name(), method.parent_file().name(), method.path());
    }
    for message in messages() {
        check(message.full_name(), message.parent_file().name(), message.path());
        for field in message.fields() {
            check(field.full_name(), field.parent_file().name(), field.path());
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            check(oneof.full_name(), oneof.parent_file().name(), oneof.path());
        }
    }
    for one in POOL.all_enums().filter(|one| one.package_name() == PACKAGE) {
        check(one.full_name(), one.parent_file().name(), one.path());
        for value in one.values() {
            check(value.full_name(), value.parent_file().name(), value.path());
        }
    }
    assert_eq!(bare, Vec::<String>::new());
    assert!(COMMENTS.len() > 500, "the descriptor set contains comments");
}

#[test]
fn requests_and_responses_belong_to_one_method_each() {
    for method in methods() {
        assert_eq!(method.input().full_name(), format!("{PACKAGE}.{}Request", method.name()));
        assert_eq!(method.output().full_name(), format!("{PACKAGE}.{}Response", method.name()));
        let converses = CONVERSATIONS.contains(&method.name());
        assert_eq!(method.is_client_streaming(), converses, "{}", method.full_name());
    }
}

#[test]
fn lists_and_nothing_else_stream_pages() {
    let mut lists = 0;
    let others: Vec<_> = REPORTS.into_iter().chain(WATCHES).chain(CONVERSATIONS).collect();
    for method in methods().into_iter().filter(|method| !others.contains(&method.name())) {
        let name = method.full_name();
        assert_eq!(method.is_server_streaming(), method.name().starts_with("List"), "{name}");
        if !method.is_server_streaming() {
            continue;
        }
        lists += 1;
        let paging = [(1, "page_size"), (2, "page_token"), (3, "limit"), (4, "filter"), (5, "order_by")];
        for (number, field) in paging {
            let found = method.input().get_field(number).map(|field| field.name().to_owned());
            assert_eq!(found.as_deref(), Some(field), "{name}");
        }
        let output = method.output();
        let items = output.get_field(1).expect(name);
        assert!(items.is_list() && matches!(items.kind(), Kind::Message(_)), "{name}: field 1 holds the items");
        let token = output.get_field(2).expect(name);
        assert_eq!((token.name(), token.kind()), ("next_page_token", Kind::String), "{name}");
        assert_eq!(output.fields().len(), 2, "{name}");
    }
    assert_eq!(lists, 12);
}

#[test]
fn reports_stream_single_results() {
    for name in REPORTS.into_iter().chain(WATCHES).chain(CONVERSATIONS) {
        let method = methods().into_iter().find(|method| method.name() == name).expect(name);
        assert!(method.is_server_streaming(), "{name}");
        let output = method.output();
        assert!(output.get_field_by_name("next_page_token").is_none(), "{name} cannot be continued");
    }
}

#[test]
fn reading_is_declared() {
    for method in methods() {
        // It may have a token replaced.
        let refreshes = method.name() == "GetUserConnectionCredentials";
        let verbs = ["Explain", "Get", "List", "Resolve", "Serve", "Watch"];
        let reads = !refreshes && verbs.iter().any(|verb| method.name().starts_with(verb));
        assert_eq!(reads_only(&method), reads, "{}", method.full_name());
    }
}

#[test]
fn changes_take_a_request_id_and_validate_only() {
    for method in methods().iter().filter(|method| !reads_only(method)) {
        let (name, input) = (method.name(), method.input());
        if WITHOUT_REQUEST_ID.contains(&name) {
            assert!(input.get_field_by_name("request_id").is_none(), "{name}: take it off the list");
            continue;
        }
        assert!(has_field(&input, "request_id", "string"), "{name}");
        assert!(has_field(&input, "validate_only", "bool"), "{name}");
        assert!(method_comment(method).contains("REQUEST_ID_CONFLICT"), "{name} documents what request ids can do");
    }
}

#[test]
fn resources_are_named_by_reference() {
    let verbs = ["Get", "Update", "Delete", "Destroy", "Remove", "Reveal", "IssueAccessToken"];
    let mut exceptions = BTreeSet::from(WITHOUT_REFERENCE);
    for method in methods().iter().filter(|method| verbs.iter().any(|verb| method.name().starts_with(verb))) {
        if exceptions.remove(method.name()) {
            assert_eq!(method.input().fields().len(), 0, "{}", method.name());
            continue;
        }
        if method.name() == "GetUserConnectionCredentials" {
            let fields = ["connection", "user_id"].map(|name| has_field(&method.input(), name, "string"));
            assert_eq!(fields, [true, true]);
            continue;
        }
        if OF_A_SOURCE.contains(&method.name()) {
            assert!(has_field(&method.input(), "user_id", "string"), "{}", method.name());
            assert!(has_field(&method.input(), "tenant_wide", "bool"), "{}", method.name());
            continue;
        }
        if OF_A_SESSION.contains(&method.name()) {
            assert!(has_field(&method.input(), "application", "string"), "{}", method.name());
            assert!(has_field(&method.input(), "session_token", "string"), "{}", method.name());
            continue;
        }
        let first = method.input().get_field(1).unwrap_or_else(|| panic!("{} has no field 1", method.name()));
        assert_eq!((first.name(), first.kind()), ("reference", Kind::String), "{}", method.name());
    }
    assert!(exceptions.is_empty(), "no such method any more: {exceptions:?}");
}

#[test]
fn updates_and_deletes_have_the_standard_form() {
    for method in methods() {
        let (name, input) = (method.name().to_owned(), method.input());
        if let Some(resource) = name.strip_prefix("Update") {
            assert!(has_field(&input, "update_mask", "google.protobuf.FieldMask"), "{name}");
            assert!(has_field(&input, "etag", "string"), "{name}");
            let full_name = format!("{PACKAGE}.{resource}");
            assert!(has_field(&input, &resource.to_lowercase(), &full_name), "{name} takes the resource");
            assert!(has_field(&method.output(), &resource.to_lowercase(), &full_name), "{name} returns the resource");
        }
        if name.starts_with("Delete") || name.starts_with("Destroy") {
            assert!(has_field(&input, "etag", "string") && has_field(&input, "allow_missing", "bool"), "{name}");
        }
        if name.starts_with("Remove") {
            assert!(has_field(&input, "etag", "string"), "{name}");
            assert!(
                input.get_field_by_name("allow_missing").is_none(),
                "{name}: removing twice is not an error anyway"
            );
        }
    }
}

#[test]
fn resources_have_id_times_and_etag() {
    let updated: Vec<_> = methods().iter().map(|method| method.name().to_owned()).collect();
    for resource in [
        "Application",
        "Configuration",
        "Connection",
        "Connector",
        "Credential",
        "CredentialSource",
        "Key",
        "Tenant",
        "User",
        "UserConnector",
    ]
    .map(str::to_owned)
    {
        let message = POOL.get_message_by_name(&format!("{PACKAGE}.{resource}")).expect(&resource);
        for (number, name, kind) in [
            (1, "id", "string"),
            (40, "create_time", "google.protobuf.Timestamp"),
            (41, "update_time", "google.protobuf.Timestamp"),
            (42, "etag", "string"),
        ] {
            let field = message.get_field(number).expect(&resource);
            assert!(field.name() == name && has_field(&message, name, kind), "{resource}: {}", field.name());
            // In an update that sends back a resource as it was read, these two fields identify it.
            let behaviour = match name {
                "id" => "IDENTIFIER",
                "etag" if updated.contains(&format!("Update{resource}")) => "OPTIONAL",
                _ => "OUTPUT_ONLY",
            };
            assert_eq!(behaviours::behaviours(&field), [behaviour], "{resource}.{name}");
        }
    }
}

#[test]
fn every_method_names_its_right() {
    let rights: Vec<_> = jackfield_domain::principal::Right::ALL.iter().map(|right| right.as_str()).collect();
    for method in methods() {
        let comment = method_comment(&method).split_whitespace().collect::<Vec<_>>().join(" ");
        let right = comment.rsplit_once("Right: ").map(|(_, right)| right.trim_end_matches('.'));
        assert!(right.is_some_and(|right| rights.contains(&right)), "{}: {right:?}", method.full_name());
    }
}
