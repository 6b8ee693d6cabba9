//! The context of a call: it is made by the outermost layer, so that every other one can read it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use uuid::Uuid;

use super::{Handler, Layer};
use crate::transport::call::context::{CallContext, REQUEST_ID, foreign_id};
use crate::transport::call::flow::Flow;
use crate::transport::call::methods::Methods;
use crate::transport::call::peer::ConnectInfo;
use crate::transport::call::{Request, Response};

/// Error statuses find the context while the call or its body is polled.
pub(super) struct ContextLayer {
    pub(super) methods: Arc<Methods>,
}

// === impl ContextLayer ===

impl Layer for ContextLayer {
    async fn handle<H: Handler>(&self, mut call: Request, inner: &H) -> Response {
        let peer = call.extensions().get::<ConnectInfo>().map(ConnectInfo::peer);
        let flow = call.extensions_mut().remove::<Arc<Flow>>().unwrap_or_default();
        let method = self.methods.get(call.uri().path()).cloned();
        let context = Arc::new(CallContext::new(method, peer, flow, foreign_id(call.headers())));
        call.extensions_mut().insert(context.clone());
        let mut answer = context.clone().scope(inner.handle(call)).await;
        let mut text = Uuid::encode_buffer();
        if let Ok(mut id) = HeaderValue::from_str(context.request_id.hyphenated().encode_lower(&mut text)) {
            // Not a secret, but never the same again: it must not push what is out of the connection's header table.
            id.set_sensitive(true);
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer.map(|body| body.map_stream(|body| Body::new(ScopedBody { context, body })))
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
