//! A server whose every connection is handled by a function of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// A connection, after the handshake if there is one.
pub(crate) struct Peer {
    pub(crate) io: Box<dyn Io>,
    /// The certificate of the client, as DER.
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) handshake: Option<HandshakeKind>,
}

// === impl Server ===

impl Server {
    /// Hands over sockets as they are accepted.
    #[expect(clippy::disallowed_methods, reason = "the tasks end with the test")]
    pub(crate) async fn raw<F: Future<Output = ()> + Send + 'static>(
        handle: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(handle(stream));
            }
        });
        Server { address, accepted, task }
    }

    pub(crate) async fn plain<F: Future<Output = ()> + Send + 'static>(
        handle: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Self {
        Server::raw(move |stream| handle(Peer { io: Box::new(stream), certificate: None, handshake: None })).await
    }

    /// A server that answers each request with these bytes, and closes the connection.
    pub(crate) async fn answering(response: &str) -> Self {
        let response = response.to_owned();
        Server::plain(move |mut peer| {
            let response = response.clone();
            async move {
                peer.request().await;
                peer.send(response).await;
            }
        })
        .await
    }

    pub(crate) async fn tls<F: Future<Output = ()> + Send + 'static>(
        config: ServerConfig,
        handle: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let handle = Arc::new(handle);
        Server::raw(move |stream| {
            let (acceptor, handle) = (acceptor.clone(), handle.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                let certificate = session.peer_certificates().map(|chain| chain[0].to_vec());
                let handshake = session.handshake_kind();
                handle(Peer { io: Box::new(stream), certificate, handshake }).await;
            }
        })
        .await
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Peer ===

impl Peer {
    /// Reads a request with its body. `None`: the client is gone.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.io.read_u8().await.ok()?);
        }
        let head = String::from_utf8(text).unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.io.read_exact(&mut body).await.ok()?;
        Some(head + std::str::from_utf8(&body).unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The client may be gone, which some tests want.
        let _ = self.io.write_all(bytes.as_ref()).await;
        let _ = self.io.flush().await;
    }

    /// Answers with a body.
    pub(crate) async fn respond(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Answers every request with the same body.
    pub(crate) async fn serve(mut self, body: &str) {
        while self.request().await.is_some() {
            self.respond(body).await;
        }
    }
}

/// The value of a header in the text of a request.
pub(crate) fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let head = request.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
