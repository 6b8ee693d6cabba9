//! Losses per refresh, for providers that accept a spent refresh token again for some time: those of Jackfield, and of the reference.

use std::time::{Duration, Instant};

use jackfield_testkit::ProviderOptions;
use jackfield_testkit::proof::{self, Rng};
use jackfield_testkit::provider::ProviderTotals;

use super::disturbance::CRASHES;
use super::settle::VALID;
use super::{AT_ONCE, Backend, Plan, reference, run};

/// The number of cases for each window; the variable sets another one. What is lost in a round depends much on when its crash comes, so there
/// are several.
const CASES_VARIABLE: &str = "PROOF_REFRESH_COMPARED";
const CASES: usize = 3 * AT_ONCE;
/// The windows: 0 s, 10 s, 30 s, 30 min.
const WINDOWS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(30 * 60)];

mod postgres {
    /// On PostgreSQL alone, with two replicas, as the reference has two processes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn losses_are_compared_with_a_reference() {
        super::compare().await;
    }
}

async fn compare() {
    let _turn = proof::turn();
    let (seed, cases) = (proof::seed(), proof::setting(CASES_VARIABLE, CASES));
    for grace in WINDOWS {
        let begin = Instant::now();
        let plan = Plan { grace, replaces: 0, course: CRASHES, ..Plan::of(Backend::Postgres, cases) };
        let options = ProviderOptions { grace, ..ProviderOptions::default() };
        // The reference waits most of the time.
        let reference = reference::run(options, Rng::new(seed), cases);
        let (outcome, (lost, totals)) = tokio::join!(run(plan, Rng::new(seed), |_| false), reference);
        assert!(!outcome.is_wrong(), "{}", outcome.wrong.join("\n"));
        let kept = outcome.states.get(VALID).copied().unwrap_or_default();
        let ProviderTotals { exchanges, reuses, .. } = totals;
        proof::report(&format!(
            "losses per refresh with a window of {} s: seed={seed} cases={cases} {} s; Jackfield {}/{} = {:.4}, uses of a spent token {}; \
             a lock of 10 s {lost}/{exchanges} = {:.4}, uses of a spent token {reuses}",
            grace.as_secs(),
            begin.elapsed().as_secs(),
            cases - kept,
            outcome.refreshes,
            ratio(cases - kept, outcome.refreshes),
            outcome.reuses,
            ratio(lost, exchanges),
        ));
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
