//! Sessions are opened in the background, never by a call. If attempts fail, they are made one after the other.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::session::{self, Access};
use super::session_pool::{MAX_IDLE, MAX_LIFETIME, PoolState, PooledSession, SessionPool};
use crate::error::StoreError;

/// The longest time that opening a session may take. A caller that waits for the session may be gone by then; the next
/// caller finds it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two attempts that fail: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The time between two looks for sessions that are too old.
const REAP_INTERVAL: Duration = Duration::from_secs(60);

/// Sets a session up, and refuses one with a standby.
pub(super) async fn prepared(mut conn: PgConnection) -> Result<Box<PooledSession>, StoreError> {
    session::prepare(&mut conn).await?;
    let access = session::access(&mut conn).await;
    if access.map_err(|error| StoreError::Connect(error.to_string()))? == Access::Standby {
        return Err(StoreError::Standby);
    }
    let identity = session::identity(&mut conn).await;
    let now = Instant::now();
    Ok(Box::new(PooledSession { conn, identity, opened: now, good: now }))
}

/// Closes sessions that are too old or were idle for too long, as long as the pool exists.
pub(super) async fn reap(shared: Weak<SessionPool>, closing: CancellationToken) {
    while closing.run_until_cancelled(sleep(REAP_INTERVAL)).await.is_some() {
        let Some(shared) = shared.upgrade() else { return };
        let is_old =
            |session: &PooledSession| session.opened.elapsed() >= MAX_LIFETIME || session.good.elapsed() >= MAX_IDLE;
        shared.close_idle(is_old);
    }
}

/// Returns whether the server is likely to take a connection in a moment: it is starting, or other clients have all its
/// connections.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

// === impl SessionPool ===

impl SessionPool {
    /// The first session, which is not prepared yet. A server that is starting gets some time to do so.
    pub(super) async fn first(&self) -> Result<PgConnection, StoreError> {
        let until = Instant::now() + self.settings.acquire_timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.options.connect()).await {
                Ok(Ok(conn)) => return Ok(conn),
                Ok(Err(error)) if passes(&error) && Instant::now() + pause < until => {}
                Ok(Err(error)) => return Err(StoreError::Connect(error.to_string())),
                Err(_) => {
                    return Err(StoreError::Connect("it does not answer within database.acquire_timeout".to_owned()));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Opens one more session in the background, if a caller waits for one and there may be more. While the server refuses
    /// more, one attempt at a time is enough.
    pub(super) fn open_more(self: &Arc<Self>, state: &mut PoolState) {
        let may = !self.closing.is_cancelled() && state.open + state.opening < self.settings.max_connections;
        let most = if state.failures.last().is_some() { 1 } else { state.waiting };
        if may && state.opening < most.min(state.waiting) {
            state.opening += 1;
            let shared = Arc::clone(self);
            self.spawn(async move {
                let closing = shared.closing.clone();
                closing.run_until_cancelled(shared.open_one()).await;
            });
        }
    }

    /// Tries until it succeeds or no caller waits any more.
    async fn open_one(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match timeout(CONNECT_TIMEOUT, self.connect()).await.unwrap_or_else(|_| Err(too_long())) {
                Ok(session) => {
                    let mut state = self.state();
                    state.opening -= 1;
                    state.open += 1;
                    if state.failures.clear() {
                        tracing::info!(
                            database.connections = state.open,
                            "a connection to the database was opened again"
                        );
                    }
                    // While attempts failed, none was made for other callers that may wait.
                    self.open_more(&mut state);
                    drop(state);
                    return self.give_back(session);
                }
                Err(FailedAttempt { text, passes }) => {
                    let mut state = self.state();
                    let open = state.open;
                    state.failures.note(text, open);
                    if open == 0 && !passes {
                        self.hopeless.send_modify(|count| *count += 1);
                    }
                    if state.waiting == 0 {
                        state.opening -= 1;
                        return;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Box<PooledSession>, FailedAttempt> {
        let conn = self.options.connect().await;
        let conn = conn.map_err(|error| FailedAttempt { passes: passes(&error), text: error.to_string() })?;
        // An address that moves with the primary may lead to it in a moment.
        prepared(conn).await.map_err(|error| FailedAttempt {
            passes: matches!(error, StoreError::Standby),
            text: match error {
                StoreError::Connect(text) => text,
                error => error.to_string(),
            },
        })
    }
}

/// An attempt that failed, and whether the next one may succeed.
struct FailedAttempt {
    text: String,
    passes: bool,
}

fn too_long() -> FailedAttempt {
    FailedAttempt { text: format!("it takes longer than {CONNECT_TIMEOUT:?}"), passes: true }
}
