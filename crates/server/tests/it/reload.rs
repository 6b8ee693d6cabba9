use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_server::config::Config;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::FromDer as _;

use crate::pki::{Leaf, Pair, Pki};
use crate::support::{CALLER, TestServer, assert_no_answer, eventually, logged, unary};

#[tokio::test]
async fn a_new_server_certificate_is_used_and_live_connections_stay() {
    let server = TestServer::start(|_| {}).await;
    let channel = server.channel().await;
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    let client = server.pki.client(CALLER, 1);
    assert_eq!(serial_served(&server, &client).await, 100);

    let slow = {
        let channel = channel.clone();
        async move { unary(&channel, "Sleep", Duration::from_millis(500)).await }
    };
    let slow = crate::support::spawn(slow);
    server.pki.write_server(101);
    eventually("the new certificate is served", async || serial_served(&server, &client).await == 101).await;
    slow.await.unwrap().unwrap();
    // It was one connection all the time: a reconnect of the channel would show in the count.
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    assert_eq!(server.metric("jackfield_server_connections_ended_total", "cause=\"certificate\""), Some(0.0));
}

#[tokio::test]
async fn a_bad_file_keeps_the_previous_certificate() {
    let server = TestServer::start(|_| {}).await;
    let client = server.pki.client(CALLER, 1);
    server.pki.write("server.pem", "no certificate");
    eventually("the fault is counted", async || kept_previous(&server) == Some(1.0)).await;
    assert_eq!(serial_served(&server, &client).await, 100);
    // A certificate that does not fit the key is no better.
    server.pki.write("server.pem", &server.pki.client(CALLER, 7).certificate);
    eventually("the second fault is counted", async || kept_previous(&server) == Some(2.0)).await;
    assert_eq!(serial_served(&server, &client).await, 100);
    server.pki.write_server(102);
    eventually("a good one is loaded again", async || serial_served(&server, &client).await == 102).await;
}

#[tokio::test]
async fn a_revoked_client_loses_its_connection_and_gets_no_other() {
    let pki = Pki::new();
    pki.write_crl(&[]);
    let crl = pki.path("crl.pem");
    let change = |config: &mut Config| {
        config.tls.client_crl = crl;
        config.identity.principals[0].name = "the revoked".to_owned();
    };
    let server = TestServer::start_with(pki, change).await;
    let (bad, good) = (server.pki.client(CALLER, 41), server.pki.client(CALLER, 42));
    let bad_channel = server.connect(&bad).await.unwrap();
    let good_channel = server.connect(&good).await.unwrap();
    let mut bad_stream = crate::support::stream(&bad_channel, "Stream", hour()).await.unwrap();
    let mut good_stream = crate::support::stream(&good_channel, "Stream", hour()).await.unwrap();
    assert_eq!(bad_stream.message().await.unwrap().unwrap().seconds, 0);
    assert_eq!(good_stream.message().await.unwrap().unwrap().seconds, 0);

    server.pki.write_crl(&[41]);
    let cut = tokio::time::timeout(Duration::from_secs(5), bad_stream.message()).await.expect("cut in 5 s");
    assert!(cut.is_err(), "{cut:?}");
    let line = ["client certificate is no longer valid", "client.address=127.0.0.1 ", "principal=\"the revoked\""];
    assert!(logged(&line), "the log names the client");
    assert_no_answer(&unary(&bad_channel, "Whoami", Duration::ZERO).await.unwrap_err());
    unary(&good_channel, "Whoami", Duration::ZERO).await.unwrap();
    let still = tokio::time::timeout(Duration::from_millis(100), good_stream.message()).await;
    assert!(still.is_err(), "the other client's stream continues: {still:?}");
}

/// A revoked client must not stay connected because another file is broken.
#[tokio::test]
async fn a_broken_server_certificate_does_not_keep_a_revoked_client() {
    let pki = Pki::new();
    pki.write_crl(&[]);
    let crl = pki.path("crl.pem");
    let server = TestServer::start_with(pki, |config| config.tls.client_crl = crl).await;
    let (bad, good) = (server.pki.client(CALLER, 41), server.pki.client(CALLER, 42));
    let bad_channel = server.connect(&bad).await.unwrap();
    let mut bad_stream = crate::support::stream(&bad_channel, "Stream", hour()).await.unwrap();
    bad_stream.message().await.unwrap().unwrap();

    server.pki.write("server-key.pem", "no key");
    eventually("the fault is counted", async || kept_previous(&server) == Some(1.0)).await;
    server.pki.write_crl(&[41]);
    let cut = tokio::time::timeout(Duration::from_secs(5), bad_stream.message()).await.expect("cut in 5 s");
    assert!(cut.is_err(), "{cut:?}");
    assert_no_answer(&unary(&bad_channel, "Whoami", Duration::ZERO).await.unwrap_err());
    assert_eq!(serial_served(&server, &good).await, 100);
    assert_eq!(kept_previous(&server), Some(1.0), "the same fault is counted once");
    // A broken CA file does not keep it either.
    server.pki.write_server(103);
    let worse = server.pki.client(CALLER, 43);
    let worse_channel = server.connect(&worse).await.unwrap();
    unary(&worse_channel, "Whoami", Duration::ZERO).await.unwrap();
    let authorities = String::from_utf8(server.pki.read("ca.pem")).unwrap();
    server.pki.write("ca.pem", "no authority");
    server.pki.write_crl(&[41, 43]);
    eventually("the other is cut", async || unary(&worse_channel, "Whoami", Duration::ZERO).await.is_err()).await;
    server.pki.write("ca.pem", &authorities);
    // The reverse holds too.
    server.pki.write("crl.pem", "no list");
    server.pki.write_server(107);
    eventually("the new certificate is served", async || serial_served(&server, &good).await == 107).await;
    // The previous list stays in force.
    assert_no_answer(&unary(&bad_channel, "Whoami", Duration::ZERO).await.unwrap_err());
}

#[tokio::test]
async fn an_invalid_certificate_does_not_replace_a_valid_one() {
    let server = TestServer::start(|_| {}).await;
    let client = server.pki.client(CALLER, 1);
    server.pki.write_server_for(104, -60);
    eventually("the fault is counted", async || kept_previous(&server) == Some(1.0)).await;
    assert_eq!(serial_served(&server, &client).await, 100);
    assert!(logged(&["not reloaded", "expired at "]), "the log says why");
    server.pki.write_server(105);
    eventually("a good one is loaded again", async || serial_served(&server, &client).await == 105).await;
}

/// Opening a pipe would block until another process writes to it.
#[tokio::test]
async fn a_pipe_in_place_of_a_file_is_a_fault_like_any_other() {
    let server = TestServer::start(|_| {}).await;
    let client = server.pki.client(CALLER, 1);
    let path = server.pki.path("server.pem");
    std::fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    eventually("the fault is logged", async || logged(&["not reloaded", "it is not a regular file"])).await;
    assert_eq!(serial_served(&server, &client).await, 100);
    server.pki.write_server(106);
    eventually("a good one is loaded again", async || serial_served(&server, &client).await == 106).await;
}

#[tokio::test]
async fn an_expired_client_loses_its_connection() {
    let server = TestServer::start(|_| {}).await;
    let client = server.pki.issue(&Leaf {
        sans: vec![SanType::URI(CALLER.try_into().unwrap())],
        serial: 5,
        common_name: "client",
        // It may be up to a second less, because certificates have whole seconds only.
        valid_for: 6,
        usage: ExtendedKeyUsagePurpose::ClientAuth,
    });
    let channel = server.connect(&client).await.unwrap();
    let mut stream = crate::support::stream(&channel, "Stream", hour()).await.unwrap();
    stream.message().await.unwrap().unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(6 + 5), stream.message()).await.expect("cut in time");
    assert!(cut.is_err(), "{cut:?}");
    assert_no_answer(&unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err());
}

#[tokio::test]
async fn a_removed_authority_cuts_its_clients() {
    let server = TestServer::start(|_| {}).await;
    let channel = server.channel().await;
    let mut stream = crate::support::stream(&channel, "Stream", hour()).await.unwrap();
    stream.message().await.unwrap().unwrap();
    server.pki.write("ca.pem", std::str::from_utf8(&Pki::new().read("ca.pem")).unwrap());
    let cut = tokio::time::timeout(Duration::from_secs(5), stream.message()).await.expect("cut in 5 s");
    assert!(cut.is_err(), "{cut:?}");
}

#[tokio::test]
async fn a_broken_revocation_list_does_not_keep_a_removed_authority() {
    let pki = Pki::new();
    pki.write_crl(&[]);
    let crl = pki.path("crl.pem");
    let server = TestServer::start_with(pki, |config| config.tls.client_crl = crl).await;
    let channel = server.channel().await;
    let mut stream = crate::support::stream(&channel, "Stream", hour()).await.unwrap();
    stream.message().await.unwrap().unwrap();
    server.pki.write("crl.pem", "no list");
    eventually("the fault is counted", async || kept_previous(&server) == Some(1.0)).await;
    server.pki.write("ca.pem", std::str::from_utf8(&Pki::new().read("ca.pem")).unwrap());
    let cut = tokio::time::timeout(Duration::from_secs(5), stream.message()).await.expect("cut in 5 s");
    assert!(cut.is_err(), "{cut:?}");
}

/// An operator who knows of one fault must not assume that the other file is in force.
#[tokio::test]
async fn authorities_and_lists_that_are_both_broken_are_two_faults() {
    let pki = Pki::new();
    pki.write_crl(&[]);
    let crl = pki.path("crl.pem");
    let server = TestServer::start_with(pki, |config| config.tls.client_crl = crl).await;
    // Both are valid PEM, but neither is usable.
    let key = String::from_utf8(server.pki.read("server.pem")).unwrap().replace("MII", "AAA");
    server.pki.write("ca.pem", &key);
    eventually("the first fault is counted", async || kept_previous(&server) == Some(1.0)).await;
    server.pki.write_partial_crl(&[41]);
    eventually("the second fault is counted", async || kept_previous(&server) == Some(2.0)).await;
    assert!(logged(&["not reloaded", "crl.pem"]) && logged(&["not reloaded", "ca.pem"]));
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let server = TestServer::start(|_| {}).await;
    let client = server.pki.client(CALLER, 1);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = Arc::new(client_config(&client, version, Arc::default()));
        for _ in 0..3 {
            let stream = handshake(&server, config.clone()).await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

fn kept_previous(server: &TestServer) -> Option<f64> {
    server.metric("jackfield_server_tls_reloads_total", "result=\"kept_previous\"")
}

fn hour() -> tonic::Request<prost_types::Duration> {
    tonic::Request::new(crate::support::message(Duration::from_secs(3_600)))
}

/// The serial number of the certificate that a new connection receives.
async fn serial_served(server: &TestServer, client: &Pair) -> u64 {
    let seen = Arc::new(Mutex::new(None));
    let config = client_config(client, &rustls::version::TLS13, seen.clone());
    handshake(server, Arc::new(config)).await;
    let seen = seen.lock().unwrap();
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(seen.as_ref().unwrap()).unwrap();
    certificate.raw_serial().iter().fold(0, |serial, byte| serial << 8 | u64::from(*byte))
}

async fn handshake(
    server: &TestServer,
    config: Arc<rustls::ClientConfig>,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap();
    // The server sends first in HTTP/2, so reading would also receive session tickets.
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte).await.unwrap();
    stream
}

fn client_config(
    client: &Pair,
    version: &'static rustls::SupportedProtocolVersion,
    seen: Arc<Mutex<Option<CertificateDer<'static>>>>,
) -> rustls::ClientConfig {
    let certificate = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Recorder(seen)))
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A verifier that records the server's certificate.
#[derive(Debug)]
struct Recorder(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(end_entity.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
