//! A session that somebody has.

use std::sync::Arc;

use sea_orm::sea_query::Values;
use sea_orm::{DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgSeverity};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Postgres};

use super::{Session, Sessions, TRUSTED_IDLE};
use crate::postgres_session::{self, Access};

/// "cached plan must not change result type"; nothing of ours asks for a feature that is not there.
const OUTDATED: &str = "0A000";

/// A session in somebody's hands. Dropping it gives it back.
pub(crate) struct Lease {
    /// Taken when it is given back.
    session: Option<Box<Session>>,
    pool: Sessions,
    /// A statement is under way.
    busy: bool,
    in_transaction: bool,
    spoilt: bool,
}

// === impl Lease ===

impl Lease {
    pub(super) fn new(session: Box<Session>, pool: Sessions) -> Self {
        Lease { session: Some(session), pool, busy: false, in_transaction: false, spoilt: false }
    }

    /// Where it came from.
    pub(crate) fn sessions(&self) -> Sessions {
        self.pool.clone()
    }

    /// What the server was, as far as transactions are concerned, when the session was opened. It stays so as long as the
    /// session lives.
    pub(crate) fn identity(&self) -> Option<Arc<str>> {
        self.session.as_ref()?.identity.clone()
    }

    /// It is closed when it is given back.
    pub(crate) fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// Whether a transaction is open, which is rolled back if it is when the session is given back.
    pub(crate) fn set_in_transaction(&mut self, open: bool) {
        self.in_transaction = open;
    }

    /// Tries it out: whether it answers.
    pub(super) async fn answers(&mut self) -> bool {
        let Ok(conn) = self.begin() else { return false };
        let answer = conn.ping().await;
        self.end(answer).is_ok()
    }

    /// Tries it out, where there is doubt: whether it can write. One that cannot is good for reads as long as it is new, for then
    /// others could not either.
    pub(super) async fn is_good(&mut self) -> bool {
        let is_new = self.session.as_ref().is_some_and(|session| session.opened.elapsed() < TRUSTED_IDLE);
        match self.access().await {
            Ok(Access::Write) => true,
            Ok(Access::Read) => is_new,
            Ok(Access::Standby) | Err(_) => false,
        }
    }

    /// What can be done in it.
    pub(super) async fn access(&mut self) -> Result<Access, DbErr> {
        let conn = self.begin()?;
        let access = postgres_session::access(conn).await;
        self.end(access).map_err(in_query)
    }

    pub(crate) async fn execute(&mut self, statement: &Statement) -> Result<ExecResult, DbErr> {
        let mut done = query(statement).execute(self.begin()?).await;
        if self.was_not_run(&done) {
            done = query(statement).execute(self.renewed().await?).await;
        }
        self.end(done).map(Into::into).map_err(in_execution)
    }

    pub(crate) async fn query_one(&mut self, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut done = query(statement).fetch_optional(self.begin()?).await;
        if self.was_not_run(&done) {
            done = query(statement).fetch_optional(self.renewed().await?).await;
        }
        self.end(done).map(|row| row.map(Into::into)).map_err(in_query)
    }

    pub(crate) async fn query_all(&mut self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut done = query(statement).fetch_all(self.begin()?).await;
        if self.was_not_run(&done) {
            done = query(statement).fetch_all(self.renewed().await?).await;
        }
        let rows = self.end(done).map_err(in_query)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Runs statements that are not worth preparing.
    pub(crate) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        let conn = self.begin()?;
        let done = conn.execute(AssertSqlSafe(sql.to_owned())).await;
        self.end(done).map(Into::into).map_err(in_execution)
    }

    /// As [`Lease::execute_unprepared`]; returns what the last of them finds.
    pub(crate) async fn query_unprepared(&mut self, sql: &str) -> Result<Option<QueryResult>, DbErr> {
        let conn = self.begin()?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await;
        self.end(done).map(|rows| rows.into_iter().last().map(Into::into)).map_err(in_query)
    }

    fn begin(&mut self) -> Result<&mut PgConnection, DbErr> {
        let session = self.session.as_mut().filter(|_| !self.spoilt);
        let session = session.ok_or_else(|| super::failed("the connection to the database is lost".to_owned()))?;
        // Stays so if whoever waits for the answer leaves.
        self.busy = true;
        Ok(&mut session.conn)
    }

    /// Whether a statement met a schema that has changed since it was prepared, and can be run again: outside of a transaction
    /// nothing else is lost. The prepared statements of all sessions are of the former schema then.
    fn was_not_run<T>(&self, done: &Result<T, sqlx::Error>) -> bool {
        let is_outdated = done.as_ref().is_err_and(is_outdated);
        if is_outdated {
            self.pool.outdate();
        }
        is_outdated && !self.in_transaction
    }

    /// The session without its prepared statements.
    async fn renewed(&mut self) -> Result<&mut PgConnection, DbErr> {
        let conn = self.begin()?;
        let cleared = conn.clear_cached_statements().await;
        self.end(cleared).map_err(in_execution)?;
        self.begin()
    }

    fn end<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.busy = false;
        if let Err(error) = &done {
            self.spoilt |= is_of_no_use(error);
        }
        done
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let shared = &self.pool.0;
        if self.spoilt {
            shared.spoilt(session);
        } else if self.busy || self.in_transaction {
            shared.recover(session, self.in_transaction);
        } else {
            shared.give_back(session);
        }
    }
}

/// Whether a statement was prepared for a schema that has changed since: a migration ran beside this server. The driver keeps
/// statements as they were prepared.
fn is_outdated(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == OUTDATED)
}

/// Whether a session that gave this error is of no use any more: it is gone, the server ends it, or it cannot write.
pub(crate) fn is_of_no_use(error: &sqlx::Error) -> bool {
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            return true;
        }
        _ => return false,
    };
    let severity = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    let is_end = matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic));
    is_end
        || error.code().is_some_and(|code| {
            code.starts_with("08") || ["25006", "57P01", "57P02", "57P03", "57P05", "58030"].contains(&code.as_ref())
        })
}

fn query(statement: &Statement) -> Query<'_, Postgres, SqlxValues> {
    let values = statement.values.clone().unwrap_or(Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

fn in_execution(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

fn in_query(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}
