//! The pool of sessions with PostgreSQL. A caller gets an idle session, or waits for the first one that is given back or that
//! is opened in the background. So the open sessions serve all callers even if the server refuses more, and no caller waits
//! longer than `database.acquire_timeout`.
//!
//! A session that turns out to be unusable is closed, and makes all others doubtful: each is checked before it is used again.
//! Sessions with a standby are not used at all, because a standby cannot be written and may lag behind.

use std::sync::{Arc, Mutex};

use sea_orm::{DatabaseConnection, DbErr, SqlxPostgresConnector};
use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::{self, Lease};
use super::opening;
use super::session::{self, Access};
use super::session_pool::SessionPool;
use crate::database::{Pool, PoolSettings, spans};
use crate::error::StoreError;

/// The pool of sessions; clones share it.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<SessionPool>);

// === impl Sessions ===

impl Sessions {
    /// Opens the first session. `check` may refuse it before anything is set on it.
    pub(crate) async fn open(
        options: PgConnectOptions,
        settings: PoolSettings,
        check: impl AsyncFnOnce(&mut PgConnection) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(SessionPool {
            options,
            settings,
            free: Semaphore::new(0),
            state: Mutex::default(),
            hopeless: watch::Sender::new(0),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mut first = shared.first().await?;
        check(&mut first).await?;
        let first = opening::prepared(first).await?;
        shared.state().open = 1;
        shared.give_back(first);
        shared.tasks.spawn(opening::reap(Arc::downgrade(&shared), shared.closing.clone()));
        Ok(Sessions(shared))
    }

    /// A session, after at most `acquire_timeout`.
    pub(crate) async fn acquire(&self) -> Result<Lease, DbErr> {
        let until = Instant::now() + self.0.settings.acquire_timeout;
        loop {
            let session = self.0.take(until).await?;
            let is_doubted = self.0.state().doubted.is_some_and(|since| session.good <= since);
            let is_trusted = session.good.elapsed() < lease::TRUSTED_IDLE;
            let mut lease = Lease::new(session, Arc::clone(&self.0));
            if !is_doubted && is_trusted {
                spans::acquired();
                return Ok(lease);
            }
            let is_usable = async { if is_doubted { lease.is_usable().await } else { lease.responds().await } };
            if let Ok(true) = timeout_at(until, is_usable).await {
                spans::acquired();
                return Ok(lease);
            }
            lease.set_unusable();
            drop(lease);
            if Instant::now() >= until {
                return Err(self.0.timed_out());
            }
        }
    }

    /// Returns whether the server can be written. If it cannot, the next caller looks for a server that can.
    pub(crate) async fn writable(&self) -> Result<bool, DbErr> {
        let mut lease = self.acquire().await?;
        let is_writable = lease.access().await? == Access::Write;
        if !is_writable {
            lease.set_unusable();
        }
        Ok(is_writable)
    }

    /// The number of sessions.
    pub(crate) fn count(&self) -> Pool {
        let state = self.0.state();
        let idle = u32::try_from(state.idle.len()).unwrap_or(u32::MAX).min(state.open);
        Pool { name: "postgres", max: self.0.settings.max_connections, used: state.open - idle, idle }
    }

    /// Connections with the same settings in a pool of the library, for code that takes no other kind.
    pub(crate) async fn library_pool(&self, max_connections: u32) -> Result<DatabaseConnection, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(self.0.settings.acquire_timeout)
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    let prepared = session::prepare(conn).await;
                    prepared.map_err(|error| sqlx::Error::Configuration(error.into()))
                })
            })
            .connect_with(self.0.options.clone());
        let pool = pool.await.map_err(|error| StoreError::Connect(error.to_string()))?;
        Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
    }

    /// The number of times that no session could be opened.
    pub(crate) fn failures(&self) -> u64 {
        self.0.state().failures.count()
    }

    /// Closes all idle sessions.
    pub(crate) fn close_idle(&self) {
        self.0.close_idle(|_| true);
    }

    /// Closes all idle sessions, and the others when they are given back.
    pub(crate) async fn close(&self) {
        self.0.closing.cancel();
        self.0.free.close();
        let idle = std::mem::take(&mut self.0.state().idle);
        for session in idle {
            self.0.close(session);
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}
