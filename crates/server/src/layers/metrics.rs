//! `rpc.server.call.duration`, the number of open calls, and errors by reason. Streams count until they end.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::KeyValue;
use tonic::Code;

use super::context::CallContext;
use super::outcome::observe;
use super::trace::is_server_fault;
use super::{Answer, BoxFuture, Call, Layer, Stack};
use crate::grpc::status::{code_name, reason_of};
use crate::metrics::{Metrics, attribute};

pub(super) struct MetricsLayer {
    pub(super) metrics: Metrics,
}

// === impl MetricsLayer ===

impl Layer for MetricsLayer {
    fn handle(&self, call: Call, inner: &Stack) -> BoxFuture<Answer> {
        let context = CallContext::of(&call);
        let metrics = self.metrics.clone();
        let method: Arc<str> = match &context.method {
            Some(method) => method.name.clone(),
            None => attribute::RPC_METHOD_OTHER.into(),
        };
        let open = metrics.call_open(method.clone());
        let on_end = move |code: Code, headers: Option<&HeaderMap>| {
            drop(open);
            if let Some(reason) = headers.filter(|_| code != Code::Ok).and_then(reason_of) {
                metrics.error(reason);
            }
            let mut attributes = vec![
                KeyValue::new(attribute::RPC_SYSTEM, "grpc"),
                KeyValue::new(attribute::RPC_METHOD, method),
                KeyValue::new(attribute::RPC_STATUS, code_name(code)),
            ];
            if is_server_fault(code) {
                attributes.push(KeyValue::new(attribute::ERROR_TYPE, code_name(code)));
            }
            metrics.call(context.start.elapsed().as_secs_f64(), &attributes);
        };
        let work = inner.handle(call);
        Box::pin(async move { observe(work.await, on_end) })
    }
}
