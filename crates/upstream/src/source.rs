//! Credential sources that are called: with JSON in a POST, or over gRPC.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use jackfield_domain::credential_source::{SourceFault, SourceProtocol};
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;

use crate::client::{Client, Deadline, Protocol, Request, Reserved, Response};
use crate::error::{CallError, Fault};
use crate::retry_after::retry_after;

/// A question without a usable response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("its URL cannot have the path of the contract")]
    Url,
    /// The status is not one of those that are agreed.
    #[error("status {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// The status of gRPC is not OK. Its message may have anything, so it is left out.
    #[error("status {0} of gRPC")]
    Grpc(String),
    #[error("its response is not one message of gRPC")]
    Frame,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: &str = "grpc-status";
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PATH: &str = "/jackfield.source.v1.CredentialSourceService/FetchCredentials";
/// A flag and the length of a message.
const PREFIX: usize = 5;
const MAX_URL: usize = 4_096;
/// The status DEADLINE_EXCEEDED.
const LATE: &str = "4";

/// Sends a question in a place of the client, and returns the answer. `None`: the source has nothing.
///
/// # Errors
/// The source cannot be called, or it failed.
pub async fn ask(
    (client, place): (&Client, Reserved<'_>),
    (protocol, url): (SourceProtocol, &HttpUrl),
    question: &[u8],
    deadline: Deadline,
) -> Result<Option<Bytes>, SourceError> {
    match protocol {
        SourceProtocol::Https => read(client.send_in(place, Protocol::Http1, post(url, question, deadline)).await?),
        SourceProtocol::Grpc => {
            let request = call(url, question, deadline)?;
            read_grpc(client.send_in(place, Protocol::Http2, request).await?).map(Some)
        }
    }
}

fn post(url: &HttpUrl, question: &[u8], deadline: Deadline) -> Request {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (ACCEPT, JSON)]);
    let body = Bytes::copy_from_slice(question);
    Request { method: Method::POST, url: url.clone(), headers, body, deadline: Some(deadline) }
}

fn read(response: Response) -> Result<Option<Bytes>, SourceError> {
    match response.status {
        StatusCode::OK => Ok(Some(response.body)),
        StatusCode::NO_CONTENT => Ok(None),
        _ => Err(failed(&response)),
    }
}

fn call(url: &HttpUrl, question: &[u8], deadline: Deadline) -> Result<Request, SourceError> {
    let url = format!("{}{PATH}", url.as_str().trim_end_matches('/'));
    let url = HttpUrl::parse("url", &url, MAX_URL).map_err(|_| SourceError::Url)?;
    let millis = deadline.at().saturating_duration_since(Instant::now()).as_millis();
    let timeout = HeaderValue::from_str(&format!("{millis}m")).map_err(|_| SourceError::Url)?;
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, GRPC), (GRPC_TIMEOUT, timeout)]);
    let mut body = BytesMut::with_capacity(PREFIX + question.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(question.len()).map_err(|_| SourceError::Frame)?);
    body.put_slice(question);
    Ok(Request { method: Method::POST, url, headers, body: body.freeze(), deadline: Some(deadline) })
}

fn read_grpc(response: Response) -> Result<Bytes, SourceError> {
    if response.status != StatusCode::OK {
        return Err(failed(&response));
    }
    let status = response.headers.get(GRPC_STATUS).and_then(|status| status.to_str().ok()).unwrap_or("missing");
    if status != "0" {
        // A code has two digits.
        return Err(SourceError::Grpc(status.chars().filter(char::is_ascii_alphanumeric).take(8).collect()));
    }
    let mut body = response.body;
    if body.len() < PREFIX {
        return Err(SourceError::Frame);
    }
    let prefix = body.split_to(PREFIX);
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    // Compression was not offered.
    match prefix[0] == 0 && usize::try_from(length) == Ok(body.len()) {
        true => Ok(body),
        false => Err(SourceError::Frame),
    }
}

fn failed(response: &Response) -> SourceError {
    SourceError::Status { status: response.status, retry_after: retry_after(&response.headers) }
}

// === impl SourceError ===

impl SourceError {
    /// The reason on the wire.
    pub fn fault(&self) -> SourceFault {
        match self {
            SourceError::Call(error) => fault_of(&error.fault),
            SourceError::Url => SourceFault::Unreachable,
            SourceError::Grpc(status) if status == LATE => SourceFault::Timeout,
            SourceError::Status { .. } | SourceError::Grpc(_) => SourceFault::Failed,
            SourceError::Frame => SourceFault::Incomplete,
        }
    }

    /// The wait that the source asks for, or that its circuit has left.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            SourceError::Status { retry_after, .. } => *retry_after,
            SourceError::Call(CallError { fault: Fault::CircuitOpen { retry_after }, .. }) => Some(*retry_after),
            SourceError::Call(_) | SourceError::Url | SourceError::Grpc(_) | SourceError::Frame => None,
        }
    }
}

fn fault_of(fault: &Fault) -> SourceFault {
    match fault {
        Fault::HeadersTooLarge | Fault::BodyTooLarge => SourceFault::TooLarge,
        Fault::ReadTimeout | Fault::TotalTimeout | Fault::CallerTimeout => SourceFault::Timeout,
        Fault::ConnectionLost | Fault::ResponseMalformed | Fault::BodyEncoded => SourceFault::Failed,
        Fault::Refused(_)
        | Fault::Unresolved
        | Fault::NameServersFailed
        | Fault::Connect(_)
        | Fault::ConnectTimeout(_)
        | Fault::Proxy(_)
        | Fault::Tls(_)
        | Fault::Http2NotSpoken
        | Fault::Busy
        | Fault::CircuitOpen { .. } => SourceFault::Unreachable,
    }
}
