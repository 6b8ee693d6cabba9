//! From messages to domain types. Everything that is wrong with a request is collected, not only the first.

use std::time::Duration;

use jackfield_domain::request::filter;
use jackfield_domain::request::mask::Mask;
use jackfield_domain::request::order::Order;
use jackfield_domain::request::page::{ListRequest, parse_sizes};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::request::schema::Schema;
use jackfield_domain::value::id::parse_uuid;
use jackfield_domain::value::json::{self as limits, JsonObject};
use jackfield_domain::value::text::UserId;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Result, Timestamp, Violation, Violations};
use jackfield_service::{RequestId, RequestOptions};
use prost::Message;
use prost_types::{FieldMask, Struct, value::Kind};
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::transport::call::context::{CallContext, Change};

/// Longest URL of fields without a limit of their own.
pub(super) const MAX_URL: usize = 2_048;

/// How a change is to be carried out; the whole message is what makes a repeat a repeat.
pub(super) fn mutation(
    violations: &mut Violations,
    method: &'static str,
    message: &impl Message,
    request_id: &str,
    validate_only: bool,
) -> RequestOptions {
    let id = violations.check(optional_id("request_id", request_id)).flatten();
    let request = id.map(|id| {
        let mut body = Zeroizing::new(message.encode_to_vec());
        // A repeat may spell the id in another letter case: it is the same id, so it must not make another request of it.
        let (spelled, canonical) = (request_id.as_bytes(), id.to_string());
        if let Some(at) = body.windows(spelled.len()).position(|window| window == spelled)
            && spelled.len() == canonical.len()
        {
            body[at..at + spelled.len()].copy_from_slice(canonical.as_bytes());
        }
        RequestId { id, body }
    });
    let mutation = RequestOptions { method, request, validate_only };
    let change = match (validate_only, mutation.is_repeatable()) {
        (true, _) => Change::Nothing,
        (false, true) => Change::Repeatable,
        (false, false) => Change::Unrepeatable,
    };
    CallContext::current().iter().for_each(|call| call.set_change(change));
    mutation
}

/// The fields that all list requests share.
pub(super) struct ListFields<'a> {
    pub(super) page_size: i32,
    pub(super) page_token: &'a str,
    pub(super) limit: i32,
    pub(super) filter: &'a str,
    pub(super) order_by: &'a str,
}

pub(super) fn list(violations: &mut Violations, fields: &ListFields<'_>, schema: &Schema) -> Option<ListRequest> {
    let (page_size, limit) = parse_sizes(fields.page_size, fields.limit);
    let page_size = violations.check(page_size);
    let limit = violations.check(limit);
    let filter = violations.check(filter::parse(fields.filter, schema));
    let order = violations.check(Order::parse(fields.order_by, schema.orders));
    Some(ListRequest {
        page_size: page_size?,
        limit: limit?,
        page_token: fields.page_token.to_owned(),
        filter: filter?,
        order: order?,
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

pub(super) fn mask(
    violations: &mut Violations,
    mask: Option<&FieldMask>,
    known: &[&str],
    output_only: &[&str],
) -> Option<Mask> {
    match Mask::parse("update_mask", mask.map(|mask| mask.paths.as_slice()), known, output_only) {
        Ok(mask) => Some(mask),
        Err(found) => {
            violations.extend(found);
            None
        }
    }
}

/// A value that comes with several violations or none.
pub(super) fn check_all<T>(violations: &mut Violations, result: Result<T, Vec<Violation>>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(found) => {
            violations.extend(found);
            None
        }
    }
}

/// A URL that may be absent: empty = none.
pub(super) fn url(violations: &mut Violations, field: &str, text: &str, max: usize) -> Option<Option<HttpUrl>> {
    if text.is_empty() {
        return Some(None);
    }
    violations.check(HttpUrl::parse(field, text, max)).map(Some)
}

/// A text that may be absent: empty = none.
pub(super) fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A timeout: more than 0, at most `max`.
pub(super) fn timeout(field: &str, value: prost_types::Duration, max: Duration) -> Result<Duration, Violation> {
    match duration(value) {
        Some(duration) if duration > Duration::ZERO && duration <= max => Ok(duration),
        _ => Err(Violation::field(field, format!("must be more than 0 and at most {} s", max.as_secs()))),
    }
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

/// An enum number that the contract has; unknown ones are refused.
pub(super) fn known_enum<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E, Violation> {
    E::try_from(number).map_err(|_| Violation::field(field, format!("has the unknown enum value {number}")))
}

/// All that was noted, if anything.
pub(super) fn done<T>(violations: Violations, value: Option<T>) -> Result<T> {
    violations.into_result(value)
}

/// Puts what the metadata names into the field that it may stand for, as the seeds do it with headers. If both are given,
/// or the metadata more than once, they must say the same: another reading of them would be another resource.
pub(super) fn from_metadata(
    violations: &mut Violations,
    metadata: &tonic::metadata::MetadataMap,
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
            violations
                .push(Violation::reference(field, format!("differs from the metadata {key}, or that from itself")));
            return;
        }
    }
}

/// A user that narrows a list; empty = none.
pub(super) fn optional_user(violations: &mut Violations, text: &str) -> Option<Option<UserId>> {
    match non_empty(text) {
        Some(text) => violations.check(UserId::parse("user_id", text)).map(Some),
        None => Some(None),
    }
}
