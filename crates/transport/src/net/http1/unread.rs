//! Heads that the HTTP library cannot read. It answers them by itself, with a status and without a body, so that answer is held back
//! and another one with the same status is written.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Phase;
use crate::call::http::Unread;

/// A socket to which nothing is written before a request was read.
pub(super) struct HeldBack<'a, I> {
    io: I,
    phase: &'a Phase,
}

/// The place of the status in a response of HTTP/1.1.
const STATUS: std::ops::Range<usize> = 9..12;
/// A request that the HTTP library can read.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

// === impl HeldBack ===

impl<'a, I> HeldBack<'a, I> {
    pub(super) fn new(io: I, phase: &'a Phase) -> Self {
        HeldBack { io, phase }
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for HeldBack<'_, I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for HeldBack<'_, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.phase.has_begun() {
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        if let Some(status) = bytes.get(STATUS).and_then(|status| StatusCode::from_bytes(status).ok()) {
            let _ = self.phase.refused.set(status);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.phase.has_begun() {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The reason for a status of the HTTP library.
pub(super) fn reason(status: StatusCode) -> Unread {
    match status {
        StatusCode::URI_TOO_LONG => Unread::TargetTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Unread::HeadTooLarge,
        _ => Unread::HeadMalformed,
    }
}

/// Writes a response to no request. The HTTP library frames it like any other, for it is given a request that it can read.
pub(super) async fn write(io: &mut (impl AsyncWrite + Unpin), response: &Response<Full<Bytes>>) {
    let service = service_fn(|_| ready(Ok::<_, Infallible>(response.clone())));
    let io = TokioIo::new(tokio::io::join(REQUEST, io));
    // That request has an end, and its client is none that has left.
    let mut connection = http1::Builder::new().keep_alive(false).half_close(true).serve_connection(io, service);
    // The client may be gone.
    let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
}
