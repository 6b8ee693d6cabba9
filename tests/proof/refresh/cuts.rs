//! Refreshes that stand still at a step until their process crashes.

use std::collections::BTreeMap;
use std::fmt;

use jackfield_domain::CredentialId;
use jackfield_testkit::planted::{Step, cut_at, stop_at};
use jackfield_testkit::proof::Rng;

use super::case::Case;
use super::lost::PROCESS_ENDED;
use super::settle::Settled;

/// Refreshes that stand still at steps, until this is dropped.
pub(super) struct Stops(Vec<CredentialId>);

/// The number of refreshes that a crash ended at each step.
#[derive(Default)]
pub(super) struct Cuts(BTreeMap<Step, usize>);

/// The steps at which a crash loses a response, or what is known of it. At the others nothing was sent, or the journal has it.
const LOSING: [Step; 3] = [Step::Recorded, Step::Received, Step::Failed];

// === impl Stops ===

impl Stops {
    /// Has refreshes of some cases in a hundred stop, each at one step.
    pub(super) fn some(cases: &[Case], percent: u64, rng: &mut Rng) -> Self {
        let chosen = cases.iter().filter_map(|case| {
            let (is_chosen, step) = (rng.percent(percent), *rng.pick(&Step::ALL));
            let credential = case.id();
            is_chosen.then(|| stop_at(credential, Some(step)))?;
            Some(credential)
        });
        Stops(chosen.collect())
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.iter().for_each(|credential| stop_at(*credential, None));
    }
}

// === impl Cuts ===

impl Cuts {
    /// Adds the refreshes of a round. Returns those whose tokens counted as lost although nothing was: where one server has the only
    /// journal, the crash of that server explains it at some steps alone.
    pub(super) fn add(
        &mut self,
        cases: &[Case],
        settled: &[Result<Settled, String>],
        has_replica: bool,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for (case, settled) in cases.iter().zip(settled) {
            let Some(step) = cut_at(case.id()) else { continue };
            *self.0.entry(step).or_default() += 1;
            let is_lost =
                settled.as_ref().is_ok_and(|settled| settled.lost.iter().any(|reason| reason == PROCESS_ENDED));
            if is_lost && !has_replica && !LOSING.contains(&step) {
                wrong.push(format!("{}: a crash at the step {step:?} lost its tokens", case.grant.credential));
            }
        }
        wrong
    }

    /// Adds those of another run.
    pub(super) fn join(&mut self, other: &Cuts) {
        for (step, count) in &other.0 {
            *self.0.entry(*step).or_default() += count;
        }
    }

    /// The steps at which no crash ended a refresh.
    pub(super) fn missing(&self) -> Vec<Step> {
        Step::ALL.into_iter().filter(|step| !self.0.contains_key(step)).collect()
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
