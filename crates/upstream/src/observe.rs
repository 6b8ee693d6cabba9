//! Spans and metrics of calls, with the names of OpenTelemetry's conventions for HTTP clients. They have neither the path nor
//! the query of a URL, no header and no body, because these may have secrets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jackfield_domain::TenantId;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};
use opentelemetry::propagation::{Injector, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::time::Instant;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use url::Host;
use uuid::Uuid;

use crate::egress::Target;
use crate::error::Fault;

/// The instruments of calls; clones share them. Nothing is recorded until they are registered.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Instruments>);

#[derive(Default)]
struct Instruments {
    duration: OnceLock<Histogram<f64>>,
    /// The connectors that have series of their own.
    connectors: Mutex<HashMap<(TenantId, Uuid), Arc<Series>>>,
    /// For all other connectors.
    others: Arc<Series>,
}

/// The time series of one connector.
#[derive(Default)]
struct Series {
    /// Empty for those of other connectors, which do not have the names of hosts either.
    labels: Vec<KeyValue>,
    known: Mutex<Vec<(Key, Arc<[KeyValue]>)>>,
}

/// Everything that decides the attributes of a call.
#[derive(PartialEq, Eq)]
struct Key {
    method: &'static str,
    /// Host and port.
    server: Option<(Host<String>, u16)>,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    Fault(&'static str),
}

/// The spans and metrics of one client.
pub(crate) struct Observer {
    metrics: Metrics,
    connector: Option<Uuid>,
    source: Option<Uuid>,
    series: Arc<Series>,
}

/// A call under way.
pub(crate) struct ObservedCall<'a> {
    observer: &'a Observer,
    method: &'static str,
    target: Option<&'a Target>,
    start: Instant,
    span: Span,
    is_ended: bool,
}

/// Adds the trace to the headers of a request.
struct TraceHeaders<'a>(&'a mut HeaderMap);

/// Boundaries of `http.client.request.duration` in seconds, by the conventions.
const DURATION_BOUNDARIES: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// The connectors that have series of their own, in the order of their first calls.
const MAX_CONNECTORS: usize = 100;
/// The most series of one connector. Status codes are chosen by the system that is called, and hosts by a tenant. With
/// [`MAX_CONNECTORS`] they stay below the 2,000 series that an instrument of the SDK keeps.
const MAX_SERIES: usize = 16;
/// The conventions have this in place of values that would be too many.
const OTHER: &str = "_OTHER";
/// The error of a call whose caller has left.
const CANCELLED: &str = "CANCELLED";
static METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

// === impl Metrics ===

impl Metrics {
    /// Makes the instruments. Those of a second meter are not used.
    pub fn register(&self, meter: &Meter) {
        let duration = meter
            .f64_histogram("http.client.request.duration")
            .with_description("Duration of calls to other systems")
            .with_unit("s")
            .with_boundaries(DURATION_BOUNDARIES.to_vec())
            .build();
        let _ = self.0.duration.set(duration);
    }

    /// Observes the client of a connector, or one that is of none.
    pub(crate) fn observer(&self, connector: Option<(TenantId, Uuid)>) -> Observer {
        let series = connector.map_or_else(|| self.0.others.clone(), |connector| self.series(connector));
        Observer { metrics: self.clone(), connector: connector.map(|(_, id)| id), source: None, series }
    }

    /// Observes the client of a credential source. It takes no place of a connector: each time that a source is set it is another one, and
    /// series that were recorded stay until the process ends.
    pub(crate) fn observer_of_source(&self, source: Uuid) -> Observer {
        Observer { source: Some(source), ..self.observer(None) }
    }

    fn series(&self, connector: (TenantId, Uuid)) -> Arc<Series> {
        let mut connectors = lock(&self.0.connectors);
        match connectors.get(&connector) {
            Some(series) => series.clone(),
            None if connectors.len() >= MAX_CONNECTORS => self.0.others.clone(),
            None => {
                let (tenant, id) = connector;
                let labels =
                    vec![KeyValue::new("tenant", tenant.to_string()), KeyValue::new("connector", id.to_string())];
                let series = Series { labels, ..Series::default() };
                connectors.entry(connector).or_insert(Arc::new(series)).clone()
            }
        }
    }
}

// === impl Series ===

impl Series {
    /// The attributes of a call. Those of outcomes that come too late to have a series are the outcome of all others.
    fn attributes(&self, method: &'static str, target: Option<&Target>, outcome: Outcome) -> Arc<[KeyValue]> {
        let target = target.filter(|_| !self.labels.is_empty());
        let server = target.map(|target| (target.host(), target.port()));
        let is_it = |key: &Key| {
            let known = key.server.as_ref().map(|(host, port)| (host, *port));
            (key.method, known, key.outcome) == (method, server, outcome)
        };
        let mut known = lock(&self.known);
        if let Some((_, attributes)) = known.iter().find(|(known, _)| is_it(known)) {
            return attributes.clone();
        }
        let key = Key { method, server: server.map(|(host, port)| (host.clone(), port)), outcome };
        let key = if known.len() < MAX_SERIES {
            key
        } else {
            // One more series than the limit, once.
            let other = Key { method: OTHER, server: None, outcome: Outcome::Fault(OTHER) };
            match known.iter().find(|(known, _)| *known == other) {
                Some((_, attributes)) => return attributes.clone(),
                None => other,
            }
        };
        let attributes: Arc<[KeyValue]> = self.labels.iter().cloned().chain(key.attributes()).collect();
        known.push((key, attributes.clone()));
        attributes
    }
}

// === impl Key ===

impl Key {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![KeyValue::new("http.request.method", self.method)];
        if let Some((host, port)) = &self.server {
            attributes.push(KeyValue::new("server.address", text_of(host)));
            attributes.push(KeyValue::new("server.port", i64::from(*port)));
        }
        if let Outcome::Status(status) = self.outcome {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        if let Some(error) = self.outcome.error() {
            attributes.push(KeyValue::new("error.type", error));
        }
        attributes
    }
}

// === impl Outcome ===

impl Outcome {
    /// The error type: the name of a fault, or the number of a status that is an error.
    fn error(self) -> Option<String> {
        match self {
            Outcome::Status(status) => (status >= 400).then(|| status.to_string()),
            Outcome::Fault(reason) => Some(reason.to_owned()),
        }
    }
}

// === impl Observer ===

impl Observer {
    /// Begins a call. There is no target if the URL is refused.
    pub(crate) fn begin<'a>(&'a self, method: &Method, target: Option<&'a Target>) -> ObservedCall<'a> {
        let known = METHODS.iter().find(|known| *known == method).map(Method::as_str);
        let name = known.unwrap_or(OTHER);
        let span = tracing::info_span!(
            "call another system",
            otel.name = known.unwrap_or("HTTP"),
            otel.kind = "client",
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
            http.request.method = name,
            http.response.status_code = field::Empty,
            url.scheme = target.map(|target| if target.is_https() { "https" } else { "http" }),
            server.address = target.map(|target| text_of(target.host())),
            server.port = target.map(Target::port),
            error.r#type = field::Empty,
            jackfield.connector = self.connector.map(field::display),
            jackfield.credential_source = self.source.map(field::display),
        );
        ObservedCall { observer: self, method: name, target, start: Instant::now(), span, is_ended: false }
    }
}

// === impl ObservedCall ===

impl ObservedCall<'_> {
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Ends the call with its status or its fault.
    pub(crate) fn end(mut self, outcome: Result<StatusCode, &Fault>) {
        self.record(match outcome {
            Ok(status) => Outcome::Status(status.as_u16()),
            Err(fault) => Outcome::Fault(fault.reason()),
        });
        if let Err(fault) = outcome {
            // After the status code, which would replace it.
            self.span.record("otel.status_description", field::display(fault));
        }
        self.is_ended = true;
    }

    fn record(&self, outcome: Outcome) {
        let Observer { metrics, series, .. } = self.observer;
        let attributes = series.attributes(self.method, self.target, outcome);
        if let Some(duration) = metrics.0.duration.get() {
            duration.record(self.start.elapsed().as_secs_f64(), &attributes);
        }
        if let Outcome::Status(status) = outcome {
            self.span.record("http.response.status_code", status);
        }
        if let Some(error) = outcome.error() {
            self.span.record("error.type", error);
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for ObservedCall<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.record(Outcome::Fault(CANCELLED));
        }
    }
}

// === impl TraceHeaders ===

impl Injector for TraceHeaders<'_> {
    fn set(&mut self, key: &str, value: String) {
        let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else { return };
        match HeaderValue::from_str(&value) {
            Ok(value) if !value.is_empty() => self.0.insert(name, value),
            _ => self.0.remove(name),
        };
    }
}

/// Adds the current span to the headers of a request, as its parent (W3C Trace Context). A call that is not traced adds
/// nothing.
pub(crate) fn propagate(headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut TraceHeaders(headers));
}

/// A host as text. An address has no brackets here.
fn text_of(host: &Host<String>) -> String {
    match host {
        Host::Domain(name) => name.clone(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
