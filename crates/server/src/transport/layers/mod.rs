//! What every call passes through before it reaches a handler, in one place.

mod compress;
mod context;
mod deadline;
mod identity;
mod limit;
mod metrics;
mod normalize;
mod one_message;
mod outcome;
mod panic;
mod trace;

use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt as _;

use self::compress::CompressLayer;
use self::context::ContextLayer;
use self::deadline::DeadlineLayer;
use self::identity::IdentityLayer;
use self::limit::LimitLayer;
use self::metrics::MetricsLayer;
use self::normalize::NormalizeLayer;
use self::panic::PanicLayer;
use self::trace::TraceLayer;
use crate::config::Config;
use crate::transport::call::context::CallContext;
use crate::transport::call::identity::Tenants;
use crate::transport::call::methods::Methods;
use crate::transport::call::{Request, Response, ResponseBody};
use crate::transport::observe::metrics::Metrics;

pub(crate) type Stack = Arc<dyn Answering>;

/// Something that answers calls. It cannot fail: an error is an answer too.
trait Handler: Send + Sync + 'static {
    fn handle(&self, call: Request) -> impl Future<Output = Response> + Send;
}

/// Something that stands around a handler.
trait Layer: Send + Sync + 'static {
    fn handle<H: Handler>(&self, call: Request, inner: &H) -> impl Future<Output = Response> + Send;
}

/// A handler whose type is forgotten: that of a stack is as long as the stack is high. All layers of a call are one future.
pub(crate) trait Answering: Send + Sync + 'static {
    fn answer(&self, call: Request) -> Pin<Box<dyn Future<Output = Response> + Send + '_>>;
}

/// What the layers need.
pub(crate) struct LayerParts {
    pub(crate) methods: Arc<Methods>,
    pub(crate) metrics: Metrics,
    pub(crate) tenants: Arc<dyn Tenants>,
    pub(crate) drain: CancellationToken,
}

/// The whole stack of the gRPC listeners. The last one added is the outermost.
pub(crate) fn stack(config: &Config, parts: LayerParts, routes: Routes) -> Stack {
    let LayerParts { methods, metrics, tenants, drain } = parts;
    Builder::new(routes)
        // Around nothing but the routes: what layers answer is short.
        .with(CompressLayer::new())
        // Next to the routes: what comes from below leaves in our form, unknown methods never reach them.
        .with(NormalizeLayer::new(&config.limits))
        // Within the deadline, because finding the tenant reads the database.
        .with(IdentityLayer { tenants })
        .with(DeadlineLayer { deadlines: config.deadlines.clone(), streams: config.streams.clone(), drain })
        // Before anything that costs, identity included.
        .with(LimitLayer::new(config, metrics.clone()))
        // Around everything that may panic, and within what counts and logs the INTERNAL that comes of it.
        .with(PanicLayer)
        .with(MetricsLayer::new(metrics))
        .with(TraceLayer { ratio: config.telemetry.trace_ratio })
        // Outermost: all others read the context.
        .with(ContextLayer { methods })
        .build()
}

/// The stack of the plaintext health listener: nobody is known there and nothing but health is served.
pub(crate) fn health_stack(
    config: &Config,
    methods: Arc<Methods>,
    metrics: Metrics,
    drain: CancellationToken,
    routes: Routes,
) -> Stack {
    Builder::new(routes)
        .with(NormalizeLayer::new(&config.limits))
        .with(DeadlineLayer { deadlines: config.deadlines.clone(), streams: config.streams.clone(), drain })
        .with(LimitLayer::new(config, metrics.clone()))
        .with(PanicLayer)
        .with(MetricsLayer::new(metrics))
        .with(TraceLayer { ratio: config.telemetry.trace_ratio })
        .with(ContextLayer { methods })
        .build()
}

struct Builder<H>(H);

struct Layered<L, H> {
    layer: L,
    inner: H,
}

/// The innermost handler.
struct RoutesHandler(Routes);

// === impl Builder ===

impl Builder<RoutesHandler> {
    fn new(routes: Routes) -> Self {
        Builder(RoutesHandler(routes.prepare()))
    }
}

impl<H: Handler> Builder<H> {
    fn with<L: Layer>(self, layer: L) -> Builder<Layered<L, H>> {
        Builder(Layered { layer, inner: self.0 })
    }

    fn build(self) -> Stack {
        Arc::new(self.0)
    }
}

// === impl Handler ===

impl<L: Layer, H: Handler> Handler for Layered<L, H> {
    fn handle(&self, call: Request) -> impl Future<Output = Response> + Send {
        self.layer.handle(call, &self.inner)
    }
}

impl<H: Handler> Answering for H {
    fn answer(&self, call: Request) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
        Box::pin(self.handle(call))
    }
}

impl Handler for RoutesHandler {
    async fn handle(&self, call: Request) -> Response {
        let streaming = CallContext::of(&call).method.as_ref().is_none_or(|method| method.streaming);
        let answer = match self.0.clone().oneshot(call).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let (head, body) = answer.into_parts();
        let body = if streaming { ResponseBody::from(body) } else { ResponseBody::gather(body).await };
        http::Response::from_parts(head, body)
    }
}
