use std::time::Duration;

use jackfield_transport::health::Readiness;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use x509_parser::prelude::FromDer as _;

use crate::pki::{Leaf, Pki};
use crate::raw::{Raw, framed};
use crate::support::{TestServer, eventually, message, unary};

pub(crate) async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_page_shows_calls_by_method_and_status_but_no_invented_methods() {
    let server = TestServer::start(|config| config.telemetry.prometheus_address = "127.0.0.1:0".into()).await;
    let channel = server.channel().await;
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    unary(&channel, "Fail", Duration::ZERO).await.unwrap_err();
    unary(&channel, "Canary", Duration::ZERO).await.unwrap_err();
    let address = server.metrics_address.unwrap();
    let mut page = String::new();
    eventually("all calls are counted", async || {
        page = get(address, "/metrics").await;
        page.contains("_OTHER")
    })
    .await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let counted = |parts: &[&str]| {
        page.lines()
            .filter(|line| line.starts_with("rpc_server_call_duration_seconds_count"))
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(counted(&["rpc_method=\"test.v1.Test/Whoami\"", "rpc_response_status_code=\"OK\""]), "{page}");
    assert!(counted(&["Test/Fail", "rpc_response_status_code=\"INTERNAL\"", "error_type=\"INTERNAL\""]), "{page}");
    assert!(counted(&["rpc_method=\"_OTHER\"", "rpc_response_status_code=\"UNIMPLEMENTED\""]), "{page}");
    for bound in ["0.00005", "0.0001", "0.001", "0.25", "10", "+Inf"] {
        assert!(page.contains(&format!("le=\"{bound}\"")), "a bucket ends at {bound}: {page}");
    }
    assert!(!page.contains("Canary"), "{page}");
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
}

/// Alerts count only codes for which the server is at fault.
#[tokio::test]
async fn mistakes_of_clients_count_under_client_error_codes() {
    let server = TestServer::start(|config| {
        config.listen.plaintext = true;
        config.listen.plaintext_principal = "caller".into();
    })
    .await;
    let mut raw = Raw::connect(server.address).await;
    let whoami = "/test.v1.Test/Whoami";
    for (method, content_type) in [("GET", "application/grpc"), ("POST", "application/json"), ("OPTIONS", "text/plain")]
    {
        let request = http::Request::builder().method(method).uri(format!("http://localhost{whoami}"));
        let request = request.header("content-type", content_type).body(http_body_util::Full::default()).unwrap();
        assert!(raw.send(request).await.http_status > 400, "{method} {content_type}");
    }
    let compressed = [&[1_u8, 0, 0, 0, 1], &[0_u8][..]].concat();
    for (headers, body, code) in [
        ([("grpc-encoding", "zstd")], compressed, Code::Unimplemented),
        ([("x-nothing", "0")], vec![9, 9], Code::InvalidArgument),
    ] {
        assert_eq!(raw.post(whoami, &headers, body).await.status.unwrap().code(), code);
    }
    let (sleep, long) = ("/test.v1.Test/Sleep", framed(&message(Duration::from_secs(3_600))));
    let late = raw.post(sleep, &[("grpc-timeout", "1m")], long).await.status.unwrap();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let ended = |code: &str| {
        let status = format!("rpc_method=\"test.v1.Test/Whoami\",rpc_response_status_code=\"{code}\"");
        server.metric("rpc_server_call_duration_seconds_count", &status)
    };
    eventually("all are counted", async || ended("INVALID_ARGUMENT") == Some(4.0)).await;
    let page = server.meters.page().unwrap();
    for code in ["UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"] {
        assert!(!page.contains(&format!("rpc_response_status_code=\"{code}\"")), "{code}: {page}");
    }
}

#[tokio::test]
async fn counters_begin_at_zero_and_errors_are_counted_by_reason() {
    let server = TestServer::start(|_| {}).await;
    for (name, attribute) in [
        ("jackfield_server_calls_shed_total", "cause=\"share\""),
        ("jackfield_server_calls_shed_total", "cause=\"full\""),
        ("jackfield_server_streams_stalled_total", ""),
        ("jackfield_server_accept_errors_total", ""),
        ("jackfield_server_connections_refused_total", "cap=\"total\""),
        ("jackfield_server_connections_ended_total", "cause=\"stalled\""),
        ("jackfield_server_handshakes_failed_total", "cause=\"bad_certificate\""),
        ("jackfield_server_tls_reloads_total", "result=\"kept_previous\""),
        ("jackfield_server_errors_total", "reason=\"DECRYPT_FAILED\""),
        ("jackfield_server_errors_total", "reason=\"INTERNAL\""),
    ] {
        assert_eq!(server.metric(name, attribute), Some(0.0), "{name} {attribute}");
    }
    let channel = server.channel().await;
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    unary(&channel, "Fail", Duration::ZERO).await.unwrap_err();
    unary(&channel, "Canary", Duration::ZERO).await.unwrap_err();
    eventually("both errors are counted, each by its reason", async || {
        let count = |reason| server.metric("jackfield_server_errors_total", reason);
        count("reason=\"INTERNAL\"") == Some(1.0) && count("reason=\"METHOD_UNKNOWN\"") == Some(1.0)
    })
    .await;
    let page = server.meters.page().unwrap();
    let lines = page.lines().filter(|line| line.starts_with("jackfield_server_errors_total{"));
    let all: f64 = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert_eq!(all, 2.0, "nothing else is an error: {page}");
}

#[tokio::test]
async fn the_page_shows_readiness_and_the_process() {
    let server = TestServer::start(|_| {}).await;
    let shown = |name| server.metric(name, "");
    eventually("ready", async || shown("jackfield_server_ready") == Some(1.0)).await;
    server.ready.send_replace(Readiness::NotReady);
    eventually("not ready", async || shown("jackfield_server_ready") == Some(0.0)).await;
    for name in [
        "process_memory_usage_bytes",
        "process_cpu_time_seconds_total",
        "process_unix_file_descriptor_count",
        "process_uptime_seconds",
    ] {
        assert!(shown(name).is_some_and(|value| value > 0.0), "{name}: {:?}", shown(name));
    }
}

#[tokio::test]
async fn the_page_shows_when_certificates_expire_even_after_a_reload() {
    let pki = Pki::new();
    pki.write_crl(&[]);
    let crl = pki.path("crl.pem");
    let server = TestServer::start_with(pki, |config| config.tls.client_crl = crl).await;
    let not_after = |name: &str| {
        let certificate = CertificateDer::from_pem_slice(&server.pki.read(name)).unwrap();
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&certificate).unwrap();
        certificate.validity().not_after.timestamp() as f64
    };
    let crl = CertificateRevocationListDer::from_pem_slice(&server.pki.read("crl.pem")).unwrap();
    let (_, crl) = x509_parser::revocation_list::CertificateRevocationList::from_der(&crl).unwrap();
    let shown = |file: &str| server.metric("jackfield_server_tls_valid_until_seconds", &format!("file=\"{file}\""));
    assert_eq!(shown("certificate"), Some(not_after("server.pem")));
    assert_eq!(shown("client_ca"), Some(not_after("ca.pem")));
    assert_eq!(shown("client_crl"), Some(crl.next_update().unwrap().timestamp() as f64));
    let before = not_after("server.pem");
    let new = server.pki.issue(&Leaf {
        sans: vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())],
        serial: 7,
        common_name: "server",
        valid_for: 7_200,
        usage: rcgen::ExtendedKeyUsagePurpose::ServerAuth,
    });
    server.pki.write("server-key.pem", &new.key);
    server.pki.write("server.pem", &new.certificate);
    eventually("the new expiry is shown", async || shown("certificate") == Some(not_after("server.pem"))).await;
    assert!(not_after("server.pem") > before + 3_000.0);
}

#[tokio::test]
async fn unfinished_requests_of_one_address_do_not_block_the_page() {
    let server = TestServer::start(|config| config.telemetry.prometheus_address = "127.0.0.1:0".into()).await;
    let address = server.metrics_address.unwrap();
    let connect = async || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..16 {
        let mut socket = connect().await;
        socket.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        held.push(socket);
    }
    let mut refused = 0;
    for socket in &mut held[4..] {
        // A connection with a place may finish its request and is answered.
        let _ = socket.write_all(b"host: localhost\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        refused += usize::from(answer.is_empty());
    }
    assert!(refused > 0, "sixteen requests of one address had places at once");
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
}
