//! HTTP/2 without a gRPC client.

use std::net::SocketAddr;

use tonic::Status;

use crate::support::spawn;

/// A connection without TLS and without a gRPC client, because that would enforce some of the rules itself.
pub(crate) struct Raw(hyper::client::conn::http2::SendRequest<http_body_util::Full<bytes::Bytes>>);

/// The answer as received.
pub(crate) struct RawAnswer {
    pub(crate) http_status: u16,
    /// The status in the headers or trailers.
    pub(crate) status: Option<Status>,
    pub(crate) body: bytes::Bytes,
}

// === impl Raw ===

impl Raw {
    /// The server must serve plaintext.
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        // A request is two writes; without TCP_NODELAY the second would wait for the acknowledgement of the first.
        socket.set_nodelay(true).unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(socket);
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        spawn(connection);
        Raw(sender)
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> RawAnswer {
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(http_body_util::Full::from(body)).unwrap()).await
    }

    pub(crate) async fn send(&mut self, request: http::Request<http_body_util::Full<bytes::Bytes>>) -> RawAnswer {
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let http_status = answer.status().as_u16();
        let mut status = Status::from_header_map(answer.headers());
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        if let Some(trailers) = body.trailers() {
            status = Status::from_header_map(trailers);
        }
        RawAnswer { http_status, status, body: body.to_bytes() }
    }
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    framed
}
