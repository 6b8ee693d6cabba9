//! The store: the database of a deployment, and the sessions that it gives out.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::{Error, Result};
use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::database::connect::{self, Database, Opened};
use crate::database::postgres::pool::Sessions;
use crate::database::sqlite::readers::Readers;
use crate::database::sqlite::wal::Wal;
use crate::database::{Pool, PoolSettings, Pooled, error};
use crate::error::StoreError;
use crate::generations::Generations;
use crate::migration;
use crate::session::{Effects, Reader, Session, Writer};
use crate::transaction::group_commit::GroupCommit;
use crate::transaction::{Kind, Transaction};

/// The database of a deployment.
#[derive(Clone)]
pub struct Store {
    pub(crate) reader: Pooled,
    /// On SQLite a pool of one connection, so that writers queue here and not on the file lock; on PostgreSQL the same
    /// pool as `reader`.
    pub(crate) writer: Pooled,
    /// On SQLite, the queue for that connection.
    pub(crate) groups: Option<GroupCommit>,
    /// On SQLite, the task that empties the write-ahead log.
    wal: Option<Wal>,
    generations: Generations,
    /// Commits under way.
    commits: TaskTracker,
}

// === impl Store ===

impl Store {
    /// Opens the database without changing its schema.
    pub async fn connect(database: &Database, settings: PoolSettings) -> Result<Self, StoreError> {
        let Opened { reader, writer, guard } = connect::open(database, settings).await?;
        let wal = guard.as_ref().map(|guard| Wal::of(Arc::clone(guard.file())));
        let groups = guard
            .zip(writer.of_sqlite_writer())
            .map(|(guard, writer)| GroupCommit::new(writer.clone(), guard, settings.acquire_timeout));
        Ok(Store { groups, wal, ..Store::over(reader, writer) })
    }

    /// A store over connections that cannot write.
    pub(crate) fn read_only(readers: Readers) -> Self {
        let conn = Pooled::sqlite_readers(readers);
        Store::over(conn.clone(), conn)
    }

    fn over(reader: Pooled, writer: Pooled) -> Self {
        let (generations, commits) = (Generations::new(), TaskTracker::new());
        Store { reader, writer, groups: None, wal: None, generations, commits }
    }

    /// Brings the schema up to date, under a lock that lets one process at a time do so. Returns the newest migration.
    pub async fn migrate(&self) -> Result<String, StoreError> {
        migration::migrate(&self.writer).await
    }

    /// Refuses a schema that is not exactly the one that this program knows. Returns the newest migration.
    pub async fn schema_check(&self) -> Result<String, StoreError> {
        migration::check(&self.reader).await
    }

    /// Refuses a schema that is newer than this program. Returns the newest migration that was applied, if any was.
    ///
    /// # Errors
    /// The schema is newer, or cannot be read.
    pub async fn schema_known(&self) -> Result<Option<String>, StoreError> {
        migration::known(&self.reader).await
    }

    /// A session for reads without a transaction.
    pub fn read(&self) -> Reader {
        Session { conn: self.reader.clone(), effects: None }
    }

    /// Begins a write transaction. On SQLite it may be one of several that are committed as one: nothing that is written or
    /// read here may be sent to a caller before [`Writer::commit`] or [`Writer::rollback`] has returned.
    pub async fn write(&self) -> Result<Writer> {
        self.begin(Kind::Shared).await
    }

    /// Begins a long write transaction. On SQLite it shares its commit with no other, so no other writer has to wait for it.
    /// Its statements may run longer than those of usual calls.
    pub async fn write_long(&self) -> Result<Writer> {
        let txn = self.begin(Kind::Alone).await?;
        if txn.conn.get_database_backend() == DbBackend::Postgres {
            txn.run("SET LOCAL statement_timeout = '60s'").await?;
        }
        Ok(txn)
    }

    /// Begins a write transaction whose commit does not wait for the disk. A power failure may lose it, with all that follow it
    /// and do not wait either; a crash of this process does not. Other transactions see it as any other.
    pub async fn write_volatile(&self) -> Result<Writer> {
        self.begin(Kind::Volatile).await
    }

    /// Runs one statement that writes, without a transaction around it, and returns its rows. Its commit does not wait for the disk: on
    /// PostgreSQL the statement itself has to say so.
    pub(crate) async fn query_volatile(&self, statement: Statement) -> Result<Vec<QueryResult>> {
        let Some(groups) = &self.groups else {
            let found = self.writer.query_all_raw(statement).await;
            return found.map_err(|failed| match error::may_have_run(&failed) {
                true => error::outcome_unknown(failed),
                false => error::from_db(failed),
            });
        };
        let rows = groups.query_volatile(statement).await?;
        if let Some(wal) = &self.wal {
            wal.committed(false);
        }
        Ok(rows)
    }

    async fn begin(&self, kind: Kind) -> Result<Writer> {
        let conn = match &self.groups {
            Some(groups) => groups.begin(kind).instrument(tracing::info_span!("wait for the writer")).await?,
            None => Transaction::begin(&self.writer, kind.mode()).await.map_err(error::from_db)?,
        };
        let effects = Effects::new(self.generations.pending(), self.commits.clone(), self.wal.clone());
        Ok(Session { conn, effects: Some(effects) })
    }

    /// Keeps destroyed data out of SQLite's write-ahead log, until `stop`. On PostgreSQL it does nothing, because the log
    /// belongs to the server.
    pub async fn keep_log_empty(&self, stop: &CancellationToken) {
        if let Some(wal) = &self.wal {
            wal.keep_empty(stop).await;
        }
    }

    /// Checks whether the server says that it can be written: PostgreSQL cannot be written while it is a standby or was
    /// made read-only. SQLite shows it only when it is written ([`Store::is_writable`]), unless its file or log was
    /// replaced or removed.
    ///
    /// # Errors
    /// The server says that it cannot be written, or does not answer, or the file is lost.
    pub async fn writable(&self) -> Result<()> {
        if let Some(groups) = &self.groups {
            return groups.check_file();
        }
        let Some(sessions) = self.writer.of_postgres() else { return Ok(()) };
        if sessions.writable().await.map_err(error::from_db)? {
            return Ok(());
        }
        Err(error::gone("the server of the database is read-only"))
    }

    /// Returns whether the last write succeeded. `None` on PostgreSQL, where the pool looks for a server that can be written.
    pub fn is_writable(&self) -> Option<bool> {
        self.groups.as_ref().map(GroupCommit::succeeds)
    }

    /// Writes a value that is there already, to find out whether the database can be written again.
    pub async fn try_write(&self) -> Result<()> {
        let txn = self.write().await?;
        txn.run("UPDATE seaql_migrations SET applied_at = applied_at").await?;
        txn.commit().await
    }

    /// The time for which destroyed data has been in the write-ahead log: 0 if there is none, and on PostgreSQL.
    pub fn log_overdue(&self) -> Duration {
        self.wal.as_ref().map(Wal::overdue).unwrap_or_default()
    }

    /// The generations of the objects that this store and its clones have changed.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Returns whether other processes may write to the database: an SQLite file belongs to one.
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

    /// The version that the database reports.
    pub async fn backend_version(&self) -> Result<String> {
        let sql = match self.reader.get_database_backend() {
            DbBackend::Sqlite => "SELECT sqlite_version() AS version",
            _ => "SELECT current_setting('server_version') AS version",
        };
        let statement = Statement::from_string(self.reader.get_database_backend(), sql);
        let row = self.reader.query_one_raw(statement).await.map_err(error::from_db)?;
        let row = row.ok_or_else(|| Error::internal("the database did not say its version"))?;
        row.try_get("", "version").map_err(error::from_db)
    }

    /// The connections of each pool. Asks nothing of the database.
    pub fn pools(&self) -> Vec<Pool> {
        match self.is_shared() {
            true => vec![self.writer.count()],
            false => vec![self.reader.count(), self.writer.count()],
        }
    }

    /// The number of times that no connection to the database could be opened.
    pub fn connect_failures(&self) -> u64 {
        self.writer.of_postgres().map(Sessions::failures).unwrap_or_default()
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
}
