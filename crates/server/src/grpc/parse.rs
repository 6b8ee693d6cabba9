//! Parses what the messages of several services have in common. All violations of a request are collected, not only the first.

use std::marker::PhantomData;
use std::time::Duration;

use jackfield_api::message::{ChangeMessage, ListMessage};
use jackfield_domain::request::filter;
use jackfield_domain::request::order::Order;
use jackfield_domain::request::page::{ListRequest, parse_sizes};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::id::parse_uuid;
use jackfield_domain::value::json::{self as limits, JsonObject};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{Result, Timestamp, Violation, Violations};
use jackfield_service::{Listable, RequestId, RequestOptions};
use prost_types::{Struct, value::Kind};
use serde_json::{Map, Value};
use tonic::metadata::MetadataMap;
use uuid::Uuid;
use zeroize::Zeroizing;

use jackfield_transport::call::context::{CallContext, Change};

/// A resource that is named by reference, or by the user and the connector that it belongs to.
pub(super) enum ReferenceOrPair {
    Reference(Ref),
    Pair { user_id: UserId, connector: Ref },
}

/// The options of a change. A repeat is recognised by the whole message.
pub(super) fn options<M: ChangeMessage>(violations: &mut Violations, request: &mut M) -> RequestOptions {
    let id = violations.check(optional_id("request_id", request.request_id())).flatten();
    let validate_only = request.validate_only();
    let repeat = id.map(|id| {
        // A repeat may spell the id in another letter case. It is the same id, and so the same request.
        *request.request_id() = id.to_string();
        RequestId { id, body: Zeroizing::new(request.encode_to_vec()) }
    });
    let options = RequestOptions { method: M::METHOD, request: repeat, validate_only };
    let change = match (validate_only, options.is_repeatable()) {
        (true, _) => Change::Nothing,
        (false, true) => Change::Repeatable,
        (false, false) => Change::Unrepeatable,
    };
    CallContext::current().iter().for_each(|call| call.set_change(change));
    options
}

/// The fields that all list requests share. Filter and order may use what the schema of the resource names.
pub(super) fn list<T: Listable>(violations: &mut Violations, request: &impl ListMessage) -> Option<ListRequest<T>> {
    let (page_size, limit) = parse_sizes(request.page_size(), request.limit());
    let page_size = violations.check(page_size);
    let limit = violations.check(limit);
    let filter = violations.check(filter::parse(request.filter(), T::SCHEMA));
    let order = violations.check(Order::parse(request.order_by(), T::SCHEMA.orders));
    Some(ListRequest {
        page_size: page_size?,
        limit: limit?,
        page_token: request.page_token().to_owned(),
        filter: filter?,
        order: order?,
        listed: PhantomData,
    })
}

/// A UUID that a caller chose; empty = none.
pub(super) fn optional_id(field: &str, text: &str) -> Result<Option<Uuid>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    match parse_uuid(text).filter(|id| !id.is_nil()) {
        Some(id) => Ok(Some(id)),
        None => Err(Violation::field(field, "must be a UUID, and not the nil UUID")),
    }
}

pub(super) fn reference(violations: &mut Violations, text: &str, forms: ReferenceForms) -> Option<Ref> {
    violations.check(Ref::parse("reference", text, forms))
}

/// The resource that a request must carry.
pub(super) fn required<T>(violations: &mut Violations, field: &str, value: Option<T>) -> Option<T> {
    violations.check(value.ok_or_else(|| Violation::field(field, "is required")))
}

/// The text, unless it is empty.
pub(super) fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A duration that is not negative.
pub(super) fn duration(value: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

pub(super) fn timestamp(field: &str, value: prost_types::Timestamp) -> Result<Timestamp, Violation> {
    let time = Timestamp::from_parts(value.seconds, value.nanos);
    time.ok_or_else(|| Violation::field(field, "must be a time in the years 1 to 9999"))
}

/// A free JSON object; absent = empty.
pub(super) fn json(field: &str, value: Option<Struct>) -> Result<JsonObject, Violation> {
    let object = json_object(field, value.unwrap_or_default())?;
    JsonObject::parse(field, object)
}

fn json_object(field: &str, value: Struct) -> Result<Map<String, Value>, Violation> {
    let members = value.fields.into_iter();
    members.map(|(name, value)| json_value(field, value).map(|value| (name, value))).collect()
}

fn json_value(field: &str, value: prost_types::Value) -> Result<Value, Violation> {
    Ok(match value.kind {
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => limits::number(field, value)?,
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => {
            let values = list.values.into_iter().map(|value| json_value(field, value));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(value)) => Value::Object(json_object(field, value)?),
        None => return Err(Violation::field(field, "holds a value of no kind")),
    })
}

/// Fills a field from the metadata that may be sent in its place. If both are given, or the metadata more than once, they must
/// say the same: otherwise it would be unclear which resource is meant.
pub(super) fn from_metadata(
    violations: &mut Violations,
    metadata: &MetadataMap,
    key: &'static str,
    field: &str,
    value: &mut String,
) {
    for named in &metadata.get_all(key) {
        let Ok(named) = named.to_str() else {
            violations.push(Violation::reference(field, format!("metadata {key} is not ASCII text")));
            return;
        };
        if value.is_empty() {
            named.clone_into(value);
        } else if value != named {
            violations.push(Violation::reference(
                field,
                format!("differs from the metadata {key}, or the metadata has different values"),
            ));
            return;
        }
    }
}

/// A user that narrows a list; empty = none.
pub(super) fn optional_user(violations: &mut Violations, text: &str) -> Option<Option<UserId>> {
    violations.check(non_empty(text).map(|text| UserId::parse("user_id", text)).transpose())
}

/// The user whom a credential source is for; `None`: it is that of the tenant. Nothing is assumed if neither is given: a caller that
/// forgot a field would change what all users get.
pub(super) fn user_or_tenant(
    violations: &mut Violations,
    parent: &str,
    (user_id, tenant_wide): (&str, bool),
) -> Option<Option<UserId>> {
    let field = |name: &str| format!("{parent}{name}");
    match (non_empty(user_id), tenant_wide) {
        (Some(user_id), false) => violations.check(UserId::parse(&field("user_id"), user_id)).map(Some),
        (None, true) => Some(None),
        (Some(_), true) => {
            let description = "must not be given together with user_id";
            violations.push(Violation::field(field("tenant_wide"), description));
            None
        }
        (None, false) => {
            let description = "is required, unless tenant_wide is true: the source is then that of the tenant";
            violations.push(Violation::field(field("user_id"), description));
            None
        }
    }
}

/// A reference that may be left out.
pub(super) fn optional_reference(
    violations: &mut Violations,
    field: &str,
    text: &str,
    forms: ReferenceForms,
) -> Option<Option<Ref>> {
    violations.check(Ref::parse_optional(field, text, forms))
}

/// A resource that is named by reference or by a pair, and not by both.
pub(super) fn named(
    violations: &mut Violations,
    (reference, forms): (&str, ReferenceForms),
    user_id: &str,
    connector: &str,
) -> Option<ReferenceOrPair> {
    match (reference.is_empty(), user_id.is_empty() && connector.is_empty()) {
        (true, true) => {
            let description = "is required, unless user_id and connector are given";
            violations.push(Violation::reference("reference", description));
            None
        }
        (false, false) => {
            let description = "must not be given together with user_id and connector";
            violations.push(Violation::reference("reference", description));
            None
        }
        (false, true) => self::reference(violations, reference, forms).map(ReferenceOrPair::Reference),
        (true, false) => {
            let user_id = violations.check(UserId::parse("user_id", user_id));
            let connector = violations.check(Ref::parse("connector", connector, ReferenceForms::ID_NAME));
            Some(ReferenceOrPair::Pair { user_id: user_id?, connector: connector? })
        }
    }
}
