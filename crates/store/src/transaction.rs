//! A write transaction: one of the database, or a turn in a group that commits as one (see [`crate::group`]).

use std::sync::Arc;

use jackfield_domain::Result;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use tokio::sync::oneshot;

use crate::error;
use crate::group::Guard;
use crate::postgres_txn::PostgresTransaction;
use crate::traced;

/// A write transaction. Dropping it rolls back.
pub struct Transaction(Kind);

enum Kind {
    Postgres(PostgresTransaction),
    Sqlite(Member),
}

/// A turn in a group, with the transaction that all of the group share.
struct Member {
    // Given up before the turn is: the fields are dropped in this order.
    txn: Arc<DatabaseTransaction>,
    turn: Turn,
}

/// A turn in a group. Dropping it undoes what was written in it.
pub(crate) struct Turn {
    pub(crate) guard: Arc<Guard>,
    /// Taken when the turn ends.
    pub(crate) end: Option<oneshot::Sender<End>>,
}

/// How a turn ended.
pub(crate) enum End {
    /// What was written stays, and is answered for once the group has committed.
    Kept(Answer),
    /// What was written goes. Whoever wants to tell what was read in the turn waits for the group as well: it may have been
    /// written by a member before.
    Undone(Option<Answer>),
}

/// Where it is told whether the group has committed.
pub(crate) type Answer = oneshot::Sender<Result<()>>;

// === impl Transaction ===

impl Transaction {
    /// A transaction of PostgreSQL.
    pub(crate) fn postgres(txn: PostgresTransaction) -> Self {
        Transaction(Kind::Postgres(txn))
    }

    /// A turn in a group.
    pub(crate) fn member(txn: Arc<DatabaseTransaction>, turn: Turn) -> Self {
        Transaction(Kind::Sqlite(Member { txn, turn }))
    }

    /// Makes everything durable that was written here. An error says that nothing was written, unless it is
    /// [`jackfield_domain::Error::OutcomeUnknown`]. When this is dropped before it returns, the commit goes on.
    pub(crate) async fn commit(self) -> Result<()> {
        match self.0 {
            Kind::Postgres(txn) => txn.commit().await,
            Kind::Sqlite(Member { txn, turn }) => {
                drop(txn);
                let gone = || error::outcome_unknown(error::lost("the group of the transaction is gone"));
                turn.end(End::Kept).await.unwrap_or_else(|| Err(gone()))
            }
        }
    }

    /// Undoes everything that was written here. When this returns, what was read here is durable.
    pub(crate) async fn rollback(self) -> Result<()> {
        match self.0 {
            Kind::Postgres(txn) => txn.rollback().await,
            Kind::Sqlite(Member { txn, turn }) => {
                drop(txn);
                let gone = || error::gone("the group of the transaction is gone");
                turn.end(|answer| End::Undone(Some(answer))).await.unwrap_or_else(|| Err(gone()))
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Kind::Postgres(_) => DbBackend::Postgres,
            Kind::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let span = traced::statement(statement.db_backend, &statement.sql);
        match &self.0 {
            Kind::Postgres(txn) => traced::within(span, txn.execute(&statement)).await,
            Kind::Sqlite(member) => member.noted(traced::within(span, member.open()?.execute_raw(statement)).await),
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let span = traced::statement(self.get_database_backend(), sql);
        match &self.0 {
            Kind::Postgres(txn) => traced::within(span, txn.execute_unprepared(sql)).await,
            Kind::Sqlite(member) => member.noted(traced::within(span, member.open()?.execute_unprepared(sql)).await),
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let span = traced::statement(statement.db_backend, &statement.sql);
        match &self.0 {
            Kind::Postgres(txn) => traced::within(span, txn.query_one(&statement)).await,
            Kind::Sqlite(member) => traced::within(span, member.open()?.query_one_raw(statement)).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let span = traced::statement(statement.db_backend, &statement.sql);
        match &self.0 {
            Kind::Postgres(txn) => traced::within(span, txn.query_all(&statement)).await,
            Kind::Sqlite(member) => traced::within(span, member.open()?.query_all_raw(statement)).await,
        }
    }
}

// === impl Member ===

impl Member {
    /// The connection, unless the database has rolled the transaction back by itself: a statement would then stand alone.
    fn open(&self) -> Result<&DatabaseTransaction, DbErr> {
        if self.turn.guard.is_broken() {
            return Err(DbErr::Conn(RuntimeErr::Internal("the database has rolled the transaction back".to_owned())));
        }
        Ok(&self.txn)
    }

    /// A result of a write, which is noted if nothing can be written.
    fn noted<T>(&self, result: Result<T, DbErr>) -> Result<T, DbErr> {
        if let Err(failed) = &result {
            self.turn.guard.failed(failed);
        }
        result
    }
}

// === impl Turn ===

impl Turn {
    /// Ends the turn. `None` if nobody says how the group ended.
    async fn end(mut self, how: impl FnOnce(Answer) -> End) -> Option<Result<()>> {
        let (answer, answered) = oneshot::channel();
        if let Some(end) = self.end.take() {
            // If nobody is there to take it, nobody answers either.
            let _ = end.send(how(answer));
        }
        answered.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(End::Undone(None));
        }
    }
}
