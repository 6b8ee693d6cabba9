//! Calls below the generated clients: any bytes can be sent, and every byte of the reply is kept.

use std::fmt;

use http_body_util::{BodyExt as _, Full};
use jackfield_testkit::Client;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service as _};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A reply, byte for byte.
pub(super) struct Reply {
    pub(super) code: Code,
    /// The reason in the `ErrorInfo`; empty if there is none.
    pub(super) reason: String,
    /// Headers, messages and trailers.
    pub(super) bytes: Vec<u8>,
    /// The messages, without the five bytes before each.
    pub(super) messages: Vec<Vec<u8>>,
}

/// Calls a method by its path, "jackfield.v1.KeyService/ImportKey", with one message.
pub(super) async fn call(client: &Client, path: &str, message: &[u8], headers: &[(&str, &str)]) -> Reply {
    let length = u32::try_from(message.len()).unwrap();
    let framed = [&[0][..], &length.to_be_bytes(), message].concat();
    let mut request = http::Request::post(format!("/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(Bytes::from(framed))))
        .unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let mut channel = client.channel();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let answer = match channel.call(request).await {
        Ok(answer) => answer,
        // A caller without a certificate gets no further than the handshake, so the error is the whole reply.
        Err(error) => return Reply::of_error(&error),
    };
    let (head, body) = answer.into_parts();
    let mut bytes = format!("{} {:?}\n", head.status, head.headers).into_bytes();
    let mut status = Status::from_header_map(&head.headers);
    let body = match body.collect().await {
        Ok(body) => body,
        Err(error) => return Reply::of_error(&error),
    };
    if let Some(trailers) = body.trailers() {
        bytes.extend(format!("{trailers:?}\n").into_bytes());
        status = status.or_else(|| Status::from_header_map(trailers));
    }
    let data = body.to_bytes();
    bytes.extend(&data);
    let status = status.expect("an answer has a status");
    bytes.extend(status.message().as_bytes());
    bytes.extend(status.details());
    Reply { code: status.code(), reason: reason(&status), bytes, messages: messages(&data) }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.code, self.reason, String::from_utf8_lossy(&self.bytes))
    }
}

// === impl Reply ===

impl Reply {
    pub(super) fn of_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error:?}"));
        let bytes = causes.collect::<Vec<_>>().join("\n").into_bytes();
        Reply { code: Code::Unknown, reason: String::new(), bytes, messages: Vec::new() }
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn messages(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = data.split_at_checked(5) {
        assert_eq!(head[0], 0, "no compression was asked for");
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        messages.push(rest[..length].to_vec());
        data = &rest[length..];
    }
    messages
}
