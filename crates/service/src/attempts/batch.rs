//! Batches of attempts. Those that wait while one batch is written are written together, by one statement or in one transaction: the
//! more attempts there are, the less each costs.

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_domain::attempts::{AttemptCount, AttemptEnd, AttemptLimit, AttemptLimits};
use jackfield_domain::{Error, Result, Timestamp};
use jackfield_store::{AttemptKey, is_locked};
use tokio::time::timeout;

use super::queue::{Request, Serves};
use super::{Attempts, Counted};
use crate::change::{Change, Length};
use crate::services::Services;

/// The verdict about an attempt: it is counted, or there are too many, with the limit and the time of the next one.
type Verdict = Result<Counted, (AttemptLimit, Timestamp)>;

/// The requests of a batch that could not be written, and why.
type Unwritten = (Error, Vec<Request>);

/// The time for which a batch waits for a row that another replica has locked. A replica that works has it for some milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// The wait before a log-in is tried again whose count may or may not be written.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The longest time that writing takes. A database that says nothing must not keep all later attempts waiting. The database itself ends
/// a statement earlier.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Services ===

impl Services {
    pub(super) fn attempts_enqueue(&self, request: Request) {
        if self.shared.attempts.queue.push(request) {
            let services = self.clone();
            self.shared.tasks.spawn(async move { services.attempts_serve().await });
        }
    }

    /// Writes batches until no request waits.
    async fn attempts_serve(&self) {
        let queue = &self.shared.attempts.queue;
        let serving = queue.serving(Serves::Queue);
        while let Some(batch) = queue.next().await {
            self.attempts_write(batch).await;
            if let Some(ends) = queue.overdue() {
                self.attempts_write(ends).await;
            }
        }
        serving.end();
    }

    /// Writes a batch and answers its requests. If a row stays locked, its requests are written apart, so that all others, and those that
    /// come after them, do not wait for it.
    async fn attempts_write(&self, batch: Vec<Request>) {
        match self.attempts_apply(batch, LOCK_PATIENCE).await {
            Ok(()) => {}
            Err((error, unwritten)) if is_locked(&error) => self.attempts_set_apart(unwritten),
            Err((error, unwritten)) => self.attempts_fail(&error, unwritten),
        }
    }

    /// Writes requests and answers them: by one statement if there are only attempts that begin and are probably not too many, and in a
    /// transaction if not. It waits for a row that is locked for at most `patience`.
    pub(super) async fn attempts_apply(&self, mut batch: Vec<Request>, patience: Duration) -> Result<(), Unwritten> {
        let now = self.now();
        if self.shared.attempts.can_add(&batch, now) {
            let added = in_time(self.attempts_add(&batch, now, patience)).await;
            batch = match added {
                Ok((verdicts, counts)) => self.attempts_answer_added(batch, verdicts, &counts),
                Err(error) => return Err((error, batch)),
            };
            if batch.is_empty() {
                return Ok(());
            }
        }
        match in_time(self.attempts_change(&batch, patience)).await {
            Ok(verdicts) => {
                for (request, verdict) in batch.into_iter().filter(|request| request.begins().is_some()).zip(verdicts) {
                    self.attempts_answer(request, verdict);
                }
                Ok(())
            }
            Err(error) => Err((error, batch)),
        }
    }

    /// Counts attempts by one statement, and then looks for those that are too many. There are seldom any. Returns the counts, too.
    async fn attempts_add(
        &self,
        batch: &[Request],
        now: Timestamp,
        patience: Duration,
    ) -> Result<(Vec<Verdict>, BTreeMap<AttemptKey, AttemptCount>)> {
        let limits = &self.shared.attempts.limits;
        let mut added: BTreeMap<AttemptKey, AttemptCount> = BTreeMap::new();
        for (limit, key) in batch.iter().filter_map(Request::begins).flatten() {
            added.entry(*key).or_default().begin(limits.of(*limit), now);
        }
        let counts = self.shared.store.login_attempts_add(&added, now, patience).await?;
        self.shared.attempts.note(batch, &counts);
        let mut before = counts.clone();
        for (key, count) in &mut before {
            count.attempts = count.attempts.saturating_sub(added.get(key).map_or(0, |added| added.attempts));
        }
        let verdicts = batch.iter().filter_map(|request| request.apply(limits, &mut before, now));
        Ok((verdicts.collect(), counts))
    }

    /// Answers attempts that were added to counts. Returns requests that take back those that are too many, and have a transaction decide
    /// about them again: others may have been counted at that moment that are taken back, too.
    fn attempts_answer_added(
        &self,
        batch: Vec<Request>,
        verdicts: Vec<Verdict>,
        counts: &BTreeMap<AttemptKey, AttemptCount>,
    ) -> Vec<Request> {
        let window = |key: &AttemptKey| counts.get(key).map_or(0, |count| count.expire_time);
        let (mut ends, mut refused) = (Vec::new(), Vec::new());
        for (request, verdict) in batch.into_iter().zip(verdicts) {
            if verdict.is_ok() {
                self.attempts_answer(request, verdict);
                continue;
            }
            let keys = request.begins().unwrap_or_default().iter();
            let counted = Counted(keys.map(|(limit, key)| (*limit, *key, window(key))).collect());
            ends.push(Request::end(counted, AttemptEnd::Unchecked));
            refused.push(request.added());
        }
        ends.append(&mut refused);
        ends
    }

    /// Writes requests in one transaction, in their order.
    async fn attempts_change(&self, batch: &[Request], patience: Duration) -> Result<Vec<Verdict>> {
        let mut keys: Vec<AttemptKey> = batch.iter().flat_map(Request::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        let (mut verdicts, mut after) = (Vec::with_capacity(batch.len()), BTreeMap::new());
        let written = self.change(Change::by_system(Length::Volatile), async |txn| {
            let before = txn.login_attempts_lock(&keys, patience).await?;
            let (now, mut counts) = (self.now(), before.clone());
            let limits = &self.shared.attempts.limits;
            verdicts.extend(batch.iter().filter_map(|request| request.apply(limits, &mut counts, now)));
            after = counts.clone();
            counts.retain(|key, count| before.get(key) != Some(count));
            txn.login_attempts_put(&counts).await
        });
        written.await?;
        self.shared.attempts.note(batch, &after);
        Ok(verdicts)
    }

    /// Answers an attempt that begins. Refusals are counted for metrics.
    fn attempts_answer(&self, request: Request, verdict: Verdict) {
        let Request::Begin { answer, .. } = request else { return };
        let answered = verdict.map_err(|(limit, next)| {
            self.shared.gauge_sources.attempt_refused(limit);
            let wait = u64::try_from(next.0.saturating_sub(self.now().0)).unwrap_or_default();
            Error::LoginAttemptsExceeded { limit, retry_after: Duration::from_micros(wait) }
        });
        let _ = answer.send(answered);
    }

    /// Answers requests that could not be written. Ends of attempts are tried once more.
    pub(super) fn attempts_fail(&self, error: &Error, unwritten: Vec<Request>) {
        let mut lost = 0;
        for request in unwritten {
            match request {
                Request::Begin { answer, was_added, .. } => drop(answer.send(Err(same(error, was_added)))),
                Request::End { is_retry: false, .. } if matches!(error, Error::StoreUnavailable { .. }) => {
                    self.attempts_enqueue(request.again());
                }
                Request::End { .. } => lost += 1,
            }
        }
        tracing::warn!(
            error = error as &dyn std::error::Error,
            ends.lost = lost,
            "log-in attempts could not be counted, or their ends not noted",
        );
    }
}

// === impl Attempts ===

impl Attempts {
    /// Returns whether requests can be added to their counts before it is known if they are too many. While they are, attempts at other
    /// replicas may be refused because of them, so this is for attempts alone that stay below half of each limit, as far as is known here.
    fn can_add(&self, batch: &[Request], now: Timestamp) -> bool {
        let Some(begins) = batch.iter().map(Request::begins).collect::<Option<Vec<_>>>() else { return false };
        let mut added: BTreeMap<AttemptKey, u32> = BTreeMap::new();
        begins.into_iter().flatten().all(|(limit, key)| {
            let count = added.entry(*key).or_default();
            *count += 1;
            *count <= self.limits.of(*limit).max / 2 && self.busy.get(key).is_none_or(|until| until <= now)
        })
    }

    /// Remembers counts that have reached half of their limit.
    fn note(&self, batch: &[Request], counts: &BTreeMap<AttemptKey, AttemptCount>) {
        for (limit, key) in batch.iter().filter_map(Request::begins).flatten() {
            if let Some(count) = counts.get(key).filter(|count| count.attempts >= self.limits.of(*limit).max / 2) {
                self.busy.insert(*key, Timestamp(count.expire_time));
            }
        }
    }
}

// === impl Request ===

impl Request {
    /// Changes the counts, and returns the verdict about an attempt that begins.
    fn apply(
        &self,
        limits: &AttemptLimits,
        counts: &mut BTreeMap<AttemptKey, AttemptCount>,
        now: Timestamp,
    ) -> Option<Verdict> {
        match self {
            Request::Begin { keys, .. } => Some(begin(limits, counts, keys, now)),
            Request::End { counted, end, .. } => {
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
        return Err((limit, next));
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

/// Limits the time of a write. What is then written is not known.
async fn in_time<T>(write: impl Future<Output = Result<T>>) -> Result<T> {
    let written = timeout(WRITE_TIMEOUT, write).await;
    written.unwrap_or_else(|_| Err(Error::outcome_unknown(false, "the database does not answer")))
}

/// The error of one of the attempts that failed together. Nothing was checked. An attempt that was added to counts may still be counted:
/// what takes it back was not written either.
fn same(error: &Error, was_added: bool) -> Error {
    let source = error.to_string().into();
    match error {
        Error::StoreUnavailable { retry_after, .. } if !was_added => {
            Error::StoreUnavailable { retry_after: *retry_after, source }
        }
        Error::StoreUnavailable { retry_after, .. } => Error::AttemptUnanswered { retry_after: *retry_after, source },
        Error::OutcomeUnknown { .. } => Error::AttemptUnanswered { retry_after: RETRY_AFTER, source },
        _ => Error::internal(error.to_string()),
    }
}
