//! Budgets: the requests that token endpoints get from this process, and what their providers made of the last ones.
//!
//! Tokens that expire together are not refreshed together: a provider sees no more requests than the budget, and callers who need a token
//! now come before those that still have time.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectionId, ConnectorId, TenantId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::CredentialIdentity;
use super::endpoint::{Endpoint, Endpoints};
use super::hold::Hold;
use crate::outbound::ClientVersion;

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
    refused: Option<Refusal>,
    /// The requests for single credentials that it refused although it accepts the client, in the same way.
    requests: HashMap<CredentialIdentity, Refusal>,
    /// The pause that it asked for.
    pause: Option<Pause>,
    /// The token endpoint, as the last refresh found it.
    endpoint: Option<Arc<Endpoint>>,
}

/// A client of a connection that its provider refused, or its request for one credential.
struct Refusal {
    client: ClientVersion,
    until: Instant,
    reason: String,
    /// The time from which the schedule looks whether it is another client by now.
    look: Instant,
}

/// A pause of all requests of a client.
struct Pause {
    client: ClientVersion,
    /// By the clock of the credentials, which say the same time as that of their next refresh.
    until: Timestamp,
    look: Instant,
}

/// The reason why a scheduled request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// There is no room in the budget, for a moment.
    Budget,
    /// The provider does not answer, refuses the client, or has asked for a pause.
    Provider,
}

/// A place for one scheduled request. Dropping it frees the place.
pub(super) struct Reserved(Arc<Spent>);

/// The connections that are remembered although nothing is under way and their providers asked for nothing.
const REMEMBERED: usize = 10_000;
/// The connections after which it is looked again for those that can be forgotten.
const SWEPT_AT: usize = 1_000;
/// The refused requests for single credentials that are remembered of a connection.
const REMEMBERED_REQUESTS: usize = 1_000;
/// The pause before the schedule looks again whether a client is another one than was refused.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

// === impl Budget ===

impl Budget {
    /// Makes the budgets. An endpoint may take so long.
    pub(super) fn new(settings: RefreshBudget, timeout: Duration) -> Self {
        Budget { settings, connections: Mutex::default(), endpoints: Endpoints::new(timeout) }
    }

    /// True if credentials are refreshed ahead of their expiry, and not only when a token is asked for.
    pub(super) fn is_ahead(&self) -> bool {
        self.settings.ahead
    }

    /// The spent part of the budget of a connection.
    pub(super) fn of(&self, tenant: TenantId, connection: ConnectionId, now: Timestamp) -> Arc<Spent> {
        let mut connections = self.lock();
        if let Some(known) = connections.get(&(tenant, connection)) {
            return Arc::clone(known);
        }
        // Where most are paused, not each new one looks through all of them.
        if connections.len() >= REMEMBERED && connections.len().is_multiple_of(SWEPT_AT) {
            // The schedule would otherwise ask a provider again that has asked for a pause.
            connections.retain(|_, spent| Arc::strong_count(spent) > 1 || !spent.is_idle(now));
        }
        let spent = Arc::new(Spent::new(self.settings));
        connections.insert((tenant, connection), Arc::clone(&spent));
        spent
    }

    /// The token endpoint of a connection, whose budget this is.
    pub(super) fn endpoint(
        &self,
        tenant: TenantId,
        connection: &Connection,
        url: &HttpUrl,
        spent: &Spent,
    ) -> Arc<Endpoint> {
        let endpoint = self.endpoints.of(tenant, connection.connector, url);
        spent.lock().endpoint = Some(Arc::clone(&endpoint));
        endpoint
    }

    /// Forgets silent endpoints that were not asked for a long time: their connections may be gone, or have others.
    pub(super) fn sweep(&self) {
        self.lock().values().for_each(|spent| spent.sweep());
    }

    /// The time for which no request is sent for any credential of a connection, as far as it is known without its client.
    pub(super) fn rest(&self, tenant: TenantId, connection: ConnectionId, now: Timestamp) -> Duration {
        let spent = self.lock().get(&(tenant, connection)).cloned();
        spent.map(|spent| spent.rest(now)).unwrap_or_default()
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
        let state = SpentState {
            next: Instant::now(),
            reserved: 0,
            refused: None,
            requests: HashMap::new(),
            pause: None,
            endpoint: None,
        };
        Spent {
            places: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            interval: Duration::from_secs(1) / rate.max(1),
            state: Mutex::new(state),
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
    pub(super) fn reserve(self: Arc<Self>, now: Timestamp) -> Result<Reserved, Wait> {
        let (mut state, at) = (self.lock(), Instant::now());
        let most = (self.concurrency - self.concurrency / 4).max(1);
        if state.silence().is_some() {
            return Err(Wait::Provider);
        }
        if state.reserved >= most || state.next > at {
            return Err(Wait::Budget);
        }
        // Its key or its connector may have changed, or its connection at another replica. The refresh compares them.
        let refused = state.refused.as_mut().filter(|refused| refused.until > at).map(|refused| &mut refused.look);
        if refused.is_some_and(|look| !has_come(look, at)) {
            return Err(Wait::Provider);
        }
        let paused = state.pause.as_mut().filter(|pause| pause.until > now).map(|pause| &mut pause.look);
        if paused.is_some_and(|look| !has_come(look, at)) {
            return Err(Wait::Provider);
        }
        state.reserved += 1;
        drop(state);
        Ok(Reserved(self))
    }

    fn forget(&self) {
        let mut state = self.lock();
        (state.refused, state.pause, state.endpoint) = (None, None, None);
        state.requests.clear();
    }

    fn sweep(&self) {
        let unasked = self.lock().endpoint.take_if(|endpoint| endpoint.is_unasked());
        // The last one that has it counts it out.
        drop(unasked);
    }

    /// Returns whether nothing has to be remembered: no refusal and no pause holds, and the endpoint answers.
    fn is_idle(&self, now: Timestamp) -> bool {
        let (state, at) = (self.lock(), Instant::now());
        let mut refusals = state.refused.iter().chain(state.requests.values());
        let is_paused = state.pause.as_ref().is_some_and(|pause| pause.until > now);
        state.next <= at && !is_paused && state.silence().is_none() && !refusals.any(|refusal| refusal.until > at)
    }

    fn is_of(&self, connector: ConnectorId) -> bool {
        self.lock().endpoint.as_ref().is_some_and(|endpoint| endpoint.is_of(connector))
    }

    /// Notes that the provider refused the client of a connection, or its request for one credential.
    pub(super) fn refuse(&self, of: Option<CredentialIdentity>, client: &ClientVersion, reason: &str, wait: Duration) {
        let (client, reason, now) = (client.clone(), reason.to_owned(), Instant::now());
        let refusal = Refusal { client, until: now + wait, reason, look: now + LOOK_PAUSE };
        let mut state = self.lock();
        let Some(credential) = of else {
            state.refused = Some(refusal);
            return;
        };
        if state.requests.len() >= REMEMBERED_REQUESTS {
            state.requests.retain(|_, known| known.until > now);
        }
        if state.requests.len() < REMEMBERED_REQUESTS {
            state.requests.insert(credential, refusal);
        }
    }

    /// Notes that the provider asked for a pause. One that lasts longer stays.
    pub(super) fn pause(&self, client: &ClientVersion, until: Timestamp) {
        let mut state = self.lock();
        let known = state.pause.as_ref().filter(|pause| pause.client == *client).map(|pause| pause.until);
        let until = known.map_or(until, |known| known.max(until));
        state.pause = Some(Pause { client: client.clone(), until, look: Instant::now() + LOOK_PAUSE });
    }

    /// Notes that the provider accepts the client of a connection, and its request for a credential. A pause is for those that follow.
    pub(super) fn accept(&self, credential: CredentialIdentity) {
        let mut state = self.lock();
        state.refused = None;
        state.requests.remove(&credential);
    }

    /// The reason for which this client sends the provider no request for a credential. Whether its endpoint is silent is not one: it may be
    /// another endpoint by now.
    pub(super) fn hold(&self, credential: CredentialIdentity, client: &ClientVersion, now: Timestamp) -> Option<Hold> {
        let (state, at) = (self.lock(), Instant::now());
        let refusals = state.refused.iter().chain(state.requests.get(&credential));
        let mut refusals = refusals.filter(|refusal| refusal.client == *client && refusal.until > at);
        if let Some(Refusal { until, reason, .. }) = refusals.next() {
            return Some(Hold::Refused { reason: reason.clone(), rest: *until - at });
        }
        state.pause_rest(client, now).map(Hold::Paused)
    }

    /// The rest of the pause that the provider asked this client for.
    pub(super) fn pause_rest(&self, client: &ClientVersion, now: Timestamp) -> Duration {
        self.lock().pause_rest(client, now).unwrap_or_default()
    }

    /// The hold of the endpoint that the last refresh found.
    pub(super) fn silence(&self) -> Option<Hold> {
        self.lock().silence().map(Hold::Silent)
    }

    fn rest(&self, now: Timestamp) -> Duration {
        let state = self.lock();
        let pause = state.pause.as_ref().and_then(|pause| pause.rest(now));
        pause.into_iter().chain(state.silence()).max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, SpentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SpentState ===

impl SpentState {
    fn silence(&self) -> Option<Duration> {
        self.endpoint.as_ref()?.rest()
    }

    fn pause_rest(&self, client: &ClientVersion, now: Timestamp) -> Option<Duration> {
        self.pause.as_ref().filter(|pause| pause.client == *client)?.rest(now)
    }
}

// === impl Pause ===

impl Pause {
    fn rest(&self, now: Timestamp) -> Option<Duration> {
        let rest = u64::try_from(self.until.0.saturating_sub(now.0)).unwrap_or_default();
        Some(Duration::from_micros(rest)).filter(|rest| !rest.is_zero())
    }
}

/// Returns whether the time of a look has come, and then puts off the next one.
fn has_come(look: &mut Instant, now: Instant) -> bool {
    let has_come = *look <= now;
    if has_come {
        *look = now + LOOK_PAUSE;
    }
    has_come
}

// === impl Reserved ===

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::CredentialId;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const SECOND: i64 = 1_000_000;

    fn budget() -> Budget {
        Budget::new(RefreshBudget { concurrency: 4, rate: 1_000, ahead: true }, Duration::from_secs(10))
    }

    fn spent(budget: &Budget) -> Arc<Spent> {
        numbered(budget, 2, NOW)
    }

    fn numbered(budget: &Budget, number: u128, now: Timestamp) -> Arc<Spent> {
        budget.of(TenantId(Uuid::from_u128(1)), ConnectionId(Uuid::from_u128(number)), now)
    }

    fn credential(number: u128) -> CredentialIdentity {
        CredentialIdentity { id: CredentialId(Uuid::from_u128(number)), create_time: NOW }
    }

    fn paused(spent: &Spent, client: &ClientVersion, now: Timestamp) -> Option<u64> {
        match spent.hold(credential(1), client, now) {
            Some(Hold::Paused(rest)) => Some(rest.as_secs()),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_for_the_whole_connection_until_it_ends() {
        let budget = budget();
        let (spent, client) = (spent(&budget), ClientVersion::numbered(1));
        assert!(paused(&spent, &client, NOW).is_none() && Arc::clone(&spent).reserve(NOW).is_ok());
        spent.pause(&client, NOW.plus_micros(60 * SECOND));
        spent.pause(&client, NOW.plus_micros(5 * SECOND));
        assert_eq!(paused(&spent, &client, NOW), Some(60), "a shorter one does not end it");
        assert_eq!(paused(&spent, &ClientVersion::numbered(2), NOW), None, "it is another client");
        spent.accept(credential(1));
        assert_eq!(paused(&spent, &client, NOW.plus_micros(59 * SECOND)), Some(1), "a success does not end it");
        let rest = |now| budget.rest(TenantId(Uuid::from_u128(1)), ConnectionId(Uuid::from_u128(2)), now).as_secs();
        assert_eq!((rest(NOW), rest(NOW.plus_micros(60 * SECOND))), (60, 0));
        assert_eq!(Arc::clone(&spent).reserve(NOW).err(), Some(Wait::Provider));
        let end = NOW.plus_micros(60 * SECOND);
        assert!(paused(&spent, &client, end).is_none() && Arc::clone(&spent).reserve(end).is_ok());
        spent.pause(&client, end.plus_micros(SECOND));
        spent.forget();
        assert_eq!(paused(&spent, &client, end), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_holds_its_credential_and_a_refused_client_all() {
        let budget = budget();
        let (spent, client) = (spent(&budget), ClientVersion::numbered(1));
        let is_held = |number, client: &ClientVersion| spent.hold(credential(number), client, NOW).is_some();
        spent.refuse(Some(credential(1)), &client, "invalid_scope", Duration::from_secs(60));
        assert!(is_held(1, &client) && !is_held(2, &client));
        let recreated = CredentialIdentity { create_time: NOW.plus_micros(1), ..credential(1) };
        assert!(spent.hold(recreated, &client, NOW).is_none(), "it is another credential");
        assert!(!is_held(1, &ClientVersion::numbered(2)), "the connection has changed");
        assert!(Arc::clone(&spent).reserve(NOW).is_ok(), "others are refreshed");
        spent.refuse(None, &client, "invalid_client", Duration::from_secs(60));
        assert!(is_held(2, &client) && Arc::clone(&spent).reserve(NOW).is_err());
        spent.accept(credential(2));
        assert!(is_held(1, &client) && !is_held(2, &client));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!is_held(1, &client));
        for number in 0..2 * REMEMBERED_REQUESTS as u128 {
            spent.refuse(Some(credential(number)), &client, "invalid_scope", Duration::from_secs(60));
        }
        assert_eq!(spent.lock().requests.len(), REMEMBERED_REQUESTS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_provider_asked_for_is_remembered_however_many_connections_there_are() {
        let (budget, client) = (budget(), ClientVersion::numbered(1));
        let minute = Duration::from_secs(60);
        spent(&budget).pause(&client, NOW.plus_micros(60 * SECOND));
        numbered(&budget, 3, NOW).refuse(None, &client, "invalid_client", minute);
        numbered(&budget, 4, NOW).refuse(Some(credential(1)), &client, "invalid_scope", minute);
        let url = HttpUrl::parse("url", "https://a/", 100).unwrap();
        let silent = numbered(&budget, 5, NOW);
        let endpoint = budget.endpoints.of(TenantId(Uuid::from_u128(1)), ConnectorId(Uuid::from_u128(1)), &url);
        (0..5).for_each(|_| endpoint.admit().unwrap_or_else(|_| panic!("it is asked")).note(Some(false)));
        silent.lock().endpoint = Some(endpoint);
        drop(silent);
        let used = numbered(&budget, 6, NOW);
        let fill =
            |from: u128, now| (0..REMEMBERED as u128).for_each(|number| drop(numbered(&budget, from + number, now)));
        let known = |number: u128| {
            let key = (TenantId(Uuid::from_u128(1)), ConnectionId(Uuid::from_u128(number)));
            budget.lock().contains_key(&key)
        };
        fill(100, NOW);
        assert!((2..=6).all(known) && budget.lock().len() <= REMEMBERED);
        assert_eq!(paused(&spent(&budget), &client, NOW), Some(60));

        tokio::time::advance(minute).await;
        fill(100_000, NOW.plus_micros(60 * SECOND));
        assert_eq!(
            (2..=6).filter(|number| known(*number)).collect::<Vec<_>>(),
            [6],
            "all is over but for what is used"
        );
        drop(used);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_endpoint_that_is_asked_no_more_is_forgotten() {
        let (budget, hour) = (budget(), Duration::from_secs(3_600));
        let url = HttpUrl::parse("url", "https://a/", 100).unwrap();
        let spent = spent(&budget);
        let endpoint = budget.endpoints.of(TenantId(Uuid::from_u128(1)), ConnectorId(Uuid::from_u128(1)), &url);
        (0..5).for_each(|_| endpoint.admit().unwrap_or_else(|_| panic!("it is asked")).note(Some(false)));
        spent.lock().endpoint = Some(endpoint);
        let silent = || budget.silent_endpoints().load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::advance(hour).await;
        budget.sweep();
        assert_eq!(silent(), 1, "it may be asked at any time");
        tokio::time::advance(hour).await;
        budget.sweep();
        assert_eq!((silent(), spent.silence().is_none()), (0, true));
    }
}
