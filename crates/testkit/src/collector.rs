//! An OpenTelemetry collector that keeps everything a server exports over OTLP/gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A collector on the loopback interface. It stops when this value is dropped.
pub struct Collector {
    address: SocketAddr,
    exports: Exports,
    _task: AbortOnDropHandle<()>,
}

/// Path and body of each call.
type Exports = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// The length of a message prefix: a compression flag and the length of the message.
const PREFIX: usize = 5;

// === impl Collector ===

impl Collector {
    /// Listens on a free port.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("its address");
        let exports = Exports::default();
        let taken = exports.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with its handle")]
        let task = tokio::spawn(async move {
            // Connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, taken.clone()));
            }
        });
        Collector { address, exports, _task: AbortOnDropHandle::new(task) }
    }

    /// The value for `telemetry.otlp_endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Path and body of each export.
    pub fn exports(&self) -> Vec<(String, Vec<u8>)> {
        self.lock().clone()
    }

    /// Everything received, byte for byte.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().iter().flat_map(|(_, body)| body).copied().collect()
    }

    /// The encoded requests to one service, such as `TraceService`.
    pub fn messages(&self, service: &str) -> Vec<Vec<u8>> {
        let end = format!("{service}/Export");
        let exports = self.lock();
        exports.iter().filter(|(path, _)| path.ends_with(&end)).map(|(_, body)| body[PREFIX..].to_vec()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Vec<u8>)>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers every call of a connection with success.
async fn serve(socket: TcpStream, exports: Exports) {
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let exports = exports.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            exports.lock().unwrap_or_else(PoisonError::into_inner).push((path, body.to_vec()));
            let answer = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "0")
                .body(Full::<bytes::Bytes>::default());
            Ok::<_, Infallible>(answer.expect("an answer"))
        }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends when the exporter disconnects.
    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
}
