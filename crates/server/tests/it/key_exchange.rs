//! The key exchange of TLS.

use std::sync::Arc;

use rustls::NamedGroup;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{CALLER, TestServer};

/// The group that a server chooses from those that a known client offers.
async fn chosen(server: &TestServer, offered: &[&'static dyn SupportedKxGroup]) -> NamedGroup {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&server.pki.read("ca.pem")).unwrap()).unwrap();
    let pair = server.pki.client(CALLER, 1);
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = offered.to_vec();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
}

#[tokio::test]
async fn it_is_post_quantum_if_the_client_offers_that() {
    let server = TestServer::start(|_| {}).await;
    assert_eq!(chosen(&server, &[X25519MLKEM768, X25519, SECP256R1]).await, NamedGroup::X25519MLKEM768);
    // A client that does not know it is served.
    assert_eq!(chosen(&server, &[X25519]).await, NamedGroup::X25519);
    assert_eq!(chosen(&server, &[SECP256R1]).await, NamedGroup::secp256r1);
}
