//! A session in use.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DbErr, ExecResult, QueryResult, Statement};
use sqlx::postgres::{PgConnection, PgDatabaseError, PgSeverity};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::session::{self, Access};
use super::session_pool::{self, PooledSession, SessionPool};
use crate::database::driver::{in_execution, in_query, query};

/// The code of "cached plan must not change result type". It is the code of any feature that is not supported, but Jackfield
/// uses none of these.
const OUTDATED: &str = "0A000";

/// A session in use. Dropping the lease gives the session back.
pub(crate) struct Lease {
    /// `None` once it was given back.
    session: Option<Box<PooledSession>>,
    pool: Arc<SessionPool>,
    /// A statement is under way.
    busy: bool,
    in_transaction: bool,
    unusable: bool,
}

/// A session that was idle for longer is checked before it is used. A round trip before each statement would cost as much as
/// the statement.
pub(super) const TRUSTED_IDLE: Duration = Duration::from_secs(1);

// === impl Lease ===

impl Lease {
    pub(super) fn new(session: Box<PooledSession>, pool: Arc<SessionPool>) -> Self {
        Lease { session: Some(session), pool, busy: false, in_transaction: false, unusable: false }
    }

    /// The identity of the server when the session was opened (see [`session::identity`]). It stays the same as long as the
    /// session lives.
    pub(crate) fn identity(&self) -> Option<Arc<str>> {
        self.session.as_ref()?.identity.clone()
    }

    /// Marks the session to be closed when it is given back.
    pub(crate) fn set_unusable(&mut self) {
        self.unusable = true;
    }

    /// Notes whether a transaction is open. It is rolled back if it is still open when the session is given back.
    pub(crate) fn set_in_transaction(&mut self, open: bool) {
        self.in_transaction = open;
    }

    /// Checks whether the session responds.
    pub(super) async fn responds(&mut self) -> bool {
        let Ok(conn) = self.begin() else { return false };
        let answer = conn.ping().await;
        self.end(answer).is_ok()
    }

    /// Checks whether a doubtful session can write. A session that cannot is good for reads as long as it is new, because then
    /// no other session could write either.
    pub(super) async fn is_usable(&mut self) -> bool {
        let is_new = self.session.as_ref().is_some_and(|session| session.opened.elapsed() < TRUSTED_IDLE);
        match self.access().await {
            Ok(Access::Write) => true,
            Ok(Access::Read) => is_new,
            Ok(Access::Standby) | Err(_) => false,
        }
    }

    /// The access that the session has.
    pub(super) async fn access(&mut self) -> Result<Access, DbErr> {
        let conn = self.begin()?;
        let access = session::access(conn).await;
        self.end(access).map_err(in_query)
    }

    pub(crate) async fn execute(&mut self, statement: &Statement) -> Result<ExecResult, DbErr> {
        let mut done = query(statement.clone()).execute(self.begin()?).await;
        if self.was_not_run(&done) {
            done = query(statement.clone()).execute(self.renewed().await?).await;
        }
        self.end(done).map(Into::into).map_err(in_execution)
    }

    pub(crate) async fn query_one(&mut self, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut done = query(statement.clone()).fetch_optional(self.begin()?).await;
        if self.was_not_run(&done) {
            done = query(statement.clone()).fetch_optional(self.renewed().await?).await;
        }
        self.end(done).map(|row| row.map(Into::into)).map_err(in_query)
    }

    pub(crate) async fn query_all(&mut self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut done = query(statement.clone()).fetch_all(self.begin()?).await;
        if self.was_not_run(&done) {
            done = query(statement.clone()).fetch_all(self.renewed().await?).await;
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

    /// As [`Lease::execute_unprepared`]. Returns the last row that the statements find.
    pub(crate) async fn query_unprepared(&mut self, sql: &str) -> Result<Option<QueryResult>, DbErr> {
        let conn = self.begin()?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await;
        self.end(done).map(|rows| rows.into_iter().last().map(Into::into)).map_err(in_query)
    }

    fn begin(&mut self) -> Result<&mut PgConnection, DbErr> {
        let session = self.session.as_mut().filter(|_| !self.unusable);
        let session =
            session.ok_or_else(|| session_pool::failed("the connection to the database is lost".to_owned()))?;
        // It stays busy if the caller is dropped before the answer arrives.
        self.busy = true;
        Ok(&mut session.conn)
    }

    /// Returns whether the schema has changed since a statement was prepared, and the statement can be run again: outside
    /// of a transaction nothing else is lost. The prepared statements of all sessions then belong to the earlier schema.
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
            self.unusable |= makes_unusable(error);
        }
        done
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.unusable {
            self.pool.discard(session);
        } else if self.busy || self.in_transaction {
            self.pool.recover(session, self.in_transaction);
        } else {
            self.pool.give_back(session);
        }
    }
}

/// Returns whether the schema has changed since a statement was prepared, because a migration ran while this server was
/// running. The driver keeps statements as they were prepared.
fn is_outdated(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == OUTDATED)
}

/// Returns whether an error makes its session unusable: the session is lost, the server ends it, or it cannot write.
fn makes_unusable(error: &sqlx::Error) -> bool {
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
