//! The innermost service: the handlers of all methods.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tonic::service::Routes;
use tower::Service;

use crate::call::context::CallContext;
use crate::call::methods::Shape;
use crate::call::{Request, Response, ResponseBody};

#[derive(Clone)]
pub(super) struct Handlers(Routes);

pin_project! {
    /// The response of a handler. One of a single message is taken whole.
    pub(super) struct Handling {
        #[pin]
        response: <Routes as Service<Request>>::Future,
        is_unary: bool,
    }
}

// === impl Handlers ===

impl Handlers {
    pub(super) fn new(routes: Routes) -> Self {
        Handlers(routes.prepare())
    }
}

impl Service<Request> for Handlers {
    type Response = Response;
    type Error = Infallible;
    type Future = Handling;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request) -> Handling {
        let is_unary = CallContext::of(&request).method.as_ref().is_some_and(|method| method.shape == Shape::Unary);
        Handling { response: self.0.call(request), is_unary }
    }
}

// === impl Handling ===

impl Future for Handling {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.response.poll(cx));
        let gather = |body| if *this.is_unary { ResponseBody::gather(body, cx) } else { ResponseBody::from(body) };
        Poll::Ready(Ok(response.map(gather)))
    }
}
