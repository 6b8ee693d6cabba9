//! The context of a call from its first byte to its last: its id, its method and, if it failed, the cause.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jackfield_domain::{Clock as _, SystemClock};
use opentelemetry::{SpanId, TraceId};
use tokio::task::futures::TaskLocalFuture;
use uuid::Uuid;

use super::Request;
use super::flow::Flow;
use super::identity::ConfiguredPrincipal;
use super::methods::{Method, Shape};
use super::peer::Peer;

/// The response header that names the call. Errors that layers make have it in their trailers.
pub const REQUEST_ID: &str = "x-request-id";

/// The name of the span of a call.
pub const CALL_SPAN: &str = "call";

/// The same header of a request, which is looked up at every call.
const FOREIGN_ID: HeaderName = HeaderName::from_static(REQUEST_ID);

/// A client's own id is ignored if it is longer than this, in bytes. A UUID has 36, and ids of traces at most 55.
const MAX_FOREIGN_ID: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<CallContext>;
}

/// One call.
#[derive(Debug)]
pub struct CallContext {
    /// UUIDv7, made here; a client's own id is not trusted.
    pub request_id: Uuid,
    /// The id that the client or a proxy gave the call, if it looks like one. It only helps people who search.
    pub(crate) foreign_id: Option<HeaderValue>,
    /// The trace that the call is part of, if any, as its client says or as it is traced here.
    trace_id: OnceLock<TraceId>,
    /// Its span in that trace, if it is traced here.
    span_id: OnceLock<SpanId>,
    /// `None` for a path that is not a method of this server.
    pub method: Option<Arc<Method>>,
    /// The time at which the headers arrived.
    pub start: Instant,
    /// The other end of its connection.
    pub peer: Option<Peer>,
    /// The link between the response and the stream that carries it.
    pub flow: Arc<Flow>,
    cause: Mutex<Option<Arc<dyn std::error::Error + Send + Sync>>>,
    held: Mutex<Vec<Held>>,
    caller: OnceLock<Arc<ConfiguredPrincipal>>,
    /// Its deadline is the server's own limit.
    limited: AtomicBool,
    /// A handler has its message.
    begun: AtomicBool,
    change: OnceLock<Change>,
}

/// The effect that a request may have if the call ends before its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It changes nothing.
    Nothing,
    /// It may be carried out. Sending the same request again makes no second change.
    Repeatable,
    /// It may be carried out. Sending the same request again may make a second change.
    Unrepeatable,
}

/// Something that is released when it is dropped.
type Held = Box<dyn std::fmt::Debug + Send + Sync>;

/// Bytes that hold something as long as they exist.
struct HeldBytes {
    bytes: Bytes,
    _held: Vec<Held>,
}

// === impl HeldBytes ===

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl CallContext ===

impl CallContext {
    /// Returns the call of the running task, if there is one.
    pub fn current() -> Option<Arc<CallContext>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Notes why the call failed, for its one log line. The first cause stays.
    pub fn set_cause(&self, cause: Arc<dyn std::error::Error + Send + Sync>) {
        self.lock_cause().get_or_insert(cause);
    }

    /// Returns the cause of the failure.
    pub fn cause(&self) -> Option<Arc<dyn std::error::Error + Send + Sync>> {
        self.lock_cause().clone()
    }

    /// Holds something until the bytes that the response hands over next are gone: sent, or dropped with their connection.
    /// They may outlive a stream that is reset, as long as its client reads nothing at all.
    pub fn hold(&self, what: impl std::fmt::Debug + Send + Sync + 'static) {
        self.lock_held().push(Box::new(what));
    }

    /// Ties what is held to these bytes.
    pub fn tie(&self, bytes: Bytes) -> Bytes {
        let held = std::mem::take(&mut *self.lock_held());
        if held.is_empty() { bytes } else { Bytes::from_owner(HeldBytes { bytes, _held: held }) }
    }

    /// Notes the caller, for the log.
    pub fn set_principal(&self, caller: &Arc<ConfiguredPrincipal>) {
        // A call has one caller; a second would be the same.
        let _ = self.caller.set(Arc::clone(caller));
    }

    /// Returns the name of the caller, once known.
    pub fn principal(&self) -> &str {
        self.caller.get().map(|caller| &*caller.name).unwrap_or_default()
    }

    /// Notes the trace of its client that the call is part of.
    pub fn set_callers_trace(&self, trace: TraceId) {
        let _ = self.trace_id.set(trace);
    }

    /// Notes the span of the call.
    pub fn set_span(&self, trace: TraceId, span: SpanId) {
        // A client's trace is continued: it is the same.
        let _ = self.trace_id.set(trace);
        let _ = self.span_id.set(span);
    }

    /// Returns the trace of the call, and its span in it if it is traced here.
    pub fn trace(&self) -> Option<(TraceId, Option<SpanId>)> {
        self.trace_id.get().map(|trace| (*trace, self.span_id.get().copied()))
    }

    /// Notes that the deadline is the server's own limit, and not one that the client set.
    pub fn set_limited(&self) {
        self.limited.store(true, Ordering::Relaxed);
    }

    /// Notes that a handler has begun.
    pub fn set_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Returns whether a handler has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Notes what the handler is about to change.
    pub fn set_change(&self, change: Change) {
        // A call is one change.
        let _ = self.change.set(change);
    }

    /// Returns what the handler is about to change, if it has said so.
    pub fn change(&self) -> Option<Change> {
        self.change.get().copied()
    }

    /// Returns whether it is the server's fault if the call takes longer than it may: it has begun, its client would have
    /// waited, and no reader sets its pace.
    pub fn is_to_be_in_time(&self) -> bool {
        let unary = self.method.as_ref().is_some_and(|method| method.shape == Shape::Unary);
        unary && self.limited.load(Ordering::Relaxed) && self.begun.load(Ordering::Relaxed)
    }

    /// Returns the context of a request, which the outermost layer has put in.
    pub fn of(call: &Request) -> Arc<CallContext> {
        match call.extensions().get::<Arc<CallContext>>() {
            Some(context) => context.clone(),
            None => Arc::new(CallContext::new(None, None, Arc::default(), None)),
        }
    }

    /// Runs a function as part of the call.
    pub fn enter<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Arc::clone(self), work)
    }

    /// Runs a future as part of the call.
    pub fn scope<F: Future>(self: Arc<Self>, work: F) -> TaskLocalFuture<Arc<Self>, F> {
        CURRENT.scope(self, work)
    }

    /// Makes the context of a call that begins now.
    pub fn new(
        method: Option<Arc<Method>>,
        peer: Option<Peer>,
        flow: Arc<Flow>,
        foreign_id: Option<HeaderValue>,
    ) -> Self {
        CallContext {
            flow,
            request_id: request_id(),
            foreign_id,
            trace_id: OnceLock::new(),
            span_id: OnceLock::new(),
            method,
            start: Instant::now(),
            peer,
            cause: Mutex::new(None),
            held: Mutex::default(),
            caller: OnceLock::new(),
            limited: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            change: OnceLock::new(),
        }
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock_cause(&self) -> std::sync::MutexGuard<'_, Option<Arc<dyn std::error::Error + Send + Sync>>> {
        self.cause.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Makes a UUIDv7 that is unique and cannot be guessed, without asking the system for random bytes at every call.
fn request_id() -> Uuid {
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [a, b] = KEYS.each_ref().map(|key| key.hash_one(count).to_le_bytes());
    let random = [a[0], a[1], a[2], a[3], a[4], b[0], b[1], b[2], b[3], b[4]];
    let millis = u64::try_from(SystemClock.now().0 / 1_000).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Returns the `x-request-id` of a request, if there is one and it could be an id: printable ASCII without blanks, quotes
/// and backslashes, of bounded length. Any other text is ignored.
pub fn foreign_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut ids = headers.get_all(FOREIGN_ID).iter();
    let (Some(id), None) = (ids.next(), ids.next()) else { return None };
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'`' | b'\\');
    ((1..=MAX_FOREIGN_ID).contains(&id.len()) && id.as_bytes().iter().all(is_plain)).then(|| id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_others_are_taken_if_they_could_be_ids() {
        let long = "x".repeat(MAX_FOREIGN_ID);
        for id in [
            "0a1b2c3d-0000-4000-8000-000000000000",
            "1-67891233-abcdef012345678912345678",
            "a",
            "Root=1;Self=2/3+4",
            &long,
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, id.parse().unwrap());
            assert_eq!(foreign_id(&headers).unwrap(), id);
        }
    }

    #[test]
    fn ids_of_others_that_could_not_be_ids_are_passed_over() {
        let long = "x".repeat(MAX_FOREIGN_ID + 1);
        for id in [&b""[..], b"a b", b"a\tb", b"a\"b", b"a'b", b"a`b", b"a\\b", b"caf\xc3\xa9", long.as_bytes()] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
            assert_eq!(foreign_id(&headers), None, "{id:?}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(foreign_id(&headers), None);
        for id in ["a", "b"] {
            headers.append(REQUEST_ID, id.parse().unwrap());
        }
        assert_eq!(foreign_id(&headers), None, "which of them?");
    }
}
