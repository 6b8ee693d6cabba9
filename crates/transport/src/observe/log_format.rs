//! The format of log lines: as `tracing_subscriber` writes them, with the call during which they were written.
//!
//! The facts of a call are taken from its context when there is something to log. As fields of a span they would also be
//! written out for calls that log nothing.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::call::attributes;
use crate::call::context::CallContext;

/// Returns the text that is logged in place of a line that may hold a secret.
pub type Replacement = fn(&Metadata<'_>) -> Option<&'static str>;

/// One JSON object a line; the call is the member `span`.
pub(crate) struct JsonLines(pub(crate) Format<Json>, pub(crate) Replacement);

/// Text; the call is at the end.
pub(crate) struct TextLines(pub(crate) Format<Full>, pub(crate) Replacement);

/// Names and values.
type Facts = Vec<(&'static str, String)>;

/// Returns the facts of a call that log lines have.
fn facts(call: &CallContext) -> Facts {
    let mut facts = vec![("jackfield.request.id", call.request_id.to_string())];
    let foreign_id = call.foreign_id.as_ref().and_then(|id| id.to_str().ok());
    facts.extend(foreign_id.map(|id| (attributes::FOREIGN_REQUEST_ID, id.to_owned())));
    facts.extend(call.method.as_ref().map(|method| ("rpc.method", method.name.to_string())));
    if let Some(peer) = call.peer {
        facts.extend(peer.ip().map(|ip| ("client.address", ip.to_string())));
        facts.extend(peer.port().map(|port| ("client.port", port.to_string())));
        facts.push(("network.transport", peer.transport().to_owned()));
    }
    let principal = call.principal();
    facts.extend((!principal.is_empty()).then(|| ("jackfield.principal", principal.to_owned())));
    facts
}

/// The facts by which a line is found from its trace, and the trace from the line. The names are those of OpenTelemetry for
/// formats like this.
fn trace(call: &CallContext) -> Facts {
    let Some((trace, span)) = call.trace() else { return Facts::new() };
    let mut facts = vec![("trace_id", trace.to_string())];
    facts.extend(span.map(|span| ("span_id", span.to_string())));
    facts
}

/// Writes an event as `format` does. An event of a call is written by `end`, from the line of `format` and the facts of the
/// call.
fn format_of_call<S, N>(
    format: &impl FormatEvent<S, N>,
    context: &FmtContext<'_, S, N>,
    mut out: Writer<'_>,
    event: &Event<'_>,
    end: impl FnOnce(&mut Writer<'_>, &str, &CallContext) -> fmt::Result,
) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let Some(call) = CallContext::current() else { return format.format_event(context, out, event) };
    let mut line = String::new();
    format.format_event(context, Writer::new(&mut line), event)?;
    end(&mut out, line.trim_end(), &call)
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if let Some(text) = (self.1)(event.metadata()) {
            out.write_str("{\"timestamp\":\"")?;
            SystemTime.format_time(&mut out)?;
            let (level, target) = (event.metadata().level(), event.metadata().target());
            return writeln!(out, "\",\"level\":\"{level}\",\"message\":\"{text}\",\"target\":\"{target}\"}}");
        }
        format_of_call(&self.0, context, out, event, |out, line, call| {
            let Some(open) = line.strip_suffix('}') else { return writeln!(out, "{line}") };
            let named = std::iter::once(("name", "call".to_owned())).chain(facts(call));
            let span: Map<String, Value> = named.map(|(name, fact)| (name.to_owned(), Value::String(fact))).collect();
            out.write_str(open)?;
            for (name, id) in trace(call) {
                write!(out, ",\"{name}\":\"{id}\"")?;
            }
            writeln!(out, ",\"span\":{}}}", Value::Object(span))
        })
    }
}

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if let Some(text) = (self.1)(event.metadata()) {
            SystemTime.format_time(&mut out)?;
            let (level, target) = (event.metadata().level(), event.metadata().target());
            return writeln!(out, " {level:>5} {target}: {text}");
        }
        format_of_call(&self.0, context, out, event, |out, line, call| {
            out.write_str(line)?;
            for (name, fact) in facts(call).into_iter().chain(trace(call)) {
                // As text fields are written: a name of a principal cannot begin a line of its own.
                write!(out, " {name}={fact:?}")?;
            }
            writeln!(out)
        })
    }
}
