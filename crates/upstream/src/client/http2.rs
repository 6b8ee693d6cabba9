//! Calls over HTTP/2, which gRPC needs. Each has a connection of its own: they are rare.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{HOST, HeaderValue, TE};
use http::{Request as Message, Uri, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};

use super::attempt::Attempt;
use super::dial::Connected;
use super::io::Stream;
use super::{Client, Definition, Request, Response};
use crate::egress::Target;
use crate::error::Fault;
use crate::tls::TlsFault;

/// The name of the protocol in TLS (RFC 9113 3.2).
const H2: &[u8] = b"h2";
/// The place of the type in a frame, and the type of settings (RFC 9113 4.1, 6.5).
const TYPE: usize = 3;
const SETTINGS: u8 = 0x4;
/// The usual size of a frame, in bytes (RFC 9113 4.2).
const FRAME: u32 = 16_384;
/// The reads that look for the reason of a failed write. One that refuses a certificate has sent nothing before it.
const LAST_READS: usize = 4;
/// The time for which the reason of a failed write is waited for: it may be on its way through this machine.
const LAST_WAIT: Duration = Duration::from_millis(500);
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// A stream that keeps the fault with which it failed. Of an error of the stream, hyper passes on no more than its kind.
struct Watched {
    stream: Stream,
    fault: Arc<OnceLock<Fault>>,
    /// Something was read.
    has_begun: bool,
    /// The write that failed, until its reason is known.
    failed: Option<FailedWrite>,
}

struct FailedWrite {
    error: io::Error,
    until: Pin<Box<Sleep>>,
    reads: usize,
}

/// The tasks of a connection. They end with the call that owns them, whatever the peer does.
#[derive(Clone)]
struct TasksOfCall(Weak<Mutex<JoinSet<()>>>);

// === impl Client ===

impl Client {
    /// Makes a call over a new connection. The trailers of the response are among its headers.
    pub(super) async fn call_http2(
        &self,
        target: &Target,
        request: Request,
        attempt: &Attempt<'_>,
    ) -> Result<Response, Fault> {
        let Definition { timeouts, limits, proxy, .. } = &self.definition;
        let handshakes = self.tls(target)?;
        let mut tls = (*handshakes.config().map_err(|_| TlsFault::Other)?).clone();
        tls.alpn_protocols = vec![H2.to_vec()];
        let message = self.message_http2(target, request)?;
        attempt.connects();
        let deadline = Instant::now() + timeouts.connect;
        let mut connected = self.network.connect(target, proxy.as_ref(), &Arc::new(tls), deadline).await?;
        connected.rest_on(self.definition.identity(target));
        handshakes.note(connected.not_after);
        if connected.session().is_none_or(|session| session.alpn_protocol() != Some(H2)) {
            return Err(Fault::Http2NotSpoken);
        }
        let Connected { stream, traffic, auth, .. } = connected;
        attempt.sends(traffic)?;
        let fault = Arc::<OnceLock<_>>::default();
        let stream = Watched { stream, fault: Arc::clone(&fault), has_begun: false, failed: None };
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let mut builder = http2::Builder::new(TasksOfCall(Arc::downgrade(&tasks)));
        builder.max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX));
        // A peer can have no more than this kept here.
        let window = u32::try_from(limits.body).unwrap_or(u32::MAX).saturating_add(FRAME);
        builder.initial_stream_window_size(window).initial_connection_window_size(window);
        // In TLS 1.3 a server refuses the certificate of the client after the handshake.
        let lost = || match fault.get() {
            Some(Fault::Tls(fault)) => Fault::Tls(fault.after_handshake(auth)),
            Some(fault) => fault.clone(),
            None => Fault::ConnectionLost,
        };
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| lost())?;
        let exchange = async {
            let response = sender.send_request(message).await.map_err(|_| lost())?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limits.body).collect().await;
            let body =
                body.map_err(|error| if error.is::<LengthLimitError>() { Fault::BodyTooLarge } else { lost() })?;
            let mut headers = head.headers;
            headers.extend(body.trailers().cloned().unwrap_or_default());
            let body = body.to_bytes();
            match self.definition.refusal(target, head.status, &body) {
                Some(fault) => Err(fault),
                None => Ok(Response { status: head.status, headers, body }),
            }
        };
        let mut exchange = pin!(exchange);
        tokio::select! {
            biased;
            response = &mut exchange => response,
            // A peer that takes no more requests may still answer this one. If it is gone, the exchange says so.
            _ = connection => exchange.await,
        }
    }

    /// The request as it is sent to a target.
    fn message_http2(&self, target: &Target, request: Request) -> Result<Message<Full<bytes::Bytes>>, Fault> {
        let mut message = self.definition.message(target, request);
        let uri = format!("https://{}{}", target.authority(), target.path_and_query());
        *message.uri_mut() = uri.parse::<Uri>().map_err(|_| Fault::ResponseMalformed)?;
        *message.version_mut() = Version::HTTP_2;
        message.headers_mut().remove(HOST);
        message.headers_mut().insert(TE, TRAILERS);
        Ok(message)
    }
}

// === impl TasksOfCall ===

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for TasksOfCall {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
        }
    }
}

// === impl Watched ===

impl Watched {
    fn note(&self, error: &io::Error) {
        if let Some(fault) = TlsFault::find(error) {
            self.fault.get_or_init(|| Fault::Tls(fault));
        }
    }

    /// Looks at the first bytes that were read. A server of HTTP/2 begins with its settings (RFC 9113 3.4).
    fn begin(&mut self, bytes: &[u8]) {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first && bytes.get(TYPE).is_some_and(|kind| *kind != SETTINGS) {
            self.fault.get_or_init(|| Fault::Http2NotSpoken);
        }
    }

    /// Holds a write that failed back until its reason is read: a server that closed may have said why before, and nothing else reads it then.
    fn explained<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = written else { return written };
        self.note(&error);
        self.failed = Some(FailedWrite { error, until: Box::pin(sleep(LAST_WAIT)), reads: 0 });
        self.poll_failed(cx).map(Err)
    }

    /// Reads until the end, or until the reason of a failed write is not worth more waiting. Returns the error of the write.
    fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(mut failed) = self.failed.take() else { return Poll::Pending };
        let mut bytes = [0; 64];
        while failed.reads < LAST_READS {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => failed.reads += 1,
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(error)) => {
                    self.note(&error);
                    break;
                }
                Poll::Pending if failed.until.as_mut().poll(cx).is_pending() => {
                    self.failed = Some(failed);
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(failed.error)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() > before => self.begin(&buf.filled()[before..]),
            Ok(()) => {}
            Err(error) => self.note(error),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.poll_failed(cx).map(Err);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.explained(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.poll_failed(cx).map(Err);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.explained(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return self.poll_failed(cx).map(Err);
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.explained(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
