//! A stand-in for a server of the licence API: it keeps what it is asked, and answers what the test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A server on the loopback interface. It stops when this value is dropped.
pub struct LicenseServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: AbortOnDropHandle<()>,
}

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    pub method: String,
    /// With the query, if there is one.
    pub path: String,
    pub headers: http::HeaderMap,
    pub body: String,
}

#[derive(Default)]
struct State {
    requests: Vec<RecordedRequest>,
    status: u16,
    body: String,
}

// === impl LicenseServer ===

impl LicenseServer {
    /// Listens on a free port.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State { status: 200, ..State::default() }));
        let shared = state.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with its handle")]
        let task = tokio::spawn(async move {
            // Connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, shared.clone()));
            }
        });
        LicenseServer { address, state, _task: AbortOnDropHandle::new(task) }
    }

    /// The URL below which the API is.
    pub fn base(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// Answers all requests from now on with a status and a body.
    pub fn answer(&self, status: u16, body: &str) {
        let mut state = lock(&self.state);
        (state.status, state.body) = (status, body.to_owned());
    }

    /// The requests since this was last asked.
    pub fn take_requests(&self) -> Vec<RecordedRequest> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

async fn serve(socket: TcpStream, state: Arc<Mutex<State>>) {
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let state = state.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut state = lock(&state);
            state.requests.push(RecordedRequest {
                method: head.method.to_string(),
                path: head.uri.to_string(),
                headers: head.headers,
                body: String::from_utf8_lossy(&body).into_owned(),
            });
            let answer = http::Response::builder().status(state.status).header("content-type", "application/json");
            Ok::<_, Infallible>(answer.body(Full::<Bytes>::from(state.body.clone())).expect("an answer"))
        }
    });
    // It ends when the client disconnects.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
