//! How the two databases are opened. Every setting is explicit, and those of SQLite are read back on every connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxSqliteConnector};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use crate::group::Guard;
use crate::pooled::Pooled;
use crate::postgres_pool::Sessions;
use crate::session::StoreError;
use crate::{postgres_session, postgres_url, traced};

/// Which database, and where.
pub enum Database {
    /// An SQLite file; it is made when it is missing.
    Sqlite(PathBuf),
    /// A PostgreSQL connection URL. It may hold a password, so nothing here prints it.
    Postgres(String),
}

/// How many connections, and how long to wait for one.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Connections to PostgreSQL, or read connections to SQLite.
    pub max_connections: u32,
    /// How long a call waits for a connection before it is UNAVAILABLE.
    pub acquire_timeout: Duration,
}

/// The first version without the corruption of write-ahead logs by concurrent checkpoints.
const SQLITE_NEEDED: &str = "3.51.3";

/// Prepared statements that an SQLite connection keeps: each number of labels or ids makes one of its own.
const STATEMENTS: usize = 256;

/// What is set on every SQLite connection, and must read back so. `synchronous` 2 is FULL: an acknowledged write survives
/// a power cut.
const SQLITE_PRAGMAS: &[(&str, &str)] = &[
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

/// A database that is open.
pub(crate) struct Opened {
    pub(crate) reader: Pooled,
    pub(crate) writer: Pooled,
    /// On SQLite, what watches over the connection of the writer.
    pub(crate) guard: Option<Arc<Guard>>,
}

/// Opens a reader and a writer.
pub(crate) async fn open(database: &Database, settings: PoolSettings) -> Result<Opened, StoreError> {
    match database {
        Database::Sqlite(path) => open_sqlite(path.clone(), settings).await,
        Database::Postgres(url) => open_postgres(url, settings).await,
    }
}

async fn open_sqlite(path: PathBuf, settings: PoolSettings) -> Result<Opened, StoreError> {
    let options = sqlite_options(&path);
    let mut first = options.connect().await.map_err(|error| StoreError::Connect(error.to_string()))?;
    check_version(&mut first).await?;
    for (pragma, expected) in SQLITE_PRAGMAS {
        let actual = read_pragma(&mut first, pragma).await.map_err(|error| StoreError::Connect(error.to_string()))?;
        if actual != *expected {
            return Err(StoreError::Pragma { pragma, expected: (*expected).to_owned(), actual });
        }
    }
    first.close().await.map_err(|error| StoreError::Connect(error.to_string()))?;

    let pool = |max: u32, guard: Option<Arc<Guard>>| {
        SqlitePoolOptions::new()
            .max_connections(max)
            .min_connections(1)
            .acquire_timeout(settings.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            // There is no network that could have cut it off.
            .test_before_acquire(false)
            .before_acquire(|_, _| {
                traced::acquired();
                Box::pin(std::future::ready(Ok(true)))
            })
            .after_connect(move |conn, _| Box::pin(prepare_sqlite(conn, guard.clone())))
    };
    let open = |pool: SqlitePoolOptions| pool.connect_with(options.clone());
    let guard = Arc::new(Guard::default());
    // Readers have no transactions.
    let writer = pool(1, Some(Arc::clone(&guard))).after_release(|conn, _| Box::pin(is_out_of_transaction(conn)));
    let writer = open(writer).await.map_err(|error| StoreError::Connect(error.to_string()))?;
    let reader =
        open(pool(settings.max_connections, None)).await.map_err(|error| StoreError::Connect(error.to_string()))?;
    Ok(Opened {
        reader: Pooled::sqlite(SqlxSqliteConnector::from_sqlx_sqlite_pool(reader)),
        writer: Pooled::sqlite(SqlxSqliteConnector::from_sqlx_sqlite_pool(writer)),
        guard: Some(guard),
    })
}

pub(crate) fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(5_000))
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("secure_delete", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("mmap_size", "0")
        .pragma("journal_size_limit", "67108864")
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
}

/// Opens an SQLite file so that nothing of it changes.
pub(crate) async fn open_sqlite_read_only(path: &Path) -> Result<DatabaseConnection, StoreError> {
    // Without a log the file is all there is, and nobody writes it. To say so spares the directory the files that SQLite
    // makes beside a database even to read it. With a log, one that a crash left, they are there.
    let mut log = path.to_owned().into_os_string();
    log.push("-wal");
    let has_log = std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .immutable(!has_log)
        .busy_timeout(Duration::from_millis(5_000))
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("mmap_size", "0")
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
    let pool = pool.map_err(|error| StoreError::Connect(error.to_string()))?;
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

/// Writes the database as it is at this moment into an empty file. `VACUUM INTO` reads in one transaction, beside which
/// others write.
pub(crate) async fn copy_sqlite(path: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::Copy(error.to_string());
    let to = to.to_str().ok_or_else(|| StoreError::Copy("the name of the copy is not UTF-8".to_owned()))?;
    let mut conn = sqlite_options(path).create_if_missing(false).connect().await.map_err(failed)?;
    check_version(&mut conn).await?;
    sqlx::query("VACUUM INTO ?").bind(to).execute(&mut conn).await.map_err(failed)?;
    conn.close().await.map_err(failed)
}

async fn check_version(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT sqlite_version()").fetch_one(conn).await;
    let actual: String = row.and_then(|row| row.try_get(0)).map_err(|error| StoreError::Connect(error.to_string()))?;
    let parts = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    if parts(&actual) < parts(SQLITE_NEEDED) {
        return Err(StoreError::SqliteTooOld { actual, needed: SQLITE_NEEDED });
    }
    Ok(())
}

/// Makes a connection a reader, or puts it under the guard of writers, and refuses it if a setting did not take.
async fn prepare_sqlite(conn: &mut SqliteConnection, guard: Option<Arc<Guard>>) -> Result<(), sqlx::Error> {
    match guard {
        None => {
            sqlx::query("PRAGMA query_only = ON").execute(&mut *conn).await?;
        }
        Some(guard) => {
            let mut handle = conn.lock_handle().await?;
            let hook = Arc::clone(&guard);
            handle.set_commit_hook(move || hook.may_commit());
            handle.set_rollback_hook(move || guard.rolled_back());
        }
    }
    for (pragma, expected) in SQLITE_PRAGMAS {
        let actual = read_pragma(conn, pragma).await?;
        if actual != *expected {
            return Err(sqlx::Error::Configuration(format!("PRAGMA {pragma} is {actual}, not {expected}").into()));
        }
    }
    traced::acquired();
    Ok(())
}

/// Whether a connection may go back to its pool. When the disk is full SQLite rolls a transaction back by itself; sqlx then
/// fails to do so and counts the transaction as open from then on. The next one on this connection would be a savepoint, and
/// not immediate.
async fn is_out_of_transaction(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A roll-back that the end of a transaction has queued is done when this answers.
    conn.ping().await?;
    Ok(!conn.is_in_transaction())
}

async fn read_pragma(conn: &mut SqliteConnection, pragma: &'static str) -> Result<String, sqlx::Error> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).fetch_one(conn).await?;
    row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string()))
}

async fn open_postgres(url: &str, settings: PoolSettings) -> Result<Opened, StoreError> {
    let options = postgres_url::options(url)?
        .application_name("jackfield")
        // No column holds such a number, and poolers do not know the option.
        .extra_float_digits(None)
        .disable_statement_logging();
    // The first session is looked at before it is prepared: what is shared with others must not be changed for them.
    let look = async |first: &mut PgConnection| {
        postgres_session::refuse_shared(first, &options, settings.acquire_timeout).await?;
        postgres_session::refuse_encoding(first).await
    };
    let conn = Pooled::postgres(Sessions::open(options.clone(), settings, look).await?);
    Ok(Opened { reader: conn.clone(), writer: conn, guard: None })
}
