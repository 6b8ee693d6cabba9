//! The collector that receives Jackfield's traces and metrics during the measurement and discards them.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use jackfield_testkit::raw::Raw;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::Result;

/// A running collector.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    traces: Arc<AtomicU64>,
}

/// Names the service of a kind of telemetry.
trait Signal: Clone + Send + Sync + 'static {
    const NAME: &'static str;
}

#[derive(Clone)]
struct Traces;

#[derive(Clone)]
struct Metrics;

/// Receives the exports of one kind, and counts the bytes.
#[derive(Clone)]
struct Take<S>(Arc<AtomicU64>, PhantomData<S>);

impl Signal for Traces {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Signal for Metrics {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
}

// === impl Sink ===

impl Sink {
    pub(crate) fn start() -> Result<Self> {
        let traces = Arc::new(AtomicU64::new(0));
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = incoming.local_addr()?;
        let serving = Server::builder()
            .add_service(Take(traces.clone(), PhantomData::<Traces>))
            .add_service(Take(Arc::default(), PhantomData::<Metrics>))
            .serve_with_incoming(incoming);
        #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
        tokio::spawn(serving);
        Ok(Sink { address, traces })
    }

    /// The number of bytes of traces received.
    pub(crate) fn traces(&self) -> u64 {
        self.traces.load(Ordering::Relaxed)
    }
}

// === impl Take ===

impl<S: Signal> NamedService for Take<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Signal> tower::Service<http::Request<Body>> for Take<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        let take = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).unary(take, call).await) })
    }
}

impl<S: Signal> UnaryService<Bytes> for Take<S> {
    type Response = Bytes;
    type Future = std::future::Ready<std::result::Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.0.fetch_add(request.get_ref().len() as u64, Ordering::Relaxed);
        // An empty message means that everything was accepted.
        std::future::ready(Ok(Response::new(Bytes::new())))
    }
}
