//! Token endpoints that do not answer, or fail. A request without an answer that says what became of its refresh token leaves in doubt
//! whether that is spent. So an endpoint that left several in doubt in a row gets one at a time, after a pause that grows, until it answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectorId, TenantId};
use tokio::time::Instant;

/// The token endpoints that connections use.
pub(super) struct Endpoints {
    /// The longest time that an endpoint may take.
    timeout: Duration,
    silent: Arc<AtomicU64>,
    known: Mutex<HashMap<Key, Weak<Endpoint>>>,
}

/// An endpoint is one for all connections of a connector that name it.
type Key = (TenantId, ConnectorId, String);

/// A token endpoint, as far as it is known whether it answers.
pub(super) struct Endpoint {
    connector: ConnectorId,
    /// The first pause.
    pause: Duration,
    /// The number of endpoints that do not answer.
    silent: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    /// Requests are sent. So many in a row had no conclusive answer.
    Answering(u32),
    /// None is sent until then, after a pause of this length.
    Silent(Instant, Duration),
    /// One is sent, after a pause of this length.
    Probed(Duration),
}

/// The permission to ask an endpoint. For one that does not answer, there is no other one meanwhile.
pub(super) struct Admission {
    endpoint: Arc<Endpoint>,
    /// True until a probe has its outcome.
    is_probe: bool,
}

/// The requests in a row without a conclusive answer after which an endpoint counts as silent: those of the circuit breaker of a connector.
const MOST_UNANSWERED: u32 = 5;
/// The longest pause, as a multiple of the first one.
const LONGEST_PAUSE: u32 = 12;
/// The time after its pause after which a silent endpoint that was not asked is forgotten.
const UNASKED: Duration = Duration::from_secs(3_600);
/// The endpoints that are remembered although no connection uses them.
const REMEMBERED: usize = 10_000;

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn new(timeout: Duration) -> Self {
        Endpoints { timeout, silent: Arc::default(), known: Mutex::default() }
    }

    /// The endpoint of a connector with a URL.
    pub(super) fn of(&self, tenant: TenantId, connector: ConnectorId, url: &HttpUrl) -> Arc<Endpoint> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant, connector, url.as_str().to_owned());
        if let Some(endpoint) = known.get(&key).and_then(Weak::upgrade) {
            return endpoint;
        }
        if known.len() > REMEMBERED {
            known.retain(|_, endpoint| endpoint.strong_count() > 0);
        }
        let endpoint = Arc::new(Endpoint {
            connector,
            pause: self.timeout,
            silent: Arc::clone(&self.silent),
            state: Mutex::new(State::Answering(0)),
        });
        known.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }

    /// The number of endpoints that do not answer.
    pub(super) fn silent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.silent)
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Permits a request.
    ///
    /// # Errors
    /// The time until the next one may be permitted.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, Duration> {
        let mut state = self.lock();
        if let Some(rest) = self.rest_of(*state) {
            return Err(rest);
        }
        let is_probe = match *state {
            State::Silent(_, pause) => {
                *state = State::Probed(pause);
                true
            }
            State::Answering(_) | State::Probed(_) => false,
        };
        drop(state);
        Ok(Admission { endpoint: Arc::clone(self), is_probe })
    }

    pub(super) fn is_of(&self, connector: ConnectorId) -> bool {
        self.connector == connector
    }

    /// The time until a request may be sent; `None` if one may be now.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.rest_of(*self.lock())
    }

    /// Returns whether it could have been asked for a long time, and was not: nothing says that it is still silent.
    pub(super) fn is_unasked(&self) -> bool {
        match *self.lock() {
            State::Silent(until, _) => until + UNASKED <= Instant::now(),
            State::Answering(_) | State::Probed(_) => false,
        }
    }

    fn rest_of(&self, state: State) -> Option<Duration> {
        match state {
            State::Answering(_) => None,
            State::Silent(until, _) => Some(until.saturating_duration_since(Instant::now())).filter(|it| !it.is_zero()),
            // By then it has its outcome, as a rule.
            State::Probed(_) => Some(self.pause),
        }
    }

    fn silent_for(pause: Duration) -> State {
        State::Silent(Instant::now() + pause, pause)
    }

    /// Moves to another state, and counts and logs what that says about the endpoint.
    fn set(&self, mut state: MutexGuard<'_, State>, next: State) {
        let was_silent = !matches!(*state, State::Answering(_));
        *state = next;
        match (was_silent, next) {
            (false, State::Silent(_, pause)) => {
                self.silent.fetch_add(1, Ordering::Relaxed);
                let pause = pause.as_secs_f64();
                tracing::warn!(connector.id = %self.connector, pause, "a token endpoint does not answer, or fails: it gets one refresh at a time, after a pause");
            }
            (true, State::Answering(_)) => {
                self.silent.fetch_sub(1, Ordering::Relaxed);
                tracing::info!(connector.id = %self.connector, "a token endpoint answers again");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if !matches!(*self.lock(), State::Answering(_)) {
            self.silent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Notes whether the answer to a request is conclusive; `None` if it did not leave, which says nothing.
    pub(super) fn note(&mut self, is_conclusive: Option<bool>) {
        let Some(is_conclusive) = is_conclusive else { return };
        let is_probe = std::mem::take(&mut self.is_probe);
        let endpoint = &self.endpoint;
        let state = endpoint.lock();
        let next = match *state {
            // Also that to a request which was sent before.
            _ if is_conclusive => State::Answering(0),
            State::Answering(lost) if lost + 1 < MOST_UNANSWERED => State::Answering(lost + 1),
            State::Answering(_) => Endpoint::silent_for(endpoint.pause),
            State::Probed(pause) if is_probe => Endpoint::silent_for((pause * 2).min(endpoint.pause * LONGEST_PAUSE)),
            // It was sent before.
            known @ (State::Silent(..) | State::Probed(_)) => known,
        };
        endpoint.set(state, next);
    }
}

impl Drop for Admission {
    /// A probe that was not sent leaves its place to the next one.
    fn drop(&mut self) {
        if self.is_probe {
            let mut state = self.endpoint.lock();
            if let State::Probed(pause) = *state {
                *state = State::Silent(Instant::now(), pause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn endpoint(endpoints: &Endpoints, url: &str) -> Arc<Endpoint> {
        let url = HttpUrl::parse("url", url, 100).unwrap();
        endpoints.of(TenantId(Uuid::from_u128(1)), ConnectorId(Uuid::from_u128(2)), &url)
    }

    fn note(endpoint: &Arc<Endpoint>, is_conclusive: Option<bool>) {
        endpoint.admit().unwrap_or_else(|wait| panic!("{wait:?}")).note(is_conclusive);
    }

    fn silent(endpoint: &Arc<Endpoint>) {
        (0..MOST_UNANSWERED).for_each(|_| note(endpoint, Some(false)));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_a_row_without_an_answer_end_them_until_one_is_answered() {
        let endpoints = Endpoints::new(TIMEOUT);
        let (first, other) = (endpoint(&endpoints, "https://a/"), endpoint(&endpoints, "https://b/"));
        let late: Vec<_> = (0..3).map(|_| first.admit().unwrap_or_else(|_| panic!("it is asked"))).collect();
        for is_conclusive in [false, false, false, false, true, false, false, false, false] {
            note(&first, Some(is_conclusive));
        }
        note(&first, None);
        assert_eq!((first.rest(), endpoints.silent().load(Ordering::Relaxed)), (None, 0));
        note(&first, Some(false));
        assert_eq!((first.rest(), endpoints.silent().load(Ordering::Relaxed)), (Some(TIMEOUT), 1));
        assert_eq!(first.admit().err(), Some(TIMEOUT));
        assert_eq!(other.rest(), None);
        for mut admission in late {
            admission.note(Some(false));
        }
        assert_eq!(first.rest(), Some(TIMEOUT), "those that were sent before prolong nothing");

        for pause in [TIMEOUT, TIMEOUT * 2, TIMEOUT * 4, TIMEOUT * 8, TIMEOUT * 12, TIMEOUT * 12] {
            assert_eq!(first.rest(), Some(pause));
            tokio::time::advance(pause).await;
            let mut probe = first.admit().unwrap_or_else(|_| panic!("it is tried"));
            assert_eq!(first.admit().err(), Some(TIMEOUT), "one at a time");
            probe.note(Some(false));
        }
        tokio::time::advance(TIMEOUT * 12).await;
        note(&first, Some(true));
        assert_eq!((first.rest(), endpoints.silent().load(Ordering::Relaxed)), (None, 0));
        silent(&first);
        assert_eq!(first.rest(), Some(TIMEOUT), "the pause begins again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_not_sent_leaves_its_place_to_the_next() {
        let endpoints = Endpoints::new(TIMEOUT);
        let first = endpoint(&endpoints, "https://a/");
        silent(&first);
        tokio::time::advance(TIMEOUT).await;
        note(&first, None);
        let probe = first.admit().unwrap_or_else(|_| panic!("it is tried"));
        assert!(first.admit().is_err());
        drop(probe);
        note(&first, Some(false));
        assert_eq!(first.rest(), Some(TIMEOUT * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_forgotten_with_its_connections() {
        let endpoints = Endpoints::new(TIMEOUT);
        let first = endpoint(&endpoints, "https://a/");
        silent(&first);
        assert!(endpoint(&endpoints, "https://a/").rest().is_some(), "connections share it");
        drop(first);
        assert_eq!(endpoints.silent().load(Ordering::Relaxed), 0);
        assert!(endpoint(&endpoints, "https://a/").rest().is_none());
    }
}
