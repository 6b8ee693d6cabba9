//! Telemetry sent to a collector.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jackfield_api::v1;
use jackfield_testkit::Collector;
use jackfield_testkit::canary::contains;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tonic::Code;

use crate::process::Process;
use crate::raw::{Raw, framed};
use crate::support::{PATIENCE, eventually, spawn};

/// Starts a server that exports to this collector.
async fn start(
    endpoint: &str,
    settings: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
) -> (tempfile::TempDir, Process) {
    let directory = tempfile::tempdir().unwrap();
    let (path, endpoint) = (directory.path().to_owned(), format!("telemetry.otlp_endpoint={endpoint}"));
    let start = move || {
        let plain = [endpoint.as_str(), "listen.plaintext=true", "listen.plaintext_principal=operator"];
        Process::start_in(&path, &[&plain[..], settings].concat(), variables)
    };
    (directory, tokio::task::spawn_blocking(start).await.unwrap())
}

/// Stops a server, which flushes its telemetry, and returns its log.
async fn stop(server: Process) -> String {
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await.unwrap().unwrap()
}

/// The exported spans with their resources.
fn spans(collector: &Collector) -> Vec<(Resource, Span)> {
    let requests = collector.messages("TraceService").into_iter();
    let requests = requests.map(|request| ExportTraceServiceRequest::decode(&*request).unwrap());
    let of_resource = requests.flat_map(|request| request.resource_spans);
    of_resource
        .flat_map(|spans| {
            let resource = spans.resource.unwrap();
            spans.scope_spans.into_iter().flat_map(|scope| scope.spans).map(move |span| (resource.clone(), span))
        })
        .collect()
}

/// The attributes as text, by name.
fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &any_value::Value| match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::ArrayValue(array) => {
            format!("{:?}", array.values.iter().map(|value| value.value.as_ref().unwrap()).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    let value = |attribute: &KeyValue| text(attribute.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes.iter().map(|attribute| (attribute.key.as_str(), value(attribute))).collect()
}

#[tokio::test]
async fn spans_continue_the_callers_trace_and_metrics_are_pushed() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("telemetry.otlp_endpoint={}", collector.endpoint());
    let path = directory.path().to_owned();
    let start = move || Process::start(&path, &[&endpoint, "listen.plaintext=true"]);
    let server = tokio::task::spawn_blocking(start).await.unwrap();

    let mut client = Raw::connect(server.address.parse().unwrap()).await;
    let trace_id = [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let check = framed(&tonic_health::pb::HealthCheckRequest::default());
    let answer = client.post("/grpc.health.v1.Health/Check", &[("traceparent", parent)], check).await;
    assert_eq!(answer.status.unwrap().code(), tonic::Code::Ok);
    // The rest is sent when the server stops.
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await.unwrap().unwrap();

    let exports = collector.exports();
    let of = |service: &str| -> Vec<u8> {
        exports.iter().filter(|(path, _)| path.contains(service)).flat_map(|(_, body)| body.clone()).collect()
    };
    let spans = of("TraceService/Export");
    for part in [&trace_id[..], b"grpc.health.v1.Health/Check", b"rpc.system.name", b"rpc.response.status_code"] {
        assert!(contains(&spans, part), "no {part:?} in {:?}", String::from_utf8_lossy(&spans));
    }
    assert!(contains(&of("MetricsService/Export"), b"rpc.server.call.duration"));
}

/// The caller's trace context decides; a share of the other calls is traced.
#[tokio::test]
async fn the_caller_or_else_the_configuration_decides_on_tracing() {
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    const UNREADABLE: &str = "00-4bf92f35";
    for (ratio, traced) in [(0, [false, true, false, false]), (1, [true, true, false, true])] {
        for (traceparent, traced) in ["", SAMPLED, NOT_SAMPLED, UNREADABLE].into_iter().zip(traced) {
            let collector = Collector::start().await;
            let directory = tempfile::tempdir().unwrap();
            let endpoint = format!("telemetry.otlp_endpoint={}", collector.endpoint());
            let (path, ratio) = (directory.path().to_owned(), format!("telemetry.trace_ratio={ratio}"));
            let start = move || Process::start(&path, &[&endpoint, &ratio, "listen.plaintext=true"]);
            let server = tokio::task::spawn_blocking(start).await.unwrap();
            let mut client = Raw::connect(server.address.parse().unwrap()).await;
            let headers = [("traceparent", traceparent)];
            let headers = if traceparent.is_empty() { &headers[..0] } else { &headers[..] };
            let check = framed(&tonic_health::pb::HealthCheckRequest::default());
            client.post("/grpc.health.v1.Health/Check", headers, check).await.status.unwrap();
            tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await.unwrap().unwrap();
            let exports = collector.exports();
            let found = exports.iter().any(|(path, body)| {
                path.contains("TraceService/Export") && contains(body, b"grpc.health.v1.Health/Check")
            });
            assert_eq!(found, traced, "{traceparent:?}");
        }
    }
}

/// Searches everything that leaves the process at its most verbose: log, spans and metrics.
#[tokio::test]
async fn no_secret_leaves_in_logs_spans_or_metrics() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("telemetry.otlp_endpoint={}", collector.endpoint());
    let path = directory.path().to_owned();
    let start = move || {
        let talk = ["telemetry.log_filter=trace", "telemetry.trace_ratio=1", "reveal.enabled=true"];
        let plain = ["listen.plaintext=true", "listen.plaintext_principal=operator"];
        Process::start(&path, &[&[endpoint.as_str()], &talk[..], &plain].concat())
    };
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let mut client = Raw::connect(server.address.parse().unwrap()).await;

    let connector = |name: &str| {
        let generic = v1::GenericConnector {
            authentication_url: "http://localhost:3000/login".to_owned(),
            http_authentication_username: Some("user".to_owned()),
            http_authentication_password: "canary-password".to_owned(),
            ..Default::default()
        };
        let connector = v1::Connector {
            name: name.to_owned(),
            kind: Some(v1::connector::Kind::Generic(generic)),
            secret_headers: [("x-secret".to_owned(), "canary-header".to_owned())].into(),
            ..Default::default()
        };
        framed(&v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() })
    };
    let link =
        v1::AddUserConnectorRequest { user_id: "u".to_owned(), connector: "name:c".to_owned(), ..Default::default() };
    let material = v1::ApiKeyMaterial { api_key: "canary-api-key".to_owned() };
    let credential = v1::Credential {
        external_id: Some("e".to_owned()),
        user_id: "u".to_owned(),
        connector: "name:c".to_owned(),
        ..Default::default()
    };
    let credential = framed(&v1::CreateCredentialRequest {
        credential: Some(credential),
        material: Some(v1::CredentialMaterial { material: Some(v1::credential_material::Material::ApiKey(material)) }),
        ..Default::default()
    });
    let reference = "ext:e".to_owned();
    let issue = framed(&v1::IssueAccessTokenRequest { reference: reference.clone(), ..Default::default() });
    let reveal = framed(&v1::RevealCredentialRequest { reference, purpose: "to find it nowhere".to_owned() });
    let mut damaged = credential.clone();
    *damaged.last_mut().unwrap() = 0xff;

    let mut handed_out = 0;
    for (method, request, code) in [
        ("ConnectorService/CreateConnector", connector("c"), Code::Ok),
        ("ConnectorService/CreateConnector", connector("c"), Code::AlreadyExists),
        ("ConnectorService/CreateConnector", connector(" "), Code::InvalidArgument),
        ("UserConnectorService/AddUserConnector", framed(&link), Code::Ok),
        ("CredentialsService/CreateCredential", credential.clone(), Code::Ok),
        ("CredentialsService/CreateCredential", credential, Code::AlreadyExists),
        ("CredentialsService/CreateCredential", damaged, Code::InvalidArgument),
        ("CredentialsService/IssueAccessToken", issue, Code::Ok),
        ("CredentialsService/RevealCredential", reveal, Code::Ok),
    ] {
        let answer = client.post(&format!("/jackfield.v1.{method}"), &[], request).await;
        assert_eq!(answer.status.unwrap().code(), code, "{method}");
        handed_out += usize::from(contains(&answer.body, b"canary-api-key"));
    }
    assert_eq!(handed_out, 2, "issued and revealed");
    let stopped = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await;
    let log = stopped.unwrap().unwrap();

    let sent = collector.bytes();
    for (place, bytes) in [("the log", log.as_bytes()), ("an export", &sent)] {
        assert!(contains(bytes, b"CredentialsService/RevealCredential"), "there is nothing to search in {place}");
        // The text itself, and the beginning of its base64 at each offset.
        for trace in ["canary-", "Y2FuYXJ5", "NhbmFyeS", "jYW5hcnkt"] {
            assert!(!contains(bytes, trace.as_bytes()), "{trace} is in {place}");
        }
    }
    assert!(log.contains("\"level\":\"TRACE\""), "the log is not at its most verbose");
}

const TRACED: (&str, &str) = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

/// Names and values follow the semantic conventions, our own names have a namespace, and there is nothing else.
#[tokio::test]
async fn a_call_is_a_span_with_these_attributes() {
    let collector = Collector::start().await;
    let (_directory, server) = start(&collector.endpoint(), &["telemetry.log_filter=debug"], &[]).await;
    let address: std::net::SocketAddr = server.address.parse().unwrap();
    let mut client = Raw::connect(address).await;
    let get = framed(&v1::GetConnectorRequest { reference: "name:none".to_owned() });
    let path = "/jackfield.v1.ConnectorService/GetConnector";
    let headers = [TRACED, ("x-request-id", "from-the-proxy/1")];
    assert_eq!(client.post(path, &headers, get).await.status.unwrap().code(), Code::NotFound);
    let log = stop(server).await;

    let spans = spans(&collector);
    let [(_, span)] = &spans.iter().filter(|(_, span)| span.kind == 2).collect::<Vec<_>>()[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(span.name, "jackfield.v1.ConnectorService/GetConnector");
    let mut attributes = texts(&span.attributes);
    let request_id = attributes.remove("jackfield.request.id").unwrap();
    assert_ne!(attributes.remove("client.port").unwrap().parse::<u16>().unwrap(), 0);
    let port = address.port().to_string();
    let expected = [
        ("client.address", "127.0.0.1"),
        ("jackfield.principal", "operator"),
        ("network.transport", "tcp"),
        ("rpc.method", "jackfield.v1.ConnectorService/GetConnector"),
        ("rpc.request.metadata.x-request-id", "[StringValue(\"from-the-proxy/1\")]"),
        ("rpc.response.status_code", "NOT_FOUND"),
        ("rpc.system.name", "grpc"),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
    ];
    assert_eq!(attributes, expected.map(|(name, value)| (name, value.to_owned())).into());

    let line = log.lines().find(|line| line.contains("\"call ended\"")).expect("its line");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["span_id"], span.span_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(line["span"]["jackfield.request.id"], request_id);
    assert_eq!(line["span"]["rpc.request.metadata.x-request-id"], "from-the-proxy/1");
    assert_eq!(line["span"]["client.address"], "127.0.0.1");
}

/// Replicas are distinguishable, and the variables of OpenTelemetry can name them.
#[tokio::test]
async fn a_process_identifies_itself() {
    const OTHER: &[(&str, &str)] = &[
        ("OTEL_SERVICE_NAME", "vault-of-tokens"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=passed-over,service.namespace=billing,service.instance.id=pod-1"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=1"),
    ];
    let mut resources = Vec::new();
    for variables in [&[], &[], OTHER] {
        let collector = Collector::start().await;
        let (_directory, server) = start(&collector.endpoint(), &["telemetry.trace_ratio=1"], variables).await;
        let mut client = Raw::connect(server.address.parse().unwrap()).await;
        let check = framed(&tonic_health::pb::HealthCheckRequest::default());
        client.post("/grpc.health.v1.Health/Check", &[], check).await.status.unwrap();
        stop(server).await;
        let spans = spans(&collector);
        let (resource, _) = spans.first().expect("a span");
        resources.push(texts(&resource.attributes).into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    }
    let [first, second, named]: [BTreeMap<String, String>; 3] = resources.try_into().unwrap();
    for of in [&first, &second] {
        assert_eq!(of["service.name"], "jackfield");
        assert_eq!(of["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(uuid::Uuid::parse_str(&of["service.instance.id"]).unwrap().get_version_num(), 4);
        assert_eq!(of.get("service.namespace"), None);
    }
    assert_ne!(first["service.instance.id"], second["service.instance.id"]);
    assert_eq!(named["service.name"], "vault-of-tokens");
    assert_eq!(named["service.namespace"], "billing");
    assert_eq!(named["service.instance.id"], "pod-1");
}

#[tokio::test]
async fn exports_are_compressed_if_the_variable_says_so() {
    let collector = Collector::start().await;
    let (_directory, server) = start(&collector.endpoint(), &[], &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).await;
    stop(server).await;
    let exports = collector.exports();
    assert!(!exports.is_empty());
    for (path, body) in exports.iter() {
        assert_eq!((body[0], &body[5..7]), (1, &[0x1f, 0x8b][..]), "{path}");
    }
}

/// The failure is logged at once, and the shutdown does not wait for the collector. The best of three tries counts.
#[tokio::test]
async fn a_silent_collector_is_logged_and_does_not_delay_the_shutdown() {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        spawn(async move {
            let mut taken = Vec::new();
            loop {
                taken.push(silent.accept().await);
            }
        });
        let (_directory, server) = start(&format!("http://{address}"), &["telemetry.trace_ratio=1"], &[]).await;
        let mut client = Raw::connect(server.address.parse().unwrap()).await;
        let check = framed(&tonic_health::pb::HealthCheckRequest::default());
        client.post("/grpc.health.v1.Health/Check", &[], check).await.status.unwrap();
        for signal in ["metrics", "traces"] {
            let line = |log: &str| {
                log.lines()
                    .find(|line| line.contains("telemetry is not exported") && line.contains(signal))
                    .map(str::to_owned)
            };
            eventually("it is logged", async || line(&server.log()).is_some()).await;
            let line: serde_json::Value = serde_json::from_str(&line(&server.log()).unwrap()).unwrap();
            assert_eq!((&line["level"], &line["signal"]), (&"WARN".into(), &signal.into()), "{line}");
            assert_eq!(line["error.message"], "no answer within 3s", "{line}");
        }
        let begun = Instant::now();
        let log = stop(server).await;
        best = best.min(begun.elapsed());
        assert_eq!(log.matches("telemetry is not exported").count(), 2, "each is logged once: {log}");
        if best < Duration::from_secs(4) {
            return;
        }
    }
    panic!("the shutdown took {best:?}");
}
