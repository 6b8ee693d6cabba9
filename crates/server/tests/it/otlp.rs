//! What is sent to a collector.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jackfield_api::v1;
use tonic::Code;

use crate::process::Process;
use crate::raw::{Raw, framed};
use crate::support::{PATIENCE, spawn};

/// Path and body of each export.
type Exports = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that takes everything.
async fn collector() -> (std::net::SocketAddr, Exports) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let exports = Exports::default();
    let taken = exports.clone();
    spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let taken = taken.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let taken = taken.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                    taken.lock().unwrap().push((path, body));
                    let answer = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0")
                        .body(Full::<bytes::Bytes>::default());
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    (address, exports)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn spans_continue_the_callers_trace_and_metrics_are_pushed() {
    let (collector, exports) = collector().await;
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("telemetry.otlp_endpoint=http://{collector}");
    let path = directory.path().to_owned();
    let start = move || Process::start(&path, &[&endpoint, "listen.plaintext=true"]);
    let server = tokio::task::spawn_blocking(start).await.unwrap();

    let mut client = Raw::connect(server.address.parse().unwrap()).await;
    let trace_id = [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let check = framed(&tonic_health::pb::HealthCheckRequest::default());
    let answer = client.post("/grpc.health.v1.Health/Check", &[("traceparent", parent)], check).await;
    assert_eq!(answer.status.unwrap().code(), tonic::Code::Ok);
    // What is left is sent when the server stops.
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await.unwrap().unwrap();

    let exports = exports.lock().unwrap();
    let of = |service: &str| -> Vec<u8> {
        exports.iter().filter(|(path, _)| path.contains(service)).flat_map(|(_, body)| body.clone()).collect()
    };
    let spans = of("TraceService/Export");
    for part in [&trace_id[..], b"grpc.health.v1.Health/Check", b"rpc.system.name", b"rpc.response.status_code"] {
        assert!(contains(&spans, part), "no {part:?} in {:?}", String::from_utf8_lossy(&spans));
    }
    assert!(contains(&of("MetricsService/Export"), b"rpc.server.call.duration"));
}

/// A caller's own trace decides; of the other calls a share is traced.
#[tokio::test]
async fn what_is_traced_the_caller_says_or_else_the_configuration() {
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    const UNREADABLE: &str = "00-4bf92f35";
    for (ratio, traced) in [(0, [false, true, false, false]), (1, [true, true, false, true])] {
        for (traceparent, traced) in ["", SAMPLED, NOT_SAMPLED, UNREADABLE].into_iter().zip(traced) {
            let (collector, exports) = collector().await;
            let directory = tempfile::tempdir().unwrap();
            let endpoint = format!("telemetry.otlp_endpoint=http://{collector}");
            let (path, ratio) = (directory.path().to_owned(), format!("telemetry.trace_ratio={ratio}"));
            let start = move || Process::start(&path, &[&endpoint, &ratio, "listen.plaintext=true"]);
            let server = tokio::task::spawn_blocking(start).await.unwrap();
            let mut client = Raw::connect(server.address.parse().unwrap()).await;
            let headers = [("traceparent", traceparent)];
            let headers = if traceparent.is_empty() { &headers[..0] } else { &headers[..] };
            let check = framed(&tonic_health::pb::HealthCheckRequest::default());
            client.post("/grpc.health.v1.Health/Check", headers, check).await.status.unwrap();
            tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || server.stop())).await.unwrap().unwrap();
            let exports = exports.lock().unwrap();
            let found = exports.iter().any(|(path, body)| {
                path.contains("TraceService/Export") && contains(body, b"grpc.health.v1.Health/Check")
            });
            assert_eq!(found, traced, "{traceparent:?}");
        }
    }
}

/// The whole process at its most talkative: log, spans and metrics as they leave it.
#[tokio::test]
async fn no_secret_leaves_in_logs_spans_or_metrics() {
    let (collector, exports) = collector().await;
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("telemetry.otlp_endpoint=http://{collector}");
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
            http_authentication_username: "user".to_owned(),
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
        external_id: "e".to_owned(),
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

    let exports = exports.lock().unwrap();
    let sent: Vec<u8> = exports.iter().flat_map(|(_, body)| body.clone()).collect();
    for (place, bytes) in [("the log", log.as_bytes()), ("an export", &sent)] {
        assert!(contains(bytes, b"CredentialsService/RevealCredential"), "nothing to search in {place}");
        // The text itself, and the first two thirds of its base64 at each offset.
        for trace in ["canary-", "Y2FuYXJ5", "NhbmFyeS", "jYW5hcnkt"] {
            assert!(!contains(bytes, trace.as_bytes()), "{trace} stands in {place}");
        }
    }
    assert!(log.contains("\"level\":\"TRACE\""), "the log is not at its most talkative");
}
