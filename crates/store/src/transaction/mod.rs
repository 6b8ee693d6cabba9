//! A write transaction: one of PostgreSQL, or a turn in a group of SQLite that commits as one (see [`group_commit`]).

pub(crate) mod group_commit;
mod queue;
mod turn;

use std::sync::Arc;

use jackfield_domain::Result;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};

use self::turn::{Turn, TurnEnd};
use crate::database::postgres::transaction::{Mode, PostgresTransaction};
use crate::database::{Pooled, error, spans};

/// A transaction. It writes, except for that of a search, which only reads. Dropping it rolls back.
pub struct Transaction(TransactionKind);

/// The way in which a write transaction commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On SQLite it may be one of a group.
    Shared,
    /// It shares its commit with no other.
    Alone,
    /// Its commit, which it shares with no other, does not wait for the disk.
    Volatile,
}

enum TransactionKind {
    Postgres(PostgresTransaction),
    Sqlite(Member),
}

/// A turn in a group, with the transaction that the members of the group share.
struct Member {
    // Fields are dropped in this order: the transaction before the turn.
    txn: Arc<DatabaseTransaction>,
    turn: Turn,
}

// === impl Kind ===

impl Kind {
    /// The use of such a transaction of PostgreSQL, where no transactions share a commit.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Kind::Shared | Kind::Alone => Mode::Write,
            Kind::Volatile => Mode::WriteVolatile,
        }
    }
}

// === impl Transaction ===

impl Transaction {
    /// Begins a transaction of PostgreSQL. On SQLite only groups begin transactions.
    pub(crate) async fn begin(pool: &Pooled, mode: Mode) -> Result<Self, DbErr> {
        let sessions = pool.of_postgres();
        let sessions =
            sessions.ok_or_else(|| DbErr::Custom("a transaction of SQLite has to be one of a group".to_owned()))?;
        let span = spans::statement(DbBackend::Postgres, "BEGIN");
        let begun = spans::from_pool(span, PostgresTransaction::begin(sessions, mode)).await?;
        Ok(Transaction(TransactionKind::Postgres(begun)))
    }

    /// A turn in a group.
    fn member(txn: Arc<DatabaseTransaction>, turn: Turn) -> Self {
        Transaction(TransactionKind::Sqlite(Member { txn, turn }))
    }

    /// Makes everything durable that was written here. An error means that nothing was written, unless it is
    /// [`jackfield_domain::Error::OutcomeUnknown`]. If this future is dropped before it returns, the commit continues.
    pub(crate) async fn commit(self) -> Result<()> {
        match self.0 {
            TransactionKind::Postgres(txn) => txn.commit().await,
            TransactionKind::Sqlite(Member { txn, turn }) => {
                drop(txn);
                let gone = || error::outcome_unknown(error::lost("the group of the transaction is gone"));
                turn.end(TurnEnd::Kept).await.unwrap_or_else(|| Err(gone()))
            }
        }
    }

    /// Undoes everything that was written here. When this returns, the rows that were read here are durable.
    pub(crate) async fn rollback(self) -> Result<()> {
        match self.0 {
            TransactionKind::Postgres(txn) => txn.rollback().await,
            TransactionKind::Sqlite(Member { txn, turn }) => {
                drop(txn);
                let gone = || error::gone("the group of the transaction is gone");
                turn.end(|sender| TurnEnd::Undone(Some(sender))).await.unwrap_or_else(|| Err(gone()))
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            TransactionKind::Postgres(_) => DbBackend::Postgres,
            TransactionKind::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let span = spans::statement(statement.db_backend, &statement.sql);
        match &self.0 {
            TransactionKind::Postgres(txn) => spans::within(span, txn.execute(&statement)).await,
            TransactionKind::Sqlite(member) => {
                member.noted(spans::within(span, member.open()?.execute_raw(statement)).await)
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let span = spans::statement(self.get_database_backend(), sql);
        match &self.0 {
            TransactionKind::Postgres(txn) => spans::within(span, txn.execute_unprepared(sql)).await,
            TransactionKind::Sqlite(member) => {
                member.noted(spans::within(span, member.open()?.execute_unprepared(sql)).await)
            }
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let span = spans::statement(statement.db_backend, &statement.sql);
        match &self.0 {
            TransactionKind::Postgres(txn) => spans::within(span, txn.query_one(&statement)).await,
            TransactionKind::Sqlite(member) => spans::within(span, member.open()?.query_one_raw(statement)).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let span = spans::statement(statement.db_backend, &statement.sql);
        match &self.0 {
            TransactionKind::Postgres(txn) => spans::within(span, txn.query_all(&statement)).await,
            TransactionKind::Sqlite(member) => {
                // A write that returns rows is a query, too.
                let is_write = !statement.sql.starts_with("SELECT");
                let found = spans::within(span, member.open()?.query_all_raw(statement)).await;
                if is_write { member.noted(found) } else { found }
            }
        }
    }
}

// === impl Member ===

impl Member {
    /// The connection, unless SQLite has rolled the transaction back by itself: a statement would then be outside of it.
    fn open(&self) -> Result<&DatabaseTransaction, DbErr> {
        if self.turn.guard().is_broken() {
            return Err(DbErr::Conn(RuntimeErr::Internal("the database has rolled the transaction back".to_owned())));
        }
        Ok(&self.txn)
    }

    /// The result of a write. It is noted if the database cannot be written.
    fn noted<T>(&self, result: Result<T, DbErr>) -> Result<T, DbErr> {
        if let Err(error) = &result {
            self.turn.guard().note_error(error);
        }
        result
    }
}
