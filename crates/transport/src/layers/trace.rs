//! One span and at most one log line a call. The cause of a failure is logged here and nowhere else.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context as TraceContext, StringValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::intercept::{Inner, OnResponse, Responding};
use super::outcome::observe;
use crate::call::attributes;
use crate::call::code::{code_name, is_server_fault};
use crate::call::context::{CALL_SPAN, CallContext};
use crate::call::peer::ConnectInfo;
use crate::call::{Request, Response};

/// The trace that a call is part of (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// A path that a client made up is cut to this length in spans.
const MAX_PATH: usize = 128;

#[derive(Clone, Copy)]
pub(super) struct TraceLayer {
    /// The share of calls that are traced if their callers do not decide it, from 0 to 1.
    pub(super) ratio: f64,
}

/// Runs the service inside within the span of the call, if that is traced.
#[derive(Clone)]
pub(super) struct Traced<S> {
    layer: TraceLayer,
    inner: S,
}

/// A call whose end is noted.
pub(super) struct Ending {
    context: Arc<CallContext>,
    span: Span,
}

// === impl TraceLayer ===

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { layer: *self, inner }
    }
}

impl TraceLayer {
    /// Returns whether a call is traced. It is decided before there is a span: a span takes half as long as all else of a
    /// call.
    fn traces(self, context: &CallContext, request: &Request) -> bool {
        if let Some(parent) = parent(request) {
            let parent = parent.span().span_context().clone();
            // Log lines lead to the client's trace whether we add to it or not.
            context.set_callers_trace(parent.trace_id());
            return parent.is_sampled();
        }
        // The lower half of the id is random except for its first two bits.
        let (_, random) = context.request_id.as_u64_pair();
        ((random << 2) as f64) < self.ratio * 2_f64.powi(64)
    }
}

// === impl Traced ===

impl<S: Inner> Service<Request> for Traced<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Instrumented<Responding<S::Future, Ending>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let context = CallContext::of(&request);
        let span = if self.layer.traces(&context, &request) { span(&context, &request) } else { Span::none() };
        let response = span.in_scope(|| self.inner.call(request));
        Responding::new(response, Ending { context, span: span.clone() }).instrument(span)
    }
}

// === impl Ending ===

impl OnResponse for Ending {
    fn on_response(self, response: Response) -> Response {
        let Ending { context, span } = self;
        if let Some(status) = response.extensions().get::<tonic::Status>() {
            note_cause(status);
        }
        let of_call = span.clone();
        let response = observe(response, move |code, _| of_call.in_scope(|| context.enter(|| ended(&context, code))));
        // What a stream does is part of its call.
        if span.is_disabled() {
            return response;
        }
        response.map(|body| body.map_stream(|body| Body::new(SpannedBody { span, body })))
    }
}

/// Makes the span of a call, for traces. Log lines take the facts of the call from its context, so without traces no span
/// is made.
fn span(context: &CallContext, request: &Request) -> Span {
    let path = request.uri().path();
    let (method, original) = match &context.method {
        Some(method) => (Cow::Borrowed(&*method.name), None),
        None => {
            let end = path.char_indices().nth(MAX_PATH).map_or(path.len(), |(end, _)| end);
            (Cow::Borrowed(attributes::RPC_METHOD_OTHER), Some(path[..end].trim_start_matches('/')))
        }
    };
    let span = tracing::info_span!(
        CALL_SPAN,
        otel.name = &*method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system.name = "grpc",
        rpc.method = &*method,
        rpc.method_original = original,
        rpc.response.status_code = field::Empty,
        error.r#type = field::Empty,
        jackfield.request.id = %context.request_id,
        jackfield.principal = field::Empty,
        client.address = field::Empty,
        client.port = field::Empty,
        server.address = field::Empty,
        server.port = field::Empty,
        network.transport = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(peer) = context.peer {
        span.record("client.address", peer.ip().map(field::display));
        span.record("client.port", peer.port());
        span.record("network.transport", peer.transport());
    }
    if let Some(local) = request.extensions().get::<ConnectInfo>().and_then(ConnectInfo::local) {
        span.record("server.address", field::display(local.ip()));
        span.record("server.port", local.port());
    }
    if let Some(id) = context.foreign_id.as_ref().and_then(|id| id.to_str().ok()) {
        span.set_attribute(attributes::FOREIGN_REQUEST_ID, Value::Array(vec![StringValue::from(id.to_owned())].into()));
    }
    if let Some(parent) = parent(request) {
        // Without an exporter there is no OpenTelemetry layer and nothing to continue.
        let _ = span.set_parent(parent);
    }
    let own = span.context().span().span_context().clone();
    if own.is_valid() {
        context.set_span(own.trace_id(), own.span_id());
    }
    span
}

/// Returns the caller's span, if it has one.
fn parent(request: &Request) -> Option<TraceContext> {
    if !request.headers().contains_key(TRACEPARENT) {
        return None;
    }
    let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
    let is_valid = parent.span().span_context().is_valid();
    is_valid.then_some(parent)
}

/// Puts the end of a call into its span and, unless all was well, into the log.
fn ended(context: &Arc<CallContext>, code: Code) {
    let span = Span::current();
    let status = code_name(code);
    span.record("rpc.response.status_code", status);
    span.record("jackfield.principal", context.principal());
    let duration_ms = || context.start.elapsed().as_secs_f64() * 1_000.0;
    if code == Code::PermissionDenied {
        // The caller is known and lacks a right: an operator wants to know.
        tracing::info!(call.duration_ms = duration_ms(), rpc.response.status_code = status, "call denied");
        return;
    }
    if !is_server_fault(code) {
        tracing::debug!(call.duration_ms = duration_ms(), rpc.response.status_code = status, "call ended");
        return;
    }
    let duration_ms = duration_ms();
    span.record("error.type", status);
    span.record("otel.status_code", "ERROR");
    match (context.cause(), code) {
        // A caller's mistake, whatever its cause: a method, a compression or a number of messages that the contract lacks.
        (_, Code::Unimplemented) => {
            tracing::debug!(call.duration_ms = duration_ms, rpc.response.status_code = status, "call refused");
        }
        (Some(cause), _) => {
            let cause = chain(&*cause);
            tracing::error!(
                call.duration_ms = duration_ms,
                rpc.response.status_code = status,
                error.message = cause,
                "call failed"
            );
        }
        // Shed calls and short deadlines: callers could fill the log with them, and the metrics count them.
        (None, Code::Unavailable) => {
            tracing::debug!(call.duration_ms = duration_ms, rpc.response.status_code = status, "call refused");
        }
        (None, Code::DeadlineExceeded) if !context.is_to_be_in_time() => {
            tracing::debug!(call.duration_ms = duration_ms, rpc.response.status_code = status, "call timed out");
        }
        (None, _) => tracing::warn!(call.duration_ms = duration_ms, rpc.response.status_code = status, "call failed"),
    }
}

/// A status that was made outside its call's task still carries its cause.
fn note_cause(status: &tonic::Status) {
    let source = std::error::Error::source(status);
    if let (Some(source), Some(context)) = (source, CallContext::current()) {
        context.set_cause(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(chain(source))));
    }
}

/// Writes an error with its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// A body that is polled within its call's span.
struct SpannedBody {
    span: Span,
    body: Body,
}

impl http_body::Body for SpannedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let SpannedBody { span, body } = &mut *self;
        let _entered = span.enter();
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Headers as OpenTelemetry reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
