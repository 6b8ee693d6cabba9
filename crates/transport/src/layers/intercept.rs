//! Layers that check a request, and then refuse it or handle its response.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::call::{Request, Response};

/// A service that a layer can wrap. It cannot fail: an error is a response too.
pub(super) trait Inner: Service<Request, Response = Response, Error = Infallible> {}

impl<S: Service<Request, Response = Response, Error = Infallible>> Inner for S {}

/// The rule of a layer.
pub(super) trait Intercept: Clone {
    /// The part of the rule that handles the response.
    type OnResponse: OnResponse;

    /// Looks at a request; breaks with the response if it is refused.
    fn on_request(&self, request: &mut Request) -> ControlFlow<Response, Self::OnResponse>;
}

/// The second half of a rule.
pub(super) trait OnResponse {
    fn on_response(self, response: Response) -> Response;
}

/// A rule as a layer.
#[derive(Clone)]
pub(super) struct InterceptLayer<I>(pub(super) I);

/// A service behind a rule.
#[derive(Clone)]
pub(super) struct Intercepted<I, S> {
    rule: I,
    inner: S,
}

pin_project! {
    /// The response of a service after the rule has handled it, or a refusal.
    #[project = Projected]
    pub(super) enum Responding<F, R> {
        Refused { #[pin] response: Ready<Result<Response, Infallible>> },
        Inner { #[pin] response: F, on_response: Option<R> },
    }
}

// === impl InterceptLayer ===

impl<I: Clone, S> Layer<S> for InterceptLayer<I> {
    type Service = Intercepted<I, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Intercepted { rule: self.0.clone(), inner }
    }
}

// === impl Intercepted ===

impl<I: Intercept, S: Inner> Service<Request> for Intercepted<I, S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Responding<S::Future, I::OnResponse>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.rule.on_request(&mut request) {
            ControlFlow::Continue(on_response) => Responding::new(self.inner.call(request), on_response),
            ControlFlow::Break(response) => Responding::refused(response),
        }
    }
}

// === impl Responding ===

impl<F, R> Responding<F, R> {
    /// Waits for a response, and handles it.
    pub(super) fn new(response: F, on_response: R) -> Self {
        Responding::Inner { response, on_response: Some(on_response) }
    }

    /// Responds at once.
    pub(super) fn refused(response: Response) -> Self {
        Responding::Refused { response: ready(Ok(response)) }
    }
}

impl<F: Future<Output = Result<Response, Infallible>>, R: OnResponse> Future for Responding<F, R> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Refused { response } => response.poll(cx),
            Projected::Inner { response, on_response } => {
                let Ok(response) = ready!(response.poll(cx));
                Poll::Ready(Ok(match on_response.take() {
                    Some(on_response) => on_response.on_response(response),
                    None => response,
                }))
            }
        }
    }
}
