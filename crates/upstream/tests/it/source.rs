//! Credential sources that are called over gRPC, and peers that do not speak HTTP/2.

use std::time::Duration;

use jackfield_domain::credential_source::{SourceFault, SourceProtocol};
use jackfield_upstream::client::{Deadline, Definition};
use jackfield_upstream::error::Fault;
use jackfield_upstream::source::{SourceError, ask};
use tokio::time::Instant;

use crate::pki::Authority;
use crate::server::{Peer, Server};
use crate::support::{client, definition, development, url};

/// A server of HTTP/1.1, whatever was agreed: it answers the first bytes that come.
async fn http1(mut peer: Peer) {
    let _ = tokio::io::AsyncReadExt::read(&mut peer.io, &mut [0; 1024]).await;
    peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
}

/// Asks a server that offers these protocols, and speaks HTTP/1.1.
async fn asked(protocols: &[&str]) -> SourceError {
    let authority = Authority::new("authority");
    let mut config = authority.server("localhost", None);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let server = Server::tls(config, http1).await;
    let text = format!("https://localhost:{}", server.port());
    let client = client(development(), Definition { trust: authority.trust(), ..definition(&text) });
    let deadline = Deadline::Server(Instant::now() + Duration::from_secs(5));
    let place = client.reserve(None).await.unwrap();
    ask((&client, place), (SourceProtocol::Grpc, &url(&text)), b"question", deadline).await.unwrap_err()
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http2_cannot_be_reached_over_grpc() {
    for protocols in [&[][..], &["h2"]] {
        let error = asked(protocols).await;
        let SourceError::Call(call) = &error else { panic!("{protocols:?}: {error:?}") };
        assert_eq!(call.fault, Fault::Http2NotSpoken, "{protocols:?}");
        assert_eq!((error.fault(), call.fault.reason()), (SourceFault::Unreachable, "HTTP2_NOT_SPOKEN"));
        assert_eq!(error.to_string(), "the server does not speak HTTP/2");
    }
    // It ends the handshake itself.
    let error = asked(&["http/1.1"]).await;
    assert_eq!(error.fault(), SourceFault::Unreachable, "{error:?}");
    assert!(error.to_string().contains("protocol that is acceptable"), "{error}");
}
