//! Departures of a provider from the protocol, and the requests that they are for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::request::Endpoint;
use crate::system::Reply;

/// The way in which one request is treated. The default is to do what the protocol says.
#[derive(Clone, Debug)]
pub struct ProviderFault {
    /// The wait before the request is acted on.
    pub before: Duration,
    /// The request has its effect, whatever is answered.
    pub acts: bool,
    /// The wait between the effect and the answer.
    pub after: Duration,
    /// The gate that holds the answer back after this wait.
    pub gate: Option<Gate>,
    pub answer: ProviderAnswer,
}

/// A gate that is closed at first.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum ProviderAnswer {
    /// The answer of the protocol.
    Honest,
    /// None: the connection is closed before the request is read, which has no effect then.
    Unread,
    /// None: the connection is closed.
    Dropped,
    /// Half of the honest one; then the connection is closed.
    Half,
    /// The honest one, byte by byte, with a pause after each.
    Trickle(Duration),
    /// Another one.
    Reply(Reply),
    /// The honest one, if it is a success, with other members. `null` removes one.
    Members(Vec<(&'static str, Value)>),
    /// The honest one, if it is a success, with its tokens one level deeper, as Slack has them.
    Nested,
}

/// The faults to come.
#[derive(Default)]
pub(super) struct Script {
    queue: VecDeque<ProviderFault>,
    rule: Option<Box<Rule>>,
    numbers: [usize; 2],
}

type Rule = dyn FnMut(Endpoint, usize) -> ProviderFault + Send;

// === impl ProviderFault ===

impl ProviderFault {
    /// No fault.
    pub fn none() -> Self {
        let (before, after, answer) = (Duration::ZERO, Duration::ZERO, ProviderAnswer::Honest);
        ProviderFault { before, acts: true, after, gate: None, answer }
    }

    /// The connection is closed before the request is read.
    pub fn unread() -> Self {
        ProviderFault { acts: false, ..Self::none().answering(ProviderAnswer::Unread) }
    }

    /// The request has its effect, and the connection is closed without an answer.
    pub fn answer_lost() -> Self {
        Self::none().answering(ProviderAnswer::Dropped)
    }

    /// The request has its effect, and the connection is closed in the middle of the answer.
    pub fn answer_cut() -> Self {
        Self::none().answering(ProviderAnswer::Half)
    }

    /// The request has its effect, and the answer comes byte by byte.
    pub fn trickle(pause: Duration) -> Self {
        Self::none().answering(ProviderAnswer::Trickle(pause))
    }

    /// The request has no effect, and a status is answered.
    pub fn status(status: u16) -> Self {
        Self::refused(Reply::new(status, "upstream connect error"))
    }

    /// The request has no effect: there are too many (429).
    pub fn too_many(retry_after: Duration) -> Self {
        let headers = vec![("retry-after", retry_after.as_secs().to_string())];
        Self::refused(Reply { headers, ..Reply::new(429, r#"{"error": "temporarily_unavailable"}"#) })
    }

    /// The request has no effect, and a web page is answered with status 200, as by a captive portal.
    pub fn web_page() -> Self {
        let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
        Self::refused(Reply { headers, ..Reply::new(200, "<!doctype html><title>Log in</title>") })
    }

    /// The request has no effect, and an error code is answered with status 200, as by GitHub.
    pub fn error_with_200(code: &str) -> Self {
        Self::refused(Reply::new(200, json!({ "error": code, "error_description": "No." }).to_string()))
    }

    /// The request has no effect, and an error code is answered.
    pub fn error(status: u16, code: &str) -> Self {
        Self::refused(Reply::new(status, json!({ "error": code }).to_string()))
    }

    /// The request has no effect, and the client is sent to another URL.
    pub fn redirect(location: &str) -> Self {
        Self::refused(Reply { headers: vec![("location", location.to_owned())], ..Reply::new(307, Bytes::new()) })
    }

    /// The request has its effect, and so many bytes of JSON are answered.
    pub fn huge(bytes: usize) -> Self {
        let body = format!(r#"{{"access_token": "{}"}}"#, "a".repeat(bytes));
        Self::none().answering(ProviderAnswer::Reply(Reply::new(200, body)))
    }

    /// The request has its effect, and a status is answered, as by a gateway that lost the answer.
    pub fn answer_replaced(status: u16) -> Self {
        Self::none().answering(ProviderAnswer::Reply(Reply::new(status, "<html>Bad gateway</html>")))
    }

    /// The request has its effect, and members of the answer are other ones; `null` removes one. Such are a wrong `token_type`, and an
    /// `expires_in` that is negative, no number, or beyond all reason.
    pub fn members(members: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self::none().answering(ProviderAnswer::Members(members.into_iter().collect()))
    }

    /// The request has its effect, and the tokens are one level deeper in the answer.
    pub fn nested() -> Self {
        Self::none().answering(ProviderAnswer::Nested)
    }

    /// The request has no effect, and this is answered.
    pub fn refused(reply: Reply) -> Self {
        ProviderFault { acts: false, ..Self::none().answering(ProviderAnswer::Reply(reply)) }
    }

    /// The same, after a wait before the request is acted on.
    #[must_use]
    pub fn delayed(self, before: Duration) -> Self {
        ProviderFault { before, ..self }
    }

    /// The same, with a wait between the effect and the answer.
    #[must_use]
    pub fn answering_after(self, after: Duration) -> Self {
        ProviderFault { after, ..self }
    }

    /// The same, with the answer held back until a gate opens.
    #[must_use]
    pub fn held(self, gate: &Gate) -> Self {
        ProviderFault { gate: Some(gate.clone()), ..self }
    }

    fn answering(self, answer: ProviderAnswer) -> Self {
        ProviderFault { answer, ..self }
    }
}

impl Default for ProviderFault {
    fn default() -> Self {
        Self::none()
    }
}

// === impl Gate ===

impl Gate {
    pub fn closed() -> Self {
        Gate(Arc::new(Semaphore::new(0)))
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.close();
    }

    pub(super) async fn passed(&self) {
        // Acquiring fails once it is closed for permits, which is when the gate is open.
        let _ = self.0.acquire().await;
    }
}

// === impl ProviderAnswer ===

impl ProviderAnswer {
    /// The response that takes the place of the honest one.
    pub(super) fn reply(&self, honest: Reply) -> Reply {
        match self {
            ProviderAnswer::Reply(reply) => reply.clone(),
            ProviderAnswer::Members(members) => changed(honest, |object| {
                for (name, value) in members {
                    match value {
                        Value::Null => object.remove(*name),
                        value => object.insert((*name).to_owned(), value.clone()),
                    };
                }
            }),
            ProviderAnswer::Nested => changed(honest, |object| {
                let inner = std::mem::take(object);
                object.insert("ok".to_owned(), true.into());
                object.insert("authed_user".to_owned(), Value::Object(inner));
            }),
            ProviderAnswer::Honest
            | ProviderAnswer::Unread
            | ProviderAnswer::Dropped
            | ProviderAnswer::Half
            | ProviderAnswer::Trickle(_) => honest,
        }
    }
}

/// A success with other members.
fn changed(honest: Reply, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Reply {
    match serde_json::from_slice(&honest.body) {
        Ok(Value::Object(mut object)) if honest.status == 200 => {
            change(&mut object);
            Reply { body: Value::Object(object).to_string().into(), ..honest }
        }
        _ => honest,
    }
}

// === impl Script ===

impl Script {
    pub(super) fn queue(&mut self, faults: impl IntoIterator<Item = ProviderFault>) {
        self.queue.extend(faults);
    }

    pub(super) fn set_rule(&mut self, rule: impl FnMut(Endpoint, usize) -> ProviderFault + Send + 'static) {
        self.rule = Some(Box::new(rule));
    }

    /// The fault of the next request to an endpoint.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> ProviderFault {
        let number = self.numbers[endpoint as usize];
        self.numbers[endpoint as usize] += 1;
        let queued = if endpoint == Endpoint::Token { self.queue.pop_front() } else { None };
        queued.unwrap_or_else(|| self.rule.as_mut().map_or_else(ProviderFault::none, |rule| rule(endpoint, number)))
    }
}
