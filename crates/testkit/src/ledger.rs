//! A record of what a harness sent, of the known outcomes, and a check of both against the actual state.
//!
//! An entry is one object, as its owner last knew it: a state, or `None` for "not there". Only one request at a time
//! may be pending for an object; the state it would bring about is recorded before it is sent. A request has one of
//! three outcomes, which are never mixed up: acknowledged, refused (an answer that promises that nothing happened), or
//! unknown (no such answer). [`Ledger::check`] compares an entry with what is found, and settles an unknown outcome.

use std::collections::BTreeMap;
use std::fmt;

/// The objects of one owner, by name.
#[derive(Clone, Debug)]
pub struct Ledger<V> {
    entries: BTreeMap<String, Entry<V>>,
    /// The figures so far.
    pub figures: Figures,
}

/// An object.
#[derive(Clone, Debug)]
struct Entry<V> {
    /// The acknowledged state; `None` if it does not exist.
    present: Option<V>,
    /// The acknowledged state before that.
    previous: Option<V>,
    /// The state that the pending or uncertain request brings about.
    pending: Option<Option<V>>,
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The object is as it was acknowledged.
    Ok,
    /// The outcome was unknown, and the request was carried out as a whole.
    CarriedOut,
    /// The outcome was unknown, and the request had no effect.
    NoEffect,
    /// An acknowledged change is missing.
    Lost,
    /// The object is in a state that no request would bring about.
    Corrupt,
}

/// Sums of outcomes and verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// The number of unknown outcomes that had been carried out.
    pub carried_out: u64,
    /// The number of unknown outcomes that had no effect.
    pub no_effect: u64,
    pub checked: u64,
    pub lost: u64,
    pub corrupt: u64,
}

// === impl Ledger ===

impl<V> Default for Ledger<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), figures: Figures::default() }
    }
}

impl<V: Clone + PartialEq> Ledger<V> {
    /// Records that a request is about to be sent which brings the object into this state.
    ///
    /// # Panics
    /// Panics if another request for this object is pending or uncertain.
    pub fn send(&mut self, name: &str, after: Option<V>) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        assert!(entry.pending.is_none(), "{name}: a request is pending");
        entry.pending = Some(after);
        self.figures.sent += 1;
    }

    /// Records that the request was answered with success.
    ///
    /// # Panics
    /// Panics if no request is pending.
    pub fn acknowledge(&mut self, name: &str) {
        let after = self.take_pending(name);
        self.settle(name, after);
        self.figures.acknowledged += 1;
    }

    /// As [`Ledger::acknowledge`], with a state that is known in full only from the answer.
    ///
    /// # Panics
    /// Panics if no request is pending.
    pub fn acknowledge_as(&mut self, name: &str, after: V) {
        self.take_pending(name);
        self.settle(name, Some(after));
        self.figures.acknowledged += 1;
    }

    /// Records that the request was answered with an error that promises that nothing happened.
    ///
    /// # Panics
    /// Panics if no request is pending.
    pub fn refuse(&mut self, name: &str) {
        self.take_pending(name);
        self.figures.refused += 1;
    }

    /// Records that no answer said what happened: the request stays uncertain.
    ///
    /// # Panics
    /// Panics if no request is pending.
    pub fn doubt(&mut self, name: &str) {
        assert!(self.pending(name).is_some(), "{name}: no request is pending");
        self.figures.unknown += 1;
    }

    /// Compares an object with what is found, and settles an uncertain request. After a loss the ledger continues from
    /// what was found, so that each loss is counted once.
    pub fn check(&mut self, name: &str, found: Option<&V>) -> Verdict {
        let entry = self.entries.entry(name.to_owned()).or_default();
        let pending = entry.pending.take();
        let verdict = if entry.present.as_ref() == found {
            if pending.is_some() { Verdict::NoEffect } else { Verdict::Ok }
        } else if pending.is_some_and(|after| after.as_ref() == found) {
            Verdict::CarriedOut
        } else if found.is_none() || found == entry.previous.as_ref() {
            Verdict::Lost
        } else {
            Verdict::Corrupt
        };
        self.figures.count(verdict);
        if !matches!(verdict, Verdict::Ok | Verdict::NoEffect) {
            self.settle(name, found.cloned());
        }
        verdict
    }

    /// The object as last acknowledged.
    pub fn present(&self, name: &str) -> Option<&V> {
        self.entries.get(name)?.present.as_ref()
    }

    /// The state that the uncertain request brings about, if there is one.
    pub fn pending(&self, name: &str) -> Option<Option<&V>> {
        self.entries.get(name)?.pending.as_ref().map(Option::as_ref)
    }

    /// The names of all objects that were recorded and not forgotten.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Removes an object, so that it is not checked again.
    pub fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }

    fn take_pending(&mut self, name: &str) -> Option<V> {
        let pending = self.entries.get_mut(name).and_then(|entry| entry.pending.take());
        pending.unwrap_or_else(|| panic!("{name}: no request is pending"))
    }

    fn settle(&mut self, name: &str, after: Option<V>) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        entry.previous = std::mem::replace(&mut entry.present, after);
    }
}

// === impl Entry ===

impl<V> Default for Entry<V> {
    fn default() -> Self {
        Self { present: None, previous: None, pending: None }
    }
}

// === impl Figures ===

impl Figures {
    /// Returns whether nothing was lost and nothing is corrupt.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.corrupt == 0
    }

    /// The sums of both.
    pub fn add(&mut self, other: Figures) {
        let Figures { sent, acknowledged, refused, unknown, carried_out, no_effect, checked, lost, corrupt } = other;
        self.sent += sent;
        self.acknowledged += acknowledged;
        self.refused += refused;
        self.unknown += unknown;
        self.carried_out += carried_out;
        self.no_effect += no_effect;
        self.checked += checked;
        self.lost += lost;
        self.corrupt += corrupt;
    }

    fn count(&mut self, verdict: Verdict) {
        self.checked += 1;
        match verdict {
            Verdict::Ok => {}
            Verdict::CarriedOut => self.carried_out += 1,
            Verdict::NoEffect => self.no_effect += 1,
            Verdict::Lost => self.lost += 1,
            Verdict::Corrupt => self.corrupt += 1,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { sent, acknowledged, refused, unknown, carried_out, no_effect, checked, lost, corrupt } = self;
        write!(f, "sent={sent} acknowledged={acknowledged} refused={refused} unknown={unknown}")?;
        write!(f, " (carried out={carried_out}, no effect={no_effect})")?;
        write!(f, " checked={checked} lost={lost} corrupt={corrupt}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_distinguish_what_happened() {
        let mut ledger = Ledger::default();
        ledger.send("a", Some(1));
        ledger.acknowledge("a");
        assert_eq!(ledger.check("a", Some(&1)), Verdict::Ok);
        ledger.send("a", Some(2));
        ledger.doubt("a");
        assert_eq!(ledger.pending("a"), Some(Some(&2)));
        assert_eq!(ledger.check("a", Some(&1)), Verdict::NoEffect);
        ledger.send("a", Some(2));
        ledger.doubt("a");
        assert_eq!(ledger.check("a", Some(&2)), Verdict::CarriedOut);
        ledger.send("a", Some(3));
        ledger.acknowledge("a");
        assert_eq!(ledger.check("a", Some(&2)), Verdict::Lost, "the state before is there");
        assert_eq!(ledger.check("a", Some(&2)), Verdict::Ok, "a loss is counted once");
        assert_eq!(ledger.check("a", None), Verdict::Lost);
        assert_eq!(ledger.check("b", Some(&7)), Verdict::Corrupt, "no request made it");
        ledger.send("c", Some(4));
        ledger.refuse("c");
        assert_eq!(ledger.check("c", None), Verdict::Ok);
        ledger.send("d", None);
        ledger.doubt("d");
        assert_eq!(ledger.check("d", Some(&9)), Verdict::Corrupt);
        let figures = ledger.figures;
        assert_eq!((figures.sent, figures.acknowledged, figures.refused, figures.unknown), (6, 2, 1, 3));
        assert_eq!((figures.lost, figures.corrupt, figures.carried_out, figures.no_effect), (2, 2, 1, 1));
        assert!(!figures.is_clean());
    }

    #[test]
    #[should_panic(expected = "a request is pending")]
    fn one_request_at_a_time() {
        let mut ledger = Ledger::default();
        ledger.send("a", Some(1));
        ledger.send("a", Some(2));
    }

    #[test]
    #[should_panic(expected = "a: no request is pending")]
    fn only_a_pending_request_is_doubted() {
        let mut ledger = Ledger::default();
        ledger.send("b", Some(1));
        ledger.doubt("a");
    }
}
