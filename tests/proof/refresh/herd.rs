//! Many tokens that expire in the same minute, sooner than the budget can replace them all: the provider sees no more requests than the budget,
//! and no caller gets an expired token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_domain::Clock as _;
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::{Backend, ManualClock, ProviderOptions, TestServer};

use super::pace::{Gateway, Pace, RATE, Readers, prepare, within_budget};
use super::world::{Grant, World};

/// The number of credentials; the variable sets another one.
const CREDENTIALS_VARIABLE: &str = "PROOF_HERD_CREDENTIALS";
const CREDENTIALS: usize = 1_500;
/// The number of credentials for which time passes as fast as that of the machine.
const WHOLE: usize = 50_000;
/// The minute in which the tokens expire, and the time until it begins.
const MINUTE: Duration = Duration::from_secs(60);
const UNTIL: Duration = Duration::from_secs(4 * 60);
/// The longest time until all are refreshed: three times what the budget alone takes for 50,000.
const PATIENCE: Duration = Duration::from_secs(3 * (WHOLE / RATE as usize) as u64);

mod postgres {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tokens_that_expire_together_are_replaced_within_the_budget() {
        super::check().await;
    }
}

async fn check() {
    let _turn = proof::turn();
    let (seed, count) = (proof::seed(), proof::setting(CREDENTIALS_VARIABLE, CREDENTIALS));
    let (begin, mut rng) = (Instant::now(), Rng::new(seed));
    let clock = ManualClock::at_present();
    let server = TestServer::start_at(Backend::Postgres, Arc::clone(&clock) as _, within_budget).await;
    let options = ProviderOptions { clock: Arc::clone(&clock) as _, ..ProviderOptions::default() };
    let world = Arc::new(World::on(&server, options).await);
    let gateway = Gateway::of(&world.provider);

    // Imported, as their tokens are known to end sooner than the provider ends them.
    let from = clock.now();
    let step = MINUTE / u32::try_from(count).expect("a number of credentials");
    let grants = prepare(count, &clock, Duration::ZERO, |number| {
        let after = UNTIL + step * u32::try_from(number).unwrap_or_default();
        let expiry = from.plus_micros(i64::try_from(after.as_micros()).expect("minutes"));
        let (world, expiry) =
            (Arc::clone(&world), prost_types::Timestamp { seconds: expiry.seconds(), nanos: expiry.subsec_nanos() });
        async move { imported(&world, &format!("user-{number}"), expiry).await }
    });
    let grants = grants.await;

    let factor = (WHOLE as f64 / count as f64).max(1.0);
    let pace = Pace::start(&clock, factor);
    let readers = Readers::start(&world, &clock, &grants, Duration::ZERO, &mut rng);
    let all_refreshed = || grants.iter().all(|grant| world.provider.exchanges(grant.family) > 0);
    let took = pace.wait(PATIENCE, all_refreshed).await;

    let (reads, totals, excess) = (readers.reads(), world.provider.totals(), gateway.excess());
    proof::report(&format!(
        "{count} tokens that expire in one minute: seed={seed} {} s; replaced within {:?} s; reads={} expired or failed={}; at most {} requests \
         in a second; {totals:?}",
        begin.elapsed().as_secs(),
        took.map(|took| took.as_secs()),
        reads.count(),
        reads.bad(),
        gateway.rate(),
    ));
    assert!(took.is_some(), "all are refreshed: {totals:?}");
    assert_eq!(reads.bad(), 0, "of {} reads:\n{}", reads.count(), reads.reasons());
    assert!(reads.count() > 0, "tokens are read meanwhile");
    assert_eq!(excess, Vec::<String>::new());
    assert_eq!((totals.reuses, totals.ended, totals.max_concurrent), (0, 0, 1));
}

/// A credential of a new grant, whose access token is said to expire at a time.
async fn imported(world: &World, user: &str, expiry: prost_types::Timestamp) -> Grant {
    let issued = world.provider.grant(user, &["read", "write"]);
    let credential = world.store(user, &issued.access_token, &issued.refresh_token, Some(expiry)).await;
    Grant { family: issued.family, access_token: issued.access_token, credential }
}
