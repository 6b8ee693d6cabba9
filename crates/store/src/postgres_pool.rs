//! The sessions with PostgreSQL. Who needs one gets an idle one, or waits for whichever comes first: one that is given back, or
//! one that is opened in the background. So what is open serves, however few more the server grants, and nobody waits longer than
//! `database.acquire_timeout`.
//!
//! A session that shows that it is of no use any more is closed, and makes all others doubtful: each is tried out before it is
//! used again. Sessions with a standby are not used at all, for they can write nothing and read what is past.

mod lease;
mod opening;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, SqlxPostgresConnector};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Semaphore, TryAcquireError, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::lease::Lease;
use self::opening::Failures;
use crate::backend::PoolSettings;
use crate::pool::Pool;
use crate::postgres_session::{self, Access};
use crate::session::StoreError;
use crate::traced;

/// The sessions with a database; clones share them.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Shared>);

struct Shared {
    options: PgConnectOptions,
    settings: PoolSettings,
    /// A permit for each idle session. Who waits for one is served in the order of coming.
    free: Semaphore,
    state: Mutex<State>,
    /// Counts attempts to connect that failed while there was no session at all: nobody need wait for what does not come.
    hopeless: watch::Sender<u64>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    /// The one that was used last is taken first.
    idle: VecDeque<Box<Session>>,
    /// Idle ones and those in use.
    open: u32,
    opening: u32,
    waiting: u32,
    /// What was not seen to be good since then is tried out before it is used.
    doubted: Option<Instant>,
    /// Sessions that were opened before are closed: what they have prepared is of a former schema.
    outdated: Option<Instant>,
    failures: Failures,
}

/// A session.
struct Session {
    conn: PgConnection,
    identity: Option<Arc<str>>,
    opened: Instant,
    /// When it was last seen to be good.
    good: Instant,
}

/// Somebody who waits for a session, as long as this lives.
struct Waiting<'a>(&'a Arc<Shared>);

/// A session that was idle for longer is tried out before it is used. A round trip before each statement would cost as much as
/// the statement.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// The longest that a session is kept, and that it is kept idle.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);
/// How often it is looked for sessions that are too old.
const REAP_INTERVAL: Duration = Duration::from_secs(60);
/// How long it may take until a session is ready that somebody left in the middle of something. A statement takes 5 s at most,
/// and what takes longer is not worth waiting for.
const RECOVERY: Duration = Duration::from_secs(6);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

// === impl Sessions ===

impl Sessions {
    /// Opens the first session. `look` may refuse it before anything is set on it.
    pub(crate) async fn open(
        options: PgConnectOptions,
        settings: PoolSettings,
        look: impl AsyncFnOnce(&mut PgConnection) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            options,
            settings,
            free: Semaphore::new(0),
            state: Mutex::default(),
            hopeless: watch::Sender::new(0),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let mut first = shared.first().await?;
        look(&mut first).await?;
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
            let is_trusted = session.good.elapsed() < TRUSTED_IDLE;
            let mut lease = Lease::new(session, self.clone());
            if !is_doubted && is_trusted {
                traced::acquired();
                return Ok(lease);
            }
            let look = async { if is_doubted { lease.is_good().await } else { lease.answers().await } };
            if let Ok(true) = timeout_at(until, look).await {
                traced::acquired();
                return Ok(lease);
            }
            lease.spoil();
            drop(lease);
            if Instant::now() >= until {
                return Err(self.0.timed_out());
            }
        }
    }

    /// Whether the server can be written. If not, whoever comes next looks for one that can.
    pub(crate) async fn writable(&self) -> Result<bool, DbErr> {
        let mut lease = self.acquire().await?;
        let is_writable = lease.access().await? == Access::Write;
        if !is_writable {
            lease.spoil();
        }
        Ok(is_writable)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> Pool {
        let state = self.0.state();
        let idle = u32::try_from(state.idle.len()).unwrap_or(u32::MAX).min(state.open);
        Pool { name: "postgres", max: self.0.settings.max_connections, used: state.open - idle, idle }
    }

    /// Connections with the same settings in a pool of the library, for what takes no others.
    pub(crate) async fn library_pool(&self, max_connections: u32) -> Result<DatabaseConnection, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(self.0.settings.acquire_timeout)
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    let prepared = postgres_session::prepare(conn).await;
                    prepared.map_err(|error| sqlx::Error::Configuration(error.into()))
                })
            })
            .connect_with(self.0.options.clone());
        let pool = pool.await.map_err(|error| StoreError::Connect(error.to_string()))?;
        Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
    }

    /// How often no session could be opened.
    pub(crate) fn failures(&self) -> u64 {
        self.0.state().failures.count()
    }

    /// Closes what is idle.
    pub(crate) fn close_idle(&self) {
        self.0.close_idle(|_| true);
    }

    /// Closes all sessions that were opened until now, those at work when they are given back: their prepared statements are of
    /// a schema that has changed.
    pub(crate) fn outdate(&self) {
        self.0.state().outdated = Some(Instant::now());
        self.close_idle();
    }

    /// Closes what is idle, and all others when they are given back.
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

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(self: &Arc<Self>, until: Instant) -> Result<Box<Session>, DbErr> {
        let permit = match self.free.try_acquire() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {
                let mut hopeless = self.hopeless.subscribe();
                let _waiting = Waiting::begin(self);
                tokio::select! {
                    biased;
                    permit = self.free.acquire() => permit.map_err(|_| closed())?,
                    _ = hopeless.changed() => return Err(self.failed()),
                    () = sleep_until(until) => return Err(self.timed_out()),
                }
            }
        };
        permit.forget();
        // There are as many permits as idle sessions.
        self.state().idle.pop_back().ok_or_else(closed)
    }

    fn give_back(self: &Arc<Self>, mut session: Box<Session>) {
        let is_outdated = self.state().outdated.is_some_and(|since| session.opened <= since);
        if self.closing.is_cancelled() || is_outdated || session.opened.elapsed() >= MAX_LIFETIME {
            return self.close(session);
        }
        session.good = Instant::now();
        self.state().idle.push_back(session);
        self.free.add_permits(1);
    }

    /// A session is of no use any more, and so may be all that were opened before.
    fn spoilt(self: &Arc<Self>, session: Box<Session>) {
        self.state().doubted = Some(Instant::now());
        self.close(session);
    }

    /// Closes a session, and opens another one if somebody waits.
    fn close(self: &Arc<Self>, session: Box<Session>) {
        let mut state = self.state();
        state.open = state.open.saturating_sub(1);
        self.open_more(&mut state);
        drop(state);
        self.spawn(async move {
            // Without the farewell the server would note a lost connection.
            let _ = timeout(FAREWELL, session.conn.close()).await;
        });
    }

    /// Somebody left a session in the middle of something. It is given back when that is over.
    fn recover(self: &Arc<Self>, mut session: Box<Session>, in_transaction: bool) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            let recovered = timeout(RECOVERY, async {
                if in_transaction {
                    sqlx::raw_sql("ROLLBACK").execute(&mut session.conn).await.is_ok()
                } else {
                    session.conn.ping().await.is_ok()
                }
            });
            match recovered.await {
                Ok(true) => shared.give_back(session),
                _ => shared.spoilt(session),
            }
        });
    }

    /// Without a runtime there is nobody left who would need what the task does.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.spawn_on(task, &runtime);
        }
    }

    fn timed_out(&self) -> DbErr {
        let state = self.state();
        let (max, patience) = (self.settings.max_connections, self.settings.acquire_timeout);
        let failure = state.failures.last().map(|failure| format!("; no more can be opened: {failure}"));
        let used = state.open - u32::try_from(state.idle.len()).unwrap_or(u32::MAX).min(state.open);
        failed(format!(
            "no connection to the database within {patience:?}: {used} of {max} (database.max_connections) are at work{}",
            failure.unwrap_or_default()
        ))
    }

    fn failed(&self) -> DbErr {
        failed(self.state().failures.last().unwrap_or("the database cannot be reached").to_owned())
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Arc<Shared>) -> Self {
        let mut state = shared.state();
        state.waiting += 1;
        shared.open_more(&mut state);
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

fn failed(text: String) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(text))
}

fn closed() -> DbErr {
    failed("the connections to the database are closed".to_owned())
}
