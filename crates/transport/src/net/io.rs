//! The socket of a connection, with what the HTTP library lacks: a bound on how long a write may make no progress, the
//! frame meter, and an end that the client is informed of.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::frames::{Flood, FrameMeter, WireState};
use super::scrub::Scrub;
use super::send_buffer::SendBuffer;
use super::stall::Stall;

/// The bytes that a connection reads in one turn of the scheduler. What is read is processed at once, so this is what all
/// other connections wait for when one sends what is expensive to decode.
const ONE_TURN: usize = 16 * 1024;
/// The time for which data of a client is still read after everything has been sent.
///
/// A socket that is closed over unread bytes is reset, and a reset takes from the client what it has not read yet: the
/// GOAWAY with the reason, and the responses before it. RFC 9112 9.6 says the same of HTTP/1.1.
const LINGER: Duration = Duration::from_secs(1);
/// The most bytes that are then read, whatever kind of frames they are. They are more than the window of a connection,
/// which a client may have under way.
const MOST_DISCARDED: usize = 4 * 1024 * 1024;
/// The bytes that are thrown away at once.
const DISCARD: usize = 4 * 1024;

/// A guarded socket. Bytes that pass it are HTTP/2 in the clear: TLS is below.
pub(super) struct GuardedIo<I> {
    io: I,
    meter: FrameMeter,
    scrub: Scrub,
    wire: Arc<WireState>,
    /// Bytes that were written and are not sent yet.
    unsent: SendBuffer,
    stall: Stall,
    /// The turn in which it was read last, and how many bytes.
    turn: u64,
    read: usize,
    /// Set once the client has flooded the connection.
    pending: Option<PendingGoaway>,
    /// Set once there is nothing more to send.
    linger: Option<Linger>,
}

/// A guarded socket that the HTTP library has, and that the connection tells of the end of a turn.
pub(super) struct SharedIo<I>(Arc<Mutex<GuardedIo<I>>>);

/// The GOAWAY to a client that has flooded the connection.
struct PendingGoaway {
    why: Flood,
    goaway: Vec<u8>,
    sent: usize,
}

struct Linger {
    end: Pin<Box<Sleep>>,
    discarded: usize,
}

// === impl GuardedIo ===

impl<I> GuardedIo<I> {
    pub(super) fn new(io: I, meter: FrameMeter, wire: Arc<WireState>, stall_timeout: Duration) -> Self {
        let (scrub, unsent, stall) = (Scrub::default(), SendBuffer::default(), Stall::new(stall_timeout));
        GuardedIo { io, meter, scrub, wire, unsent, stall, turn: 0, read: 0, pending: None, linger: None }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> GuardedIo<I> {
    /// Sends what was written and is not sent yet.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            // Something else may wait for the peer, and its time runs on.
            return Poll::Ready(Ok(()));
        }
        let polled = self.unsent.poll_send(&mut self.io, cx);
        self.watch(cx, polled)
    }

    /// Passes on the result of a write, which fails if the socket has taken nothing for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.unsent.take_moved() {
            self.stall.moved();
        }
        self.stall.watch(cx, polled)
    }

    /// Sends the reason why the connection ends, shuts it down and then fails, which ends it for the layers above. `None`:
    /// the connection continues.
    fn poll_pending_goaway(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Error>> {
        let PendingGoaway { why, .. } = self.pending.as_ref()?;
        let failed = io::Error::new(ErrorKind::InvalidData, *why);
        let sent = self.poll_send_goaway(cx);
        Some(sent.map(|()| failed))
    }

    /// Sends the GOAWAY and shuts the connection down, if that can be done.
    fn poll_send_goaway(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_unsent(cx)).is_err() {
            return Poll::Ready(());
        }
        while let Some(PendingGoaway { goaway, sent, .. }) = &mut self.pending
            && *sent < goaway.len()
        {
            let polled = Pin::new(&mut self.io).poll_write(cx, &goaway[*sent..]);
            match ready!(self.stall.watch(cx, polled)) {
                Ok(taken) if taken > 0 => {
                    if let Some(pending) = &mut self.pending {
                        pending.sent += taken;
                    }
                }
                _ => return Poll::Ready(()),
            }
        }
        self.shut_down(cx).map(drop)
    }

    /// Shuts down our side, and waits a while for the client to do the same.
    fn shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.poll_unsent(cx))?;
            let polled = Pin::new(&mut self.io).poll_shutdown(cx);
            ready!(self.stall.watch(cx, polled))?;
        }
        let GuardedIo { io, linger, .. } = self;
        let new = || Linger { end: Box::pin(tokio::time::sleep(LINGER)), discarded: 0 };
        let linger = linger.get_or_insert_with(new);
        let mut discard = [0; DISCARD];
        // Before the time is checked: if this process was suspended, what came meanwhile is there to be read.
        loop {
            let mut buf = ReadBuf::new(&mut discard);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => linger.discarded += buf.filled().len(),
                // A client that breaks off is as done as one that closes its side.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
            if linger.discarded > MOST_DISCARDED {
                return Poll::Ready(Ok(()));
            }
        }
        // A timer is not ready for a task that has read all that it may read in one turn.
        if linger.end.deadline() <= Instant::now() {
            return Poll::Ready(Ok(()));
        }
        linger.end.as_mut().poll(cx).map(Ok)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = self.poll_pending_goaway(cx) {
            return end.map(Err);
        }
        if self.meter.may_interrupt() && self.wire.scrub.swap(false, Ordering::Relaxed) {
            self.scrub.begin();
        }
        if self.scrub.is_under_way() {
            self.scrub.fill(buf);
            return Poll::Ready(Ok(()));
        }
        let turn = self.wire.turns.load(Ordering::Relaxed);
        if turn != self.turn {
            (self.turn, self.read) = (turn, 0);
            self.meter.turn();
        }
        if self.read >= ONE_TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = &polled {
            let GuardedIo { meter, scrub, wire, read, .. } = &mut *self;
            scrub.soil();
            let new = &buf.filled()[before..];
            *read += new.len();
            wire.reads.fetch_add(1, Ordering::Relaxed);
            if let Err(why) = meter.read(new, wire) {
                let goaway = meter.goaway(why).unwrap_or_default();
                self.pending = Some(PendingGoaway { why, goaway, sent: 0 });
                // None of it is passed on: a client that floods is no longer read.
                buf.set_filled(before);
                if let Some(end) = self.poll_pending_goaway(cx) {
                    return end.map(Err);
                }
            }
        }
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(end) = self.poll_pending_goaway(cx) {
            return end.map(Err);
        }
        let GuardedIo { io, unsent, .. } = &mut *self;
        let taken = match unsent.poll_write(io, cx, bufs) {
            // The end of the turn tells whether the peer reads.
            Poll::Ready(Ok(taken)) => taken,
            polled => return self.watch(cx, polled),
        };
        let GuardedIo { meter, wire, .. } = &mut *self;
        let mut left = taken;
        for buf in bufs {
            let part = left.min(buf.len());
            meter.written(&buf[..part], wire);
            left -= part;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: what was written is sent at the end of the turn.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_pending_goaway(cx) {
            Some(end) => end.map(Err),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down(cx)
    }
}

// === impl SharedIo ===

impl<I> SharedIo<I> {
    /// Shares a socket with its connection.
    pub(super) fn new(io: GuardedIo<I>) -> Self {
        SharedIo(Arc::new(Mutex::new(io)))
    }

    /// The socket. Only the task of the connection uses it.
    fn get(&self) -> MutexGuard<'_, GuardedIo<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> SharedIo<I> {
    /// Ends a turn: sends what was written in it.
    ///
    /// # Errors
    /// The connection broke, or the peer has not read for too long.
    pub(super) fn poll_turn_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.get();
        // What ends the connection sends it.
        if io.pending.is_some() || io.linger.is_some() { Poll::Ready(Ok(())) } else { io.poll_unsent(cx) }
    }
}

impl<I> Clone for SharedIo<I> {
    fn clone(&self) -> Self {
        SharedIo(Arc::clone(&self.0))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for SharedIo<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get()).poll_read(cx, buf)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SharedIo<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.get().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use tokio::io::{AsyncWriteExt as _, empty, join, repeat, sink};
    use tokio::task::unconstrained;

    use super::*;
    use crate::config::Limits;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn guarded<I>(io: I) -> GuardedIo<I> {
        let limits = Limits { max_control_frames_per_second: u32::MAX, ..Limits::default() };
        GuardedIo::new(io, FrameMeter::new(&limits), Arc::default(), Duration::from_secs(20))
    }

    #[test]
    fn a_connection_that_never_rests_gives_way_and_goes_on() {
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut io = guarded(join(repeat(0), sink()));
        for turn in 1..=3 {
            io.wire.turns.fetch_add(1, Ordering::Relaxed);
            let mut read = 0;
            loop {
                let mut bytes = [0; 1_000];
                let mut buf = ReadBuf::new(&mut bytes);
                match Pin::new(&mut io).poll_read(&mut cx, &mut buf) {
                    Poll::Ready(done) => done.unwrap(),
                    Poll::Pending => break,
                }
                read += buf.filled().len();
            }
            assert!((ONE_TURN..ONE_TURN + 1_000).contains(&read), "{read}");
            assert_eq!(woken.0.load(Ordering::Relaxed), 2 * turn - 1, "it asks for its next turn itself");
            let again = Pin::new(&mut io).poll_read(&mut cx, &mut ReadBuf::new(&mut [0]));
            assert!(again.is_pending(), "there is one of them at a time");
        }
    }

    /// Polls the end of a turn once a second, as the supervisor of a connection does, until it is done.
    async fn turn_end<I: AsyncRead + AsyncWrite + Unpin>(io: &SharedIo<I>) -> io::Result<()> {
        loop {
            let polled = futures::poll!(std::future::poll_fn(|cx| io.poll_turn_end(cx)));
            match polled {
                Poll::Ready(done) => return done,
                Poll::Pending => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_waited_for_and_one_that_does_not_read_is_not() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let mut io = SharedIo::new(guarded(near));
        io.write_all(&[0; ONE_TURN]).await.unwrap();
        let start = Instant::now();
        let reader = async {
            let mut bytes = [0; 1_024];
            for _ in 0..ONE_TURN / bytes.len() {
                tokio::time::sleep(Duration::from_secs(5)).await;
                tokio::io::AsyncReadExt::read_exact(&mut far, &mut bytes).await.unwrap();
            }
        };
        let (sent, ()) = tokio::join!(turn_end(&io), reader);
        sent.unwrap();
        assert!(start.elapsed() > Duration::from_secs(60), "it took longer than a peer may leave data unread");
        // More than the buffer holds goes past it, and is waited for no longer.
        for length in [2_000, 2 * ONE_TURN] {
            let (near, _far) = tokio::io::duplex(1_024);
            let mut io = SharedIo::new(guarded(near));
            let start = Instant::now();
            let failed = match io.write_all(&vec![0; length]).await {
                Ok(()) => turn_end(&io).await,
                failed => failed,
            };
            assert_eq!(failed.unwrap_err().kind(), ErrorKind::TimedOut, "{length}");
            assert!((20..23).contains(&start.elapsed().as_secs()), "{length}: {:?}", start.elapsed());
        }
    }

    #[tokio::test]
    async fn who_sends_on_after_the_end_is_not_heard_out() {
        let mut io = guarded(join(repeat(0), sink()));
        unconstrained(io.shutdown()).await.unwrap();
        let discarded = io.linger.expect("it has waited").discarded;
        assert!((MOST_DISCARDED..=MOST_DISCARDED + DISCARD).contains(&discarded), "{discarded}");

        let mut io = guarded(join(empty(), sink()));
        io.shutdown().await.unwrap();
        assert_eq!(io.linger.expect("it has looked").discarded, 0);
    }
}
