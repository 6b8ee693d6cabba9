//! The server as a whole: everything is bound before it serves, and ends in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::{Clock, SystemClock, Timestamp};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;

use crate::backend::{Backend, RouteContext};
use crate::call::http::HttpApi;
use crate::call::identity::ConfiguredPrincipal;
use crate::call::methods::Methods;
use crate::call::stack::Stack;
use crate::config::{HttpListen, TransportConfig};
use crate::drain::Signals;
use crate::layers::{LayerParts, health_stack, stack};
use crate::net::{Acceptor, HttpFront, ListenError, Listener, Security};
use crate::observe::gauges;
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::{Meters, TelemetryError};
use crate::standard::health::{self, HealthService, HealthState};
use crate::standard::reflection;
use crate::tls::{PairReloader, TlsError, TlsReloader, watch};

/// The interval at which readiness is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A server whose sockets are bound. It accepts nothing before [`Server::serve`].
pub struct Server {
    config: TransportConfig,
    backend: Arc<dyn Backend>,
    acceptor: Acceptor,
    listeners: Vec<(&'static str, Listener, Security)>,
    health_listener: Option<Listener>,
    metrics_listener: Option<TcpListener>,
    http: Vec<BoundHttp>,
    stack: Stack,
    health_stack: Stack,
    health: HealthState,
    signals: Signals,
    context: RouteContext,
    meters: Meters,
    metrics: Metrics,
    tls: Option<Arc<TlsReloader>>,
    clock: Arc<dyn Clock>,
}

/// An HTTP listener with its interface.
struct BoundHttp {
    name: &'static str,
    listener: Listener,
    front: HttpFront,
    tls: Option<Arc<PairReloader>>,
}

/// The reason why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("descriptors: {0}")]
    Descriptors(#[from] prost::DecodeError),
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("cannot serve metrics on {address}: {source}")]
    MetricsPage { address: String, source: std::io::Error },
}

// === impl Server ===

impl Server {
    /// Binds every address that the configuration names, and lets go of all of them again: a start that would fail at one of them is
    /// refused before it makes anything.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub async fn check_addresses(config: &TransportConfig) -> Result<(), BindError> {
        let health = config.listen.health_address.parse::<SocketAddr>().ok();
        let http = config.http.iter().map(|listen| listen.address);
        // They stay bound until the end, so that two listeners with one address are found.
        let mut bound = Vec::new();
        for address in config.listen.tcp_address().into_iter().chain(health).chain(http) {
            bound.push(Listener::tcp(address).await?);
        }
        let _metrics = bind_metrics(&config.telemetry.prometheus_address).await?;
        let path = &config.listen.unix_socket;
        if !path.as_os_str().is_empty() {
            Listener::refuse_used(path).await?;
        }
        Ok(())
    }

    /// Binds everything that the configuration names in front of a service.
    ///
    /// # Errors
    /// A socket or a file that cannot be used.
    pub async fn bind(config: TransportConfig, backend: Arc<dyn Backend>) -> Result<Server, BindError> {
        Self::bind_with_clock(config, backend, Arc::new(SystemClock)).await
    }

    /// Binds as [`Server::bind`] does, with another clock.
    ///
    /// # Errors
    /// As there.
    pub async fn bind_with_clock(
        config: TransportConfig,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
    ) -> Result<Server, BindError> {
        let bound = Self::try_bind(config, backend.clone(), clock).await;
        if bound.is_err() {
            // The error says more than a close that takes too long.
            let _ = tokio::time::timeout(backend.close_timeout(), backend.close()).await;
        }
        bound
    }

    async fn try_bind(
        config: TransportConfig,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
    ) -> Result<Server, BindError> {
        let meters = Meters::new(&config.telemetry)?;
        let metrics = Metrics::new(&meters.meter(), &backend.error_reasons());
        let health = HealthState::new();
        let signals = Signals::default();
        let tasks = TaskTracker::new();
        let context = RouteContext { drain: signals.drain.clone(), meter: meters.meter(), tasks };

        let health_descriptors = health::descriptor_set()?;
        let descriptors = [
            backend.descriptor_set(),
            &health_descriptors,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let methods = Arc::new(Methods::new(descriptors)?);
        let health_service = HealthService::new(methods.services(), health.readiness(), signals.drain.clone());

        let mut routes = RoutesBuilder::default();
        backend.add_routes(&context, &mut routes);
        routes.add_service(health_service.clone().into_route());
        reflection::add(&mut routes, &[backend.descriptor_set(), &health_descriptors])?;
        let parts = LayerParts {
            methods: methods.clone(),
            metrics: metrics.clone(),
            tenants: backend.tenants(),
            drain: signals.drain.clone(),
        };
        let stack = stack(&config, parts, routes.routes());

        let health_only = Arc::new(Methods::new([health_descriptors.as_slice()])?);
        let mut health_routes = RoutesBuilder::default();
        health_routes.add_service(health_service.into_route());
        let health_stack =
            health_stack(&config, health_only, metrics.clone(), signals.drain.clone(), health_routes.routes());

        let tls = match config.listen.tcp_address() {
            Some(_) if !config.listen.plaintext => {
                Some(Arc::new(TlsReloader::load(config.tls_files.clone(), &config.tls, clock.now()).await?))
            }
            _ => None,
        };
        let acceptor = Acceptor::new(
            &config,
            metrics.clone(),
            methods,
            clock.clone(),
            signals.drain.clone(),
            signals.kill.clone(),
        );
        let listeners = bind_listeners(&config, &acceptor, tls.clone()).await?;
        let health_listener = match config.listen.health_address.parse() {
            Ok(address) => Some(Listener::tcp(address).await?),
            Err(_) => None,
        };
        let metrics_listener = bind_metrics(&config.telemetry.prometheus_address).await?;
        let mut http = Vec::with_capacity(config.http.len());
        for listen in &config.http {
            if let Some(api) = backend.http(listen.name) {
                http.push(BoundHttp::bind(listen, api, &stack, &config, clock.now()).await?);
            }
        }
        let http_tls = http.iter().filter_map(|http| Some((http.name, http.tls.clone()?))).collect();
        gauges::register(&meters.meter(), health.readiness(), tls.clone(), http_tls);
        backend.add_instruments(&meters);
        Ok(Server {
            config,
            backend,
            acceptor,
            listeners,
            health_listener,
            metrics_listener,
            http,
            stack,
            health_stack,
            health,
            signals,
            context,
            meters,
            metrics,
            tls,
            clock,
        })
    }

    /// Returns the address of the gRPC listener; `None` with a Unix socket only.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.iter().find_map(|(_, listener, _)| listener.local_addr())
    }

    /// Returns the address of the health listener, if there is one.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.health_listener.as_ref().and_then(Listener::local_addr)
    }

    /// Returns the address of the metrics page, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Returns the address of the HTTP listener with a name, if there is one.
    pub fn http_addr(&self, name: &str) -> Option<SocketAddr> {
        self.http.iter().find(|http| http.name == name)?.listener.local_addr()
    }

    /// Returns the metrics of this server.
    pub fn meters(&self) -> Meters {
        self.meters.clone()
    }

    /// Serves until `shutdown` returns, then stops in order: health says NOT_SERVING; after a delay, connections get a
    /// GOAWAY; after half of the grace period lists end; after all of it everything that is left ends. Returns whether
    /// every call could end by itself. Clients without calls that do not answer do not count.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> bool {
        let Server { config, backend, acceptor, health, signals, context, meters, metrics, .. } = self;
        let background = context.tasks.clone();
        backend.start(&context);
        let probe = {
            let backend = backend.clone();
            Arc::new(move || backend.probe())
        };
        background.spawn(health.clone().probe(probe, PROBE_INTERVAL, signals.kill.clone()));
        let (interval, clock, kill) = (config.tls.reload_interval, self.clock, signals.kill.clone());
        let on_reload = move |is_in_force| metrics.tls_reloaded(is_in_force);
        if let Some(tls) = self.tls {
            background.spawn(watch(tls, interval, clock.clone(), on_reload.clone(), kill.clone()));
        }
        for BoundHttp { name, listener, front, tls } in self.http {
            if let Some(tls) = tls {
                background.spawn(watch(tls, interval, clock.clone(), on_reload.clone(), kill.clone()));
            }
            let address = listener.local_addr().map(|address| address.to_string());
            tracing::info!(listener = name, address, "listening");
            acceptor.spawn_http(name, listener, front);
        }
        if let Some(listener) = self.metrics_listener {
            background.spawn(meters.clone().serve(listener, signals.kill.clone()));
        }
        if let Some(listener) = self.health_listener {
            acceptor.spawn("health", listener, Security::Health, self.health_stack);
        }
        for (name, listener, security) in self.listeners {
            let address = listener.local_addr().map(|address| address.to_string());
            tracing::info!(listener = name, address, "listening");
            acceptor.spawn(name, listener, security, self.stack.clone());
        }

        meters.push_now();

        shutdown.await;
        let complete = signals.stop(&config.drain, &health, acceptor.tasks(), acceptor.cut_short()).await;
        background.close();
        if tokio::time::timeout(backend.close_timeout(), async {
            background.wait().await;
            backend.close().await;
        })
        .await
        .is_err()
        {
            tracing::error!("background work did not end in time");
        }
        // Flushing waits for a thread of the exporter.
        let _ = background.reopen();
        let _ = background.spawn_blocking(move || meters.shutdown()).await;
        tracing::info!(complete, "stopped");
        complete
    }
}

// === impl BoundHttp ===

impl BoundHttp {
    async fn bind(
        listen: &HttpListen,
        api: Arc<dyn HttpApi>,
        stack: &Stack,
        config: &TransportConfig,
        now: Timestamp,
    ) -> Result<Self, BindError> {
        let HttpListen { name, address, certificate, principal } = listen;
        let tls = match certificate {
            Some(files) => Some(Arc::new(PairReloader::load(files.clone(), now).await?)),
            None => None,
        };
        let caller = Arc::new(ConfiguredPrincipal::of(principal));
        let front = HttpFront::new(api, stack.clone(), caller, tls.clone(), config);
        Ok(BoundHttp { name, listener: Listener::tcp(*address).await?, front, tls })
    }
}

/// Binds the address of the metrics page, if there is one.
async fn bind_metrics(address: &str) -> Result<Option<TcpListener>, BindError> {
    if address.is_empty() {
        return Ok(None);
    }
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|source| BindError::MetricsPage { address: address.to_owned(), source })
}

async fn bind_listeners(
    config: &TransportConfig,
    acceptor: &Acceptor,
    tls: Option<Arc<TlsReloader>>,
) -> Result<Vec<(&'static str, Listener, Security)>, ListenError> {
    let plaintext = Security::Plaintext(acceptor.principals().by_name(&config.listen.plaintext_principal));
    let mut listeners = Vec::new();
    if let Some(address) = config.listen.tcp_address() {
        let security = tls.map_or_else(|| plaintext.clone(), Security::Tls);
        listeners.push(("tcp", Listener::tcp(address).await?, security));
    }
    let path = &config.listen.unix_socket;
    if let (false, Some(mode)) = (path.as_os_str().is_empty(), config.listen.socket_mode()) {
        listeners.push(("unix", Listener::unix(path, mode).await?, plaintext));
    }
    Ok(listeners)
}
