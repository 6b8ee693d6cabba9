//! The parsers of untrusted input, as functions of bytes. Each panics if a property does not hold; "it does not panic"
//! is only the weakest of them. The same functions run on a corpus, under a seeded mutator and under libFuzzer.
//!
//! A function returns a number that identifies the path taken, so that a mutator without instrumentation can recognise
//! inputs that take a new path.

mod files;
mod license;
mod sealed;
mod text;
mod wire;

use std::hash::{DefaultHasher, Hash, Hasher};

/// The path of an execution: equal for inputs that take the same path.
pub type Way = u64;

/// A function of bytes under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the name of its directory in the corpus.
    pub name: &'static str,
    /// Checks all properties for one input.
    pub check: fn(&[u8]) -> Way,
    /// Only parses the bytes, as the server does.
    pub parse: fn(&[u8]),
    /// The most memory in bytes that `parse` may use at any time, for an input of this many bytes.
    pub memory: fn(usize) -> u64,
    /// The length in bytes of the longest input worth trying.
    pub max_len: usize,
    /// Pieces to build inputs from.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    text::FILTER,
    text::REFERENCE,
    sealed::PAGE_TOKEN,
    sealed::ENVELOPE,
    files::CONFIGURATION,
    files::KEYRING,
    wire::SCAN,
    license::RESPONSE,
];

/// The target of this name.
///
/// # Panics
/// Panics if there is none.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"))
}

/// A number for a path. Digits and quotations in messages are left out because they come from the input.
fn way(parts: &[&str]) -> Way {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        let plain = part.split('"').step_by(2).flat_map(str::chars).filter(|c| !c.is_ascii_digit());
        plain.collect::<String>().hash(&mut hasher);
    }
    hasher.finish()
}
