//! The store and its sessions: how a use case gets at rows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jackfield_domain::{Error, Result, TenantId};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::backend::{self, Database, Opened, PoolSettings};
use crate::group::Groups;
use crate::pooled::Pooled;
use crate::postgres_url::UrlError;
use crate::stamps::{Stamps, Touched};
use crate::traced;
use crate::transaction::Transaction;
use crate::wal::Wal;
use crate::{error, migration};

/// The database of a deployment.
#[derive(Clone)]
pub struct Store {
    pub(crate) reader: Pooled,
    /// On SQLite a pool of one connection, so that writers queue here and not on the file lock; on PostgreSQL the same
    /// pool as `reader`.
    pub(crate) writer: Pooled,
    /// On SQLite, how writers come by that connection.
    pub(crate) groups: Option<Groups>,
    /// On SQLite, what sees to it that nothing stays in the write-ahead log.
    wal: Option<Wal>,
    stamps: Stamps,
    /// Commits under way.
    commits: TaskTracker,
}

/// Access to rows over a connection or a transaction.
pub struct Session<C> {
    pub(crate) conn: C,
    change: Option<Change>,
}

/// What a transaction keeps besides its connection; a [`Reader`] has none.
struct Change {
    touched: Touched,
    commits: TaskTracker,
    wal: Option<Wal>,
    /// Whether something was deleted or replaced that must not be found afterwards.
    destroys: AtomicBool,
    /// Rows that were not there before: what is stored of them takes the place of nothing.
    fresh: Mutex<HashSet<Uuid>>,
}

/// Access without a transaction: every query stands alone and takes a pool connection only while it runs.
pub type Reader = Session<Pooled>;

/// Access within a write transaction. Dropping it rolls back.
pub type Writer = Session<Transaction>;

/// Any number that nobody else takes as an advisory lock: "jackfon" in ASCII.
const ALONE_LOCK: i64 = 0x006a_6163_6b66_6f6e;

/// A change of more rows than this counts as one of the whole tenant.
const MANY: usize = 64;

/// Why a store does not open. Unlike [`Error`] it is for operators, so it says what is wrong in full, but never a
/// connection URL: that may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database.url: {0}")]
    Url(#[from] UrlError),
    #[error("the database cannot be reached: {0}")]
    Connect(String),
    #[error(
        "the server of the database is a standby, which cannot be written: database.url has to lead to the primary"
    )]
    Standby,
    #[error("the schema is newer than this program: it has the migration {migration}, which is unknown here")]
    SchemaNewer { migration: String },
    #[error("the schema is older than this program: the migration {migration} is missing; run `jackfield migrate`")]
    SchemaOlder { migration: String },
    #[error("the migration failed: {0}")]
    Migration(String),
    #[error("the database cannot be copied: {0}")]
    Copy(String),
    #[error("the SQLite setting {pragma} is {actual} and not {expected}")]
    Pragma { pragma: &'static str, expected: String, actual: String },
    #[error(
        "the setting {name} of the sessions with PostgreSQL is {actual} and not {expected}: a pooler in between does not pass on \
         what sets it; use one that gives each client a session (PgBouncer: pool_mode = session), or the address of PostgreSQL"
    )]
    Setting { name: &'static str, expected: &'static str, actual: String },
    #[error(
        "the database is behind a pooler that shares sessions between transactions or statements: give Jackfield sessions of its \
         own (PgBouncer: pool_mode = session for this database or user), or the address of PostgreSQL"
    )]
    SharedSessions,
    #[error(
        "the encoding of the database is {0} and not UTF8, so that it cannot hold every name: give Jackfield a database made with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding(String),
    #[error("SQLite {actual} is older than {needed}, the first without the known corruption of write-ahead logs")]
    SqliteTooOld { actual: String, needed: &'static str },
}

// === impl Store ===

impl Store {
    /// Opens the database without changing its schema.
    pub async fn connect(database: &Database, settings: PoolSettings) -> Result<Self, StoreError> {
        let Opened { reader, writer, guard } = backend::open(database, settings).await?;
        let groups = guard
            .zip(writer.of_sqlite())
            .map(|(guard, writer)| Groups::new(writer.clone(), guard, settings.acquire_timeout));
        let wal = match database {
            Database::Sqlite(path) => Some(Wal::of(path.clone())),
            Database::Postgres(_) => None,
        };
        Ok(Store { reader, writer, groups, wal, stamps: Stamps::new(), commits: TaskTracker::new() })
    }

    /// A store to look at, over a connection that cannot write.
    pub(crate) fn read_only(conn: DatabaseConnection) -> Self {
        let (stamps, commits, conn) = (Stamps::new(), TaskTracker::new(), Pooled::sqlite(conn));
        Store { reader: conn.clone(), writer: conn, groups: None, wal: None, stamps, commits }
    }

    /// Brings the schema up to date, under a lock that lets one process at a time do so. Returns the newest migration.
    pub async fn migrate(&self) -> Result<String, StoreError> {
        migration::migrate(&self.writer).await
    }

    /// Refuses a schema that is not exactly the one that this program knows. Returns the newest migration.
    pub async fn schema_check(&self) -> Result<String, StoreError> {
        migration::check(&self.reader).await
    }

    /// For reads that stand alone.
    pub fn read(&self) -> Reader {
        Session { conn: self.reader.clone(), change: None }
    }

    /// Begins a write transaction. On SQLite it may be one of several that are committed as one: what is written or read
    /// here must not be told to anybody before [`Writer::commit`] or [`Writer::rollback`] has returned.
    pub async fn write(&self) -> Result<Writer> {
        self.begin(false).await
    }

    /// Begins a write transaction that takes long, and that on SQLite nobody else should have to wait for: it shares its
    /// commit with no other. Its statements may run longer than those of usual calls.
    pub async fn write_long(&self) -> Result<Writer> {
        let txn = self.begin(true).await?;
        if txn.conn.get_database_backend() == DbBackend::Postgres {
            txn.run("SET LOCAL statement_timeout = '60s'").await?;
        }
        Ok(txn)
    }

    async fn begin(&self, alone: bool) -> Result<Writer> {
        let conn = match &self.groups {
            Some(groups) => groups.turn(alone).instrument(tracing::info_span!("wait for the writer")).await?,
            None => self.writer.begin(None).await.map_err(error::from_db)?,
        };
        let change = Change {
            touched: self.stamps.touched(),
            commits: self.commits.clone(),
            wal: self.wal.clone(),
            destroys: AtomicBool::new(false),
            fresh: Mutex::default(),
        };
        Ok(Session { conn, change: Some(change) })
    }

    /// Keeps what was destroyed out of SQLite's write-ahead log, until `stop`. On PostgreSQL there is nothing to do: its log is
    /// not ours.
    pub async fn keep_log_empty(&self, stop: &CancellationToken) {
        if let Some(wal) = &self.wal {
            wal.keep_empty(stop).await;
        }
    }

    /// Whether a server says that it can be written: PostgreSQL does not while it is a standby or was made read-only. What SQLite
    /// can do shows only when it is done ([`Store::is_writable`]).
    ///
    /// # Errors
    /// It says that it cannot, or does not answer.
    pub async fn writable(&self) -> Result<()> {
        let Some(sessions) = self.writer.of_postgres() else { return Ok(()) };
        if sessions.writable().await.map_err(error::from_db)? {
            return Ok(());
        }
        Err(error::gone("the server of the database is read-only"))
    }

    /// Whether the last write succeeded, if that is looked at: on SQLite, whose one file has no better one to go to.
    pub fn is_writable(&self) -> Option<bool> {
        self.groups.as_ref().map(Groups::succeed)
    }

    /// Writes what is there already, to find out whether it can be written again.
    pub async fn try_write(&self) -> Result<()> {
        let txn = self.write().await?;
        txn.run("UPDATE seaql_migrations SET applied_at = applied_at").await?;
        txn.commit().await
    }

    /// For how long something is in the write-ahead log that was destroyed: 0 if nothing is, and on PostgreSQL.
    pub fn log_overdue(&self) -> Duration {
        self.wal.as_ref().map(Wal::overdue).unwrap_or_default()
    }

    /// When which object changed last, by this store and its clones.
    pub fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Whether other processes may write to the database: an SQLite file belongs to one.
    pub fn is_shared(&self) -> bool {
        self.reader.get_database_backend() != DbBackend::Sqlite
    }

    /// "sqlite" or "postgres".
    pub fn backend_name(&self) -> &'static str {
        match self.reader.get_database_backend() {
            DbBackend::Sqlite => "sqlite",
            _ => "postgres",
        }
    }

    /// The version that the database says of itself.
    pub async fn backend_version(&self) -> Result<String> {
        let sql = match self.reader.get_database_backend() {
            DbBackend::Sqlite => "SELECT sqlite_version() AS version",
            _ => "SELECT current_setting('server_version') AS version",
        };
        let row = self.reader.query_one_raw(self.statement(sql)).await.map_err(error::from_db)?;
        let row = row.ok_or_else(|| Error::internal("the database did not say its version"))?;
        row.try_get("", "version").map_err(error::from_db)
    }

    /// Closes all connections; SQLite checkpoints its log.
    pub async fn close(self) {
        self.commits.close();
        self.commits.wait().await;
        if let Some(groups) = &self.groups {
            groups.close().await;
        }
        self.writer.close().await;
        self.reader.close().await;
    }

    fn statement(&self, sql: &str) -> Statement {
        Statement::from_string(self.reader.get_database_backend(), sql)
    }
}

// === impl Session ===

impl Writer {
    /// Waits until no other transaction that called this is open, in any replica: for what a deployment does once.
    pub async fn alone(&self) -> Result<()> {
        if self.conn.get_database_backend() == DbBackend::Postgres {
            self.run(&format!("SELECT pg_advisory_xact_lock({ALONE_LOCK})")).await?;
        }
        Ok(())
    }

    /// Gives way to other changes: waits for none of them for long enough to be taken for a deadlock (1 s), and fails first.
    pub async fn give_way(&self) -> Result<()> {
        if self.conn.get_database_backend() == DbBackend::Postgres {
            self.run("SET LOCAL lock_timeout = '200ms'").await?;
        }
        Ok(())
    }

    /// Makes everything durable that was written here. It is seen through even if nobody waits for it any more: a caller that
    /// left in the middle would otherwise leave a commit that may happen at any time. An error says that nothing was written,
    /// unless it is [`Error::OutcomeUnknown`].
    pub async fn commit(self) -> Result<()> {
        let Session { conn, change } = self;
        let Some(Change { touched, commits, wal, destroys, .. }) = change else { return conn.commit().await };
        let committing = touched.commit();
        let span = traced::statement(conn.get_database_backend(), "COMMIT");
        let commit = commits.spawn(async move {
            let done = conn.commit().await;
            drop(committing);
            // What failed may have been written all the same.
            if let Some(wal) = wal {
                wal.committed(destroys.into_inner());
            }
            done
        });
        let ended = commit.instrument(span).await;
        ended.unwrap_or_else(|_| {
            Err(error::outcome_unknown(error::lost("the task of the commit did not come to its end")))
        })
    }

    /// Notes that a row changes, for what is remembered of it.
    pub(crate) fn touch(&self, tenant: TenantId, id: Uuid) {
        if let Some(change) = &self.change {
            change.touched.row(tenant, id);
        }
    }

    /// Notes that rows change: each of them, or all of the tenant if they are many.
    pub(crate) fn touch_rows(&self, tenant: TenantId, ids: &[Uuid]) {
        match ids.len() {
            0..=MANY => ids.iter().for_each(|id| self.touch(tenant, *id)),
            _ => self.touch_tenant(tenant),
        }
    }

    /// Notes that anything of a tenant may change.
    pub(crate) fn touch_tenant(&self, tenant: TenantId) {
        if let Some(change) = &self.change {
            change.touched.tenant(tenant);
        }
    }

    /// Notes that a row was made that was not there before.
    pub(crate) fn is_fresh(&self, id: Uuid) {
        if let Some(change) = self.change.as_ref().filter(|change| change.wal.is_some()) {
            change.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
    }

    /// Notes that something of a row was deleted or replaced that must not be found afterwards, unless the row is fresh.
    pub(crate) fn destroys_of(&self, id: Uuid) {
        if let Some(change) = &self.change {
            let is_fresh = change.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
            change.destroys.fetch_or(!is_fresh, Ordering::Relaxed);
        }
    }

    /// Notes that something was deleted or replaced that must not be found afterwards.
    pub(crate) fn destroys(&self) {
        if let Some(change) = &self.change {
            change.destroys.store(true, Ordering::Relaxed);
        }
    }

    /// Undoes everything that was written here, and waits until what was read here is durable.
    pub async fn rollback(self) -> Result<()> {
        let span = traced::statement(self.conn.get_database_backend(), "ROLLBACK");
        self.conn.rollback().instrument(span).await
    }

    async fn run(&self, sql: &str) -> Result<()> {
        let statement = Statement::from_string(self.conn.get_database_backend(), sql);
        self.conn.execute_raw(statement).await.map(|_| ()).map_err(error::from_db)
    }
}
