//! Reads the heads of HTTP/2 frames as they pass by, to see what the HTTP library does not report: whether the client has
//! sent the preface, whether it floods the server with costly and useless frames, and whether it reads its responses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::frame::{
    CONTINUATION, DATA, ENHANCE_YOUR_CALM, FLAG_ACK, FLAG_END_HEADERS, FLAG_END_STREAM, GOAWAY, HEAD_LENGTH, HEADERS,
    Head, PING, PREFACE_LENGTH, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::config::Limits;

/// DATA shorter than the five bytes before a gRPC message carries nothing.
const EMPTY_DATA: usize = 5;
/// A quiet peer may send this many seconds' worth at once.
const BURST_SECONDS: f64 = 10.0;
/// A client that is sent this many bytes may send one more control frame: many measure the bandwidth by PINGs.
const BYTES_PER_CONTROL_FRAME: f64 = 64.0;
/// A client that is sent this many bytes may open windows once more. No library opens them for less, and libraries that read in
/// pieces of a kilobyte and open the window of the stream and that of the connection are well within it.
const BYTES_PER_WINDOW_UPDATE: f64 = 128.0;
/// The windows that a client may open at the beginning of a connection, and with each call.
const FIRST_WINDOW_UPDATES: f64 = 100.0;
const WINDOW_UPDATES_PER_CALL: f64 = 4.0;
/// The most that is saved up: a client may take 4 MiB in one window and acknowledge it afterwards.
const MOST_WINDOW_UPDATES: f64 = 32.0 * 1024.0;

/// The state of the transfer that the supervisor of a connection looks at.
#[derive(Debug, Default)]
pub(super) struct WireState {
    /// The client has sent the preface of HTTP/2.
    pub(super) preface_seen: AtomicBool,
    /// The client sent too many costly and useless frames.
    pub(super) flood: AtomicBool,
    /// True when the bytes of the client are to be overwritten.
    pub(super) scrub: AtomicBool,
    /// Bytes of DATA frames, heads not counted, that the socket or the buffer before it took.
    pub(super) data_written: AtomicU64,
    /// RST_STREAM frames of the client: data that was still to be sent on these streams never will be.
    pub(super) resets_read: AtomicU64,
    /// The number of reads that brought something from the client.
    pub(super) reads: AtomicU64,
    /// The connection's turns of the scheduler so far.
    pub(super) turns: AtomicU64,
}

/// Watches both directions of one connection. Every frame of a client that its calls do not need is charged: to what the
/// client may send anyway (`control`), or to credit that it earned by reading responses.
#[derive(Debug)]
pub(super) struct FrameMeter {
    read: Scanner,
    written: Scanner,
    control: Bucket,
    resets: Bucket,
    /// The number of resets that a response offsets.
    resets_per_answer: f64,
    /// WINDOW_UPDATE frames that the client may send for what it was sent.
    window_updates: f64,
    /// PING and SETTINGS frames that the client has not acknowledged.
    pings: u32,
    settings: u32,
    /// Calls that the client may still cancel. No more are counted than it can have open.
    open: u32,
    most_open: u32,
    /// Headers have begun and not ended: no other frame may come between.
    in_headers: bool,
    /// The last stream that the client opened, and the last one that it had opened before this turn.
    last: u32,
    last_of_previous_turn: u32,
}

/// The kind of frame of which there were too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flood {
    #[error("too_many_control_frames")]
    Control,
    /// gRPC libraries ping less often after this reason.
    #[error("too_many_pings")]
    Pings,
    #[error("too_many_resets")]
    Resets,
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

// === impl WireState ===

impl WireState {
    /// Returns a count that changes whenever data comes from the client, or data for it is written.
    pub(super) fn moves(&self) -> u64 {
        self.reads.load(Ordering::Relaxed).wrapping_add(self.data_written.load(Ordering::Relaxed))
    }
}

// === impl FrameMeter ===

impl FrameMeter {
    /// Makes a meter with as much of everything as the limits allow.
    pub(super) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        FrameMeter {
            read: Scanner::new(PREFACE_LENGTH),
            written: Scanner::new(0),
            control: Bucket::new(f64::from(limits.max_control_frames_per_second), now),
            resets: Bucket::new(f64::from(limits.max_pending_accept_reset_streams) / BURST_SECONDS, now),
            resets_per_answer: f64::from(limits.max_concurrent_streams),
            window_updates: FIRST_WINDOW_UPDATES,
            pings: 0,
            settings: 0,
            open: 0,
            most_open: limits.max_concurrent_streams.saturating_mul(2),
            in_headers: false,
            last: 0,
            last_of_previous_turn: 0,
        }
    }

    /// Begins a turn of the scheduler: calls that came before it have been accepted.
    pub(super) fn turn(&mut self) {
        self.last_of_previous_turn = self.last;
    }

    /// Counts bytes that came from the client.
    pub(super) fn read(&mut self, bytes: &[u8], wire: &WireState) -> Result<(), Flood> {
        let mut scanner = std::mem::replace(&mut self.read, Scanner::new(0));
        let mut flood = None;
        scanner.scan(bytes, |head| {
            if let Err(found) = self.read_head(head, wire) {
                flood.get_or_insert(found);
            }
        });
        self.read = scanner;
        if self.read.past_preface() {
            wire.preface_seen.store(true, Ordering::Relaxed);
        }
        // Streams that we had to reset are counted when they are written.
        match flood.or(self.resets.is_empty().then_some(Flood::Resets)) {
            Some(flood) => {
                wire.flood.store(true, Ordering::Relaxed);
                Err(flood)
            }
            None => Ok(()),
        }
    }

    fn read_head(&mut self, head: Head, wire: &WireState) -> Result<(), Flood> {
        if matches!(head.kind, HEADERS | CONTINUATION) {
            self.in_headers = head.flags & FLAG_END_HEADERS == 0;
        }
        let paid = match head.kind {
            // Of a call, and of its trailers; the HTTP library bounds the rest.
            HEADERS => {
                if head.stream > self.last {
                    self.last = head.stream;
                    self.open = (self.open + 1).min(self.most_open);
                    self.window_updates = (self.window_updates + WINDOW_UPDATES_PER_CALL).min(MOST_WINDOW_UPDATES);
                }
                true
            }
            CONTINUATION => true,
            DATA => head.length >= EMPTY_DATA || head.flags & FLAG_END_STREAM != 0,
            RST_STREAM => {
                wire.resets_read.fetch_add(1, Ordering::Relaxed);
                // A call that is cancelled before it is accepted costs as much as a call, but does not count as one.
                if head.stream > self.last_of_previous_turn && !self.resets.take() {
                    return Err(Flood::Resets);
                }
                spend(&mut self.open)
            }
            WINDOW_UPDATE if self.window_updates >= 1.0 => {
                self.window_updates -= 1.0;
                true
            }
            SETTINGS if head.flags & FLAG_ACK != 0 => spend(&mut self.settings),
            PING if head.flags & FLAG_ACK != 0 => spend(&mut self.pings),
            // PING, SETTINGS, PRIORITY, GOAWAY, needless windows, and any other frame.
            _ => false,
        };
        match paid || self.control.take() {
            true => Ok(()),
            false if head.kind == PING && head.flags & FLAG_ACK == 0 => Err(Flood::Pings),
            false => Err(Flood::Control),
        }
    }

    /// Counts bytes that the socket or the buffer before it took.
    pub(super) fn written(&mut self, bytes: &[u8], wire: &WireState) {
        let mut scanner = std::mem::replace(&mut self.written, Scanner::new(0));
        scanner.scan(bytes, |head| match head.kind {
            // A client that is being served may send such frames in proportion: a call costs more than they do.
            HEADERS => {
                self.control.refill();
                // A response has ended. A client that reads one may have cancelled all others that it could have open.
                if head.flags & FLAG_END_STREAM != 0 {
                    self.resets.add(self.resets_per_answer);
                }
            }
            DATA => {
                let length = head.length as f64;
                self.control.add(length / BYTES_PER_CONTROL_FRAME);
                self.window_updates = (self.window_updates + length / BYTES_PER_WINDOW_UPDATE).min(MOST_WINDOW_UPDATES);
                wire.data_written.fetch_add(head.length as u64, Ordering::Relaxed);
            }
            // The client caused it, or left. Either way, the call does not count as one.
            RST_STREAM => drop(self.resets.take()),
            PING if head.flags & FLAG_ACK == 0 => self.pings = self.pings.saturating_add(1),
            SETTINGS if head.flags & FLAG_ACK == 0 => self.settings = self.settings.saturating_add(1),
            _ => {}
        });
        self.written = scanner;
    }

    /// Returns whether the client is between two frames, where another one may be put.
    pub(super) fn may_interrupt(&self) -> bool {
        self.read.between_frames() && !self.in_headers
    }

    /// Returns the GOAWAY that says why the client has to go; `None` in the middle of another frame.
    pub(super) fn goaway(&self, why: Flood) -> Option<Vec<u8>> {
        if !self.written.between_frames() {
            return None;
        }
        let text = why.to_string();
        let mut frame = Head { length: 8 + text.len(), kind: GOAWAY, flags: 0, stream: 0 }.write().to_vec();
        frame.extend(self.last.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(text.as_bytes());
        Some(frame)
    }
}

/// Takes one from a count. Returns whether there was one.
fn spend(count: &mut u32) -> bool {
    let there = *count > 0;
    *count -= u32::from(there);
    there
}

// === impl Scanner ===

impl Scanner {
    fn new(skip: usize) -> Self {
        Scanner { skip, head: [0; HEAD_LENGTH], filled: 0 }
    }

    /// Returns whether something after the bytes to skip at the start has been seen.
    fn past_preface(&self) -> bool {
        self.filled > 0 || self.skip == 0
    }

    /// Returns whether the next byte begins a frame.
    fn between_frames(&self) -> bool {
        self.filled == 0 && self.skip == 0
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
                let head = Head::read(self.head);
                self.skip = head.length;
                on_head(head);
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

    fn add(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.per_second * BURST_SECONDS);
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.filled = now;
        self.add(earned);
        self.tokens -= 1.0;
        !self.is_empty()
    }

    /// Returns whether more was taken than it held.
    fn is_empty(&self) -> bool {
        self.tokens < 0.0
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
