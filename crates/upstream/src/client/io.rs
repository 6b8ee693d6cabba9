//! The socket of a connection, which notes when bytes last passed. The note is below TLS, so a server that sends a record
//! byte by byte is not taken for one that is silent. Above TLS, it limits interim responses.

use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::deadline::passed;

/// The traffic of a socket.
#[derive(Debug)]
pub(super) struct Traffic {
    opened: Instant,
    /// Milliseconds from `opened` until bytes last passed.
    last: AtomicU64,
    written: AtomicU64,
    /// The first byte that was read.
    first: OnceLock<u8>,
    /// No byte was written since the last response, so none of the next one can have come.
    idle: AtomicBool,
    /// The bytes that were read above TLS: at the beginning of the exchange, before the last read, and after it.
    plain_at_start: AtomicU64,
    plain_before: AtomicU64,
    plain: AtomicU64,
    /// The least that the interim responses of the exchange have.
    interim: AtomicU64,
    interim_too_large: AtomicBool,
}

/// Interim responses (RFC 9110 15.2) that are larger than a head may be.
#[derive(Debug, thiserror::Error)]
#[error("the interim responses are larger than the limit")]
pub(super) struct InterimTooLarge;

/// A socket with a note of its traffic.
pub(super) struct Socket {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

/// The stream of a connection: TLS, or plain for development.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// The types of TLS records.
const RECORD_TYPES: RangeInclusive<u8> = 20..=24;

// === impl Traffic ===

impl Traffic {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Traffic {
            opened: Instant::now(),
            last: AtomicU64::new(0),
            written: AtomicU64::new(0),
            first: OnceLock::new(),
            idle: AtomicBool::new(false),
            plain_at_start: AtomicU64::new(0),
            plain_before: AtomicU64::new(0),
            plain: AtomicU64::new(0),
            interim: AtomicU64::new(0),
            interim_too_large: AtomicBool::new(false),
        })
    }

    /// Notes that no response is awaited. From now on until something is written, nothing may be read.
    pub(super) fn rest(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Notes that an exchange begins, in which no interim response was read.
    pub(super) fn begin(&self) {
        self.touch();
        self.plain_at_start.store(self.plain.load(Ordering::Relaxed), Ordering::Relaxed);
        self.interim.store(0, Ordering::Relaxed);
    }

    /// Notes an interim response, which has at least so many bytes. If all of them have more than `max` together, nothing more is read.
    pub(super) fn interim(&self, size: u64, max: u64) {
        let known = self.interim.fetch_add(size, Ordering::Relaxed) + size;
        // The response was not complete before the last read, so all that came before it is part of interim responses.
        let come = self.plain_before.load(Ordering::Relaxed);
        let come = come.saturating_sub(self.plain_at_start.load(Ordering::Relaxed));
        if known.max(come) > max {
            self.interim_too_large.store(true, Ordering::Relaxed);
        }
    }

    /// Refuses to go on after interim responses that are too large.
    pub(super) fn check_interim(&self) -> Result<(), InterimTooLarge> {
        if self.interim_too_large.load(Ordering::Relaxed) { Err(InterimTooLarge) } else { Ok(()) }
    }

    fn count_plain(&self, read: usize) {
        let before = self.plain.fetch_add(read as u64, Ordering::Relaxed);
        self.plain_before.store(before, Ordering::Relaxed);
    }

    /// Notes that something happened now.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// The bytes written since the socket was opened.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns true if the other side began with a record of TLS (RFC 8446 5.1).
    pub(super) fn began_with_tls(&self) -> bool {
        self.first.get().is_some_and(|first| RECORD_TYPES.contains(first))
    }

    /// The time at which bytes last passed.
    pub(super) fn last(&self) -> Instant {
        self.opened + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Waits until no byte has passed for this long.
    pub(super) async fn silence(&self, limit: Duration) {
        loop {
            passed(self.last() + limit, || true).await;
            if self.last() + limit <= Instant::now() {
                return;
            }
        }
    }
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(stream: TcpStream, traffic: Arc<Traffic>) -> Self {
        Socket { stream, traffic }
    }

    /// Reads what the system has, without asking the runtime.
    fn read_now(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match rustix::net::recv(&self.stream, buf.initialize_unfilled(), RecvFlags::DONTWAIT) {
            Ok((_, read)) => {
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            // The runtime may not know yet what has come. On an idle connection that makes a difference: it would be taken for the
            // response to the request that is written next.
            Poll::Pending if self.traffic.idle.load(Ordering::Relaxed) => ready!(self.read_now(buf))?,
            outcome => ready!(outcome)?,
        }
        if let Some(first) = buf.filled().get(before) {
            self.traffic.touch();
            self.traffic.first.get_or_init(|| *first);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Writes the messages of a handshake at once. If they were written one by one, a server that refuses the first one would
    /// cause a later write to fail, before its alert is read.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes))?;
        self.traffic.idle.store(false, Ordering::Relaxed);
        self.traffic.touch();
        self.traffic.written.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Stream ===

impl Stream {
    fn traffic(&self) -> &Traffic {
        match self {
            Stream::Plain(socket) => &socket.traffic,
            Stream::Tls(stream) => &stream.get_ref().0.traffic,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.traffic().check_interim().map_err(io::Error::other)?;
        let before = buf.filled().len();
        ready!(match this {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        this.traffic().count_plain(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
