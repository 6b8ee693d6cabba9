//! The connections of a pool, whichever the database.

use sea_orm::{AccessMode, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use crate::postgres_pool::Sessions;
use crate::postgres_txn::PostgresTransaction;
use crate::traced::{from_pool, statement};
use crate::transaction::Transaction;

/// The connections of a pool, each taken for one statement.
#[derive(Clone)]
pub struct Pooled(Connections);

/// SQLite's are those of the library. There they never fail to be opened, and never get lost.
#[derive(Clone)]
enum Connections {
    Sqlite(DatabaseConnection),
    Postgres(Sessions),
}

// === impl Pooled ===

impl Pooled {
    pub(crate) fn sqlite(conn: DatabaseConnection) -> Self {
        Pooled(Connections::Sqlite(conn))
    }

    pub(crate) fn postgres(sessions: Sessions) -> Self {
        Pooled(Connections::Postgres(sessions))
    }

    /// Those of SQLite.
    pub(crate) fn of_sqlite(&self) -> Option<&DatabaseConnection> {
        match &self.0 {
            Connections::Sqlite(conn) => Some(conn),
            Connections::Postgres(_) => None,
        }
    }

    /// Those of PostgreSQL.
    pub(crate) fn of_postgres(&self) -> Option<&Sessions> {
        match &self.0 {
            Connections::Sqlite(_) => None,
            Connections::Postgres(sessions) => Some(sessions),
        }
    }

    /// Begins a transaction of PostgreSQL. On SQLite only groups begin any.
    pub(crate) async fn begin(&self, access: Option<AccessMode>) -> Result<Transaction, DbErr> {
        let Connections::Postgres(sessions) = &self.0 else {
            return Err(DbErr::Custom("a transaction of SQLite has to be one of a group".to_owned()));
        };
        let begun = from_pool(statement(DbBackend::Postgres, "BEGIN"), PostgresTransaction::begin(sessions, access));
        begun.await.map(Transaction::postgres)
    }

    pub(crate) async fn close(&self) {
        match &self.0 {
            Connections::Sqlite(conn) => {
                let _ = conn.close_by_ref().await;
            }
            Connections::Postgres(sessions) => sessions.close().await,
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Pooled {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Connections::Sqlite(_) => DbBackend::Sqlite,
            Connections::Postgres(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            Connections::Sqlite(conn) => from_pool(span, conn.execute_raw(stmt)).await,
            Connections::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.execute(&stmt).await }).await
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let span = statement(self.get_database_backend(), sql);
        match &self.0 {
            Connections::Sqlite(conn) => from_pool(span, conn.execute_unprepared(sql)).await,
            Connections::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.execute_unprepared(sql).await }).await
            }
        }
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            Connections::Sqlite(conn) => from_pool(span, conn.query_one_raw(stmt)).await,
            Connections::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.query_one(&stmt).await }).await
            }
        }
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let span = statement(stmt.db_backend, &stmt.sql);
        match &self.0 {
            Connections::Sqlite(conn) => from_pool(span, conn.query_all_raw(stmt)).await,
            Connections::Postgres(sessions) => {
                from_pool(span, async { sessions.acquire().await?.query_all(&stmt).await }).await
            }
        }
    }
}
