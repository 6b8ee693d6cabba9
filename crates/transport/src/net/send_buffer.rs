//! A buffer above TLS for the bytes that a connection writes in one turn of the scheduler. It sends the responses of a turn in
//! few records, with one system call: the HTTP library writes and flushes each of them by itself.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// The most bytes that are kept: one record of TLS has as many.
const MOST: usize = 16 * 1024;

/// The bytes that are to be sent. It takes no memory while there are none. They are answers in the clear; the allocator wipes
/// what is freed.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
    /// The socket has taken bytes and may have kept some of them.
    unflushed: bool,
    /// The socket has taken something since the last look.
    moved: bool,
}

// === impl SendBuffer ===

impl SendBuffer {
    /// Returns whether there is nothing to send or to flush.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Returns whether the socket has taken something since the last look.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Writes to the socket: into the buffer if there is room or something before it, and past it if there is as much as it
    /// holds. Returns the number of bytes that were taken.
    pub(super) fn poll_write<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= MOST {
            ready!(self.poll_send(io, cx))?;
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length < MOST || !self.bytes.is_empty() {
            return Poll::Ready(Ok(self.keep(bufs)));
        }
        let taken = ready!(Pin::new(io).poll_write_vectored(cx, bufs))?;
        self.note(taken);
        Poll::Ready(Ok(taken))
    }

    /// Sends all that it has.
    pub(super) fn poll_send<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let taken = ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes[self.sent..]))?;
            if taken == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
            self.note(taken);
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            (self.unflushed, self.moved) = (false, true);
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps as many bytes as there is room for. Returns their number.
    fn keep(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        let before = self.bytes.len();
        for buf in bufs {
            let room = MOST - self.bytes.len();
            self.bytes.extend_from_slice(&buf[..room.min(buf.len())]);
        }
        self.bytes.len() - before
    }

    fn note(&mut self, taken: usize) {
        self.unflushed |= taken > 0;
        self.moved |= taken > 0;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    /// Bytes of which no two parts are the same.
    fn counted(from: usize, length: usize) -> Vec<u8> {
        (from..from + length).map(|number| (number % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_written_in_a_turn_is_sent_at_once_and_in_order() {
        let (mut near, mut far) = duplex(16 * MOST);
        let mut buffer = SendBuffer::default();
        let mut written = 0;
        for length in [3, MOST - 10, 20, 2 * MOST, MOST, 1] {
            let bytes = counted(written, length);
            let mut rest = &*bytes;
            while !rest.is_empty() {
                let (first, second) = rest.split_at(rest.len() / 3);
                let bufs = [IoSlice::new(first), IoSlice::new(second)];
                let taken = poll_fn(|cx| buffer.poll_write(&mut near, cx, &bufs)).await.unwrap();
                rest = &rest[taken..];
            }
            written += length;
            if length == 3 {
                let nothing = futures::poll!(std::pin::pin!(far.read_u8()));
                assert!(nothing.is_pending(), "it waits for the end of the turn");
            }
        }
        poll_fn(|cx| buffer.poll_send(&mut near, cx)).await.unwrap();
        assert!(buffer.is_empty() && buffer.bytes.capacity() == 0);
        drop(near);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert!(sent == counted(0, written), "{} of {written} bytes", sent.len());
    }

    #[tokio::test]
    async fn what_is_written_after_a_part_was_sent_comes_after_it() {
        let (mut near, mut far) = duplex(100);
        let mut buffer = SendBuffer::default();
        let write = |buffer: &mut SendBuffer, from, length| buffer.keep(&[IoSlice::new(&counted(from, length))]);
        assert_eq!(write(&mut buffer, 0, 150), 150);
        assert!(futures::poll!(poll_fn(|cx| buffer.poll_send(&mut near, cx))).is_pending());
        assert!(buffer.take_moved() && !buffer.take_moved());
        assert_eq!(write(&mut buffer, 150, 30), 30);
        let mut sent = vec![0; 180];
        let (done, _) = tokio::join!(poll_fn(|cx| buffer.poll_send(&mut near, cx)), far.read_exact(&mut sent));
        done.unwrap();
        assert_eq!(sent, counted(0, 180));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_bounds_what_is_kept() {
        let (mut near, far) = duplex(100);
        let mut buffer = SendBuffer::default();
        let mut taken = 0;
        let bytes = [7; 1_000];
        loop {
            let write = poll_fn(|cx| buffer.poll_write(&mut near, cx, &[IoSlice::new(&bytes)]));
            match futures::poll!(std::pin::pin!(write)) {
                Poll::Ready(written) => taken += written.unwrap(),
                Poll::Pending => break,
            }
        }
        assert_eq!(taken, MOST);
        drop(far);
        let failed = poll_fn(|cx| buffer.poll_send(&mut near, cx)).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
