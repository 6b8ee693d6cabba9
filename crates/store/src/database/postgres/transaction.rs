//! A transaction of PostgreSQL, and its outcome where the answer to COMMIT was lost.
//!
//! A connection that breaks while COMMIT is under way leaves the outcome open. The server knows it: a transaction has an id,
//! which is read as it begins, and any other session can ask how the transaction of that id ended. The answer is right unless
//! the id was assigned again, which can happen after a crash or a failover; then the outcome is reported as unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jackfield_domain::Result;
use sea_orm::{DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::lease::Lease;
use super::pool::Sessions;
use crate::database::{error, spans};

/// A transaction. Dropping it rolls back.
pub(crate) struct PostgresTransaction {
    sessions: Sessions,
    lease: Mutex<Lease>,
    /// A transaction that only reads has none.
    id: Option<TransactionId>,
    /// A statement has failed, and with it the whole transaction: COMMIT would roll back without an error.
    failed: AtomicBool,
}

/// The use of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
    /// Its commit does not wait for the disk.
    WriteVolatile,
}

/// The id by which the outcome of a transaction can be queried.
struct TransactionId {
    /// As text: it is a number of 64 bits without a sign.
    xid: String,
    /// The identity of the server that assigned it.
    identity: Option<Arc<str>>,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    /// Nothing was written.
    RolledBack,
    InProgress,
    Unknown,
}

/// The longest time that COMMIT may take. It waits for the disk, and for synchronous standbys.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for which the outcome is queried, and the time between two queries.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The code of "there is no transaction of this id yet".
const IN_THE_FUTURE: &str = "22023";

// === impl PostgresTransaction ===

impl PostgresTransaction {
    pub(crate) async fn begin(sessions: &Sessions, mode: Mode) -> Result<Self, DbErr> {
        let mut lease = sessions.acquire().await?;
        // If BEGIN fails or its caller is dropped, the transaction may have begun all the same.
        lease.set_in_transaction(true);
        // Every change needs an id; reading it here costs no round trip of its own.
        let begin = match mode {
            Mode::Read => "BEGIN READ ONLY",
            Mode::Write => "BEGIN; SELECT pg_current_xact_id()::text",
            Mode::WriteVolatile => "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_current_xact_id()::text",
        };
        let row = lease.query_unprepared(begin).await?;
        let id = match mode {
            Mode::Read => None,
            Mode::Write | Mode::WriteVolatile => {
                let row = row.ok_or_else(|| DbErr::Custom("a transaction has no id".to_owned()))?;
                Some(TransactionId { xid: row.try_get_by_index(0)?, identity: lease.identity() })
            }
        };
        let sessions = sessions.clone();
        Ok(PostgresTransaction { sessions, lease: Mutex::new(lease), id, failed: AtomicBool::new(false) })
    }

    /// Makes everything durable that was written. An error means that nothing was written, unless it is
    /// [`jackfield_domain::Error::OutcomeUnknown`].
    pub(crate) async fn commit(self) -> Result<()> {
        let PostgresTransaction { sessions, lease, id, failed } = self;
        let mut lease = lease.into_inner();
        if failed.into_inner() {
            return Err(error::gone("a statement of the transaction has failed"));
        }
        let committed = match timeout(COMMIT_TIMEOUT, lease.execute_unprepared("COMMIT")).await {
            Ok(committed) => committed,
            Err(_) => Err(DbErr::Conn(RuntimeErr::Internal(format!("COMMIT takes longer than {COMMIT_TIMEOUT:?}")))),
        };
        let lost = match committed {
            Ok(_) => {
                lease.set_in_transaction(false);
                return Ok(());
            }
            Err(refused) if error::is_refusal(&refused) => return Err(error::from_db(refused)),
            Err(lost) => lost,
        };
        let Some(id) = id else { return Err(error::from_db(lost)) };
        // The session is given back before another one is asked for: all sessions may be in this state at once.
        lease.set_unusable();
        drop(lease);
        let outcome = id.outcome(&sessions).await;
        tracing::warn!(error.message = %lost, outcome = outcome.as_str(), "the answer to COMMIT was lost");
        match outcome {
            Outcome::Committed => Ok(()),
            Outcome::RolledBack => Err(error::from_db(lost)),
            Outcome::InProgress | Outcome::Unknown => Err(error::outcome_unknown(lost)),
        }
    }

    pub(crate) async fn rollback(self) -> Result<()> {
        let mut lease = self.lease.into_inner();
        lease.execute_unprepared("ROLLBACK").await.map_err(error::from_db)?;
        lease.set_in_transaction(false);
        Ok(())
    }

    pub(crate) async fn execute(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
        self.noted(self.lease.lock().await.execute(statement).await)
    }

    pub(crate) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.noted(self.lease.lock().await.execute_unprepared(sql).await)
    }

    pub(crate) async fn query_one(&self, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
        self.noted(self.lease.lock().await.query_one(statement).await)
    }

    pub(crate) async fn query_all(&self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.noted(self.lease.lock().await.query_all(statement).await)
    }

    fn noted<T>(&self, done: Result<T, DbErr>) -> Result<T, DbErr> {
        if done.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }
}

// === impl TransactionId ===

impl TransactionId {
    /// The outcome of the transaction, as soon as it is known.
    async fn outcome(&self, sessions: &Sessions) -> Outcome {
        let until = Instant::now() + OUTCOME_TIMEOUT;
        loop {
            let outcome = match timeout_at(until, self.ask(sessions)).await {
                Ok(Ok(outcome)) => outcome,
                // The server refuses to say, and would refuse again. A connection that breaks is not a refusal.
                Ok(Err(error)) if spans::code(&error).is_some() && !error::is_unavailable(&error) => {
                    tracing::warn!(error.message = %error, "the outcome of a transaction cannot be queried");
                    Outcome::Unknown
                }
                // The database cannot be reached, but may be back in a moment.
                Ok(Err(_)) | Err(_) => Outcome::InProgress,
            };
            if outcome != Outcome::InProgress || Instant::now() >= until {
                return outcome;
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(&self, sessions: &Sessions) -> Result<Outcome, DbErr> {
        let mut lease = sessions.acquire().await?;
        let is_same = self.identity.is_some() && self.identity == lease.identity();
        // The id comes from the server.
        let status = format!("SELECT pg_xact_status('{}'::xid8)", self.xid);
        let status: Option<String> = match lease.query_unprepared(&status).await {
            Ok(row) => row.map(|row| row.try_get_by_index(0)).transpose()?.flatten(),
            Err(error) if spans::code(&error).as_deref() == Some(IN_THE_FUTURE) => return Ok(Outcome::RolledBack),
            Err(error) => return Err(error),
        };
        Ok(outcome(status.as_deref(), is_same))
    }
}

/// The outcome that a status means, from the server that assigned the id or from another one. Another server may have assigned
/// the id to another transaction. But if it reports that the transaction did not commit, ours did not commit either.
fn outcome(status: Option<&str>, is_same: bool) -> Outcome {
    match status {
        Some("committed") if is_same => Outcome::Committed,
        Some("in progress") if is_same => Outcome::InProgress,
        Some("aborted") => Outcome::RolledBack,
        _ => Outcome::Unknown,
    }
}

// === impl Outcome ===

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Committed => "committed",
            Outcome::RolledBack => "undone",
            Outcome::InProgress | Outcome::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_another_server_reports_is_unknown() {
        for (status, same, other) in [
            (Some("committed"), Outcome::Committed, Outcome::Unknown),
            (Some("aborted"), Outcome::RolledBack, Outcome::RolledBack),
            (Some("in progress"), Outcome::InProgress, Outcome::Unknown),
            (None, Outcome::Unknown, Outcome::Unknown),
        ] {
            assert_eq!((outcome(status, true), outcome(status, false)), (same, other), "{status:?}");
        }
    }
}
