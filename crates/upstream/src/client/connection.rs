//! One HTTP/1.1 connection with at most one request at a time. It has no task: the task that makes a request also drives the
//! connection, and closes it by going away.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::body::Body;
use super::definition::Limits;
use super::dial::Connected;
use super::io::{InterimTooLarge, Stream, Traffic};
use crate::error::Fault;
use crate::tls::{ClientAuth, TlsFault, has_ended};

/// A connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// On the heap, because a connection moves several times during a call.
    driver: Box<Driver>,
    traffic: Arc<Traffic>,
    auth: ClientAuth,
    /// The time after which it must not be used, while it is idle.
    expiry: Instant,
    /// The end of the certificates that it rests on, in seconds since 1970. After it, the other side has to be convinced again.
    not_after: Option<i64>,
    /// The largest head of a response, in bytes.
    max_head: u64,
    /// Its place among the connections that are kept. It has one from the first time it is kept until it ends, so that a
    /// client that is used often does not lose its places to others.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// The part of hyper that reads and writes.
struct Driver {
    /// `None`: it has ended.
    connection: Option<http1::Connection<TokioIo<Stream>, Full<Bytes>>>,
    /// Its stream, afterwards.
    ended: Option<Stream>,
}

/// A response, with its body complete.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A response of which only the head was read.
pub(crate) struct Responding {
    response: http::Response<Incoming>,
    connection: Connection,
}

/// A request that has no response.
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// Bytes were written after the request was given to the connection.
    pub(super) sent: bool,
    /// The request, if it provably did not leave.
    pub(super) unsent: Option<Request<Full<Bytes>>>,
}

/// The most headers of a response.
const MAX_HEADERS: usize = 100;
/// The size of buffers. hyper wants at least 8 KiB.
const BUFFER: usize = 32 * 1024;
/// Servers close a connection when its idle time is over, and a request may be on its way then.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// The time to look for the reason why a server ended a connection, after a write failed.
const POST_MORTEM: Duration = Duration::from_millis(50);

// === impl Connection ===

impl Connection {
    pub(crate) async fn new(connected: Connected, limits: &Limits) -> Result<Self, Fault> {
        let Connected { stream, traffic, auth, not_after } = connected;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER.max(limits.head)).max_header_size(limits.head).max_headers(MAX_HEADERS);
        // Otherwise hyper copies bodies into a buffer of its own, where a password would stay while the connection is idle.
        builder.writev(true);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|_| Fault::ConnectionLost)?;
        let driver = Box::new(Driver { connection: Some(connection), ended: None });
        traffic.rest();
        let expiry = Instant::now() + limits.idle_timeout;
        Ok(Connection { sender, driver, traffic, auth, expiry, not_after, max_head: limits.head as u64, place: None })
    }

    /// Sends a request and reads the response. After a failure the connection is closed, and so it is if the future is
    /// dropped.
    pub(super) async fn exchange(
        self,
        request: Request<Full<Bytes>>,
        read_timeout: Duration,
        limits: &Limits,
    ) -> Result<(Response, Self), Failure> {
        self.begin(request, read_timeout).await?.finish(read_timeout, limits).await
    }

    /// Sends a request and reads the head of the response.
    pub(crate) async fn begin(
        mut self,
        mut request: Request<Full<Bytes>>,
        read_timeout: Duration,
    ) -> Result<Responding, Failure> {
        let before = self.traffic.written();
        self.traffic.begin();
        let (traffic, max) = (self.traffic.clone(), self.max_head);
        hyper::ext::on_informational(&mut request, move |response| {
            traffic.interim(least_size(response.headers()), max)
        });
        let sending = self.sender.try_send_request(request);
        let outcome = tokio::select! {
            biased;
            response = self.driver.drive(sending) => {
                response.map_err(|mut error| (fault_of(error.error()), error.take_message()))
            }
            () = self.traffic.silence(read_timeout) => Err((Fault::ReadTimeout, None)),
        };
        let outcome = match self.traffic.check_interim() {
            Ok(()) => outcome,
            Err(InterimTooLarge) => Err((Fault::HeadersTooLarge, None)),
        };
        match outcome {
            Ok(response) => Ok(Responding { response, connection: self }),
            Err((fault, unsent)) => {
                let sent = unsent.is_none() && self.traffic.written() > before;
                Err(Box::pin(self.failed(fault, sent, unsent)).await)
            }
        }
    }

    /// The traffic of its socket.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    async fn failed(self, fault: Fault, sent: bool, unsent: Option<Request<Full<Bytes>>>) -> Failure {
        let auth = self.auth;
        let fault = match fault {
            Fault::ConnectionLost => self.post_mortem().await,
            fault => fault,
        };
        // In TLS 1.3 a server refuses the certificate of the client after the handshake.
        let fault = match fault {
            Fault::Tls(fault) => Fault::Tls(fault.after_handshake(auth)),
            fault => fault,
        };
        Failure { fault, sent, unsent }
    }

    /// Returns true if another request can be made: the response was read and nothing came after it, the server has not closed, and
    /// did not say that it would, and the certificates are still valid.
    pub(super) fn is_reusable(&mut self) -> bool {
        if self.expiry <= Instant::now() || self.not_after.is_some_and(has_ended) {
            return false;
        }
        let ready = self.driver.drive(self.sender.ready()).now_or_never();
        matches!(ready, Some(Ok(()))) && self.driver.connection.is_some()
    }

    /// Looks for an alert that the server sent before it closed. If a write fails first, nothing has read the alert.
    async fn post_mortem(self) -> Fault {
        let Driver { connection, ended } = *self.driver;
        let Some(Stream::Tls(mut stream)) = ended.or_else(|| connection.map(into_stream)) else {
            return Fault::ConnectionLost;
        };
        match tokio::time::timeout(POST_MORTEM, stream.read(&mut [0; 64])).await {
            Ok(Err(error)) => TlsFault::find(&error).map_or(Fault::ConnectionLost, Fault::Tls),
            _ => Fault::ConnectionLost,
        }
    }
}

// === impl Responding ===

impl Responding {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Reads the body of the response.
    pub(crate) async fn finish(
        self,
        read_timeout: Duration,
        limits: &Limits,
    ) -> Result<(Response, Connection), Failure> {
        let Responding { response, mut connection } = self;
        let outcome = tokio::select! {
            biased;
            outcome = connection.driver.drive(read(response, limits.body)) => outcome,
            () = connection.traffic.silence(read_timeout) => Err(Fault::ReadTimeout),
        };
        match outcome {
            Ok(response) => {
                connection.traffic.rest();
                connection.expiry = Instant::now() + idle_timeout(&response.headers, limits.idle_timeout);
                Ok((response, connection))
            }
            Err(fault) => Err(Box::pin(connection.failed(fault, true, None)).await),
        }
    }
}

/// The status. Headers and body may have secrets.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

// === impl Driver ===

impl Driver {
    /// Does some work, and moves the connection while it waits.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // An error of the connection reaches the work, too. So does its end, if it is taken apart: it gives back the request that
            // waits in it, which would wait for ever otherwise.
            if let Some(ended) = self.connection.take_if(|connection| Pin::new(connection).poll(cx).is_ready()) {
                self.ended = Some(into_stream(ended));
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}

fn into_stream(connection: http1::Connection<TokioIo<Stream>, Full<Bytes>>) -> Stream {
    connection.into_parts().io.into_inner()
}

/// Reads a response.
async fn read(response: http::Response<Incoming>, max_body: usize) -> Result<Response, Fault> {
    let (head, mut body) = response.into_parts();
    if is_encoded(&head.headers) {
        return Err(Fault::BodyEncoded);
    }
    let stated = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut read = Body::new(stated, max_body)?;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| fault_of(&error))?.into_data() else { continue };
        read.add(&data)?;
    }
    Ok(Response { status: head.status, headers: head.headers, body: read.finish() })
}

/// Returns true if the body has an encoding that was not asked for, by its own header or by that of its transfer (RFC 9112 6.1).
fn is_encoded(headers: &HeaderMap) -> bool {
    let is_any_but = |name, plain: &str| {
        let values = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let mut codings = values.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
        codings.any(|coding| !coding.eq_ignore_ascii_case(plain.as_bytes()))
    };
    is_any_but(header::CONTENT_ENCODING, "identity") || is_any_but(header::TRANSFER_ENCODING, "chunked")
}

/// The size of a head with these headers, if its reason phrase is empty.
fn least_size(headers: &HeaderMap) -> u64 {
    let frame = b"HTTP/1.1 100\r\n\r\n".len();
    let size =
        headers.iter().fold(frame, |size, (name, value)| size + name.as_str().len() + value.len() + b": \r\n".len());
    size as u64
}

fn fault_of(error: &hyper::Error) -> Fault {
    if let Some(fault) = TlsFault::find(error) {
        return Fault::Tls(fault);
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let is_of_interim = cause.and_then(io::Error::get_ref).is_some_and(|cause| cause.is::<InterimTooLarge>());
    let cause = cause.map(io::Error::kind);
    if error.is_parse_too_large() || is_of_interim {
        Fault::HeadersTooLarge
    } else if error.is_parse() || matches!(cause, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
        Fault::ResponseMalformed
    } else {
        Fault::ConnectionLost
    }
}

/// The time that a connection may be idle: ours, or that of the server if it is shorter (`keep-alive: timeout=5, max=100`).
fn idle_timeout(headers: &HeaderMap, ours: Duration) -> Duration {
    let value = headers.get("keep-alive").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let timeout = value.split(',').find_map(|part| {
        let (name, seconds) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| seconds.trim().parse().ok()).flatten()
    });
    timeout.map_or(ours, |seconds| ours.min(Duration::from_secs(seconds).saturating_sub(IDLE_MARGIN)))
}
