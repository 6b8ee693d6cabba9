//! Runs one target: first the corpus, then mutations of the corpus and of inputs that took a new path.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jackfield_testkit::Rng;
use jackfield_testkit::fuzz::Target;

use super::mutate::mutated;

/// The number of inputs that are kept because they took a new path.
const POOL: usize = 4_096;

/// An input that breaks a property.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) input: Vec<u8>,
    pub(super) message: String,
    pub(super) execution: u64,
}

/// The totals of runs.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) corpus: usize,
    pub(super) executions: u64,
    pub(super) ways: usize,
}

// === impl Totals ===

impl Totals {
    pub(super) fn add(&mut self, other: &Totals) {
        self.corpus += other.corpus;
        self.executions += other.executions;
        self.ways += other.ways;
    }
}

/// Runs a target this many times, including the corpus. The first input that breaks it ends the run.
pub(super) fn run(target: &Target, corpus: &[Vec<u8>], random: &mut Rng, executions: u64) -> Result<Totals, Found> {
    let mut pool = corpus.to_vec();
    let mut ways = HashSet::new();
    for execution in 0..executions.max(corpus.len() as u64) {
        let given = corpus.get(execution as usize);
        let input = given.cloned().unwrap_or_else(|| mutated(target, &pool, random));
        let way = execute(target, &input).map_err(|message| Found { input: input.clone(), message, execution })?;
        if ways.insert(way) && given.is_none() && pool.len() < POOL {
            pool.push(input);
        }
    }
    Ok(Totals { corpus: corpus.len(), executions, ways: ways.len() })
}

/// Runs one execution, and measures the memory of the parser alone.
fn execute(target: &Target, input: &[u8]) -> Result<u64, String> {
    let said = |panic: Box<dyn Any + Send>| match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic without a message".to_owned(),
    };
    let way = catch_unwind(|| (target.check)(input)).map_err(said)?;
    let mut peak = 0;
    catch_unwind(AssertUnwindSafe(|| peak = allocation_counter::measure(|| (target.parse)(input)).bytes_max))
        .map_err(said)?;
    let most = (target.memory)(input.len());
    if peak > most {
        return Err(format!("{peak} bytes of memory for an input of {}, not {most}", input.len()));
    }
    Ok(way)
}
