//! A peer that speaks HTTP/2 as no library would: it takes the request of each connection, and sends bytes that a test makes up.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::frame::{DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, next_frame};
use crate::pki::Pki;
use crate::system::demanding;

/// A running peer. It ends when this value is dropped.
pub struct HostilePeer {
    address: SocketAddr,
    /// The number of requests that have come, and of those whose connection has ended.
    seen: watch::Receiver<(usize, usize)>,
    task: JoinHandle<()>,
}

/// The end of what a peer sends.
#[derive(Clone, Debug)]
pub enum Then {
    /// It closes the connection.
    Close,
    /// It sends nothing more, and does not close the connection.
    Hang,
    /// It sends these bytes as long as they are taken.
    Repeat(Vec<u8>),
}

/// The number of times that bytes are repeated in one write.
const AT_ONCE: usize = 64;

// === impl HostilePeer ===

impl HostilePeer {
    /// Starts a peer with a certificate of this authority, which has issued those of its clients, too. It sends these bytes for each request.
    ///
    /// # Panics
    /// Panics if it does not start.
    #[expect(clippy::disallowed_methods, reason = "the task ends with the peer")]
    pub async fn start(pki: &Pki, bytes: Vec<u8>, then: Then) -> Self {
        let mut tls = demanding(pki, None);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (note, seen) = watch::channel((0, 0));
        let (bytes, note) = (Arc::new((bytes, then)), Arc::new(note));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, bytes, note) = (acceptor.clone(), Arc::clone(&bytes), Arc::clone(&note));
                tokio::spawn(async move { serve(acceptor, socket, &bytes, &note).await });
            }
        });
        HostilePeer { address, seen, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Waits until so many requests have come, and all of their connections have ended.
    ///
    /// # Panics
    /// Panics if the peer has ended.
    pub async fn ended(&self, requests: usize) {
        let ended = |(came, ended): &(usize, usize)| *came == requests && ended == came;
        self.seen.clone().wait_for(ended).await.expect("a peer");
    }
}

impl Drop for HostilePeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes the request of a connection, and sends the bytes.
async fn serve(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    (bytes, then): &(Vec<u8>, Then),
    note: &watch::Sender<(usize, usize)>,
) {
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let (mut read, mut write) = tokio::io::split(stream);
    let mut preface = [0; PREFACE.len()];
    if read.read_exact(&mut preface).await.is_err() || write.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_err() {
        return;
    }
    // To the end of its body.
    while let Some(next) = next_frame(&mut read).await {
        if matches!(next.kind, HEADERS | DATA) && next.flags & END_STREAM != 0 {
            break;
        }
    }
    note.send_modify(|(came, _)| *came += 1);
    let sent = async {
        // A client may go away at any time.
        let _ = write.write_all(bytes).await;
        let _ = write.flush().await;
        match then {
            Then::Close => drop(write.shutdown().await),
            Then::Hang => std::future::pending().await,
            Then::Repeat(bytes) => {
                let bytes = bytes.repeat(AT_ONCE);
                while write.write_all(&bytes).await.is_ok() {}
            }
        }
    };
    // What the client sends meanwhile is read, or its writes would wait.
    let read = async { while next_frame(&mut read).await.is_some() {} };
    tokio::select! {
        () = sent => {}
        () = read => {}
    }
    note.send_modify(|(_, ended)| *ended += 1);
}
