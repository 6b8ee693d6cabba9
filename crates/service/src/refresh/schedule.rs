//! The schedule: credentials are refreshed ahead of the expiry of their tokens, within the budget of their connection.
//!
//! Tokens that expire together are not refreshed together: a provider sees no more requests than the budget, and whoever needs a token now
//! comes before those that still have time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::{ConnectionId, CredentialId, Result, TenantId};
use jackfield_store::DueCredential;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::services::Services;

/// The requests that the token endpoint of a connection gets from this process.
#[derive(Clone, Copy, Debug)]
pub struct RefreshBudget {
    /// Requests at once.
    pub concurrency: u32,
    /// Requests in a second.
    pub rate: u32,
    /// True if credentials are refreshed ahead of their expiry, and not only when a token is asked for.
    pub ahead: bool,
}

/// The budgets of all connections.
pub(super) struct Budget {
    settings: RefreshBudget,
    connections: Mutex<HashMap<(TenantId, ConnectionId), Arc<Spent>>>,
}

/// The part of the budget of a connection that is spent.
pub(super) struct Spent {
    places: Arc<Semaphore>,
    concurrency: usize,
    interval: Duration,
    state: Mutex<SpentState>,
}

struct SpentState {
    /// The time at which the next request may be sent.
    next: Instant,
    /// The scheduled requests, in progress and queued.
    reserved: usize,
    /// The version of the connection whose client the provider refused, and the time until which it is not asked again.
    refused: Option<(i64, Instant, String)>,
}

/// A place for one scheduled request. Dropping it frees the place.
struct Reserved(Arc<Spent>);

/// The interval at which credentials are looked for that are due.
const INTERVAL: Duration = Duration::from_secs(1);
/// The interval while some have to wait for the budget of their connection.
const INTERVAL_WITH_BACKLOG: Duration = Duration::from_millis(100);
/// The credentials that are looked at in one step.
const STEP: u64 = 256;
/// The connections that are remembered although nothing is under way.
const REMEMBERED: usize = 10_000;

// === impl Services ===

impl Services {
    /// Refreshes credentials that are due, until the server stops.
    pub(crate) async fn refresh_due(&self) {
        if !self.shared.refreshes.budget.settings.ahead {
            return;
        }
        let mut interval = INTERVAL;
        while self.shared.stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            interval = match self.refresh_step().await {
                Ok(true) => INTERVAL,
                Ok(false) => INTERVAL_WITH_BACKLOG,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "credentials that are to be refreshed could not be read");
                    INTERVAL
                }
            };
        }
    }

    /// Starts a scheduled refresh.
    fn refresh_ahead(&self, (tenant, id): (TenantId, CredentialId), version: i64, reserved: Reserved) {
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            // Why it failed is noted and logged where it failed.
            let _ = services.refreshed(tenant, id, version).await;
            drop(reserved);
        });
    }

    /// Begins as many refreshes as the budgets allow. Returns whether they allowed all that are due.
    async fn refresh_step(&self) -> Result<bool> {
        let refreshes = &self.shared.refreshes;
        // A connection without room is left out, so that it does not keep those of others back.
        let mut full = Vec::new();
        loop {
            let limit = STEP + refreshes.flights.len() as u64;
            let due = self.shared.store.read().credentials_due(self.now(), &full, limit).await?;
            let (count, known) = (due.len() as u64, full.len());
            for DueCredential { tenant, id, connection, version } in due {
                let Some(connection) = connection else { continue };
                if full.contains(&connection) || refreshes.flights.has((tenant, id)) {
                    continue;
                }
                match refreshes.budget.of(tenant, connection).reserve() {
                    Some(reserved) => self.refresh_ahead((tenant, id), version, reserved),
                    None => full.push(connection),
                }
            }
            if count < limit || full.len() == known {
                return Ok(full.is_empty());
            }
        }
    }
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(settings: RefreshBudget) -> Self {
        Budget { settings, connections: Mutex::default() }
    }

    pub(super) fn of(&self, tenant: TenantId, connection: ConnectionId) -> Arc<Spent> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() > REMEMBERED {
            connections.retain(|_, spent| Arc::strong_count(spent) > 1);
        }
        let spent = connections.entry((tenant, connection)).or_insert_with(|| Arc::new(Spent::new(self.settings)));
        Arc::clone(spent)
    }
}

// === impl Spent ===

impl Spent {
    fn new(RefreshBudget { concurrency, rate, ahead: _ }: RefreshBudget) -> Self {
        let concurrency = concurrency as usize;
        Spent {
            places: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            interval: Duration::from_secs(1) / rate.max(1),
            state: Mutex::new(SpentState { next: Instant::now(), reserved: 0, refused: None }),
        }
    }

    /// Waits until a request may be sent. It has its place until the permit is dropped.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let at = {
            let mut state = self.lock();
            let at = state.next.max(Instant::now());
            state.next = at + self.interval;
            at
        };
        tokio::time::sleep_until(at).await;
        Some(place)
    }

    /// Reserves a place for a scheduled request, if there is room. A quarter of the places is left to callers who wait.
    fn reserve(self: Arc<Self>) -> Option<Reserved> {
        let mut state = self.lock();
        let most = (self.concurrency - self.concurrency / 4).max(1);
        let is_refused = state.refused.as_ref().is_some_and(|(_, until, _)| *until > Instant::now());
        if state.reserved >= most || state.next > Instant::now() || is_refused {
            return None;
        }
        state.reserved += 1;
        drop(state);
        Some(Reserved(self))
    }

    /// Notes that the provider refused the client of a connection as it is now.
    pub(super) fn refuse(&self, connection: &Connection, reason: &str, wait: Duration) {
        self.lock().refused = Some((connection.meta.version, Instant::now() + wait, reason.to_owned()));
    }

    /// The reason for which the provider refused the client of a connection a short time ago, and the rest of the wait.
    pub(super) fn refused(&self, connection: &Connection) -> Option<(String, Duration)> {
        let state = self.lock();
        let (version, until, reason) = state.refused.as_ref()?;
        let rest = until.saturating_duration_since(Instant::now());
        (*version == connection.meta.version && !rest.is_zero()).then(|| (reason.clone(), rest))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SpentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Reserved ===

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}
