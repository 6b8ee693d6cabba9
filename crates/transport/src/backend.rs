//! The service behind the transport, as the transport needs it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::metrics::Meter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;

use crate::call::http::HttpApi;
use crate::call::identity::Tenants;
use crate::observe::telemetry::Meters;
use crate::standard::health::Readiness;

/// A service that can be put behind a [`Server`](crate::Server).
pub trait Backend: Send + Sync + 'static {
    /// Adds its gRPC services.
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder);

    /// Starts its background work. It is called once, when the server begins to serve.
    fn start(&self, context: &RouteContext);

    /// Adds its instruments to the metrics of the server. It is called once, before the server begins to serve.
    fn add_instruments(&self, meters: &Meters);

    /// Returns the interface of the HTTP listener with a name, if it has one.
    fn http(&self, _listener: &str) -> Option<Arc<dyn HttpApi>> {
        None
    }

    /// The descriptors of these services, encoded.
    fn descriptor_set(&self) -> &'static [u8];

    /// Returns the reasons of its errors. In metrics all of them start at 0.
    fn error_reasons(&self) -> Vec<&'static str>;

    /// Finds the tenants of callers.
    fn tenants(&self) -> Arc<dyn Tenants>;

    /// Returns whether calls would succeed: asks the database and the keyring.
    fn probe(&self) -> BoxFuture<'static, Readiness>;

    /// Finishes background work and closes the database. It is called once: after the last call has ended, or when the
    /// server cannot be bound.
    fn close(&self) -> BoxFuture<'static, ()>;

    /// The time that closing may take.
    fn close_timeout(&self) -> Duration {
        CLOSE_TIMEOUT
    }
}

/// The time that closing may take without work that must not be cut.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts of the server that handlers need.
#[derive(Clone, Debug)]
pub struct RouteContext {
    /// Streams end themselves when this is cancelled.
    pub drain: CancellationToken,
    /// Makes instruments.
    pub meter: Meter,
    /// For tasks that a call starts; the server waits for them when it stops.
    pub tasks: TaskTracker,
}
