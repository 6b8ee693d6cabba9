//! A call under way, as far as the circuit breaker has to know it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jackfield_domain::connector::Timeouts;
use tokio::time::Instant;

use super::breaker::Admission;
use super::deadline::Deadline;
use super::io::Traffic;
use crate::error::Fault;

/// A call that the breaker admitted. If its caller leaves before it ends, or cannot wait any longer, it is a failure of the system as soon
/// as the system was silent for a fair time. Otherwise callers with little patience would keep the breaker closed, whatever happens.
pub(super) struct Attempt<'a> {
    admission: Option<Admission<'a>>,
    timeouts: Timeouts,
    deadline: Deadline,
    sent: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// The event that a call waits for.
enum Waiting {
    /// A connection, since then.
    Connection(Instant),
    /// A response, over a connection with this traffic.
    Response(Arc<Traffic>),
}

/// The silence after which no caller was too impatient. Half of the timeout is enough, too.
const FAIR: Duration = Duration::from_secs(1);

// === impl Attempt ===

impl<'a> Attempt<'a> {
    pub(super) fn new(admission: Admission<'a>, timeouts: Timeouts, deadline: Deadline) -> Self {
        let waiting = Mutex::new(Waiting::Connection(Instant::now()));
        Attempt { admission: Some(admission), timeouts, deadline, sent: AtomicBool::new(false), waiting }
    }

    /// Notes that a connection is awaited.
    pub(super) fn connects(&self) {
        self.wait(Waiting::Connection(Instant::now()));
    }

    /// Notes that the request is handed over to a connection.
    ///
    /// # Errors
    /// The time of the call is over: this process stood still, or it would have been given up before. The request must not leave any more.
    pub(super) fn sends(&self, traffic: Arc<Traffic>) -> Result<(), Fault> {
        if self.deadline.at() <= Instant::now() {
            return Err(self.deadline.fault());
        }
        self.set_sent(true);
        self.wait(Waiting::Response(traffic));
        Ok(())
    }

    /// Says if bytes of the request may have left.
    pub(super) fn set_sent(&self, sent: bool) {
        self.sent.store(sent, Ordering::Relaxed);
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes the outcome.
    pub(super) fn settle(mut self, is_outage: bool) {
        if let Some(admission) = self.admission.take() {
            admission.settle(is_outage);
        }
    }

    /// Notes that the outcome says nothing about the next call.
    pub(super) fn dismiss(mut self) {
        self.admission = None;
    }

    fn wait(&self, waiting: Waiting) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    fn is_overdue(&self) -> bool {
        let (since, limit) = match &*self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Waiting::Connection(since) => (*since, self.timeouts.connect),
            Waiting::Response(traffic) => (traffic.last(), self.timeouts.read),
        };
        since.elapsed() >= FAIR.min(limit / 2)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take()
            && self.is_overdue()
        {
            admission.settle(true);
        }
    }
}
