//! The task of one HTTP/2 stream: it ends with its connection, and when nobody takes what it has to send.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::layers::AnswerBody;
use crate::metrics::Metrics;

tokio::task_local! {
    static STALL: Arc<Stall>;
}

/// Runs the streams of one connection as tracked tasks.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    pub(super) tasks: TaskTracker,
    /// Ends all of them at once.
    pub(super) cut: CancellationToken,
    pub(super) stall_timeout: Duration,
    pub(super) metrics: Metrics,
}

/// Since when a stream has data that its client does not take.
#[derive(Debug)]
pub(super) struct Stall(Mutex<StallState>);

#[derive(Clone, Copy, Debug)]
struct StallState {
    since: Option<Instant>,
    timeout: Duration,
}

/// What the bodies of a connection hand over to be sent.
#[derive(Debug, Default)]
pub(super) struct Yielded {
    bytes: AtomicU64,
    /// Bodies that handed over data and ended before their end.
    abandoned: AtomicU64,
}

/// A body under watch. The HTTP library asks for the next frame only when the former has room in the windows; the time
/// between is how long the client has not been reading. While it waits the body is not polled, so it cannot end itself:
/// the task around it does.
pub(super) struct WatchedBody<G> {
    body: AnswerBody,
    stall: Option<Arc<Stall>>,
    yielded: Arc<Yielded>,
    /// Data was handed over and the end was not.
    begun: bool,
    /// Dropped with the body.
    _guard: G,
}

// === impl StreamExecutor ===

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let state = StallState { since: None, timeout: self.stall_timeout };
        let stall = Arc::new(Stall(Mutex::new(state)));
        let (cut, metrics) = (self.cut.clone(), self.metrics.clone());
        self.tasks.spawn(async move {
            let mut stream = pin!(STALL.scope(stall.clone(), stream));
            let mut sleep: Option<Pin<Box<Sleep>>> = None;
            // `stall` changes only while the stream is polled, so looking after each poll misses nothing.
            let work = std::future::poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let StallState { since: Some(since), timeout } = stall.get() else { return Poll::Pending };
                let end = since + timeout;
                let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
                if sleep.deadline() != end {
                    sleep.as_mut().reset(end);
                }
                ready!(sleep.as_mut().poll(cx));
                metrics.stream_stalled();
                // Dropping the stream resets it and frees what was kept for it.
                Poll::Ready(())
            });
            cut.run_until_cancelled(work).await;
        });
    }
}

// === impl Stall ===

impl Stall {
    /// The one of the running task.
    pub(super) fn current() -> Option<Arc<Stall>> {
        STALL.try_with(Arc::clone).ok()
    }

    /// Allows this stream another time.
    pub(super) fn set_timeout(&self, timeout: Duration) {
        self.lock().timeout = timeout;
    }

    fn set_since(&self, since: Option<Instant>) {
        self.lock().since = since;
    }

    fn get(&self) -> StallState {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StallState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Yielded ===

impl Yielded {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }
}

// === impl WatchedBody ===

impl<G> WatchedBody<G> {
    pub(super) fn new(body: AnswerBody, stall: Option<Arc<Stall>>, yielded: Arc<Yielded>, guard: G) -> Self {
        WatchedBody { body, stall, yielded, begun: false, _guard: guard }
    }

    fn waiting(&self, since: Option<Instant>) {
        if let Some(stall) = &self.stall {
            stall.set_since(since);
        }
    }
}

impl<G: Unpin> http_body::Body for WatchedBody<G> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.waiting(None);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.begun = data.is_some();
        if let Some(data) = data {
            self.yielded.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.waiting(Some(Instant::now()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<G> Drop for WatchedBody<G> {
    fn drop(&mut self) {
        self.waiting(None);
        if self.begun {
            self.yielded.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}
