//! Responses that the libraries below make themselves, brought into this server's form: every error has its details.

use std::ops::ControlFlow;

use http::{Method, StatusCode, header};
use jackfield_domain::{Error, Violation};
use tonic::body::Body;
use tonic::{Code, Status};

use super::intercept::{Intercept, OnResponse};
use super::one_message::OneMessage;
use crate::call::context::CallContext;
use crate::call::methods::{Kind, Shape};
use crate::call::response::refused;
use crate::call::status::{compression_unknown, headers_too_large, message_too_large, method_unknown, status};
use crate::call::{Request, Response, ResponseBody};
use crate::config::Limits;
use crate::standard::{health, reflection};

const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The bytes that count for each header in addition to its name and its value (RFC 9113 6.5.2).
const HEADER_OVERHEAD: u64 = 32;

#[derive(Clone)]
pub(super) struct Normalize {
    /// Size of a request message of the API in bytes, which tonic checks.
    max_request_message: u64,
    /// Size of the headers of a call in bytes. HTTP/2 itself refuses only a multiple of this, and not with a gRPC response.
    max_header_list: u64,
}

/// Brings responses into the form of this server.
pub(super) struct Normalizing {
    max_request_message: u64,
}

// === impl Normalize ===

impl Normalize {
    pub(super) fn new(limits: &Limits) -> Self {
        Normalize {
            max_request_message: limits.max_request_message.bytes() as u64,
            max_header_list: limits.max_header_list_size.bytes() as u64,
        }
    }
}

impl Intercept for Normalize {
    type OnResponse = Normalizing;

    fn on_request(&self, request: &mut Request) -> ControlFlow<Response, Normalizing> {
        if let Some(code) = not_grpc(request) {
            return ControlFlow::Break(http_error(code));
        }
        if header_list(request) > self.max_header_list {
            return ControlFlow::Break(refused(headers_too_large(self.max_header_list)));
        }
        let context = CallContext::of(request);
        let Some(method) = &context.method else {
            return ControlFlow::Break(refused(method_unknown(request.uri().path())));
        };
        if method.shape != Shape::Conversation {
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = Body::new(OneMessage::new(body));
        }
        let max_request_message = match method.kind {
            Kind::Api => self.max_request_message,
            Kind::Health => health::MAX_REQUEST_MESSAGE as u64,
            Kind::Reflection => reflection::MAX_REQUEST_MESSAGE as u64,
        };
        ControlFlow::Continue(Normalizing { max_request_message })
    }
}

impl OnResponse for Normalizing {
    fn on_response(self, response: Response) -> Response {
        match foreign(&response) {
            // A compression that is switched off. Code and headers are those of the specification and stay.
            Some(foreign) if foreign.code() == Code::Unimplemented => {
                let mut ours = refused(compression_unknown(foreign.message()));
                if let Some(accepted) = response.headers().get(ACCEPT_ENCODING) {
                    ours.headers_mut().insert(ACCEPT_ENCODING, accepted.clone());
                }
                ours
            }
            Some(foreign) => replace(foreign, self.max_request_message).map_or(response, refused),
            None => response,
        }
    }
}

/// Returns the response to a request that is not a gRPC request, as the specification of gRPC over HTTP/2 requires.
fn not_grpc(request: &Request) -> Option<StatusCode> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let grpc = content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';');
    match () {
        () if request.method() != Method::POST => Some(StatusCode::METHOD_NOT_ALLOWED),
        () if !grpc => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        () => None,
    }
}

/// Returns the size of the headers of a call as HTTP/2 counts them.
fn header_list(request: &Request) -> u64 {
    let header = |name: usize, value: usize| name as u64 + value as u64 + HEADER_OVERHEAD;
    let uri = request.uri();
    let pseudo = header(":method".len(), request.method().as_str().len())
        + header(":scheme".len(), uri.scheme_str().map_or(0, str::len))
        + header(":authority".len(), uri.authority().map_or(0, |authority| authority.as_str().len()))
        + header(":path".len(), uri.path_and_query().map_or(0, |path| path.as_str().len()));
    pseudo + request.headers().iter().map(|(name, value)| header(name.as_str().len(), value.len())).sum::<u64>()
}

fn http_error(code: StatusCode) -> Response {
    let mut response = http::Response::new(ResponseBody::new(Body::empty()));
    *response.status_mut() = code;
    response
}

/// Returns the status of a response without messages that did not come from our table: it has no details.
fn foreign(response: &Response) -> Option<Status> {
    Status::from_header_map(response.headers())
        .filter(|status| status.code() != Code::Ok && status.details().is_empty())
}

/// Returns our form of a status that a library made; `None` to leave it, as for the health service.
fn replace(foreign: Status, max_request_message: u64) -> Option<Status> {
    match foreign.code() {
        Code::OutOfRange | Code::ResourceExhausted => Some(message_too_large(max_request_message)),
        // Inconsistent framing, no message at all, or a stream that broke off.
        Code::Internal | Code::InvalidArgument | Code::Unknown => {
            let violation = Violation::malformed("", "the request does not hold exactly one well-formed message");
            Some(status(violation.into()))
        }
        Code::DeadlineExceeded => Some(status(Error::DeadlineExceeded)),
        Code::Ok
        | Code::Cancelled
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => None,
    }
}
