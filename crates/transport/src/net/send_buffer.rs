//! What a connection writes in one turn of the scheduler, kept above TLS. So the responses of a turn go out in few records, with one system
//! call: the HTTP library writes and flushes each of them by itself.

use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// The most bytes that are kept: one record of TLS has as many.
const MOST: usize = 16 * 1024;

/// The bytes that are to be sent. It takes no memory while there are none.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
    /// The socket has taken bytes and may have kept some of them.
    unflushed: bool,
}

// === impl SendBuffer ===

impl SendBuffer {
    /// Returns whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= MOST
    }

    /// Takes as many bytes as there is room for. Returns their number.
    pub(super) fn take(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        if self.bytes.capacity() == 0 {
            // A buffer that grows leaves copies behind.
            self.bytes.reserve_exact(MOST);
        }
        let before = self.bytes.len();
        for buf in bufs {
            let room = MOST - self.bytes.len();
            self.bytes.extend_from_slice(&buf[..room.min(buf.len())]);
        }
        self.bytes.len() - before
    }

    /// Writes to the socket: into the buffer if there is room or something before it, and past it if there is more than it holds. Returns the
    /// number of bytes that were taken.
    pub(super) fn poll_write<I: AsyncWrite + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_full() {
            ready!(self.poll_send(io, cx))?;
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length < MOST || !self.bytes.is_empty() {
            return Poll::Ready(Ok(self.take(bufs)));
        }
        self.unflushed = true;
        Pin::new(io).poll_write_vectored(cx, bufs)
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
            (self.sent, self.unflushed) = (self.sent + taken, true);
        }
        self.clear();
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Wipes what was sent, and gives the memory back.
    fn clear(&mut self) {
        if self.bytes.capacity() > 0 {
            self.bytes.fill(0);
            black_box(&mut self.bytes);
            (self.bytes, self.sent) = (Vec::new(), 0);
        }
    }
}

impl Drop for SendBuffer {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_a_turn_is_sent_at_once_and_in_order() {
        let (mut near, mut far) = duplex(8 * MOST);
        let mut buffer = SendBuffer::default();
        let mut expected = Vec::new();
        for (number, length) in [3, MOST - 10, 20, 2 * MOST, MOST, 1].into_iter().enumerate() {
            let bytes = vec![number as u8; length];
            let mut rest = &*bytes;
            while !rest.is_empty() {
                let (first, second) = rest.split_at(rest.len() / 2);
                let bufs = [IoSlice::new(first), IoSlice::new(second)];
                let taken = poll_fn(|cx| buffer.poll_write(&mut near, cx, &bufs)).await.unwrap();
                rest = &rest[taken..];
            }
            expected.extend(bytes);
            if number == 0 {
                let nothing = futures::poll!(std::pin::pin!(far.read_u8()));
                assert!(nothing.is_pending(), "it waits for the end of the turn");
            }
        }
        poll_fn(|cx| buffer.poll_send(&mut near, cx)).await.unwrap();
        assert_eq!(buffer.bytes.capacity(), 0);
        drop(near);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert!(sent == expected, "{} of {} bytes", sent.len(), expected.len());
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
