//! The layout of HTTP/2 frames (RFC 9113 4.1, 6), as far as they are read or written beside the HTTP library.

/// The length of the connection preface of a client.
pub(super) const PREFACE_LENGTH: usize = 24;
/// The length of the head of a frame.
pub(super) const HEAD_LENGTH: usize = 9;

// Types.
pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;
/// A type for experiments, without a meaning.
pub(super) const UNKNOWN: u8 = 0xf5;

// Flags.
pub(super) const FLAG_ACK: u8 = 0x1;
pub(super) const FLAG_END_STREAM: u8 = 0x1;
pub(super) const FLAG_END_HEADERS: u8 = 0x4;
pub(super) const FLAG_PADDED: u8 = 0x8;
pub(super) const FLAG_PRIORITY: u8 = 0x20;

// Error codes.
pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes that follow it.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

// === impl Head ===

impl Head {
    pub(super) fn read(bytes: [u8; HEAD_LENGTH]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        // The first bit of a stream's number is reserved.
        Head { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }

    /// Encodes it. Lengths have 24 bits.
    pub(super) fn write(self) -> [u8; HEAD_LENGTH] {
        let [.., a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let bytes = [0x01, 0x02, 0x03, PING, FLAG_ACK, 0, 0, 0, 7];
        let head = Head { length: 0x01_02_03, kind: PING, flags: FLAG_ACK, stream: 7 };
        assert_eq!((Head::read(bytes), head.write()), (head, bytes));
        assert_eq!(Head::read([0, 0, 0, DATA, 0, 0x80, 0, 0, 1]).stream, 1);
    }
}
