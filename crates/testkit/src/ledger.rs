//! What a harness sent, what it knows became of it, and whether that is what is there.
//!
//! An entry is one object, as its owner last knew it: a state, or `None` for "not there". Only one request at a time may
//! be under way for an object; what it would make of it is written down before it is sent. A request has one of three
//! outcomes, which are never folded together: acknowledged, refused (an answer that promises that nothing happened), or
//! unknown (no such answer). [`Ledger::check`] compares with what is found, and settles what was unknown.

use std::collections::BTreeMap;
use std::fmt;

/// The objects of one owner, by name.
#[derive(Clone, Debug)]
pub struct Ledger<V> {
    entries: BTreeMap<String, Entry<V>>,
    /// What happened so far.
    pub figures: Figures,
}

/// An object.
#[derive(Clone, Debug)]
struct Entry<V> {
    /// As acknowledged; `None`: it is not there.
    present: Option<V>,
    /// As it was before that.
    former: Option<V>,
    /// What the request under way, or in doubt, makes of it.
    pending: Option<Option<V>>,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was acknowledged.
    Ok,
    /// The outcome was unknown, and the request was carried out as a whole.
    CarriedOut,
    /// The outcome was unknown, and the request had no effect.
    NoEffect,
    /// What was acknowledged is not there.
    Lost,
    /// It is in a state that no request would bring about.
    Corrupt,
}

/// Sums of outcomes and verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub sent: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Of those unknown, so many had been carried out.
    pub carried_out: u64,
    /// Of those unknown, so many had no effect.
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
    /// Notes that a request is about to be sent which brings the object into this state.
    ///
    /// # Panics
    /// Panics if another one for this object is under way or in doubt.
    pub fn send(&mut self, name: &str, after: Option<V>) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        assert!(entry.pending.is_none(), "{name}: a request is under way");
        entry.pending = Some(after);
        self.figures.sent += 1;
    }

    /// Notes that the request was answered with success.
    ///
    /// # Panics
    /// Panics if none is under way.
    pub fn acknowledge(&mut self, name: &str) {
        let after = self.take_pending(name);
        self.settle(name, after);
        self.figures.acknowledged += 1;
    }

    /// As [`Ledger::acknowledge`], with a state that only the answer tells in full.
    ///
    /// # Panics
    /// As there.
    pub fn acknowledge_as(&mut self, name: &str, after: V) {
        self.take_pending(name);
        self.settle(name, Some(after));
        self.figures.acknowledged += 1;
    }

    /// Notes that the request was answered with an error that promises that nothing happened.
    ///
    /// # Panics
    /// Panics if none is under way.
    pub fn refuse(&mut self, name: &str) {
        self.take_pending(name);
        self.figures.refused += 1;
    }

    /// Notes that there was no answer that says what happened: the request stays in doubt.
    pub fn doubt(&mut self, _name: &str) {
        self.figures.unknown += 1;
    }

    /// Compares an object with what is found, and settles a request in doubt. After a loss the ledger goes on from what was
    /// found, so that it is counted once.
    pub fn check(&mut self, name: &str, found: Option<&V>) -> Verdict {
        let entry = self.entries.entry(name.to_owned()).or_default();
        let pending = entry.pending.take();
        let verdict = if entry.present.as_ref() == found {
            if pending.is_some() { Verdict::NoEffect } else { Verdict::Ok }
        } else if pending.is_some_and(|after| after.as_ref() == found) {
            Verdict::CarriedOut
        } else if found.is_none() || found == entry.former.as_ref() {
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

    /// The object as it was acknowledged last.
    pub fn present(&self, name: &str) -> Option<&V> {
        self.entries.get(name)?.present.as_ref()
    }

    /// What the request in doubt makes of the object, if there is one.
    pub fn pending(&self, name: &str) -> Option<Option<&V>> {
        self.entries.get(name)?.pending.as_ref().map(Option::as_ref)
    }

    /// The names of all objects that were ever written down and not forgotten.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Strikes an object out, so that it is not checked again.
    pub fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }

    fn take_pending(&mut self, name: &str) -> Option<V> {
        let pending = self.entries.get_mut(name).and_then(|entry| entry.pending.take());
        pending.unwrap_or_else(|| panic!("{name}: no request is under way"))
    }

    fn settle(&mut self, name: &str, after: Option<V>) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        entry.former = std::mem::replace(&mut entry.present, after);
    }
}

// === impl Entry ===

impl<V> Default for Entry<V> {
    fn default() -> Self {
        Self { present: None, former: None, pending: None }
    }
}

// === impl Figures ===

impl Figures {
    /// Whether nothing was lost and nothing is corrupt.
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
    fn verdicts_tell_apart_what_happened() {
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
        assert_eq!(ledger.check("b", Some(&7)), Verdict::Corrupt, "nobody made it");
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
    #[should_panic(expected = "a request is under way")]
    fn one_request_at_a_time() {
        let mut ledger = Ledger::default();
        ledger.send("a", Some(1));
        ledger.send("a", Some(2));
    }
}
