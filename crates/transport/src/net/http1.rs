//! The listener of HTTP/1.1. A connection serves one request and is then closed, so no part of a request stays behind in a
//! buffer of the HTTP library.

mod head;
mod unread;

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, request};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use self::unread::HeldBack;
use super::accept::tls_handshake;
use super::admission::{Admission, ConnectionPermit};
use super::connection::CLOSE_DELAY;
use super::listener::Socket;
use super::stall::{StallGuard, Stalled};
use super::state::NetState;
use crate::call::context::REQUEST_ID;
use crate::call::flow::{EndReason, Flow};
use crate::call::http::{Calls, HttpApi, Unread};
use crate::call::identity::ConfiguredPrincipal;
use crate::call::peer::{ConnectInfo, Peer};
use crate::call::stack::Stack;
use crate::config::TransportConfig;
use crate::tls::PairReloader;

/// The HTTP interface of a server, and the parts that make its requests calls.
pub(crate) struct HttpFront {
    api: Arc<dyn HttpApi>,
    stack: Stack,
    /// The caller that every request is.
    caller: Arc<ConfiguredPrincipal>,
    /// `None`: plaintext.
    tls: Option<Arc<PairReloader>>,
    /// Its own counts: its clients leave room for those of gRPC, and the other way round.
    admission: Admission,
}

/// The phase that the one request of a connection has reached.
#[derive(Default)]
struct Phase {
    /// Its head was read.
    begun: AtomicBool,
    /// It is being answered.
    answering: AtomicBool,
    /// The status with which the HTTP library refused its head.
    refused: OnceLock<StatusCode>,
}

/// The largest body of a request.
const MAX_BODY: usize = 64 * 1024;
/// The time that the head of a request may take, and then its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The smallest buffer that the HTTP library takes.
const MIN_BUFFER: usize = 8 * 1024;
/// The time for which data of a client is still read after its response, and the most of it. A socket that is closed over
/// unread bytes is reset, which takes the response from a client that is still sending (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(1);
const MOST_DISCARDED: u64 = 16 * 1024 * 1024;

// === impl HttpFront ===

impl HttpFront {
    pub(crate) fn new(
        api: Arc<dyn HttpApi>,
        stack: Stack,
        caller: Arc<ConfiguredPrincipal>,
        tls: Option<Arc<PairReloader>>,
        config: &TransportConfig,
    ) -> Self {
        HttpFront { api, stack, caller, tls, admission: Admission::new(&config.limits, &config.tls) }
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }
}

impl Phase {
    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

/// Serves one connection from its first byte to its last.
pub(super) async fn serve(
    shared: Arc<NetState>,
    front: Arc<HttpFront>,
    socket: Socket,
    peer: Peer,
    permit: ConnectionPermit,
) {
    let info = ConnectInfo::new(peer, socket.local_addr(), Vec::new(), Ok(Arc::clone(&front.caller)));
    let cause = match &front.tls {
        Some(tls) => {
            let server = || Arc::clone(&tls.current().server);
            let Some(stream) = tls_handshake(&shared, &front.admission, socket, peer, server).await else { return };
            serve_request(&shared, &front, stream, info).await
        }
        None => serve_request(&shared, &front, socket, info).await,
    };
    shared.metrics.connection_ended(cause);
    drop(permit);
}

/// Serves the one request of a connection; returns the cause of its end.
async fn serve_request(
    shared: &NetState,
    front: &HttpFront,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    info: ConnectInfo,
) -> &'static str {
    let config = &shared.config;
    let (flow, phase) = (&Arc::new(Flow::default()), &Phase::default());
    let info = &info;
    let service = service_fn(move |request| {
        phase.begun.store(true, Ordering::Relaxed);
        Box::pin(async move { Ok::<_, Infallible>(answer(shared, front, info, flow, phase, request).await) })
    });
    let mut builder = http1::Builder::new();
    // A client that sends no more may wait for its response.
    builder.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).keep_alive(false).half_close(true);
    builder.max_buf_size(config.limits.max_header_list_size.bytes().max(MIN_BUFFER));
    let io = HeldBack::new(StallGuard::new(io, config.limits.write_stall_timeout), phase);
    let mut connection = builder.serve_connection(TokioIo::new(io), service);
    // A request has its deadline. What takes longer is a client that reads a little of its response now and then.
    let whole = READ_TIMEOUT * 2 + config.deadlines.max + config.limits.write_stall_timeout;
    let mut too_long = pin!(sleep(whole));
    let mut end = pin!(sleep_until(Instant::now()));
    let (mut draining, mut cut) = (false, false);
    loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                if ended.as_ref().is_err_and(is_stall) {
                    return "stalled";
                }
                let mut io = connection.into_parts().io.into_inner().into_inner();
                if let Some(status) = phase.refused.get() {
                    let refusal = front.api.refuse(unread::reason(*status));
                    let _ = timeout(LINGER, unread::write(&mut io, &named(shared, info, None, refusal))).await;
                }
                linger(io.into_inner()).await;
                return match ended {
                    Ok(()) if draining => "drain",
                    Ok(()) => "client",
                    Err(error) if error.is_timeout() => "idle",
                    Err(error) => {
                        let peer = info.peer();
                        tracing::debug!(client.address = peer.ip().map(display), client.port = peer.port(), error.message = %error, "connection broke");
                        "error"
                    }
                };
            }
            () = shared.drain.cancelled(), if !draining => {
                if !phase.has_begun() {
                    // A client that has asked for nothing has nothing to lose.
                    return "drain";
                }
                draining = true;
                end.as_mut().reset(Instant::now() + config.drain.grace);
            }
            // A call that did not end in the grace period gets a status, and then the connection is closed.
            () = end.as_mut(), if draining => {
                if cut {
                    return "drain";
                }
                cut = true;
                if phase.answering.load(Ordering::Relaxed) {
                    shared.cut.calls.fetch_add(1, Ordering::Relaxed);
                }
                flow.end(EndReason::Unavailable);
                end.as_mut().reset(Instant::now() + CLOSE_DELAY);
            }
            () = too_long.as_mut() => return "stalled",
        }
    }
}

/// Answers a request.
async fn answer(
    shared: &NetState,
    front: &HttpFront,
    info: &ConnectInfo,
    flow: &Arc<Flow>,
    phase: &Phase,
    request: http::Request<Incoming>,
) -> http::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let calls = Calls::new(front.stack.clone(), info.clone(), Arc::clone(flow), &head.headers);
    let request_id = calls.request_id();
    let response = match read(&head, body).await {
        Ok(body) => {
            phase.answering.store(true, Ordering::Relaxed);
            front.api.answer(http::Request::from_parts(head, body), calls).await
        }
        Err(why) => front.api.refuse(why),
    };
    phase.answering.store(false, Ordering::Relaxed);
    named(shared, info, request_id.get(), response)
}

/// Gives a response the id of its call. What becomes no call is counted here, because no layer sees it.
fn named(
    shared: &NetState,
    info: &ConnectInfo,
    call: Option<&HeaderValue>,
    response: http::Response<Bytes>,
) -> http::Response<Full<Bytes>> {
    let response = response.map(Full::new);
    let id = match call {
        Some(id) => Some(id.clone()),
        None => {
            let (id, status, peer) = (Uuid::now_v7(), response.status().as_u16(), info.peer());
            if status < 400 {
                // It was answered without a call.
                return with_id(response, HeaderValue::from_str(&id.to_string()).ok());
            }
            shared.metrics.request_refused(status);
            tracing::debug!(
                jackfield.request.id = %id,
                client.address = peer.ip().map(display),
                client.port = peer.port(),
                http.response.status_code = status,
                "request refused"
            );
            HeaderValue::from_str(&id.to_string()).ok()
        }
    };
    with_id(response, id)
}

fn with_id(mut response: http::Response<Full<Bytes>>, id: Option<HeaderValue>) -> http::Response<Full<Bytes>> {
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Reads the body of a request whose head is in order. The library asks a client to continue once the body is read.
async fn read(head: &request::Parts, body: Incoming) -> Result<Bytes, Unread> {
    head::check(head, body.size_hint().lower(), MAX_BODY)?;
    match timeout(READ_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge(MAX_BODY)),
        Ok(Err(error)) if is_malformed(&*error) => Err(Unread::Malformed),
        Ok(Err(_)) | Err(_) => Err(Unread::Incomplete),
    }
}

/// Returns whether a body could not be read because of its bytes.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

/// Returns whether a connection ended because its client does not read.
fn is_stall(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(Stalled::is_cause)
}

/// Closes a connection after its response, so that the client can read it.
async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let closing = async {
        io.shutdown().await?;
        tokio::io::copy(&mut (&mut io).take(MOST_DISCARDED), &mut tokio::io::sink()).await
    };
    // Either way the connection is over.
    let _: Result<io::Result<u64>, _> = timeout(LINGER, closing).await;
}

#[cfg(test)]
mod tests;
