//! The server behaves as the field annotations say (AIP-203): it demands exactly the required fields, ignores
//! output-only fields, and applies or refuses everything else that a mask can name.

mod cases;
mod scopes;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use jackfield_testkit::raw::Raw;
use jackfield_testkit::{ProviderOptions, Refusal, TestServer, on_both};
use prost::Message as _;
use prost::bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor, Value};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use self::cases::cases;
use crate::contract::behaviours::{fields, is};
use crate::contract::{PACKAGE, methods};
use crate::refresh::world::World;

/// A call with only the required fields.
struct Case {
    method: MethodDescriptor,
    request: DynamicMessage,
}

/// Fields of which one is required, whichever it is.
const ONE_OF_SEVERAL: [&str; 7] = [
    "jackfield.v1.AuthenticateUserConnectorRequest.material",
    "jackfield.v1.CompleteAuthorizationRequest.error",
    "jackfield.v1.CompleteAuthorizationRequest.state",
    "jackfield.v1.CredentialSource.tenant_wide",
    "jackfield.v1.User.username",
    "jackfield.v1.User.email",
    "jackfield.v1.User.phone_number",
];

/// Required fields of the items of lists that may be empty. The tests of their resource leave them out.
const IN_LISTS: [&str; 3] = [
    "jackfield.v1.Permission.slug",
    "jackfield.v1.RoutingRule.email_domains",
    "jackfield.v1.UserRegistration.application_id",
];

/// A field and its parents, the outermost first.
type Path = Vec<FieldDescriptor>;

// === impl Case ===

impl Case {
    fn new(method: &str, request: &impl prost::Message) -> Self {
        let method = methods().into_iter().find(|found| found.name() == method).expect(method);
        let request = DynamicMessage::decode(method.input(), &*request.encode_to_vec()).unwrap();
        Case { method, request }
    }

    /// The call that reads the resource that an update changes.
    fn reading(&self, resource: &MessageDescriptor) -> Self {
        let name = format!("Get{}", resource.name());
        let method = methods().into_iter().find(|found| found.name() == name).expect(&name);
        let mut request = DynamicMessage::new(method.input());
        request.set_field_by_name("reference", self.request.get_field_by_name("reference").unwrap().into_owned());
        Case { method, request }
    }

    /// The update of this resource with one path in its mask.
    fn with_mask(&self, path: &str, given: DynamicMessage) -> DynamicMessage {
        let mut request = self.request.clone();
        request.clear_field_by_name("material");
        let mask = request.get_field_by_name_mut("update_mask").unwrap().as_message_mut().unwrap();
        mask.set_field_by_name("paths", Value::List(vec![Value::String(path.to_owned())]));
        request.set_field(&self.resource().unwrap(), Value::Message(given));
        request
    }

    fn is_update(&self) -> bool {
        self.method.name().starts_with("Update")
    }

    /// The field of the request that holds a resource.
    fn resource(&self) -> Option<FieldDescriptor> {
        self.method.input().fields().find(|field| {
            let message = field.kind().as_message().cloned();
            message.and_then(|message| message.get_field_by_name("id")).is_some_and(|id| is(&id, "IDENTIFIER"))
        })
    }

    /// The required fields of the request. An update need not contain immutable fields.
    fn required(&self) -> Vec<Path> {
        let mut found = Vec::new();
        present(&self.request, &mut Vec::new(), &mut |path| {
            let field = path.last().unwrap();
            if is(field, "REQUIRED") && !(self.is_update() && is(field, "IMMUTABLE")) {
                found.push(path.to_vec());
            }
        });
        found
    }
}

/// Calls a function for each field of a message, including those of nested messages.
fn present(message: &DynamicMessage, path: &mut Path, each: &mut impl FnMut(&[FieldDescriptor])) {
    for (field, value) in message.fields() {
        path.push(field);
        each(path);
        if let Value::Message(inner) = value {
            present(inner, path, each);
        }
        path.pop();
    }
}

fn dotted(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// The message that contains the last field of a path.
fn parent<'a>(message: &'a mut DynamicMessage, path: &[FieldDescriptor]) -> &'a mut DynamicMessage {
    path[..path.len() - 1].iter().fold(message, |message, field| {
        let inner = message.get_field_mut(field);
        inner.as_message_mut().expect("a message")
    })
}

async fn call(server: &TestServer, case: &Case, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
    let service = case.method.parent_service();
    let client = server.client(if service.name() == "AdminService" { "operator" } else { "alpha" });
    let path = format!("/{}/{}", service.full_name(), case.method.name());
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.expect("a connection");
    let bytes = Bytes::from(request.encode_to_vec());
    let answer = grpc.unary(Request::new(bytes), path.parse().unwrap(), Raw).await?;
    Ok(DynamicMessage::decode(case.method.output(), answer.into_inner()).unwrap())
}

/// As [`call`], but with `validate_only` if the method has it.
async fn tried(server: &TestServer, case: &Case, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
    let mut request = request.clone();
    if let Some(field) = case.method.input().get_field_by_name("validate_only") {
        request.set_field(&field, Value::Bool(true));
    }
    call(server, case, &request).await
}

/// A value of a field that differs from this one.
fn other_value(field: &FieldDescriptor, previous: &Value) -> Value {
    let one = |kind: Kind| match kind {
        Kind::String => Value::String("planted".to_owned()),
        Kind::Bool => Value::Bool(previous != &Value::Bool(true)),
        Kind::Int32 => Value::I32(77),
        Kind::Int64 => Value::I64(77),
        Kind::Enum(kind) => {
            let numbers = kind.values().map(|value| Value::EnumNumber(value.number()));
            numbers.filter(|value| value != previous).last().unwrap()
        }
        Kind::Message(message) => Value::Message(filled(&message)),
        other => panic!("{other:?}: give it a value"),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let value = one(entry.map_entry_value_field().kind());
            Value::Map([(MapKey::String("planted".to_owned()), value)].into())
        }
        kind if field.is_list() => Value::List(vec![one(kind)]),
        kind => one(kind),
    }
}

fn filled(message: &MessageDescriptor) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    match message.full_name() {
        "google.protobuf.Timestamp" | "google.protobuf.Duration" => filled.set_field_by_name("seconds", Value::I64(77)),
        "google.protobuf.Value" => filled.set_field_by_name("bool_value", Value::Bool(true)),
        _ => {
            for field in message.fields() {
                let value = other_value(&field, &Value::default_value_for_field(&field));
                filled.set_field(&field, value);
            }
        }
    }
    filled
}

/// Returns whether the server ignores a field of a resource: one that is output only or only identifies the resource.
fn is_unheeded(field: &FieldDescriptor) -> bool {
    is(field, "OUTPUT_ONLY") || is(field, "IDENTIFIER") || field.name() == "etag"
}

/// The paths of a resource that a mask can name, except map keys: its fields, and those of each of its kinds.
fn paths(resource: &MessageDescriptor) -> Vec<Path> {
    let mut paths = Vec::new();
    for field in resource.fields() {
        match field.kind().as_message() {
            Some(kind) if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) => {
                paths.extend(kind.fields().map(|inner| vec![field.clone(), inner]));
            }
            _ => paths.push(vec![field]),
        }
    }
    paths
}

on_both! {
    async fn exactly_the_required_fields_are_demanded(server) {
        let (mut tried_fields, mut tried_methods) = (BTreeSet::new(), BTreeSet::new());
        for case in cases(&server, &World::on(&server, ProviderOptions::default()).await).await {
            let name = case.method.name();
            present(&case.request, &mut Vec::new(), &mut |path| {
                let field = path.last().unwrap();
                let is_member = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
                let of_updates = case.is_update() && matches!(field.name(), "update_mask" | "material");
                let beneath = path.iter().any(|field| field.name() == "update_mask");
                let is_required = is(field, "REQUIRED") || is_member || ONE_OF_SEVERAL.contains(&field.full_name());
                assert!(is_required || of_updates || beneath, "{name}: {}", dotted(path));
            });
            let answered = tried(&server, &case, &case.request).await;
            assert!(answered.is_ok(), "{name}: {answered:?}");
            for path in case.required() {
                let mut request = case.request.clone();
                parent(&mut request, &path).clear_field(path.last().unwrap());
                let status = call(&server, &case, &request).await.expect_err(&dotted(&path));
                let info = status.get_error_details().error_info().map(|info| info.reason.clone());
                let reason = if info.as_deref() == Some("REFERENCE_INVALID") { "REFERENCE_INVALID" } else { "FIELD_INVALID" };
                Refusal::check(status, Code::InvalidArgument, reason).expect_fields(&[&dotted(&path)]);
                tried_fields.insert(path.last().unwrap().full_name().to_owned());
            }
            tried_methods.insert(name.to_owned());
        }
        let required = fields().into_iter().filter(|field| is(field, "REQUIRED"));
        let required = required.filter(|field| !IN_LISTS.contains(&field.full_name()));
        let required: BTreeSet<_> = required.map(|field| field.full_name().to_owned()).collect();
        assert_eq!(tried_fields, required);
        let asking = methods().into_iter().filter(|method| method.input().fields().any(|field| is(&field, "REQUIRED")));
        let asking: BTreeSet<_> = asking.map(|method| method.name().to_owned()).collect();
        assert_eq!(tried_methods, asking);
    }

    async fn output_only_fields_are_ignored_on_create(server) {
        let mut count = 0;
        for case in cases(&server, &World::on(&server, ProviderOptions::default()).await).await.iter().filter(|case| !case.is_update()) {
            let Some(resource) = case.resource() else { continue };
            let answered = case.method.output().get_field_by_name(resource.name()).expect("the created resource");
            let mut plain = tried(&server, case, &case.request).await.unwrap();
            let mut holders = Vec::new();
            present(&case.request, &mut Vec::new(), &mut |path| {
                let is_ours = path.last().unwrap().kind().as_message().is_some_and(|it| it.package_name() == PACKAGE);
                if path[0] == resource && is_ours {
                    holders.push(path.to_vec());
                }
            });
            let mut request = case.request.clone();
            let mut planted: Vec<(Path, Value)> = Vec::new();
            for holder in holders {
                let message = holder.last().unwrap().kind().as_message().unwrap().clone();
                for field in message.fields().filter(is_unheeded) {
                    let mut path: Path = holder.iter().cloned().chain([field.clone()]).collect();
                    let sent = path[0].clone();
                    path[0] = answered.clone();
                    let value = other_value(&field, &parent(&mut plain, &path).get_field(&field));
                    parent(&mut request, &[&[sent], &path[1..]].concat()).set_field(&field, value.clone());
                    planted.push((path, value));
                }
            }
            assert!(planted.len() > 3, "id, times and etag at least");
            let mut answer = tried(&server, case, &request).await.unwrap();
            for (path, value) in planted {
                let found = parent(&mut answer, &path).get_field(path.last().unwrap()).into_owned();
                assert!(found != value, "{} was taken", dotted(&path));
                count += 1;
            }
        }
        assert!(count > 50, "{count}");
    }

    async fn a_mask_ignores_output_only_fields_and_acts_on_all_others(server) {
        let (mut resources, mut changed) = (BTreeSet::new(), BTreeMap::<_, usize>::new());
        for case in cases(&server, &World::on(&server, ProviderOptions::default()).await).await.iter().filter(|case| case.is_update()) {
            let resource = case.resource().unwrap();
            let message = resource.kind().as_message().unwrap().clone();
            resources.insert(message.name().to_owned());
            let reading = case.reading(&message);
            let answer = call(&server, &reading, &reading.request).await.unwrap();
            let previous = answer.get_field_by_name(resource.name()).unwrap().as_message().unwrap().clone();
            for path in paths(&message) {
                let (name, field) = (format!("{}.{}", message.name(), dotted(&path)), path.last().unwrap());
                let before = match &previous.get_field(&path[0]).into_owned() {
                    Value::Message(inner) if path.len() > 1 => inner.get_field(field).into_owned(),
                    value => value.clone(),
                };
                // These identify the resource, and are checked as such.
                let says_which = is(field, "IDENTIFIER") || field.name() == "etag";
                let value = if says_which { before.clone() } else { other_value(field, &before) };
                let mut given = DynamicMessage::new(message.clone());
                parent(&mut given, &path).set_field(field, value);
                match tried(&server, case, &case.with_mask(&dotted(&path), given)).await {
                    Ok(answer) => {
                        let after = answer.get_field_by_name(resource.name()).unwrap().into_owned();
                        assert_eq!(after.as_message() == Some(&previous), is_unheeded(field), "{name}");
                        assert!(!is(field, "IMMUTABLE"), "{name}");
                        *changed.entry(message.name().to_owned()).or_default() += usize::from(!is_unheeded(field));
                    }
                    Err(status) => {
                        assert!(!is_unheeded(field), "{name}: {status:?}");
                        let details = status.get_error_details();
                        assert!(details.bad_request().is_some(), "{name}: {status:?}");
                        assert!(!format!("{details:?}").contains("is unknown"), "{name}: {details:?}");
                    }
                }
            }
        }
        assert!(resources.iter().eq(["Application", "Configuration", "Connection", "Connector", "Credential", "Key", "User"]), "{resources:?}");
        assert!(changed.values().all(|count| *count > 1), "{changed:?}");
    }
}
