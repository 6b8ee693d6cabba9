//! What the transport needs of the service behind it.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;

use crate::config::Config;
use crate::transport::call::identity::Tenants;
use crate::transport::observe::metrics::Metrics;
use crate::transport::observe::telemetry::Meters;
use crate::transport::standard::health::Readiness;

/// A service that can be put behind a [`Server`](crate::transport::Server).
pub trait Backend: Send + Sync + 'static {
    /// Adds its gRPC services.
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder);

    /// Adds what is to be looked up of it when metrics are collected.
    fn add_gauges(&self, meters: &Meters);

    /// The descriptors of these services, encoded.
    fn descriptor_set(&self) -> &'static [u8];

    /// Finds the tenants of callers.
    fn tenants(&self) -> Arc<dyn Tenants>;

    /// Whether calls would succeed: asks the database and the keyring.
    fn probe(&self) -> BoxFuture<'static, Readiness>;

    /// Called once after the last call has ended: finishes what runs in the background and closes the database.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// What handlers need of the server.
#[derive(Clone, Debug)]
pub struct RouteContext {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Streams end themselves when this is cancelled.
    pub drain: CancellationToken,
    /// The instruments of the server.
    pub metrics: Metrics,
    /// For tasks that a call starts; the server waits for them when it stops.
    pub tasks: TaskTracker,
}
