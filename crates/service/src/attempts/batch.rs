//! Batches of attempts. Those that wait while one batch is written are written together, in one transaction: the more attempts there
//! are, the less each costs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::attempts::{AttemptCount, AttemptEnd, AttemptLimit, AttemptLimits};
use jackfield_domain::{Error, Result, Timestamp};
use jackfield_store::AttemptKey;
use tokio::sync::oneshot;

use super::Counted;
use crate::change::{Change, Length};
use crate::services::Services;

/// The requests that wait, in their order.
#[derive(Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// True if a task serves the queue.
    served: bool,
}

pub(super) enum Request {
    /// Counts an attempt, or refuses it.
    Begin { keys: Vec<(AttemptLimit, AttemptKey)>, answer: oneshot::Sender<Result<Counted>> },
    /// Notes the end of an attempt that was counted.
    End { counted: Counted, end: AttemptEnd },
}

/// Marks the queue as not served if the task that serves it panics, so that another task can serve it.
struct Serving<'a> {
    queue: &'a Queue,
    done: bool,
}

/// The most requests in a batch. Each has up to three rows.
const MAX_BATCH: usize = 64;
/// The wait before a log-in is tried again whose count may or may not be written.
const RETRY_AFTER: Duration = Duration::from_millis(500);

// === impl Services ===

impl Services {
    pub(super) fn attempts_enqueue(&self, request: Request) {
        let mut waiting = self.shared.attempts.queue.lock();
        waiting.requests.push_back(request);
        if !waiting.served {
            waiting.served = true;
            let services = self.clone();
            self.shared.tasks.spawn(async move { services.attempts_serve().await });
        }
    }

    /// Writes batches until no request waits.
    async fn attempts_serve(&self) {
        let queue = &self.shared.attempts.queue;
        let mut serving = Serving { queue, done: false };
        while let Some(batch) = queue.next() {
            self.attempts_write(batch).await;
        }
        serving.done = true;
    }

    async fn attempts_write(&self, batch: Vec<Request>) {
        let mut keys: Vec<AttemptKey> = batch.iter().flat_map(Request::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut verdicts = Vec::with_capacity(batch.len());
        let written = self.change(Change::by_system(Length::Volatile), async |txn| {
            let before = txn.login_attempts_lock(&keys).await?;
            let (now, mut counts) = (self.now(), before.clone());
            verdicts.extend(batch.iter().map(|request| request.apply(&self.shared.attempts.limits, &mut counts, now)));
            counts.retain(|key, count| before.get(key) != Some(count));
            txn.login_attempts_put(&counts).await
        });
        let failed = written.await.err();
        if let Some(error) = &failed {
            tracing::warn!(error = error as &dyn std::error::Error, "log-in attempts could not be counted");
        }
        let verdicts = verdicts.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (request, verdict) in batch.into_iter().zip(verdicts) {
            let Request::Begin { answer, .. } = request else { continue };
            let _ = answer.send(match (&failed, verdict.flatten()) {
                (Some(error), _) => Err(same(error)),
                (None, Some(verdict)) => self.verdict_counted(verdict),
                (None, None) => Err(Error::internal("an attempt without a verdict")),
            });
        }
    }

    /// The verdict about an attempt. Refusals are counted for metrics.
    fn verdict_counted(&self, verdict: Result<Counted, (AttemptLimit, Duration)>) -> Result<Counted> {
        verdict.map_err(|(limit, retry_after)| {
            self.shared.gauge_sources.attempt_refused(limit);
            Error::LoginAttemptsExceeded { limit, retry_after }
        })
    }
}

// === impl Request ===

impl Request {
    fn is_wanted(&self) -> bool {
        match self {
            Request::Begin { answer, .. } => !answer.is_closed(),
            Request::End { .. } => true,
        }
    }

    fn keys(&self) -> Vec<AttemptKey> {
        match self {
            Request::Begin { keys, .. } => keys.iter().map(|(_, key)| *key).collect(),
            Request::End { counted, .. } => counted.0.iter().map(|(_, key, _)| *key).collect(),
        }
    }

    /// Changes the counts, and returns the verdict about an attempt that begins.
    fn apply(
        &self,
        limits: &AttemptLimits,
        counts: &mut BTreeMap<AttemptKey, AttemptCount>,
        now: Timestamp,
    ) -> Option<Result<Counted, (AttemptLimit, Duration)>> {
        match self {
            Request::Begin { keys, .. } => Some(begin(limits, counts, keys, now)),
            Request::End { counted, end } => {
                for (limit, key, window) in &counted.0 {
                    counts.entry(*key).or_default().end(*limit, *window, *end, now);
                }
                None
            }
        }
    }
}

/// Counts an attempt by all its keys, or by none of them if one is over its limit.
fn begin(
    limits: &AttemptLimits,
    counts: &mut BTreeMap<AttemptKey, AttemptCount>,
    keys: &[(AttemptLimit, AttemptKey)],
    now: Timestamp,
) -> Result<Counted, (AttemptLimit, Duration)> {
    let count = |key: &AttemptKey| counts.get(key).copied().unwrap_or_default().at(now);
    let over =
        keys.iter().filter_map(|(limit, key)| Some((count(key).next_time(*limit, limits.of(*limit), now)?, *limit)));
    if let Some((next, limit)) = over.max_by_key(|(next, _)| *next) {
        let wait = u64::try_from(next.0.saturating_sub(now.0)).unwrap_or_default();
        return Err((limit, Duration::from_micros(wait)));
    }
    let counted = keys.iter().map(|(limit, key)| {
        let mut count = count(key);
        count.begin(limits.of(*limit), now);
        (*limit, *key, count)
    });
    let counted: Vec<_> = counted.collect();
    counts.extend(counted.iter().map(|(_, key, count)| (*key, *count)));
    Ok(Counted(counted.into_iter().map(|(limit, key, count)| (limit, key, count.expire_time)).collect()))
}

/// The error of one of the attempts that failed together. Nothing is known to be counted, and nothing was checked.
fn same(error: &Error) -> Error {
    let retry_after = match error {
        Error::StoreUnavailable { retry_after, .. } => *retry_after,
        Error::OutcomeUnknown { .. } => RETRY_AFTER,
        _ => return Error::internal(error.to_string()),
    };
    Error::StoreUnavailable { retry_after, source: error.to_string().into() }
}

// === impl Queue ===

impl Queue {
    /// The next batch, or the end. The attempts of callers that have left are not made.
    fn next(&self) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        let mut batch = Vec::new();
        while batch.len() < MAX_BATCH
            && let Some(request) = waiting.requests.pop_front()
        {
            if request.is_wanted() {
                batch.push(request);
            }
        }
        waiting.served = !batch.is_empty();
        waiting.served.then_some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Serving ===

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut waiting = self.queue.lock();
            waiting.requests.clear();
            waiting.served = false;
        }
    }
}
