//! A panic becomes INTERNAL; the connection and its other calls go on.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use jackfield_domain::Error;
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::intercept::Inner;
use crate::call::response::{refused, trailers};
use crate::call::status::status;
use crate::call::{Request, Response};

#[derive(Clone)]
pub(super) struct PanicLayer;

/// Catches panics of the service inside.
#[derive(Clone)]
pub(super) struct CatchPanic<S>(S);

pin_project! {
    /// A response; `None` if the service panicked before there was a future.
    pub(super) struct Catching<F> {
        #[pin]
        response: Option<F>,
    }
}

/// The message is fixed, because that of a panic may hold what must not be logged. The panic hook has logged the location.
const PANICKED: &str = "the handler panicked";

// === impl PanicLayer ===

impl<S> Layer<S> for PanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic(inner)
    }
}

// === impl CatchPanic ===

impl<S: Inner> Service<Request> for CatchPanic<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Catching<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Catching { response: catch_unwind(AssertUnwindSafe(|| self.0.call(request))).ok() }
    }
}

// === impl Catching ===

impl<F: Future<Output = Result<Response, Infallible>>> Future for Catching<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = self.project().response.as_pin_mut();
        match response.map(|response| catch_unwind(AssertUnwindSafe(|| response.poll(cx)))) {
            Some(Ok(polled)) => {
                let around = |body| Body::new(CatchBody { body: Some(body) });
                polled.map_ok(|response| response.map(|body| body.map_stream(around)))
            }
            Some(Err(_)) | None => Poll::Ready(Ok(refused(status(Error::internal(PANICKED))))),
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
        match catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))) {
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
