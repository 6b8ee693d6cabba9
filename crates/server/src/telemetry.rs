//! Logs to standard error, traces and metrics by OTLP, metrics as a Prometheus page.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{LogFormat, Telemetry};
use crate::log_format::{JsonLines, TextLines};
use crate::transport::{Counter, network};

const SCOPE: &str = "jackfield";
const SERVICE: &str = "jackfield";
/// The release of the conventions whose names are used.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// How long the last spans and points may take when the server stops.
const FLUSH: Duration = Duration::from_secs(2);
/// Scrapers are few; more than this at once is a mistake.
const MAX_SCRAPES: usize = 16;
/// More than this from one address too: whoever holds connections leaves room for others.
const MAX_SCRAPES_PER_IP: u32 = 4;
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// A scraper says at once what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.log_filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("telemetry.otlp_ca: {0}")]
    Ca(std::io::Error),
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("prometheus page: {0}")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
    #[error("a tracing subscriber is set already")]
    SubscriberSet,
}

/// Traces of the process; keep it to the end.
#[derive(Debug)]
pub struct Tracing(Option<SdkTracerProvider>);

/// Metrics of one server.
#[derive(Clone, Debug)]
pub struct Meters {
    provider: SdkMeterProvider,
    registry: prometheus::Registry,
}

// === impl Tracing ===

impl Tracing {
    /// Sets up logs and traces for the whole process; once. Needs a runtime if an OTLP endpoint is set.
    ///
    /// # Errors
    /// A filter or an endpoint that cannot be used.
    pub fn init(config: &Telemetry) -> Result<Self, TelemetryError> {
        let filter = EnvFilter::try_new(&config.log_filter)?;
        // Spans are for traces: see `log_format`. With the hint, what is not logged costs nothing where it stands.
        let level = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let events = filter_fn(move |meta| !meta.is_span() && *meta.level() <= level).with_max_level_hint(level);
        let filter = filter.and(events);
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        let format = tracing_subscriber::fmt::format().with_ansi(false);
        let log = match config.log_format {
            LogFormat::Json => layer.event_format(JsonLines(format.json().flatten_event(true))).boxed(),
            LogFormat::Text => layer.event_format(TextLines(format)).boxed(),
        };
        let provider = match config.otlp_endpoint.as_str() {
            "" => None,
            endpoint => {
                let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
                if let Some(tls) = otlp_tls(config)? {
                    exporter = exporter.with_tls_config(tls);
                }
                let exporter = exporter.build()?;
                Some(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build())
            }
        };
        let subscriber = tracing_subscriber::registry().with(log.with_filter(filter));
        // Not as a layer that may be absent: with one of those every span is made, whether anybody wants it or not.
        let set = match &provider {
            None => subscriber.try_init(),
            Some(provider) => {
                // The exporter's own calls must not make spans that it would then export.
                let own = filter_fn(|meta| meta.target().starts_with("jackfield") && *meta.level() <= Level::INFO);
                let own = own.with_max_level_hint(LevelFilter::INFO);
                let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer(SCOPE)).with_location(false);
                subscriber.with(otel.with_filter(own)).try_init()
            }
        };
        set.map_err(|_| TelemetryError::SubscriberSet)?;
        Ok(Tracing(provider))
    }

    /// Sends what is left.
    pub fn shutdown(&self) {
        if let Some(Err(error)) = self.0.as_ref().map(|provider| provider.shutdown_with_timeout(FLUSH)) {
            tracing::warn!(error.message = %error, "last traces not sent");
        }
    }
}

// === impl Meters ===

impl Meters {
    /// Sets up the metrics of one server. Needs a runtime if an OTLP endpoint is set.
    ///
    /// # Errors
    /// An endpoint that cannot be used.
    pub fn new(config: &Telemetry) -> Result<Self, TelemetryError> {
        let registry = prometheus::Registry::new();
        let mut provider = SdkMeterProvider::builder().with_resource(resource());
        let is_pushed = !config.otlp_endpoint.is_empty();
        // Each reader keeps numbers of its own, at every call.
        if !is_pushed || !config.prometheus_address.is_empty() {
            let page = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
            provider = provider.with_reader(page);
        }
        if is_pushed {
            let mut exporter = MetricExporter::builder().with_tonic().with_endpoint(&config.otlp_endpoint);
            if let Some(tls) = otlp_tls(config)? {
                exporter = exporter.with_tls_config(tls);
            }
            provider = provider.with_periodic_exporter(exporter.build()?);
        }
        Ok(Meters { provider: provider.build(), registry })
    }

    /// Makes instruments.
    pub fn meter(&self) -> Meter {
        self.provider.meter(SCOPE)
    }

    /// The page as it is now. It is empty if metrics are only pushed.
    ///
    /// # Errors
    /// A metric cannot be written as text.
    pub fn page(&self) -> Result<String, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }

    /// Sends what is left.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(error.message = %error, "last metrics not sent");
        }
    }

    /// Serves `GET /metrics` until `stop`, one scrape a connection.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut scrapes = tokio::task::JoinSet::new();
        let by_ip = Counter::new(MAX_SCRAPES_PER_IP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = scrapes.join_next() => {}
                accepted = listener.accept(), if scrapes.len() < MAX_SCRAPES => match accepted {
                    Ok((socket, peer)) => {
                        // Closed at once.
                        let Some(place) = by_ip.enter(network(peer.ip())) else { continue };
                        let meters = self.clone();
                        scrapes.spawn(tokio::time::timeout(SCRAPE_TIMEOUT, async move {
                            let _place = place;
                            let service = hyper::service::service_fn(move |request| {
                                let answer = meters.answer(&request);
                                async move { Ok::<_, Infallible>(answer) }
                            });
                            // A scraper that goes away is no concern of ours.
                            let _ = hyper::server::conn::http1::Builder::new()
                                .timer(TokioTimer::new())
                                .header_read_timeout(REQUEST_TIMEOUT)
                                .keep_alive(false)
                                .serve_connection(TokioIo::new(socket), service)
                                .await;
                        }));
                    }
                    Err(error) => {
                        tracing::warn!(error.message = %error, "accept failed on the metrics page");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }

    fn answer(&self, request: &http::Request<hyper::body::Incoming>) -> http::Response<Full<bytes::Bytes>> {
        let (code, body) = match (request.method(), request.uri().path()) {
            (&http::Method::GET, "/metrics") => match self.page() {
                Ok(page) => (http::StatusCode::OK, page),
                Err(error) => {
                    tracing::error!(error.message = %error, "metrics page failed");
                    (http::StatusCode::INTERNAL_SERVER_ERROR, String::new())
                }
            },
            (_, "/metrics") => (http::StatusCode::METHOD_NOT_ALLOWED, String::new()),
            _ => (http::StatusCode::NOT_FOUND, String::new()),
        };
        let mut answer = http::Response::new(Full::from(body));
        *answer.status_mut() = code;
        let text = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer.headers_mut().insert(http::header::CONTENT_TYPE, text);
        answer
    }
}

fn resource() -> Resource {
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder().with_service_name(SERVICE).with_schema_url([version], SCHEMA_URL).build()
}

fn otlp_tls(config: &Telemetry) -> Result<Option<ClientTlsConfig>, TelemetryError> {
    if config.otlp_ca.as_os_str().is_empty() {
        return Ok(None);
    }
    let ca = std::fs::read(&config.otlp_ca).map_err(TelemetryError::Ca)?;
    Ok(Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca))))
}
