//! Flights: a process refreshes a credential in one task, and all who need it wait for its outcome.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::credential::IssuedToken;
use jackfield_domain::{CredentialId, Error, TenantId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{CredentialIdentity, RefreshError};
use crate::services::Services;

/// The outcome of a flight: the token that is stored now, or the reason why there is no newer one.
pub(crate) type Refreshed = Result<Arc<IssuedToken>, Arc<RefreshError>>;

/// The time for which a caller waits for a flight, which goes on after it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// The time at which the caller has to be answered; `None`: it waits until the flight ends.
    pub(crate) until: Option<Instant>,
    /// The most that the flight may take from its beginning on: for a caller who can do without it.
    pub(crate) longest: Option<Duration>,
}

/// The flights of this process.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Flight>>);

/// A flight for a credential that was deleted says nothing about another one with its id.
pub(super) type Key = (TenantId, CredentialIdentity);

#[derive(Clone)]
pub(super) struct Flight {
    /// The version of the material that is to be replaced.
    version: i64,
    begun: Instant,
    outcome: watch::Receiver<Option<Refreshed>>,
}

/// Removes a flight when its task ends, however it ends.
struct Landing {
    services: Services,
    key: Key,
}

/// The wait before a caller comes again for a refresh that is not finished.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Patience ===

impl Patience {
    /// The patience of a caller who has to be answered at a time.
    pub(crate) fn until(until: Option<Instant>) -> Self {
        Patience { until, longest: None }
    }

    /// The end of the wait for a flight; `None` if it is its own end.
    fn end(self, begun: Instant) -> Option<Instant> {
        let Patience { until, longest } = self;
        until.into_iter().chain(longest.map(|longest| begun + longest)).min()
    }
}

// === impl Flights ===

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.lock().contains_key(&key)
    }

    /// Returns whether there is one for a credential with an id, whenever it was created.
    pub(super) fn has_id(&self, tenant: TenantId, id: CredentialId) -> bool {
        self.lock().keys().any(|(of, identity)| *of == tenant && identity.id == id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Services ===

impl Services {
    /// Replaces the token of a credential whose material has a version, unless newer material is stored. The refresh goes on if the caller
    /// leaves, or its patience is over.
    pub(crate) async fn refreshed(
        &self,
        tenant: TenantId,
        credential: CredentialIdentity,
        version: i64,
        patience: Patience,
    ) -> Refreshed {
        loop {
            let mut flight = self.flight((tenant, credential), version);
            let end = patience.end(flight.begun);
            let outcome = flight.outcome();
            let outcome = match end {
                None => outcome.await,
                Some(end) => match timeout_at(end, outcome).await {
                    Ok(outcome) => outcome,
                    Err(_) => return Err(Arc::new(RefreshError::InProgress { retry_after: RETRY_AFTER })),
                },
            };
            let outcome = outcome.unwrap_or_else(|| {
                Err(Arc::new(RefreshError::Other(Error::internal("a refresh ended without an outcome"))))
            });
            // A flight for older material says nothing about this one.
            if flight.version >= version {
                return outcome;
            }
        }
    }

    /// Returns whether a credential is being refreshed by this process.
    pub(crate) fn is_refreshing(&self, tenant: TenantId, credential: CredentialIdentity) -> bool {
        self.shared.refreshes.flights.has((tenant, credential))
    }

    /// The flight of a credential, which begins if there is none.
    pub(super) fn flight(&self, key: Key, version: i64) -> Flight {
        let (sender, outcome) = watch::channel(None);
        let flight = Flight { version, begun: Instant::now(), outcome };
        match self.shared.refreshes.flights.lock().entry(key) {
            Entry::Occupied(known) => return known.get().clone(),
            Entry::Vacant(free) => {
                free.insert(flight.clone());
            }
        }
        let landing = Landing { services: self.clone(), key };
        // Without the lock: a runtime that ends drops the task at once, and with it the landing, which takes the lock.
        self.shared.tasks.spawn(async move {
            let (tenant, credential) = landing.key;
            let outcome = landing.services.refresh_run(tenant, credential, version).await;
            // The flight is removed before its outcome is published, so that a caller who needs a newer token starts another one.
            drop(landing);
            sender.send_replace(Some(outcome.map_err(Arc::new)));
        });
        flight
    }
}

// === impl Flight ===

impl Flight {
    /// Waits for the outcome; `None` if the flight ended without one.
    async fn outcome(&mut self) -> Option<Refreshed> {
        let outcome = self.outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.services.shared.refreshes.flights.lock().remove(&self.key);
    }
}
