//! Planted bugs, each of which the harness has to notice.

use std::time::Instant;

use jackfield_testkit::planted::{PlantedBug, plant};
use jackfield_testkit::proof::{self, Rng};

use super::disturbance::{CRASHES, Disturbance};
use super::{AT_ONCE, Backend, Outcome, Plan, run};

/// All bugs, and the rounds in which each shows. Each has to be noticed within so many rounds.
const BUGS: [(PlantedBug, &[Disturbance]); 8] = [
    (PlantedBug::NoSecondReading, CRASHES),
    (PlantedBug::LostIsRepeated, CRASHES),
    (PlantedBug::FirstRefusalBelieved, CRASHES),
    // The lease of one replica has to end while its request is under way.
    (PlantedBug::LeaseOnLocalClock, &[Disturbance::Answers]),
    (PlantedBug::FenceCompared, CRASHES),
    (PlantedBug::JudgedBeforeSealed, CRASHES),
    (PlantedBug::LossWithoutVersion, CRASHES),
    (PlantedBug::NotJournaled, &[Disturbance::Away]),
];
const ROUNDS: usize = 8;
/// The cases of a round in which a replica has to take a lease while a request is under way: among many, that takes longer than the request.
const FEW_AT_ONCE: usize = 40;
/// The probability that a caller stores the tokens of another grant, in a hundred: some bugs need it at the right moment.
const REPLACES: u64 = 50;

/// A planted bug, which is gone when this is dropped.
struct Planting;

mod postgres {
    /// On PostgreSQL alone: some of them show between replicas only.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn planted_bugs_are_noticed() {
        super::check().await;
    }
}

async fn check() {
    let _turn = proof::turn();
    let seed = proof::seed();
    let mut rng = Rng::new(seed);
    let mut unnoticed = Vec::new();
    for (bug, course) in BUGS {
        let (planting, begin) = (Planting::of(bug), Instant::now());
        let at_once = if bug == PlantedBug::LeaseOnLocalClock { FEW_AT_ONCE } else { AT_ONCE };
        let plan = Plan { replaces: REPLACES, course, at_once, ..Plan::of(Backend::Postgres, ROUNDS * at_once) };
        let outcome = run(plan, rng.fork(), Outcome::is_wrong).await;
        drop(planting);
        let first = outcome.wrong.first().map_or("", String::as_str);
        let took = begin.elapsed().as_secs();
        proof::report(&format!("refreshes with {bug:?}: seed={seed} {took} s {outcome}; {first}"));
        if !outcome.is_wrong() {
            unnoticed.push(bug);
        }
    }
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}

// === impl Planting ===

impl Planting {
    fn of(bug: PlantedBug) -> Self {
        plant(Some(bug));
        Planting
    }
}

impl Drop for Planting {
    fn drop(&mut self) {
        plant(None);
    }
}

/// The program alone, as it is released, has no switch for bugs.
#[test]
fn the_program_is_built_without_planted_bugs() {
    let program = features_of("jackfield-server");
    for forbidden in ["planted-bugs", "test-support"] {
        assert!(!program.contains(forbidden), "the program has {forbidden}");
        assert!(features_of("jackfield-testkit").contains(forbidden), "the test kit has {forbidden}");
    }
}

/// The features with which a package and all that it depends on are built.
fn features_of(package: &str) -> String {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", package, "--edges", "normal,features"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{tree:?}");
    String::from_utf8(tree.stdout).expect("text")
}
