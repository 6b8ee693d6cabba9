//! Disturbances while callers ask for tokens, besides the faults of the provider.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jackfield_testkit::ProviderFault;
use jackfield_testkit::proof::Rng;
use jackfield_testkit::provider::Gate;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::fleet::{Fleet, OtherWriter};

/// The disturbance of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// Nothing.
    None,
    /// A caller of one replica asks while the provider has the request of another one, whose clock is slow. With one server, both are its callers.
    Overlap,
    /// COMMITs are lost, or the answers to them. On SQLite, nothing.
    CommitsLost,
    /// A server crashes at some time after callers came: anything from the lease to the end of a refresh may be under way.
    Crash,
    /// A server crashes at some time after many answers came at once, which are then written to the journal and stored.
    CrashAnswered,
    /// All servers crash while each refresh stands still at one of its steps.
    CrashAtSteps,
    /// The database goes away before many answers come at once, and comes back.
    Away,
}

/// The disturbances of the rounds, one after the other.
pub(super) const ALL: &[Disturbance] = &[
    Disturbance::CrashAtSteps,
    Disturbance::Overlap,
    Disturbance::CommitsLost,
    Disturbance::None,
    Disturbance::CrashAnswered,
    Disturbance::Away,
    Disturbance::Crash,
];
/// Crashes alone, in every second round.
pub(super) const CRASHES: &[Disturbance] =
    &[Disturbance::Crash, Disturbance::None, Disturbance::CrashAnswered, Disturbance::None];

/// Answers that are held back until they come all at once, or each for a time.
#[derive(Clone)]
pub(super) struct Held {
    time: Option<Duration>,
    gate: Gate,
    /// The first one is held back.
    begun: Arc<Notify>,
}

/// The time for which answers are held back.
const HELD: Duration = Duration::from_millis(500);
/// The same for one answer, until a caller of another replica has asked.
const HELD_WHILE_OVERLAPPING: Duration = Duration::from_millis(600);
/// The same before the database goes away, which takes time, too.
const HELD_BEFORE_AWAY: Duration = Duration::from_millis(400);
/// The most cases of a round in which requests overlap, and the time in which they begin: if many began at once, the callers of the other replica
/// would take longer than answers can be held back.
const MOST_OVERLAPPING: usize = 20;
pub(super) const OVERLAPPING_BEGIN_WITHIN: Duration = Duration::from_secs(1);
/// The longest wait for a request whose answer is held back.
const BEGUN_WITHIN: Duration = Duration::from_secs(3);

// === impl Disturbance ===

impl Disturbance {
    pub(super) fn is_crash(self) -> bool {
        matches!(self, Disturbance::Crash | Disturbance::CrashAnswered | Disturbance::CrashAtSteps)
    }

    /// The most cases that can run at once.
    pub(super) fn most_at_once(self) -> usize {
        if self == Disturbance::Overlap { MOST_OVERLAPPING } else { usize::MAX }
    }

    /// True if ends of attempts cannot be written for a while.
    pub(super) fn keeps_from_writing(self) -> bool {
        matches!(self, Disturbance::CommitsLost | Disturbance::Away)
    }

    /// True if answers are held back.
    pub(super) fn holds_answers(self) -> bool {
        matches!(self, Disturbance::Overlap | Disturbance::CrashAnswered | Disturbance::Away)
    }

    /// The part of the refreshes that stand still at a step, in a hundred.
    pub(super) fn stops(self) -> u64 {
        match self {
            Disturbance::CrashAtSteps => 100,
            Disturbance::Crash | Disturbance::CrashAnswered => 30,
            Disturbance::None | Disturbance::Overlap | Disturbance::CommitsLost | Disturbance::Away => 0,
        }
    }

    /// The servers that crash.
    pub(super) fn victims(self, servers: usize, rng: &mut Rng) -> Vec<usize> {
        let one = usize::try_from(rng.below(servers as u64)).expect("an index");
        match self {
            Disturbance::CrashAtSteps => (0..servers).collect(),
            Disturbance::Crash | Disturbance::CrashAnswered => vec![one],
            Disturbance::None | Disturbance::Overlap | Disturbance::CommitsLost | Disturbance::Away => Vec::new(),
        }
    }

    /// Runs callers until they are done, or until servers are to crash. Returns whether the disturbance happened, as far as that is not up to
    /// the caller.
    pub(super) async fn run(
        self,
        callers: impl Future,
        (fleet, other): (&Fleet, OtherWriter),
        held: &Held,
        rng: &mut Rng,
    ) -> bool {
        let mut callers = pin!(callers);
        match self {
            Disturbance::None | Disturbance::Overlap => drop(callers.await),
            Disturbance::CommitsLost => {
                let before = fleet.lost_commits();
                fleet.lose_commits(rng.fork());
                callers.await;
                fleet.lose_nothing();
                return fleet.lost_commits() > before;
            }
            Disturbance::Crash => drop(timeout(Duration::from_millis(rng.below(2_500)), callers).await),
            Disturbance::CrashAtSteps => {
                drop(timeout(Duration::from_millis(rng.between(3_000, 4_000)), callers).await);
            }
            Disturbance::CrashAnswered => {
                let is_over = timeout(BEGUN_WITHIN, held.wait(HELD, callers.as_mut())).await.unwrap_or_default();
                held.open();
                if !is_over {
                    let _ = timeout(Duration::from_millis(rng.below(60)), callers).await;
                }
            }
            Disturbance::Away => {
                let waiting = held.wait(HELD_BEFORE_AWAY, callers.as_mut());
                let is_over = timeout(BEGUN_WITHIN, waiting).await.unwrap_or_default();
                let away = fleet.away(other, Duration::from_millis(rng.between(300, 1_800)), || held.open());
                if is_over {
                    return away.await;
                }
                return tokio::join!(callers, away).1;
            }
        }
        true
    }
}

// === impl Held ===

impl Held {
    pub(super) fn of(disturbance: Disturbance) -> Self {
        let time = (disturbance == Disturbance::Overlap).then_some(HELD_WHILE_OVERLAPPING);
        Held { time, gate: Gate::closed(), begun: Arc::default() }
    }

    /// The treatment of a request whose answer is held back.
    pub(super) fn hold(&self) -> ProviderFault {
        self.begun.notify_one();
        match self.time {
            Some(time) => ProviderFault::none().answering_after(time),
            None => ProviderFault::none().held(&self.gate),
        }
    }

    /// Waits until the first answer has been held back for a time, while callers run. Returns whether they are done.
    async fn wait(&self, time: Duration, callers: impl Future) -> bool {
        let held = async {
            self.begun.notified().await;
            sleep(time).await;
        };
        tokio::select! {
            _ = callers => true,
            () = held => false,
        }
    }

    fn open(&self) {
        self.gate.open();
    }
}
