//! Shared tools of the harnesses in `tests/proof`, besides processes and ledgers: seeds, settings, turns, figures.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jackfield_domain::{Clock as _, SystemClock};

/// A generator of numbers from a seed (SplitMix64): the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// A guard: it is the harness's turn until this is dropped.
#[must_use]
pub struct Turn {
    _guard: MutexGuard<'static, ()>,
}

/// Waits for its turn. Harnesses load and measure the machine, so only one runs at a time, whatever the number of
/// threads.
pub fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    Turn { _guard: TURN.lock().unwrap_or_else(PoisonError::into_inner) }
}

/// The seed of this run: `PROOF_SEED`, or a fresh one.
pub fn seed() -> u64 {
    setting("PROOF_SEED", SystemClock.now().0.unsigned_abs())
}

/// A setting of a harness from the environment, or its default.
///
/// # Panics
/// Panics if its value cannot be parsed.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, not of the server")]
pub fn setting<T: FromStr>(variable: &str, default: T) -> T {
    match std::env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable}: {value} is not a valid value")),
        Err(_) => default,
    }
}

/// Prints a harness's line of figures. It appears whether or not the test passes.
pub fn report(line: &str) {
    // The output of the print macros would be captured.
    let _ = writeln!(std::io::stderr(), "proof: {line}");
}

/// The time that a durable write of 4 KiB takes in this directory (fdatasync): the median of 25.
///
/// # Panics
/// Panics if the directory is not writable.
pub fn sync_latency(directory: &Path) -> Duration {
    let path = directory.join("sync-latency");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file");
    let mut times: Vec<Duration> = (0..25)
        .map(|_| {
            let begin = Instant::now();
            file.write_all(&[0x5a; 4096]).and_then(|()| file.sync_data()).expect("a durable write");
            begin.elapsed()
        })
        .collect();
    std::fs::remove_file(&path).expect("a file that can be removed");
    times.sort_unstable();
    times[times.len() / 2]
}

// === impl Rng ===

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator that follows from the same seed, for a part of a harness that runs at its own pace.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to but not including `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Returns true with a probability of `percent` in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Picks one of these.
    ///
    /// # Panics
    /// Panics if there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }
}
