//! One error response on its way into headers: what may be in it, how much of it, and in which order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::Resource;
use jackfield_domain::error::Cause;
use prost::Message as _;
use tonic::metadata::KeyAndValueRef;
use tonic::{Code, Status};
use tonic_types::pb::Status as PackedStatus;
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation, StatusExt as _};

use crate::call::context::CallContext;

/// Code, message and details together as receivers count headers. They refuse more: the libraries on gRPC's C core begin at
/// 8 KiB for all headers of a response, and some proxies have no more. A kilobyte is left for the other headers, those of
/// proxies included.
pub const MAX_BYTES: usize = 7 * 1024;
/// The bytes that count for each header in addition to its name and its value (RFC 7541 4.1).
const HEADER_OVERHEAD: usize = 32;
/// The limit of the message alone, as it is encoded: each byte that is not ASCII takes three.
const MAX_MESSAGE_BYTES: usize = 2 * 1024;

/// A client error must not grow with what the client sent; longer values are cut to this many characters.
const MAX_VALUE_CHARS: usize = 256;

/// The domain of all reasons. The contract has the same, and this crate must not know it.
const ERROR_DOMAIN: &str = "jackfield";

/// The type URL of `google.rpc.ErrorInfo`.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// `google.rpc.ErrorInfo` with its metadata in order; the type of the library encodes it in any order.
#[derive(Clone, PartialEq, prost::Message)]
struct OrderedInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// One response before it is encoded.
pub(super) struct StatusBuilder {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) reason: &'static str,
    /// In order, so that equal errors are equal bytes.
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) violations: Vec<FieldViolation>,
    pub(super) preconditions: Vec<PreconditionViolation>,
    pub(super) quota: Option<QuotaViolation>,
    pub(super) resource: Option<(Resource, String)>,
    pub(super) retry_after: Option<Duration>,
    pub(super) cause: Option<Cause>,
    pub(super) request_info: bool,
}

// === impl StatusBuilder ===

impl StatusBuilder {
    pub(super) fn new(code: Code, reason: &'static str, message: String) -> Self {
        StatusBuilder {
            code,
            message,
            reason,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            preconditions: Vec::new(),
            quota: None,
            resource: None,
            retry_after: None,
            cause: None,
            request_info: false,
        }
    }

    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), cut(value));
        self
    }

    pub(super) fn about(mut self, resource: Resource, name: String) -> Self {
        self.resource = Some((resource, cut(&name)));
        self
    }

    pub(super) fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self.with("retry_after_ms", &after.as_millis().to_string())
    }

    pub(super) fn caused_by(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    pub(super) fn into_status(mut self) -> Status {
        let context = CallContext::current();
        let cause: Option<Arc<dyn std::error::Error + Send + Sync>> = self.cause.take().map(Arc::from);
        if let (Some(context), Some(cause)) = (&context, &cause) {
            context.set_cause(cause.clone());
        }
        let request_id = context.filter(|_| self.request_info).map(|context| context.request_id.to_string());
        if let Some(request_id) = &request_id {
            self.metadata.insert("request_id".into(), request_id.clone());
        }

        self.message = cut_message(&self.message);
        let mut status = self.encode(request_id.as_deref());
        let (total, mut kept) = (self.violations.len(), self.violations.len());
        let mut chars = MAX_VALUE_CHARS;
        while size(&status) > MAX_BYTES && chars > 0 {
            if kept > 1 {
                // Dropping a good part at a time keeps this loop short however many there are.
                kept = kept * 3 / 4;
                self.violations.truncate(kept);
                self.violations.push(FieldViolation::new("", format!("… and {} more", total - kept)));
                self.metadata.insert("violations_left_out".into(), (total - kept).to_string());
            } else {
                chars /= 2;
                self.shorten(chars);
            }
            status = self.encode(request_id.as_deref());
        }
        if let Some(cause) = cause {
            status.set_source(cause);
        }
        status
    }

    /// Cuts everything that a client may have sent to this many characters.
    fn shorten(&mut self, chars: usize) {
        let cut = |text: &mut String| *text = cut_to(text, chars);
        self.metadata.values_mut().for_each(cut);
        for FieldViolation { field, description, .. } in &mut self.violations {
            cut(field);
            cut(description);
        }
        for PreconditionViolation { subject, description, .. } in &mut self.preconditions {
            cut(subject);
            cut(description);
        }
        if let Some((_, name)) = &mut self.resource {
            cut(name);
        }
        cut(&mut self.message);
    }

    fn encode(&self, request_id: Option<&str>) -> Status {
        let mut details = ErrorDetails::new();
        if !self.violations.is_empty() {
            details.set_bad_request(self.violations.clone());
        }
        if !self.preconditions.is_empty() {
            details.set_precondition_failure(self.preconditions.clone());
        }
        if let Some(quota) = &self.quota {
            details.set_quota_failure(vec![quota.clone()]);
        }
        if let Some((resource, name)) = &self.resource {
            details.set_resource_info(resource.as_str(), name.clone(), "", self.message.clone());
        }
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        if let Some(request_id) = request_id {
            details.set_request_info(request_id, "");
        }
        let status = Status::with_error_details(self.code, self.message.clone(), details);
        let Ok(mut packed) = PackedStatus::decode(status.details()) else { return status };
        let info =
            OrderedInfo { reason: self.reason.into(), domain: ERROR_DOMAIN.into(), metadata: self.metadata.clone() };
        packed.details.insert(0, prost_types::Any { type_url: ERROR_INFO.into(), value: info.encode_to_vec() });
        let mut status = Status::with_details(self.code, self.message.clone(), packed.encode_to_vec().into());
        if let Some(after) = self.retry_after.filter(|_| self.code == Code::ResourceExhausted)
            && let Ok(value) = after.as_millis().to_string().parse()
        {
            status.metadata_mut().insert("grpc-retry-pushback-ms", value);
        }
        status
    }
}

/// Returns the most bytes that a status takes in headers, as receivers count them.
pub fn size(status: &Status) -> usize {
    let header = |name: &str, length: usize| name.len() + length + HEADER_OVERHEAD;
    let others = status.metadata().iter().map(|entry| match entry {
        KeyAndValueRef::Ascii(name, value) => header(name.as_str(), value.as_encoded_bytes().len()),
        KeyAndValueRef::Binary(name, value) => header(name.as_str(), value.as_encoded_bytes().len()),
    });
    others.sum::<usize>()
        + header("grpc-status", 2)
        + header("grpc-message", encoded_len(status.message()))
        + header("grpc-status-details-bin", status.details().len().div_ceil(3) * 4)
}

/// The most bytes that a text takes when it is percent-encoded in a header.
fn encoded_len(text: &str) -> usize {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.,:;/()".contains(byte);
    text.as_bytes().iter().map(|byte| if plain(byte) { 1 } else { 3 }).sum()
}

/// The beginning of a text, if it is long.
pub(super) fn cut(text: &str) -> String {
    cut_to(text, MAX_VALUE_CHARS)
}

fn cut_to(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", text[..end].trim_end_matches('…')),
        None => text.to_owned(),
    }
}

/// Returns as much of a message as may be sent.
fn cut_message(message: &str) -> String {
    const MORE: char = '…';
    let mut left = MAX_MESSAGE_BYTES - encoded_len(MORE.encode_utf8(&mut [0; 4]));
    if encoded_len(message) <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let fits = |character: &char| {
        let length = encoded_len(character.encode_utf8(&mut [0; 4]));
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    message.chars().take_while(fits).chain([MORE]).collect()
}
