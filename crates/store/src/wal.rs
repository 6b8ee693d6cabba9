//! SQLite's write-ahead log, emptied soon after something was destroyed, and soon after the last write.
//!
//! What is deleted or replaced is overwritten in the file itself (`secure_delete`), but the log keeps the pages as they were
//! until others are written over them, and a file system full of writes that come to an end never writes them. So a task of its
//! own empties the log: at most once a second, by a connection of its own, and again and again while a reader is in its way. It
//! lets writers wait no longer than [`PATIENCE`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend;

/// The log of one SQLite file.
#[derive(Clone)]
pub(crate) struct Wal(Arc<Shared>);

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// There is something to do that was not there before.
    changed: Notify,
}

/// What was written since the log was empty.
#[derive(Clone, Copy, Default)]
struct State {
    /// Since when something is in the log that was destroyed.
    destroyed: Option<Instant>,
    /// When anything was written last.
    written: Option<Instant>,
    /// How many transactions there were, and how many of them destroyed something.
    commits: u64,
    destructions: u64,
}

/// So long nothing is written before the log is emptied for that reason alone.
const QUIET: Duration = Duration::from_secs(1);

/// So long a log stays that was just emptied: what is destroyed in the meantime is so together.
const INTERVAL: Duration = Duration::from_secs(1);

/// When it is tried again after a reader was in the way, or after a fault.
const AGAIN: Duration = Duration::from_millis(200);

/// How long the last readers are waited for, and with them writers, when all else is done.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// If it takes longer than this, it is said.
const LONG: Duration = Duration::from_secs(30);

// === impl Wal ===

impl Wal {
    pub(crate) fn of(path: PathBuf) -> Self {
        // A process that died may have left a log.
        let now = Some(Instant::now());
        let state = Mutex::new(State { destroyed: now, written: now, ..State::default() });
        Wal(Arc::new(Shared { path, state, changed: Notify::new() }))
    }

    /// Notes that a transaction has been committed, and whether something was destroyed in it.
    pub(crate) fn committed(&self, destroyed: bool) {
        let now = Instant::now();
        let mut state = self.state();
        state.commits += 1;
        let news = state.written.is_none() || (destroyed && state.destroyed.is_none());
        state.written = Some(now);
        if destroyed {
            state.destructions += 1;
            state.destroyed.get_or_insert(now);
        }
        drop(state);
        if news {
            self.0.changed.notify_one();
        }
    }

    /// Empties the log whenever there is a reason to, until `stop`.
    pub(crate) async fn keep_empty(&self, stop: &CancellationToken) {
        let mut conn = None;
        let mut not_before = Instant::now();
        let mut is_said = false;
        while stop.run_until_cancelled(self.reason(not_before)).await.is_some() {
            let (before, begin) = (*self.state(), Instant::now());
            let emptied = self.empty(&mut conn).await;
            let after = Instant::now();
            match emptied {
                Ok(true) => {
                    let mut state = self.state();
                    state.written = state.written.filter(|_| state.commits != before.commits);
                    state.destroyed = (state.destructions != before.destructions).then_some(begin);
                    drop(state);
                    not_before = after + INTERVAL;
                    is_said = false;
                }
                Ok(false) => not_before = after + AGAIN,
                Err(error) => {
                    tracing::debug!(error.message = %error, "the write-ahead log could not be emptied");
                    conn = None;
                    not_before = after + AGAIN;
                }
            }
            let overdue = self.state().destroyed.is_some_and(|destroyed| destroyed.elapsed() > LONG);
            if overdue && !is_said {
                tracing::warn!(
                    "what was destroyed is still in the write-ahead log: a reader holds it, or the disk fails"
                );
                is_said = true;
            }
        }
        if let Some(conn) = conn {
            let _ = conn.close().await;
        }
    }

    /// Since when something is in the log that was destroyed, if it is.
    pub(crate) fn overdue(&self) -> Duration {
        self.state().destroyed.map(|destroyed| destroyed.elapsed()).unwrap_or_default()
    }

    /// Waits for a reason to empty the log, and for the time to do so.
    async fn reason(&self, not_before: Instant) {
        loop {
            let State { destroyed, written, .. } = *self.state();
            let due = match (destroyed, written) {
                (Some(_), _) => Some(not_before),
                (None, Some(written)) => Some(not_before.max(written + QUIET)),
                (None, None) => None,
            };
            match due {
                Some(due) if due <= Instant::now() => return,
                // What is destroyed meanwhile is more urgent.
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.0.changed.notified() => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Puts what is in the log into the file, and makes the log a file without content. `false` if somebody was in the way.
    async fn empty(&self, conn: &mut Option<SqliteConnection>) -> Result<bool, sqlx::Error> {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(backend::sqlite_options(&self.0.path).busy_timeout(PATIENCE).connect().await?),
        };
        // Most of the work holds up nobody.
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut *conn).await?;
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *conn).await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
