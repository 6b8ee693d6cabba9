//! Deadlines: the client's `grpc-timeout`, within what the server allows. Calls that exceed theirs end with
//! DEADLINE_EXCEEDED. Streams do as well, which the usual timeout around the handler does not achieve.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use jackfield_domain::{Error, Violation};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::ending_body::{EndingBody, Until};
use super::intercept::Inner;
use crate::call::context::{CallContext, Change};
use crate::call::flow::EndReason;
use crate::call::methods::{Kind, Method, Shape};
use crate::call::response::refused;
use crate::call::status::status;
use crate::call::{Request, Response};
use crate::config::{Deadlines, Streams};

#[derive(Clone)]
pub(super) struct DeadlineLayer(Arc<Rules>);

struct Rules {
    deadlines: Deadlines,
    streams: Streams,
    /// Ends streams that have no deadline.
    drain: CancellationToken,
}

/// Ends calls that take too long.
#[derive(Clone)]
pub(super) struct Limited<S> {
    rules: Arc<Rules>,
    inner: S,
}

pin_project! {
    /// A response within its deadline.
    #[project = Projected]
    pub(super) enum InTime<F> {
        Refused { #[pin] response: Ready<Result<Response, Infallible>> },
        /// The call has no deadline: it may continue until the server stops.
        Unlimited { #[pin] response: F, until: Option<Until>, context: Arc<CallContext> },
        Limited { #[pin] response: Timeout<F>, deadline: Instant, context: Arc<CallContext> },
    }
}

/// The deadline of probes. A probe is answered at once, so one that takes longer was begun and not ended.
const HEALTH: Duration = Duration::from_secs(2);

// === impl DeadlineLayer ===

impl DeadlineLayer {
    pub(super) fn new(deadlines: &Deadlines, streams: &Streams, drain: CancellationToken) -> Self {
        DeadlineLayer(Arc::new(Rules { deadlines: deadlines.clone(), streams: streams.clone(), drain }))
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { rules: Arc::clone(&self.0), inner }
    }
}

// === impl Limited ===

impl<S: Inner> Service<Request> for Limited<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = InTime<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asked = match grpc_timeout(request.headers()) {
            Ok(asked) => asked,
            Err(violation) => return InTime::Refused { response: ready(Ok(refused(status(violation.into())))) },
        };
        let context = CallContext::of(&request);
        let Some(timeout) = self.rules.timeout(context.method.as_deref(), asked) else {
            let until = Some(Until::Drain(Box::pin(self.rules.drain.clone().cancelled_owned())));
            return InTime::Unlimited { response: self.inner.call(request), until, context };
        };
        if asked.is_none_or(|asked| asked > timeout) {
            context.set_limited();
        }
        let deadline = Instant::from_std(context.start) + timeout;
        // Timers are coarse: without this check, a quick call would sometimes be answered after its deadline.
        if deadline <= Instant::now() {
            return InTime::Refused { response: ready(Ok(refused(status(Error::DeadlineExceeded)))) };
        }
        context.flow.set_deadline(deadline);
        InTime::Limited { response: timeout_at(deadline, self.inner.call(request)), deadline, context }
    }
}

// === impl InTime ===

impl<F: Future<Output = Result<Response, Infallible>>> Future for InTime<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, until, context) = match self.project() {
            Projected::Refused { response } => return response.poll(cx),
            Projected::Unlimited { response, until, context } => match response.poll(cx) {
                Poll::Ready(Ok(response)) => (Ok(response), until.take(), context),
                Poll::Pending => {
                    let drained = until.as_mut().map_or(Poll::Pending, |until| until.poll(cx, true));
                    let end = if drained.is_ready() { drained } else { context.flow.poll_end(cx) };
                    (Err(cut_short(context, ready!(end))), None, context)
                }
            },
            Projected::Limited { response, deadline, context } => match response.poll(cx) {
                Poll::Ready(Ok(Ok(response))) => (Ok(response), Some(Until::Deadline(*deadline, None)), context),
                Poll::Ready(Err(_)) => (Err(Error::DeadlineExceeded), None, context),
                Poll::Pending => (Err(cut_short(context, ready!(context.flow.poll_end(cx)))), None, context),
            },
        };
        let ending = |body| match until {
            Some(until) => EndingBody::wrap(body, until, context.flow.clone()),
            None => body,
        };
        Poll::Ready(Ok(match response {
            Ok(response) => response.map(|body| body.map_stream(ending)),
            Err(error) => refused(status(error)),
        }))
    }
}

// === impl Rules ===

impl Rules {
    /// Returns how long a call may take; `None` for one that may go on until the server stops.
    fn timeout(&self, method: Option<&Method>, asked: Option<Duration>) -> Option<Duration> {
        let (default, max) = match method.map(|method| (method.kind, method.shape)) {
            // Watches continue as long as their client lives. They take few bytes each, and their number is limited.
            Some((_, Shape::Watch)) => return asked,
            Some((Kind::Health, _)) => (HEALTH, HEALTH),
            Some((_, Shape::Pages | Shape::Conversation)) => (self.streams.total_timeout, self.streams.total_timeout),
            Some((_, Shape::Report | Shape::Unary)) | None => (self.deadlines.default, self.deadlines.max),
        };
        Some(asked.unwrap_or(default).min(max))
    }
}

/// The error of a call that ends before its response. A change that has begun may be made all the same: its commit
/// continues.
fn cut_short(context: &CallContext, end: EndReason) -> Error {
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
