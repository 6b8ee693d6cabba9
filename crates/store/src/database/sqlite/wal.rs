//! SQLite's write-ahead log, emptied soon after data was destroyed, and soon after the last write.
//!
//! Data that is deleted or replaced is overwritten in the database file (`secure_delete`), but the log keeps the old pages
//! until later pages overwrite them. If no more writes follow, that never happens. So a task empties the log: at most once a
//! second, on a connection of its own, and again while a reader blocks it. It delays writers by no more than
//! [`BUSY_TIMEOUT`], and not at all while a reader still needs the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::file::OpenedFile;
use super::options;

/// The log of one SQLite file.
#[derive(Clone)]
pub(crate) struct Wal(Arc<Log>);

struct Log {
    file: Arc<OpenedFile>,
    state: Mutex<Writes>,
    /// There is a new reason to empty the log.
    changed: Notify,
}

/// The writes since the log was empty.
#[derive(Clone, Copy, Default)]
struct Writes {
    /// The time since which destroyed data is in the log.
    destroyed: Option<Instant>,
    /// The time of the last write.
    written: Option<Instant>,
    /// The number of transactions, and of those that destroyed data.
    commits: u64,
    destructions: u64,
}

/// The time without writes after which the log is emptied even if no data was destroyed.
const QUIET: Duration = Duration::from_secs(1);

/// The least time between two times that the log is emptied. Data that is destroyed in between is removed together.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time to the next attempt after a reader blocked one, or after an error: at first, and at most, while the reader is the
/// same.
const RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// The time for which the task waits for the last readers, and delays writers, when the rest of the log is in the file.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// The time after which destroyed data that is still in the write-ahead log is reported.
const OVERDUE: Duration = Duration::from_secs(30);

/// The outcome of an attempt to empty the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Emptied,
    /// A reader blocked it.
    Blocked,
    /// The same reader as before blocked it.
    Stuck,
}

/// The progress of the attempts, and the pause before the next one.
struct Attempts {
    /// The part of the log that the last attempt copied into the file, if it could not empty the log.
    copied: Option<i64>,
    pause: Duration,
}

// === impl Wal ===

impl Wal {
    pub(crate) fn of(file: Arc<OpenedFile>) -> Self {
        // A process that crashed may have left a log.
        let now = Some(Instant::now());
        let state = Mutex::new(Writes { destroyed: now, written: now, ..Writes::default() });
        Wal(Arc::new(Log { file, state, changed: Notify::new() }))
    }

    /// Notes that a transaction was committed, and whether it destroyed data.
    pub(crate) fn committed(&self, destroyed: bool) {
        let now = Instant::now();
        let mut state = self.state();
        state.commits += 1;
        let is_new = state.written.is_none() || (destroyed && state.destroyed.is_none());
        state.written = Some(now);
        if destroyed {
            state.destructions += 1;
            state.destroyed.get_or_insert(now);
        }
        drop(state);
        if is_new {
            self.0.changed.notify_one();
        }
    }

    /// Empties the log whenever there is a reason to, until `stop`.
    pub(crate) async fn keep_empty(&self, stop: &CancellationToken) {
        let mut conn = None;
        let mut attempts = Attempts::new();
        let mut not_before = Instant::now();
        let mut is_logged = false;
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
                    is_logged = false;
                }
                Ok(Attempt::Blocked | Attempt::Stuck) => not_before = after + attempts.pause,
                Err(error) => {
                    tracing::debug!(error.message = %error, "the write-ahead log could not be emptied");
                    conn = None;
                    not_before = after + RETRY;
                }
            }
            let overdue = self.state().destroyed.is_some_and(|destroyed| destroyed.elapsed() > OVERDUE);
            if overdue && !is_logged {
                tracing::warn!("destroyed data is still in the write-ahead log: a reader holds it, or the disk fails");
                is_logged = true;
            }
        }
        if let Some(conn) = conn {
            let _ = conn.close().await;
        }
    }

    /// The time for which destroyed data has been in the log: 0 if there is none.
    pub(crate) fn overdue(&self) -> Duration {
        self.state().destroyed.map(|destroyed| destroyed.elapsed()).unwrap_or_default()
    }

    /// Waits for a reason to empty the log, and until it is time to do so.
    async fn reason(&self, not_before: Instant) {
        loop {
            let Writes { destroyed, written, .. } = *self.state();
            let due = match (destroyed, written) {
                (Some(_), _) => Some(not_before),
                (None, Some(written)) => Some(not_before.max(written + QUIET)),
                (None, None) => None,
            };
            match due {
                Some(due) if due <= Instant::now() => return,
                // Data may be destroyed meanwhile, which is more urgent.
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.0.changed.notified() => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Copies the log into the file and truncates it, unless a reader blocks it.
    async fn empty(
        &self,
        conn: &mut Option<SqliteConnection>,
        attempts: &mut Attempts,
    ) -> Result<Attempt, sqlx::Error> {
        let conn = match conn {
            Some(conn) => conn,
            None => {
                self.0.file.check().map_err(|error| sqlx::Error::Configuration(error.into()))?;
                let options = options(self.0.file.path()).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
                conn.insert(options.connect().await?)
            }
        };
        // Most of the work delays no other connection.
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
        attempts.blocked(copied);
        Ok(Attempt::Blocked)
    }

    fn state(&self) -> MutexGuard<'_, Writes> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Attempts ===

impl Attempts {
    const fn new() -> Self {
        Attempts { copied: None, pause: RETRY }
    }

    /// Returns whether the log cannot be emptied: a reader still needs the log after the point that the last attempt
    /// reached. With readers that come and go, each attempt reaches further, and there is no reason to wait longer.
    fn is_stuck(&mut self, written: i64, copied: i64) -> bool {
        let is_stuck = copied < written && self.copied == Some(copied);
        if is_stuck {
            self.wait_longer();
        }
        is_stuck
    }

    /// Notes that a reader blocked an attempt, and the part that it copied.
    fn blocked(&mut self, copied: i64) {
        match self.copied.replace(copied) == Some(copied) {
            true => self.wait_longer(),
            false => self.pause = RETRY,
        }
    }

    fn wait_longer(&mut self) {
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
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
    async fn a_reader_that_stays_does_not_delay_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database.sqlite3");
        let (mut writer, mut reader) = (open(&path).await, open(&path).await);
        run(&mut writer, "CREATE TABLE t (n INTEGER)").await;
        let (wal, mut conn, mut attempts) = (Wal::of(Arc::new(OpenedFile::at(&path).unwrap())), None, Attempts::new());
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Emptied);

        run(&mut writer, "INSERT INTO t VALUES (1)").await;
        run(&mut reader, "BEGIN").await;
        run(&mut reader, "SELECT * FROM t").await;
        run(&mut writer, "INSERT INTO t VALUES (2)").await;
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Blocked);
        for seconds in [0.4, 0.8, 1.6, 3.2, 5.0, 5.0] {
            run(&mut writer, "INSERT INTO t VALUES (3)").await;
            assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Stuck);
            assert_eq!(attempts.pause, Duration::from_secs_f64(seconds));
        }
        let log = format!("{}-wal", path.display());
        assert!(std::fs::metadata(&log).unwrap().len() > 0);

        // Another reader, of later writes: the attempts reach further, so the log is truncated again.
        let mut later = open(&path).await;
        run(&mut later, "BEGIN").await;
        run(&mut later, "SELECT * FROM t").await;
        run(&mut reader, "COMMIT").await;
        run(&mut writer, "INSERT INTO t VALUES (4)").await;
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Blocked);
        assert_eq!(attempts.pause, RETRY);
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Stuck);
        run(&mut later, "COMMIT").await;
        assert_eq!(wal.empty(&mut conn, &mut attempts).await.unwrap(), Attempt::Emptied);
        assert_eq!((attempts.copied, attempts.pause), (None, RETRY));
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
    }
}
