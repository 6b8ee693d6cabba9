//! Batches of attempts. Those that wait while one batch is written are written together, in one transaction: the more attempts there
//! are, the less each costs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jackfield_domain::attempts::{AttemptCount, AttemptEnd, AttemptLimit, AttemptLimits};
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_store::AttemptKey;
use tokio::sync::{Notify, oneshot};

use super::Counted;
use crate::change::{Change, Length};
use crate::services::Services;

/// The requests that wait, in their order.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when an attempt is to be counted.
    begins: Notify,
}

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

/// The verdict about an attempt: it is counted, or there are too many, with the limit and the time until the next one.
type Verdict = Result<Counted, (AttemptLimit, Duration)>;

/// Marks the queue as not served if the task that serves it panics, so that another task can serve it.
struct Serving<'a> {
    queue: &'a Queue,
    done: bool,
}

/// The most requests in a batch. Each has up to three rows.
const MAX_BATCH: usize = 64;
/// The time for which ends of attempts wait for an attempt that begins, so that they are written with it.
const END_PATIENCE: Duration = Duration::from_millis(20);
/// The tenants whose requests are tried again at once. Each takes a connection.
const RETRIES_AT_ONCE: usize = 4;
/// The wait before a log-in is tried again whose count may or may not be written.
const RETRY_AFTER: Duration = Duration::from_millis(500);

// === impl Services ===

impl Services {
    pub(super) fn attempts_enqueue(&self, request: Request) {
        let queue = &self.shared.attempts.queue;
        let (mut waiting, is_end) = (queue.lock(), request.is_end());
        waiting.requests.push_back(request);
        if !is_end {
            queue.begins.notify_waiters();
        }
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
        loop {
            queue.gather().await;
            let Some(batch) = queue.next() else { break };
            self.attempts_write(batch).await;
        }
        serving.done = true;
    }

    /// Writes a batch and answers its requests. If it cannot be written, each tenant's requests are tried on their own: a row that
    /// stays locked delays other tenants, but fails nothing of theirs.
    async fn attempts_write(&self, mut batch: Vec<Request>) {
        match self.attempts_apply(&batch).await {
            Err(Error::StoreUnavailable { .. })
                if batch.iter().any(|request| request.tenant() != batch[0].tenant()) =>
            {
                batch.retain(Request::is_wanted);
                let retry = async |batch: Vec<Request>| {
                    let written = self.attempts_apply(&batch).await;
                    self.attempts_answer(batch, written);
                };
                stream::iter(by_tenant(batch)).for_each_concurrent(RETRIES_AT_ONCE, retry).await;
            }
            written => self.attempts_answer(batch, written),
        }
    }

    fn attempts_answer(&self, batch: Vec<Request>, written: Result<Vec<Verdict>>) {
        match written {
            Ok(verdicts) => {
                for (answer, verdict) in answers(batch).zip(verdicts) {
                    let _ = answer.send(self.verdict_counted(verdict));
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "log-in attempts could not be counted");
                for answer in answers(batch) {
                    let _ = answer.send(Err(same(&error)));
                }
            }
        }
    }

    /// Writes requests in one transaction, and returns the verdicts about the attempts that begin, in their order.
    async fn attempts_apply(&self, batch: &[Request]) -> Result<Vec<Verdict>> {
        let mut keys: Vec<AttemptKey> = batch.iter().flat_map(Request::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut verdicts = Vec::with_capacity(batch.len());
        let written = self.change(Change::by_system(Length::Volatile), async |txn| {
            let before = txn.login_attempts_lock(&keys).await?;
            let (now, mut counts) = (self.now(), before.clone());
            let limits = &self.shared.attempts.limits;
            verdicts.extend(batch.iter().filter_map(|request| request.apply(limits, &mut counts, now)));
            counts.retain(|key, count| before.get(key) != Some(count));
            txn.login_attempts_put(&counts).await
        });
        written.await.map(|()| verdicts)
    }

    /// The verdict about an attempt. Refusals are counted for metrics.
    fn verdict_counted(&self, verdict: Verdict) -> Result<Counted> {
        verdict.map_err(|(limit, retry_after)| {
            self.shared.gauge_sources.attempt_refused(limit);
            Error::LoginAttemptsExceeded { limit, retry_after }
        })
    }
}

// === impl Waiting ===

impl Waiting {
    /// Returns true if all that waits are ends of attempts, and fewer than one batch.
    fn has_ends_only(&self) -> bool {
        (1..MAX_BATCH).contains(&self.requests.len()) && self.requests.iter().all(Request::is_end)
    }
}

// === impl Request ===

impl Request {
    fn is_end(&self) -> bool {
        matches!(self, Request::End { .. })
    }

    fn is_wanted(&self) -> bool {
        match self {
            Request::Begin { answer, .. } => !answer.is_closed(),
            Request::End { .. } => true,
        }
    }

    /// The tenant, which all keys of a request have in common.
    fn tenant(&self) -> Option<TenantId> {
        self.keys().first().map(|(tenant, _)| *tenant)
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
    ) -> Option<Verdict> {
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
) -> Verdict {
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

/// The requests of each tenant.
fn by_tenant(batch: Vec<Request>) -> Vec<Vec<Request>> {
    let mut tenants: BTreeMap<Option<TenantId>, Vec<Request>> = BTreeMap::new();
    for request in batch {
        tenants.entry(request.tenant()).or_default().push(request);
    }
    tenants.into_values().collect()
}

/// The receivers of the verdicts.
fn answers(batch: Vec<Request>) -> impl Iterator<Item = oneshot::Sender<Result<Counted>>> {
    batch.into_iter().filter_map(|request| match request {
        Request::Begin { answer, .. } => Some(answer),
        Request::End { .. } => None,
    })
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
    /// Waits for requests that can be written together. An attempt waits for those alone that are ready to begin with it.
    async fn gather(&self) {
        let begins = self.begins.notified();
        tokio::task::yield_now().await;
        if self.lock().has_ends_only() && tokio::time::timeout(END_PATIENCE, begins).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

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
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
