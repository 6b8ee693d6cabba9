//! The real services behind the library's own transport, with its defaults.

use std::error::Error;
use std::sync::Arc;

use jackfield_server::config::Config;
use jackfield_transport::backend::{Backend, RouteContext};
use jackfield_transport::health::{HealthService, HealthState};
use jackfield_transport::telemetry::Meters;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// Serves until the process ends. Only the handshake authenticates callers, so only health answers them.
pub(super) async fn serve(config: Config, backend: Arc<dyn Backend>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let files = config.tls_files();
    let identity = Identity::from_pem(std::fs::read(files.certificate)?, std::fs::read(files.private_key)?);
    let authority = Certificate::from_pem(std::fs::read(files.client_ca)?);
    let listener = TcpListener::bind(config.listen.tcp_address().ok_or("no address")?).await?;
    let drain = CancellationToken::new();
    let meter = Meters::new(&config.telemetry)?.meter();
    let context = RouteContext { meter, drain: drain.clone(), tasks: TaskTracker::new() };
    let mut routes = RoutesBuilder::default();
    backend.add_routes(&context, &mut routes);
    backend.start(&context);
    routes.add_service(HealthService::new(Vec::new(), HealthState::new().readiness(), drain).into_route());
    tracing::info!(listener = "tcp", address = %listener.local_addr()?, "listening");
    Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity).client_ca_root(authority))?
        .add_routes(routes.routes())
        .serve_with_incoming(TcpIncoming::from(listener))
        .await?;
    Ok(())
}
