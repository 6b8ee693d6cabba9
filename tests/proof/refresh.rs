//! The server itself loses no grant: whatever happens to callers, servers, the network and the clock while credentials are refreshed, no
//! refresh token is used twice, and each credential has the live one or says that it may not.
//!
//! The provider replaces refresh tokens, and ends a grant when one is used twice. Cases run many at a time, so that crashes meet refreshes at
//! every step.

mod bugs;
mod case;
mod crowd;
mod cuts;
mod disturbance;
mod fleet;
mod frozen;
mod herd;
mod losses;
mod lost;
mod oauth_as;
mod outage;
mod pace;
mod places;
mod reference;
mod settle;
#[path = "../it/refresh/world.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use jackfield_api::v1;
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::provider::{Endpoint, ProviderServer};
use jackfield_testkit::{Backend, Provider, ProviderFault, ProviderOptions, fixture};

use self::case::Case;
use self::cuts::{Cuts, Stops};
use self::disturbance::{ALL, Disturbance, Held};
use self::fleet::{Fleet, OtherWriter};
use self::lost::{Losses, Planted, Round, Slowness};
use self::places::Places;
use self::settle::{INDETERMINATE, VALID, settle, told_in_vain, told_that_it_is_not_valid};
use self::world::World;

/// The number of cases on each database; the variable sets another one.
const CASES_VARIABLE: &str = "PROOF_REFRESH_CASES";
const CASES: usize = 2_000;
/// The cases that run at once.
const AT_ONCE: usize = 200;
/// The longest time that the provider is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The credentials that are prepared at once, so that a slow machine can keep its deadlines.
const PREPARED_AT_ONCE: usize = 20;

/// The cases to run.
#[derive(Clone, Copy)]
struct Plan {
    backend: Backend,
    cases: usize,
    /// The number of cases of a round.
    at_once: usize,
    /// The server that decides at the provider.
    server: ProviderServer,
    /// The time for which the provider accepts a spent refresh token again.
    grace: Duration,
    /// The probability that a caller stores the tokens of another grant, in a hundred.
    replaces: u64,
    /// The disturbances of the rounds, one after the other and again, and the number of the first one among them.
    course: &'static [Disturbance],
    first: usize,
    /// The time that passes between two rounds.
    pause: Duration,
}

/// The outcomes of cases.
#[derive(Default)]
struct Outcome {
    cases: usize,
    /// The number of rounds with each disturbance, and of the requests of those for which something could fail.
    rounds: BTreeMap<String, (usize, usize)>,
    cuts: Cuts,
    /// The number of credentials in each state.
    states: BTreeMap<&'static str, usize>,
    losses: Losses,
    /// The longest time for which a task that was due has not run while there were callers.
    slowness: Duration,
    /// The uses of spent tokens.
    reuses: usize,
    /// The refreshes that issued tokens.
    refreshes: usize,
    wrong: Vec<String>,
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
    let count = |state: &str| outcome.states.get(state).copied().unwrap_or_default();
    let sees_all = count(INDETERMINATE) > 0 && count(VALID) > cases / 6;
    assert!(sees_all, "all ends are seen: {:?}", outcome.states);
    // Otherwise endpoints are silent, or the machine is so slow that little happens before a disturbance is over.
    let requests: usize = outcome.rounds.values().map(|(_, requests)| requests).sum();
    assert!(requests > cases / 3, "many cases have a request while something fails: {requests}");
    // Fewer cases than there are by default do not have everything.
    let of_all = ALL.iter().filter(|it| backend == Backend::Postgres || **it != Disturbance::CommitsLost);
    let unseen: Vec<_> = of_all.filter(|it| !outcome.rounds.contains_key(&format!("{it:?}"))).collect();
    let is_complete = unseen.is_empty() && outcome.cuts.missing().is_empty();
    assert!(cases < CASES || is_complete, "not seen: {unseen:?} and crashes at {:?}", outcome.cuts.missing());
}

/// Runs cases, many at a time, until there are enough or the outcome is.
async fn run(plan: Plan, mut rng: Rng, is_enough: impl Fn(&Outcome) -> bool) -> Outcome {
    let Plan { backend, cases, at_once, server, grace, replaces, course, first, pause } = plan;
    let mut fleet = Fleet::start(backend).await;
    let options = ProviderOptions { server, grace, clock: fleet.clock(), ..ProviderOptions::default() };
    let window = fixture::milliseconds(i64::try_from(grace.as_millis()).expect("milliseconds"));
    let change = |connection: &mut v1::Connection| {
        connection.refresh_token_grace_period = (!grace.is_zero()).then_some(window);
    };
    let mut world = World::with(&fleet.servers[0], options, change).await;
    let places = Places::of(&world, change).await;
    let (mut outcome, mut number) = (Outcome::default(), 0);
    while outcome.cases < cases {
        let disturbance = course[(first + number) % course.len()];
        let count = at_once.min(disturbance.most_at_once()).min(cases - outcome.cases);
        // After a restart it has another port.
        world.client = fleet.servers[0].client("alpha");
        let (slowness, slowness_of_callers) = Default::default();
        let has_grace = !grace.is_zero();
        let mut round = Round { number, disturbance, slowness, slowness_of_callers, replaces, has_grace };
        outcome.round((&world, &places), &mut fleet, (&mut round, count), &mut rng).await;
        // A request that was given up may still come to the provider. None comes hours later.
        world.provider.quiet().await;
        fleet.pass(pause);
        let totals = world.provider.totals();
        (outcome.reuses, outcome.refreshes) = (totals.reuses, totals.exchanges);
        number += 1;
        if is_enough(&outcome) {
            break;
        }
    }
    outcome
}

/// An ID token of one user, signed with a new key each time, which no key set has.
fn id_token(rng: &mut Rng) -> serde_json::Value {
    let header = serde_json::json!({ "alg": "ES256", "kid": format!("key-{}", rng.next()) }).to_string();
    let claims = serde_json::json!({ "sub": "user" }).to_string();
    [header, claims, rng.next().to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".").into()
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
        10 => ("", ProviderFault::members([("id_token", id_token(rng))])),
        11..=14 => ("", ProviderFault::none().answering_after(short * 5)),
        _ => ("", ProviderFault::none().delayed(short * 3)),
    }
}

/// Has the provider fail at random, and count how. Most answers may be held back. If all requests are to be answered, none takes too long.
fn fail_at_random(provider: &Provider, mut rng: Rng, planted: &Planted, held: Option<Held>, are_answered: bool) {
    let counts = planted.clone();
    provider.fail_by(move |endpoint, _| match (endpoint, &held) {
        (Endpoint::Revocation, _) => ProviderFault::none(),
        (Endpoint::Token, Some(held)) if rng.percent(80) => {
            counts.count("");
            held.hold()
        }
        (Endpoint::Token, _) => {
            let (kind, fault) = match fault(&mut rng) {
                (lost::TIMEOUT, _) if are_answered => ("", ProviderFault::status(503)),
                chosen => chosen,
            };
            counts.count(kind);
            fault
        }
    });
}

// === impl Plan ===

impl Plan {
    fn of(backend: Backend, cases: usize) -> Self {
        let (server, grace, pause) = (ProviderServer::Own, Duration::ZERO, Duration::ZERO);
        Plan { backend, cases, at_once: AT_ONCE, server, grace, replaces: 15, course: ALL, first: 0, pause }
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
        (world, places): (&World, &Places),
        fleet: &mut Fleet,
        (round, count): (&mut Round, usize),
        rng: &mut Rng,
    ) {
        let of_round = round.number;
        let grants = stream::iter(0..count).map(|number| places.expired(world, (of_round, number)));
        let cases: Vec<_> = grants.buffered(PREPARED_AT_ONCE).map(Case::of).collect().await;
        let other = match round.disturbance {
            Disturbance::Away => fleet.other_writer().await,
            _ => OtherWriter::default(),
        };
        // The clock of the first server alone, by more than a lease: those of replicas differ. One that is slow shows more, as its leases
        // would end too early.
        let skew = i64::try_from(rng.between(4, 8)).expect("seconds");
        let is_fast = round.number.is_multiple_of(4) && round.disturbance != Disturbance::Overlap;
        fleet.skew(if is_fast { skew } else { -skew });
        let (mut slowness, planted) = (Slowness::watch(&fleet.servers), Planted::default());
        let held = Held::of(round.disturbance);
        let holding = round.disturbance.holds_answers().then(|| held.clone());
        let are_answered = round.disturbance == Disturbance::CrashAtSteps;
        fail_at_random(&world.provider, rng.fork(), &planted, holding, are_answered);
        let stops = Stops::some(&cases, round.disturbance.stops(), rng);
        let clients = fleet.clients();
        let callers = join_all(cases.iter().map(|case| case.run(world, &clients, &*round, rng.fork())));
        let happened = round.disturbance.run(callers, (&*fleet, other), &held, &mut rng.fork()).await;
        round.slowness_of_callers = slowness.longest();
        self.slowness = self.slowness.max(round.slowness_of_callers);
        let victims = round.disturbance.victims(fleet.servers.len(), rng);
        fleet.crash(&victims).await;
        drop(stops);
        fleet.restart(&victims).await;
        slowness.watch_also(victims.iter().map(|victim| &fleet.servers[*victim]));
        fleet.skew(0);
        world.provider.fail_by(|_, _| ProviderFault::none());
        if happened {
            let (rounds, requests) = self.rounds.entry(format!("{:?}", round.disturbance)).or_default();
            (*rounds, *requests) = (*rounds + 1, *requests + planted.requests());
        }
        let settled = settle(world, &fleet.servers[0], &cases).await;
        round.slowness = slowness.longest();
        self.wrong.extend(told_in_vain(&cases, &settled, round));
        self.wrong.extend(told_that_it_is_not_valid(&cases));
        self.wrong.extend(self.cuts.add(&cases, &settled, fleet.servers.len() > 1));
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
        let Outcome { cases, rounds, cuts, states, losses, slowness, reuses, refreshes, wrong } = self;
        let Losses { by_reason, of_slowness } = losses;
        write!(
            f,
            "cases={cases} refreshes={refreshes} uses of a spent token={reuses} wrong={} {states:?} rounds and their requests={rounds:?} ",
            wrong.len()
        )?;
        write!(f, "crashes at steps={cuts} lost={by_reason:?} time-outs of a slow machine={of_slowness}, ")?;
        write!(f, "whose tasks were late by {} ms", slowness.as_millis())
    }
}
