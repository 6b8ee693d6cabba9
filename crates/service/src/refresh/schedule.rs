//! The schedule: credentials are refreshed ahead of the expiry of their tokens, within the budget of their connection.
//!
//! Tokens that expire together are not refreshed together: a provider sees no more requests than the budget, and whoever needs a token now
//! comes before those that still have time.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectionId, ConnectorId, CredentialId, Result, TenantId};
use jackfield_store::DueCredential;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::endpoint::{Endpoint, Endpoints};
use crate::outbound::ClientVersion;
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
    endpoints: Endpoints,
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
    /// The client that the provider refused, until it is asked again.
    refused: Option<RefusedClient>,
    /// The token endpoint, as the last refresh found it.
    endpoint: Option<Arc<Endpoint>>,
}

/// A client of a connection that its provider refused.
struct RefusedClient {
    version: ClientVersion,
    until: Instant,
    reason: String,
    /// The time from which the schedule looks whether it is another client by now.
    look: Instant,
}

/// The reason why a scheduled request has to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// There is no room in the budget, for a moment.
    Budget,
    /// The provider does not answer, or refuses the client.
    Provider,
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
/// The pause before the schedule looks again whether a client is another one than was refused.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

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

    /// Forgets what the provider made of requests for a connection that has changed, or is gone.
    pub(crate) fn refresh_forget_connection(&self, tenant: TenantId, connection: ConnectionId) {
        self.shared.refreshes.budget.forget(tenant, connection);
    }

    /// The same for a connector and all of its connections.
    pub(crate) fn refresh_forget_connector(&self, tenant: TenantId, connector: ConnectorId) {
        self.shared.refreshes.budget.forget_connector(tenant, connector);
    }

    /// The same for a tenant that is gone.
    pub(crate) fn refresh_forget_tenant(&self, tenant: TenantId) {
        self.shared.refreshes.budget.forget_tenant(tenant);
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

    /// Begins as many refreshes as the budgets allow. Returns false if there will be room for more in a moment.
    async fn refresh_step(&self) -> Result<bool> {
        let refreshes = &self.shared.refreshes;
        // A connection without room is left out, so that it does not keep those of others back.
        let (mut full, mut is_soon) = (Vec::new(), false);
        loop {
            let limit = STEP + refreshes.flights.len() as u64;
            let due = self.shared.store.read().credentials_due(self.now(), &full, limit).await?;
            let (count, known) = (due.len() as u64, full.len());
            for DueCredential { tenant, id, connection, version } in due {
                let Some(connection) = connection else { continue };
                if full.contains(&(tenant, connection)) || refreshes.flights.has((tenant, id)) {
                    continue;
                }
                match refreshes.budget.of(tenant, connection).reserve() {
                    Ok(reserved) => self.refresh_ahead((tenant, id), version, reserved),
                    Err(wait) => {
                        is_soon |= wait == Wait::Budget;
                        full.push((tenant, connection));
                    }
                }
            }
            if count < limit || full.len() == known {
                return Ok(!is_soon);
            }
        }
    }
}

// === impl Budget ===

impl Budget {
    /// Makes the budgets. An endpoint may take so long.
    pub(super) fn new(settings: RefreshBudget, timeout: Duration) -> Self {
        Budget { settings, connections: Mutex::default(), endpoints: Endpoints::new(timeout) }
    }

    pub(super) fn of(&self, tenant: TenantId, connection: ConnectionId) -> Arc<Spent> {
        let mut connections = self.lock();
        if connections.len() > REMEMBERED {
            connections.retain(|_, spent| Arc::strong_count(spent) > 1);
        }
        let spent = connections.entry((tenant, connection)).or_insert_with(|| Arc::new(Spent::new(self.settings)));
        Arc::clone(spent)
    }

    /// The token endpoint of a connection.
    pub(super) fn endpoint(&self, tenant: TenantId, connection: &Connection, url: &HttpUrl) -> Arc<Endpoint> {
        let endpoint = self.endpoints.of(tenant, connection.connector, url);
        self.of(tenant, connection.id).lock().endpoint = Some(Arc::clone(&endpoint));
        endpoint
    }

    /// The time until a request may be sent to the token endpoint of a connection; `None` if one may be now.
    pub(super) fn endpoint_rest(&self, tenant: TenantId, connection: ConnectionId) -> Option<Duration> {
        let spent = self.lock().get(&(tenant, connection)).cloned()?;
        spent.endpoint_rest()
    }

    /// Forgets what the provider of a connection made of its client and of requests: the connection has changed, or is gone.
    pub(super) fn forget(&self, tenant: TenantId, connection: ConnectionId) {
        if let Some(spent) = self.lock().get(&(tenant, connection)) {
            spent.forget();
        }
    }

    /// The same for all connections of a connector.
    pub(super) fn forget_connector(&self, tenant: TenantId, connector: ConnectorId) {
        let connections = self.lock();
        let of_tenant = connections.iter().filter(|((of, _), _)| *of == tenant);
        of_tenant.filter(|(_, spent)| spent.is_of(connector)).for_each(|(_, spent)| spent.forget());
    }

    /// Forgets a tenant that is gone.
    pub(super) fn forget_tenant(&self, tenant: TenantId) {
        self.lock().retain(|(of, _), _| *of != tenant);
    }

    pub(super) fn silent_endpoints(&self) -> Arc<AtomicU64> {
        self.endpoints.silent()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(TenantId, ConnectionId), Arc<Spent>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
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
            state: Mutex::new(SpentState { next: Instant::now(), reserved: 0, refused: None, endpoint: None }),
        }
    }

    /// Waits until a request may be sent. It has its place until the permit is dropped. One that had a place before, and did not send, counts
    /// once.
    pub(super) async fn enter(&self, is_again: bool) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        if is_again {
            return Some(place);
        }
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
    fn reserve(self: Arc<Self>) -> Result<Reserved, Wait> {
        let (mut state, now) = (self.lock(), Instant::now());
        let most = (self.concurrency - self.concurrency / 4).max(1);
        if state.endpoint.as_ref().is_some_and(|endpoint| endpoint.rest().is_some()) {
            return Err(Wait::Provider);
        }
        if state.reserved >= most || state.next > now {
            return Err(Wait::Budget);
        }
        if let Some(refused) = state.refused.as_mut().filter(|refused| refused.until > now) {
            // Its key or its connector may have changed, or its connection at another replica. The refresh compares them.
            if refused.look > now {
                return Err(Wait::Provider);
            }
            refused.look = now + LOOK_PAUSE;
        }
        state.reserved += 1;
        drop(state);
        Ok(Reserved(self))
    }

    fn forget(&self) {
        let mut state = self.lock();
        (state.refused, state.endpoint) = (None, None);
    }

    fn is_of(&self, connector: ConnectorId) -> bool {
        self.lock().endpoint.as_ref().is_some_and(|endpoint| endpoint.is_of(connector))
    }

    /// Notes that the provider refused the client of a connection.
    pub(super) fn refuse(&self, version: &ClientVersion, reason: &str, wait: Duration) {
        let (version, reason, now) = (version.clone(), reason.to_owned(), Instant::now());
        self.lock().refused = Some(RefusedClient { version, until: now + wait, reason, look: now + LOOK_PAUSE });
    }

    /// Notes that the provider accepts the client of a connection.
    pub(super) fn accept(&self) {
        self.lock().refused = None;
    }

    /// The reason for which the provider refused this client of a connection a short time ago, and the rest of the wait.
    pub(super) fn refused(&self, client: &ClientVersion) -> Option<(String, Duration)> {
        let state = self.lock();
        let RefusedClient { version, until, reason, look: _ } = state.refused.as_ref()?;
        let rest = until.saturating_duration_since(Instant::now());
        (version == client && !rest.is_zero()).then(|| (reason.clone(), rest))
    }

    fn endpoint_rest(&self) -> Option<Duration> {
        let endpoint = self.lock().endpoint.clone()?;
        endpoint.rest()
    }

    fn lock(&self) -> MutexGuard<'_, SpentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Reserved ===

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}
