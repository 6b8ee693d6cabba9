//! HTTP/2 on one connection: each request of the client becomes a stream, and a silent peer is pinged.
//!
//! The HTTP library above h2 is not used: it hands over whole bodies, so data that a client leaves unread would be buffered
//! in front of the status. A stream that ends early would end with a reset in place of a status.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::frames::WireState;
use crate::config::Limits;

/// This many times the limit on headers is read. Headers over the limit get a gRPC response with its reason; beyond this,
/// HTTP/2 responds with 431, which clients show as UNKNOWN.
const HEADER_LISTS: u32 = 4;

/// The server's side of a connection.
pub(super) struct Http2<I> {
    state: State<I>,
    leaving: bool,
    keepalive: KeepAlive,
    wire: Arc<WireState>,
}

/// The reason why a connection ended although neither side closed it.
pub(super) type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

enum State<I> {
    Handshake(server::Handshake<I, Bytes>),
    Serving(server::Connection<I, Bytes>),
}

/// Pings a silent peer.
struct KeepAlive {
    pings: Option<PingPong>,
    interval: Duration,
    timeout: Duration,
    /// Reads of the connection when the interval began.
    reads: u64,
    /// A ping is under way.
    asked: bool,
    timed_out: bool,
    sleep: Pin<Box<Sleep>>,
}

/// The body of a request.
pub(super) struct RequestBody {
    stream: RecvStream,
    data_ended: bool,
}

// === impl Http2 ===

impl<I: AsyncRead + AsyncWrite + Unpin> Http2<I> {
    /// Makes the server's side of a connection. No setting is left to its default.
    pub(super) fn new(io: I, limits: &Limits, wire: Arc<WireState>) -> Self {
        let mut builder = server::Builder::new();
        builder
            .max_concurrent_streams(limits.max_concurrent_streams)
            // A header that is kept also keeps the buffer that it came in, with all that came with it.
            .header_table_size(0)
            // Streams that we ended before their clients did: frames that still come on them are ignored, however many
            // there are.
            .max_concurrent_reset_streams(limits.max_concurrent_streams as usize)
            .max_local_error_reset_streams(Some(limits.max_local_error_reset_streams as usize))
            .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams as usize)
            .max_header_list_size(limits.max_header_list_size.0.saturating_mul(HEADER_LISTS))
            .initial_window_size(limits.stream_window.0)
            .initial_connection_window_size(limits.connection_window.0)
            .max_frame_size(limits.max_frame_size.0)
            .max_send_buffer_size(limits.send_buffer.bytes());
        let keepalive = KeepAlive::new(limits.keepalive_interval, limits.keepalive_timeout);
        Http2 { state: State::Handshake(builder.handshake(io)), leaving: false, keepalive, wire }
    }

    /// Sends a GOAWAY. The calls that the client has begun are finished.
    pub(super) fn graceful_shutdown(&mut self) {
        self.leaving = true;
        if let State::Serving(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Drives the connection until its end; `begin` is called with each stream.
    pub(super) fn poll_serve(
        &mut self,
        cx: &mut Context<'_>,
        begin: &mut impl FnMut(http::Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Result<(), ConnectionError>> {
        loop {
            match &mut self.state {
                State::Handshake(handshake) => {
                    let mut connection = ready!(Pin::new(handshake).poll(cx))?;
                    self.keepalive.begin(connection.ping_pong(), self.wire.reads.load(Ordering::Relaxed));
                    if self.leaving {
                        connection.graceful_shutdown();
                    }
                    self.state = State::Serving(connection);
                }
                State::Serving(connection) => {
                    if self.keepalive.poll(cx, self.wire.reads.load(Ordering::Relaxed)).is_ready() {
                        connection.abrupt_shutdown(Reason::NO_ERROR);
                    }
                    match ready!(connection.poll_accept(cx)) {
                        Some(Ok((request, mut respond))) => {
                            // A call that was cancelled before it was accepted is not begun.
                            if respond.poll_reset(cx).is_pending() {
                                begin(request, respond);
                            }
                        }
                        Some(Err(error)) => return Poll::Ready(Err(error.into())),
                        None if self.keepalive.timed_out => {
                            let error = io::Error::new(ErrorKind::TimedOut, "the peer does not answer pings");
                            return Poll::Ready(Err(error.into()));
                        }
                        None => return Poll::Ready(Ok(())),
                    }
                }
            }
        }
    }
}

// === impl KeepAlive ===

impl KeepAlive {
    fn new(interval: Duration, timeout: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep(interval));
        KeepAlive { pings: None, interval, timeout, reads: 0, asked: false, timed_out: false, sleep }
    }

    fn begin(&mut self, pings: Option<PingPong>, reads: u64) {
        (self.pings, self.reads) = (pings, reads);
        self.sleep.as_mut().reset(Instant::now() + self.interval);
    }

    /// Returns ready once if the peer does not answer.
    fn poll(&mut self, cx: &mut Context<'_>, reads: u64) -> Poll<()> {
        let KeepAlive { pings: Some(pings), interval, timeout, sleep, .. } = self else { return Poll::Pending };
        if self.timed_out {
            return Poll::Pending;
        }
        if self.asked && pings.poll_pong(cx).is_ready() {
            self.asked = false;
            sleep.as_mut().reset(Instant::now() + *interval);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if self.asked {
                self.timed_out = true;
                return Poll::Ready(());
            }
            let silent = reads == self.reads;
            self.reads = reads;
            self.asked = silent && pings.send_ping(Ping::opaque()).is_ok();
            if self.asked {
                // The response wakes this task.
                let _ = pings.poll_pong(cx);
            }
            sleep.as_mut().reset(Instant::now() + if self.asked { *timeout } else { *interval });
        }
    }
}

// === impl RequestBody ===

impl RequestBody {
    pub(super) fn new(stream: RecvStream) -> Self {
        RequestBody { stream, data_ended: false }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The reader takes it at once; a stream that is gone has no window to open.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    // The client needs no response to what it would have sent: RFC 9113 8.1. One that has cancelled its call
                    // has not ended its request.
                    let left = error.reason() == Some(Reason::NO_ERROR);
                    return Poll::Ready(if left { None } else { Some(Err(error)) });
                }
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
