//! Limits, TLS, metrics and the end of the listener.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_testkit::data::LicenseApi;
use jackfield_testkit::{Backend, TestServer};
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Answer, PASSWORD, ann, application, exchange, get, log_in, on_loopback, request, send, served, token};

pub(super) const LOG_IN: &str = "POST /api/v1/auth/authenticate/";
pub(super) const MODULE: (&str, &str) = ("x-license-module", "gallery");

pub(super) async fn gallery(change: impl FnOnce(&mut LicenseApi)) -> TestServer {
    let server = served(Backend::Sqlite, change).await;
    let alpha = server.client("alpha");
    ann(&alpha).await;
    application(&alpha, "gallery", None).await;
    server
}

pub(super) fn good() -> Vec<u8> {
    let body = json!({ "username": "ann", "password": PASSWORD }).to_string();
    request(LOG_IN, &[MODULE], &body)
}

/// A request that arrives slowly has 10 s for its head and 10 s for its body. Until then it takes no place of a call.
#[tokio::test]
async fn slow_requests_are_cut_and_delay_no_others() {
    let server = TestServer::start_with(Backend::Sqlite, |config| {
        config.license_api = on_loopback();
        config.limits.max_calls = 2;
    });
    let server = server.await;
    let alpha = server.client("alpha");
    ann(&alpha).await;
    application(&alpha, "gallery", None).await;
    let address = server.license_api_address();
    // Sends the rest byte by byte, until the server has had enough.
    let slow = |whole: Vec<u8>, at_once: usize| async move {
        let begin = Instant::now();
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        writer.write_all(&whole[..at_once]).await.unwrap();
        let sending = async move {
            for byte in &whole[at_once..] {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if writer.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut received = Vec::new();
        tokio::select! {
            // Closed or reset: the client is still sending.
            _ = reader.read_to_end(&mut received) => {}
            () = sending => {}
        }
        (begin.elapsed(), received)
    };
    let head_length = good().windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let heads = futures::future::join_all((0..30).map(|_| slow(good(), 20)));
    let bodies = futures::future::join_all((0..30).map(|_| slow(good(), head_length + 1)));
    let others = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begin = Instant::now();
        assert_eq!(send(address, &good()).await.status, 200);
        begin.elapsed()
    };
    let (heads, bodies, other) = tokio::join!(heads, bodies, others);
    assert!(other < Duration::from_secs(5), "{other:?}");
    for (took, received) in &heads {
        assert!((10..15).contains(&took.as_secs()), "{took:?}");
        assert!(received.is_empty(), "{}", String::from_utf8_lossy(received));
    }
    for (took, received) in &bodies {
        assert!((10..15).contains(&took.as_secs()), "{took:?}");
        Answer::parse(received).expect(408, "INVALID_FORMAT");
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_and_says_so() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    let twice = [good(), good()].concat();
    let stream = TcpStream::connect(address).await.unwrap();
    let received = exchange(stream, &twice).await;
    assert_eq!(String::from_utf8_lossy(&received).matches("HTTP/1.1 200").count(), 1);
    let answer = Answer::parse(&received);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let keys: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["token", "permissions"], "the clients fail on others");
    assert_eq!(token(&answer).len(), 43);
}

#[tokio::test]
async fn requests_are_calls_in_metrics_and_have_ids() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    let accepted = log_in(address, "gallery", "ann", PASSWORD).await;
    let rejected = log_in(address, "gallery", "ann", "wrong").await;
    let unknown = send(address, &request("GET /", &[], "")).await;
    let ids = [&accepted, &rejected, &unknown].map(|answer| answer.header("x-request-id").unwrap().to_owned());
    assert!(ids.iter().all(|id| id.len() == 36) && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    let session = token(&accepted);
    get(address, "auth/users/profile/", "gallery", &session).await;
    get(address, "auth/users/profile/", "gallery", "wrong").await.expect(401, "NOT_AUTHORIZED");
    let calls = |method: &str, code: &str| {
        let method = format!("jackfield.v1.ApplicationService/{method}");
        let labels = [("rpc_method", &*method), ("rpc_response_status_code", code)];
        server.metric("rpc_server_call_duration_seconds_count", &labels)
    };
    assert_eq!(calls("AuthenticateApplicationUser", "OK"), Some(2.0));
    assert_eq!((calls("GetSessionUser", "OK"), calls("GetSessionUser", "NOT_FOUND")), (Some(1.0), Some(1.0)));
    let refused = |status: &str| {
        let labels = [("http_response_status_code", status)];
        server.metric("jackfield_server_http_requests_refused_total", &labels)
    };
    assert_eq!((refused("404"), refused("413")), (Some(1.0), Some(0.0)));
    assert!(server.metric("jackfield_server_connections_open", &[("listener", "license_api")]).is_some());
}

#[tokio::test]
async fn a_request_in_progress_is_answered_before_the_server_stops() {
    let mut server = TestServer::start_with(Backend::Sqlite, |config| {
        config.license_api = on_loopback();
        config.login.rejection_interval = Duration::from_secs(1);
        config.drain.delay = Duration::ZERO;
    })
    .await;
    let alpha = server.client("alpha");
    ann(&alpha).await;
    application(&alpha, "gallery", None).await;
    let address = server.license_api_address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /api").await.unwrap();
    let waiting = tokio::spawn(async move { log_in(address, "gallery", "ann", "wrong").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(server.stop().await, "nothing was cut");
    waiting.await.unwrap().expect(401, "NOT_AUTHORIZED");
    let mut rest = Vec::new();
    // Closed or reset: the client has asked for nothing yet.
    let _ = idle.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
}

/// Connects with TLS, without a client certificate.
async fn tls(server: &TestServer, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    tls_offering(server, alpn, &aws_lc_rs::default_provider().kx_groups).await
}

/// Connects with TLS and an offer of key exchanges.
async fn tls_offering(
    server: &TestServer,
    alpn: &[&[u8]],
    groups: &[&'static dyn SupportedKxGroup],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.pki().ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(server.license_api_address()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

#[tokio::test]
async fn tls_needs_no_client_certificate() {
    let server = gallery(|license_api| license_api.plaintext = false).await;
    for alpn in [&[][..], &[&b"http/1.1"[..]], &[b"h2", b"http/1.1"]] {
        let answer = Answer::parse(&exchange(tls(&server, alpn).await.unwrap(), &good()).await);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let answer = Answer::parse(&exchange(tls(&server, &[]).await.unwrap(), b"hello\r\n\r\n").await);
    answer.expect(400, "INVALID_FORMAT");
    assert!(tls(&server, &[b"h2"]).await.is_err());
    // A request in plaintext is no handshake.
    let stream = TcpStream::connect(server.license_api_address()).await.unwrap();
    let received = exchange(stream, &good()).await;
    assert!(!received.starts_with(b"HTTP"), "{received:?}");
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_if_the_client_offers_that() {
    let server = gallery(|license_api| license_api.plaintext = false).await;
    for (offered, expected) in [
        (&[X25519MLKEM768, X25519][..], NamedGroup::X25519MLKEM768),
        // A client that does not know it is served.
        (&[X25519], NamedGroup::X25519),
    ] {
        let stream = tls_offering(&server, &[], offered).await.unwrap();
        let chosen = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!((chosen, Answer::parse(&exchange(stream, &good()).await).status), (expected, 200));
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let server = gallery(|license_api| license_api.plaintext = false).await;
    let served = async || tls(&server, &[]).await.unwrap().get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let before = served().await;
    server.pki().renew_server();
    for _ in 0..100 {
        if served().await != before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the certificate stays");
}
