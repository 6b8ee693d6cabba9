//! The context of a call: it is made by the outermost layer, so that every other one can read it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Frame, SizeHint};
use tokio::task::futures::TaskLocalFuture;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use uuid::Uuid;

use super::intercept::{Inner, OnResponse, Responding};
use crate::call::context::{CallContext, REQUEST_ID, foreign_id};
use crate::call::flow::Flow;
use crate::call::methods::Methods;
use crate::call::peer::ConnectInfo;
use crate::call::{Request, Response};

#[derive(Clone)]
pub(super) struct ContextLayer {
    pub(super) methods: Arc<Methods>,
}

/// Runs the service inside as a call. Error statuses find its context while the call or its body is polled.
#[derive(Clone)]
pub(super) struct InContext<S> {
    methods: Arc<Methods>,
    inner: S,
}

/// Names the call in its response.
pub(super) struct AddRequestId(Arc<CallContext>);

// === impl ContextLayer ===

impl<S> Layer<S> for ContextLayer {
    type Service = InContext<S>;

    fn layer(&self, inner: S) -> InContext<S> {
        InContext { methods: Arc::clone(&self.methods), inner }
    }
}

// === impl InContext ===

impl<S: Inner> Service<Request> for InContext<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Responding<TaskLocalFuture<Arc<CallContext>, S::Future>, AddRequestId>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let peer = request.extensions().get::<ConnectInfo>().map(ConnectInfo::peer);
        let flow = request.extensions_mut().remove::<Arc<Flow>>().unwrap_or_default();
        let method = self.methods.get(request.uri().path()).cloned();
        let context = Arc::new(CallContext::new(method, peer, flow, foreign_id(request.headers())));
        request.extensions_mut().insert(context.clone());
        let response = context.enter(|| self.inner.call(request));
        Responding::new(context.clone().scope(response), AddRequestId(context))
    }
}

// === impl AddRequestId ===

impl OnResponse for AddRequestId {
    fn on_response(self, mut response: Response) -> Response {
        let AddRequestId(context) = self;
        let mut text = Uuid::encode_buffer();
        if let Ok(mut id) = HeaderValue::from_str(context.request_id.hyphenated().encode_lower(&mut text)) {
            // It is no secret, but it never repeats: it must not evict useful headers from the connection's header table.
            id.set_sensitive(true);
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response.map(|body| body.map_stream(|body| Body::new(ScopedBody { context, body })))
    }
}

/// A body that is polled within its call's context.
struct ScopedBody {
    context: Arc<CallContext>,
    body: Body,
}

impl http_body::Body for ScopedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let ScopedBody { context, body } = &mut *self;
        let frame = context.enter(|| Pin::new(body).poll_frame(cx));
        frame.map_ok(|frame| frame.map_data(|data| context.tie(data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
