//! The connections that read an SQLite file. All are opened at the start, because later there may be another file at the
//! path.
//!
//! The pool of the library asks a connection after each statement, in a task of its own, whether it is still there. Here a
//! connection is given back at once: it is a thread of this process that runs its statements in their order, and none of them
//! is part of a transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sea_orm::{ConnAcquireErr, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::file::OpenedFile;
use crate::database::driver::{in_execution, in_query, query};
use crate::database::{Pool, PoolSettings, spans};

/// The settings of readers only. All readers are open at all times, and a list fills the page cache of each. The system caches
/// the file too.
const PRAGMAS: &[(&str, &str)] = &[("query_only", "1"), ("cache_size", "-1000")];

/// The pool of connections; clones share it.
#[derive(Clone)]
pub(crate) struct Readers(Arc<Shared>);

struct Shared {
    options: SqliteConnectOptions,
    /// The files that every connection must lead to.
    file: Option<Arc<OpenedFile>>,
    max: u32,
    /// The time that a caller waits for a connection.
    patience: Duration,
    /// One permit for each connection that is not in use.
    free: Semaphore,
    closed: AtomicBool,
    /// The connection that was used last is taken first: its page cache is warm. There is none for a permit whose connection
    /// was lost; the next caller opens it.
    idle: Mutex<Vec<SqliteConnection>>,
    /// Tasks that wait for the statements of callers who left.
    tasks: TaskTracker,
}

/// A connection in use. Dropping the lease gives it back.
struct Lease {
    /// `None` if it is lost, or once it was given back.
    conn: Option<SqliteConnection>,
    shared: Arc<Shared>,
    /// True if a statement is under way.
    busy: bool,
}

// === impl Readers ===

impl Readers {
    /// Opens all connections.
    pub(super) async fn open(
        options: SqliteConnectOptions,
        settings: PoolSettings,
        file: Option<Arc<OpenedFile>>,
    ) -> Result<Self, sqlx::Error> {
        let PoolSettings { max_connections: max, acquire_timeout: patience } = settings;
        let free = Semaphore::new(max as usize);
        let (closed, idle, tasks) = (AtomicBool::new(false), Mutex::default(), TaskTracker::new());
        let shared = Arc::new(Shared { options, file, max, patience, free, closed, idle, tasks });
        for _ in 0..max {
            let conn = shared.open().await?;
            shared.idle().push(conn);
        }
        Ok(Readers(shared))
    }

    pub(crate) async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut lease = self.acquire().await?;
        let done = query(statement).execute(lease.begin()?).await;
        lease.end(done).map(Into::into).map_err(in_execution)
    }

    pub(crate) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut lease = self.acquire().await?;
        let done = lease.begin()?.execute(AssertSqlSafe(sql.to_owned())).await;
        lease.end(done).map(Into::into).map_err(in_execution)
    }

    pub(crate) async fn query_one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut lease = self.acquire().await?;
        let done = query(statement).fetch_optional(lease.begin()?).await;
        lease.end(done).map(|row| row.map(Into::into)).map_err(in_query)
    }

    pub(crate) async fn query_all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut lease = self.acquire().await?;
        let done = query(statement).fetch_all(lease.begin()?).await;
        let rows = lease.end(done).map_err(in_query)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// The connections at this moment.
    pub(crate) fn count(&self) -> Pool {
        let shared = &self.0;
        let free = u32::try_from(shared.free.available_permits()).unwrap_or(u32::MAX);
        let idle = u32::try_from(shared.idle().len()).unwrap_or(u32::MAX);
        Pool { name: "reader", max: shared.max, used: shared.max.saturating_sub(free), idle }
    }

    /// Gives out no connection any more, waits for the statements under way and closes all connections.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let all = self.0.free.acquire_many(self.0.max).await;
        let idle = std::mem::take(&mut *self.0.idle());
        for conn in idle {
            // It only reads.
            let _ = conn.close().await;
        }
        drop(all);
    }

    /// A connection, after at most the time of patience.
    async fn acquire(&self) -> Result<Lease, DbErr> {
        self.refuse_closed()?;
        let lease = match self.0.free.try_acquire().ok().map(|permit| self.lease(permit)) {
            Some(lease) if lease.conn.is_some() => lease,
            found => {
                let waited = timeout(self.0.patience, self.wait(found)).await;
                waited.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))??
            }
        };
        self.refuse_closed()?;
        spans::acquired();
        Ok(lease)
    }

    /// Waits for a lease if there is none, and opens its connection if the earlier one was lost.
    async fn wait(&self, found: Option<Lease>) -> Result<Lease, DbErr> {
        let mut lease = match found {
            Some(lease) => lease,
            None => self.lease(self.0.free.acquire().await.map_err(|_| closed())?),
        };
        if lease.conn.is_none() {
            let opened = self.0.open().await;
            lease.conn = Some(opened.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?);
        }
        Ok(lease)
    }

    fn lease(&self, permit: SemaphorePermit<'_>) -> Lease {
        permit.forget();
        Lease { conn: self.0.idle().pop(), shared: Arc::clone(&self.0), busy: false }
    }

    fn refuse_closed(&self) -> Result<(), DbErr> {
        if self.0.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

#[cfg(feature = "test-support")]
impl Readers {
    /// As many connections with the same settings in a pool of the library, for code that takes no other kind.
    ///
    /// # Errors
    /// A connection cannot be opened.
    pub(crate) async fn library_pool(&self) -> Result<sea_orm::DatabaseConnection, sqlx::Error> {
        let file = self.0.file.clone();
        let pool = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(self.0.max)
            .min_connections(self.0.max)
            .acquire_timeout(self.0.patience)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |conn, _| Box::pin(prepare(conn, file.clone())))
            .connect_with(self.0.options.clone());
        Ok(sea_orm::SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.await?))
    }
}

// === impl Shared ===

impl Shared {
    async fn open(&self) -> Result<SqliteConnection, sqlx::Error> {
        // If another file were opened, even for a moment, the log would be lost.
        self.file.as_deref().map_or(Ok(()), super::check_file)?;
        let mut conn = self.options.connect().await?;
        prepare(&mut conn, self.file.clone()).await?;
        Ok(conn)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection back, or `None` in the place of one that is lost.
    fn give_back(&self, conn: Option<SqliteConnection>) {
        self.idle().extend(conn);
        self.free.add_permits(1);
    }
}

// === impl Lease ===

impl Lease {
    fn begin(&mut self) -> Result<&mut SqliteConnection, DbErr> {
        self.busy = true;
        self.conn.as_mut().ok_or_else(|| in_query(sqlx::Error::WorkerCrashed))
    }

    fn end<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.busy = false;
        if let Err(sqlx::Error::WorkerCrashed) = &done {
            self.conn = None;
        }
        done
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let conn = self.conn.take();
        if !self.busy || conn.is_none() {
            return self.shared.give_back(conn);
        }
        // The caller left. The next one would wait for the rest of the statement although others may be idle.
        let mut lease = Lease { conn, shared: Arc::clone(&self.shared), busy: false };
        self.shared.tasks.spawn(async move {
            if let Some(conn) = &mut lease.conn
                && conn.ping().await.is_err()
            {
                lease.conn = None;
            }
            drop(lease);
        });
    }
}

fn closed() -> DbErr {
    DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)
}

/// Makes a connection a reader. Refuses it if it may lead to another file than earlier connections.
/// A file that cannot be written needs none of that.
async fn prepare(conn: &mut SqliteConnection, file: Option<Arc<OpenedFile>>) -> Result<(), sqlx::Error> {
    let Some(file) = file else { return Ok(()) };
    super::check_file(&file)?;
    for (pragma, value) in PRAGMAS {
        conn.execute(AssertSqlSafe(format!("PRAGMA {pragma} = {value}"))).await?;
    }
    super::check_settings(conn, super::PRAGMAS).await?;
    super::check_settings(conn, PRAGMAS).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes SQLite about a second.
    const SLOW: &str =
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000000) SELECT MAX(x) FROM n";

    fn statement(sql: &str) -> Statement {
        Statement::from_string(sea_orm::DbBackend::Sqlite, sql)
    }

    async fn open(directory: &tempfile::TempDir, max_connections: u32, patience: Duration) -> Readers {
        let options = super::super::options(&directory.path().join("database.sqlite3"));
        let settings = PoolSettings { max_connections, acquire_timeout: patience };
        Readers::open(options, settings, None).await.unwrap()
    }

    async fn one(readers: &Readers) -> i64 {
        let found = readers.query_one(statement("SELECT 1")).await.unwrap().unwrap();
        found.try_get_by_index(0).unwrap()
    }

    #[tokio::test]
    async fn a_setting_that_is_not_in_force_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut conn = super::super::options(&directory.path().join("database.sqlite3")).connect().await.unwrap();
        for (pragma, value) in PRAGMAS.iter().chain(super::super::PRAGMAS) {
            let settings = [(*pragma, *value)];
            let is_in_force = super::super::PRAGMAS.contains(&settings[0]);
            assert_eq!(super::super::check_settings(&mut conn, &settings).await.is_ok(), is_in_force, "{pragma}");
        }
    }

    #[tokio::test]
    async fn a_caller_waits_for_a_connection_as_long_as_it_is_patient() {
        let directory = tempfile::tempdir().unwrap();
        let readers = open(&directory, 2, Duration::from_millis(50)).await;
        assert_eq!(readers.count(), Pool { name: "reader", max: 2, used: 0, idle: 2 });
        let (first, second) = (readers.acquire().await.unwrap(), readers.acquire().await.unwrap());
        assert_eq!(readers.count(), Pool { name: "reader", max: 2, used: 2, idle: 0 });
        let refused = readers.query_one(statement("SELECT 1")).await.unwrap_err();
        assert!(matches!(refused, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)), "{refused}");
        drop(first);
        assert_eq!(one(&readers).await, 1);
        drop(second);
        assert_eq!(readers.count(), Pool { name: "reader", max: 2, used: 0, idle: 2 });
    }

    #[tokio::test]
    async fn a_connection_whose_caller_left_is_given_back_when_its_statement_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let readers = open(&directory, 2, Duration::from_secs(60)).await;
        tokio::select! {
            biased;
            _ = readers.query_one(statement(SLOW)) => panic!("the statement was not slow"),
            () = std::future::ready(()) => {}
        }
        // The other connection answers meanwhile.
        assert_eq!(one(&readers).await, 1);
        assert_eq!(readers.count(), Pool { name: "reader", max: 2, used: 1, idle: 1 });
        let both = [readers.acquire().await.unwrap(), readers.acquire().await.unwrap()];
        drop(both);
        assert_eq!(readers.count(), Pool { name: "reader", max: 2, used: 0, idle: 2 });
        assert_eq!(one(&readers).await, 1);
    }

    #[tokio::test]
    async fn a_lost_connection_is_replaced_by_the_next_caller() {
        let directory = tempfile::tempdir().unwrap();
        let readers = open(&directory, 1, Duration::from_secs(60)).await;
        let mut lease = readers.acquire().await.unwrap();
        lease.end::<()>(Err(sqlx::Error::WorkerCrashed)).unwrap_err();
        drop(lease);
        assert_eq!(readers.count(), Pool { name: "reader", max: 1, used: 0, idle: 0 });
        assert_eq!(one(&readers).await, 1);
        assert_eq!(readers.count(), Pool { name: "reader", max: 1, used: 0, idle: 1 });
    }

    #[tokio::test]
    async fn a_close_waits_for_statements_and_ends_the_pool() {
        let directory = tempfile::tempdir().unwrap();
        let readers = open(&directory, 2, Duration::from_secs(60)).await;
        let lease = readers.acquire().await.unwrap();
        let mut closing = std::pin::pin!(readers.close());
        tokio::select! {
            biased;
            () = &mut closing => panic!("it did not wait"),
            () = std::future::ready(()) => {}
        }
        drop(lease);
        closing.await;
        assert_eq!(readers.count().idle, 0);
        let refused = readers.query_one(statement("SELECT 1")).await.unwrap_err();
        assert!(matches!(refused, DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)), "{refused}");
        readers.close().await;
    }
}
