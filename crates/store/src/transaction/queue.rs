//! The queue for the one connection that writes SQLite.

use std::collections::VecDeque;

use jackfield_domain::{Error, Result};
use sea_orm::{QueryResult, Statement};
use tokio::sync::oneshot;

use super::{Kind, Transaction};

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    /// True if a task serves the queue.
    pub(super) served: bool,
}

pub(super) enum Waiting {
    Writer(WaitingWriter),
    Statement(WaitingStatement),
}

/// A writer that waits for its turn.
pub(super) struct WaitingWriter {
    pub(super) kind: Kind,
    pub(super) turn: oneshot::Sender<Result<Transaction>>,
}

/// A statement that waits to be run, in a transaction of its own.
pub(super) struct WaitingStatement {
    pub(super) statement: Statement,
    pub(super) rows: oneshot::Sender<Result<Vec<QueryResult>>>,
}

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
    pub(super) fn fail(self, error: Error) {
        match self {
            Waiting::Writer(writer) => drop(writer.turn.send(Err(error))),
            Waiting::Statement(statement) => drop(statement.rows.send(Err(error))),
        }
    }

    fn has_left(&self) -> bool {
        match self {
            Waiting::Writer(writer) => writer.turn.is_closed(),
            Waiting::Statement(statement) => statement.rows.is_closed(),
        }
    }
}
