//! The pool of either database, as a connection that statements run on.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use super::postgres::pool::Sessions;
use super::spans::{from_pool, statement};

/// The connections of a pool, each taken for one statement.
#[derive(Clone)]
pub struct Pooled(PoolKind);

/// SQLite has the pool of the library: its connections never fail to open and never get lost.
#[derive(Clone)]
enum PoolKind {
    Sqlite(DatabaseConnection),
    Postgres(Sessions),
}

// === impl Pooled ===

impl Pooled {
    pub(crate) fn sqlite(conn: DatabaseConnection) -> Self {
        Pooled(PoolKind::Sqlite(conn))
    }

    pub(crate) fn postgres(sessions: Sessions) -> Self {
        Pooled(PoolKind::Postgres(sessions))
    }

    /// The connections to SQLite.
    pub(crate) fn of_sqlite(&self) -> Option<&DatabaseConnection> {
        match &self.0 {
            PoolKind::Sqlite(conn) => Some(conn),
            PoolKind::Postgres(_) => None,
        }
    }

    /// The sessions with PostgreSQL.
    pub(crate) fn of_postgres(&self) -> Option<&Sessions> {
        match &self.0 {
            PoolKind::Sqlite(_) => None,
            PoolKind::Postgres(sessions) => Some(sessions),
        }
    }

    pub(crate) async fn close(&self) {
        match &self.0 {
            PoolKind::Sqlite(conn) => {
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
            PoolKind::Sqlite(_) => DbBackend::Sqlite,
            PoolKind::Postgres(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            PoolKind::Sqlite(conn) => from_pool(span, conn.execute_raw(stmt)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.execute(&stmt).await }).await
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let span = statement(self.get_database_backend(), sql);
        match &self.0 {
            PoolKind::Sqlite(conn) => from_pool(span, conn.execute_unprepared(sql)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.execute_unprepared(sql).await }).await
            }
        }
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            PoolKind::Sqlite(conn) => from_pool(span, conn.query_one_raw(stmt)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.query_one(&stmt).await }).await
            }
        }
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            PoolKind::Sqlite(conn) => from_pool(span, conn.query_all_raw(stmt)).await,
            PoolKind::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.query_all(&stmt).await }).await
            }
        }
    }
}
