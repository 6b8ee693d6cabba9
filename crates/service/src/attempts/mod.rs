//! The limiter of log-in attempts. An attempt is counted in the database before anything is checked, so that no number of attempts
//! at once, through any number of replicas, exceeds a limit. Nothing here depends on whether there is such a user.

mod apart;
mod batch;
mod queue;

use std::net::IpAddr;

use jackfield_domain::attempts::{AttemptEnd, AttemptLimit, AttemptLimits, source_of};
use jackfield_domain::login::{LoginId, LoginOutcome};
use jackfield_domain::user::attempt_key;
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_store::AttemptKey;
use quick_cache::sync::Cache;
use tokio::sync::oneshot;
use tracing::Instrument as _;
use uuid::Uuid;

use self::queue::{Queue, Request};
use crate::login::Checked;
use crate::services::Services;

/// The limits, and the attempts that wait to be counted.
pub(crate) struct Attempts {
    limits: AttemptLimits,
    queue: Queue,
    /// Counts that have reached half of their limit, each with the end of its window.
    busy: Cache<AttemptKey, Timestamp>,
}

/// The facts by which an attempt is counted.
#[derive(Clone, Copy)]
pub(crate) struct CountedBy<'a> {
    pub(crate) tenant: TenantId,
    /// The connector that checks it, or the tenant if Jackfield does.
    pub(crate) checker: Uuid,
    pub(crate) login_id: &'a LoginId,
    /// The address of the end user, if it is known.
    pub(crate) address: Option<IpAddr>,
    /// False if the log-in was counted for its source before.
    pub(crate) counts_source: bool,
}

/// An attempt that was counted: each count, and the end of its window.
struct Counted(Vec<(AttemptLimit, AttemptKey, i64)>);

/// The most counts that are remembered as busy. With more of them, attempts may be counted and taken back for a moment.
const BUSY: usize = 10_000;

// === impl Attempts ===

impl Attempts {
    pub(crate) fn new(limits: AttemptLimits) -> Self {
        Attempts { limits, queue: Queue::default(), busy: Cache::new(BUSY) }
    }
}

// === impl Services ===

impl Services {
    /// Counts an attempt, has it checked, and notes how it ended. It stays counted if the caller leaves in the middle.
    ///
    /// # Errors
    /// There are too many attempts; nothing was checked.
    pub(crate) async fn counted<T>(&self, by: CountedBy<'_>, check: impl Future<Output = Result<T>>) -> Result<T>
    where
        for<'a> AttemptEnd: From<&'a T>,
    {
        let counted = self.attempt_begin(by).await?;
        let checked = check.await;
        let end = match &checked {
            Ok(checked) => Some(AttemptEnd::from(checked)),
            // Nothing was asked.
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Some(AttemptEnd::Unchecked),
            // The system may have answered, so the attempt stays counted.
            Err(_) => None,
        };
        if let Some(end) = end {
            // The next attempt through this replica that has a count in common is counted after it.
            self.attempts_enqueue(Request::end(counted, end));
        }
        checked
    }

    /// Counts an attempt whose outcome is not noted: it counts as one that neither failed nor succeeded.
    ///
    /// # Errors
    /// There are too many attempts.
    pub(crate) async fn attempt_count(&self, by: CountedBy<'_>) -> Result<()> {
        self.attempt_begin(by).await.map(|_| ())
    }

    async fn attempt_begin(&self, by: CountedBy<'_>) -> Result<Counted> {
        let keys = self.attempt_keys(by).await?;
        if keys.is_empty() {
            return Ok(Counted(Vec::new()));
        }
        let (answer, answered) = oneshot::channel();
        self.attempts_enqueue(Request::begin(keys, answer));
        let answered = answered.instrument(tracing::info_span!("count the attempt")).await;
        answered.unwrap_or_else(|_| Err(Error::internal("an attempt was not counted")))
    }

    /// The keys of the counts. They are keyed digests, so that the table does not tell who logs in from where.
    async fn attempt_keys(&self, by: CountedBy<'_>) -> Result<Vec<(AttemptLimit, AttemptKey)>> {
        let CountedBy { tenant, checker, login_id, address, counts_source } = by;
        let system = self.shared.data_keys.system().await?;
        let login_key = attempt_key(login_id.as_str());
        let source = address.map(source_of).map(octets);
        let (checker, login_key) = (checker.as_bytes().as_slice(), login_key.as_bytes());
        let limited = |limit: &AttemptLimit| self.shared.attempts.limits.of(*limit).max > 0;
        let keys = AttemptLimit::ALL.into_iter().filter(limited).filter_map(|limit| {
            let parts = match (limit, &source) {
                (AttemptLimit::UserAndSource, Some(source)) => vec![checker, login_key, source],
                (AttemptLimit::User, _) => vec![checker, login_key],
                (AttemptLimit::Source, Some(source)) if counts_source => vec![source.as_slice()],
                (AttemptLimit::UserAndSource | AttemptLimit::Source, _) => return None,
            };
            let parts: Vec<_> = [limit.as_str().as_bytes(), tenant.0.as_bytes()].into_iter().chain(parts).collect();
            Some((limit, (tenant, system.fingerprint("login attempt", &parts))))
        });
        Ok(keys.collect())
    }
}

// === impl AttemptEnd ===

impl From<&Checked> for AttemptEnd {
    fn from(checked: &Checked) -> Self {
        match checked.outcome {
            LoginOutcome::Accepted(_) => AttemptEnd::Succeeded,
            LoginOutcome::Rejected => AttemptEnd::Failed,
            // A system that answers neither yes nor no may still show by it which password is right.
            LoginOutcome::UpstreamFault if checked.was_asked => AttemptEnd::Failed,
            LoginOutcome::UpstreamFault => AttemptEnd::Unchecked,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
