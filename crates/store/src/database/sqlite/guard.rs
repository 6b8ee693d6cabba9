//! Detection of what SQLite does not say: rollbacks that it makes by itself, and a file that was replaced under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::DbErr;

use super::file::OpenedFile;
use crate::database::error;

/// Watches the connection of the writer by hooks of SQLite. When the disk is full, SQLite rolls a transaction back by itself.
/// The next savepoint would begin another transaction, and its release would commit it.
#[derive(Debug)]
pub(crate) struct Guard {
    file: Arc<OpenedFile>,
    /// A group is in progress, so nothing may be committed.
    closed: AtomicBool,
    /// SQLite has rolled the transaction of the group back.
    broken: AtomicBool,
    /// The last write failed, for example because the disk is full.
    failing: AtomicBool,
}

impl Guard {
    /// Makes the guard of a connection to this file.
    pub(crate) fn new(file: Arc<OpenedFile>) -> Self {
        let [closed, broken, failing] = [false; 3].map(AtomicBool::new);
        Guard { file, closed, broken, failing }
    }

    /// The file that the connection is to.
    pub(crate) fn file(&self) -> &Arc<OpenedFile> {
        &self.file
    }

    /// Checks that the file and its log are where they were opened, so that what is written is there after a restart.
    pub(crate) fn check_file(&self) -> Result<(), DbErr> {
        self.file.check().map_err(|lost| error::lost(&lost.to_string()))
    }

    /// Returns whether a transaction may commit now. The hook of SQLite calls it.
    pub(crate) fn may_commit(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Notes that a transaction was rolled back. The hook of SQLite calls it.
    pub(crate) fn rolled_back(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Notes a statement that failed because the database cannot be written.
    pub(crate) fn note_error(&self, error: &DbErr) {
        if error::is_unwritable(error) {
            self.set_failing(true);
        }
    }

    /// Notes whether the last write failed.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// Returns whether the last write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Returns whether SQLite has rolled the transaction of the group back.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Forbids commits from here on: a group begins.
    pub(crate) fn close(&self) {
        self.broken.store(false, Ordering::Release);
        self.closed.store(true, Ordering::Release);
    }

    /// Allows commits again.
    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::Release);
    }
}
