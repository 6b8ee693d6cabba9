//! The servers of a harness, and what happens to them: crashes, a database that is away, COMMITs that are lost, and a clock that is wrong.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jackfield_domain::{Clock, SystemClock, Timestamp};
use jackfield_testkit::data::SecretUrl;
use jackfield_testkit::pki::Identity;
use jackfield_testkit::proof::Rng;
use jackfield_testkit::proxy::Fate;
use jackfield_testkit::store::Store;
use jackfield_testkit::{Backend, Client, Proxy, TestServer};
use tokio::time::{sleep, timeout};

use super::PATIENCE;

/// One server on SQLite, and two replicas on PostgreSQL, of which the second has the right time.
pub(super) struct Fleet {
    pub(super) servers: Vec<TestServer>,
    /// On PostgreSQL, the way of each server to the database.
    proxies: Vec<Proxy>,
    clock: ShiftedClock,
    skew: Arc<AtomicI64>,
}

/// A clock that is ahead of that of the machine by the time that was let pass, and wrong by a skew.
#[derive(Clone, Debug, Default)]
struct ShiftedClock {
    passed: Arc<AtomicI64>,
    skew: Arc<AtomicI64>,
}

/// Another writer of an SQLite file, which is opened before it is needed.
#[derive(Default)]
pub(super) struct OtherWriter(Option<Store>);

/// The time that a statement of SQLite waits for another writer.
const BUSY: Duration = Duration::from_secs(5);
/// The time for which answers are held back until another writer has the file: they must not be given up.
const FILE_TAKEN_WITHIN: Duration = Duration::from_millis(300);
/// The statements of transactions whose COMMITs are lost, the part of them in a hundred, and the ways in which they are.
const LOST: [&str; 2] = ["refresh_attempt", "refresh_lease"];
const LOST_PERCENT: u64 = 15;
const FATES: [Fate; 2] = [Fate::AnswerLost, Fate::Lost];
/// The time that a caller waits for a connection to PostgreSQL: less than the database is away at times.
const ACQUIRED_WITHIN: Duration = Duration::from_secs(1);
/// The calls of one principal, and the connections that they come by: more than there are callers, some of which wait for refreshes that stand
/// still.
const CALLS: u32 = 1_500;
const CONNECTIONS: usize = 6;
/// The requests of a server to the provider: those that stand still have a place, too.
const REQUESTS: u32 = 400;

// === impl Fleet ===

impl Fleet {
    pub(super) async fn start(backend: Backend) -> Self {
        let (clock, skew) = (ShiftedClock::default(), Arc::<AtomicI64>::default());
        let wrong = ShiftedClock { skew: Arc::clone(&skew), ..clock.clone() };
        let mut proxies = Vec::new();
        let first = TestServer::start_at(backend, Arc::new(wrong), |config| {
            config.reveal.enabled = true;
            config.limits.max_calls = 2 * CALLS;
            config.limits.max_calls_per_identity = CALLS;
            config.limits.max_calls_per_tenant = CALLS;
            config.refresh.timeout = PATIENCE;
            config.refresh.max_concurrent = REQUESTS;
            config.refresh.max_per_second = 1_000;
            if backend == Backend::Postgres {
                let proxy = Proxy::before(config.database.url.expose());
                config.database.url = SecretUrl::new(proxy.url().to_owned());
                config.database.acquire_timeout = ACQUIRED_WITHIN;
                proxies.push(proxy);
            }
        });
        let first = first.await;
        let mut second = first.replica().await;
        if let Some(second) = &mut second {
            // A replica begins with the clock and the way of the first.
            let proxy = Proxy::before(&first.postgres().url());
            second.config_mut().database.url = SecretUrl::new(proxy.url().to_owned());
            second.surroundings_mut().clock = Arc::new(clock.clone());
            second.restart().await;
            proxies.push(proxy);
        }
        let servers = std::iter::once(first).chain(second).collect();
        Fleet { servers, proxies, clock, skew }
    }

    /// The right time.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    /// Lets time pass for servers and providers, but not for the database.
    pub(super) fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).expect("hours");
        self.clock.passed.fetch_add(micros, Ordering::Relaxed);
    }

    /// Makes the clock of the first server wrong by so many seconds.
    pub(super) fn skew(&self, seconds: i64) {
        self.skew.store(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// Callers at all servers.
    pub(super) fn clients(&self) -> Vec<Client> {
        let connections = self.servers.iter().flat_map(|server| std::iter::repeat_n(server, CONNECTIONS));
        connections.map(|server| server.client_with(&server.pki().client(Identity::of("alpha")))).collect()
    }

    /// Has one of the servers crash, or all. Returns those that did.
    pub(super) async fn crash(&mut self, victims: &[usize]) {
        let servers = self.servers.iter_mut().enumerate().filter(|(number, _)| victims.contains(number));
        join_all(servers.map(|(_, server)| server.crash_and_wait())).await;
    }

    /// Starts servers that crashed, on other ports.
    pub(super) async fn restart(&mut self, victims: &[usize]) {
        for victim in victims {
            self.servers[*victim].restart().await;
        }
    }

    /// Has COMMITs about refreshes be lost on PostgreSQL, or the answers to them, until [`Fleet::lose_nothing`].
    pub(super) fn lose_commits(&self, mut rng: Rng) {
        for proxy in &self.proxies {
            proxy.lose_some(&LOST, rng.fork(), LOST_PERCENT, &FATES);
        }
    }

    pub(super) fn lose_nothing(&self) {
        for proxy in &self.proxies {
            proxy.lose_nothing();
        }
    }

    /// The number of COMMITs that were lost.
    pub(super) fn lost_commits(&self) -> u64 {
        self.proxies.iter().map(Proxy::lost).sum()
    }

    /// Opens another writer of an SQLite file.
    pub(super) async fn other_writer(&self) -> OtherWriter {
        let first = &self.servers[0];
        OtherWriter(if first.backend() == Backend::Sqlite { Some(first.store().await) } else { None })
    }

    /// Has the database be away for a time: PostgreSQL cannot be reached, and an SQLite file has another writer, for longer than statements
    /// wait. Something else happens as soon as it is. Returns whether it was away.
    pub(super) async fn away(&self, other: OtherWriter, time: Duration, then: impl FnOnce()) -> bool {
        let Some(store) = other.0 else {
            self.proxies.iter().for_each(|proxy| proxy.set_reachable(false));
            then();
            sleep(time).await;
            self.proxies.iter().for_each(|proxy| proxy.set_reachable(true));
            return true;
        };
        let written = {
            let mut writing = pin!(store.write());
            let written = timeout(FILE_TAKEN_WITHIN, writing.as_mut()).await;
            then();
            // Others may write so much that it takes longer. Then some answers are stored before.
            match written {
                Ok(written) => written,
                Err(_) => writing.await,
            }
        };
        let is_away = written.is_ok();
        if is_away {
            sleep(BUSY + time).await;
        }
        drop(written);
        store.close().await;
        is_away
    }
}

// === impl ShiftedClock ===

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let shift = self.passed.load(Ordering::Relaxed) + self.skew.load(Ordering::Relaxed);
        SystemClock.now().plus_micros(shift)
    }
}
