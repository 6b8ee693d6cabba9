//! The news that authorisations have changed, for those who watch one.

use std::time::Duration;

use jackfield_domain::AuthorizationSessionId;
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Tells those who watch an authorisation that it has changed here.
pub(crate) struct ChangedAuthorizations(Sender<AuthorizationSessionId>);

/// One who watches an authorisation.
pub(super) struct Watcher {
    id: AuthorizationSessionId,
    changed: Receiver<AuthorizationSessionId>,
}

/// The changes that a watcher may be late by. One that is later reads once too often.
const CAPACITY: usize = 256;
/// The interval at which a session that is watched is read, because another replica may have changed it.
const INTERVAL: Duration = Duration::from_secs(1);

// === impl ChangedAuthorizations ===

impl ChangedAuthorizations {
    pub(crate) fn tell(&self, id: AuthorizationSessionId) {
        // It fails if there is no watcher, which does no harm.
        let _ = self.0.send(id);
    }

    /// Watches an authorisation from now on.
    pub(super) fn watch(&self, id: AuthorizationSessionId) -> Watcher {
        Watcher { id, changed: self.0.subscribe() }
    }
}

impl Default for ChangedAuthorizations {
    fn default() -> Self {
        ChangedAuthorizations(broadcast::channel(CAPACITY).0)
    }
}

// === impl Watcher ===

impl Watcher {
    /// Waits until the authorisation may have changed. Changes of others do not end it.
    pub(super) async fn changed(&mut self) {
        let changed = async {
            while let Ok(id) = self.changed.recv().await {
                if id == self.id {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(INTERVAL, changed).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watcher_wakes_for_its_own_authorisation_and_at_the_interval() {
        let changed = ChangedAuthorizations::default();
        let (own, other) = (AuthorizationSessionId::generate(), AuthorizationSessionId::generate());
        changed.tell(own);
        let mut watcher = changed.watch(own);
        let waited = async |watcher: &mut Watcher| {
            let begin = Instant::now();
            watcher.changed().await;
            begin.elapsed()
        };
        changed.tell(other);
        assert_eq!(waited(&mut watcher).await, INTERVAL);
        changed.tell(other);
        changed.tell(own);
        changed.tell(other);
        assert_eq!(waited(&mut watcher).await, Duration::ZERO);
        assert_eq!(waited(&mut watcher).await, INTERVAL);
        // It cannot know which changes it missed.
        (0..=CAPACITY).for_each(|_| changed.tell(other));
        assert_eq!(waited(&mut watcher).await, Duration::ZERO);
    }
}
