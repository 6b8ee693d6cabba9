//! A panic becomes INTERNAL; the connection and its other calls go on.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Frame, SizeHint};
use jackfield_domain::Error;
use tonic::Status;
use tonic::body::Body;

use super::{Handler, Layer};
use crate::transport::call::response::{refused, trailers};
use crate::transport::call::status::status;
use crate::transport::call::{Request, Response};

pub(super) struct PanicLayer;

/// The message is fixed: what a panic says may hold what must not be logged. The panic hook has told the place.
const PANICKED: &str = "the handler panicked";

// === impl PanicLayer ===

impl Layer for PanicLayer {
    async fn handle<H: Handler>(&self, call: Request, inner: &H) -> Response {
        match AssertUnwindSafe(inner.handle(call)).catch_unwind().await {
            Ok(answer) => answer.map(|body| body.map_stream(|body| Body::new(CatchBody { body: Some(body) }))),
            Err(_) => refused(status(Error::internal(PANICKED))),
        }
    }
}

/// Ends with INTERNAL when the body inside panics.
struct CatchBody {
    body: Option<Body>,
}

impl http_body::Body for CatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                self.body = None;
                Poll::Ready(Some(Ok(trailers(&status(Error::internal(PANICKED))))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
