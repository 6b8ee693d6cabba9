//! Untrusted bytes: runs every function of `jackfield_testkit::fuzz` on the corpus in `fuzz/corpus`, and then on
//! mutations of it by a seeded mutator. libFuzzer drives the same functions; see `fuzz/README.md`.

mod mutate;
mod run;

use std::path::Path;

use jackfield_testkit::fuzz::{TARGETS, Target};
use jackfield_testkit::{Rng, proof};

use self::run::{Found, Totals, run};

/// The number of executions of each target; the variable sets another one.
const EXECUTIONS: u64 = 100_000;
const EXECUTIONS_VARIABLE: &str = "PROOF_FUZZ_EXECUTIONS";
/// The directory where failing inputs are kept.
const CRASHES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/crashes");

/// The inputs of the corpus of a target, in the order of their names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Describes an input that failed, and saves it in a file.
fn report(target: &Target, seed: u64, found: &Found) -> String {
    let Found { input, message, execution } = found;
    std::fs::create_dir_all(CRASHES).unwrap();
    let path = Path::new(CRASHES).join(format!("{}-{seed}-{execution}", target.name));
    std::fs::write(&path, input).unwrap();
    let text = String::from_utf8_lossy(input);
    format!(
        "{} fails at execution {execution} of seed {seed} on {text:?}, kept in {}: {message}",
        target.name,
        path.display()
    )
}

#[test]
fn no_bytes_break_a_parser() {
    let _turn = proof::turn();
    let (seed, executions) = (proof::seed(), proof::setting(EXECUTIONS_VARIABLE, EXECUTIONS));
    let mut failures = Vec::new();
    let mut totals = Totals::default();
    for target in TARGETS {
        let corpus = corpus(&target);
        assert!(corpus.len() >= 10, "the corpus of {} has only {} files", target.name, corpus.len());
        match run(&target, &corpus, &mut Rng::new(seed), executions) {
            Ok(of_target) => totals.add(&of_target),
            Err(found) => failures.push(report(&target, seed, &found)),
        }
    }
    let Totals { corpus, executions, ways, .. } = totals;
    let (targets, failed) = (TARGETS.len(), failures.len());
    proof::report(&format!(
        "fuzz: seed={seed} targets={targets} corpus={corpus} executions={executions} ways={ways} failures={failed}"
    ));
    assert!(failures.is_empty(), "{failures:#?}");
    // A mutator that never gets past the first check of a parser would find nothing either.
    assert!(ways > 500, "only {ways} paths were taken");
}

/// A careless parser: it trusts the length before a text, which a stranger chose.
fn hasty(data: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let Some(rest) = text.strip_prefix("name:") else { return 1 };
    let Some((length, name)) = rest.split_once('/') else { return 2 };
    let length: usize = length.parse().unwrap_or_default();
    if length == 0 { 3 } else { u64::from(name.get(..length).unwrap().is_empty()) + 4 }
}

/// The planted bug has to be found with a tenth of a target's executions, from any seed.
#[test]
fn an_unwrap_on_a_strangers_bytes_is_found() {
    let planted = Target {
        name: "planted",
        check: hasty,
        parse: |_| {},
        memory: |_| u64::MAX,
        max_len: 256,
        words: &["name:", "ext:", "/", "4"],
    };
    for seed in [1, 2, 3, 4] {
        let found = run(&planted, &[b"name:3/abc".to_vec()], &mut Rng::new(seed), EXECUTIONS / 10);
        let found = found.err().unwrap_or_else(|| panic!("the planted bug is not found from seed {seed}"));
        assert!(found.input.starts_with(b"name:"), "{found:?}");
    }
}

/// A bug that only uses memory has to be found as well.
#[test]
fn memory_that_a_stranger_chose_is_found() {
    let planted = Target {
        name: "planted",
        check: |_| 0,
        parse: |data| drop(Vec::<u8>::with_capacity(usize::from(data.first().copied().unwrap_or_default()) * 1024)),
        memory: |length| 64 * 1024 + length as u64,
        max_len: 256,
        words: &["x"],
    };
    let found = run(&planted, &[vec![1]], &mut Rng::new(1), EXECUTIONS / 10).expect_err("it is found");
    assert!(found.message.contains("bytes of memory"), "{found:?}");
}
