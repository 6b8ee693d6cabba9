//! Mutation of inputs, with random numbers from a seed.

use jackfield_testkit::Rng;
use jackfield_testkit::fuzz::Target;

/// Bytes with a meaning in most formats.
const BYTES: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0xff, b'0', b'"', b'\\', b'*', b' ', b'\n'];
/// The most changes made at once.
const CHANGES: u64 = 6;

/// A number below `end`; 0 if `end` is 0.
fn below(random: &mut Rng, end: usize) -> usize {
    if end == 0 { 0 } else { (random.next() % end as u64) as usize }
}

/// A new input: one of the pool, changed a few times, and sometimes crossed with another.
pub(super) fn mutated(target: &Target, pool: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    // The latest inputs are the most promising.
    let newest = pool.len().saturating_sub(16);
    let chosen =
        if below(random, 3) == 0 { newest + below(random, pool.len() - newest) } else { below(random, pool.len()) };
    let mut input = pool[chosen].clone();
    for _ in 0..=below(random, CHANGES as usize) {
        change(&mut input, target, pool, random);
    }
    input.truncate(target.max_len);
    input
}

fn change(input: &mut Vec<u8>, target: &Target, pool: &[Vec<u8>], random: &mut Rng) {
    let at = below(random, input.len() + 1);
    let end = at + below(random, (input.len() - at).min(64) + 1);
    match below(random, 10) {
        0 if at < input.len() => input[at] ^= 1 << below(random, 8),
        1 if at < input.len() => input[at] = BYTES[below(random, BYTES.len())],
        2 if at < input.len() => input[at] = random.next() as u8,
        3 => input.insert(at, random.next() as u8),
        4 => drop(input.drain(at..end)),
        5 => {
            let part = input[at..end].to_vec();
            let times = [1, 2, 3, 40][below(random, 4)];
            let again = part.repeat(times);
            input.splice(at..at, again.into_iter().take(target.max_len));
        }
        6 => {
            let other = &pool[below(random, pool.len())];
            let from = below(random, other.len() + 1);
            let until = from + below(random, other.len() - from + 1);
            input.splice(at..end, other[from..until].iter().copied());
        }
        _ => {
            let word = random.pick(target.words).as_bytes();
            // Overwrites or inserts.
            let end = if below(random, 2) == 0 { at } else { (at + word.len()).min(input.len()) };
            input.splice(at..end, word.iter().copied());
        }
    }
}
