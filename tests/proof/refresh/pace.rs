//! Time that passes faster than that of the machine, readers who ask for tokens meanwhile, and the requests that a provider counts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use jackfield_api::v1;
use jackfield_domain::{Clock as _, Timestamp};
use jackfield_testkit::{Config, ManualClock, Provider, ProviderFault, Rng};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::Status;

use super::PREPARED_AT_ONCE;
use super::world::{Grant, World};

/// The budget of a connection, as servers have it by default: requests in a second, and at once.
pub(super) const RATE: u32 = 50;
const CONCURRENCY: u32 = 16;
/// The readers, and the pause of each between two reads.
const READERS: usize = 6;
const PAUSE: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_millis(10);
/// The bad reads whose reasons are kept.
const KEPT: usize = 10;

/// A clock that runs faster than that of the machine, until this is dropped. A tick that comes late is not made up for: on a slow machine
/// time passes more slowly.
pub(super) struct Pace {
    clock: Arc<ManualClock>,
    _task: JoinSet<()>,
}

/// The requests that a provider gets, and whether it is away.
#[derive(Clone, Default)]
pub(super) struct Gateway {
    arrivals: Arc<Mutex<Vec<Instant>>>,
    is_down: Arc<AtomicBool>,
}

/// Readers, each of which asks for the token of one credential after the other. They end when this is dropped.
pub(super) struct Readers {
    reads: Arc<Reads>,
    _tasks: JoinSet<()>,
}

/// The reads so far.
#[derive(Default)]
pub(super) struct Reads {
    count: AtomicUsize,
    bad: AtomicUsize,
    /// The first bad ones.
    reasons: Mutex<Vec<String>>,
}

/// Has a server refresh ahead of time, within the budget.
pub(super) fn within_budget(config: &mut Config) {
    config.refresh.ahead = true;
    (config.refresh.max_per_second, config.refresh.max_concurrent) = (RATE, CONCURRENCY);
    // There are many reads.
    config.telemetry.trace_ratio = 0.0;
}

/// Prepares credentials, many at a time. The clock advances by a step before each.
pub(super) async fn prepare<F: Future<Output = Grant>>(
    count: usize,
    clock: &ManualClock,
    step: Duration,
    grant: impl Fn(usize) -> F,
) -> Vec<Grant> {
    let grants = stream::iter(0..count).map(|number| {
        clock.advance(step);
        grant(number)
    });
    grants.buffered(PREPARED_AT_ONCE).collect().await
}

// === impl Pace ===

impl Pace {
    /// Lets a clock run so many times as fast.
    pub(super) fn start(clock: &Arc<ManualClock>, factor: f64) -> Self {
        let (mut task, running) = (JoinSet::new(), Arc::clone(clock));
        task.spawn(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                running.advance(TICK.mul_f64(factor));
            }
        });
        Pace { clock: Arc::clone(clock), _task: task }
    }

    /// Waits until something holds, and returns the time that it took by this clock; `None` if it takes longer than a limit.
    pub(super) async fn wait(&self, limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
        let start = self.clock.now();
        loop {
            let passed = since(start, self.clock.now());
            if holds() {
                return Some(passed);
            }
            if passed >= limit {
                return None;
            }
            sleep(TICK * 5).await;
        }
    }

    /// Waits for some time by this clock.
    pub(super) async fn pass(&self, time: Duration) {
        self.wait(time, || false).await;
    }
}

// === impl Gateway ===

impl Gateway {
    /// Watches a provider.
    pub(super) fn of(provider: &Provider) -> Self {
        let gateway = Gateway::default();
        let Gateway { arrivals, is_down } = gateway.clone();
        provider.fail_by(move |_, number| {
            lock(&arrivals).push(Instant::now());
            match is_down.load(Ordering::Relaxed) {
                true if number.is_multiple_of(2) => ProviderFault::status(503),
                true => ProviderFault::too_many(Duration::ZERO),
                false => ProviderFault::none(),
            }
        });
        gateway
    }

    /// Switches the provider off or on. While it is off, it answers that it did not process a request.
    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Returns what is wrong with the number of requests. Those that are on their way may come together if the machine is slow: as many as
    /// there are places.
    pub(super) fn excess(&self) -> Vec<String> {
        let windows = [1, 10].map(|seconds: u32| {
            let most = most_in(&lock(&self.arrivals), Duration::from_secs(seconds.into()));
            let allowed = (seconds * RATE + CONCURRENCY) as usize;
            (most > allowed).then(|| format!("{most} requests in {seconds} s, of which the budget has {allowed}"))
        });
        windows.into_iter().flatten().collect()
    }

    /// The most requests in a second.
    pub(super) fn rate(&self) -> usize {
        most_in(&lock(&self.arrivals), Duration::from_secs(1))
    }
}

// === impl Readers ===

impl Readers {
    /// Starts them. A read is bad if it fails, or if its token has less than this left at the time of the call.
    pub(super) fn start(
        world: &Arc<World>,
        clock: &Arc<ManualClock>,
        grants: &[Grant],
        least: Duration,
        rng: &mut Rng,
    ) -> Self {
        let (reads, mut tasks) = (Arc::<Reads>::default(), JoinSet::new());
        let credentials: Arc<[String]> = grants.iter().map(|grant| grant.credential.clone()).collect();
        for _ in 0..READERS {
            let (world, clock, mut rng) = (Arc::clone(world), Arc::clone(clock), rng.fork());
            let (reads, credentials) = (Arc::clone(&reads), Arc::clone(&credentials));
            tasks.spawn(async move {
                loop {
                    let credential = rng.pick(&credentials);
                    // Waits count many times over, so the time of the call counts.
                    let called = clock.now();
                    let answer = world.issue(credential).await;
                    reads.add(flaw(&answer, called, least));
                    sleep(PAUSE).await;
                }
            });
        }
        Readers { reads, _tasks: tasks }
    }

    pub(super) fn reads(&self) -> &Reads {
        &self.reads
    }
}

// === impl Reads ===

impl Reads {
    fn add(&self, flaw: Option<String>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(flaw) = flaw {
            self.bad.fetch_add(1, Ordering::Relaxed);
            let mut reasons = lock(&self.reasons);
            if reasons.len() < KEPT {
                reasons.push(flaw);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn bad(&self) -> usize {
        self.bad.load(Ordering::Relaxed)
    }

    /// The first reasons of bad reads.
    pub(super) fn reasons(&self) -> String {
        lock(&self.reasons).join("\n")
    }
}

/// The reason for which a read is bad.
fn flaw(answer: &Result<v1::IssueAccessTokenResponse, Status>, called: Timestamp, least: Duration) -> Option<String> {
    let issued = match answer {
        Ok(issued) => issued,
        Err(status) => return Some(format!("{:?}: {}", status.code(), status.message())),
    };
    let Some(expiry) = issued.expire_time else { return Some("a token without an expiry".to_owned()) };
    let expiry = Timestamp(expiry.seconds * 1_000_000 + i64::from(expiry.nanos / 1_000));
    let left = since(called, expiry);
    (left < least || expiry <= called).then(|| format!("a token with {} s left", left.as_secs()))
}

/// The time from one time to a later one; 0 if it is not later.
pub(super) fn since(start: Timestamp, end: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(end.0.saturating_sub(start.0)).unwrap_or_default())
}

fn most_in(arrivals: &[Instant], window: Duration) -> usize {
    let mut arrivals = arrivals.to_vec();
    arrivals.sort_unstable();
    let mut first = 0;
    let counts = arrivals.iter().enumerate().map(|(last, arrival)| {
        while arrival.duration_since(arrivals[first]) >= window {
            first += 1;
        }
        last + 1 - first
    });
    counts.max().unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_in_any_second() {
        let start = Instant::now();
        let at = |milliseconds: &[u64]| {
            let arrivals: Vec<_> = milliseconds.iter().map(|after| start + Duration::from_millis(*after)).collect();
            most_in(&arrivals, Duration::from_secs(1))
        };
        assert_eq!([at(&[]), at(&[0, 1_000, 2_000]), at(&[0, 600, 1_200, 1_500, 1_599])], [0, 1, 4]);
    }
}
