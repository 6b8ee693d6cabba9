//! The circuit breaker: after failures in a row no calls are made for a while, then one is tried.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::definition::Limits;

/// The breaker of one client.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    recovery: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Calls are made. So many failed since one succeeded.
    Closed(u32),
    /// No calls are made until then.
    Open(Instant),
    /// One call is tried.
    HalfOpen,
}

/// A call that the breaker admitted. If it is dropped without an outcome, it says nothing.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    breaker: &'a Breaker,
    is_trial: bool,
}

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(limits: &Limits) -> Self {
        Breaker { failures: limits.failures.max(1), recovery: limits.recovery, state: Mutex::new(State::Closed(0)) }
    }

    /// Admits a call.
    ///
    /// # Errors
    /// The time until the next one may be admitted.
    pub(super) fn admit(&self) -> Result<Admission<'_>, Duration> {
        let mut state = self.state();
        let is_trial = match *state {
            State::Closed(_) => false,
            State::Open(until) => {
                let wait = until.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    return Err(wait);
                }
                *state = State::HalfOpen;
                true
            }
            State::HalfOpen => return Err(self.recovery),
        };
        Ok(Admission { breaker: self, is_trial })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Admission ===

impl Admission<'_> {
    /// Notes the outcome. A call that began before the breaker opened does not count after that.
    pub(super) fn settle(mut self, is_outage: bool) {
        let mut state = self.breaker.state();
        *state = match *state {
            State::Closed(_) if !is_outage => State::Closed(0),
            State::Closed(failures) if failures + 1 < self.breaker.failures => State::Closed(failures + 1),
            State::HalfOpen if self.is_trial && !is_outage => State::Closed(0),
            State::HalfOpen if !self.is_trial => State::HalfOpen,
            State::Open(until) => State::Open(until),
            State::Closed(_) | State::HalfOpen => State::Open(Instant::now() + self.breaker.recovery),
        };
        drop(state);
        self.is_trial = false;
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            *self.breaker.state() = State::Open(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECOVERY: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        Breaker::new(&Limits { failures: 3, recovery: RECOVERY, ..Limits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_trial_closes_it() {
        let breaker = breaker();
        for is_outage in [true, true, false, true, true] {
            breaker.admit().unwrap().settle(is_outage);
        }
        let (late_success, late_failure) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        breaker.admit().unwrap().settle(true);
        assert_eq!(breaker.admit().unwrap_err(), RECOVERY);
        late_success.settle(false);
        assert!(breaker.admit().is_err());
        tokio::time::advance(RECOVERY).await;
        let trial = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        late_failure.settle(true);
        assert!(breaker.admit().is_err());
        trial.settle(true);
        assert_eq!(breaker.admit().unwrap_err(), RECOVERY);
        tokio::time::advance(RECOVERY).await;
        breaker.admit().unwrap().settle(false);
        breaker.admit().unwrap().settle(true);
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_leaves_the_place_to_the_next() {
        let breaker = breaker();
        for _ in 0..3 {
            breaker.admit().unwrap().settle(true);
        }
        tokio::time::advance(RECOVERY).await;
        drop(breaker.admit().unwrap());
        let trial = breaker.admit().unwrap();
        assert!(breaker.admit().is_err());
        trial.settle(false);
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_ok());
    }
}
