//! What stands between strangers' bytes and this program, as functions of bytes. Each panics when a property does not
//! hold; "it does not panic" is only the least of them. The same functions are run on a corpus, by a seeded mutator and by
//! libFuzzer.
//!
//! A function returns a number that stands for the way it went, so that a mutator without instrumentation can tell inputs
//! that lead somewhere new.

mod files;
mod sealed;
mod text;
mod wire;

use std::hash::{DefaultHasher, Hash, Hasher};

/// The way that an execution went: equal for inputs that lead to the same places.
pub type Way = u64;

/// A function of bytes under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its directory in the corpus.
    pub name: &'static str,
    /// Checks everything that has to hold of one input.
    pub check: fn(&[u8]) -> Way,
    /// Only what the server does with such bytes.
    pub parse: fn(&[u8]),
    /// The most memory in bytes that `parse` may take at a time, for an input of this many bytes.
    pub memory: fn(usize) -> u64,
    /// The longest input in bytes that is worth trying.
    pub max_len: usize,
    /// Pieces that inputs are made of.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    text::FILTER,
    text::REFERENCE,
    sealed::PAGE_TOKEN,
    sealed::ENVELOPE,
    files::CONFIGURATION,
    files::KEYRING,
    wire::SCAN,
];

/// The target of this name.
///
/// # Panics
/// Panics if there is none.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"))
}

/// A number for a way. Figures and quotations in messages are left out: they are of the input.
fn way(parts: &[&str]) -> Way {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        let plain = part.split('"').step_by(2).flat_map(str::chars).filter(|c| !c.is_ascii_digit());
        plain.collect::<String>().hash(&mut hasher);
    }
    hasher.finish()
}
