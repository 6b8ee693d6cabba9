//! Sessions whose response came to the path of another connection. A browser with the state of a session can bring it there as often as
//! it likes, so the log has a line for each session now and then, and not for each request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jackfield_domain::AuthorizationSessionId;
use tokio::time::Instant;

/// The sessions that the log had a line for, and the times of these.
#[derive(Default)]
pub(crate) struct MisledSessions(Mutex<HashMap<AuthorizationSessionId, Instant>>);

/// The interval between two lines for one session.
const INTERVAL: Duration = Duration::from_secs(60);
/// The most sessions that have a line in an interval.
const MAX: usize = 1_000;

// === impl MisledSessions ===

impl MisledSessions {
    /// Returns whether the log is to have a line for a session, which is noted then.
    pub(super) fn is_to_log(&self, session: AuthorizationSessionId) -> bool {
        let now = Instant::now();
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |time: &Instant| *time + INTERVAL > now;
        if logged.get(&session).is_some_and(is_recent) {
            return false;
        }
        if logged.len() >= MAX {
            logged.retain(|_, time| is_recent(time));
        }
        let has_room = logged.len() < MAX;
        if has_room {
            logged.insert(session, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_has_a_line_in_each_interval_and_so_many_have_one() {
        let (misled, session) = (MisledSessions::default(), AuthorizationSessionId::generate());
        assert!(misled.is_to_log(session) && !misled.is_to_log(session));
        let others = || (0..MAX).filter(|_| misled.is_to_log(AuthorizationSessionId::generate())).count();
        assert_eq!(others(), MAX - 1);
        tokio::time::advance(INTERVAL).await;
        assert!(misled.is_to_log(session) && !misled.is_to_log(session));
        assert_eq!(others(), MAX - 1);
    }
}
