//! The response of a call on its way out through the layers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

pub(crate) type Response = http::Response<ResponseBody>;

/// The body of a response.
pub(crate) enum ResponseBody {
    /// It is complete: at most one message, and the trailers. Nothing in it can fail, wait or be late, so layers that watch
    /// for these leave it alone.
    Whole { message: Option<Bytes>, trailers: Option<HeaderMap> },
    /// It comes in pieces.
    Stream(Body),
}

/// A body of which a first part was already taken. That part is sent first.
struct Rest {
    taken: VecDeque<Frame<Bytes>>,
    body: Body,
}

/// Makes the response of a layer that refuses a call.
pub(crate) fn refused(status: Status) -> Response {
    status.into_http::<Body>().map(ResponseBody::from)
}

/// Makes the trailers that end a stream with a status.
pub(crate) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only metadata that is not a header value can fail, and statuses of our table have none; the code is what counts.
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from(status.code() as i32));
    }
    Frame::trailers(trailers)
}

// === impl ResponseBody ===

impl ResponseBody {
    /// Takes a foreign body, as middleware makes it.
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Body::new(body).into()
    }

    /// Takes the whole body of a response with one message, if it is complete.
    pub(crate) fn gather(mut body: Body, cx: &mut Context<'_>) -> Self {
        let mut taken = VecDeque::new();
        while !body.is_end_stream() {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let last = frame.is_trailers();
                    taken.push_back(frame);
                    if last || taken.len() > 1 {
                        break;
                    }
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) | Poll::Pending => return Self::Stream(Body::new(Rest { taken, body })),
            }
        }
        match Self::whole(&mut taken) {
            Some(whole) => whole,
            None => Self::Stream(Body::new(Rest { taken, body })),
        }
    }

    /// Makes a body of nothing, a message, trailers, or a message and trailers.
    fn whole(taken: &mut VecDeque<Frame<Bytes>>) -> Option<Self> {
        let trailers = match taken.back() {
            Some(frame) if frame.is_trailers() => taken.pop_back().and_then(|frame| frame.into_trailers().ok()),
            _ => None,
        };
        if taken.len() > 1 {
            return None;
        }
        let message = taken.pop_front().and_then(|frame| frame.into_data().ok());
        Some(ResponseBody::Whole { message, trailers })
    }

    /// Wraps a body that comes in pieces.
    pub(crate) fn map_stream(self, around: impl FnOnce(Body) -> Body) -> Self {
        match self {
            ResponseBody::Whole { .. } => self,
            ResponseBody::Stream(body) => ResponseBody::Stream(around(body)),
        }
    }
}

impl From<Body> for ResponseBody {
    fn from(body: Body) -> Self {
        if body.is_end_stream() {
            ResponseBody::Whole { message: None, trailers: None }
        } else {
            ResponseBody::Stream(body)
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            ResponseBody::Whole { message, trailers } => {
                let frame = message.take().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            ResponseBody::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Whole { message, trailers } => message.is_none() && trailers.is_none(),
            ResponseBody::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // Nothing else has a length: gRPC has none, and the HTTP library would send it.
            ResponseBody::Whole { message: None, trailers: None } => SizeHint::with_exact(0),
            ResponseBody::Whole { .. } => SizeHint::default(),
            ResponseBody::Stream(body) => body.size_hint(),
        }
    }
}

// === impl Rest ===

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.taken.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn end() -> Frame<Bytes> {
        Frame::trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, http::HeaderValue::from(0))]))
    }

    /// A body of these frames, which then hangs or ends.
    fn body(frames: Vec<Frame<Bytes>>, hangs: bool) -> Body {
        let frames = stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
        if hangs {
            Body::new(StreamBody::new(frames.chain(stream::pending())))
        } else {
            Body::new(StreamBody::new(frames))
        }
    }

    async fn gather(body: Body) -> ResponseBody {
        let mut body = Some(body);
        std::future::poll_fn(|cx| Poll::Ready(ResponseBody::gather(body.take().unwrap(), cx))).await
    }

    #[tokio::test]
    async fn what_is_there_is_taken_whole_and_nothing_is_lost() {
        for (frames, whole) in [
            (vec![], true),
            (vec![data("a")], true),
            (vec![end()], true),
            (vec![data("a"), end()], true),
            (vec![data("a"), data("b"), end()], false),
        ] {
            let shown = format!("{frames:?}");
            let texts =
                |frames: &[Frame<Bytes>]| frames.iter().filter_map(|it| it.data_ref().cloned()).collect::<Vec<_>>();
            let (sent, trailers) = (texts(&frames), frames.iter().any(Frame::is_trailers));
            let gathered = gather(body(frames, false)).await;
            assert_eq!(matches!(gathered, ResponseBody::Whole { .. }), whole, "{shown}");
            let received = gathered.collect().await.unwrap();
            assert_eq!(received.trailers().is_some(), trailers, "{shown}");
            assert_eq!(received.to_bytes(), sent.concat(), "{shown}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_waited_for() {
        for frames in [vec![], vec![data("a")]] {
            let count = frames.len();
            let mut gathered = gather(body(frames, true)).await;
            assert!(matches!(gathered, ResponseBody::Stream(_)) && !gathered.is_end_stream());
            for _ in 0..count {
                assert_eq!(gathered.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
            }
            assert!(futures::poll!(std::pin::pin!(gathered.frame())).is_pending());
        }
    }
}
