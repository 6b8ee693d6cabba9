//! Load shedding: beyond a number of calls at work the server says so at once instead of queueing.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use jackfield_domain::Error;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;

use super::context::CallContext;
use super::{Answer, AnswerBody, Call, Handler, Layer, refused};
use crate::config::Config;
use crate::grpc::status::status;
use crate::methods::{Kind, Method};
use crate::metrics::Metrics;
use crate::transport::{CallRoom, ConnectInfo, Counter, network, share};

/// What shed clients are told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    calls: Arc<Semaphore>,
    calls_by_identity: Rooms<Arc<str>>,
    calls_by_tenant: Rooms<Option<String>>,
    health: Pool,
    watches: Pool,
    reflections: Pool,
    metrics: Metrics,
}

/// Rooms of the same size, by whose they are.
struct Rooms<K> {
    size: usize,
    rooms: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// Room of which no caller and no tenant can take all.
struct Pool {
    by_caller: Counter<Arc<str>>,
    /// Those who are nobody are one.
    by_tenant: Counter<Option<String>>,
    total: Counter<()>,
}

/// Something that is given back when the answer has ended.
type Permit = Box<dyn Send + Sync>;

/// A body that holds something to its end.
struct Holding {
    body: Body,
    permit: Option<Permit>,
}

/// A message that holds something until it was sent.
struct HoldingMessage {
    message: Bytes,
    _permit: Permit,
}

// === impl LimitLayer ===

impl LimitLayer {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        let watches = config.streams.max_open;
        LimitLayer {
            calls: Arc::new(Semaphore::new(config.limits.max_calls as usize)),
            calls_by_identity: Rooms::new(share(config.limits.max_calls_per_identity, config.limits.max_calls)),
            calls_by_tenant: Rooms::new(share(config.limits.max_calls_per_tenant, config.limits.max_calls)),
            health: Pool::new(MAX_HEALTH_CALLS, MAX_HEALTH_CALLS_PER_CALLER),
            // Each connection of a client may watch: libraries do, to see whether it is good.
            watches: Pool::new(watches, config.limits.max_connections_per_identity),
            reflections: Pool::new(MAX_REFLECTIONS, MAX_REFLECTIONS_PER_CALLER),
            metrics,
        }
    }

    /// Room for a call, or why there is none.
    fn enter(&self, method: Option<&Method>, call: &Call) -> Result<Permit, Error> {
        match method {
            Some(method) if method.kind == Kind::Health && method.streaming => self.watches.enter(call),
            Some(method) if method.kind == Kind::Health => self.health.enter(call),
            Some(method) if method.kind == Kind::Reflection => self.reflections.enter(call),
            _ => {
                let info = call.extensions().get::<ConnectInfo>();
                // The connection keeps the rooms of its caller: they are looked up once and not at every call.
                let find = || {
                    let of_tenant = self.calls_by_tenant.of(tenant(call));
                    CallRoom { of_identity: self.calls_by_identity.of(caller(call)), of_tenant }
                };
                let CallRoom { of_identity, of_tenant } = match info {
                    Some(info) => info.calls(find).clone(),
                    None => find(),
                };
                let of_identity = of_identity.try_acquire_owned().map_err(|_| too_many())?;
                let of_tenant = of_tenant.try_acquire_owned().map_err(|_| too_many())?;
                let of_all = self.calls.clone().try_acquire_owned().map_err(|_| full())?;
                Ok(Box::new((of_identity, of_tenant, of_all)))
            }
        }
    }
}

/// Who takes more than its share is told so.
fn too_many() -> Error {
    Error::RateLimited { retry_after: RETRY_AFTER }
}

/// It is the server that is full, whoever filled it.
fn full() -> Error {
    Error::ServerUnavailable { retry_after: RETRY_AFTER }
}

/// The name of the caller, or where it is if it has none.
fn caller(call: &Call) -> Arc<str> {
    let Some(info) = call.extensions().get::<ConnectInfo>() else { return Arc::default() };
    match info.caller() {
        Ok(caller) => caller.name.clone(),
        Err(_) => info.peer().ip().map(|ip| network(ip).to_string()).unwrap_or_default().into(),
    }
}

/// The name of the caller's tenant; those who are nobody have none.
fn tenant(call: &Call) -> Option<String> {
    let caller = call.extensions().get::<ConnectInfo>()?.caller().ok()?;
    Some(caller.tenant.clone())
}

// === impl Rooms ===

impl<K: Eq + Hash> Rooms<K> {
    fn new(size: u32) -> Self {
        Rooms { size: size as usize, rooms: Mutex::default() }
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // Those without a connection and a call are not kept.
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        rooms.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.size))).clone()
    }
}

// === impl Pool ===

impl Pool {
    fn new(total: u32, per_caller: u32) -> Self {
        let (by_caller, by_tenant) = (Counter::new(share(per_caller, total)), Counter::new(share(total, total)));
        Pool { by_caller, by_tenant, total: Counter::new(total) }
    }

    fn enter(&self, call: &Call) -> Result<Permit, Error> {
        let of_caller = self.by_caller.enter(caller(call)).ok_or_else(too_many)?;
        let of_tenant = self.by_tenant.enter(tenant(call)).ok_or_else(too_many)?;
        let of_all = self.total.enter(()).ok_or_else(full)?;
        Ok(Box::new((of_caller, of_tenant, of_all)))
    }
}

impl Layer for LimitLayer {
    async fn handle<H: Handler>(&self, call: Call, inner: &H) -> Answer {
        let context = CallContext::of(&call);
        let method = context.method.as_deref();
        let list = method.is_some_and(|method| method.kind == Kind::Api && method.streaming);
        match self.enter(method, &call) {
            Ok(permit) => {
                let answer = inner.handle(call).await;
                if list { answer } else { answer.map(|body| hold(body, permit)) }
            }
            Err(error) => {
                self.metrics.call_shed(matches!(error, Error::ServerUnavailable { .. }));
                refused(status(error))
            }
        }
    }
}

/// Holds a permit until the answer has left.
fn hold(body: AnswerBody, permit: Permit) -> AnswerBody {
    match body {
        AnswerBody::Whole { message, trailers } => {
            let message = message.map(|message| Bytes::from_owner(HoldingMessage { message, _permit: permit }));
            AnswerBody::Whole { message, trailers }
        }
        AnswerBody::Stream(body) => AnswerBody::Stream(Body::new(Holding { body, permit: Some(permit) })),
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
