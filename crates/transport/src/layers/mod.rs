//! The layers that every call passes before it reaches a handler, in one place.
//!
//! The layers are tower's: each makes a [`tower::Service`] of requests that answers with responses and cannot fail. Any
//! middleware of tower can be mounted between them. Its errors, and a body of another type, have to become a response of
//! ours before the next layer (`ResponseBody::new`).

mod compress;
mod context;
mod deadline;
mod ending_body;
mod identity;
mod idle;
mod intercept;
mod limit;
mod metrics;
mod normalize;
mod one_message;
mod outcome;
mod panic;
mod routes;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceBuilder;

use self::compress::Compress;
use self::context::ContextLayer;
use self::deadline::DeadlineLayer;
use self::identity::IdentityLayer;
use self::idle::EndIdle;
use self::intercept::InterceptLayer;
use self::limit::Limit;
use self::metrics::Measure;
use self::normalize::Normalize;
use self::panic::PanicLayer;
use self::routes::Handlers;
use self::trace::TraceLayer;
use crate::call::identity::Tenants;
use crate::call::methods::Methods;
use crate::call::stack::Stack;
use crate::config::TransportConfig;
use crate::observe::metrics::Metrics;

/// The parts that the layers need.
pub(crate) struct LayerParts {
    pub(crate) methods: Arc<Methods>,
    pub(crate) metrics: Metrics,
    pub(crate) tenants: Arc<dyn Tenants>,
    pub(crate) drain: CancellationToken,
}

/// Makes the whole stack of the gRPC listeners. A call passes it from top to bottom.
pub(crate) fn stack(config: &TransportConfig, parts: LayerParts, routes: Routes) -> Stack {
    let LayerParts { methods, metrics, tenants, drain } = parts;
    let service = ServiceBuilder::new()
        // Outermost: all others read the context.
        .layer(ContextLayer { methods })
        .layer(TraceLayer { ratio: config.telemetry.trace_ratio })
        .layer(InterceptLayer(Measure::new(metrics.clone())))
        // Around everything that may panic, and within what counts and logs the INTERNAL that comes of it.
        .layer(PanicLayer)
        // Before anything that costs, identity included.
        .layer(InterceptLayer(Limit::new(config, metrics)))
        .layer(DeadlineLayer::new(&config.deadlines, &config.streams, drain))
        // Within the deadline, because finding the tenant reads the database.
        .layer(IdentityLayer { tenants })
        // Within the deadline and the limit, which then no longer count it.
        .layer(InterceptLayer(EndIdle))
        // Next to the handlers: what comes from below leaves in our form, unknown methods never reach them.
        .layer(InterceptLayer(Normalize::new(&config.limits)))
        // Around nothing but the handlers: the responses of layers are short.
        .layer(InterceptLayer(Compress::new()))
        .service(Handlers::new(routes));
    Stack::new(service)
}

/// Makes the stack of the plaintext health listener: its callers are unknown, and only health is served.
pub(crate) fn health_stack(
    config: &TransportConfig,
    methods: Arc<Methods>,
    metrics: Metrics,
    drain: CancellationToken,
    routes: Routes,
) -> Stack {
    let service = ServiceBuilder::new()
        .layer(ContextLayer { methods })
        .layer(TraceLayer { ratio: config.telemetry.trace_ratio })
        .layer(InterceptLayer(Measure::new(metrics.clone())))
        .layer(PanicLayer)
        .layer(InterceptLayer(Limit::new(config, metrics)))
        .layer(DeadlineLayer::new(&config.deadlines, &config.streams, drain))
        .layer(InterceptLayer(Normalize::new(&config.limits)))
        .service(Handlers::new(routes));
    Stack::new(service)
}
