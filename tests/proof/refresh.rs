//! The server itself loses no grant: whatever happens to callers, servers, the network and the clock while credentials are refreshed, no
//! refresh token is used twice, and each credential has the live one or says that it may not.
//!
//! The provider replaces refresh tokens, and ends a grant when one is used twice. Cases run many at a time, so that crashes meet refreshes at
//! every step.

mod bugs;
mod case;
mod crowd;
mod herd;
mod losses;
mod lost;
mod outage;
mod pace;
mod reference;
mod settle;
#[path = "../it/refresh/world.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use jackfield_api::v1;
use jackfield_domain::{Clock, SystemClock, Timestamp};
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::provider::{Endpoint, Gate};
use jackfield_testkit::{Backend, Provider, ProviderFault, ProviderOptions, TestServer, fixture};
use tokio::time::timeout;

use self::case::Case;
use self::lost::{Losses, Planted, Round, Slowness};
use self::settle::{INDETERMINATE, VALID, settle, told_in_vain};
use self::world::World;

/// The number of cases on each database; the variable sets another one.
const CASES_VARIABLE: &str = "PROOF_REFRESH_CASES";
const CASES: usize = 600;
/// The cases that run at once.
const AT_ONCE: usize = 200;
/// The longest time that the provider is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The time for which answers are held back before a crash, so that many come at once.
const HELD: Duration = Duration::from_millis(500);
/// The credentials that are prepared at once, so that a slow machine can keep its deadlines.
const PREPARED_AT_ONCE: usize = 20;

/// A clock that is wrong by as much as a harness says.
#[derive(Debug, Default)]
struct Skewed(AtomicI64);

/// The cases to run.
#[derive(Clone, Copy)]
struct Plan {
    backend: Backend,
    cases: usize,
    /// The time for which the provider accepts a spent refresh token again.
    grace: Duration,
    /// The probability that a caller stores the tokens of another grant, in a hundred.
    replaces: u64,
}

/// The outcomes of cases.
#[derive(Default)]
struct Outcome {
    cases: usize,
    crashes: usize,
    /// The number of credentials in each state.
    states: BTreeMap<&'static str, usize>,
    losses: Losses,
    /// The uses of spent tokens.
    reuses: usize,
    /// The refreshes that issued tokens.
    refreshes: usize,
    wrong: Vec<String>,
}

/// The crash of a round.
#[derive(Clone, Copy)]
enum Crash {
    /// At some time after callers came: anything from the lease to the end of a refresh may be under way.
    While(Duration),
    /// At some time after many answers came at once, which are then written to the journal and stored.
    Answered(Duration),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_grant_is_lost_by_our_own_doing() {
    check(Backend::Sqlite).await;
}

mod postgres {
    use jackfield_testkit::Backend;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_grant_is_lost_by_our_own_doing() {
        super::check(Backend::Postgres).await;
    }
}

async fn check(backend: Backend) {
    let _turn = proof::turn();
    let (seed, cases) = (proof::seed(), proof::setting(CASES_VARIABLE, CASES));
    let begin = Instant::now();
    let outcome = run(Plan::of(backend, cases), Rng::new(seed), |_| false).await;
    proof::report(&format!("refreshes on {backend:?}: seed={seed} {} s {outcome}", begin.elapsed().as_secs()));
    assert!(!outcome.is_wrong(), "{}", outcome.wrong.join("\n"));
    let Outcome { states, crashes, .. } = outcome;
    let count = |state: &str| states.get(state).copied().unwrap_or_default();
    let sees_all = count(INDETERMINATE) > 0 && count(VALID) > cases / 6 && crashes > 0;
    assert!(sees_all, "all ends are seen: {states:?}, {crashes} crashes");
}

/// Runs cases, many at a time, until there are enough or the outcome is.
async fn run(plan: Plan, mut rng: Rng, is_enough: impl Fn(&Outcome) -> bool) -> Outcome {
    let Plan { backend, cases, grace, replaces } = plan;
    let clock = Arc::new(Skewed::default());
    let mut servers = start(backend, &clock).await;
    let options = ProviderOptions { grace, ..ProviderOptions::default() };
    let window = fixture::milliseconds(i64::try_from(grace.as_millis()).expect("milliseconds"));
    let change = |connection: &mut v1::Connection| {
        connection.refresh_token_grace_period = (!grace.is_zero()).then_some(window);
    };
    let mut world = World::with(&servers[0], options, change).await;
    let mut outcome = Outcome::default();
    for number in 0..cases.div_ceil(AT_ONCE) {
        let count = AT_ONCE.min(cases - outcome.cases);
        // After a restart it has another port.
        world.client = servers[0].client("alpha");
        // Every second round has a crash.
        let crash = match number % 4 {
            0 => Some(Crash::While(Duration::from_millis(rng.below(1_500)))),
            2 => Some(Crash::Answered(Duration::from_millis(rng.below(60)))),
            _ => None,
        };
        let (slowness, slowness_of_callers) = Default::default();
        let (has_crash, has_grace) = (crash.is_some(), !grace.is_zero());
        let mut round = Round { number, has_crash, slowness, slowness_of_callers, replaces, has_grace };
        outcome.round(&world, (&mut servers[..], clock.as_ref()), (&mut round, crash, count), &mut rng).await;
        let totals = world.provider.totals();
        (outcome.reuses, outcome.refreshes) = (totals.reuses, totals.exchanges);
        if is_enough(&outcome) {
            break;
        }
    }
    outcome
}

/// The servers: one on SQLite, and two replicas on PostgreSQL, of which the second has the right time.
async fn start(backend: Backend, clock: &Arc<Skewed>) -> Vec<TestServer> {
    let first = TestServer::start_at(backend, Arc::clone(clock) as _, |config| {
        config.reveal.enabled = true;
        config.refresh.timeout = PATIENCE;
        config.refresh.max_concurrent = 100;
        config.refresh.max_per_second = 1_000;
    });
    let first = first.await;
    let mut second = first.replica().await;
    if let Some(second) = &mut second {
        // A replica begins with the clock of the first.
        second.surroundings_mut().clock = Arc::new(SystemClock);
        second.restart().await;
    }
    std::iter::once(first).chain(second).collect()
}

/// The way in which the provider treats a request, and the reason that a lost response has then; empty if none is lost.
fn fault(rng: &mut Rng) -> (&'static str, ProviderFault) {
    let short = Duration::from_millis(rng.below(100));
    match rng.below(20) {
        0 => (lost::CONNECTION_LOST, ProviderFault::answer_lost()),
        1 => (lost::CONNECTION_LOST, ProviderFault::answer_cut()),
        2 => (lost::CONNECTION_LOST, ProviderFault::unread()),
        3 => ("", ProviderFault::status(503)),
        4 => ("STATUS_UNEXPECTED", ProviderFault::status(500)),
        5 => ("", ProviderFault::too_many(Duration::ZERO)),
        6 => ("BODY_MALFORMED", ProviderFault::web_page()),
        // Longer than the server waits, before and after it acts: some of them for longer than the lease, too.
        7 if rng.percent(50) => (lost::TIMEOUT, ProviderFault::none().delayed(PATIENCE * 4)),
        7 => (lost::TIMEOUT, ProviderFault::none().delayed(PATIENCE * 2)),
        8 => (lost::TIMEOUT, ProviderFault::none().answering_after(PATIENCE * 2)),
        9 => ("", ProviderFault::members([("access_token", serde_json::Value::Null)])),
        10..=14 => ("", ProviderFault::none().answering_after(short * 5)),
        _ => ("", ProviderFault::none().delayed(short * 3)),
    }
}

/// Has the provider fail at random, and count how. With a gate, most answers wait until it opens.
fn fail_at_random(provider: &Provider, mut rng: Rng, planted: &Planted, gate: Option<Gate>) {
    let counts = planted.clone();
    provider.fail_by(move |endpoint, _| match (endpoint, &gate) {
        (Endpoint::Revocation, _) => ProviderFault::none(),
        (Endpoint::Token, Some(gate)) if rng.percent(80) => ProviderFault::none().held(gate),
        (Endpoint::Token, _) => {
            let (kind, fault) = fault(&mut rng);
            counts.count(kind);
            fault
        }
    });
}

// === impl Plan ===

impl Plan {
    fn of(backend: Backend, cases: usize) -> Self {
        Plan { backend, cases, grace: Duration::ZERO, replaces: 15 }
    }
}

// === impl Outcome ===

impl Outcome {
    /// True if it shows that a bug is there.
    fn is_wrong(&self) -> bool {
        !self.wrong.is_empty() || self.reuses > 0
    }

    /// Runs the cases of a round, and adds how they ended.
    async fn round(
        &mut self,
        world: &World,
        (servers, clock): (&mut [TestServer], &Skewed),
        (round, crash, count): (&mut Round, Option<Crash>, usize),
        rng: &mut Rng,
    ) {
        let grants = stream::iter(0..count).map(|number| {
            let user = format!("user-{}-{number}", round.number);
            async move { world.expired(&user).await }
        });
        let cases: Vec<_> = grants.buffered(PREPARED_AT_ONCE).map(Case::of).collect().await;
        // The clock of the first server alone, by more than a lease: those of replicas differ. One that is slow shows more, as its leases
        // would end too early.
        let skew = i64::try_from(rng.between(4, 8)).expect("seconds");
        clock.set(if round.number.is_multiple_of(4) { skew } else { -skew });
        let (slowness, planted, gate) = (Slowness::watch(), Planted::default(), Gate::closed());
        let held = matches!(crash, Some(Crash::Answered(_))).then(|| gate.clone());
        fail_at_random(&world.provider, rng.fork(), &planted, held);
        let clients: Vec<_> = servers.iter().map(|server| server.client("alpha")).collect();
        let callers = join_all(cases.iter().map(|case| case.run(world, &clients, round.replaces, rng.fork())));
        {
            let mut callers = pin!(callers);
            match crash {
                None => drop(callers.await),
                Some(Crash::While(after)) => drop(timeout(after, callers).await),
                Some(Crash::Answered(after)) => {
                    let is_over = timeout(HELD, callers.as_mut()).await.is_ok();
                    gate.open();
                    if !is_over {
                        let _ = timeout(after, callers).await;
                    }
                }
            }
        }
        round.slowness_of_callers = slowness.longest();
        if crash.is_some() {
            let victim = usize::try_from(rng.below(servers.len() as u64)).expect("an index");
            servers[victim].crash();
            servers[victim].restart().await;
            self.crashes += 1;
        }
        clock.set(0);
        world.provider.fail_by(|_, _| ProviderFault::none());
        let settled = settle(world, &servers[0], &cases).await;
        round.slowness = slowness.longest();
        self.wrong.extend(told_in_vain(&cases, &settled, round));
        let mut lost = Vec::new();
        for settled in settled {
            match settled {
                Ok(settled) => {
                    *self.states.entry(settled.state).or_default() += 1;
                    lost.extend(settled.lost);
                }
                Err(wrong) => self.wrong.push(wrong),
            }
        }
        self.wrong.extend(self.losses.add(round, lost, &planted));
        self.cases += count;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { cases, crashes, states, losses, reuses, refreshes, wrong } = self;
        let Losses { by_reason, of_slowness } = losses;
        write!(
            f,
            "cases={cases} refreshes={refreshes} crashes={crashes} uses of a spent token={reuses} wrong={} {states:?} ",
            wrong.len()
        )?;
        write!(f, "lost={by_reason:?} time-outs of a slow machine={of_slowness}")
    }
}

// === impl Skewed ===

impl Skewed {
    /// Makes it wrong by so many seconds.
    fn set(&self, seconds: i64) {
        self.0.store(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_micros(self.0.load(Ordering::Relaxed))
    }
}
