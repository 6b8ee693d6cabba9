//! Requests that are not those of HTTP/1.1, or that are coded or too large.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::transport::{LOG_IN, MODULE, gallery, good};
use super::{Answer, PASSWORD, exchange, request, send};

#[tokio::test]
async fn requests_that_are_too_large_or_too_odd() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    let large = send(address, &request(LOG_IN, &[MODULE], &"x".repeat(10 << 20))).await;
    large.expect(413, "INVALID_FORMAT");
    let body =
        |length: usize| format!(r#"{{"username": "ann", "password": "{PASSWORD}", "more": "{}"}}"#, "x".repeat(length));
    let frame = body(0).len();
    assert_eq!(send(address, &request(LOG_IN, &[MODULE], &body(65_536 - frame))).await.status, 200);
    send(address, &request(LOG_IN, &[MODULE], &body(65_537 - frame))).await.expect(413, "INVALID_FORMAT");
    // A body of unknown length is limited all the same.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!(
        "{LOG_IN} HTTP/1.1\r\nhost: a\r\nx-license-module: gallery\r\ntransfer-encoding: chunked\r\n\r\n{}",
        chunk.repeat(3)
    );
    send(address, chunked.as_bytes()).await.expect(413, "INVALID_FORMAT");
    let stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(exchange(stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, b"", "HTTP/2 is not spoken");
    // It goes on for everyone else.
    assert_eq!(send(address, &good()).await.status, 200);
}

#[tokio::test]
async fn requests_whose_frame_is_wrong() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    let body = json!({ "username": "ann", "password": PASSWORD }).to_string();
    let with = async |version: &str, headers: &str, body: &str| {
        let request = format!("{LOG_IN} HTTP/{version}\r\n{headers}x-license-module: gallery\r\n\r\n{body}");
        send(address, request.as_bytes()).await
    };
    let length = format!("content-length: {}\r\n", body.len());
    for (version, host, is_good) in [
        ("1.1", "host: a\r\n", true),
        ("1.1", "Host: [::1]:8443\r\n", true),
        ("1.1", "host: a.example:65535\r\n", true),
        ("1.0", "", true),
        ("1.1", "host:\r\n", false),
        ("1.0", "host:\r\n", false),
        ("1.1", "host: :80\r\n", false),
        ("1.1", "host: a:http\r\n", false),
        ("1.1", "host: a:65536\r\n", false),
        ("1.1", "host: [a]\r\n", false),
        ("1.1", "", false),
        ("1.1", "host: a\r\nhost: b\r\n", false),
        ("1.1", "host: a\r\nhost: a\r\n", false),
        ("1.0", "host: a\r\nhost: b\r\n", false),
        ("1.1", "host: a/b\r\n", false),
        ("1.1", "host: a b\r\n", false),
        ("1.1", "host: ann@a\r\n", false),
        ("1.1", "host: \u{e9}\r\n", false),
    ] {
        let answer = with(version, &format!("{host}{length}"), &body).await;
        match is_good {
            true => assert_eq!(answer.status, 200, "{version} {host}"),
            false => answer.expect(400, "INVALID_FORMAT"),
        }
    }

    for expect in ["expect: 200-ok", "expect: 100-continue, x", "expect: 100-continue\r\nexpect: x", "expect:"] {
        with("1.1", &format!("host: a\r\n{expect}\r\n{length}"), &body).await.expect(417, "INVALID_FORMAT");
    }
    let continued = with("1.1", &format!("host: a\r\nExpect: 100-Continue\r\n{length}"), &body).await;
    assert!(continued.status == 100 && continued.body.starts_with("HTTP/1.1 200"), "{continued:?}");
}

#[tokio::test]
async fn bodies_that_are_coded() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    let body = json!({ "username": "ann", "password": PASSWORD }).to_string();
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("content-length: {}\r\n", body.len());
    let with = async |headers: &str, body: &str| {
        let request = format!("{LOG_IN} HTTP/1.1\r\nhost: a\r\n{headers}x-license-module: gallery\r\n\r\n{body}");
        let answer = send(address, request.as_bytes()).await;
        assert_eq!(answer.header("connection"), Some("close"), "{headers}");
        answer
    };
    let chunked = "transfer-encoding: chunked\r\n";
    assert_eq!(with(chunked, &chunks).await.status, 200);
    for wrong in ["x\r\n", &body, "-1\r\n", "ffffffffffffffffff\r\n", "1\r\n12\r\n0\r\n\r\n", "\r\n"] {
        with(chunked, wrong).await.expect(400, "INVALID_FORMAT");
        for both in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
            with(&both, wrong).await.expect(400, "INVALID_FORMAT");
        }
    }
    for (codings, status) in [
        ("chunked, chunked", 400),
        ("chunked\r\nTransfer-Encoding: chunked", 400),
        ("gzip", 400),
        ("chunked, gzip", 400),
        ("gzip, chunked", 501),
        ("gzip\r\ntransfer-encoding: chunked", 501),
        ("identity, chunked", 501),
    ] {
        with(&format!("transfer-encoding: {codings}\r\n"), &chunks).await.expect(status, "INVALID_FORMAT");
    }
    for identity in ["identity", "Identity, identity", ""] {
        assert_eq!(with(&format!("{length}content-encoding: {identity}\r\n"), &body).await.status, 200, "{identity}");
    }
    for coding in ["gzip", "br, identity", "identity\r\ncontent-encoding: deflate", "\u{e9}"] {
        let answer = with(&format!("{length}content-encoding: {coding}\r\n"), &body).await;
        answer.expect(415, "INVALID_FORMAT");
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
    }
}

/// The body is never sent, so an answer that waited for it would be another one.
#[tokio::test]
async fn a_body_that_is_said_to_be_too_large_is_not_waited_for() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    for length in ["65537", "10000000000", "18446744073709551613"] {
        for expect in ["", "expect: 100-continue\r\n"] {
            let head = format!("{LOG_IN} HTTP/1.1\r\nhost: a\r\n{expect}content-length: {length}\r\n\r\n");
            send(address, head.as_bytes()).await.expect(413, "INVALID_FORMAT");
        }
    }
}

#[tokio::test]
async fn a_client_that_sends_no_more_has_its_response() {
    let server = gallery(|_| {}).await;
    let mut stream = TcpStream::connect(server.license_api_address()).await.unwrap();
    stream.write_all(&good()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(Answer::parse(&received).status, 200);
}

#[tokio::test]
async fn heads_that_cannot_be_read_are_answered_like_other_errors() {
    let server = gallery(|_| {}).await;
    let address = server.license_api_address();
    let long = "x".repeat(20 << 10);
    for (head, status) in [
        ("hello".to_owned(), 400),
        ("GET / HTTP/3.0\r\nhost: a".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nx y: z".to_owned(), 400),
        (format!("{LOG_IN} HTTP/1.1\r\nhost: a\r\ncontent-length: -1"), 400),
        (format!("{LOG_IN} HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2"), 400),
        (format!("{LOG_IN} HTTP/1.0\r\ntransfer-encoding: chunked"), 400),
        (format!("{LOG_IN} HTTP/1.1\r\nhost: a\r\nx-long: {long}"), 431),
        (format!("GET /{long} HTTP/1.1\r\nhost: a"), 431),
        (format!("{LOG_IN} HTTP/1.1\r\nhost: a\r\ncontent-length: {}", u64::MAX), 431),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let received = exchange(stream, format!("{head}\r\n\r\n").as_bytes()).await;
        assert_eq!(String::from_utf8_lossy(&received).matches("HTTP/1.1 ").count(), 1, "{head}");
        let answer = Answer::parse(&received);
        answer.expect(status, "INVALID_FORMAT");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let refused = |status: &str| {
        let labels = [("http_response_status_code", status)];
        server.metric("jackfield_server_http_requests_refused_total", &labels)
    };
    assert_eq!((refused("400"), refused("431"), refused("414")), (Some(6.0), Some(3.0), Some(0.0)));
}
