//! The codes that browsers have brought and that are being redeemed here, one at a time for each session: a browser with the cookie of a
//! session can load its page as often as they like.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jackfield_domain::AuthorizationSessionId;
use tokio::sync::watch;

/// The redemptions of this process that are under way.
#[derive(Default)]
pub(crate) struct Redemptions(Mutex<HashMap<AuthorizationSessionId, Ended>>);

/// The turn of a session. Dropping it leaves the turn to the next one, and wakes those who wait for it.
pub(super) struct Turn {
    redemptions: Arc<Redemptions>,
    id: AuthorizationSessionId,
    /// It is closed, and nothing is sent.
    _ended: watch::Sender<()>,
}

/// The end of a turn.
#[derive(Clone)]
pub(super) struct Ended(watch::Receiver<()>);

// === impl Redemptions ===

impl Redemptions {
    /// The turn of a session, or the end of the one that it has.
    pub(super) fn turn(self: &Arc<Self>, id: AuthorizationSessionId) -> Result<Turn, Ended> {
        let mut turns = self.lock();
        if let Some(ended) = turns.get(&id) {
            return Err(ended.clone());
        }
        let (sender, receiver) = watch::channel(());
        turns.insert(id, Ended(receiver));
        drop(turns);
        Ok(Turn { redemptions: Arc::clone(self), id, _ended: sender })
    }

    /// The end of the turn that a session has, if it has one.
    pub(super) fn under_way(&self, id: AuthorizationSessionId) -> Option<Ended> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AuthorizationSessionId, Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        self.redemptions.lock().remove(&self.id);
    }
}

// === impl Ended ===

impl Ended {
    pub(super) async fn wait(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_session_has_one_turn_and_the_others_wait_for_its_end() {
        let redemptions = Arc::new(Redemptions::default());
        let (one, other) = (AuthorizationSessionId::generate(), AuthorizationSessionId::generate());
        assert!(redemptions.under_way(one).is_none());
        let turn = redemptions.turn(one).ok();
        assert!(turn.is_some() && redemptions.turn(other).is_ok(), "they do not wait for each other");
        let waiting = [redemptions.turn(one).err(), redemptions.under_way(one)].map(Option::unwrap);
        assert!(waiting.iter().all(|ended| ended.clone().wait().now_or_never().is_none()));
        drop(turn);
        for ended in waiting {
            ended.wait().await;
        }
        assert!(redemptions.turn(one).is_ok());
        assert!(redemptions.lock().is_empty());
    }
}
