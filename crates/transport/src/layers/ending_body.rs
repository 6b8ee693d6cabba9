//! Streams that end with a status when their time is over, which the usual timeout around a handler cannot achieve.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;

use crate::call::flow::{EndReason, Flow};
use crate::call::response::trailers;
use crate::call::status::status;

/// A body that ends with an error in the trailers when its time is over.
pub(super) struct EndingBody {
    body: Option<Body>,
    until: Until,
    flow: Arc<Flow>,
}

/// The time at which a body has to end.
pub(super) enum Until {
    /// With a timer once the body waits for something.
    Deadline(Instant, Option<Pin<Box<Sleep>>>),
    Drain(Pin<Box<WaitForCancellationFutureOwned>>),
}

impl Until {
    /// Returns the reason when it is time; wakes the task then if `waits`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, waits: bool) -> Poll<EndReason> {
        match self {
            Until::Deadline(deadline, _) if Instant::now() >= *deadline => Poll::Ready(EndReason::Deadline),
            // A body that had a frame is polled for the next: most responses end without a timer.
            Until::Deadline(..) if !waits => Poll::Pending,
            Until::Deadline(deadline, sleep) => {
                let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*deadline)));
                sleep.as_mut().poll(cx).map(|()| EndReason::Deadline)
            }
            Until::Drain(drain) => drain.as_mut().poll(cx).map(|()| EndReason::Unavailable),
        }
    }
}

impl EndingBody {
    pub(super) fn wrap(body: Body, until: Until, flow: Arc<Flow>) -> Body {
        // A response without messages cannot be cut short.
        if body.is_end_stream() { body } else { Body::new(EndingBody { body: Some(body), until, flow }) }
    }
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let EndingBody { body, until, flow } = &mut *self;
        let Some(inner) = body else { return Poll::Ready(None) };
        // The stream that carries it has decided that it has to end.
        if let Some(end) = flow.ended() {
            *body = None;
            return Poll::Ready(Some(Ok(trailers(&status(end.error())))));
        }
        let frame = Pin::new(inner).poll_frame(cx);
        // A body that ends by itself keeps its own end, even if it is late.
        if matches!(&frame, Poll::Ready(None)) || is_trailers(&frame) {
            return frame;
        }
        match until.poll(cx, frame.is_pending()) {
            Poll::Pending => frame,
            Poll::Ready(end) => {
                *body = None;
                Poll::Ready(Some(Ok(trailers(&status(end.error())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn is_trailers(frame: &Poll<Option<Result<Frame<Bytes>, Status>>>) -> bool {
    matches!(frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers())
}
