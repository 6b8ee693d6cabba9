//! Inputs out of inputs, by random numbers that a seed repeats.

use jackfield_testkit::fuzz::Target;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(u64);

/// Bytes that decide something in most formats.
const BYTES: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0xff, b'0', b'"', b'\\', b'*', b' ', b'\n'];
/// Most changes that are made at once.
const CHANGES: u64 = 6;

// === impl Random ===

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one; 0 when it is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// One of these.
    pub(super) fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// A new input: one of the pool, changed a few times, and sometimes crossed with another.
pub(super) fn mutated(target: &Target, pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    // What was found last is the most promising.
    let newest = pool.len().saturating_sub(16);
    let chosen =
        if random.below(3) == 0 { newest + random.below(pool.len() - newest) } else { random.below(pool.len()) };
    let mut input = pool[chosen].clone();
    for _ in 0..=random.below(CHANGES as usize) {
        change(&mut input, target, pool, random);
    }
    input.truncate(target.max_len);
    input
}

fn change(input: &mut Vec<u8>, target: &Target, pool: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at).min(64) + 1);
    match random.below(10) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = BYTES[random.below(BYTES.len())],
        2 if at < input.len() => input[at] = random.next() as u8,
        3 => input.insert(at, random.next() as u8),
        4 => drop(input.drain(at..end)),
        5 => {
            let part = input[at..end].to_vec();
            let times = [1, 2, 3, 40][random.below(4)];
            let again = part.repeat(times);
            input.splice(at..at, again.into_iter().take(target.max_len));
        }
        6 => {
            let other = &pool[random.below(pool.len())];
            let from = random.below(other.len() + 1);
            let until = from + random.below(other.len() - from + 1);
            input.splice(at..end, other[from..until].iter().copied());
        }
        _ => {
            let word = random.one(target.words).as_bytes();
            // Over something or between.
            let end = if random.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
            input.splice(at..end, word.iter().copied());
        }
    }
}
