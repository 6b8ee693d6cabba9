//! One HTTP/2 stream: the call that the client makes on it, and the response, as fast as the client takes it.
//!
//! No more is handed to the HTTP library than the windows of the client have room for. So nothing that a client leaves unread
//! is in front of the status with which its stream ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http_body::Body as _;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;

use super::activity::ActiveCall;
use super::http2::RequestBody;
use super::state::NetState;
use crate::call::ResponseBody;
use crate::call::flow::{EndReason, Flow};
use crate::call::methods::{Method, Shape};
use crate::call::peer::ConnectInfo;
use crate::call::response::trailers;
use crate::call::stack::Stack;
use crate::call::status::status;

/// The parts that all calls of a connection share.
pub(super) struct CallParts {
    pub(super) stack: Stack,
    pub(super) info: ConnectInfo,
    pub(super) outgoing: OutgoingBytes,
    pub(super) shared: Arc<NetState>,
}

/// The phase that the shutdown of a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownPhase {
    Open,
    /// Lists end after the page that is under way: a client can continue from its last token on another connection.
    ListsEnd,
    /// Every call ends.
    CallsEnd,
    /// Every call ends, because its caller is no longer known.
    Withdrawn,
}

/// The bytes that the responses of a connection have handed over to be sent.
#[derive(Debug, Default)]
pub(super) struct OutgoingBytes {
    bytes: AtomicU64,
    /// Responses that handed over data and ended before their end.
    abandoned: AtomicU64,
}

/// A response on its way into the windows of the client.
struct Pipe<'a> {
    stream: SendStream<Bytes>,
    body: ResponseBody,
    /// The bytes that the body has handed over and the client has no room for yet.
    rest: Bytes,
    flow: &'a Flow,
    outgoing: &'a OutgoingBytes,
    /// Data was handed over and the end was not.
    begun: bool,
    /// The bytes that are asked for at a time.
    at_once: usize,
    stall_timeout: Duration,
    stalled: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The way in which the transfer of a response ended.
enum TransferEnd {
    /// All of it is handed over.
    Sent,
    /// The client has reset the stream, or the connection broke.
    Gone,
    /// The client has not read for too long.
    Stalled,
    /// It has to end for another reason.
    Ended(EndReason),
}

/// Trailers come soon once a body has to end: it is polled this often for them at most.
const FRAMES_BEFORE_TRAILERS: usize = 4;

/// Serves one stream until its end, or until the connection drops the sender of its phase.
pub(super) async fn serve(
    parts: Arc<CallParts>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    mut phase: watch::Receiver<ShutdownPhase>,
    _open: ActiveCall,
) {
    let method = parts.shared.methods.get(request.uri().path()).map(AsRef::as_ref);
    let mut cut = false;
    serve_call(&parts, method, request, respond, &mut phase, &mut cut).await;
    // A list can be continued elsewhere, and a client that watches health can watch that of another server.
    if cut && method.is_none_or(|method| matches!(method.shape, Shape::Unary | Shape::Report)) {
        parts.shared.cut.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves one stream; `cut` becomes true when the call ends because the server stops.
async fn serve_call(
    parts: &CallParts,
    method: Option<&Method>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    phase: &mut watch::Receiver<ShutdownPhase>,
    cut: &mut bool,
) {
    let config = &parts.shared.config;
    let shape = method.map_or(Shape::Unary, |method| method.shape);
    let ends_with = match shape {
        Shape::Pages | Shape::Conversation => ShutdownPhase::ListsEnd,
        // Watches end by themselves at drain.
        Shape::Watch | Shape::Report | Shape::Unary => ShutdownPhase::CallsEnd,
    };
    let stall_timeout = match shape {
        // A client may take longer over a page than over a response.
        Shape::Pages | Shape::Watch | Shape::Conversation => config.streams.idle_timeout,
        Shape::Report | Shape::Unary => config.limits.write_stall_timeout,
    };
    let flow = Arc::new(Flow::of_stream());
    let mut request = request.map(|stream| Body::new(RequestBody::new(stream)));
    request.extensions_mut().insert(parts.info.clone());
    request.extensions_mut().insert(flow.clone());
    let mut response = std::pin::pin!(parts.stack.call(request));
    let mut is_ending = false;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut response => break response,
            // No work is done on a call that its client has cancelled.
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            // The call ends in the deadline layer, so that its end passes all layers.
            end = ended(phase, ends_with), if !is_ending => {
                *cut = parts.is_cut(end);
                match end {
                    Some(end) => (is_ending, ()) = (true, flow.end(end)),
                    None => return,
                }
            }
        }
    };
    let (head, body) = response.into_parts();
    let ends_here = body.is_end_stream();
    let stream = match respond.send_response(http::Response::from_parts(head, ()), ends_here) {
        Ok(stream) if !ends_here => stream,
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(error.message = %error, "an answer cannot be sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    let mut pipe = Pipe {
        stream,
        body,
        rest: Bytes::new(),
        flow: &flow,
        outgoing: &parts.outgoing,
        begun: false,
        at_once: config.limits.send_buffer.bytes(),
        stall_timeout,
        stalled: None,
        sleep: None,
    };
    let mut done = tokio::select! {
        biased;
        done = poll_fn(|cx| pipe.poll(cx)) => done,
        end = ended(phase, ends_with) => {
            *cut |= parts.is_cut(end);
            end.map_or(TransferEnd::Gone, TransferEnd::Ended)
        }
    };
    if let (TransferEnd::Ended(end @ EndReason::Unavailable), ShutdownPhase::ListsEnd) = (&done, ends_with) {
        // The client may be reading the page that is under way, and has the rest of the grace for it.
        done = tokio::select! {
            biased;
            done = poll_fn(|cx| pipe.poll_finish(cx, *end)) => done,
            end = ended(phase, ShutdownPhase::CallsEnd) => end.map_or(TransferEnd::Gone, TransferEnd::Ended),
        };
    }
    match done {
        TransferEnd::Sent | TransferEnd::Gone => {}
        TransferEnd::Stalled => {
            parts.shared.metrics.stream_stalled();
            poll_fn(|cx| pipe.poll_end(cx, EndReason::Deadline)).await;
        }
        TransferEnd::Ended(end) => poll_fn(|cx| pipe.poll_end(cx, end)).await,
    }
}

/// Waits until the shutdown of a connection has reached a phase. `None`: the connection is gone.
async fn ended(phase: &mut watch::Receiver<ShutdownPhase>, so_far: ShutdownPhase) -> Option<EndReason> {
    let phase = *phase.wait_for(|phase| *phase >= so_far).await.ok()?;
    Some(if phase == ShutdownPhase::Withdrawn { EndReason::Unauthenticated } else { EndReason::Unavailable })
}

// === impl CallParts ===

impl CallParts {
    /// Returns whether a call ends because the server stops; without a reason its connection is gone, possibly because the
    /// shutdown is over.
    fn is_cut(&self, end: Option<EndReason>) -> bool {
        match end {
            Some(EndReason::Unavailable) => self.shared.drain.is_cancelled(),
            Some(_) => false,
            None => self.shared.kill.is_cancelled(),
        }
    }
}

// === impl Pipe ===

impl Pipe<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TransferEnd> {
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(TransferEnd::Gone);
        }
        if let Poll::Ready(end) = self.flow.poll_end(cx) {
            return Poll::Ready(TransferEnd::Ended(end));
        }
        loop {
            if let Err(done) = ready!(self.poll_rest(cx)) {
                return Poll::Ready(done);
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        self.flow.close();
                    }
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else { continue };
                        return Poll::Ready(self.send_trailers(trailers));
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    let trailers = trailers(&error).into_trailers().unwrap_or_default();
                    return Poll::Ready(self.send_trailers(trailers));
                }
                Poll::Ready(None) => {
                    self.begun = false;
                    let sent = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(if sent.is_ok() { TransferEnd::Sent } else { TransferEnd::Gone });
                }
                Poll::Pending if self.flow.is_wanted() => match self.poll_room(cx, 1) {
                    Poll::Ready(Some(_)) => {
                        // Other streams may have it until there is something to send: all streams share the window of the
                        // connection.
                        self.stream.reserve_capacity(0);
                        self.moves();
                        self.flow.open();
                    }
                    Poll::Ready(None) => return Poll::Ready(TransferEnd::Gone),
                    Poll::Pending => return self.poll_stalled(cx),
                },
                Poll::Pending => {
                    self.moves();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends the rest of what the body has handed over, and takes no more of it. Bodies of lists hand over whole messages.
    fn poll_finish(&mut self, cx: &mut Context<'_>, end: EndReason) -> Poll<TransferEnd> {
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(TransferEnd::Gone);
        }
        if let Poll::Ready(end) = self.flow.poll_end(cx) {
            return Poll::Ready(TransferEnd::Ended(end));
        }
        let sent = ready!(self.poll_rest(cx));
        Poll::Ready(sent.map_or_else(|done| done, |()| TransferEnd::Ended(end)))
    }

    /// Sends the rest of what the body has handed over.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransferEnd>> {
        while !self.rest.is_empty() {
            match self.poll_room(cx, self.rest.len()) {
                Poll::Ready(Some(room)) => {
                    let part = self.rest.split_to(room.min(self.rest.len()));
                    self.outgoing.bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
                    self.begun = true;
                    self.moves();
                    if self.stream.send_data(part, false).is_err() {
                        return Poll::Ready(Err(TransferEnd::Gone));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Err(TransferEnd::Gone)),
                Poll::Pending => return self.poll_stalled(cx).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for room in the windows of the client; `None`: the stream is gone.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        self.stream.reserve_capacity(wanted.min(self.at_once));
        loop {
            match self.stream.capacity() {
                0 => {}
                room => return Poll::Ready(Some(room)),
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Notes that the client takes what there is for it.
    fn moves(&mut self) {
        if self.stalled.take().is_some() {
            self.flow.set_stalled(None);
        }
    }

    /// Waits while the client reads nothing. The wait has a limit, and so has the call, whose body cannot notice that
    /// meanwhile.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<TransferEnd> {
        let since = match self.stalled {
            Some(since) => since,
            None => {
                let now = Instant::now();
                self.flow.set_stalled(Some(now));
                *self.stalled.insert(now)
            }
        };
        let stall_ends = since + self.stall_timeout;
        let deadline = self.flow.deadline();
        let end = deadline.map_or(stall_ends, |deadline| deadline.min(stall_ends));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if sleep.deadline() != end {
            sleep.as_mut().reset(end);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(if end == stall_ends { TransferEnd::Stalled } else { TransferEnd::Ended(EndReason::Deadline) })
    }

    /// Ends the stream with a status, after as much as the client has taken.
    fn poll_end(&mut self, cx: &mut Context<'_>, end: EndReason) -> Poll<()> {
        let mut last = None;
        // The status of a whole response is there already, but not all of its message has been sent.
        if let ResponseBody::Stream(_) = &self.body {
            self.flow.end(end);
            for _ in 0..FRAMES_BEFORE_TRAILERS {
                let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(cx) else { break };
                if let Ok(trailers) = frame.into_trailers() {
                    last = Some(trailers);
                    break;
                }
            }
        }
        let own = || trailers(&status(end.error())).into_trailers().unwrap_or_default();
        self.send_trailers(last.unwrap_or_else(own));
        Poll::Ready(())
    }

    fn send_trailers(&mut self, trailers: http::HeaderMap) -> TransferEnd {
        self.stream.reserve_capacity(0);
        match self.stream.send_trailers(trailers) {
            Ok(()) => {
                self.begun = false;
                TransferEnd::Sent
            }
            Err(_) => TransferEnd::Gone,
        }
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        if self.begun {
            self.outgoing.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl OutgoingBytes ===

impl OutgoingBytes {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }
}
