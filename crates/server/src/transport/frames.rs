//! Reads the heads of HTTP/2 frames as they pass by, to see what the HTTP library does not tell: whether the peer said
//! hello, whether it floods with control frames, whether it takes what it asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const PREFACE_LENGTH: usize = 24;
const HEAD_LENGTH: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;

const FLAG_ACK: u8 = 0x1;
const FLAG_END_STREAM: u8 = 0x1;

/// DATA shorter than the five bytes before a gRPC message carries nothing.
const EMPTY_DATA: usize = 5;
/// A quiet peer may send this many seconds' worth at once.
const BURST_SECONDS: f64 = 10.0;

/// What the supervisor of a connection looks at.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// The client has sent the preface of HTTP/2.
    pub(super) hello: AtomicBool,
    /// Bytes of DATA frames, heads not counted, that the socket took.
    pub(super) data_written: AtomicU64,
    /// RST_STREAM frames of the client: whatever was still to be sent on these streams never will be.
    pub(super) resets_read: AtomicU64,
    /// How often something came from the client.
    pub(super) reads: AtomicU64,
    /// The connection's turns of the scheduler so far.
    pub(super) turns: AtomicU64,
}

/// Watches both directions of one connection.
#[derive(Debug)]
pub(super) struct FrameMeter {
    read: Scanner,
    written: Scanner,
    control: Bucket,
}

/// The client sends nothing but control frames.
#[derive(Debug, thiserror::Error)]
#[error("too many control frames")]
pub(super) struct Flood;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
}

/// Finds the heads in a stream of bytes that comes in pieces of any size.
#[derive(Debug)]
struct Scanner {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; HEAD_LENGTH],
    filled: usize,
}

/// Leaky bucket in frames.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

// === impl FrameMeter ===

impl FrameMeter {
    /// Allows `control_per_second` control frames, ten seconds' worth at once.
    pub(super) fn new(control_per_second: u32) -> Self {
        let control = Bucket::new(f64::from(control_per_second), Instant::now());
        FrameMeter { read: Scanner::new(PREFACE_LENGTH), written: Scanner::new(0), control }
    }

    /// Bytes came from the client.
    pub(super) fn read(&mut self, bytes: &[u8], wire: &Wire) -> Result<(), Flood> {
        let FrameMeter { read, control, .. } = self;
        let mut flood = false;
        read.scan(bytes, |head| match head.kind {
            SETTINGS | PING if head.flags & FLAG_ACK == 0 => flood |= !control.take(),
            PRIORITY => flood |= !control.take(),
            DATA if head.length < EMPTY_DATA && head.flags & FLAG_END_STREAM == 0 => flood |= !control.take(),
            RST_STREAM => {
                wire.resets_read.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        });
        if read.past_preface() {
            wire.hello.store(true, Ordering::Relaxed);
        }
        if flood { Err(Flood) } else { Ok(()) }
    }

    /// The socket took bytes from us.
    pub(super) fn written(&mut self, bytes: &[u8], wire: &Wire) {
        let FrameMeter { written, control, .. } = self;
        written.scan(bytes, |head| {
            // A client that is being served may ping as it likes: many measure the bandwidth that way.
            if matches!(head.kind, DATA | HEADERS) {
                control.refill();
            }
            if head.kind == DATA {
                wire.data_written.fetch_add(head.length as u64, Ordering::Relaxed);
            }
        });
    }
}

// === impl Scanner ===

impl Scanner {
    fn new(skip: usize) -> Self {
        Scanner { skip, head: [0; HEAD_LENGTH], filled: 0 }
    }

    /// Whether something after the bytes to skip at the start has been seen.
    fn past_preface(&self) -> bool {
        self.filled > 0 || self.skip == 0
    }

    fn scan(&mut self, mut bytes: &[u8], mut on_head: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_LENGTH - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD_LENGTH {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.skip = length;
                on_head(Head { length, kind, flags });
            }
        }
    }
}

// === impl Bucket ===

impl Bucket {
    fn new(per_second: f64, now: Instant) -> Self {
        Bucket { per_second, tokens: per_second * BURST_SECONDS, filled: now }
    }

    fn refill(&mut self) {
        self.tokens = self.per_second * BURST_SECONDS;
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.filled = now;
        self.tokens = (self.tokens + earned).min(self.per_second * BURST_SECONDS) - 1.0;
        self.tokens >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = vec![(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD_LENGTH + length, 0xff);
        bytes
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let heads = [(0, SETTINGS, 0), (8, PING, 0), (70_000, DATA, 1), (3, RST_STREAM, 0)];
        let mut bytes = vec![b'P'; PREFACE_LENGTH];
        bytes.extend(heads.iter().flat_map(|(length, kind, flags)| frame(*length, *kind, *flags)));
        for piece in [1, 2, 5, 9, 24, 25, 1_000, 1_000_000] {
            let mut scanner = Scanner::new(PREFACE_LENGTH);
            let mut found = Vec::new();
            for chunk in bytes.chunks(piece) {
                scanner.scan(chunk, |head| found.push((head.length, head.kind, head.flags)));
            }
            assert_eq!(found, heads, "pieces of {piece}");
        }
    }

    #[test]
    fn a_flood_of_pings_is_seen_and_serving_a_client_forgives_them() {
        let wire = Wire::default();
        let mut meter = FrameMeter::new(1);
        meter.read(&[b'P'; PREFACE_LENGTH], &wire).unwrap();
        let ping = frame(8, PING, 0);
        for _ in 0..10 {
            meter.read(&ping, &wire).unwrap();
        }
        assert!((0..3).any(|_| meter.read(&ping, &wire).is_err()));
        meter.written(&frame(100, DATA, 0), &wire);
        meter.read(&ping, &wire).unwrap();
        assert_eq!(wire.data_written.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn acknowledgements_and_messages_are_free() {
        let wire = Wire::default();
        let mut meter = FrameMeter::new(1);
        meter.read(&[b'P'; PREFACE_LENGTH], &wire).unwrap();
        for _ in 0..100 {
            meter.read(&frame(8, PING, FLAG_ACK), &wire).unwrap();
            meter.read(&frame(0, DATA, FLAG_END_STREAM), &wire).unwrap();
            meter.read(&frame(50, DATA, 0), &wire).unwrap();
        }
        assert!((0..20).any(|_| meter.read(&frame(0, DATA, 0), &wire).is_err()), "empty data is not free");
    }
}
