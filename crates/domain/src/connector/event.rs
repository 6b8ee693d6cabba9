//! Events of connectors: what came of the calls that were made through a connector while it debugged.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::is_default;
use crate::login::LoginOutcome;
use crate::names::names;
use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::{ConnectorEventId, ConnectorId};
use crate::value::meta::Meta;
use crate::value::time::Timestamp;

/// An event. It never changes. It has neither a password nor a header, and nothing that the system sent but its status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectorEvent {
    pub id: ConnectorEventId,
    pub connector: ConnectorId,
    pub operation: EventOperation,
    pub outcome: EventOutcome,
    /// The name of what was found. It does not change.
    pub reason: String,
    /// The failure as a text, if there was one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cause: Cause,
    /// The status of the system's response.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http_status: Option<u16>,
    pub duration: Duration,
    /// The server's id of the call, which its log has, too.
    pub request_id: Uuid,
    /// The login id, which is personal data.
    pub login_id: String,
    /// The application to which the user logs in, as it was named to the system.
    #[serde(default, skip_serializing_if = "is_default")]
    pub application_id: String,
    /// The time of creation is the end of the call.
    pub meta: Meta,
}

names! {
    /// The operation that an event is about.
    pub enum EventOperation {
        AuthenticateUser = "AUTHENTICATE_USER",
        AuthenticateApplicationUser = "AUTHENTICATE_APPLICATION_USER",
    }
}

names! {
    /// The outcome of an operation at the connector.
    pub enum EventOutcome {
        Accepted = "ACCEPTED",
        Rejected = "REJECTED",
        UpstreamFault = "UPSTREAM_FAULT",
    }
}

/// An error with its sources as a text on one line, of at most [`MAX_CAUSE`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cause(String);

/// The most events of a connector. A new one replaces the oldest one.
pub const MAX_EVENTS: u64 = 1_000;
/// The life of an event: 7 days, in microseconds.
pub const EVENT_LIFE_MICROS: i64 = 7 * 24 * 3_600 * 1_000_000;
/// The longest cause, in bytes.
pub const MAX_CAUSE: usize = 2 * 1_024;

/// The filter fields and orders of lists of events.
pub const EVENTS: Schema = Schema {
    resource: Resource::ConnectorEvent,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "operation", kind: FieldKind::Enum(EventOperation::NAMES) },
        Field { name: "outcome", kind: FieldKind::Enum(EventOutcome::NAMES) },
        Field { name: "reason", kind: FieldKind::Text },
        Field { name: "http_status", kind: FieldKind::Int },
        Field { name: "request_id", kind: FieldKind::Id },
        Field { name: "login_id", kind: FieldKind::Text },
        Field { name: "application_id", kind: FieldKind::Text },
        Field { name: "create_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::CreateTime],
};

// === impl ConnectorEvent ===

impl ConnectorEvent {
    /// The time at which the event is deleted.
    pub fn expire_time(&self) -> Timestamp {
        self.meta.create_time.plus_micros(EVENT_LIFE_MICROS)
    }
}

// === impl EventOutcome ===

impl From<&LoginOutcome> for EventOutcome {
    fn from(outcome: &LoginOutcome) -> Self {
        match outcome {
            LoginOutcome::Accepted(_) => EventOutcome::Accepted,
            LoginOutcome::Rejected => EventOutcome::Rejected,
            LoginOutcome::UpstreamFault => EventOutcome::UpstreamFault,
        }
    }
}

// === impl Cause ===

impl Cause {
    /// Writes an error and its sources. A source that the text before it has already is left out. Control characters are escaped.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            let said = source.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            next = source.source();
        }
        Cause(one_line(&text))
    }

    /// The text; empty if there was no failure.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.0
    }
}

/// A text without control characters, cut where it becomes too long.
fn one_line(text: &str) -> String {
    const CUT: char = '…';
    let mut line = String::new();
    for c in text.chars() {
        let shown = match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        };
        if line.len() + shown.len() > MAX_CAUSE - CUT.len_utf8() {
            line.push(CUT);
            break;
        }
        line.push_str(&shown);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: String,
        source: Option<Box<Failure>>,
    }

    fn failure(text: &str, source: Option<Failure>) -> Failure {
        Failure { text: text.to_owned(), source: source.map(Box::new) }
    }

    #[test]
    fn a_cause_is_the_chain_of_errors_on_one_line() {
        let chain = failure("no connection: refused", Some(failure("refused", Some(failure("a\nb\u{1b}[0m", None)))));
        assert_eq!(Cause::of(&chain).as_str(), "no connection: refused: a\\nb\\u{1b}[0m");
    }

    #[test]
    fn a_cause_is_bounded() {
        let fits = "é".repeat((MAX_CAUSE - 3) / 2);
        assert_eq!(Cause::of(&failure(&fits, None)).as_str(), fits);
        for long in ["é".repeat(2_000), "\n".repeat(2_000)] {
            let cause = Cause::of(&failure(&long, None));
            assert!(cause.as_str().len() <= MAX_CAUSE && cause.as_str().ends_with('…'), "{cause:?}");
        }
    }
}
