//! SQLite's write-ahead log, emptied soon after something was destroyed, and soon after the last write.
//!
//! What is deleted or replaced is overwritten in the file itself (`secure_delete`), but the log keeps the pages as they were
//! until others are written over them, and a file system full of writes that come to an end never writes them. So a task of its
//! own empties the log: at most once a second, by a connection of its own, and again and again while a reader is in its way. It
//! lets writers wait no longer than [`PATIENCE`], and does not let them wait at all for what a reader still holds.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::options;

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

/// When it is tried again after a reader was in the way, or after a fault: at first, and at most, while it is the same reader.
const AGAIN: Duration = Duration::from_millis(200);
const LONGEST_AGAIN: Duration = Duration::from_secs(5);

/// How long the last readers are waited for, and with them writers, when all else is done.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// If it takes longer than this, it is said.
const LONG: Duration = Duration::from_secs(30);

/// What came of an attempt to empty the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Emptied,
    /// Somebody was in the way, for a while or as before.
    Hindered,
    Stuck,
}

/// How far the attempts have come, and when the next one is worth it.
struct Attempts {
    /// How much of the log the last one put into the file, if it could not empty it.
    copied: Option<i64>,
    pause: Duration,
}

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
        let mut attempts = Attempts::new();
        let mut not_before = Instant::now();
        let mut is_said = false;
        while stop.run_until_cancelled(self.reason(not_before)).await.is_some() {
            let (before, begin) = (*self.state(), Instant::now());
            let emptied = self.empty(&mut conn, &mut attempts).await;
            let after = Instant::now();
            match emptied {
                Ok(Attempt::Emptied) => {
                    let mut state = self.state();
                    state.written = state.written.filter(|_| state.commits != before.commits);
                    state.destroyed = (state.destructions != before.destructions).then_some(begin);
                    drop(state);
                    not_before = after + INTERVAL;
                    is_said = false;
                }
                Ok(Attempt::Hindered | Attempt::Stuck) => not_before = after + attempts.pause,
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

    /// Puts what is in the log into the file, and makes the log a file without content, unless somebody is in the way.
    async fn empty(
        &self,
        conn: &mut Option<SqliteConnection>,
        attempts: &mut Attempts,
    ) -> Result<Attempt, sqlx::Error> {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(options(&self.0.path).busy_timeout(PATIENCE).connect().await?),
        };
        // Most of the work holds up nobody.
        let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut *conn).await?;
        let (written, copied) = (row.try_get(1)?, row.try_get(2)?);
        if attempts.is_stuck(written, copied) {
            return Ok(Attempt::Stuck);
        }
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *conn).await?;
        if row.try_get::<i64, _>(0)? == 0 {
            *attempts = Attempts::new();
            return Ok(Attempt::Emptied);
        }
        attempts.hindered(copied);
        Ok(Attempt::Hindered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Attempts ===

impl Attempts {
    const fn new() -> Self {
        Attempts { copied: None, pause: AGAIN }
    }

    /// Whether the log cannot be emptied: a reader still needs what lies behind the place that the last attempt got to. Readers
    /// that come and go let each attempt get further, and are no reason to give up.
    fn is_stuck(&mut self, written: i64, copied: i64) -> bool {
        let is_stuck = copied < written && self.copied == Some(copied);
        if is_stuck {
            self.wait_longer();
        }
        is_stuck
    }

    /// Notes that somebody was in the way when so much was copied.
    fn hindered(&mut self, copied: i64) {
        match self.copied.replace(copied) == Some(copied) {
            true => self.wait_longer(),
            false => self.pause = AGAIN,
        }
    }

    fn wait_longer(&mut self) {
        self.pause = (self.pause * 2).min(LONGEST_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &std::path::Path) -> SqliteConnection {
        options(path).connect().await.unwrap()
    }

    async fn run(conn: &mut SqliteConnection, sql: &'static str) {
        sqlx::query(sql).execute(conn).await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_stays_is_waited_for_without_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database.sqlite3");
        let (mut writer, mut reader) = (open(&path).await, open(&path).await);
        run(&mut writer, "CREATE TABLE t (n INTEGER)").await;
        let (wal, mut conn, mut attempts) = (Wal::of(path.clone()), None, Attempts::new());
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Emptied);

        run(&mut writer, "INSERT INTO t VALUES (1)").await;
        run(&mut reader, "BEGIN").await;
        run(&mut reader, "SELECT * FROM t").await;
        run(&mut writer, "INSERT INTO t VALUES (2)").await;
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Hindered);
        for seconds in [0.4, 0.8, 1.6, 3.2, 5.0, 5.0] {
            run(&mut writer, "INSERT INTO t VALUES (3)").await;
            assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Stuck);
            assert_eq!(attempts.pause, Duration::from_secs_f64(seconds));
        }
        let log = format!("{}-wal", path.display());
        assert!(std::fs::metadata(&log).unwrap().len() > 0);

        // Another reader, of what was written since: the attempts get further, and so it is tried in earnest again.
        let mut later = open(&path).await;
        run(&mut later, "BEGIN").await;
        run(&mut later, "SELECT * FROM t").await;
        run(&mut reader, "COMMIT").await;
        run(&mut writer, "INSERT INTO t VALUES (4)").await;
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Hindered);
        assert_eq!(attempts.pause, AGAIN);
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Stuck);
        run(&mut later, "COMMIT").await;
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Emptied);
        assert_eq!((attempts.copied, attempts.pause), (None, AGAIN));
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
    }
}
