//! Sessions: access to rows over a connection or within a transaction.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use jackfield_domain::{Result, TenantId};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::database::sqlite::wal::Wal;
use crate::database::{Pooled, error, spans};
use crate::generations::PendingChanges;
use crate::transaction::Transaction;

/// Access to rows over a connection or a transaction.
pub struct Session<C> {
    pub(crate) conn: C,
    /// A [`Reader`] has none.
    pub(crate) effects: Option<Effects>,
}

/// Access without a transaction: every query is on its own and takes a pool connection only while it runs.
pub type Reader = Session<Pooled>;

/// Access within a write transaction. Dropping it rolls back.
pub type Writer = Session<Transaction>;

/// The effects of a transaction, which it notes for its commit.
pub(crate) struct Effects {
    pending: PendingChanges,
    commits: TaskTracker,
    wal: Option<Wal>,
    /// True if data was deleted or replaced that must not be found afterwards.
    destroys: AtomicBool,
    /// Rows that this transaction inserted. Data that is stored for them replaces none.
    inserted: Mutex<HashSet<Uuid>>,
}

/// The key of an advisory lock; any number that no other program uses. It is "jackfon" in ASCII.
const DEPLOYMENT_LOCK: i64 = 0x006a_6163_6b66_6f6e;

/// A change of more rows than this counts as a change of the whole tenant.
const MANY_ROWS: usize = 64;

// === impl Effects ===

impl Effects {
    pub(crate) fn new(pending: PendingChanges, commits: TaskTracker, wal: Option<Wal>) -> Self {
        Effects { pending, commits, wal, destroys: AtomicBool::new(false), inserted: Mutex::default() }
    }
}

// === impl Writer ===

impl Writer {
    /// Waits until no other transaction that called this is open, in any replica. It is for steps that a deployment takes once.
    pub async fn lock_deployment(&self) -> Result<()> {
        if self.conn.get_database_backend() == DbBackend::Postgres {
            self.run(&format!("SELECT pg_advisory_xact_lock({DEPLOYMENT_LOCK})")).await?;
        }
        Ok(())
    }

    /// Gives way to other transactions: it waits so briefly for a lock that it fails before PostgreSQL looks for a deadlock
    /// (1 s). So in a deadlock this transaction fails, and not the other one.
    pub async fn give_way(&self) -> Result<()> {
        if self.conn.get_database_backend() == DbBackend::Postgres {
            self.run("SET LOCAL lock_timeout = '200ms'").await?;
        }
        Ok(())
    }

    /// Makes everything durable that was written here. The commit continues even if its caller is dropped: otherwise a
    /// caller that leaves in the middle would leave a commit that may happen at any time. An error means that nothing was
    /// written, unless it is [`jackfield_domain::Error::OutcomeUnknown`].
    pub async fn commit(self) -> Result<()> {
        let Session { conn, effects } = self;
        let Some(Effects { pending, commits, wal, destroys, .. }) = effects else { return conn.commit().await };
        let committing = pending.commit();
        let span = spans::statement(conn.get_database_backend(), "COMMIT");
        let commit = commits.spawn(async move {
            let done = conn.commit().await;
            drop(committing);
            // A commit that failed may have written all the same.
            if let Some(wal) = wal {
                wal.committed(destroys.into_inner());
            }
            done
        });
        let ended = commit.instrument(span).await;
        ended.unwrap_or_else(|_| Err(error::outcome_unknown(error::lost("the task of the commit did not finish"))))
    }

    /// Undoes everything that was written here, and waits until the rows that were read here are durable.
    pub async fn rollback(self) -> Result<()> {
        let span = spans::statement(self.conn.get_database_backend(), "ROLLBACK");
        self.conn.rollback().instrument(span).await
    }

    /// Notes that a row changes, for the caches that depend on it.
    pub(crate) fn touch(&self, tenant: TenantId, id: Uuid) {
        if let Some(effects) = &self.effects {
            effects.pending.row(tenant, id);
        }
    }

    /// Notes that rows change: each of them, or all rows of the tenant if they are many.
    pub(crate) fn touch_rows(&self, tenant: TenantId, ids: &[Uuid]) {
        match ids.len() {
            0..=MANY_ROWS => ids.iter().for_each(|id| self.touch(tenant, *id)),
            _ => self.touch_tenant(tenant),
        }
    }

    /// Notes that any row of a tenant may change.
    pub(crate) fn touch_tenant(&self, tenant: TenantId) {
        if let Some(effects) = &self.effects {
            effects.pending.tenant(tenant);
        }
    }

    /// Notes that a row was inserted.
    pub(crate) fn note_inserted(&self, id: Uuid) {
        if let Some(effects) = self.effects.as_ref().filter(|effects| effects.wal.is_some()) {
            effects.inserted.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
    }

    /// Notes that data of a row was deleted or replaced that must not be found afterwards, unless the row was inserted here.
    pub(crate) fn note_destroyed_of(&self, id: Uuid) {
        if let Some(effects) = &self.effects {
            let is_new = effects.inserted.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
            effects.destroys.fetch_or(!is_new, Ordering::Relaxed);
        }
    }

    /// Notes that data was deleted or replaced that must not be found afterwards.
    pub(crate) fn note_destroyed(&self) {
        if let Some(effects) = &self.effects {
            effects.destroys.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        let statement = Statement::from_string(self.conn.get_database_backend(), sql);
        self.conn.execute_raw(statement).await.map(|_| ()).map_err(error::from_db)
    }
}
