//! Logs to standard error, traces and metrics by OTLP, metrics as a Prometheus page.

mod export;
mod resource;
mod within_calls;

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    MetricExporter, OTEL_EXPORTER_OTLP_METRICS_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
    SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, dynamic_filter_fn, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::call::fair_semaphore::KeyedSemaphores;
use crate::call::peer::network;
use crate::config::{LogFormat, Telemetry};
pub use crate::observe::log_format::Replacement;
use crate::observe::log_format::{JsonLines, TextLines};
use crate::observe::log_writer::{self, LogThread};
use crate::tls;

use self::export::{Bounded, FLUSH, Stop};
use self::resource::RESOURCE;
use self::within_calls::WithinCalls;

const SCOPE: &str = "jackfield";
/// Scrapers are few; more than this at once is a mistake.
const MAX_SCRAPES: usize = 16;
/// More than this from one address is a mistake too: one scraper leaves room for others.
const MAX_SCRAPES_PER_IP: u32 = 4;
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// A scraper says at once what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// The exporter's own timeout comes later than ours, which says what happened.
const LATER: Duration = Duration::from_secs(1);

/// The reason why telemetry cannot be set up.
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

/// Log and traces of the process. It has to be kept until the end, when the log is flushed.
#[derive(Debug)]
pub struct Tracing {
    traces: Option<(SdkTracerProvider, Stop)>,
    log: LogThread,
}

/// Metrics of one server.
#[derive(Clone, Debug)]
pub struct Meters {
    provider: SdkMeterProvider,
    registry: prometheus::Registry,
    /// Set if they are pushed.
    push: Option<Stop>,
}

// === impl Tracing ===

impl Tracing {
    /// Sets up logs and traces for the whole process; once. Needs a runtime if an OTLP endpoint is set.
    ///
    /// # Errors
    /// A filter or an endpoint that cannot be used.
    pub fn init(config: &Telemetry, replacement: Replacement) -> Result<Self, TelemetryError> {
        let filter = EnvFilter::try_new(&config.log_filter)?;
        // Spans are for traces: see `log_format`. With the hint, lines that are not logged cost nothing.
        let level = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let is_event = move |meta: &Metadata<'_>| !meta.is_span() && *meta.level() <= level && !is_of_ping(meta);
        let events = filter_fn(is_event).with_max_level_hint(level);
        let filter = filter.and(events);
        let (writer, thread) = log_writer::start(std::io::stderr());
        log_writer::count_dropped(&writer);
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        let format = tracing_subscriber::fmt::format().with_ansi(false);
        let log = match config.log_format {
            LogFormat::Json => layer.event_format(JsonLines(format.json().flatten_event(true), replacement)).boxed(),
            LogFormat::Text => layer.event_format(TextLines(format, replacement)).boxed(),
        };
        let provider = match config.otlp_endpoint.as_str() {
            "" => None,
            endpoint => {
                let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
                if let Some(tls) = otlp_tls(config)? {
                    exporter = exporter.with_tls_config(tls);
                }
                let (timeout, stop) = (otlp_timeout(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT), Stop::default());
                let exporter = exporter.with_timeout(timeout + LATER).build()?;
                let provider = SdkTracerProvider::builder()
                    .with_resource(RESOURCE.resource.clone())
                    // Whether a call is traced is decided before it has a span.
                    .with_sampler(Sampler::AlwaysOn)
                    .with_batch_exporter(Bounded::new("traces", exporter, timeout, &stop));
                Some((provider.build(), stop))
            }
        };
        let subscriber = tracing_subscriber::registry().with(log.with_filter(filter));
        // The layer is not an optional one, because an optional layer makes every span, even one that no layer uses.
        let set = match &provider {
            None => subscriber.try_init(),
            Some((provider, _)) => {
                // Within a call that is traced; without one, what happens in a call costs no span.
                let traced = dynamic_filter_fn(|meta, context| {
                    is_ours(meta) && (is_call(meta) || context.lookup_current().is_some())
                });
                let traced = traced
                    .with_max_level_hint(LevelFilter::INFO)
                    .with_callsite_filter(|meta| if is_ours(meta) { Interest::sometimes() } else { Interest::never() });
                let otel = tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer(SCOPE))
                    .with_location(false)
                    .with_threads(false)
                    .with_target(false)
                    .with_tracked_inactivity(false);
                subscriber.with(otel.with_filter(traced)).with(WithinCalls).try_init()
            }
        };
        set.map_err(|_| TelemetryError::SubscriberSet)?;
        Ok(Tracing { traces: provider, log: thread })
    }

    /// The thread that writes the log.
    pub fn log_thread(&self) -> LogThread {
        self.log.clone()
    }

    /// Sends what is left.
    pub fn shutdown(&self) {
        let Some((provider, stop)) = &self.traces else { return };
        stop.begin();
        // The exporter ends before that.
        if let Err(error) = provider.shutdown_with_timeout(FLUSH * 2) {
            tracing::warn!(error.message = %error, "last traces not sent");
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.log.flush();
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
        if let Some(why) = RESOURCE.refused {
            tracing::warn!(error.message = why, "OTEL_RESOURCE_ATTRIBUTES is ignored");
        }
        let mut provider = SdkMeterProvider::builder().with_resource(RESOURCE.resource.clone());
        let is_pushed = !config.otlp_endpoint.is_empty();
        // Each reader keeps numbers of its own, at every call.
        if !is_pushed || !config.prometheus_address.is_empty() {
            let page = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
            provider = provider.with_reader(page);
        }
        let push = is_pushed.then(Stop::default);
        if let Some(stop) = &push {
            let mut exporter = MetricExporter::builder().with_tonic().with_endpoint(&config.otlp_endpoint);
            if let Some(tls) = otlp_tls(config)? {
                exporter = exporter.with_tls_config(tls);
            }
            let timeout = otlp_timeout(OTEL_EXPORTER_OTLP_METRICS_TIMEOUT);
            let exporter = exporter.with_timeout(timeout + LATER).build()?;
            provider = provider.with_periodic_exporter(Bounded::new("metrics", exporter, timeout, stop));
        }
        Ok(Meters { provider: provider.build(), registry, push })
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

    /// Pushes what there is, in the background: an endpoint that takes nothing is reported at the start and not after the
    /// first interval.
    pub(crate) fn push_now(&self) {
        if self.push.is_none() {
            return;
        }
        let provider = self.provider.clone();
        // The exporter logs what went wrong, and the next interval comes anyway.
        let pushing =
            std::thread::Builder::new().name("first-metrics".to_owned()).spawn(move || provider.force_flush());
        if let Err(error) = pushing {
            tracing::warn!(error.message = %error, "first metrics not sent");
        }
    }

    /// Sends what is left.
    pub fn shutdown(&self) {
        if let Some(stop) = &self.push {
            stop.begin();
        }
        // It has no time-out of its own; the exporter has.
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(error.message = %error, "last metrics not sent");
        }
    }

    /// Serves `GET /metrics` until `stop`, one scrape a connection.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut scrapes = tokio::task::JoinSet::new();
        let by_ip = KeyedSemaphores::new(MAX_SCRAPES_PER_IP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = scrapes.join_next() => {}
                accepted = listener.accept(), if scrapes.len() < MAX_SCRAPES => match accepted {
                    Ok((socket, peer)) => {
                        // Closed at once.
                        let Some(permit) = by_ip.try_acquire(network(peer.ip())) else { continue };
                        let meters = self.clone();
                        scrapes.spawn(tokio::time::timeout(SCRAPE_TIMEOUT, async move {
                            let _permit = permit;
                            let service = hyper::service::service_fn(move |request| {
                                let answer = meters.answer(&request);
                                async move { Ok::<_, Infallible>(answer) }
                            });
                            // A scraper that goes away is not an error.
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

/// Returns the time that an export may take, by the variables of OpenTelemetry: that of the signal, or that of all.
#[expect(clippy::disallowed_methods, reason = "variables that have names of their own by a specification")]
fn otlp_timeout(of_signal: &str) -> Duration {
    let millis = |name| std::env::var(name).ok()?.parse().ok().map(Duration::from_millis);
    millis(of_signal).or_else(|| millis(OTEL_EXPORTER_OTLP_TIMEOUT)).unwrap_or(export::TIMEOUT)
}

/// Returns whether it is of this program. Spans and events of libraries and of the exporter's own calls are not traced.
fn is_ours(meta: &Metadata<'_>) -> bool {
    meta.target().starts_with("jackfield") && *meta.level() <= Level::INFO
}

/// Returns whether it is the line that `h2` logs for each acknowledgement that it did not ask for. A client that sends them would fill the log.
fn is_of_ping(meta: &Metadata<'_>) -> bool {
    *meta.level() == Level::WARN && meta.target() == "h2::proto::ping_pong"
}

/// Returns whether it is the span of a call, which needs no parent.
fn is_call(meta: &Metadata<'_>) -> bool {
    meta.is_span() && meta.name() == crate::call::context::CALL_SPAN
}

fn otlp_tls(config: &Telemetry) -> Result<Option<ClientTlsConfig>, TelemetryError> {
    if config.otlp_ca.as_os_str().is_empty() {
        return Ok(None);
    }
    let ca = tls::read_file(&config.otlp_ca).map_err(TelemetryError::Ca)?;
    let ca = tls::certificates_pem(&ca, &config.otlp_ca)
        .map_err(|error| TelemetryError::Ca(std::io::Error::other(error)))?;
    Ok(Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca))))
}
