//! Planted bugs, each of which the harness has to notice.

use std::time::Instant;

use jackfield_testkit::planted::{PlantedBug, plant};
use jackfield_testkit::proof::{self, Rng};

use super::disturbance::{CRASHES, Disturbance};
use super::{AT_ONCE, Backend, Outcome, Plan, run};

/// All bugs, and the rounds in which each shows, with their cases. Each has to be noticed within so many rounds.
const BUGS: [(PlantedBug, &[Disturbance], usize); 8] = [
    (PlantedBug::NoSecondReading, CRASHES, AT_ONCE),
    (PlantedBug::LostIsRepeated, CRASHES, AT_ONCE),
    (PlantedBug::FirstRefusalBelieved, CRASHES, AT_ONCE),
    // The lease of a replica with a slow clock is over while its request is under way, and another one has a caller then.
    (PlantedBug::LeaseOnLocalClock, &[Disturbance::Overlap], FEW_AT_ONCE),
    (PlantedBug::FenceCompared, CRASHES, AT_ONCE),
    (PlantedBug::JudgedBeforeSealed, CRASHES, AT_ONCE),
    (PlantedBug::LossWithoutVersion, CRASHES, AT_ONCE),
    // With few, the machine is not so slow that it could be what loses responses.
    (PlantedBug::NotJournaled, &[Disturbance::Away], FEW_AT_ONCE),
];
const ROUNDS: usize = 8;
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
    for (bug, course, at_once) in BUGS {
        let (planting, begin) = (Planting::of(bug), Instant::now());
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
