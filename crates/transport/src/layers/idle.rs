//! Conversations with reflection end when nothing is asked. Clients keep them open beside the calls that they are for: grpcurl
//! does so until its call has ended, which may take hours. A client that asks again begins another conversation.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::intercept::{Intercept, OnResponse};
use crate::call::context::CallContext;
use crate::call::methods::Kind;
use crate::call::response::trailers;
use crate::call::{Request, Response};

/// The time for which nothing is asked in a conversation, after which it ends. Clients ask without pauses.
const IDLE: Duration = Duration::from_secs(5);

/// Ends conversations with reflection in which nothing is asked.
#[derive(Clone, Copy)]
pub(super) struct EndIdle;

/// The end of a conversation, as its questions see it.
pub(super) struct Conversation(DropGuard);

/// The questions of a client. They end with the conversation: their reader would wait for the next one otherwise, as long as
/// the client keeps its side of the stream open.
struct Questions {
    body: Body,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The answers to a client.
struct Answers {
    body: Option<Body>,
    /// It runs while nothing is asked.
    idle: Option<Pin<Box<Sleep>>>,
    _ended: DropGuard,
}

// === impl EndIdle ===

impl Intercept for EndIdle {
    type OnResponse = Option<Conversation>;

    fn on_request(&self, request: &mut Request) -> ControlFlow<Response, Option<Conversation>> {
        let context = CallContext::of(request);
        if context.method.as_ref().is_none_or(|method| method.kind != Kind::Reflection) {
            return ControlFlow::Continue(None);
        }
        let ended = CancellationToken::new();
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Questions::new(body, &ended));
        ControlFlow::Continue(Some(Conversation(ended.drop_guard())))
    }
}

impl OnResponse for Option<Conversation> {
    fn on_response(self, response: Response) -> Response {
        let Some(Conversation(ended)) = self else { return response };
        response.map(|body| body.map_stream(|body| Body::new(Answers::new(body, ended))))
    }
}

// === impl Questions ===

impl Questions {
    fn new(body: Body, ended: &CancellationToken) -> Self {
        Questions { body, ended: Box::pin(ended.clone().cancelled_owned()) }
    }
}

impl http_body::Body for Questions {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

// === impl Answers ===

impl Answers {
    fn new(body: Body, ended: DropGuard) -> Self {
        Answers { body: Some(body), idle: None, _ended: ended }
    }
}

impl http_body::Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Answers { body, idle, .. } = &mut *self;
        let Some(inner) = body else { return Poll::Ready(None) };
        let frame = Pin::new(inner).poll_frame(cx);
        if frame.is_ready() {
            *idle = None;
            return frame;
        }
        let timer = idle.get_or_insert_with(|| Box::pin(sleep(IDLE)));
        ready!(timer.as_mut().poll(cx));
        *body = None;
        Poll::Ready(Some(Ok(trailers(&Status::ok("")))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::channel::mpsc::unbounded;
    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::{Instant, timeout};

    use super::*;

    type Frames = Result<Frame<Bytes>, Infallible>;

    #[tokio::test(start_paused = true)]
    async fn a_conversation_ends_when_nothing_is_asked_and_not_before() {
        let (answer, answers) = unbounded::<Frames>();
        let ended = CancellationToken::new();
        let mut questions = Questions::new(Body::new(StreamBody::new(stream::pending::<Frames>())), &ended);
        let mut answers = Answers::new(Body::new(StreamBody::new(answers)), ended.drop_guard());
        let almost = IDLE - Duration::from_secs(1);
        for _ in 0..3 {
            assert!(timeout(almost, answers.frame()).await.is_err(), "it goes on");
            answer.unbounded_send(Ok(Frame::data(Bytes::from_static(b"an answer")))).unwrap();
            assert!(answers.frame().await.unwrap().unwrap().is_data());
        }
        assert!(timeout(Duration::from_millis(1), questions.frame()).await.is_err(), "questions may come");
        let begin = Instant::now();
        let last = answers.frame().await.unwrap().unwrap();
        assert!(begin.elapsed() >= almost);
        assert_eq!(last.trailers_ref().unwrap()[Status::GRPC_STATUS], "0");
        assert!(answers.frame().await.is_none());
        drop(answers);
        assert!(questions.frame().await.is_none(), "its reader ends, whatever the client keeps open");
    }
}
