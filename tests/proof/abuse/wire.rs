//! HTTP/2 over mutual TLS spoken by hand, as no library would speak it, from any address of the loopback network.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jackfield_testkit::frame::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, next_frame,
};
use jackfield_testkit::pki::Leaf;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWriteExt as _, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The time limit for a TCP connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The kind of an error that occurs before there is a connection to attack.
const NOT_BEGUN: io::ErrorKind = io::ErrorKind::NotConnected;

/// The attacker's credentials and the address of its target.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) server: SocketAddr,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

/// A connection on which frames are written by hand. Received frames are recorded.
pub(super) struct Conn {
    pub(super) write: WriteHalf<TlsStream<TcpStream>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

/// The frames that the server sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) goaway: Option<u32>,
    /// The codes of RST_STREAM, with their counts.
    pub(super) resets: BTreeMap<u32, u32>,
    /// The number of streams that the server ended with headers or trailers.
    pub(super) answers: u32,
}

/// The end of a connection, or of an attempt on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// A GOAWAY with this code (RFC 9113 7).
    Goaway(u32),
    /// A close without a GOAWAY.
    Closed,
    /// The server reset the streams, with this code, and kept the connection.
    Reset(u32),
    /// The server answered the streams.
    Answered,
    /// The attacker continued until its time was over.
    Held,
    /// The attack could not begin: the handshake failed or took too long.
    NotBegun,
}

/// A literal header without compression or indexing (RFC 7541 6.2.2).
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    literal(0, name, value)
}

/// A literal header with indexing (RFC 7541 6.2.1).
pub(super) fn indexed_header(name: &str, value: &str) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![first];
    for text in [name, value] {
        block.extend(length(text.len()));
        block.extend(text.as_bytes());
    }
    block
}

/// A length with a prefix of seven bits (RFC 7541 5.1).
fn length(length: usize) -> Vec<u8> {
    if length < 0x7f {
        return vec![length as u8];
    }
    let (mut rest, mut bytes) = (length - 0x7f, vec![0x7f]);
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// The header block of a call: POST, https, path and content type.
pub(super) fn block(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x87];
    block.extend([header(":path", path), header(":authority", "localhost")].concat());
    block.extend([header("content-type", "application/grpc"), header("te", "trailers")].concat());
    block
}

/// The HEADERS frame of a call.
pub(super) fn call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(path))
}

/// A call with a whole request message.
pub(super) fn request(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let size = u32::try_from(message.len()).unwrap();
    let body = [&[0][..], &size.to_be_bytes(), message].concat();
    [call(stream, path), frame(DATA, END_STREAM, stream, &body)].concat()
}

/// The ids of the streams that a client opens.
pub(super) fn streams() -> impl Iterator<Item = u32> + Send {
    (0..).map(|index| 2 * index + 1)
}

/// A TLS client without resumption unless it is given a store.
pub(super) fn tls(ca_pem: &str, leaf: &Leaf, resumption: rustls::client::Resumption) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let chain = CertificateDer::pem_slice_iter(leaf.certificate_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = resumption;
    Arc::new(config)
}

// === impl Caller ===

impl Caller {
    /// A TCP connection from an address that follows from a number: 127.1.0.0/16, a few peers on each.
    pub(super) async fn tcp(&self, peer: usize) -> io::Result<TcpStream> {
        let host = u8::try_from(1 + peer / 64).unwrap_or(u8::MAX);
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            // Attackers have little room for data that they do not read.
            socket.set_recv_buffer_size(16 * 1024)?;
            socket.bind((Ipv4Addr::new(127, 1, 0, host), 0).into())?;
            tokio::time::timeout(CONNECT, socket.connect(self.server)).await?
        };
        connect.await.map_err(|error| io::Error::new(NOT_BEGUN, error))
    }

    pub(super) async fn tls(&self, peer: usize) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let tcp = self.tcp(peer).await?;
        let handshake = async {
            tcp.set_nodelay(true)?;
            tokio::time::timeout(CONNECT, TlsConnector::from(self.tls.clone()).connect(name, tcp)).await?
        };
        handshake.await.map_err(|error| io::Error::new(NOT_BEGUN, error))
    }

    /// A connection that has sent the preface, with these settings (six bytes each).
    pub(super) async fn http2(&self, peer: usize, settings: &[u8]) -> io::Result<Conn> {
        let (read, write) = tokio::io::split(self.tls(peer).await?);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = tokio::spawn(note(read, seen.clone()));
        let mut conn = Conn { write, seen, reader };
        conn.write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await?;
        conn.write.flush().await?;
        Ok(conn)
    }
}

// === impl End ===

impl End {
    /// The end that an error means for the attacker.
    pub(super) fn of(error: &io::Error) -> Self {
        if error.kind() == NOT_BEGUN { End::NotBegun } else { End::Closed }
    }
}

// === impl Conn ===

impl Conn {
    /// Sends one piece of the attack at a time, with a pause after each, until the server ends the connection.
    pub(super) async fn attack(mut self, pieces: impl Iterator<Item = Vec<u8>>, pause: Duration) -> End {
        for bytes in pieces {
            if self.reader.is_finished() || self.send(&bytes).await.is_err() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        self.ended().await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await?;
        self.write.flush().await
    }

    /// Waits until the server ends the connection.
    pub(super) async fn ended(&mut self) -> End {
        let _ = (&mut self.reader).await;
        self.seen().goaway.map_or(End::Closed, End::Goaway)
    }

    /// Waits until the server has ended this many streams, or the connection.
    pub(super) async fn streams_ended(&mut self, count: u32) -> End {
        loop {
            let seen = self.seen();
            let resets = seen.resets.values().sum::<u32>();
            if let (true, Some((code, _))) = (resets + seen.answers >= count, seen.resets.last_key_value()) {
                return End::Reset(*code);
            }
            if seen.answers >= count {
                return End::Answered;
            }
            if self.reader.is_finished() {
                return self.ended().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads frames to the end of the connection.
async fn note(mut socket: impl AsyncRead + Unpin, seen: Arc<Mutex<Seen>>) {
    while let Some(frame) = next_frame(&mut socket).await {
        let code = |at: usize| frame.payload.get(at..at + 4).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match (frame.kind, frame.flags) {
            (GOAWAY, _) => seen.goaway = code(4),
            (RST_STREAM, _) => *seen.resets.entry(code(0).unwrap_or_default()).or_default() += 1,
            (HEADERS, flags) if flags & END_STREAM != 0 => seen.answers += 1,
            _ => {}
        }
    }
}
