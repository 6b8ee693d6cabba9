use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use jackfield_testkit::frame::{
    DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, next_frame,
};
use tokio::io::AsyncWriteExt as _;
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
async fn a_unix_socket_serves_the_configured_principal_and_is_removed_with_the_server() {
    let pki = Pki::new();
    let path = pki.path("jackfield.sock");
    // A socket left behind by a killed process.
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
async fn plaintext_callers_are_unknown_unless_configured() {
    let pki = Pki::new();
    let path = pki.path("jackfield.sock");
    let _server = TestServer::start_with(pki, |config| config.listen.unix_socket = path.clone()).await;
    let error = unary(&connect(path).await, "Whoami", Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
}

/// The headers that a client built on gRPC's C core sends on a Unix socket: names and values as text, each of them
/// indexed, and the path of the socket as authority.
#[tokio::test]
async fn the_path_of_the_socket_is_accepted_as_authority() {
    let pki = Pki::new();
    let path = pki.path("jackfield.sock");
    let _server = TestServer::start_with(pki, |config| {
        config.listen.unix_socket = path.clone();
        config.listen.plaintext_principal = "caller".into();
    })
    .await;
    let authority = "run%2Fja:ckfield%2Fjackfield.sock";
    let mut fields = Vec::new();
    for (name, value) in [(":path", "/test.v1.Test/Whoami"), (":authority", authority)] {
        fields.extend([&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat());
    }
    // POST, http.
    fields.extend([0x83, 0x86]);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        fields.extend([&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat());
    }
    let mut sent = PREFACE.to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    sent.extend(frame(HEADERS, END_HEADERS, 1, &fields));
    sent.extend(frame(DATA, END_STREAM, 1, &[0; 5]));
    // The same again, from the table that the first call filled.
    sent.extend(frame(HEADERS, END_HEADERS, 3, &[0x80 | 65, 0x80 | 64, 0x83, 0x86, 0x80 | 63, 0x80 | 62]));
    sent.extend(frame(DATA, END_STREAM, 3, &[0; 5]));

    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    socket.write_all(&sent).await.unwrap();
    let (mut ended, mut answers) = (Vec::new(), Vec::new());
    while ended.len() < 2 {
        let Frame { kind, flags, stream, payload } = next_frame(&mut socket).await.unwrap();
        assert!(kind != RST_STREAM && kind != GOAWAY, "stream {stream} ended with {payload:?}");
        if kind == DATA && !payload.is_empty() {
            answers.push(payload);
            continue;
        }
        // The trailers of an answer.
        if kind == HEADERS && flags & END_STREAM != 0 {
            ended.push(stream);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 3]);
    // A message of two bytes: one second, which means a known caller.
    assert_eq!(answers, [[0, 0, 0, 0, 2, 8, 1], [0, 0, 0, 0, 2, 8, 1]]);
}
