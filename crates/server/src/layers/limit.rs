//! Load shedding: beyond a number of calls at work the server says so at once instead of queueing.

use std::collections::HashMap;
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
use crate::transport::{ConnectInfo, Counter, network};

/// What shed clients are told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Probes at work at once. They must not be shed when others fill the server, but their callers are nobody: they have room
/// of their own, and no more.
const MAX_HEALTH_CALLS: usize = 256;
/// Those of one caller: who begins probes and does not end them fills no more than this.
const MAX_HEALTH_CALLS_PER_CALLER: u32 = 16;
/// Conversations with reflection at once: it is for people at a terminal.
const MAX_REFLECTIONS: usize = 64;

/// Counts a call until the end of its answer, which is when its client has taken it: answers that wait for their client
/// take memory. Lists are counted until their headers, because their streams and pages have limits of their own.
pub(super) struct LimitLayer {
    calls: Arc<Semaphore>,
    calls_by_identity: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    max_calls_per_identity: usize,
    health: Arc<Semaphore>,
    health_by_caller: Counter<Arc<str>>,
    watches: Arc<Semaphore>,
    reflections: Arc<Semaphore>,
    metrics: Metrics,
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
        LimitLayer {
            calls: Arc::new(Semaphore::new(config.limits.max_calls as usize)),
            calls_by_identity: Mutex::default(),
            max_calls_per_identity: config.limits.max_calls_per_identity as usize,
            health: Arc::new(Semaphore::new(MAX_HEALTH_CALLS)),
            health_by_caller: Counter::new(MAX_HEALTH_CALLS_PER_CALLER),
            watches: Arc::new(Semaphore::new(config.streams.max_open as usize)),
            reflections: Arc::new(Semaphore::new(MAX_REFLECTIONS)),
            metrics,
        }
    }

    /// Room for a call, or why there is none.
    fn enter(&self, method: Option<&Method>, call: &Call) -> Result<Permit, Error> {
        let full = || Error::ServerUnavailable { retry_after: RETRY_AFTER };
        let of = |pool: &Arc<Semaphore>| pool.clone().try_acquire_owned().map_err(|_| full());
        Ok(match method {
            Some(method) if method.kind == Kind::Health && method.streaming => Box::new(of(&self.watches)?),
            Some(method) if method.kind == Kind::Health => {
                let of_caller = self.health_by_caller.enter(caller(call)).ok_or_else(full)?;
                Box::new((of(&self.health)?, of_caller))
            }
            Some(method) if method.kind == Kind::Reflection => Box::new(of(&self.reflections)?),
            _ => {
                // One caller may fill a part of the server, and not all of it.
                let of_identity = self.calls_of(call).try_acquire_owned();
                let of_identity = of_identity.map_err(|_| Error::RateLimited { retry_after: RETRY_AFTER })?;
                Box::new((of(&self.calls)?, of_identity))
            }
        })
    }

    /// The calls of this one's caller, which its connection keeps: they are looked up once and not at every call.
    fn calls_of(&self, call: &Call) -> Arc<Semaphore> {
        let find = || {
            let mut calls = self.calls_by_identity.lock().unwrap_or_else(PoisonError::into_inner);
            // Those without a connection and a call are not kept.
            calls.retain(|_, calls| Arc::strong_count(calls) > 1);
            let new = || Arc::new(Semaphore::new(self.max_calls_per_identity));
            calls.entry(caller(call)).or_insert_with(new).clone()
        };
        match call.extensions().get::<ConnectInfo>() {
            Some(info) => info.calls(find),
            None => find(),
        }
    }
}

/// The name of the caller, or where it is if it has none.
fn caller(call: &Call) -> Arc<str> {
    let Some(info) = call.extensions().get::<ConnectInfo>() else { return Arc::default() };
    match info.caller() {
        Ok(caller) => caller.name.clone(),
        Err(_) => info.peer().ip().map(|ip| network(ip).to_string()).unwrap_or_default().into(),
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
                self.metrics.call_shed();
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
