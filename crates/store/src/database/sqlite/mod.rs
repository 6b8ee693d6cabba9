//! SQLite. Every setting is explicit, and is read back on every connection of a server.

mod file;
pub(crate) mod guard;
pub(crate) mod readers;
pub(crate) mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxSqliteConnector};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use self::file::OpenedFile;
use self::guard::Guard;
use self::readers::Readers;
use super::error::is_damage_of_sqlx;
use super::settings::PoolSettings;
use super::spans;
use crate::error::StoreError;

/// The first version without the corruption of write-ahead logs by concurrent checkpoints.
const NEEDED_VERSION: &str = "3.51.3";

/// The prepared statements that a connection keeps. Each number of labels or ids needs its own statement.
const STATEMENTS: usize = 256;

/// The time that a statement waits for a lock of another connection.
const BUSY: Duration = Duration::from_secs(5);

/// The settings of every connection, and their values as they are read back. `synchronous` 2 is FULL: an acknowledged write
/// survives a power cut.
const PRAGMAS: &[(&str, &str)] = &[
    ("journal_mode", "wal"),
    ("synchronous", "2"),
    ("foreign_keys", "1"),
    ("busy_timeout", "5000"),
    ("trusted_schema", "0"),
    ("cell_size_check", "1"),
    ("secure_delete", "1"),
    ("temp_store", "2"),
    ("mmap_size", "0"),
    ("journal_size_limit", "67108864"),
];

/// The connections to an SQLite file.
pub(crate) struct SqlitePools {
    pub(crate) readers: Readers,
    /// A pool of one connection.
    pub(crate) writer: DatabaseConnection,
    /// Watches the connection of the writer.
    pub(crate) guard: Arc<Guard>,
}

/// Opens readers and a writer. The file is created if it is missing.
pub(crate) async fn open(path: PathBuf, settings: PoolSettings) -> Result<SqlitePools, StoreError> {
    let options = options(&path);
    let mut first = options.connect().await.map_err(failed)?;
    check_version(&mut first).await?;
    for (pragma, expected) in PRAGMAS {
        let actual = read_pragma(&mut first, pragma).await.map_err(failed)?;
        if actual != *expected {
            return Err(StoreError::Pragma { pragma, expected: (*expected).to_owned(), actual });
        }
    }
    // A connection that has read the database has made the log.
    read_pragma(&mut first, "schema_version").await.map_err(failed)?;
    let file = OpenedFile::at(&path).map_err(|error| StoreError::Connect(error.to_string()))?;

    let file = Arc::new(file);
    // A file that was removed is not created again.
    let options = options.create_if_missing(false);
    let guard = Arc::new(Guard::new(Arc::clone(&file)));
    let watch = Arc::clone(&guard);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        // It is opened now, because later there may be another file at the path.
        .min_connections(1)
        .acquire_timeout(settings.acquire_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        // There is no network that could have cut the connection off.
        .test_before_acquire(false)
        .before_acquire(|_, _| {
            spans::acquired();
            Box::pin(std::future::ready(Ok(true)))
        })
        .after_connect(move |conn, _| Box::pin(prepare_writer(conn, Arc::clone(&watch))))
        .after_release(|conn, _| Box::pin(is_out_of_transaction(conn)))
        .connect_with(options.clone());
    let writer = writer.await.map_err(failed)?;
    let readers = Readers::open(options, settings, Some(file)).await.map_err(failed)?;
    first.close().await.map_err(failed)?;
    Ok(SqlitePools { readers, writer: SqlxSqliteConnector::from_sqlx_sqlite_pool(writer), guard })
}

/// The options of every connection that may write.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("secure_delete", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("mmap_size", "0")
        .pragma("journal_size_limit", "67108864")
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
}

/// Opens a file without changing it.
pub(crate) async fn open_read_only(path: &Path) -> Result<Readers, StoreError> {
    // Without a log the file is complete and no process writes it. It is opened as immutable then, because otherwise SQLite
    // creates files beside a database even to read it. A log means that a crash left these files there.
    let mut log = path.to_owned().into_os_string();
    log.push("-wal");
    let has_log = std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .immutable(!has_log)
        .busy_timeout(BUSY)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("mmap_size", "0")
        .disable_statement_logging();
    let settings = PoolSettings { max_connections: 1, acquire_timeout: Duration::from_secs(30) };
    Readers::open(options, settings, None).await.map_err(failed)
}

/// Writes the database as it is at this moment into an empty file. `VACUUM INTO` reads in one transaction, and other
/// transactions can write meanwhile.
pub(crate) async fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| match failed(error) {
        StoreError::Connect(error) => StoreError::Copy(error),
        damaged => damaged,
    };
    let to = to.to_str().ok_or_else(|| StoreError::Copy("the name of the copy is not UTF-8".to_owned()))?;
    let mut conn = options(path).create_if_missing(false).connect().await.map_err(failed)?;
    check_version(&mut conn).await?;
    sqlx::query("VACUUM INTO ?").bind(to).execute(&mut conn).await.map_err(failed)?;
    conn.close().await.map_err(failed)
}

/// The error of a file that cannot be opened or read.
fn failed(error: sqlx::Error) -> StoreError {
    match is_damage_of_sqlx(&error) {
        true => StoreError::Damaged(error.to_string()),
        false => StoreError::Connect(error.to_string()),
    }
}

async fn check_version(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT sqlite_version()").fetch_one(conn).await;
    let actual: String = row.and_then(|row| row.try_get(0)).map_err(failed)?;
    let parts = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    if parts(&actual) < parts(NEEDED_VERSION) {
        return Err(StoreError::SqliteTooOld { actual, needed: NEEDED_VERSION });
    }
    Ok(())
}

/// Has the guard watch a connection. Refuses it if a setting is not as it should be, or if it may lead to another file than
/// earlier connections.
async fn prepare_writer(conn: &mut SqliteConnection, guard: Arc<Guard>) -> Result<(), sqlx::Error> {
    check_file(guard.file())?;
    let mut handle = conn.lock_handle().await?;
    let hook = Arc::clone(&guard);
    handle.set_commit_hook(move || hook.may_commit());
    handle.set_rollback_hook(move || guard.rolled_back());
    drop(handle);
    check_settings(conn, PRAGMAS).await?;
    spans::acquired();
    Ok(())
}

/// Refuses a new connection if it may lead to another file than earlier ones. Then it has done harm already (see `file.rs`), so
/// this is the last check and not the only one.
fn check_file(file: &OpenedFile) -> Result<(), sqlx::Error> {
    file.check().map_err(|error| sqlx::Error::Configuration(error.into()))
}

async fn check_settings(conn: &mut SqliteConnection, settings: &[(&'static str, &str)]) -> Result<(), sqlx::Error> {
    for (pragma, expected) in settings {
        let actual = read_pragma(conn, pragma).await?;
        if actual != *expected {
            return Err(sqlx::Error::Configuration(format!("PRAGMA {pragma} is {actual}, not {expected}").into()));
        }
    }
    Ok(())
}

/// Returns whether a connection may go back to its pool. When the disk is full, SQLite rolls a transaction back by itself; sqlx
/// then fails to do so and counts the transaction as open from then on. The next one on this connection would be a savepoint,
/// and not immediate.
async fn is_out_of_transaction(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A rollback that the end of a transaction has queued is done when this answers.
    conn.ping().await?;
    Ok(!conn.is_in_transaction())
}

async fn read_pragma(conn: &mut SqliteConnection, pragma: &'static str) -> Result<String, sqlx::Error> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).fetch_one(conn).await?;
    row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string()))
}
