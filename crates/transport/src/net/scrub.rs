//! Overwrites what a client has sent. The HTTP library reads into a buffer that it keeps: its content is processed, but
//! stays readable there until the buffer has been filled, which on a quiet connection may take until its end. Nothing but
//! what is read overwrites it. So it is given frames of an unknown type that hold zeros, which it has to ignore (RFC 9113
//! 4.1).

use tokio::io::ReadBuf;

use super::frame::{HEAD_LENGTH, Head, UNKNOWN};

/// The longest content of a frame, within every limit on frames.
const MOST: usize = 8 * 1024;
/// The first pass goes to the end of the buffer, the second from its beginning to its end.
const PASSES: u8 = 2;

/// The rest that is still to be overwritten.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// Something was read since the last time.
    dirty: bool,
    passes: u8,
    /// Bytes of a frame without content that did not fit in before the end of the buffer.
    head_sent: usize,
}

// === impl Scrub ===

impl Scrub {
    /// Notes that bytes of the client passed.
    pub(super) fn soil(&mut self) {
        self.dirty = true;
    }

    /// Begins, if there is something to overwrite.
    pub(super) fn begin(&mut self) {
        if self.dirty && self.passes == 0 {
            (self.dirty, self.passes) = (false, PASSES);
        }
    }

    /// Returns whether it is under way. In the middle of a frame it has to continue.
    pub(super) fn is_under_way(&self) -> bool {
        self.passes > 0 || self.head_sent > 0
    }

    /// Fills a buffer to its end with whole frames, or with the beginning of one that the next begins with.
    pub(super) fn fill(&mut self, buf: &mut ReadBuf<'_>) {
        let empty = head(0);
        if self.head_sent > 0 {
            let rest = &empty[self.head_sent..];
            let rest = &rest[..rest.len().min(buf.remaining())];
            buf.put_slice(rest);
            self.head_sent = (self.head_sent + rest.len()) % HEAD_LENGTH;
            if self.passes == 0 || self.head_sent > 0 {
                return;
            }
        }
        while buf.remaining() >= HEAD_LENGTH {
            let room = buf.remaining() - HEAD_LENGTH;
            let mut content = room.min(MOST);
            // What is left behind it holds a whole frame too, or nothing.
            if (1..HEAD_LENGTH).contains(&(room - content)) {
                content -= HEAD_LENGTH;
            }
            buf.put_slice(&head(content));
            buf.initialize_unfilled_to(content).fill(0);
            buf.advance(content);
        }
        self.head_sent = buf.remaining();
        buf.put_slice(&empty[..self.head_sent]);
        self.passes = self.passes.saturating_sub(1);
    }
}

/// Makes the head of a frame with content of this length.
fn head(content: usize) -> [u8; HEAD_LENGTH] {
    Head { length: content, kind: UNKNOWN, flags: 0, stream: 0 }.write()
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, BytesMut};
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Reads as the HTTP library does: into what room there is, frame by frame.
    #[tokio::test]
    async fn a_buffer_is_overwritten_from_end_to_end_by_whole_frames() {
        for used in [1, 100, 4_090, 8_000, 8_180, 8_183, 8_184, 8_190, 8_192] {
            let mut buffer = BytesMut::with_capacity(8_192);
            buffer.resize(used, b'x');
            let at = buffer.as_ptr();
            drop(buffer.split_to(used));
            let mut scrub = Scrub::default();
            scrub.begin();
            assert!(!scrub.is_under_way(), "there is nothing to overwrite");
            scrub.soil();
            scrub.begin();
            let mut ends = Vec::new();
            while scrub.is_under_way() {
                buffer.reserve(1);
                let room = buffer.capacity() - buffer.len();
                let mut bytes = vec![b'y'; room];
                let mut buf = ReadBuf::new(&mut bytes);
                scrub.fill(&mut buf);
                let mut filled = buf.filled();
                filled.read_buf(&mut buffer).await.unwrap();
                while buffer.len() >= HEAD_LENGTH {
                    let length = usize::from(buffer[1]) << 8 | usize::from(buffer[2]);
                    assert_eq!(buffer[3], UNKNOWN);
                    assert!(buffer.len() >= HEAD_LENGTH + length, "{used}: a frame is cut");
                    let frame = buffer.split_to(HEAD_LENGTH + length);
                    assert!(frame[HEAD_LENGTH..].iter().all(|byte| *byte == 0));
                    ends.push((frame.as_ptr() as usize - at as usize, frame.len()));
                }
            }
            assert!(!buffer.has_remaining(), "{used}: no frame is left unfinished");
            // Counted back from the end of the last frame there is no gap as long as the buffer.
            let mut covered = vec![false; 8_192];
            ends.iter().for_each(|(from, length)| covered[*from..from + length].fill(true));
            assert!(covered.iter().all(|covered| *covered), "{used}: {ends:?}");
        }
    }
}
