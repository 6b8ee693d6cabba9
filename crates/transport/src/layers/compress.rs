//! Compression of lists for clients that accept it. Nothing else is compressed.
//!
//! The length of a compressed response gives its content away: with a secret and a text that someone else chose in one
//! response, it gives the secret away. Tokens and secrets leave in responses of one message, and lists hold none, so the
//! shape of the method decides. The library below would keep the original page for as long as its stream lasts, which no
//! limit covers, and would compress a page of three megabytes while all other tasks wait. Here a page is compressed piece
//! by piece.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use jackfield_domain::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

use super::intercept::{Intercept, OnResponse};
use crate::call::context::CallContext;
use crate::call::methods::{Kind, Shape};
use crate::call::status::status;
use crate::call::{Request, Response};

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const GZIP: &str = "gzip";

/// The length of the prefix of a message: a flag, and the length in four bytes.
const PREFIX: usize = 5;
/// Shorter messages are not worth compressing.
const LEAST: usize = 1024;
/// The bytes that are compressed before other tasks run: a millisecond or less.
const PIECE: usize = 64 * 1024;
/// Messages of several pieces that are compressed at the same time. Each takes a third of a megabyte for that, whatever its
/// size; further ones are sent as they are.
const MOST_AT_ONCE: usize = 16;

#[derive(Clone)]
pub(super) struct Compress {
    at_once: Arc<Semaphore>,
}

/// A list that its client can read compressed.
pub(super) struct Compressing(Arc<Semaphore>);

/// The body of a list whose messages are compressed on their way out.
struct Compressed {
    body: Body,
    /// Messages that were handed over together and are still to come.
    rest: Bytes,
    work: Option<Work>,
    at_once: Arc<Semaphore>,
}

/// A message that is being compressed.
struct Work {
    /// The message, with its prefix.
    message: Bytes,
    done: usize,
    encoder: GzEncoder<Vec<u8>>,
    _permit: Option<OwnedSemaphorePermit>,
}

// === impl Compress ===

impl Compress {
    pub(super) fn new() -> Self {
        Compress { at_once: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }
}

impl Intercept for Compress {
    type OnResponse = Option<Compressing>;

    fn on_request(&self, request: &mut Request) -> ControlFlow<Response, Option<Compressing>> {
        let method = &CallContext::of(request).method;
        let is_list = method.as_ref().is_some_and(|it| it.kind == Kind::Api && it.shape == Shape::Pages);
        let is_wanted = is_list && accepts_gzip(request.headers());
        ControlFlow::Continue(is_wanted.then(|| Compressing(self.at_once.clone())))
    }
}

impl OnResponse for Option<Compressing> {
    fn on_response(self, mut response: Response) -> Response {
        let Some(Compressing(at_once)) = self.filter(|_| !response.headers().contains_key(Status::GRPC_STATUS)) else {
            return response;
        };
        response.headers_mut().insert(ENCODING, HeaderValue::from_static(GZIP));
        response
            .map(|body| body.map_stream(|body| Body::new(Compressed { body, rest: Bytes::new(), work: None, at_once })))
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|name| name.trim() == GZIP))
}

// === impl Compressed ===

impl Compressed {
    /// Takes the next message. `Some` is to be sent as it is.
    fn begin(&mut self) -> Option<Bytes> {
        let length = self.rest.get(1..PREFIX)?.try_into().map(u32::from_be_bytes).ok()? as usize;
        let message = self.rest.split_to((PREFIX + length).min(self.rest.len()));
        let several = length > PIECE;
        let permit = several.then(|| self.at_once.clone().try_acquire_owned());
        let permit = match permit {
            Some(Err(_)) => return Some(message),
            permit => permit.and_then(Result::ok),
        };
        // Compressed already, or hardly worth it.
        if message[0] != 0 || length < LEAST {
            return Some(message);
        }
        let encoder = GzEncoder::new(vec![0; PREFIX], Compression::fast());
        self.work = Some(Work { message, done: PREFIX, encoder, _permit: permit });
        None
    }
}

impl Work {
    /// Compresses a piece. Returns whether it was the last one.
    fn piece(&mut self) -> std::io::Result<bool> {
        let end = self.message.len().min(self.done + PIECE);
        self.encoder.write_all(&self.message[self.done..end])?;
        self.done = end;
        Ok(end == self.message.len())
    }

    /// The message as it is sent.
    fn finish(self) -> std::io::Result<Bytes> {
        let mut compressed = self.encoder.finish()?;
        let length = compressed.len() - PREFIX;
        match u32::try_from(length) {
            Ok(length) if compressed.len() < self.message.len() => {
                compressed[0] = 1;
                compressed[1..PREFIX].copy_from_slice(&length.to_be_bytes());
                Ok(compressed.into())
            }
            _ => Ok(self.message),
        }
    }
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(mut work) = self.work.take() {
                let message = match work.piece() {
                    Ok(false) => {
                        self.work = Some(work);
                        // Other tasks run before the next piece.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Ok(true) => work.finish(),
                    Err(error) => Err(error),
                };
                return Poll::Ready(Some(message.map(Frame::data).map_err(|error| status(Error::internal(error)))));
            }
            if self.rest.len() >= PREFIX {
                if let Some(message) = self.begin() {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.work.is_none() && self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    /// The messages of a body, and whether each was compressed.
    async fn sent(frames: Vec<Vec<u8>>, at_once: usize) -> Vec<(bool, Vec<u8>)> {
        let frames = frames.into_iter().map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from(frame))));
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        let at_once = Arc::new(Semaphore::new(at_once));
        let bytes = Compressed { body, rest: Bytes::new(), work: None, at_once }.collect().await.unwrap().to_bytes();
        let (mut rest, mut messages) = (&bytes[..], Vec::new());
        while let Some((prefix, more)) = rest.split_at_checked(PREFIX) {
            let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            let (message, more) = more.split_at(length);
            let mut plain = Vec::new();
            match prefix[0] {
                1 => drop(GzDecoder::new(message).read_to_end(&mut plain).unwrap()),
                _ => plain.extend(message),
            }
            messages.push((prefix[0] == 1, plain));
            rest = more;
        }
        messages
    }

    #[tokio::test]
    async fn messages_stay_what_they_are() {
        let (empty, short, one, several) = (vec![], vec![7; LEAST - 1], vec![8; LEAST], b"page ".repeat(200_000));
        let together = [framed(&empty), framed(&one), framed(&short)].concat();
        let messages = sent(vec![together, framed(&several), framed(&one)], 1).await;
        let expected = [(false, empty), (true, one.clone()), (false, short), (true, several.clone()), (true, one)];
        assert!(messages == expected);
        assert!(sent(vec![framed(&several)], 0).await == [(false, several)], "there is no room to compress it");
    }

    #[test]
    fn gzip_is_found_among_what_a_client_reads() {
        for (values, accepted) in [
            (&["gzip"][..], true),
            (&["identity, deflate, gzip"], true),
            (&["identity", "gzip"], true),
            (&["identity", "x-gzip"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(accepts_gzip(&headers), accepted, "{values:?}");
        }
    }
}
