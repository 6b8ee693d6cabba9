//! A transaction of PostgreSQL, and what became of it where the answer to COMMIT was lost.
//!
//! A connection that breaks while COMMIT is under way says nothing of the outcome. The server knows it: a transaction has a
//! number, which is asked for as it begins, and any other session can ask how the transaction of that number ended. The answer
//! holds as long as nothing gave the number away again, which a crash and a failover can do; then it is said that the outcome
//! is unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jackfield_domain::Result;
use sea_orm::{AccessMode, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error;
use crate::postgres_pool::{Lease, Sessions};
use crate::traced;

/// A transaction. Dropping it rolls back.
pub(crate) struct PostgresTransaction {
    lease: Mutex<Lease>,
    number: Option<Number>,
    /// A statement has failed, and with it all of the transaction: COMMIT would roll back, and not say so.
    failed: AtomicBool,
}

/// What a transaction that may write can be asked for by.
struct Number {
    /// As text: it is a number of 64 bits without a sign.
    xid: String,
    /// What the server was that gave it.
    identity: Option<Arc<str>>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    /// Nothing of it is there.
    Undone,
    InProgress,
    Unknown,
}

/// How long COMMIT may take. It waits for standbys that are to have what is written, and for the disk.
const COMMIT: Duration = Duration::from_secs(30);
/// How long the outcome is asked for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// There is no transaction of this number yet.
const IN_THE_FUTURE: &str = "22023";
/// The server itself does not know.
const COMPLETION_UNKNOWN: &str = "40003";

// === impl PostgresTransaction ===

impl PostgresTransaction {
    pub(crate) async fn begin(sessions: &Sessions, access: Option<AccessMode>) -> Result<Self, DbErr> {
        let mut lease = sessions.acquire().await?;
        // If it fails, or nobody waits for it any more, it may have begun all the same.
        lease.set_in_transaction(true);
        let number = if matches!(access, Some(AccessMode::ReadOnly)) {
            lease.query_unprepared("BEGIN READ ONLY").await?;
            None
        } else {
            // Everything that changes something needs a number; to ask for it here costs no round trip of its own.
            let row = lease.query_unprepared("BEGIN; SELECT pg_current_xact_id()::text").await?;
            let row = row.ok_or_else(|| DbErr::Custom("a transaction has no number".to_owned()))?;
            Some(Number { xid: row.try_get_by_index(0)?, identity: lease.identity() })
        };
        Ok(PostgresTransaction { lease: Mutex::new(lease), number, failed: AtomicBool::new(false) })
    }

    /// Makes everything durable that was written. An error says that nothing was written, unless it is
    /// [`jackfield_domain::Error::OutcomeUnknown`].
    pub(crate) async fn commit(self) -> Result<()> {
        let PostgresTransaction { lease, number, failed } = self;
        let mut lease = lease.into_inner();
        if failed.into_inner() {
            return Err(error::gone("a statement of the transaction has failed"));
        }
        let committed = match timeout(COMMIT, lease.execute_unprepared("COMMIT")).await {
            Ok(committed) => committed,
            Err(_) => Err(DbErr::Conn(RuntimeErr::Internal(format!("COMMIT takes longer than {COMMIT:?}")))),
        };
        let lost = match committed {
            Ok(_) => {
                lease.set_in_transaction(false);
                return Ok(());
            }
            Err(refused) if is_refusal(&refused) => return Err(error::from_db(refused)),
            Err(lost) => lost,
        };
        let Some(number) = number else { return Err(error::from_db(lost)) };
        // It goes before another one is asked for: all may be in this state at once.
        let sessions = lease.sessions();
        lease.spoil();
        drop(lease);
        let fate = number.fate(&sessions).await;
        tracing::warn!(error.message = %lost, outcome = fate.as_str(), "the answer to COMMIT was lost");
        match fate {
            Fate::Committed => Ok(()),
            Fate::Undone => Err(error::from_db(lost)),
            Fate::InProgress | Fate::Unknown => Err(error::outcome_unknown(lost)),
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

/// Whether the server itself says that it did not commit. When it goes down while COMMIT waits, it may have.
fn is_refusal(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| {
        let code = error.code();
        error.severity() == PgSeverity::Error && code != COMPLETION_UNKNOWN && !code.starts_with("08")
    })
}

// === impl Number ===

impl Number {
    /// How the transaction ended, as soon as that can be said.
    async fn fate(&self, sessions: &Sessions) -> Fate {
        let until = Instant::now() + PATIENCE;
        loop {
            let fate = match timeout_at(until, self.look(sessions)).await {
                Ok(Ok(fate)) => fate,
                // The server refuses to say, and will however often it is asked. A connection that breaks refuses nothing.
                Ok(Err(error)) if traced::code(&error).is_some() && !error::is_unavailable(&error) => {
                    tracing::warn!(error.message = %error, "the outcome of a transaction cannot be asked for");
                    Fate::Unknown
                }
                // The database is away: it may be back in a moment.
                Ok(Err(_)) | Err(_) => Fate::InProgress,
            };
            if fate != Fate::InProgress || Instant::now() >= until {
                return fate;
            }
            sleep(PAUSE).await;
        }
    }

    async fn look(&self, sessions: &Sessions) -> Result<Fate, DbErr> {
        let mut lease = sessions.acquire().await?;
        let is_same = self.identity.is_some() && self.identity == lease.identity();
        // It is a number that the server gave.
        let status = format!("SELECT pg_xact_status('{}'::xid8)", self.xid);
        let status: Option<String> = match lease.query_unprepared(&status).await {
            Ok(row) => row.map(|row| row.try_get_by_index(0)).transpose()?.flatten(),
            Err(error) if traced::code(&error).as_deref() == Some(IN_THE_FUTURE) => return Ok(Fate::Undone),
            Err(error) => return Err(error),
        };
        Ok(fate(status.as_deref(), is_same))
    }
}

/// What a status means, told by the server that gave the number or by another: a number that was given again belongs to somebody
/// else, whose end is not ours. But if that one did not commit, neither did we.
fn fate(status: Option<&str>, is_same: bool) -> Fate {
    match status {
        Some("committed") if is_same => Fate::Committed,
        Some("in progress") if is_same => Fate::InProgress,
        Some("aborted") => Fate::Undone,
        _ => Fate::Unknown,
    }
}

// === impl Fate ===

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            Fate::Committed => "committed",
            Fate::Undone => "undone",
            Fate::InProgress | Fate::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_calls_committed_is_unknown() {
        for (status, same, other) in [
            (Some("committed"), Fate::Committed, Fate::Unknown),
            (Some("aborted"), Fate::Undone, Fate::Undone),
            (Some("in progress"), Fate::InProgress, Fate::Unknown),
            (None, Fate::Unknown, Fate::Unknown),
        ] {
            assert_eq!((fate(status, true), fate(status, false)), (same, other), "{status:?}");
        }
    }
}
