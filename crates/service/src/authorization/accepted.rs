//! The client secrets that providers accepted last, by connection. They are remembered by each process for itself: one that knows nothing
//! finds out by the order of the secrets.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jackfield_domain::connection::ClientSecretFacts;
use jackfield_domain::{ConnectionId, TenantId};

/// The secrets that were accepted last. A secret that was replaced under the same id is another one.
#[derive(Default)]
pub(crate) struct AcceptedSecrets(Mutex<HashMap<Key, ClientSecretFacts>>);

type Key = (TenantId, ConnectionId);

/// The most connections that are remembered.
const MAX: usize = 10_000;

// === impl AcceptedSecrets ===

impl AcceptedSecrets {
    /// Puts the secret that was accepted last before the others, whose order stays.
    pub(super) fn first(&self, key: Key, secrets: &mut [ClientSecretFacts]) {
        let known = self.lock().get(&key).cloned();
        if let Some(place) = secrets.iter().position(|secret| Some(secret) == known.as_ref()) {
            secrets[..=place].rotate_right(1);
        }
    }

    /// Remembers a secret that was accepted.
    pub(super) fn note(&self, key: Key, secret: &ClientSecretFacts) {
        let mut known = self.lock();
        if known.get(&key) == Some(secret) {
            return;
        }
        // A connection that is forgotten tries the secrets in their order.
        if known.len() >= MAX {
            known.clear();
        }
        known.insert(key, secret.clone());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, ClientSecretFacts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jackfield_domain::Timestamp;

    use super::*;

    fn secret(secret_id: &str, time: i64) -> ClientSecretFacts {
        ClientSecretFacts { secret_id: secret_id.to_owned(), create_time: Timestamp(time) }
    }

    #[test]
    fn the_secret_that_was_accepted_last_comes_first() {
        let (accepted, key) = (AcceptedSecrets::default(), (TenantId::generate(), ConnectionId::generate()));
        let stored = [secret("a", 1), secret("b", 1), secret("c", 1)];
        let order = |accepted: &AcceptedSecrets, mut secrets: [ClientSecretFacts; 3]| {
            accepted.first(key, &mut secrets);
            secrets.map(|secret| secret.secret_id).concat()
        };
        assert_eq!(order(&accepted, stored.clone()), "abc");
        accepted.note(key, &stored[2]);
        assert_eq!(order(&accepted, stored.clone()), "cab");
        // It has another value now.
        assert_eq!(order(&accepted, [secret("a", 1), secret("b", 1), secret("c", 2)]), "abc");
        (0..MAX).for_each(|_| accepted.note((key.0, ConnectionId::generate()), &stored[0]));
        assert_eq!(order(&accepted, stored), "abc", "only so many are remembered");
    }
}
