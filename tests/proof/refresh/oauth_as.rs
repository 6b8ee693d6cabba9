//! The same cases with a server that others wrote, the crate `oauth-as`. It ends a grant when a refresh token is used again after its retry
//! window. Time passes between rounds, so that windows and tokens of earlier ones have ended.

use std::time::{Duration, Instant};

use futures::future::join_all;
use jackfield_testkit::Backend;
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::provider::ProviderServer;

use super::cuts::Cuts;
use super::{AT_ONCE, Plan, run};

/// The number of cases for each window on each database; the variable sets another one.
const CASES_VARIABLE: &str = "PROOF_REFRESH_OAUTH_AS";
const CASES: usize = 80;
/// The rounds at the least.
const ROUNDS: usize = 3;
/// The number of cases from which on all steps have to be seen.
const MANY: usize = 1_000;
/// The windows, all of which are tried at once: 0 s, 30 s, 30 min.
const WINDOWS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(30), Duration::from_secs(30 * 60)];
/// The time that passes between two rounds.
const PAUSE: Duration = Duration::from_secs(2 * 60 * 60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_grant_of_a_foreign_server_is_lost() {
    check(Backend::Sqlite).await;
}

mod postgres {
    use jackfield_testkit::Backend;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_grant_of_a_foreign_server_is_lost() {
        super::check(Backend::Postgres).await;
    }
}

async fn check(backend: Backend) {
    let _turn = proof::turn();
    let (seed, cases) = (proof::seed(), proof::setting(CASES_VARIABLE, CASES));
    let (begin, mut rng) = (Instant::now(), Rng::new(seed));
    let runs = WINDOWS.into_iter().enumerate().map(|(number, grace)| {
        let plan = Plan {
            server: ProviderServer::OAuthAs,
            grace,
            pause: PAUSE,
            at_once: AT_ONCE.min(cases.div_ceil(ROUNDS)),
            // Together they have everything that may happen.
            first: number * ROUNDS,
            ..Plan::of(backend, cases)
        };
        run(plan, rng.fork(), |_| false)
    });
    let outcomes = join_all(runs).await;
    let (mut cuts, mut wrong) = (Cuts::default(), Vec::new());
    for (outcome, window) in outcomes.iter().zip(WINDOWS) {
        proof::report(&format!(
            "refreshes at oauth-as on {backend:?} with a window of {} s: seed={seed} {} s {outcome}",
            window.as_secs(),
            begin.elapsed().as_secs(),
        ));
        cuts.join(&outcome.cuts);
        wrong.extend(outcome.wrong.iter().map(|wrong| format!("window of {} s: {wrong}", window.as_secs())));
        assert_eq!(outcome.reuses, 0, "uses of a spent token with a window of {} s", window.as_secs());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases < MANY || cuts.missing().is_empty(), "no crash at {:?}", cuts.missing());
}
