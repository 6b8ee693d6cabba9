//! A client below gRPC, which reads each answer only when the test asks for it. gRPC libraries read ahead on their own,
//! or as soon as a caller waits.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use prost::Message;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;

/// The initial window of a stream in grpc-go and in HTTP/2 itself, in bytes.
pub const USUAL_WINDOW: u32 = 65_535;
/// The window of a connection. gRPC clients reopen it whether or not its streams are read.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// The length of a message prefix: a compression flag and the length of the message.
const PREFIX: usize = 5;

/// A connection.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
}

/// An answer that is read step by step.
pub struct Answer {
    body: RecvStream,
    read: BytesMut,
    /// The number of received bytes that are not yet acknowledged to the server.
    unread: usize,
}

// === impl Http2 ===

impl Http2 {
    /// Connects with a certificate and its key as PEM. The server may send `window` bytes on each stream before any of
    /// it is read.
    ///
    /// # Panics
    /// Panics if the server refuses the connection.
    pub async fn connect(server: SocketAddr, ca_pem: &str, (certificate, key): (&str, &str), window: u32) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM")).expect("an authority");
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.map(|certificate| certificate.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let mut config = builder.with_client_auth_cert(chain, key).expect("a certificate with its key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let socket = TcpStream::connect(server).await.expect("a connection");
        let socket = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(socket).await.expect("HTTP/2");
        #[expect(clippy::disallowed_methods, reason = "it ends with its connection")]
        tokio::spawn(connection);
        Http2 { sender: sender.ready().await.expect("HTTP/2") }
    }

    /// Calls a method, `/package.Service/Method`.
    ///
    /// # Errors
    /// Returns the status if the answer contains nothing else.
    ///
    /// # Panics
    /// Panics if the connection breaks.
    pub async fn call(&self, path: &str, message: &impl Message) -> Result<Answer, Status> {
        let request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.encoded_len()).expect("a short message").to_be_bytes());
        framed.extend(message.encode_to_vec());
        let mut sender = self.sender.clone().ready().await.expect("room for a stream");
        let (answer, mut body) = sender.send_request(request, false).expect("a stream");
        body.send_data(framed.into(), true).expect("a stream");
        let answer = answer.await.expect("headers");
        match Status::from_header_map(answer.headers()) {
            Some(status) => Err(status),
            None => Ok(Answer { body: answer.into_body(), read: BytesMut::new(), unread: 0 }),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Reads the next message; `None` at the end.
    ///
    /// # Panics
    /// Panics if the stream is reset, or the connection breaks.
    pub async fn message(&mut self) -> Option<Bytes> {
        let unread = std::mem::take(&mut self.unread);
        self.body.flow_control().release_capacity(unread).expect("an open stream");
        loop {
            if let Some((prefix, rest)) = self.read.split_at_checked(PREFIX) {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if rest.len() >= length {
                    self.read.advance(PREFIX);
                    return Some(self.read.split_to(length).freeze());
                }
            }
            let data = self.body.data().await?.expect("an open stream");
            self.read.extend_from_slice(&data);
            self.body.flow_control().release_capacity(data.len()).expect("an open stream");
        }
    }

    /// Waits until a part of it has arrived, and leaves that unread.
    ///
    /// # Panics
    /// Panics if nothing arrives.
    pub async fn fill(&mut self) {
        let data = self.body.data().await.expect("a message").expect("an open stream");
        self.read.extend_from_slice(&data);
        self.unread += data.len();
    }

    /// Reads the remaining messages and the status.
    ///
    /// # Panics
    /// Panics as [`Answer::message`] does, and if there is no status.
    pub async fn read(mut self) -> (Vec<Bytes>, Status) {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        (messages, self.status().await)
    }

    /// Waits for the status without acknowledging to the server that anything was read.
    ///
    /// # Panics
    /// Panics if the stream ends without a status.
    pub async fn status(mut self) -> Status {
        while let Some(data) = self.body.data().await {
            data.expect("a stream is not reset");
        }
        let trailers = self.body.trailers().await.expect("a stream is not reset").expect("a status");
        Status::from_header_map(&trailers).expect("a status")
    }
}
