//! Spans and metrics of calls, and the trace context that goes with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_upstream::client::{Definition, Network};
use jackfield_upstream::clients::{ClientId, Clients, Revision};
use jackfield_upstream::egress::Policy;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use prometheus::Encoder as _;
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::server::{Server, header};
use crate::support::{client, client_id, definition, development, fail, network, post, request};

/// Metrics that are read as a page.
struct Page {
    registry: prometheus::Registry,
    provider: SdkMeterProvider,
}

/// Spans that have ended.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

type Labels = BTreeMap<String, String>;

// === impl Page ===

impl Page {
    fn new() -> Self {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        Page { registry, provider: SdkMeterProvider::builder().with_reader(reader).build() }
    }

    fn network(&self) -> Network {
        let network = development();
        network.metrics.register(&self.provider.meter("test"));
        network
    }

    /// The labels of each series, with the number of calls.
    fn series(&self) -> BTreeMap<Labels, u64> {
        let mut text = Vec::new();
        prometheus::TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("http_client_request_duration_seconds_count{"));
        lines
            .map(|line| {
                let (labels, count) = line.rsplit_once("} ").unwrap();
                let labels = labels.split(',').map(|label| label.split_once('=').unwrap());
                let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
                let labels = labels.filter(|(name, _)| !name.starts_with("otel_scope"));
                (labels.collect(), count.parse().unwrap())
            })
            .collect()
    }
}

// === impl Spans ===

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Spans {
    /// Traces what happens on this thread.
    fn trace(&self) -> tracing::subscriber::DefaultGuard {
        let provider = SdkTracerProvider::builder().with_simple_exporter(self.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
    }

    fn all(&self, name: &str) -> Vec<SpanData> {
        self.0.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

/// The attributes of a span, without those of the place in the code.
fn attributes(span: &SpanData) -> Labels {
    let of_code = |name: &str| name.starts_with("code.") || name.starts_with("thread.") || name == "target";
    let attributes = span.attributes.iter().filter(|attribute| !of_code(attribute.key.as_str()));
    attributes
        .filter(|attribute| !matches!(attribute.key.as_str(), "busy_ns" | "idle_ns"))
        .map(|attribute| (attribute.key.to_string(), attribute.value.to_string()))
        .collect()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A server that answers with the status in the path, and keeps the requests.
async fn statuses() -> (Server, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    let server = Server::plain(move |mut peer| {
        let kept = kept.clone();
        async move {
            while let Some(request) = peer.request().await {
                let path = request.split([' ', '?']).nth(1).unwrap().trim_start_matches('/').to_owned();
                kept.lock().unwrap().push(request);
                if path == "silence" {
                    std::future::pending::<()>().await;
                }
                peer.send(format!("HTTP/1.1 {path} Status\r\ncontent-length: 0\r\n\r\n")).await;
            }
        }
    });
    (server.await, requests)
}

fn of_connector(clients: &Clients, id: ClientId, url: &str) -> Arc<jackfield_upstream::client::Client> {
    let make = || {
        let mut definition = definition(url);
        definition.limits.failures = 1000;
        Ok(definition)
    };
    clients.get_or_insert(id, Revision::of([(id.1, 1)]), make).unwrap()
}

#[tokio::test]
async fn calls_are_counted_by_connector_method_server_and_outcome() {
    let (page, (server, _)) = (Page::new(), statuses().await);
    let (clients, id) = (Clients::new(page.network(), 10, 10), client_id());
    let url = |path: &str| format!("http://localhost:{}/{path}", server.port());
    let client = of_connector(&clients, id, &url(""));
    for _ in 0..2 {
        client.send(request(&url("200?token=canary"))).await.unwrap();
    }
    client.send(post(&url("404"), "canary")).await.unwrap();
    fail(&client, &url("silence")).await;
    fail(&client, "https://10.0.0.1/canary").await;
    let unusual = jackfield_upstream::client::Request { method: "CANARY".parse().unwrap(), ..request(&url("200")) };
    client.send(unusual).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), client.send(request(&url("silence")))).await.is_err());
    let (tenant, connector, port) = (id.0.to_string(), id.1.to_string(), server.port().to_string());
    let of = |method: &str, outcome: &[(&str, &str)]| {
        let mut labels = labels(&[("tenant", &tenant), ("connector", &connector), ("http_request_method", method)]);
        labels.extend(self::labels(outcome));
        labels
    };
    let at_server = |method: &str, outcome: &[(&str, &str)]| {
        let mut labels = of(method, outcome);
        labels.extend(self::labels(&[("server_address", "localhost"), ("server_port", &port)]));
        labels
    };
    let expected = BTreeMap::from([
        (at_server("GET", &[("http_response_status_code", "200")]), 2),
        (at_server("POST", &[("http_response_status_code", "404"), ("error_type", "404")]), 1),
        (at_server("GET", &[("error_type", "READ_TIMEOUT")]), 1),
        (of("GET", &[("error_type", "EGRESS_REFUSED")]), 1),
        (at_server("_OTHER", &[("http_response_status_code", "200")]), 1),
        (at_server("GET", &[("error_type", "CANCELLED")]), 1),
    ]);
    assert_eq!(page.series(), expected);
}

#[tokio::test]
async fn tenants_and_servers_cannot_make_any_number_of_series() {
    let (page, (server, _)) = (Page::new(), statuses().await);
    let clients = Clients::new(page.network(), 1000, 1000);
    let url = |path: &str| format!("http://localhost:{}/{path}", server.port());
    let first = client_id();
    for status in 200..300 {
        of_connector(&clients, first, &url("")).send(request(&url(&status.to_string()))).await.unwrap();
    }
    let series = page.series();
    assert_eq!((series.len(), series.values().sum::<u64>()), (17, 100));
    for _ in 1..120 {
        of_connector(&clients, client_id(), &url("")).send(request(&url("200"))).await.unwrap();
    }
    let series = page.series();
    assert_eq!(series.values().sum::<u64>(), 219);
    let connectors: BTreeSet<_> = series.keys().filter_map(|labels| labels.get("connector")).collect();
    assert_eq!((connectors.len(), series.len()), (100, 17 + 99 + 1));
    // The others have one series, without names.
    let others: Vec<_> = series.iter().filter(|(labels, _)| !labels.contains_key("connector")).collect();
    let expected = labels(&[("http_request_method", "GET"), ("http_response_status_code", "200")]);
    assert_eq!(others, [(&expected, &20)]);
}

#[tokio::test]
async fn calls_of_a_traced_call_are_spans_without_paths_and_queries() {
    let (spans, (server, _)) = (Spans::default(), statuses().await);
    let _guard = spans.trace();
    let url = |path: &str| format!("http://localhost:{}/{path}", server.port());
    let client = client(development(), definition(&url("")));
    let parent = tracing::info_span!("parent");
    async {
        client.send(request(&url("200?token=canary"))).await.unwrap();
        client.send(post(&url("503"), "canary")).await.unwrap();
        fail(&client, "https://[fe80::1]/canary").await;
    }
    .instrument(parent)
    .await;
    let (parent, port) = (spans.all("parent").remove(0), server.port().to_string());
    let [get, refused] = <[SpanData; 2]>::try_from(spans.all("GET")).unwrap();
    let post = spans.all("POST").remove(0);
    for span in [&get, &post, &refused] {
        assert_eq!((&span.span_kind, span.parent_span_id), (&SpanKind::Client, parent.span_context.span_id()));
    }
    let server = [("server.address", "localhost"), ("server.port", &*port), ("url.scheme", "http")];
    let mut expected = labels(&server);
    expected.extend(labels(&[("http.request.method", "GET"), ("http.response.status_code", "200")]));
    assert_eq!((attributes(&get), &get.status), (expected, &Status::Unset));
    let mut expected = labels(&server);
    expected.extend(labels(&[("http.request.method", "POST"), ("http.response.status_code", "503")]));
    expected.extend(labels(&[("error.type", "503")]));
    assert_eq!((attributes(&post), &post.status), (expected, &Status::error("")));
    let expected = labels(&[("http.request.method", "GET"), ("error.type", "EGRESS_REFUSED")]);
    assert_eq!(attributes(&refused), expected);
    assert!(matches!(&refused.status, Status::Error { description } if description.contains("link_local")));
    assert_eq!(spans.all("open a connection").len(), 1, "the second call finds a connection");
    assert!(!format!("{:?}", spans.0.lock().unwrap()).contains("canary"));
}

#[tokio::test]
async fn the_trace_goes_to_the_origins_of_definitions_that_say_so() {
    let (spans, (server, requests)) = (Spans::default(), statuses().await);
    let (other, _) = statuses().await;
    let own = format!("http://localhost:{}/200", server.port());
    let silent = client(development(), definition(&own));
    let talking = client(development(), Definition { propagate_trace_context: true, ..definition(&own) });
    let elsewhere = format!("http://localhost:{}/200", other.port());
    let elsewhere = client(development(), Definition { propagate_trace_context: true, ..definition(&elsewhere) });
    talking.send(request(&own)).await.unwrap();
    {
        let _guard = spans.trace();
        async {
            for client in [&silent, &elsewhere, &talking] {
                client.send(request(&own)).await.unwrap();
            }
        }
        .instrument(tracing::info_span!("parent"))
        .await;
    }
    let requests = requests.lock().unwrap();
    let traces: Vec<_> = requests.iter().map(|request| header(request, "traceparent")).collect();
    let call = spans.all("GET").remove(2).span_context;
    let expected = format!("00-{}-{}-01", call.trace_id(), call.span_id());
    assert_eq!(traces, [None, None, None, Some(&*expected)], "calls that are not traced have no trace");
    assert!(requests.iter().all(|request| header(request, "tracestate").is_none()), "it has no state");
}

#[tokio::test]
async fn a_refusal_in_the_policy_of_addresses_is_one_of_the_call() {
    let spans = Spans::default();
    let _guard = spans.trace();
    let answers = crate::support::Answers::of(&["10.0.0.1"]);
    let client = client(network(Policy::default(), answers), definition("https://login.example/"));
    fail(&client, "https://login.example/").await;
    let call = spans.all("GET").remove(0);
    assert_eq!(attributes(&call)["server.address"], "login.example");
    assert_eq!(attributes(&call)["error.type"], "EGRESS_REFUSED");
}
