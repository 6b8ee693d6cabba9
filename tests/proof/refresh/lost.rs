//! Responses that count as lost. Each needs a fault of its round that explains it: a server that gives up what it could have had loses grants.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The reason of a response whose connection ended.
pub(super) const CONNECTION_LOST: &str = "CONNECTION_LOST";
/// The reason of a response that did not come in time.
pub(super) const TIMEOUT: &str = "TOTAL_TIMEOUT";
/// The reason of a response whose server crashed.
pub(super) const PROCESS_ENDED: &str = "PROCESS_ENDED";
/// The delay of a due task from which on time-outs may be the machine's. The longest delay of the provider that is no fault, and this, is still
/// less than its callers wait.
const SLOW: Duration = Duration::from_millis(250);
/// The pause between two looks at the clock.
const TICK: Duration = Duration::from_millis(10);

/// The number of faults of each kind in a round.
#[derive(Clone, Default)]
pub(super) struct Planted(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// The responses that count as lost, of all rounds.
#[derive(Default)]
pub(super) struct Losses {
    /// Their number, by the reason that the server gives.
    pub(super) by_reason: BTreeMap<String, usize>,
    /// The time-outs that no fault explains, in rounds in which the machine was slow.
    pub(super) of_slowness: usize,
}

/// The circumstances of a round.
pub(super) struct Round {
    pub(super) number: usize,
    pub(super) has_crash: bool,
    /// The longest time for which a task that was due has not run.
    pub(super) slowness: Duration,
    /// The same until the callers were done.
    pub(super) slowness_of_callers: Duration,
    /// The probability that a caller stores the tokens of another grant, in a hundred.
    pub(super) replaces: u64,
    /// True if the provider accepts a spent refresh token again for some time.
    pub(super) has_grace: bool,
}

/// The longest time for which a task that was due has not run since this was made. It tells a slow machine from a server that gives up early.
pub(super) struct Slowness {
    longest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

// === impl Planted ===

impl Planted {
    pub(super) fn count(&self, kind: &'static str) {
        *self.0.lock().expect("counts").entry(kind).or_default() += 1;
    }

    fn of(&self, kind: &str) -> usize {
        self.0.lock().expect("counts").get(kind).copied().unwrap_or_default()
    }
}

// === impl Losses ===

impl Losses {
    /// Adds the lost responses of a round. Returns those that none of its faults explains.
    pub(super) fn add(&mut self, round: &Round, lost: Vec<String>, planted: &Planted) -> Vec<String> {
        let mut counts = BTreeMap::<_, usize>::new();
        for reason in lost {
            *self.by_reason.entry(reason.clone()).or_default() += 1;
            // Which of its time-outs ended a request is a matter of the moment.
            let reason = if reason.ends_with("TIMEOUT") { TIMEOUT.to_owned() } else { reason };
            *counts.entry(reason).or_default() += 1;
        }
        let mut wrong = Vec::new();
        for (reason, count) in counts {
            let most = planted.of(&reason);
            match reason.as_str() {
                _ if count <= most => {}
                PROCESS_ENDED if round.has_crash => {}
                TIMEOUT if round.slowness > SLOW => self.of_slowness += count - most,
                _ => wrong.push(format!(
                    "round {}: {count} responses were lost because of {reason}, and faults explain {most}",
                    round.number
                )),
            }
        }
        wrong
    }
}

// === impl Slowness ===

impl Slowness {
    pub(super) fn watch() -> Self {
        let longest = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&longest);
        let task = tokio::spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                sleep(TICK).await;
                let late = due.elapsed().as_millis();
                seen.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Slowness { longest, task }
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Slowness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of losses in a round with one planted time-out that nothing explains.
    fn unexplained(lost: &[&str], has_crash: bool, is_slow: bool) -> usize {
        let planted = Planted::default();
        planted.count(TIMEOUT);
        let slowness = if is_slow { SLOW * 2 } else { SLOW / 2 };
        let (slowness_of_callers, replaces, has_grace) = (slowness, 0, false);
        let round = Round { number: 0, has_crash, slowness, slowness_of_callers, replaces, has_grace };
        let lost = lost.iter().map(|reason| (*reason).to_owned()).collect();
        Losses::default().add(&round, lost, &planted).len()
    }

    #[test]
    fn a_process_that_ended_explains_nothing_without_a_crash() {
        assert_eq!(unexplained(&[PROCESS_ENDED], true, false), 0);
        assert_eq!(unexplained(&[PROCESS_ENDED], false, true), 1);
    }

    #[test]
    fn timeouts_need_a_fault_or_a_slow_machine() {
        assert_eq!(unexplained(&[TIMEOUT], false, false), 0);
        assert_eq!(unexplained(&[TIMEOUT, "READ_TIMEOUT"], false, false), 1);
        assert_eq!(unexplained(&[TIMEOUT, "READ_TIMEOUT"], true, false), 1);
        assert_eq!(unexplained(&[TIMEOUT, "READ_TIMEOUT"], false, true), 0);
    }

    #[test]
    fn other_reasons_need_a_fault() {
        assert_eq!(unexplained(&[CONNECTION_LOST], true, true), 1);
    }
}
