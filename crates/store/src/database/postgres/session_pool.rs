//! The state of a pool: its idle sessions, and the callers that wait for one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Semaphore, TryAcquireError, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failures::Failures;
use crate::database::PoolSettings;

/// The state of a pool, which its sessions share.
pub(super) struct SessionPool {
    pub(super) options: PgConnectOptions,
    pub(super) settings: PoolSettings,
    /// A permit for each idle session. Callers that wait are served in order.
    pub(super) free: Semaphore,
    pub(super) state: Mutex<PoolState>,
    /// Counts attempts to connect that failed while there was no session at all. Callers that wait then fail at once.
    pub(super) hopeless: watch::Sender<u64>,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
}

#[derive(Default)]
pub(super) struct PoolState {
    /// The session that was used last is taken first.
    pub(super) idle: VecDeque<Box<PooledSession>>,
    /// Idle sessions and those in use.
    pub(super) open: u32,
    pub(super) opening: u32,
    pub(super) waiting: u32,
    /// Sessions that were last known to be good before this time are checked before they are used.
    pub(super) doubted: Option<Instant>,
    /// Sessions that were opened before this time are closed: their prepared statements are of an earlier schema.
    pub(super) outdated: Option<Instant>,
    pub(super) failures: Failures,
}

/// A session.
pub(super) struct PooledSession {
    pub(super) conn: PgConnection,
    pub(super) identity: Option<Arc<str>>,
    pub(super) opened: Instant,
    /// The last time at which it was known to be good.
    pub(super) good: Instant,
}

/// Counts as a caller that waits for a session, as long as it lives.
struct Waiter<'a>(&'a Arc<SessionPool>);

/// The longest time that a session is kept, and the longest time that it is kept idle.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
pub(super) const MAX_IDLE: Duration = Duration::from_secs(10 * 60);
/// The longest wait for a session that was given back in the middle of a statement. A statement takes 5 s at most, so a
/// session that takes longer is not worth waiting for.
const RECOVERY: Duration = Duration::from_secs(6);
/// The longest time that closing a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

// === impl SessionPool ===

impl SessionPool {
    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle session, or waits for one.
    pub(super) async fn take(self: &Arc<Self>, until: Instant) -> Result<Box<PooledSession>, DbErr> {
        let permit = match self.free.try_acquire() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {
                let mut hopeless = self.hopeless.subscribe();
                let _waiting = Waiter::begin(self);
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

    pub(super) fn give_back(self: &Arc<Self>, mut session: Box<PooledSession>) {
        let is_outdated = self.state().outdated.is_some_and(|since| session.opened <= since);
        if self.closing.is_cancelled() || is_outdated || session.opened.elapsed() >= MAX_LIFETIME {
            return self.close(session);
        }
        session.good = Instant::now();
        self.state().idle.push_back(session);
        self.free.add_permits(1);
    }

    /// Closes a session that is unusable. All sessions that were opened before it may be unusable, too.
    pub(super) fn discard(self: &Arc<Self>, session: Box<PooledSession>) {
        self.state().doubted = Some(Instant::now());
        self.close(session);
    }

    /// Closes a session, and opens another one if a caller waits.
    pub(super) fn close(self: &Arc<Self>, session: Box<PooledSession>) {
        let mut state = self.state();
        state.open = state.open.saturating_sub(1);
        self.open_more(&mut state);
        drop(state);
        self.spawn(async move {
            // A connection that is just dropped would appear in the log of the server.
            let _ = timeout(CLOSE_TIMEOUT, session.conn.close()).await;
        });
    }

    /// Waits until a session that was given back in the middle of a statement or transaction is usable again.
    pub(super) fn recover(self: &Arc<Self>, mut session: Box<PooledSession>, in_transaction: bool) {
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
                _ => shared.discard(session),
            }
        });
    }

    /// Starts a task. Without a runtime the process ends, and nothing needs the task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.spawn_on(task, &runtime);
        }
    }

    /// Closes the idle sessions that fit a condition.
    pub(super) fn close_idle(self: &Arc<Self>, fits: impl Fn(&PooledSession) -> bool) {
        while let Ok(permit) = self.free.try_acquire() {
            let mut state = self.state();
            let found = state.idle.iter().position(|session| fits(session));
            let Some(session) = found.and_then(|at| state.idle.remove(at)) else { return };
            permit.forget();
            drop(state);
            self.close(session);
        }
    }

    /// Closes all sessions that were opened until now, those in use when they are given back: their prepared statements are of
    /// an earlier schema.
    pub(super) fn outdate(self: &Arc<Self>) {
        self.state().outdated = Some(Instant::now());
        self.close_idle(|_| true);
    }

    pub(super) fn timed_out(&self) -> DbErr {
        let state = self.state();
        let (max, patience) = (self.settings.max_connections, self.settings.acquire_timeout);
        let failure = state.failures.last().map(|failure| format!("; no more can be opened: {failure}"));
        let used = state.open - u32::try_from(state.idle.len()).unwrap_or(u32::MAX).min(state.open);
        failed(format!(
            "no connection to the database within {patience:?}: {used} of {max} (database.max_connections) are in use{}",
            failure.unwrap_or_default()
        ))
    }

    fn failed(&self) -> DbErr {
        failed(self.state().failures.last().unwrap_or("the database cannot be reached").to_owned())
    }
}

// === impl Waiter ===

impl<'a> Waiter<'a> {
    fn begin(shared: &'a Arc<SessionPool>) -> Self {
        let mut state = shared.state();
        state.waiting += 1;
        shared.open_more(&mut state);
        Waiter(shared)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

pub(super) fn failed(text: String) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(text))
}

fn closed() -> DbErr {
    failed("the connections to the database are closed".to_owned())
}
