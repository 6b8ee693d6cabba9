//! The end of a call: the status in the headers of a response without messages, in the trailers of one with messages, or
//! neither when the client left. A request that is not a gRPC request has no status, and counts as INVALID_ARGUMENT.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::call::{Response, ResponseBody};

/// Calls `ended` once, when the status of the response is known or the response is dropped: with the code, and with the
/// headers or trailers that it was in.
pub(super) fn observe(answer: Response, ended: impl FnOnce(Code, Option<&HeaderMap>) + Send + 'static) -> Response {
    let in_headers = match answer.status() {
        // An HTTP error: the request was not a gRPC request.
        status if status.is_client_error() => Some(Code::InvalidArgument),
        _ => code(answer.headers()),
    };
    let (head, body) = answer.into_parts();
    let body = match (in_headers, body) {
        (Some(code), body) => {
            ended(code, Some(&head.headers));
            body
        }
        (None, ResponseBody::Whole { message, trailers }) => {
            ended(trailers.as_ref().and_then(code).unwrap_or(Code::Unknown), trailers.as_ref());
            ResponseBody::Whole { message, trailers }
        }
        (None, ResponseBody::Stream(body)) => {
            ResponseBody::Stream(Body::new(Observed { body, ended: Some(Box::new(ended)) }))
        }
    };
    http::Response::from_parts(head, body)
}

/// The work at the end of a call.
type Ended = Box<dyn FnOnce(Code, Option<&HeaderMap>) + Send>;

struct Observed {
    body: Body,
    ended: Option<Ended>,
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

// === impl Observed ===

impl Observed {
    fn end(&mut self, code: Code, headers: Option<&HeaderMap>) {
        if let Some(ended) = self.ended.take() {
            ended(code, headers);
        }
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.end(code(trailers).unwrap_or(Code::Unknown), Some(trailers));
                }
            }
            Some(Err(status)) => self.end(status.code(), None),
            None => self.end(Code::Unknown, None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.end(Code::Cancelled, None);
    }
}
