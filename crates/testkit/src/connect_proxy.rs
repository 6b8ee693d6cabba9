//! An HTTP proxy that opens tunnels (CONNECT, RFC 9110 9.3.6) for clients with the right name and password.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A proxy on the loopback interface. It stops, and its tunnels end, when this value is dropped.
pub struct ConnectProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

// === impl ConnectProxy ===

impl ConnectProxy {
    /// Starts a proxy whose tunnels all lead to one address, whatever host the client names.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub async fn start(to: SocketAddr, username: &str, password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let credentials = STANDARD.encode(format!("{username}:{password}"));
        let (kept, expected) = (Arc::clone(&requests), format!("\r\nproxy-authorization: Basic {credentials}\r\n"));
        #[expect(clippy::disallowed_methods, reason = "it ends with its handle")]
        let task = tokio::spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                tunnels.spawn(serve(client, to, expected.clone(), Arc::clone(&kept)));
            }
        });
        ConnectProxy { address, requests, _task: AbortOnDropHandle::new(task) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, as they arrived.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut client: TcpStream, to: SocketAddr, expected: String, requests: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    // Byte by byte, because what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let is_admitted = head.starts_with("CONNECT ") && head.contains(&expected);
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    // Either side may go away at any time.
    if !is_admitted {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        let _ = client.write_all(refusal).await;
        return;
    }
    let Ok(mut system) = TcpStream::connect(to).await else { return };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut system).await;
    }
}
