use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::pki::Pki;
use crate::support::{TestServer, unary};

async fn connect(path: std::path::PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn a_unix_socket_serves_the_configured_principal_and_goes_away_with_the_server() {
    let pki = Pki::new();
    let path = pki.path("jackfield.sock");
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut server = TestServer::start_with(pki, |config| {
        config.listen.address = String::new();
        config.listen.unix_socket = path.clone();
        config.listen.plaintext_principal = "caller".into();
    })
    .await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let channel = connect(path.clone()).await;
    assert_eq!(unary(&channel, "Whoami", Duration::ZERO).await.unwrap().seconds, 1);
    server.stop();
    server.ended.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn plaintext_callers_are_nobody_unless_named() {
    let pki = Pki::new();
    let path = pki.path("jackfield.sock");
    let _server = TestServer::start_with(pki, |config| config.listen.unix_socket = path.clone()).await;
    let error = unary(&connect(path).await, "Whoami", Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
}
