//! What every call passes through before it reaches a handler, in one place.

mod body;
mod compress;
pub mod context;
mod deadline;
mod flow;
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

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

pub(crate) use self::body::AnswerBody;
use self::compress::CompressLayer;
use self::context::{CallContext, ContextLayer};
use self::deadline::DeadlineLayer;
pub(crate) use self::flow::{End, Flow};
use self::identity::IdentityLayer;
use self::limit::LimitLayer;
use self::metrics::MetricsLayer;
use self::normalize::NormalizeLayer;
use self::panic::PanicLayer;
pub(crate) use self::trace::CALL_SPAN;
use self::trace::TraceLayer;
use crate::config::Config;
use crate::identity::Tenants;
use crate::methods::Methods;
use crate::metrics::Metrics;

pub(crate) type Call = http::Request<Body>;
pub(crate) type Answer = http::Response<AnswerBody>;
pub(crate) type Stack = Arc<dyn Answering>;

/// Something that answers calls. It cannot fail: an error is an answer too.
trait Handler: Send + Sync + 'static {
    fn handle(&self, call: Call) -> impl Future<Output = Answer> + Send;
}

/// Something that stands around a handler.
trait Layer: Send + Sync + 'static {
    fn handle<H: Handler>(&self, call: Call, inner: &H) -> impl Future<Output = Answer> + Send;
}

/// A handler whose type is forgotten: that of a stack is as long as the stack is high. All layers of a call are one future.
pub(crate) trait Answering: Send + Sync + 'static {
    fn answer(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
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

/// The trailers that end a stream with a status.
pub(crate) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only metadata that is no header value can fail, and statuses of our table have none; the code is what counts.
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from(status.code() as i32));
    }
    Frame::trailers(trailers)
}

struct Builder<H>(H);

struct Layered<L, H> {
    layer: L,
    inner: H,
}

/// The innermost handler.
struct RoutesHandler(Routes);

/// A refusal that a layer makes.
pub(crate) fn refused(status: Status) -> Answer {
    status.into_http::<Body>().map(AnswerBody::from)
}

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
    fn handle(&self, call: Call) -> impl Future<Output = Answer> + Send {
        self.layer.handle(call, &self.inner)
    }
}

impl<H: Handler> Answering for H {
    fn answer(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.handle(call))
    }
}

impl Handler for RoutesHandler {
    async fn handle(&self, call: Call) -> Answer {
        let streaming = CallContext::of(&call).method.as_ref().is_none_or(|method| method.streaming);
        let answer = match self.0.clone().oneshot(call).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let (head, body) = answer.into_parts();
        let body = if streaming { AnswerBody::from(body) } else { AnswerBody::gather(body).await };
        http::Response::from_parts(head, body)
    }
}
