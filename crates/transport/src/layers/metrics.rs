//! `rpc.server.call.duration`, the number of open calls, and errors by reason. Streams count until they end.

use std::ops::ControlFlow;
use std::sync::Arc;

use tonic::Code;

use super::intercept::{Intercept, OnResponse};
use super::outcome::observe;
use crate::call::attributes::{CallAttributes, RPC_METHOD_OTHER};
use crate::call::context::CallContext;
use crate::call::status::reason_of;
use crate::call::{Request, Response};
use crate::observe::metrics::{Metrics, OpenCall};

#[derive(Clone)]
pub(super) struct Measure {
    metrics: Metrics,
    /// The attributes of paths that are not methods of this server.
    other: Arc<CallAttributes>,
}

/// A call that is counted when it ends.
pub(super) struct Measuring {
    metrics: Metrics,
    open: OpenCall,
}

// === impl Measure ===

impl Measure {
    pub(super) fn new(metrics: Metrics) -> Self {
        Measure { metrics, other: Arc::new(CallAttributes::new(&RPC_METHOD_OTHER.into())) }
    }
}

impl Intercept for Measure {
    type OnResponse = Measuring;

    fn on_request(&self, request: &mut Request) -> ControlFlow<Response, Measuring> {
        let context = CallContext::of(request);
        let attributes = context.method.as_ref().map_or(&self.other, |method| &method.attributes);
        let open = self.metrics.call_open(Arc::clone(attributes), context.start);
        ControlFlow::Continue(Measuring { metrics: self.metrics.clone(), open })
    }
}

impl OnResponse for Measuring {
    fn on_response(self, response: Response) -> Response {
        let Measuring { metrics, open } = self;
        observe(response, move |code, headers| {
            if let Some(reason) = headers.filter(|_| code != Code::Ok).and_then(reason_of) {
                metrics.error(&reason);
            }
            open.ended(code);
        })
    }
}
