//! Flights: a process refreshes a credential in one task, and all who need it wait for its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jackfield_domain::credential::IssuedToken;
use jackfield_domain::{CredentialId, Error, TenantId};
use tokio::sync::watch;

use super::RefreshError;
use crate::services::Services;

/// The outcome of a flight: the token that is stored now, or the reason why there is no newer one.
pub(crate) type Refreshed = Result<Arc<IssuedToken>, Arc<RefreshError>>;

/// The flights of this process.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Flight>>);

type Key = (TenantId, CredentialId);

#[derive(Clone)]
struct Flight {
    /// The version of the material that is to be replaced.
    version: i64,
    outcome: watch::Receiver<Option<Refreshed>>,
}

/// Removes a flight when its task ends, however it ends.
struct Landing {
    services: Services,
    key: Key,
}

// === impl Flights ===

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.lock().contains_key(&key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Services ===

impl Services {
    /// Replaces the token of a credential whose material has a version, unless newer material is stored. The refresh goes on if the caller
    /// leaves.
    pub(crate) async fn refreshed(&self, tenant: TenantId, credential: CredentialId, version: i64) -> Refreshed {
        loop {
            let mut flight = self.flight((tenant, credential), version);
            let outcome = match flight.outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                Err(_) => None,
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

    fn flight(&self, key: Key, version: i64) -> Flight {
        let mut flights = self.shared.refreshes.flights.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let flight = Flight { version, outcome };
        flights.insert(key, flight.clone());
        let landing = Landing { services: self.clone(), key };
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

impl Drop for Landing {
    fn drop(&mut self) {
        self.services.shared.refreshes.flights.lock().remove(&self.key);
    }
}
