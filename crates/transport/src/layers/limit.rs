//! Load shedding: beyond a number of concurrent calls, the server refuses further ones at once instead of queueing them.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::intercept::{Intercept, OnResponse};
use crate::call::context::CallContext;
use crate::call::fair_semaphore::{FairSemaphore, Full, Permit};
use crate::call::methods::{Kind, Method, Shape};
use crate::call::peer::{ConnectInfo, network};
use crate::call::response::refused;
use crate::call::status::{reflection_refused, status};
use crate::call::{Request, Response, ResponseBody};
use crate::config::TransportConfig;
use crate::observe::metrics::Metrics;

/// Concurrent probes. They must not be shed when others fill the server, but their callers are unknown, so they have a
/// limit of their own.
const MAX_HEALTH_CALLS: u32 = 256;
/// Concurrent probes of one caller, so that a caller that begins probes and does not end them takes no more than this.
const MAX_HEALTH_CALLS_PER_CALLER: u32 = 16;
/// Concurrent conversations with reflection. Those in which nothing is asked end soon, so these are clients that begin at the
/// same time: a script, or a hundred terminals. For a client that does not read, at most four answers wait, of at most 64 KiB
/// with the question in each: 64 MiB for all.
const MAX_REFLECTIONS: u32 = 256;
const MAX_REFLECTIONS_PER_CALLER: u32 = 128;

/// Counts a call until the end of its response, which is when its client has taken it: responses that wait for their client
/// take memory. Lists are counted until their headers, because their streams and pages have limits of their own.
#[derive(Clone)]
pub(super) struct Limit(Arc<Semaphores>);

struct Semaphores {
    calls: OfCallers,
    health: OfCallers,
    watches: OfCallers,
    reflections: OfCallers,
    metrics: Metrics,
}

/// A semaphore by the name of the caller and by tenant. Callers that match no principal count as one tenant.
type OfCallers = FairSemaphore<Arc<str>, Option<String>>;

/// A body that holds something until its end.
struct Holding {
    body: Body,
    permit: Option<Permit>,
}

/// A message that holds something until it has been sent.
struct HoldingMessage {
    message: Bytes,
    _permit: Permit,
}

/// Keeps the permit of a call until its response has left.
pub(super) struct Keeping {
    permit: Permit,
    is_list: bool,
}

// === impl Limit ===

impl Limit {
    pub(super) fn new(config: &TransportConfig, metrics: Metrics) -> Self {
        let (limits, watches) = (&config.limits, config.streams.max_open);
        Limit(Arc::new(Semaphores {
            calls: FairSemaphore::new(limits.max_calls, limits.max_calls_per_identity, limits.max_calls_per_tenant),
            health: FairSemaphore::new(MAX_HEALTH_CALLS, MAX_HEALTH_CALLS_PER_CALLER, MAX_HEALTH_CALLS),
            // Each connection of a client may watch: libraries do, to see whether the connection is good.
            watches: FairSemaphore::new(watches, limits.max_connections_per_identity, watches),
            reflections: FairSemaphore::new(MAX_REFLECTIONS, MAX_REFLECTIONS_PER_CALLER, MAX_REFLECTIONS),
            metrics,
        }))
    }
}

impl Semaphores {
    /// Takes a permit for a call; the error says which limit is reached.
    fn try_acquire(&self, method: Option<&Method>, request: &Request) -> Result<Permit, Full> {
        let of = |shares: &OfCallers| shares.of(Some(caller(request)), tenant(request));
        match method.map(|method| (method.kind, method.shape)) {
            Some((_, Shape::Watch)) => of(&self.watches).try_acquire(),
            Some((Kind::Health, _)) => of(&self.health).try_acquire(),
            Some((Kind::Reflection, _)) => of(&self.reflections).try_acquire(),
            // The connection keeps the share of its caller: it is looked up once and not at every call.
            Some((Kind::Api, _)) | None => match request.extensions().get::<ConnectInfo>() {
                Some(info) => info.calls(|| of(&self.calls)).try_acquire(),
                None => of(&self.calls).try_acquire(),
            },
        }
    }
}

/// Returns the name of the caller, or its address if it has none.
fn caller(request: &Request) -> Arc<str> {
    let Some(info) = request.extensions().get::<ConnectInfo>() else { return Arc::default() };
    match info.caller() {
        Ok(caller) => caller.name.clone(),
        Err(_) => info.peer().ip().map(|ip| network(ip).to_string()).unwrap_or_default().into(),
    }
}

/// Returns the name of the caller's tenant; unknown callers have none.
fn tenant(request: &Request) -> Option<String> {
    let caller = request.extensions().get::<ConnectInfo>()?.caller().ok()?;
    Some(caller.tenant.clone())
}

impl Intercept for Limit {
    type OnResponse = Keeping;

    fn on_request(&self, request: &mut Request) -> ControlFlow<Response, Keeping> {
        let context = CallContext::of(request);
        let method = context.method.as_deref();
        let is_list = method.is_some_and(|method| method.kind == Kind::Api && method.shape == Shape::Pages);
        match self.0.try_acquire(method, request) {
            Ok(permit) => ControlFlow::Continue(Keeping { permit, is_list }),
            Err(full) => {
                self.0.metrics.call_shed(full == Full::Total);
                let is_reflection = method.is_some_and(|method| method.kind == Kind::Reflection);
                let refusal = if is_reflection { reflection_refused(full.into()) } else { status(full.into()) };
                ControlFlow::Break(refused(refusal))
            }
        }
    }
}

impl OnResponse for Keeping {
    fn on_response(self, response: Response) -> Response {
        if self.is_list { response } else { response.map(|body| hold(body, self.permit)) }
    }
}

/// Holds a permit until the response has left.
fn hold(body: ResponseBody, permit: Permit) -> ResponseBody {
    match body {
        ResponseBody::Whole { message, trailers } => {
            let message = message.map(|message| Bytes::from_owner(HoldingMessage { message, _permit: permit }));
            ResponseBody::Whole { message, trailers }
        }
        ResponseBody::Stream(body) => ResponseBody::Stream(Body::new(Holding { body, permit: Some(permit) })),
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
            drop(self.permit.take());
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
