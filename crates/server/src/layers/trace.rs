//! One span and at most one log line a call. The cause of a failure is logged here and nowhere else.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::{Instrument as _, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::context::CallContext;
use super::outcome::observe;
use super::{Answer, Call, Handler, Layer};
use crate::grpc::status::{code_name, is_server_fault};
use crate::metrics::attribute;

/// The trace that a call is part of (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// A path of a client's own making is cut to this in spans.
const MAX_PATH: usize = 128;

pub(super) struct TraceLayer {
    /// The share of calls that are traced without their callers' say, from 0 to 1.
    pub(super) ratio: f64,
}

// === impl TraceLayer ===

impl TraceLayer {
    /// Whether a call is traced. It is decided before there is a span: a span takes half as long as all else of a call.
    fn traces(&self, context: &CallContext, call: &Call) -> bool {
        if call.headers().contains_key(TRACEPARENT) {
            let parent = TraceContextPropagator::new().extract(&Headers(call.headers()));
            let parent = parent.span().span_context().clone();
            if parent.is_valid() {
                return parent.is_sampled();
            }
        }
        // The lower half of the id is random but for its first two bits.
        let (_, random) = context.request_id.as_u64_pair();
        ((random << 2) as f64) < self.ratio * 2_f64.powi(64)
    }
}

impl Layer for TraceLayer {
    async fn handle<H: Handler>(&self, call: Call, inner: &H) -> Answer {
        let context = CallContext::of(&call);
        let span = if self.traces(&context, &call) { span(&context, &call) } else { Span::none() };
        let on_end = {
            let span = span.clone();
            move |code, _: Option<&HeaderMap>| span.in_scope(|| context.enter(|| ended(&context, code)))
        };
        let work = async move {
            let answer = inner.handle(call).await;
            if let Some(status) = answer.extensions().get::<tonic::Status>() {
                note_cause(status);
            }
            observe(answer, on_end)
        };
        work.instrument(span).await
    }
}

/// The span of a call, for traces. Log lines take what they say of the call from its context, so without traces there is
/// none.
fn span(context: &CallContext, call: &Call) -> Span {
    let path = call.uri().path();
    let (method, original) = match &context.method {
        Some(method) => (Cow::Borrowed(&*method.name), None),
        None => {
            let end = path.char_indices().nth(MAX_PATH).map_or(path.len(), |(end, _)| end);
            (Cow::Borrowed(attribute::RPC_METHOD_OTHER), Some(path[..end].trim_start_matches('/')))
        }
    };
    let span = tracing::info_span!(
        "call",
        otel.name = &*method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system.name = "grpc",
        rpc.method = &*method,
        rpc.method_original = original,
        rpc.response.status_code = field::Empty,
        error.r#type = field::Empty,
        request.id = %context.request_id,
        client.address = field::Empty,
        principal = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(peer) = context.peer {
        span.record("client.address", field::display(peer));
    }
    if call.headers().contains_key(TRACEPARENT) {
        let parent = TraceContextPropagator::new().extract(&Headers(call.headers()));
        // Without an exporter there is no OpenTelemetry layer and nothing to continue.
        let _ = span.set_parent(parent);
    }
    span
}

/// Puts the end of a call into its span and, unless all was well, into the log.
fn ended(context: &Arc<CallContext>, code: Code) {
    let span = Span::current();
    let status = code_name(code);
    span.record("rpc.response.status_code", status);
    span.record("principal", context.principal());
    let duration_ms = || context.start.elapsed().as_secs_f64() * 1_000.0;
    if code == Code::PermissionDenied {
        // Whoever lacks a right is known: an operator wants to hear of it.
        tracing::info!(call.duration_ms = duration_ms(), rpc.status = status, "call denied");
        return;
    }
    if !is_server_fault(code) {
        tracing::debug!(call.duration_ms = duration_ms(), rpc.status = status, "call ended");
        return;
    }
    let duration_ms = duration_ms();
    span.record("error.type", status);
    span.record("otel.status_code", "ERROR");
    match (context.cause(), code) {
        (Some(cause), _) => {
            let cause = chain(&*cause);
            tracing::error!(call.duration_ms = duration_ms, rpc.status = status, error.message = cause, "call failed");
        }
        // Shed calls, unknown methods and short deadlines: callers could fill the log with them, and the metrics count them.
        (None, Code::Unavailable | Code::Unimplemented) => {
            tracing::debug!(call.duration_ms = duration_ms, rpc.status = status, "call refused");
        }
        (None, Code::DeadlineExceeded) if !context.is_to_be_in_time() => {
            tracing::debug!(call.duration_ms = duration_ms, rpc.status = status, "call out of time");
        }
        (None, _) => tracing::warn!(call.duration_ms = duration_ms, rpc.status = status, "call failed"),
    }
}

/// A status that was made outside its call's task still carries its cause.
fn note_cause(status: &tonic::Status) {
    let source = std::error::Error::source(status);
    if let (Some(source), Some(context)) = (source, CallContext::current()) {
        context.set_cause(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(chain(source))));
    }
}

/// An error with its sources, in one line.
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
