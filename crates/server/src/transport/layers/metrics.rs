//! `rpc.server.call.duration`, the number of open calls, and errors by reason. Streams count until they end.

use std::sync::Arc;

use http::HeaderMap;
use tonic::Code;

use super::outcome::observe;
use super::{Handler, Layer};
use crate::transport::call::attributes::{CallAttributes, RPC_METHOD_OTHER};
use crate::transport::call::context::CallContext;
use crate::transport::call::status::reason_of;
use crate::transport::call::{Request, Response};
use crate::transport::observe::metrics::Metrics;

pub(super) struct MetricsLayer {
    metrics: Metrics,
    /// Of paths that are no method of this server.
    other: Arc<CallAttributes>,
}

// === impl MetricsLayer ===

impl MetricsLayer {
    pub(super) fn new(metrics: Metrics) -> Self {
        MetricsLayer { metrics, other: Arc::new(CallAttributes::new(&RPC_METHOD_OTHER.into())) }
    }
}

impl Layer for MetricsLayer {
    async fn handle<H: Handler>(&self, call: Request, inner: &H) -> Response {
        let context = CallContext::of(&call);
        let attributes = context.method.as_ref().map_or(&self.other, |method| &method.attributes);
        let open = self.metrics.call_open(Arc::clone(attributes), context.start);
        let metrics = self.metrics.clone();
        let on_end = move |code: Code, headers: Option<&HeaderMap>| {
            if let Some(reason) = headers.filter(|_| code != Code::Ok).and_then(reason_of) {
                metrics.error(reason);
            }
            open.ended(code);
        };
        observe(inner.handle(call).await, on_end)
    }
}
