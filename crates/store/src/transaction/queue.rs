//! The queue for the one connection that writes SQLite.

use std::collections::VecDeque;

use jackfield_domain::{Error, Result};
use sea_orm::{QueryResult, Statement};
use tokio::sync::oneshot;
use tracing::Span;

use super::{Kind, Transaction};

/// The writers and statements that wait, in their order.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    /// True if a task serves the queue.
    pub(super) served: bool,
}

/// A writer or a statement that waits.
pub(super) enum Waiting {
    Writer(WaitingWriter),
    Statement(WaitingStatement),
}

/// A writer that waits for its turn.
pub(super) struct WaitingWriter {
    pub(super) kind: Kind,
    pub(super) turn: oneshot::Sender<Result<Transaction>>,
}

/// A statement that waits to be run between two transactions.
pub(super) struct WaitingStatement {
    pub(super) statement: Statement,
    /// The span of the statement.
    pub(super) span: Span,
    pub(super) turn: oneshot::Sender<Result<RowsReceiver>>,
}

/// Receives the rows of a statement that has begun.
pub(super) type RowsReceiver = oneshot::Receiver<Result<Vec<QueryResult>>>;

// === impl Queue ===

impl Queue {
    /// The next that still waits.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        self.drop_left();
        self.waiting.pop_front()
    }

    /// The next that still waits, if it is a writer that can be one of a group.
    pub(super) fn next_shared(&mut self) -> Option<WaitingWriter> {
        self.drop_left();
        let is_shared =
            |waiting: &mut Waiting| matches!(waiting, Waiting::Writer(writer) if writer.kind == Kind::Shared);
        match self.waiting.pop_front_if(is_shared)? {
            Waiting::Writer(writer) => Some(writer),
            Waiting::Statement(_) => None,
        }
    }

    /// Drops those at the front that have left.
    fn drop_left(&mut self) {
        while self.waiting.front().is_some_and(Waiting::has_left) {
            self.waiting.pop_front();
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Says that there will be no turn.
    pub(super) fn fail(self, error: Error) {
        match self {
            Waiting::Writer(writer) => drop(writer.turn.send(Err(error))),
            Waiting::Statement(statement) => drop(statement.turn.send(Err(error))),
        }
    }

    fn has_left(&self) -> bool {
        match self {
            Waiting::Writer(writer) => writer.turn.is_closed(),
            Waiting::Statement(statement) => statement.turn.is_closed(),
        }
    }
}
