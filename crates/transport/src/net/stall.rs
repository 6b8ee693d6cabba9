//! A bound on the time for which a peer may leave data unread.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The cause of an error: a peer that does not read. The system has its own time-outs, which have the same kind and are another thing.
#[derive(Debug, thiserror::Error)]
#[error("the peer does not read")]
pub(super) struct Stalled;

/// The time that writes to a peer may take without progress.
#[derive(Debug)]
pub(super) struct Stall {
    timeout: Duration,
    /// Runs while a write waits for the peer.
    end: Option<Pin<Box<Sleep>>>,
}

/// A socket whose writes fail once the peer has left data unread for too long.
#[derive(Debug)]
pub(super) struct StallGuard<I> {
    io: I,
    stall: Stall,
}

// === impl Stalled ===

impl Stalled {
    /// Returns true for the error of a write that this guard has ended.
    pub(super) fn is_cause(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<Stalled>())
    }
}

// === impl Stall ===

impl Stall {
    pub(super) fn new(timeout: Duration) -> Self {
        Stall { timeout, end: None }
    }

    /// Notes that the peer has taken something: the time starts again.
    pub(super) fn moved(&mut self) {
        self.end = None;
    }

    /// Passes on the result of a write. A write that waits too long fails.
    pub(super) fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.end = None;
            return polled;
        }
        let timeout = self.timeout;
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        match end.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, Stalled))),
        }
    }
}

// === impl StallGuard ===

impl<I> StallGuard<I> {
    pub(super) fn new(io: I, timeout: Duration) -> Self {
        StallGuard { io, stall: Stall::new(timeout) }
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for StallGuard<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for StallGuard<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.stall.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.stall.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.stall.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.stall.watch(cx, polled)
    }
}
