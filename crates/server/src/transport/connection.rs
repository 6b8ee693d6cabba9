//! One HTTP/2 connection: every limit set, and an end for each way in which it should end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::accept::Shared;
use super::frames::{FrameMeter, Wire};
use super::info::ConnectInfo;
use super::io::GuardedIo;
use super::stream::{Stall, StreamExecutor, WatchedBody, Yielded};
use crate::config::Limits;
use crate::layers::Stack;

/// How often a connection is looked at for what no event tells, at most.
const LOOK: Duration = Duration::from_secs(5);
/// Clients that came together must not all be sent away together.
const AGE_JITTER: f64 = 0.1;

/// A connection that is about to be served.
pub(super) struct Connection<'a, C> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) info: ConnectInfo,
    pub(super) stack: Stack,
    /// Returns when the client's certificate is good no more, with why.
    pub(super) certificate_ends: C,
}

/// Turns requests of the connection into calls of the stack.
struct CallService(Arc<CallParts>);

/// What all calls of a connection share.
struct CallParts {
    stack: Stack,
    info: ConnectInfo,
    activity: Arc<Activity>,
    yielded: Arc<Yielded>,
    shared: Arc<Shared>,
}

/// Calls under way, and when the last ended.
#[derive(Debug)]
struct Activity {
    open: AtomicUsize,
    last: Mutex<Instant>,
}

/// One call under way.
struct OpenCall(Arc<Activity>);

/// Notices when nothing of what was to be sent has been sent for a while.
struct Progress {
    written: u64,
    resets: u64,
    /// Bytes that were counted as handed over but will not be written, because their streams were reset.
    lost: u64,
    since: Instant,
}

/// How a connection is told to go.
struct Leave {
    cause: &'static str,
    grace: Duration,
}

// === impl Connection ===

impl<C: Future<Output = String>> Connection<'_, C> {
    /// Serves until the end; the cause of the end, one of few words.
    pub(super) async fn serve(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> &'static str {
        let wire = Arc::new(Wire::default());
        gathered(self.serve_now(io, wire.clone()), &wire.turns).await
    }

    async fn serve_now(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        wire: Arc<Wire>,
    ) -> &'static str {
        let Connection { shared, info, stack, certificate_ends } = self;
        let limits = &shared.config.limits;
        let cut = CancellationToken::new();
        // Whatever way this function is left, the calls of the connection end with it.
        let _cut = cut.clone().drop_guard();
        let parts = Arc::new(CallParts {
            stack,
            info: info.clone(),
            activity: Arc::new(Activity { open: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }),
            yielded: Arc::default(),
            shared: shared.clone(),
        });
        let (activity, yielded) = (parts.activity.clone(), parts.yielded.clone());
        let service = CallService(parts);

        let meter = FrameMeter::new(limits.max_control_frames_per_second);
        let io = GuardedIo::new(io, meter, wire.clone(), limits.write_stall_timeout);
        let executor = StreamExecutor {
            tasks: shared.tasks.clone(),
            cut,
            stall_timeout: limits.write_stall_timeout,
            metrics: shared.metrics.clone(),
        };
        let mut http = pin!(builder(executor, limits).serve_connection(TokioIo::new(io), service));

        let start = Instant::now();
        let mut age = pin!(sleep_until(start + jittered(limits.connection_age)));
        let mut certificate_ends = pin!(certificate_ends);
        let mut last_call = pin!(sleep_until(start));
        let mut leaving: Option<Leave> = None;
        let mut look = tokio::time::interval(look_interval(limits, shared.config.tls.handshake_timeout));
        let mut progress = Progress { written: 0, resets: 0, lost: 0, since: start };
        let mut certificate_ended = false;

        loop {
            let leave = tokio::select! {
                ended = http.as_mut() => {
                    return match (leaving, ended) {
                        (Some(leave), _) => leave.cause,
                        (None, Ok(())) => "client",
                        (None, Err(error)) => {
                            tracing::debug!(client.address = %info.peer(), error.message = %error, "connection broke");
                            "error"
                        }
                    };
                }
                // Calls that did not end in their grace.
                () = last_call.as_mut(), if leaving.is_some() => {
                    return leaving.map_or("cut", |leave| leave.cause);
                }
                why = certificate_ends.as_mut(), if !certificate_ended => {
                    certificate_ended = true;
                    info.withdraw();
                    tracing::info!(
                        client.address = %info.peer(),
                        principal = info.principal(),
                        why,
                        "client certificate is good no more"
                    );
                    Leave { cause: "certificate", grace: shared.config.tls.revoked_grace }
                }
                () = shared.drain.cancelled(), if leaving.is_none() => {
                    Leave { cause: "drain", grace: shared.config.drain.grace }
                }
                () = age.as_mut(), if leaving.is_none() => {
                    Leave { cause: "age", grace: limits.connection_age_grace }
                }
                _ = look.tick() => {
                    let now = Instant::now();
                    if !wire.hello.load(Ordering::Relaxed) && now - start >= shared.config.tls.handshake_timeout {
                        return "no_preface";
                    }
                    // Streams are reset before that; what remains then is owed by a peer that takes nothing at all.
                    let stall = limits.write_stall_timeout.max(shared.config.streams.idle_timeout);
                    if progress.stalled(&wire, &yielded, now, stall + limits.write_stall_timeout) {
                        return "stalled";
                    }
                    if leaving.is_some() || !activity.idle(now, limits.connection_idle_timeout) {
                        continue;
                    }
                    Leave { cause: "idle", grace: limits.keepalive_timeout }
                }
            };
            http.as_mut().graceful_shutdown();
            // A second cause can only shorten the time that is left.
            let end = Instant::now() + leave.grace;
            if leaving.is_none() || end < last_call.deadline() {
                last_call.as_mut().reset(end);
            }
            leaving.get_or_insert(leave);
        }
    }
}

/// Polls a connection once per turn of the scheduler. Answers that are ready at the same time are then written with one system
/// call: each wakes the connection, which would otherwise go before the next of them and write the first one alone. Its turns
/// are counted.
async fn gathered<F: Future>(connection: F, turns: &AtomicU64) -> F::Output {
    let mut connection = pin!(connection);
    let mut others_went = false;
    std::future::poll_fn(|cx| {
        if !others_went {
            others_went = true;
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        others_went = false;
        turns.fetch_add(1, Ordering::Relaxed);
        connection.as_mut().poll(cx)
    })
    .await
}

/// HTTP/2 with nothing left to defaults.
fn builder(executor: StreamExecutor, limits: &Limits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_local_error_reset_streams(limits.max_local_error_reset_streams as usize)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams as usize)
        .max_header_list_size(limits.max_header_list_size.0)
        .initial_stream_window_size(limits.stream_window.0)
        .initial_connection_window_size(limits.connection_window.0)
        .adaptive_window(false)
        .max_frame_size(limits.max_frame_size.0)
        .max_send_buf_size(limits.send_buffer.bytes())
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

fn jittered(age: Duration) -> Duration {
    // The low bits of a fresh UUID are random; nothing here needs more than that.
    let random = (uuid::Uuid::now_v7().as_u128() & 0xffff) as f64 / f64::from(0xffff_u16);
    age.mul_f64(1.0 - AGE_JITTER + 2.0 * AGE_JITTER * random)
}

/// Often enough to hold each of these times to within a quarter.
fn look_interval(limits: &Limits, handshake_timeout: Duration) -> Duration {
    let shortest = limits.connection_idle_timeout.min(limits.write_stall_timeout).min(handshake_timeout);
    (shortest / 4).clamp(Duration::from_millis(20), LOOK)
}

// === impl CallService ===

impl hyper::service::Service<http::Request<Incoming>> for CallService {
    type Response = http::Response<WatchedBody<OpenCall>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let parts = Arc::clone(&self.0);
        let open = OpenCall::new(parts.activity.clone());
        Box::pin(async move {
            let CallParts { stack, info, activity: _, yielded, shared } = &*parts;
            let stall = Stall::current();
            let streaming = shared.methods.get(request.uri().path()).is_some_and(|method| method.streaming);
            if let Some(stall) = stall.as_ref().filter(|_| streaming) {
                // Who reads a list may take longer over a page than over an answer.
                stall.set_timeout(shared.config.streams.idle_timeout.max(shared.config.limits.write_stall_timeout));
            }
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(info.clone());
            let answer = stack.answer(request).await;
            Ok(answer.map(|body| WatchedBody::new(body, stall, yielded.clone(), open)))
        })
    }
}

// === impl Activity ===

impl Activity {
    /// Whether there has been no call for so long.
    fn idle(&self, now: Instant, timeout: Duration) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.load(Ordering::Acquire) == 0 && now.saturating_duration_since(last) >= timeout
    }
}

impl OpenCall {
    fn new(activity: Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::AcqRel);
        OpenCall(activity)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Progress ===

impl Progress {
    /// Whether bodies have handed over data, and for `timeout` none of it was written. That is a client that opened
    /// calls and leaves its windows shut: the calls are over for us, their answers are kept for it.
    fn stalled(&mut self, wire: &Wire, yielded: &Yielded, now: Instant, timeout: Duration) -> bool {
        let written = wire.data_written.load(Ordering::Relaxed);
        let resets = wire.resets_read.load(Ordering::Relaxed) + yielded.abandoned();
        let yielded = yielded.bytes();
        if resets != self.resets {
            // What was still to come on those streams is gone; how much of it cannot be seen from here.
            self.resets = resets;
            self.lost = yielded.saturating_sub(written);
        }
        let pending = yielded.saturating_sub(written).saturating_sub(self.lost) > 0;
        if written != self.written || !pending {
            self.written = written;
            self.since = now;
        }
        pending && now.saturating_duration_since(self.since) >= timeout
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_goes_before_the_connection_that_is_woken() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |who: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(who)
        };
        let ((wake, woken), (answer, answered)) = (oneshot::channel(), oneshot::channel());
        let (begins, goes_on, stream) = (note("connection begins"), note("connection goes on"), note("stream"));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let turns = AtomicU64::new(0);
            let connection = async move {
                begins();
                woken.await.unwrap();
                goes_on();
            };
            gathered(connection, &turns).await;
            assert_eq!(turns.into_inner(), 2);
        });
        tasks.spawn(async move {
            answered.await.unwrap();
            stream();
        });
        // By then the stream waits: it was there before the connection had its second turn.
        while order.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        wake.send(()).unwrap();
        answer.send(()).unwrap();
        tasks.join_all().await;
        assert_eq!(*order.lock().unwrap(), ["connection begins", "stream", "connection goes on"]);
    }
}
