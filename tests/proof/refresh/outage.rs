//! A provider that is away for half an hour: a caller who asks still gets a token that is good for a minute, and what has waited is refreshed
//! soon after, within the budget.
//!
//! Time passes faster than that of the machine, the less the more credentials there are, so that the budget has the same part in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_domain::{Clock as _, Timestamp};
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::provider::FamilyId;
use jackfield_testkit::{Backend, ManualClock, ProviderOptions, TestServer};

use super::pace::{Gateway, Pace, RATE, Readers, prepare, since, within_budget};
use super::world::World;

/// The number of credentials; the variable sets another one.
const CREDENTIALS_VARIABLE: &str = "PROOF_OUTAGE_CREDENTIALS";
const CREDENTIALS: usize = 500;
const OUTAGE: Duration = Duration::from_secs(30 * 60);
/// The time before the outage in which tokens are read as well.
const CALM: Duration = Duration::from_secs(5 * 60);
/// The time in which all are refreshed that were asked for in vain.
const DRAINED_WITHIN: Duration = Duration::from_secs(10 * 60);
/// The time that the budget alone takes for as many requests as there are credentials: that of 10,000 with a clock that runs hardly faster.
const BUDGETED: Duration = Duration::from_secs(4 * 60);
/// The time that a token has left at the least.
const LEFT: Duration = Duration::from_secs(60);
/// Of so many reads, one may be bad.
const READS_OF_ONE_BAD: usize = 10_000;

/// The tokens of a provider last for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_half_an_hour_is_hardly_noticed() {
    let _turn = proof::turn();
    let (seed, count) = (proof::seed(), proof::setting(CREDENTIALS_VARIABLE, CREDENTIALS));
    let (begin, mut rng) = (Instant::now(), Rng::new(seed));
    let clock = ManualClock::at_present();
    let server = TestServer::start_at(Backend::Sqlite, Arc::clone(&clock) as _, within_budget).await;
    let options = ProviderOptions { clock: Arc::clone(&clock) as _, ..ProviderOptions::default() };
    let world = Arc::new(World::on(&server, options).await);
    let gateway = Gateway::of(&world.provider);

    // Tokens are of every age that they have until they are refreshed.
    let first = world.good("first").await;
    let next = world.facts(&first.credential).await.next_refresh_time.expect("it is scheduled");
    let age = since(clock.now(), Timestamp::from_parts(next.seconds, next.nanos).expect("a time"));
    let step = age / u32::try_from(count).expect("a number of credentials");
    let names: Vec<_> = (0..count).map(|number| format!("user-{number}")).collect();
    let grants = prepare(count, &clock, step, |number| world.good(&names[number])).await;

    let factor = (BUDGETED.as_secs_f64() * f64::from(RATE) / count as f64).max(1.0);
    let pace = Pace::start(&clock, factor);
    let readers = Readers::start(&world, &clock, &grants, LEFT, &mut rng);
    pace.pass(CALM).await;
    gateway.set_down(true);
    // By then, what was on its way has its answer.
    pace.pass(LEFT).await;
    let asked = world.provider.requests().len();
    pace.pass(OUTAGE - LEFT).await;
    let backlog = in_vain(&world, asked);
    let done: Vec<_> = backlog.iter().map(|family| (*family, world.provider.exchanges(*family))).collect();
    gateway.set_down(false);
    let drained =
        pace.wait(DRAINED_WITHIN, || done.iter().all(|(family, before)| world.provider.exchanges(*family) > *before));
    let drained = drained.await;
    pace.pass(LEFT).await;

    let (reads, totals) = (readers.reads(), world.provider.totals());
    let (all, bad, excess) = (reads.count(), reads.bad(), gateway.excess());
    proof::report(&format!(
        "an outage of 30 min, {count} credentials: seed={seed} {} s; refreshed {} s after their tokens were issued, {} waited at its end and \
         were refreshed within {:?} s; reads={all} bad={bad}; at most {} requests in a second; {totals:?}",
        begin.elapsed().as_secs(),
        age.as_secs(),
        backlog.len(),
        drained.map(|drained| drained.as_secs()),
        gateway.rate(),
    ));
    assert!(backlog.len() > count / 2, "most tokens were due meanwhile: {}", backlog.len());
    assert!(drained.is_some(), "the backlog of {} is refreshed within 10 minutes", backlog.len());
    assert!(bad * READS_OF_ONE_BAD <= all, "{bad} of {all} reads were bad:\n{}", reads.reasons());
    assert_eq!(excess, Vec::<String>::new());
    assert_eq!((totals.reuses, totals.ended), (0, 0));
}

/// The grants for which the provider was asked since it had so many requests.
fn in_vain(world: &World, asked: usize) -> BTreeSet<FamilyId> {
    let requests = world.provider.requests();
    let tokens = requests[asked..].iter().filter_map(|request| request.parameter("refresh_token"));
    tokens.filter_map(|token| world.provider.family_of(token)).collect()
}
