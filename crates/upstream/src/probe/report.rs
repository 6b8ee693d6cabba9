//! The verdicts of a probe, as they are sent.

use futures::channel::mpsc::{self, UnboundedSender};
use jackfield_domain::probe::{ProbeEndpoint, ProbeReason, ProbeResult, ProbeStep, Verdict};
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;

use super::reason::of_fault;
use crate::error::Fault;

/// The verdicts so far. There are as many as steps, so they are not bounded otherwise.
pub(super) struct Report {
    verdicts: UnboundedSender<Verdict>,
    endpoint: Option<ProbeEndpoint>,
    /// The key set that a discovery document has named.
    pub(super) named_keys: Option<HttpUrl>,
    /// True if the certificate of the client is that of its connection.
    pub(super) has_client_key: bool,
    done: usize,
    since: Instant,
}

/// The mark that a probe goes no further. Its last verdict says why.
pub(super) struct Ended;

/// Facts of a verdict, in the order in which they are shown.
#[derive(Default)]
pub(super) struct Facts(Vec<(String, String)>);

/// The longest value of a fact, in characters. Much of it is chosen by the system.
const MAX_FACT: usize = 1_024;

// === impl Report ===

impl Report {
    pub(super) fn new(verdicts: UnboundedSender<Verdict>, endpoint: Option<ProbeEndpoint>) -> Self {
        Report { verdicts, endpoint, named_keys: None, has_client_key: false, done: 0, since: Instant::now() }
    }

    /// A report that is not read, for a second connection whose steps were reported with the first one.
    pub(super) fn unheard() -> Self {
        // The definition, the URL and the policy are judged before a connection is opened.
        Report { done: 3, ..Report::new(mpsc::unbounded().0, None) }
    }

    pub(super) fn add(
        &mut self,
        step: ProbeStep,
        result: ProbeResult,
        reason: ProbeReason,
        message: impl Into<String>,
        Facts(facts): Facts,
    ) {
        debug_assert_eq!(ProbeStep::ALL.get(self.done), Some(&step), "verdicts come in order");
        let now = Instant::now();
        let duration = now - self.since;
        (self.since, self.done) = (now, self.done + 1);
        let (endpoint, has_client_key, message) = (self.endpoint, self.has_client_key, message.into());
        let verdict = Verdict { endpoint, step, result, reason, message, duration, facts, has_client_key };
        // The receiver may be gone.
        let _ = self.verdicts.unbounded_send(verdict);
    }

    pub(super) fn passed(&mut self, step: ProbeStep, message: impl Into<String>, facts: Facts) {
        self.add(step, ProbeResult::Ok, ProbeReason::Passed, message, facts);
    }

    pub(super) fn skipped(&mut self, step: ProbeStep, reason: ProbeReason, message: impl Into<String>) {
        self.add(step, ProbeResult::Skipped, reason, message, Facts::default());
    }

    pub(super) fn failed(&mut self, step: ProbeStep, reason: ProbeReason, message: String, facts: Facts) -> Ended {
        self.add(step, ProbeResult::Failed, reason, message, facts);
        Ended
    }

    /// Reports a step that a fault ended. Returns the fault.
    pub(super) fn fault(&mut self, step: ProbeStep, fault: Fault, facts: Facts) -> Fault {
        self.add(step, ProbeResult::Failed, of_fault(&fault), sentence(&fault), facts);
        fault
    }

    /// Skips all steps that have no verdict.
    pub(super) fn skip_rest(&mut self, reason: ProbeReason, message: &str) {
        for step in ProbeStep::ALL.iter().skip(self.done) {
            self.skipped(*step, reason, message);
        }
    }
}

// === impl Facts ===

impl Facts {
    /// Adds a fact. A value that is too long is cut, and control characters are replaced.
    pub(super) fn add(&mut self, name: impl Into<String>, value: impl std::fmt::Display) -> &mut Self {
        let value = value.to_string();
        let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let mut kept: String = value.chars().take(MAX_FACT).map(printable).collect();
        if value.chars().nth(MAX_FACT).is_some() {
            kept.push('…');
        }
        self.0.push((name.into(), kept));
        self
    }

    pub(super) fn of(name: &str, value: impl std::fmt::Display) -> Self {
        let mut facts = Facts::default();
        facts.add(name, value);
        facts
    }
}

/// An error as a sentence.
pub(super) fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(characters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_printable_and_of_limited_length() {
        let mut facts = Facts::default();
        facts.add("a", "x\u{7}\n").add("b", "é".repeat(MAX_FACT)).add("c", "é".repeat(MAX_FACT + 1));
        let values: Vec<&str> = facts.0.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values[0], "x\u{fffd}\u{fffd}");
        assert_eq!(values[1], "é".repeat(MAX_FACT));
        assert_eq!(values[2], "é".repeat(MAX_FACT) + "…");
    }

    #[test]
    fn errors_are_sentences() {
        assert_eq!(sentence(&Fault::Unresolved), "The name of the host has no address.");
        assert_eq!(sentence(&""), ".");
    }
}
