//! Batches of attempts. Those that wait while one batch is written are written together, by one statement or in one transaction: the
//! more attempts there are, the less each costs.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jackfield_domain::attempts::{AttemptCount, AttemptEnd, AttemptLimit, AttemptLimits};
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_store::AttemptKey;
use tokio::sync::oneshot;

use super::queue::Request;
use super::{Attempts, Counted};
use crate::change::{Change, Length};
use crate::services::Services;

/// The verdict about an attempt: it is counted, or there are too many, with the limit and the time until the next one.
type Verdict = Result<Counted, (AttemptLimit, Duration)>;

/// The tenants whose requests are tried again at once. Each takes a connection.
const RETRIES_AT_ONCE: usize = 4;
/// The wait before a log-in is tried again whose count may or may not be written.
const RETRY_AFTER: Duration = Duration::from_millis(500);

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
        let serving = queue.serving();
        while let Some(batch) = queue.next().await {
            self.attempts_write(batch).await;
            if let Some(ends) = queue.overdue() {
                self.attempts_write(ends).await;
            }
        }
        serving.end();
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

    /// Writes requests, and returns the verdicts about the attempts that begin, in their order.
    async fn attempts_apply(&self, batch: &[Request]) -> Result<Vec<Verdict>> {
        let now = self.now();
        let is_over = |key: &AttemptKey| self.shared.attempts.over.get(key).is_some_and(|until| until > now);
        let begins: Option<Vec<_>> = batch.iter().map(Request::begins).collect();
        match begins.filter(|begins| !begins.iter().copied().flatten().any(|(_, key)| is_over(key))) {
            Some(begins) => self.attempts_add(&begins, now).await,
            None => self.attempts_change(batch).await,
        }
    }

    /// Counts attempts by one statement, and looks only then if there are too many: most are within their limits. Those that are not are
    /// taken back, so that they are not counted when they are refused.
    async fn attempts_add(&self, begins: &[&[(AttemptLimit, AttemptKey)]], now: Timestamp) -> Result<Vec<Verdict>> {
        let Attempts { limits, over, .. } = &self.shared.attempts;
        let mut added: BTreeMap<AttemptKey, AttemptCount> = BTreeMap::new();
        for (limit, key) in begins.iter().copied().flatten() {
            added.entry(*key).or_default().begin(limits.of(*limit), now);
        }
        let counted = self.shared.store.login_attempts_add(&added, now).await?;
        let mut counts = counted.clone();
        for (key, count) in &mut counts {
            count.attempts = count.attempts.saturating_sub(added.get(key).map_or(0, |added| added.attempts));
        }
        let verdicts: Vec<_> = begins.iter().map(|keys| begin(limits, &mut counts, keys, now)).collect();
        let mut refused = Vec::new();
        for (keys, verdict) in begins.iter().zip(&verdicts) {
            let Err((limit, wait)) = verdict else { continue };
            let until = now.plus_micros(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
            keys.iter().filter(|(of, _)| of == limit).for_each(|(_, key)| over.insert(*key, until));
            let window = |key| counted.get(key).map_or(0, |count| count.expire_time);
            let taken_back = keys.iter().map(|(limit, key)| (*limit, *key, window(key))).collect();
            refused.push(Request::end(Counted(taken_back), AttemptEnd::Unchecked));
        }
        if !refused.is_empty()
            && let Err(error) = self.attempts_change(&refused).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "refused log-in attempts stay counted");
        }
        Ok(verdicts)
    }

    /// Writes requests in one transaction, in their order.
    async fn attempts_change(&self, batch: &[Request]) -> Result<Vec<Verdict>> {
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
