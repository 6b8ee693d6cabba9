//! The turn of a writer in a group: the time in which it alone uses the transaction of the group.

use std::sync::Arc;

use jackfield_domain::Result;
use tokio::sync::oneshot;

use crate::database::sqlite::guard::Guard;

/// A turn. Dropping it undoes what was written in it.
pub(super) struct Turn {
    guard: Arc<Guard>,
    /// `None` once the turn has ended.
    end: Option<oneshot::Sender<TurnEnd>>,
}

/// The end of a turn.
pub(super) enum TurnEnd {
    /// The changes stay. The sender says whether the group has committed.
    Kept(CommitSender),
    /// The changes are undone. Rows that were read in the turn may have been written by a member before, so a writer that
    /// answers with them waits for the group as well.
    Undone(Option<CommitSender>),
}

/// Says whether the group has committed.
pub(super) type CommitSender = oneshot::Sender<Result<()>>;

// === impl Turn ===

impl Turn {
    /// A turn, and the receiver of its end.
    pub(super) fn new(guard: Arc<Guard>) -> (Self, oneshot::Receiver<TurnEnd>) {
        let (end, ended) = oneshot::channel();
        (Turn { guard, end: Some(end) }, ended)
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Ends the turn, and waits until the group has committed. `None` if the group is gone.
    pub(super) async fn end(mut self, how: impl FnOnce(CommitSender) -> TurnEnd) -> Option<Result<()>> {
        let (sender, committed) = oneshot::channel();
        if let Some(end) = self.end.take() {
            // If the group is gone, the sender is dropped and nothing is received.
            let _ = end.send(how(sender));
        }
        committed.await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(TurnEnd::Undone(None));
        }
    }
}
