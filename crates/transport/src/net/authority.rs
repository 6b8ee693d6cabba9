//! Rewrites the `:authority` of callers on a Unix socket so that the HTTP library accepts it.
//!
//! Clients built on gRPC's C core (C++, Python, Ruby, PHP, Objective-C) send the path of the socket there, percent-encoded:
//! `run%2Fjackfield.sock`. The `http` crate does not accept it as a host (RFC 3986 3.2.2), and such calls would be reset
//! before the server sees them. The server does not use the authority, so every byte that could trouble a parser becomes
//! "-" on its way.
//!
//! The lengths of the bytes and of the text stay the same: the text enters HPACK's table (RFC 7541 2.3.2), and both sides
//! must agree on what is evicted when. Only texts without Huffman code are rewritten; C core sends no others.

use super::frame::{
    CONTINUATION, FLAG_END_HEADERS, FLAG_PADDED, FLAG_PRIORITY, HEAD_LENGTH, HEADERS, Head, PREFACE_LENGTH,
};

/// Bytes of the priority that a HEADERS frame may begin with.
const PRIORITY_LENGTH: usize = 5;

const NAME: &[u8] = b":authority";
/// Its place in the static table (RFC 7541, appendix A).
const STATIC_INDEX: u8 = 1;

/// Follows what a client sends, in pieces of any size, and rewrites it in place.
#[derive(Debug)]
pub(super) struct AuthorityFilter {
    frame: Frame,
    block: Block,
}

/// The position in the frames.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// This many bytes are of no interest.
    Skip(usize),
    Head {
        head: [u8; HEAD_LENGTH],
        filled: usize,
    },
    /// The byte that holds the length of the padding at the end of the frame; this many bytes follow it.
    PadLength {
        left: usize,
        priority: bool,
        end: bool,
    },
    /// The priority before the fields: the bytes that are left of it, and of the frame behind it.
    Priority {
        skip: usize,
        left: usize,
        padding: usize,
        end: bool,
    },
    Fields {
        left: usize,
        padding: usize,
        end: bool,
    },
}

/// The position in a field block (RFC 7541 6).
#[derive(Clone, Copy, Debug)]
enum Block {
    Start,
    /// The rest of a number, and what comes after it.
    Number(After),
    /// The first byte of a text's length.
    Length(Text),
    /// The rest of a text's length, which is `value` so far.
    MoreLength {
        text: Text,
        huffman: bool,
        value: usize,
        shift: u32,
    },
    Text {
        text: Text,
        huffman: bool,
        left: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum After {
    /// The next field.
    Start,
    /// A value, not of the authority: its name has an index of more than one byte.
    Value,
}

#[derive(Clone, Copy, Debug)]
enum Text {
    /// The number of bytes that equal `NAME` so far; `None` for another name.
    Name {
        same: Option<usize>,
    },
    Value {
        authority: bool,
    },
}

// === impl AuthorityFilter ===

impl AuthorityFilter {
    pub(super) fn new() -> Self {
        AuthorityFilter { frame: Frame::Skip(PREFACE_LENGTH), block: Block::Start }
    }

    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = &mut bytes[taken..];
        }
    }

    /// Takes some of the bytes, at least one.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let taken;
        self.frame = match self.frame {
            Frame::Skip(left) => {
                taken = left.min(bytes.len());
                skip(left - taken)
            }
            Frame::Head { mut head, filled } => {
                taken = (HEAD_LENGTH - filled).min(bytes.len());
                head[filled..filled + taken].copy_from_slice(&bytes[..taken]);
                match filled + taken {
                    HEAD_LENGTH => payload(head),
                    filled => Frame::Head { head, filled },
                }
            }
            Frame::PadLength { left, priority, end } => {
                taken = 1;
                fields(left, priority, usize::from(bytes[0]), end)
            }
            Frame::Priority { skip, left, padding, end } => {
                taken = skip.min(bytes.len());
                match skip - taken {
                    0 => fields(left, false, padding, end),
                    skip => Frame::Priority { skip, left, padding, end },
                }
            }
            Frame::Fields { left, padding, end } => {
                taken = left.min(bytes.len());
                for byte in &mut bytes[..taken] {
                    self.block = self.block.next(byte);
                }
                if left == taken && end {
                    self.block = Block::Start;
                }
                match left - taken {
                    0 => skip(padding),
                    left => Frame::Fields { left, padding, end },
                }
            }
        };
        taken
    }
}

/// Skips this many bytes; a head follows.
fn skip(left: usize) -> Frame {
    match left {
        0 => Frame::Head { head: [0; HEAD_LENGTH], filled: 0 },
        left => Frame::Skip(left),
    }
}

/// Returns what comes after the head of a frame.
fn payload(head: [u8; HEAD_LENGTH]) -> Frame {
    let Head { length, kind, flags, .. } = Head::read(head);
    let end = flags & FLAG_END_HEADERS != 0;
    match kind {
        HEADERS => {
            let priority = flags & FLAG_PRIORITY != 0;
            match length.checked_sub(1) {
                Some(left) if flags & FLAG_PADDED != 0 => Frame::PadLength { left, priority, end },
                _ => fields(length, priority, 0, end),
            }
        }
        CONTINUATION => fields(length, false, 0, end),
        _ => skip(length),
    }
}

/// Returns what a frame of this length holds from its priority on. Its end is padding, which fields do not reach into.
fn fields(length: usize, priority: bool, padding: usize, end: bool) -> Frame {
    // More padding than there is room for is an error of the connection: what it is rewritten to does not matter.
    let padded = padding.min(length);
    let left = length - padded;
    match (left, priority) {
        (0, _) => skip(padded),
        (left, true) if left >= PRIORITY_LENGTH => {
            Frame::Priority { skip: PRIORITY_LENGTH, left: length - PRIORITY_LENGTH, padding, end }
        }
        (left, _) => Frame::Fields { left, padding: padded, end },
    }
}

// === impl Block ===

impl Block {
    fn next(self, byte: &mut u8) -> Block {
        match self {
            Block::Start => Block::field(*byte),
            Block::Number(after) if *byte & 0x80 == 0 => match after {
                After::Start => Block::Start,
                After::Value => Block::Length(Text::Value { authority: false }),
            },
            Block::Number(_) => self,
            Block::Length(text) => {
                let (huffman, length) = (*byte & 0x80 != 0, usize::from(*byte & 0x7f));
                match length {
                    0x7f => Block::MoreLength { text, huffman, value: length, shift: 0 },
                    length => Block::text(text, huffman, length),
                }
            }
            Block::MoreLength { text, huffman, value, shift } => {
                // The HTTP library refuses a length beyond this.
                let more = usize::from(*byte & 0x7f).checked_shl(shift).unwrap_or(usize::MAX);
                let value = value.saturating_add(more);
                match *byte & 0x80 {
                    0 => Block::text(text, huffman, value),
                    _ => Block::MoreLength { text, huffman, value, shift: shift.saturating_add(7) },
                }
            }
            Block::Text { mut text, huffman, left } => {
                match &mut text {
                    Text::Name { same } => {
                        *same = same.filter(|same| !huffman && NAME.get(*same) == Some(byte)).map(|same| same + 1);
                    }
                    Text::Value { authority: true } if !huffman && !is_harmless(*byte) => *byte = b'-',
                    Text::Value { .. } => {}
                }
                Block::text(text, huffman, left - 1)
            }
        }
    }

    /// Reads the first byte of a field.
    fn field(byte: u8) -> Block {
        // The bits after the pattern are a number, which continues in other bytes if all of them are set.
        let (bits, literal) = match byte.leading_zeros() {
            0 => (0x7f, false),
            1 => (0x3f, true),
            2 => (0x1f, false),
            _ => (0x0f, true),
        };
        match (byte & bits, literal) {
            (number, false) if number == bits => Block::Number(After::Start),
            (_, false) => Block::Start,
            (number, true) if number == bits => Block::Number(After::Value),
            (0, true) => Block::Length(Text::Name { same: Some(0) }),
            (index, true) => Block::Length(Text::Value { authority: index == STATIC_INDEX }),
        }
    }

    /// Reads this many bytes of a text; what comes after it follows.
    fn text(text: Text, huffman: bool, left: usize) -> Block {
        match (left, text) {
            (0, Text::Name { same }) => Block::Length(Text::Value { authority: same == Some(NAME.len()) }),
            (0, Text::Value { .. }) => Block::Start,
            (left, text) => Block::Text { text, huffman, left },
        }
    }
}

/// The unreserved characters of RFC 3986: a host may hold them anywhere.
fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of stream 1.
    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    /// A literal field with incremental indexing and a new name, as C core sends them.
    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![0x40, name.len() as u8];
        bytes.extend(name.bytes());
        bytes.extend(text(value));
        bytes
    }

    fn text(value: &str) -> Vec<u8> {
        let mut bytes = match value.len() {
            short @ ..0x7f => vec![short as u8],
            // Two bytes more, which is enough here.
            long => vec![0x7f, (long - 0x7f) as u8 & 0x7f | 0x80, ((long - 0x7f) >> 7) as u8],
        };
        bytes.extend(value.bytes());
        bytes
    }

    /// Returns what a client sends, with this authority in every form that there is.
    fn sent(authority: &str, path: &str) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(0x4, 0, &[0x41, 1, b'%', 0, 0, 0]));
        // A new size of the table, an index, a literal with a new name, and one whose name is not the authority.
        let mut fields = vec![0x3f, 0xe1, 0x1f, 0x83];
        fields.extend(literal(":path", path));
        fields.extend(literal(":authority", authority));
        fields.extend(literal(":authority2", path));
        fields.extend(literal(":autority", path));
        bytes.extend(frame(HEADERS, FLAG_END_HEADERS, &fields));
        // Padded, with a priority, in two frames; the name by its index, to be indexed, not to be, and never.
        for pattern in [0x41, 0x01, 0x11] {
            let mut fields = vec![pattern];
            fields.extend(text(authority));
            // The name of this one is an index of more than one byte.
            fields.extend([0x0f, 0x2e]);
            fields.extend(text(path));
            let (first, second) = fields.split_at(4);
            let padded = [&[3, 0x80, 0, 0, 0, 7], first, &[b'%'; 3]].concat();
            bytes.extend(frame(HEADERS, FLAG_PADDED | FLAG_PRIORITY, &padded));
            bytes.extend(frame(CONTINUATION, FLAG_END_HEADERS, second));
        }
        bytes.extend(frame(0x0, 0x1, b"A\x01a%%:authority"));
        bytes
    }

    #[test]
    fn the_authority_and_nothing_else_is_mended_however_the_bytes_are_cut() {
        let long = "run%2Fjack:field@".repeat(40);
        let mended = "run-2Fjack-field-".repeat(40);
        for (authority, mended) in
            [("run%2Fjackfield.sock", "run-2Fjackfield.sock"), ("localhost", "localhost"), (&long, &mended), ("", "")]
        {
            let expected = sent(mended, "/a%2F:authority");
            for piece in [1, 2, 3, 7, 24, 100, 1_000_000] {
                let mut bytes = sent(authority, "/a%2F:authority");
                let mut filter = AuthorityFilter::new();
                for chunk in bytes.chunks_mut(piece) {
                    filter.pass(chunk);
                }
                assert!(bytes == expected, "{authority} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn huffman_code_is_left_alone() {
        // "%%" in Huffman code, which the byte "-" would make another text of.
        let fields = [0x41, 0x82, 0x55, 0x57];
        let mut bytes = [&[0; PREFACE_LENGTH][..], &frame(HEADERS, FLAG_END_HEADERS, &fields)].concat();
        let before = bytes.clone();
        AuthorityFilter::new().pass(&mut bytes);
        assert_eq!(bytes, before);
    }

    #[test]
    fn nonsense_ends_somewhere() {
        // Lengths that overflow, padding that is longer than its frame, frames that are too short for what they say.
        let huge = [0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let mut bytes = vec![0; PREFACE_LENGTH];
        for flags in [0, FLAG_PADDED, FLAG_PRIORITY, FLAG_PADDED | FLAG_PRIORITY] {
            for payload in [&huge[..], &[], &[0xff], &[9, 9], &[0, 0, 0, 0, 0, 0]] {
                bytes.extend(frame(HEADERS, flags, payload));
            }
        }
        bytes.extend([0xff; 100]);
        AuthorityFilter::new().pass(&mut bytes);

        // Fields of any bytes, from a generator with a fixed seed (xorshift): whole frames, so that the next head is found.
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        for _ in 0..2_000 {
            let mut bytes = vec![0; PREFACE_LENGTH];
            for kind in [HEADERS, CONTINUATION] {
                let (flags, length) = (random(), usize::from(random()));
                let fields: Vec<u8> = (0..length).map(|_| random()).collect();
                bytes.extend(frame(kind, flags & !FLAG_END_HEADERS, &fields));
            }
            // A new block is rewritten, whatever came before.
            bytes.extend(frame(CONTINUATION, FLAG_END_HEADERS, b"?"));
            let begun = bytes.len();
            bytes.extend(frame(HEADERS, FLAG_END_HEADERS, b"\x41\x03a%b"));
            AuthorityFilter::new().pass(&mut bytes);
            assert_eq!(bytes[begun + HEAD_LENGTH..], *b"\x41\x03a-b");
        }
    }
}
