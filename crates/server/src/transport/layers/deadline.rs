//! Deadlines: the client's `grpc-timeout`, within what the server allows. They are answered DEADLINE_EXCEEDED, and they
//! end streams too, which the usual time-out around the handler does not.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use jackfield_domain::{Error, Violation};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::{Handler, Layer};
use crate::config::{Deadlines, Streams};
use crate::transport::call::context::{CallContext, Change};
use crate::transport::call::flow::{End, Flow};
use crate::transport::call::methods::Kind;
use crate::transport::call::response::{refused, trailers};
use crate::transport::call::status::status;
use crate::transport::call::{Request, Response};

pub(super) struct DeadlineLayer {
    pub(super) deadlines: Deadlines,
    pub(super) streams: Streams,
    /// Ends streams that have no deadline.
    pub(super) drain: CancellationToken,
}

/// A probe is answered at once. One that takes longer was begun and not ended.
const HEALTH: Duration = Duration::from_secs(2);

// === impl DeadlineLayer ===

impl Layer for DeadlineLayer {
    async fn handle<H: Handler>(&self, call: Request, inner: &H) -> Response {
        let asked = match grpc_timeout(call.headers()) {
            Ok(asked) => asked,
            Err(violation) => return refused(status(violation.into())),
        };
        let context = CallContext::of(&call);
        let Some(timeout) = self.timeout(&context, asked) else {
            let answer = inner.handle(call).await;
            let end = || Until::Drain(Box::pin(self.drain.clone().cancelled_owned()));
            let flow = context.flow.clone();
            return answer.map(|body| body.map_stream(|body| EndingBody::wrap(body, end(), flow)));
        };
        if asked.is_none_or(|asked| asked > timeout) {
            context.set_limited();
        }
        let deadline = Instant::from_std(context.start) + timeout;
        context.flow.set_deadline(deadline);
        let ended = poll_fn(|cx| context.flow.poll_end(cx));
        tokio::select! {
            biased;
            answer = tokio::time::timeout_at(deadline, inner.handle(call)) => match answer {
                Ok(answer) => {
                    let (until, flow) = (Until::Deadline(deadline, None), context.flow.clone());
                    answer.map(|body| body.map_stream(|body| EndingBody::wrap(body, until, flow)))
                }
                Err(_) => refused(status(Error::DeadlineExceeded)),
            },
            end = ended => refused(status(cut_short(&context, end))),
        }
    }
}

impl DeadlineLayer {
    /// How long a call may take; `None` for one that may go on until drain.
    fn timeout(&self, context: &CallContext, asked: Option<Duration>) -> Option<Duration> {
        let (default, max) = match context.method.as_deref() {
            // Watches go on as long as their client lives. They are few bytes each, and counted.
            Some(method) if method.kind == Kind::Health && method.streaming => return asked,
            Some(method) if method.kind == Kind::Health => (HEALTH, HEALTH),
            Some(method) if method.streaming => (self.streams.total_timeout, self.streams.total_timeout),
            _ => (self.deadlines.default, self.deadlines.max),
        };
        Some(asked.unwrap_or(default).min(max))
    }
}

/// The error of a call that ends before its answer. A change that has begun may be made all the same: its commit goes on.
fn cut_short(context: &CallContext, end: End) -> Error {
    let unknown = |has_request_id| Error::outcome_unknown(has_request_id, "the connection ended before the answer");
    let changes = context.method.as_deref().is_some_and(|method| method.changes && method.kind == Kind::Api);
    match context.change() {
        Some(Change::Nothing) => end.error(),
        Some(Change::Repeatable) => unknown(true),
        Some(Change::Unrepeatable) => unknown(false),
        None if changes && context.has_begun() => unknown(false),
        None => end.error(),
    }
}

/// The header `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Violation> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parse = || {
        let text = value.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3_600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    };
    let malformed =
        || Violation::malformed("grpc-timeout", "is not a number of at most 8 digits and one of H, M, S, m, u, n");
    parse().map(Some).ok_or_else(malformed)
}

/// Ends with an error in the trailers when its time has come.
struct EndingBody {
    body: Option<Body>,
    until: Until,
    flow: Arc<Flow>,
}

/// When a body has to end.
enum Until {
    /// With a timer once the body waits for something.
    Deadline(Instant, Option<Pin<Box<Sleep>>>),
    Drain(Pin<Box<WaitForCancellationFutureOwned>>),
}

impl Until {
    /// Whether it is time, and why; wakes the task then if `waits`.
    fn poll(&mut self, cx: &mut Context<'_>, waits: bool) -> Poll<End> {
        match self {
            Until::Deadline(deadline, _) if Instant::now() >= *deadline => Poll::Ready(End::Deadline),
            // Who has a frame is asked for the next: most answers end without a timer.
            Until::Deadline(..) if !waits => Poll::Pending,
            Until::Deadline(deadline, sleep) => {
                let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*deadline)));
                sleep.as_mut().poll(cx).map(|()| End::Deadline)
            }
            Until::Drain(drain) => drain.as_mut().poll(cx).map(|()| End::Unavailable),
        }
    }
}

impl EndingBody {
    fn wrap(body: Body, until: Until, flow: Arc<Flow>) -> Body {
        // Nothing to cut short: an answer without messages.
        if body.is_end_stream() { body } else { Body::new(EndingBody { body: Some(body), until, flow }) }
    }
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let EndingBody { body, until, flow } = &mut *self;
        let Some(inner) = body else { return Poll::Ready(None) };
        // The stream that carries it has found that it is time.
        if let Some(end) = flow.ended() {
            *body = None;
            return Poll::Ready(Some(Ok(trailers(&status(end.error())))));
        }
        let frame = Pin::new(inner).poll_frame(cx);
        // An end of its own accord counts, even if it comes late.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Result<Option<Duration>, Violation> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn timeouts_of_every_unit_are_read() {
        for (text, duration) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parsed(text).unwrap(), Some(duration), "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn malformed_timeouts_are_refused_and_not_ignored() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "1SS"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
