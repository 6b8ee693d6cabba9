//! The client that must not be affected: it makes health checks all the time on its own connection, and now and then on
//! a new one. It runs in its own thread, so that it shares only the machine with the attackers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jackfield_testkit::Client;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(10);
/// The interval between two new connections.
const NEW: Duration = Duration::from_millis(250);
/// The timeout of a check; a check that exceeds it has failed.
const LATE: Duration = Duration::from_secs(5);

/// A thread that makes health checks.
pub(super) struct Victim {
    stop: Arc<AtomicBool>,
    times: Arc<Mutex<Times>>,
    thread: Option<JoinHandle<()>>,
}

/// The durations of checks since they were last taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// On the existing connection.
    kept: Vec<Duration>,
    /// On new connections, from TCP connect to the answer.
    new: Vec<Duration>,
    /// Checks without an answer.
    pub(super) failed: usize,
    /// The same on new connections.
    pub(super) failed_new: usize,
}

// === impl Victim ===

impl Victim {
    /// Starts the checks; `connect` makes a new connection.
    pub(super) fn start(connect: impl Fn() -> Client + Send + 'static) -> Self {
        let (stop, times) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Times::default())));
        let (stopped, noted) = (stop.clone(), times.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _inside = runtime.enter();
            let asking = tokio::task::LocalSet::new();
            asking.spawn_local({
                let (stopped, noted, kept) = (stopped.clone(), noted.clone(), connect());
                async move {
                    while !stopped.load(Ordering::Relaxed) {
                        let took = ask(&kept).await;
                        note(&noted, took, |times| (&mut times.kept, &mut times.failed));
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
            asking.spawn_local(async move {
                while !stopped.load(Ordering::Relaxed) {
                    let took = ask(&connect()).await;
                    note(&noted, took, |times| (&mut times.new, &mut times.failed_new));
                    tokio::time::sleep(NEW).await;
                }
            });
            runtime.block_on(asking);
        });
        Self { stop, times, thread: Some(thread) }
    }

    /// Takes the measurements since the last call.
    pub(super) fn take(&self) -> Times {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn ask(client: &Client) -> Option<Duration> {
    let begin = Instant::now();
    let mut health = HealthClient::new(client.channel());
    let answer = tokio::time::timeout(LATE, health.check(HealthCheckRequest::default())).await;
    matches!(answer, Ok(Ok(_))).then(|| begin.elapsed())
}

fn note(times: &Mutex<Times>, took: Option<Duration>, of: fn(&mut Times) -> (&mut Vec<Duration>, &mut usize)) {
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    let (list, failed) = of(&mut times);
    *failed += usize::from(took.is_none());
    list.push(took.unwrap_or(LATE));
}

// === impl Times ===

impl Times {
    /// The 99th percentile on the existing connection, in milliseconds.
    pub(super) fn p99(&self) -> u128 {
        percentile(&self.kept)
    }

    /// The same on new connections.
    pub(super) fn p99_new(&self) -> u128 {
        percentile(&self.new)
    }

    pub(super) fn add(&mut self, other: &Times) {
        self.kept.extend(&other.kept);
        self.new.extend(&other.new);
        self.failed += other.failed;
        self.failed_new += other.failed_new;
    }

    pub(super) fn asked(&self) -> usize {
        self.kept.len() + self.new.len()
    }
}

fn percentile(times: &[Duration]) -> u128 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).map_or(0, Duration::as_millis)
}
