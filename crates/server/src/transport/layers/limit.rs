//! Load shedding: beyond a number of calls at work the server says so at once instead of queueing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::{Handler, Layer};
use crate::config::Config;
use crate::transport::call::context::CallContext;
use crate::transport::call::methods::{Kind, Method};
use crate::transport::call::peer::{ConnectInfo, network};
use crate::transport::call::response::refused;
use crate::transport::call::shares::{Full, Place, Shares};
use crate::transport::call::status::status;
use crate::transport::call::{Request, Response, ResponseBody};
use crate::transport::observe::metrics::Metrics;

/// Probes at work at once. They must not be shed when others fill the server, but their callers are nobody: they have room
/// of their own, and no more.
const MAX_HEALTH_CALLS: u32 = 256;
/// Those of one caller: who begins probes and does not end them fills no more than this.
const MAX_HEALTH_CALLS_PER_CALLER: u32 = 16;
/// Conversations with reflection at once: it is for people at a terminal.
const MAX_REFLECTIONS: u32 = 64;
const MAX_REFLECTIONS_PER_CALLER: u32 = 8;

/// Counts a call until the end of its answer, which is when its client has taken it: answers that wait for their client
/// take memory. Lists are counted until their headers, because their streams and pages have limits of their own.
pub(super) struct LimitLayer {
    calls: OfCallers,
    health: OfCallers,
    watches: OfCallers,
    reflections: OfCallers,
    metrics: Metrics,
}

/// Shares by the name of the caller and by tenant. Callers that no principal fits count as one tenant.
type OfCallers = Shares<Arc<str>, Option<String>>;

/// A body that holds something to its end.
struct Holding {
    body: Body,
    place: Option<Place>,
}

/// A message that holds something until it was sent.
struct HoldingMessage {
    message: Bytes,
    _place: Place,
}

// === impl LimitLayer ===

impl LimitLayer {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        let (limits, watches) = (&config.limits, config.streams.max_open);
        LimitLayer {
            calls: Shares::new(limits.max_calls, limits.max_calls_per_identity, limits.max_calls_per_tenant),
            health: Shares::new(MAX_HEALTH_CALLS, MAX_HEALTH_CALLS_PER_CALLER, MAX_HEALTH_CALLS),
            // Each connection of a client may watch: libraries do, to see whether it is good.
            watches: Shares::new(watches, limits.max_connections_per_identity, watches),
            reflections: Shares::new(MAX_REFLECTIONS, MAX_REFLECTIONS_PER_CALLER, MAX_REFLECTIONS),
            metrics,
        }
    }

    /// A place for a call, or why there is none.
    fn enter(&self, method: Option<&Method>, call: &Request) -> Result<Place, Full> {
        let of = |shares: &OfCallers| shares.of(Some(caller(call)), tenant(call));
        match method {
            Some(method) if method.kind == Kind::Health && method.streaming => of(&self.watches).enter(),
            Some(method) if method.kind == Kind::Health => of(&self.health).enter(),
            Some(method) if method.kind == Kind::Reflection => of(&self.reflections).enter(),
            // The connection keeps the share of its caller: it is looked up once and not at every call.
            _ => match call.extensions().get::<ConnectInfo>() {
                Some(info) => info.calls(|| of(&self.calls)).enter(),
                None => of(&self.calls).enter(),
            },
        }
    }
}

/// The name of the caller, or where it is if it has none.
fn caller(call: &Request) -> Arc<str> {
    let Some(info) = call.extensions().get::<ConnectInfo>() else { return Arc::default() };
    match info.caller() {
        Ok(caller) => caller.name.clone(),
        Err(_) => info.peer().ip().map(|ip| network(ip).to_string()).unwrap_or_default().into(),
    }
}

/// The name of the caller's tenant; those who are nobody have none.
fn tenant(call: &Request) -> Option<String> {
    let caller = call.extensions().get::<ConnectInfo>()?.caller().ok()?;
    Some(caller.tenant.clone())
}

impl Layer for LimitLayer {
    async fn handle<H: Handler>(&self, call: Request, inner: &H) -> Response {
        let context = CallContext::of(&call);
        let method = context.method.as_deref();
        let list = method.is_some_and(|method| method.kind == Kind::Api && method.streaming);
        match self.enter(method, &call) {
            Ok(place) => {
                let answer = inner.handle(call).await;
                if list { answer } else { answer.map(|body| hold(body, place)) }
            }
            Err(full) => {
                self.metrics.call_shed(full == Full::Total);
                refused(status(full.into()))
            }
        }
    }
}

/// Holds a place until the answer has left.
fn hold(body: ResponseBody, place: Place) -> ResponseBody {
    match body {
        ResponseBody::Whole { message, trailers } => {
            let message = message.map(|message| Bytes::from_owner(HoldingMessage { message, _place: place }));
            ResponseBody::Whole { message, trailers }
        }
        ResponseBody::Stream(body) => ResponseBody::Stream(Body::new(Holding { body, place: Some(place) })),
    }
}

// === impl HoldingMessage ===

impl AsRef<[u8]> for HoldingMessage {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

// === impl Holding ===

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let ended = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Pending => false,
        };
        if ended {
            drop(self.place.take());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
