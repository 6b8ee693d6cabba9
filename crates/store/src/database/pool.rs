//! The pool of either database, as a connection that statements run on.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use super::pool_counts::Pool;
use super::postgres::pool::Sessions;
use super::spans::{from_pool, statement};
use super::sqlite::readers::Readers;

/// The connections of a pool, each taken for one statement.
#[derive(Clone)]
pub struct Pooled(PoolKind);

#[derive(Clone)]
enum PoolKind {
    SqliteReaders(Readers),
    /// The pool of the library, with one connection. Its transactions are those of the library, too.
    SqliteWriter(DatabaseConnection),
    Postgres(Sessions),
}

// === impl Pooled ===

impl Pooled {
    pub(crate) fn sqlite_readers(readers: Readers) -> Self {
        Pooled(PoolKind::SqliteReaders(readers))
    }

    pub(crate) fn sqlite_writer(conn: DatabaseConnection) -> Self {
        Pooled(PoolKind::SqliteWriter(conn))
    }

    pub(crate) fn postgres(sessions: Sessions) -> Self {
        Pooled(PoolKind::Postgres(sessions))
    }

    /// The connections that read SQLite.
    #[cfg(feature = "test-support")]
    pub(crate) fn of_sqlite_readers(&self) -> Option<&Readers> {
        match &self.0 {
            PoolKind::SqliteReaders(readers) => Some(readers),
            PoolKind::SqliteWriter(_) | PoolKind::Postgres(_) => None,
        }
    }

    /// The connection that writes SQLite.
    pub(crate) fn of_sqlite_writer(&self) -> Option<&DatabaseConnection> {
        match &self.0 {
            PoolKind::SqliteWriter(conn) => Some(conn),
            PoolKind::SqliteReaders(_) | PoolKind::Postgres(_) => None,
        }
    }

    /// The sessions with PostgreSQL.
    pub(crate) fn of_postgres(&self) -> Option<&Sessions> {
        match &self.0 {
            PoolKind::SqliteReaders(_) | PoolKind::SqliteWriter(_) => None,
            PoolKind::Postgres(sessions) => Some(sessions),
        }
    }

    /// The connections at this moment.
    pub(crate) fn count(&self) -> Pool {
        match &self.0 {
            PoolKind::SqliteReaders(readers) => readers.count(),
            PoolKind::SqliteWriter(conn) => Pool::of("writer", conn.get_sqlite_connection_pool()),
            PoolKind::Postgres(sessions) => sessions.count(),
        }
    }

    pub(crate) async fn close(&self) {
        match &self.0 {
            PoolKind::SqliteReaders(readers) => readers.close().await,
            PoolKind::SqliteWriter(conn) => {
                let _ = conn.close_by_ref().await;
            }
            PoolKind::Postgres(sessions) => sessions.close().await,
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Pooled {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            PoolKind::SqliteReaders(_) | PoolKind::SqliteWriter(_) => DbBackend::Sqlite,
            PoolKind::Postgres(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            PoolKind::SqliteReaders(readers) => from_pool(span, readers.execute(stmt)).await,
            PoolKind::SqliteWriter(conn) => from_pool(span, conn.execute_raw(stmt)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.execute(&stmt).await }).await
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let span = statement(self.get_database_backend(), sql);
        match &self.0 {
            PoolKind::SqliteReaders(readers) => from_pool(span, readers.execute_unprepared(sql)).await,
            PoolKind::SqliteWriter(conn) => from_pool(span, conn.execute_unprepared(sql)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.execute_unprepared(sql).await }).await
            }
        }
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            PoolKind::SqliteReaders(readers) => from_pool(span, readers.query_one(stmt)).await,
            PoolKind::SqliteWriter(conn) => from_pool(span, conn.query_one_raw(stmt)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.query_one(&stmt).await }).await
            }
        }
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            PoolKind::SqliteReaders(readers) => from_pool(span, readers.query_all(stmt)).await,
            PoolKind::SqliteWriter(conn) => from_pool(span, conn.query_all_raw(stmt)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.query_all(&stmt).await }).await
            }
        }
    }
}
