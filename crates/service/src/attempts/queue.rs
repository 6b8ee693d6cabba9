//! The queue of attempts that begin, and of those that ended.
//!
//! Attempts that begin are counted first, because callers wait for them. The end of an attempt is written before an attempt that has a
//! count in common with it is counted, or with other ends after a short time.
//!
//! Requests whose rows may be locked wait apart from all others (see [`super::apart`]).

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::Result;
use jackfield_domain::attempts::{AttemptEnd, AttemptLimit};
use jackfield_store::AttemptKey;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Counted;
use super::apart::{Apart, Round};

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
    /// The counts that ends change which are being written.
    ending: HashSet<AttemptKey>,
    /// True if a task serves the queue.
    served: bool,
    apart: Apart,
}

/// A request to write counts, and the time at which it came.
pub(super) enum Request {
    /// Counts an attempt, or refuses it.
    Begin {
        since: Instant,
        keys: Vec<(AttemptLimit, AttemptKey)>,
        answer: oneshot::Sender<Result<Counted>>,
        /// True if it was added to counts, was one too many, and is to be decided about again.
        was_added: bool,
    },
    /// Notes the end of an attempt that was counted.
    End { since: Instant, counted: Counted, end: AttemptEnd, is_retry: bool },
}

/// Drops all requests if the task that serves them panics, and marks them as not served, so that another task can serve those to come.
pub(super) struct Serving<'a> {
    queue: &'a Queue,
    serves: Serves,
    done: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Serves {
    Queue,
    Apart,
}

/// The most requests of each kind in a batch. Each has up to three rows.
pub(super) const MAX_BATCH: usize = 64;
/// The time for which ends of attempts wait for others.
const END_PATIENCE: Duration = Duration::from_millis(20);

// === impl Queue ===

impl Queue {
    /// Adds a request. Returns true if the caller has to serve the queue, because no task does.
    pub(super) fn push(&self, request: Request) -> bool {
        let mut waiting = self.lock();
        if waiting.apart.shares(&request) {
            waiting.move_apart(vec![request]);
            return false;
        }
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

    /// A guard for the task that serves the queue, or the requests apart from it. If the task ends without [`Serving::end`], the requests
    /// are dropped, and another task can serve them.
    pub(super) fn serving(&self, serves: Serves) -> Serving<'_> {
        Serving { queue: self, serves, done: false }
    }

    /// The next requests that are to be written together, ends of attempts first. `None` if nothing waits. The attempts of callers that
    /// have left are not made.
    pub(super) async fn next(&self) -> Option<Vec<Request>> {
        self.lock().ending.clear();
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
        waiting.note_ending(&batch);
        waiting.served = !batch.is_empty();
        waiting.served.then_some(batch)
    }

    /// The ends of attempts that have waited for long enough.
    pub(super) fn overdue(&self) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        waiting.ending.clear();
        let is_due = waiting.ends_due().is_some_and(|due| due <= Instant::now());
        let ends = is_due.then(|| waiting.take_ends())?;
        waiting.note_ending(&ends);
        Some(ends)
    }

    /// Sets requests apart that could not be written because a row is locked, with those in the queue that have a count in common with
    /// them. Returns true if the caller has to serve them, because no task does.
    pub(super) fn set_apart(&self, locked: Vec<Request>) -> bool {
        let mut waiting = self.lock();
        waiting.ending.clear();
        waiting.apart.add_tried(locked);
        waiting.move_apart(Vec::new());
        !std::mem::replace(&mut waiting.apart.served, true)
    }

    /// The requests apart that are to be tried now.
    pub(super) fn take_apart(&self) -> Round {
        let waiting = &mut *self.lock();
        waiting.apart.take(&waiting.ending)
    }

    /// Keeps requests that were tried and whose rows are still locked. Returns false if no requests are apart any more.
    pub(super) fn keep_apart(&self, locked: Vec<Request>) -> bool {
        let mut waiting = self.lock();
        waiting.apart.keep(locked);
        waiting.apart.served
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
        self.note_no_ends();
        ends
    }

    fn note_no_ends(&mut self) {
        if self.ends.is_empty() {
            self.ends_since = None;
        }
    }

    fn note_ending(&mut self, batch: &[Request]) {
        self.ending = batch.iter().filter(|request| request.begins().is_none()).flat_map(Request::keys).collect();
    }

    /// Moves requests to those apart, and all in the queue that have a count in common with them. Ends that a moved attempt has to be
    /// counted after go with it, and attempts that have to be counted after a moved end.
    fn move_apart(&mut self, mut moved: Vec<Request>) {
        loop {
            let begun: HashSet<_> =
                moved.iter().filter(|request| request.begins().is_some()).flat_map(Request::keys).collect();
            moved.drain(..).for_each(|request| self.apart.add(request));
            let is_before = |end: &Request| end.keys().any(|key| begun.contains(&key));
            moved.extend(extract(&mut self.ends, |end| is_before(end) || self.apart.shares(end)));
            moved.extend(extract(&mut self.begins, |begin| self.apart.shares(begin)));
            if moved.is_empty() {
                break;
            }
        }
        self.note_no_ends();
    }
}

/// Takes those requests out of a queue that fit a condition.
fn extract(queue: &mut VecDeque<Request>, fits: impl Fn(&Request) -> bool) -> VecDeque<Request> {
    let (extracted, others) = queue.drain(..).partition(fits);
    *queue = others;
    extracted
}

// === impl Request ===

impl Request {
    pub(super) fn begin(keys: Vec<(AttemptLimit, AttemptKey)>, answer: oneshot::Sender<Result<Counted>>) -> Self {
        Request::Begin { since: Instant::now(), keys, answer, was_added: false }
    }

    /// The end of an attempt, with only those counts that it changes.
    pub(super) fn end(Counted(mut counted): Counted, end: AttemptEnd) -> Self {
        counted.retain(|(limit, ..)| end.changes(*limit));
        Request::End { since: Instant::now(), counted: Counted(counted), end, is_retry: false }
    }

    /// An attempt that was added to counts and is one too many.
    pub(super) fn added(self) -> Self {
        match self {
            Request::Begin { since, keys, answer, .. } => Request::Begin { since, keys, answer, was_added: true },
            Request::End { .. } => self,
        }
    }

    /// The end of an attempt that is tried once more.
    pub(super) fn again(self) -> Self {
        match self {
            Request::End { counted, end, .. } => Request::End { since: Instant::now(), counted, end, is_retry: true },
            Request::Begin { .. } => self,
        }
    }

    /// The parts that can be written one after the other. An attempt that begins is counted by all its keys or by none.
    pub(super) fn parts(self) -> Vec<Request> {
        match self {
            Request::Begin { .. } => vec![self],
            Request::End { since, counted: Counted(counted), end, is_retry } => {
                let part = |count| Request::End { since, counted: Counted(vec![count]), end, is_retry };
                counted.into_iter().map(part).collect()
            }
        }
    }

    pub(super) fn since(&self) -> Instant {
        match self {
            Request::Begin { since, .. } | Request::End { since, .. } => *since,
        }
    }

    /// The counts of an attempt that begins.
    pub(super) fn begins(&self) -> Option<&[(AttemptLimit, AttemptKey)]> {
        match self {
            Request::Begin { keys, .. } => Some(keys),
            Request::End { .. } => None,
        }
    }

    /// Returns whether this is an end that is tried once more.
    pub(super) fn is_retry(&self) -> bool {
        matches!(self, Request::End { is_retry: true, .. })
    }

    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Request::Begin { answer, .. } => !answer.is_closed(),
            Request::End { .. } => true,
        }
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
            match self.serves {
                Serves::Queue => *waiting = Waiting { apart: std::mem::take(&mut waiting.apart), ..Waiting::default() },
                Serves::Apart => waiting.apart = Apart::default(),
            }
        }
    }
}
