//! Requests of HTTP/1.1 that become calls. A call made here passes all layers, so it has the limits, the deadline, the
//! metrics, the log line and the span of any other.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use jackfield_domain::Error;
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use super::context::REQUEST_ID;
use super::flow::Flow;
use super::peer::{ConnectInfo, Peer};
use super::stack::Stack;
use super::status::status;

/// An interface of HTTP/1.1 over the calls of a server.
pub trait HttpApi: Send + Sync + 'static {
    /// Answers a request.
    fn answer(&self, request: http::Request<Bytes>, calls: Calls) -> BoxFuture<'static, http::Response<Bytes>>;

    /// Answers a request that was not read to its end, or what is no request.
    fn refuse(&self, why: Unread) -> http::Response<Bytes>;
}

/// The reason why a request was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its head is not one of HTTP/1.1.
    HeadMalformed,
    /// Its head is larger than the server reads, or the body that it states is larger than any.
    HeadTooLarge,
    /// Its target is longer than the server reads.
    TargetTooLong,
    /// It has several hosts, one that is none, or none at all although its version demands one (RFC 9112 3.2).
    HostInvalid,
    /// It expects something that this server does not do (RFC 9110 10.1.1).
    ExpectationUnknown,
    /// Its body has an encoding (RFC 9110 15.5.16).
    Encoded,
    /// Its body is transferred in a way that this server does not know (RFC 9112 6.1).
    TransferUnknown,
    /// Its body is larger than this number of bytes.
    TooLarge(usize),
    /// Its body did not arrive in time, or not to its end.
    Incomplete,
    /// Its body is not chunked as its head says, or is chunked more than once (RFC 9112 6.1, 7.1).
    Malformed,
}

/// The way from a request to a call. The caller is that of the listener.
pub struct Calls {
    stack: Stack,
    info: ConnectInfo,
    flow: Arc<Flow>,
    /// The headers of the request that name it, or its trace.
    headers: HeaderMap,
    request_id: Arc<OnceLock<HeaderValue>>,
}

/// The headers of a request that go with its call.
const PASSED_ON: [&str; 3] = [REQUEST_ID, "traceparent", "tracestate"];
/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

// === impl Calls ===

impl Calls {
    pub(crate) fn new(stack: Stack, info: ConnectInfo, flow: Arc<Flow>, request: &HeaderMap) -> Self {
        let header = |name| Some((HeaderName::from_static(name), request.get(name)?.clone()));
        let headers = PASSED_ON.into_iter().filter_map(header).collect();
        Calls { stack, info, flow, headers, request_id: Arc::default() }
    }

    /// Returns the other end of the connection.
    pub fn peer(&self) -> Peer {
        self.info.peer()
    }

    /// Returns the place for the id of the first call.
    pub(crate) fn request_id(&self) -> Arc<OnceLock<HeaderValue>> {
        Arc::clone(&self.request_id)
    }

    /// Makes a call of one message each way. `method` is the path of the method.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn unary<R: Message + Default>(&self, method: &'static str, message: &impl Message) -> Result<R, Status> {
        let mut request = http::Request::new(Body::new(Full::new(framed(message))));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, Uri::from_static(method));
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        request.extensions_mut().insert(self.info.clone());
        request.extensions_mut().insert(Arc::clone(&self.flow));
        let (head, body) = self.stack.call(request).await.into_parts();
        if let Some(id) = head.headers.get(REQUEST_ID) {
            let _ = self.request_id.set(id.clone());
        }
        ok_or_absent(&head.headers)?;
        let body = body.collect().await?;
        if let Some(trailers) = body.trailers() {
            ok_or_absent(trailers)?;
        }
        let incomplete = || status(Error::internal("a call without a message"));
        let data = body.to_bytes();
        let message = data.get(PREFIX..).filter(|_| data.first() == Some(&0)).ok_or_else(incomplete)?;
        R::decode(message).map_err(|error| status(Error::internal(error)))
    }
}

/// A message as gRPC sends it, not compressed.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer has room for it.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

/// Returns the status in headers or trailers, if there is one and it is an error.
fn ok_or_absent(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}
