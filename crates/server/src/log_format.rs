//! How lines of the log look: as `tracing_subscriber` writes them, with the call during which they were written.
//!
//! What is known of a call is taken from its context when there is something to log. As fields of a span it would be written
//! out for each of the calls about which nothing is logged.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::layers::context::CallContext;

/// One JSON object a line; the call is the member `span`.
pub(crate) struct JsonLines(pub(crate) Format<Json>);

/// Text; the call stands at the end.
pub(crate) struct TextLines(pub(crate) Format<Full>);

/// What log lines say of a call.
fn facts(call: &CallContext) -> Vec<(&'static str, String)> {
    let mut facts = vec![("request.id", call.request_id.to_string())];
    facts.extend(call.method.as_ref().map(|method| ("rpc.method", method.name.to_string())));
    facts.extend(call.peer.map(|peer| ("client.address", peer.to_string())));
    let principal = call.principal();
    facts.extend((!principal.is_empty()).then(|| ("principal", principal.to_owned())));
    facts
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(call) = CallContext::current() else { return self.0.format_event(context, out, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let Some(open) = line.trim_end().strip_suffix('}') else { return out.write_str(&line) };
        let named = std::iter::once(("name", "call".to_owned())).chain(facts(&call));
        let span: Map<String, Value> = named.map(|(name, fact)| (name.to_owned(), Value::String(fact))).collect();
        writeln!(out, "{open},\"span\":{}}}", Value::Object(span))
    }
}

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(call) = CallContext::current() else { return self.0.format_event(context, out, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        out.write_str(line.trim_end_matches('\n'))?;
        for (name, fact) in facts(&call) {
            // As text fields are written: a name of a principal cannot begin a line of its own.
            write!(out, " {name}={fact:?}")?;
        }
        writeln!(out)
    }
}
