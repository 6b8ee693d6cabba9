//! The link between the stream of a call and its response: whether the client would take more, and that the call is over.
//!
//! A response that waits for its client is not polled, so it cannot end itself. Its stream watches the times, tells the
//! response here that it has to end, and polls it for the status, so that the status passes through all layers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jackfield_domain::Error;
use tokio::time::Instant;

/// The flow of one response.
#[derive(Debug)]
pub struct Flow(Mutex<State>);

/// The reason why a response ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its deadline has passed, or its client has not read for too long.
    Deadline,
    /// The server stops, or the connection has reached its maximum age.
    Unavailable,
    /// The client's certificate is no longer valid.
    Unauthenticated,
    /// Its client does not read, and others need the memory that its page takes.
    Crowded,
}

#[derive(Debug)]
struct State {
    /// The client has taken everything, and would take more.
    open: bool,
    /// The response waits until the client would take more.
    wanted: bool,
    /// The time at which the call has to end.
    deadline: Option<Instant>,
    /// The time since which the client has taken nothing of what there is for it.
    stalled: Option<Instant>,
    end: Option<EndReason>,
    /// The task of the stream.
    task: Option<Waker>,
}

/// The time after which clients that were sent away should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Flow ===

impl Flow {
    /// Makes the flow of a stream whose client has to show that it takes something.
    pub fn of_stream() -> Self {
        Flow::new(false)
    }

    fn new(open: bool) -> Self {
        Flow(Mutex::new(State { open, wanted: false, deadline: None, stalled: None, end: None, task: None }))
    }

    /// Waits until the client has taken everything that was handed over and would take more. Data that is made earlier may
    /// have to wait there for a long time.
    pub fn poll_open(&self) -> Poll<()> {
        let mut state = self.lock();
        state.wanted = !state.open;
        // The stream checks this as soon as its response waits.
        if state.open { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Returns whether the response waits for its client.
    pub fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// Notes that the client would take more.
    pub fn open(&self) {
        let mut state = self.lock();
        (state.open, state.wanted) = (true, false);
    }

    /// Notes that there is something that it has to take first.
    pub fn close(&self) {
        let mut state = self.lock();
        (state.open, state.wanted) = (false, false);
    }

    /// Sets the time at which the call has to end.
    pub fn set_deadline(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
    }

    /// The time at which the call has to end.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// Sets the time since which the client takes nothing.
    pub fn set_stalled(&self, since: Option<Instant>) {
        self.lock().stalled = since;
    }

    /// Returns the time since which the client takes nothing, unless the response ends already.
    pub fn stalled(&self) -> Option<Instant> {
        let state = self.lock();
        state.stalled.filter(|_| state.end.is_none())
    }

    /// Makes the response end. The first reason stays.
    pub fn end(&self, end: EndReason) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }

    /// Returns the reason why the response has to end.
    pub fn ended(&self) -> Option<EndReason> {
        self.lock().end
    }

    /// Waits for the reason why the response has to end.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<EndReason> {
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
    /// Makes the flow of a response that no stream carries: its reader takes it.
    fn default() -> Self {
        Flow::new(true)
    }
}

// === impl EndReason ===

impl EndReason {
    /// Returns it as an error.
    pub fn error(self) -> Error {
        match self {
            EndReason::Deadline => Error::DeadlineExceeded,
            EndReason::Unavailable => Error::ServerUnavailable { retry_after: RETRY_AFTER },
            EndReason::Unauthenticated => {
                Error::Unauthenticated { message: "the client certificate is no longer valid".into() }
            }
            EndReason::Crowded => Error::RateLimited { retry_after: RETRY_AFTER },
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
        flow.end(EndReason::Crowded);
        flow.end(EndReason::Unavailable);
        assert_eq!((flow.ended(), flow.stalled()), (Some(EndReason::Crowded), None));
    }
}
