//! Responses that count as lost. Each needs a fault of its round that explains it: a server that gives up what it could have had loses grants.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_testkit::TestServer;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::disturbance::Disturbance;

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
    pub(super) disturbance: Disturbance,
    /// The longest time for which a task that was due has not run.
    pub(super) slowness: Duration,
    /// The same until the callers were done.
    pub(super) slowness_of_callers: Duration,
    /// The probability that a caller stores the tokens of another grant, in a hundred.
    pub(super) replaces: u64,
    /// True if the provider accepts a spent refresh token again for some time.
    pub(super) has_grace: bool,
}

/// The longest time for which a task that was due has not run since this was made, here or at a server. It tells a slow machine from a server that
/// gives up early.
#[derive(Default)]
pub(super) struct Slowness {
    longest: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

// === impl Planted ===

impl Planted {
    pub(super) fn count(&self, kind: &'static str) {
        *self.0.lock().expect("counts").entry(kind).or_default() += 1;
    }

    fn of(&self, kind: &str) -> usize {
        self.0.lock().expect("counts").get(kind).copied().unwrap_or_default()
    }

    /// The number of all requests.
    pub(super) fn requests(&self) -> usize {
        self.0.lock().expect("counts").values().sum()
    }

    /// The most of them that are lost in a round because the machine is slow: three, and a tenth.
    fn few(&self) -> usize {
        3 + self.requests() / 10
    }

    /// The number of all that lose a response.
    fn all(&self) -> usize {
        self.0.lock().expect("counts").iter().filter(|(kind, _)| !kind.is_empty()).map(|(_, count)| count).sum()
    }
}

// === impl Losses ===

impl Losses {
    /// Adds the lost responses of a round. Returns those that none of its faults explains.
    pub(super) fn add(&mut self, round: &Round, lost: Vec<String>, planted: &Planted) -> Vec<String> {
        let (mut counts, all) = (BTreeMap::<_, usize>::new(), lost.len());
        for reason in lost {
            *self.by_reason.entry(reason.clone()).or_default() += 1;
            // Which of its time-outs ended a request is a matter of the moment.
            let reason = if reason.ends_with("TIMEOUT") { TIMEOUT.to_owned() } else { reason };
            *counts.entry(reason).or_default() += 1;
        }
        let (excess, may_be_slow) = (all.saturating_sub(planted.all()), round.slowness > SLOW);
        let mut wrong = Vec::new();
        for (reason, count) in counts {
            let most = planted.of(&reason);
            match reason.as_str() {
                _ if count <= most => {}
                PROCESS_ENDED if round.disturbance.is_crash() => {}
                // The end of an attempt that is not written has no other reason.
                PROCESS_ENDED if round.disturbance.keeps_from_writing() && excess == 0 => {}
                // It explains a few, and not that tokens are lost which were received.
                PROCESS_ENDED if may_be_slow && round.disturbance.keeps_from_writing() && excess <= planted.few() => {
                    self.of_slowness += excess;
                }
                TIMEOUT if may_be_slow => self.of_slowness += count - most,
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
    /// Watches this runtime, and those of servers.
    pub(super) fn watch<'a>(servers: impl IntoIterator<Item = &'a TestServer>) -> Self {
        let mut slowness = Slowness::default();
        slowness.watch_on(&Handle::current());
        slowness.watch_also(servers);
        slowness
    }

    /// Watches servers that were started since.
    pub(super) fn watch_also<'a>(&mut self, servers: impl IntoIterator<Item = &'a TestServer>) {
        servers.into_iter().for_each(|server| self.watch_on(&server.runtime()));
    }

    fn watch_on(&mut self, runtime: &Handle) {
        let seen = Arc::clone(&self.longest);
        self.tasks.push(runtime.spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                sleep(TICK).await;
                let late = due.elapsed().as_millis();
                seen.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        }));
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Slowness {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of losses in a round with one planted time-out that nothing explains.
    fn unexplained(lost: &[&str], disturbance: Disturbance, is_slow: bool) -> usize {
        let planted = Planted::default();
        planted.count(TIMEOUT);
        planted.count("");
        let slowness = if is_slow { SLOW * 2 } else { SLOW / 2 };
        let (slowness_of_callers, replaces, has_grace) = (slowness, 0, false);
        let round = Round { number: 0, disturbance, slowness, slowness_of_callers, replaces, has_grace };
        let lost = lost.iter().map(|reason| (*reason).to_owned()).collect();
        Losses::default().add(&round, lost, &planted).len()
    }

    #[test]
    fn a_process_that_ended_explains_nothing_without_a_crash() {
        assert_eq!(unexplained(&[PROCESS_ENDED], Disturbance::Crash, false), 0);
        assert_eq!(unexplained(&[PROCESS_ENDED], Disturbance::None, true), 1);
    }

    #[test]
    fn an_end_that_was_not_written_needs_a_fault_all_the_same() {
        assert_eq!(unexplained(&[PROCESS_ENDED], Disturbance::Away, false), 0);
        assert_eq!(unexplained(&[PROCESS_ENDED, TIMEOUT], Disturbance::Away, false), 1);
        assert_eq!(unexplained(&[PROCESS_ENDED, TIMEOUT], Disturbance::CommitsLost, true), 0);
        assert_eq!(unexplained(&[PROCESS_ENDED; 4], Disturbance::CommitsLost, true), 0);
        assert_eq!(unexplained(&[PROCESS_ENDED; 5], Disturbance::CommitsLost, true), 1);
    }

    #[test]
    fn timeouts_need_a_fault_or_a_slow_machine() {
        assert_eq!(unexplained(&[TIMEOUT], Disturbance::None, false), 0);
        assert_eq!(unexplained(&[TIMEOUT, "READ_TIMEOUT"], Disturbance::None, false), 1);
        assert_eq!(unexplained(&[TIMEOUT, "READ_TIMEOUT"], Disturbance::Crash, false), 1);
        assert_eq!(unexplained(&[TIMEOUT, "READ_TIMEOUT"], Disturbance::None, true), 0);
    }

    #[test]
    fn other_reasons_need_a_fault() {
        assert_eq!(unexplained(&[CONNECTION_LOST], Disturbance::Crash, true), 1);
    }
}
