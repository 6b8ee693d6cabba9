//! The queue of attempts that begin, and of those that ended.
//!
//! Attempts that begin are counted first, because somebody waits for them. The end of an attempt is written before an attempt that has a
//! count in common with it is counted, or with other ends after a short time.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::attempts::{AttemptEnd, AttemptLimit};
use jackfield_domain::{Result, TenantId};
use jackfield_store::AttemptKey;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Counted;

/// The queue of a replica.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when an attempt is to be counted.
    begins: Notify,
}

#[derive(Default)]
struct Waiting {
    begins: VecDeque<Request>,
    ends: VecDeque<Request>,
    /// The time at which the first of the ends came.
    ends_since: Option<Instant>,
    /// True if a task serves the queue.
    served: bool,
}

/// A request to write counts.
pub(super) enum Request {
    /// Counts an attempt, or refuses it.
    Begin { keys: Vec<(AttemptLimit, AttemptKey)>, answer: oneshot::Sender<Result<Counted>> },
    /// Notes the end of an attempt that was counted.
    End { counted: Counted, end: AttemptEnd, is_retry: bool },
}

/// Marks the queue as not served if the task that serves it panics, so that another task can serve it.
pub(super) struct Serving<'a> {
    queue: &'a Queue,
    done: bool,
}

/// The most requests of each kind in a batch. Each has up to three rows.
const MAX_BATCH: usize = 64;
/// The time for which ends of attempts wait for others.
const END_PATIENCE: Duration = Duration::from_millis(20);

// === impl Queue ===

impl Queue {
    /// Adds a request. Returns true if the caller has to serve the queue, because no task does.
    pub(super) fn push(&self, request: Request) -> bool {
        let mut waiting = self.lock();
        match request {
            Request::Begin { .. } => {
                waiting.begins.push_back(request);
                self.begins.notify_waiters();
            }
            Request::End { .. } if request.keys().next().is_none() => return false,
            Request::End { .. } => {
                waiting.ends_since.get_or_insert_with(Instant::now);
                waiting.ends.push_back(request);
            }
        }
        !std::mem::replace(&mut waiting.served, true)
    }

    /// A guard for the task that serves the queue. If the task ends without [`Serving::end`], requests are dropped, and another task
    /// can serve the queue.
    pub(super) fn serving(&self) -> Serving<'_> {
        Serving { queue: self, done: false }
    }

    /// The next requests that are to be written together, ends of attempts first. `None` if nothing waits. The attempts of callers that
    /// have left are not made.
    pub(super) async fn next(&self) -> Option<Vec<Request>> {
        let begins = self.begins.notified();
        // An attempt waits for those alone that are ready to begin with it.
        tokio::task::yield_now().await;
        let patience = self.lock().patience();
        if let Some(until) = patience
            && timeout_at(until, begins).await.is_ok()
        {
            tokio::task::yield_now().await;
        }
        let mut waiting = self.lock();
        let batch = waiting.next();
        waiting.served = !batch.is_empty();
        waiting.served.then_some(batch)
    }

    /// The ends of attempts that have waited for long enough.
    pub(super) fn overdue(&self) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        let is_due = waiting.ends_due().is_some_and(|due| due <= Instant::now());
        is_due.then(|| waiting.take_ends())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    /// The time until which ends of attempts wait, if there is nothing but such.
    fn patience(&self) -> Option<Instant> {
        self.ends_due().filter(|_| self.begins.is_empty())
    }

    /// The time at which ends are to be written, if there are any.
    fn ends_due(&self) -> Option<Instant> {
        let since = self.ends_since?;
        Some(if self.ends.len() < MAX_BATCH { since + END_PATIENCE } else { since })
    }

    fn next(&mut self) -> Vec<Request> {
        self.begins.retain(Request::is_wanted);
        if self.begins.is_empty() {
            return self.take_ends();
        }
        let mut requests = if self.have_common() { self.take_ends() } else { Vec::new() };
        // If very many ends wait, some stay in the queue. They may have counts in common with these attempts, so the attempts wait.
        if requests.is_empty() || self.ends.is_empty() {
            requests.extend(self.begins.drain(..self.begins.len().min(MAX_BATCH)));
        }
        requests
    }

    /// Returns whether attempts that end have a count in common with the next that begin.
    fn have_common(&self) -> bool {
        let ended: HashSet<_> = self.ends.iter().flat_map(Request::keys).collect();
        self.begins.iter().take(MAX_BATCH).flat_map(Request::keys).any(|key| ended.contains(&key))
    }

    fn take_ends(&mut self) -> Vec<Request> {
        let ends = self.ends.drain(..self.ends.len().min(MAX_BATCH)).collect();
        if self.ends.is_empty() {
            self.ends_since = None;
        }
        ends
    }
}

// === impl Request ===

impl Request {
    /// The end of an attempt, with only those counts that it changes.
    pub(super) fn end(Counted(mut counted): Counted, end: AttemptEnd) -> Self {
        counted.retain(|(limit, ..)| end.changes(*limit));
        Request::End { counted: Counted(counted), end, is_retry: false }
    }

    /// The counts of an attempt that begins.
    pub(super) fn begins(&self) -> Option<&[(AttemptLimit, AttemptKey)]> {
        match self {
            Request::Begin { keys, .. } => Some(keys),
            Request::End { .. } => None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Request::Begin { answer, .. } => !answer.is_closed(),
            Request::End { .. } => true,
        }
    }

    /// The tenant, which all keys of a request have in common.
    pub(super) fn tenant(&self) -> Option<TenantId> {
        self.keys().next().map(|(tenant, _)| tenant)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = AttemptKey> {
        let (begun, ended) = match self {
            Request::Begin { keys, .. } => (keys.as_slice(), [].as_slice()),
            Request::End { counted, .. } => ([].as_slice(), counted.0.as_slice()),
        };
        begun.iter().map(|(_, key)| *key).chain(ended.iter().map(|(_, key, _)| *key))
    }
}

// === impl Serving ===

impl Serving<'_> {
    /// Ends the service of an empty queue.
    pub(super) fn end(mut self) {
        self.done = true;
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut waiting = self.queue.lock();
            *waiting = Waiting::default();
        }
    }
}
