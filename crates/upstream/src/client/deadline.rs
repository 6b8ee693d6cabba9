//! The end of a call that is earlier than that of its total timeout.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::error::Fault;

/// A time at which a call ends, and whose time it is. The reason of a call that was cut there tells one from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The caller of this server stops waiting.
    Caller(Instant),
    /// This server gives the system no more time, whether or not a caller waits.
    Server(Instant),
}

/// The delay of a timer from which on this process has stood still: it was stopped, or its machine was.
const LATE: Duration = Duration::from_millis(50);
/// The time that it gets then to read what has come meanwhile.
const MOMENT: Duration = Duration::from_millis(200);

// === impl Deadline ===

impl Deadline {
    /// The time itself.
    pub fn at(self) -> Instant {
        match self {
            Deadline::Caller(at) | Deadline::Server(at) => at,
        }
    }

    /// The fault of a call that takes longer.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Deadline::Caller(_) => Fault::CallerTimeout,
            Deadline::Server(_) => Fault::TotalTimeout,
        }
    }
}

/// Waits until a time has passed. A process that stood still gets a moment more if an answer may have come meanwhile: the timers fire before the
/// runtime knows of it.
pub(super) async fn passed(at: Instant, may_have_come: impl Fn() -> bool) {
    sleep_until(at).await;
    if at.elapsed() > LATE && may_have_come() {
        sleep(MOMENT).await;
    }
}

/// The outcome of some work; `None` if a time passes before.
pub(super) async fn within<T>(
    at: Instant,
    work: impl Future<Output = T>,
    may_have_come: impl Fn() -> bool,
) -> Option<T> {
    tokio::select! {
        biased;
        outcome = work => Some(outcome),
        () = passed(at, may_have_come) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The work needs one more turn of the runtime after the process stood still.
    async fn after_a_standstill(may_have_come: bool) -> Option<()> {
        let at = Instant::now() + LATE;
        let work = async {
            thread::sleep(LATE * 4);
            sleep(MOMENT / 4).await;
        };
        within(at, work, || may_have_come).await
    }

    #[tokio::test]
    async fn what_came_while_the_process_stood_still_is_not_late() {
        assert_eq!(after_a_standstill(true).await, Some(()));
        assert_eq!(after_a_standstill(false).await, None, "nothing was asked for");
    }

    #[tokio::test]
    async fn a_deadline_in_time_is_the_end() {
        let at = Instant::now() + LATE;
        assert_eq!(within(at, sleep(LATE + MOMENT * 10), || true).await, None);
        assert!(at.elapsed() < MOMENT * 5);
    }
}
