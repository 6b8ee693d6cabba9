//! What the stream of a call and the answer on it tell each other: whether the client takes more, and that it is over.
//!
//! An answer that waits for its client is not asked for more, so it cannot end itself. Its stream looks at the times, tells
//! the answer here that it has to end, and asks it for the status, which so passes all layers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jackfield_domain::Error;
use tokio::time::Instant;

/// The flow of one answer.
#[derive(Debug)]
pub(crate) struct Flow(Mutex<State>);

/// Why an answer ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its time is over, or its client has not read for too long.
    Deadline,
    /// The server stops, or the connection has come to its age.
    Unavailable,
    /// The client's certificate is good no more.
    Unauthenticated,
    /// Its client does not read, and others need the memory that its page takes.
    Crowded,
}

#[derive(Debug)]
struct State {
    /// The client has taken everything, and would take more.
    open: bool,
    /// The answer waits for that.
    wanted: bool,
    /// When the call has to end.
    deadline: Option<Instant>,
    /// Since when the client has taken nothing of what there is for it.
    stalled: Option<Instant>,
    end: Option<End>,
    /// The task of the stream.
    task: Option<Waker>,
}

/// When clients that were sent away come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Flow ===

impl Flow {
    /// Of a stream whose client has to show that it takes something.
    pub(crate) fn of_stream() -> Self {
        Flow::new(false)
    }

    fn new(open: bool) -> Self {
        Flow(Mutex::new(State { open, wanted: false, deadline: None, stalled: None, end: None, task: None }))
    }

    /// Waits until the client has taken everything that was handed over and would take more. What is made for it before may
    /// lie there for long.
    pub(crate) fn poll_open(&self) -> Poll<()> {
        let mut state = self.lock();
        state.wanted = !state.open;
        // The stream looks at this as soon as its answer waits.
        if state.open { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the answer waits for its client.
    pub(crate) fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// The client would take more.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        (state.open, state.wanted) = (true, false);
    }

    /// There is something that it has to take first.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.open, state.wanted) = (false, false);
    }

    /// Says when the call has to end.
    pub(crate) fn set_deadline(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
    }

    /// When the call has to end.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// Says since when the client takes nothing.
    pub(crate) fn set_stalled(&self, since: Option<Instant>) {
        self.lock().stalled = since;
    }

    /// Since when the client takes nothing, unless the answer ends already.
    pub(crate) fn stalled(&self) -> Option<Instant> {
        let state = self.lock();
        state.stalled.filter(|_| state.end.is_none())
    }

    /// Has the answer end. The first reason stays.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }

    /// Why the answer has to end.
    pub(crate) fn ended(&self) -> Option<End> {
        self.lock().end
    }

    /// The same, for the task that is woken then.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<End> {
        let mut state = self.lock();
        if let Some(end) = state.end {
            return Poll::Ready(end);
        }
        if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Flow {
    /// Of an answer that no stream carries: whoever asks for it takes it.
    fn default() -> Self {
        Flow::new(true)
    }
}

// === impl End ===

impl End {
    /// As an error.
    pub(crate) fn error(self) -> Error {
        match self {
            End::Deadline => Error::DeadlineExceeded,
            End::Unavailable => Error::ServerUnavailable { retry_after: RETRY_AFTER },
            End::Unauthenticated => {
                Error::Unauthenticated { message: "the client certificate is no longer valid".into() }
            }
            End::Crowded => Error::RateLimited { retry_after: RETRY_AFTER },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_for_its_client_and_says_so() {
        let flow = Flow::of_stream();
        assert!(!flow.is_wanted());
        assert!(flow.poll_open().is_pending() && flow.is_wanted());
        flow.open();
        assert!(flow.poll_open().is_ready() && !flow.is_wanted());
        flow.close();
        assert!(!flow.is_wanted() && flow.poll_open().is_pending());
        assert!(Flow::default().poll_open().is_ready());
    }

    #[test]
    fn the_first_reason_stays_and_who_ends_does_not_stall() {
        let flow = Flow::of_stream();
        let since = Instant::now();
        flow.set_stalled(Some(since));
        assert_eq!(flow.stalled(), Some(since));
        flow.end(End::Crowded);
        flow.end(End::Unavailable);
        assert_eq!((flow.ended(), flow.stalled()), (Some(End::Crowded), None));
    }
}
