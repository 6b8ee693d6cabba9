//! A write transaction: one of the database, or a turn in a group that commits as one (see [`crate::group`]).

use std::sync::Arc;

use jackfield_domain::{Error, Result};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use tokio::sync::oneshot;

use crate::error;
use crate::group::Guard;
use crate::traced;

/// A write transaction. Dropping it rolls back.
pub struct Transaction {
    // Given up before the turn is: the fields are dropped in this order.
    txn: Arc<DatabaseTransaction>,
    turn: Option<Turn>,
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
    /// A transaction of the database itself.
    pub(crate) fn own(txn: DatabaseTransaction) -> Self {
        Transaction { txn: Arc::new(txn), turn: None }
    }

    /// A turn in a group.
    pub(crate) fn member(txn: Arc<DatabaseTransaction>, turn: Turn) -> Self {
        Transaction { txn, turn: Some(turn) }
    }

    /// Makes everything durable that was written here. When this returns the outcome is known, unless it is an error; when it
    /// is dropped before, the commit goes on.
    pub(crate) async fn commit(self) -> Result<()> {
        match self.turn {
            Some(turn) => {
                drop(self.txn);
                turn.end(End::Kept).await
            }
            None => into_inner(self.txn)?.commit().await.map_err(error::from_db),
        }
    }

    /// Undoes everything that was written here. When this returns, what was read here is durable.
    pub(crate) async fn rollback(self) -> Result<()> {
        match self.turn {
            Some(turn) => {
                drop(self.txn);
                turn.end(|answer| End::Undone(Some(answer))).await
            }
            None => into_inner(self.txn)?.rollback().await.map_err(error::from_db),
        }
    }

    /// The connection, unless the database has rolled the transaction back by itself: a statement would then stand alone.
    fn open(&self) -> Result<&DatabaseTransaction, DbErr> {
        match &self.turn {
            Some(turn) if turn.guard.is_broken() => {
                Err(DbErr::Conn(RuntimeErr::Internal("the database has rolled the transaction back".to_owned())))
            }
            _ => Ok(&self.txn),
        }
    }

    /// A result of a write, which is noted if nothing can be written.
    fn noted<T>(&self, result: Result<T, DbErr>) -> Result<T, DbErr> {
        if let (Some(turn), Err(failed)) = (&self.turn, &result) {
            turn.guard.failed(failed);
        }
        result
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.txn.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let span = traced::statement(statement.db_backend, &statement.sql);
        self.noted(traced::within(span, self.open()?.execute_raw(statement)).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let span = traced::statement(self.get_database_backend(), sql);
        self.noted(traced::within(span, self.open()?.execute_unprepared(sql)).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let span = traced::statement(statement.db_backend, &statement.sql);
        traced::within(span, self.open()?.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let span = traced::statement(statement.db_backend, &statement.sql);
        traced::within(span, self.open()?.query_all_raw(statement)).await
    }
}

fn into_inner(txn: Arc<DatabaseTransaction>) -> Result<DatabaseTransaction> {
    Arc::into_inner(txn).ok_or_else(|| Error::internal("a transaction that ends is in use"))
}

// === impl Turn ===

impl Turn {
    async fn end(mut self, how: impl FnOnce(Answer) -> End) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        if let Some(end) = self.end.take() {
            // If nobody is there to take it, nobody answers either.
            let _ = end.send(how(answer));
        }
        answered.await.unwrap_or_else(|_| Err(error::gone("the group of the transaction is gone")))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(End::Undone(None));
        }
    }
}
