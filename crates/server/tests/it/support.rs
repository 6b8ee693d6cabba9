//! A server on a free port with its own certificates, and a service that does what a test asks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use jackfield_api::v1::ErrorReason;
use jackfield_domain::principal::Principal;
use jackfield_domain::{Error, TenantId};
use jackfield_server::config::{Config, PrincipalConfig};
use jackfield_server::grpc::reason::reason_name;
use jackfield_transport::Server;
use jackfield_transport::backend::{Backend, RouteContext};
use jackfield_transport::call::identity::{ConfiguredPrincipal, Tenants};
use jackfield_transport::call::status::status;
use jackfield_transport::health::Readiness;
use jackfield_transport::telemetry::Meters;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::service::RoutesBuilder;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tracing_subscriber::fmt::TestWriter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

use crate::pki::{Pair, Pki};

/// The time limit of every wait that could hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CALLER: &str = "spiffe://test.example/caller";

/// The log lines of all servers of this process.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A writer to [`LOG`].
struct Log;

/// A running server.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) health_address: Option<SocketAddr>,
    pub(crate) metrics_address: Option<SocketAddr>,
    pub(crate) meters: Meters,
    pub(crate) pki: Pki,
    pub(crate) ready: watch::Sender<Readiness>,
    pub(crate) steps: Steps,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) ended: JoinHandle<bool>,
}

// === impl TestServer ===

impl TestServer {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> TestServer {
        Self::start_with(Pki::new(), change).await
    }

    pub(crate) async fn start_with(pki: Pki, change: impl FnOnce(&mut Config)) -> TestServer {
        // The first test installs the subscriber for all.
        let writer = TestWriter::new().and(|| Log);
        let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).with_env_filter("debug").try_init();
        let mut config = Config::default();
        config.listen.address = "127.0.0.1:0".into();
        config.data_dir = pki.directory.path().to_owned();
        config.tls.certificate = pki.path("server.pem");
        config.tls.private_key = pki.path("server-key.pem");
        config.tls.client_ca = pki.path("ca.pem");
        config.tls.reload_interval = Duration::from_millis(50);
        config.drain.delay = Duration::from_millis(10);
        config.drain.grace = Duration::from_secs(5);
        config.identity.principals = vec![PrincipalConfig {
            name: "caller".into(),
            tenant: "tenant".into(),
            rights: vec!["*".into()],
            spiffe: CALLER.into(),
            ..PrincipalConfig::default()
        }];
        change(&mut config);
        let ready = watch::Sender::new(Readiness::Ready);
        let backend = Arc::new(TestBackend { ready: ready.subscribe(), steps: Arc::default() });
        let steps = backend.steps.clone();
        let server = Server::bind(config.transport(), backend).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        TestServer {
            address: server.local_addr().unwrap_or(([127, 0, 0, 1], 0).into()),
            health_address: server.health_addr(),
            metrics_address: server.metrics_addr(),
            meters: server.meters(),
            pki,
            ready,
            steps,
            stop: Some(stop),
            ended: spawn(server.serve(async move {
                let _ = stopped.await;
            })),
        }
    }

    /// Begins to stop the server.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// A channel of the known caller.
    pub(crate) async fn channel(&self) -> Channel {
        self.connect(&self.pki.client(CALLER, 1)).await.unwrap()
    }

    /// The value on the metrics page for a name and an attribute, both in the notation of Prometheus; `None` if it is
    /// absent.
    pub(crate) fn metric(&self, name: &str, attribute: &str) -> Option<f64> {
        let page = self.meters.page().unwrap();
        let mut lines = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(attribute)
        });
        let value = lines.next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
        assert_eq!(lines.next(), None, "{name} with {attribute} is one line");
        value
    }

    pub(crate) async fn connect(&self, client: &Pair) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.pki.read("ca.pem")))
            .domain_name("localhost")
            .identity(Identity::from_pem(&client.certificate, &client.key));
        Endpoint::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap().connect().await
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for its tasks itself")]
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// Asserts that an error comes from the connection and is not an answer of the server.
pub(crate) fn assert_no_answer(error: &Status) {
    assert!(error.metadata().get("x-request-id").is_none() && error.details().is_empty(), "{error:?}");
}

/// Returns whether a log line contains all these parts. All tests share the log.
pub(crate) fn logged(parts: &[&str]) -> bool {
    let log = LOG.lock().unwrap();
    String::from_utf8_lossy(&log).lines().any(|line| parts.iter().all(|part| line.contains(part)))
}

/// Waits for something to become true.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < end, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === impl Log ===

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A service that does what a test asks for: sleeps, streams at a pace, panics, fails.
pub(crate) struct TestBackend {
    pub(crate) ready: watch::Receiver<Readiness>,
    pub(crate) steps: Steps,
}

/// The steps that the server has taken with the service.
pub(crate) type Steps = Arc<Mutex<Vec<&'static str>>>;

impl Backend for TestBackend {
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder) {
        routes.add_service(TestService { drain: context.drain.clone() });
    }

    fn start(&self, _: &RouteContext) {
        self.steps.lock().unwrap().push("start");
    }

    fn add_instruments(&self, _: &Meters) {}

    fn descriptor_set(&self) -> &'static [u8] {
        static SET: OnceLock<Vec<u8>> = OnceLock::new();
        SET.get_or_init(|| {
            let method = |name: &str, lists| MethodDescriptorProto {
                name: Some(name.into()),
                input_type: Some(".google.protobuf.Duration".into()),
                output_type: Some(if lists { ".test.v1.Page" } else { ".google.protobuf.Duration" }.into()),
                server_streaming: Some(lists),
                ..MethodDescriptorProto::default()
            };
            let token = FieldDescriptorProto {
                name: Some("next_page_token".into()),
                number: Some(1),
                label: Some(Label::Optional.into()),
                r#type: Some(Type::String.into()),
                ..FieldDescriptorProto::default()
            };
            let page = DescriptorProto { name: Some("Page".into()), field: vec![token], ..DescriptorProto::default() };
            let service = ServiceDescriptorProto {
                name: Some("Test".into()),
                method: vec![
                    method("Sleep", false),
                    method("Whoami", false),
                    method("Panic", false),
                    method("Fail", false),
                    method("Stream", true),
                    method("Flood", true),
                ],
                ..ServiceDescriptorProto::default()
            };
            let file = FileDescriptorProto {
                name: Some("test.proto".into()),
                package: Some("test.v1".into()),
                syntax: Some("proto3".into()),
                message_type: vec![page],
                service: vec![service],
                ..FileDescriptorProto::default()
            };
            FileDescriptorSet { file: vec![file] }.encode_to_vec()
        })
    }

    fn error_reasons(&self) -> Vec<&'static str> {
        (1..100).filter_map(|n| ErrorReason::try_from(n).ok()).map(reason_name).collect()
    }

    fn tenants(&self) -> Arc<dyn Tenants> {
        Arc::new(OneTenant)
    }

    fn probe(&self) -> BoxFuture<'static, Readiness> {
        let ready = *self.ready.borrow();
        async move { ready }.boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.steps.lock().unwrap().push("close");
        async {}.boxed()
    }
}

struct OneTenant;

impl Tenants for OneTenant {
    fn resolve(&self, principal: Arc<ConfiguredPrincipal>) -> BoxFuture<'static, jackfield_domain::Result<TenantId>> {
        let tenant = principal.tenant.clone();
        async move { if tenant == "tenant" { Ok(TenantId::SYSTEM) } else { Err(Error::TenantUnknown { tenant }) } }
            .boxed()
    }
}

#[derive(Clone)]
struct TestService {
    drain: tokio_util::sync::CancellationToken,
}

impl NamedService for TestService {
    const NAME: &'static str = "test.v1.Test";
}

impl Service<http::Request<Body>> for TestService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<prost_types::Duration, prost_types::Duration>::default());
            Ok(match request.uri().path().rsplit('/').next() {
                Some("Sleep") => grpc.unary(Sleep, request).await,
                Some("Whoami") => grpc.unary(Whoami, request).await,
                Some("Panic") => grpc.unary(Panic, request).await,
                Some("Fail") => grpc.unary(Fail, request).await,
                Some("Stream") => grpc.server_streaming(Ticks(service), request).await,
                _ => grpc.server_streaming(Flood, request).await,
            })
        })
    }
}

type Answer = Result<Response<prost_types::Duration>, Status>;

macro_rules! unary {
    ($($name:ident => |$request:ident| $body:expr;)*) => {$(
        struct $name;

        impl UnaryService<prost_types::Duration> for $name {
            type Response = prost_types::Duration;
            type Future = BoxFuture<'static, Answer>;

            fn call(&mut self, $request: Request<prost_types::Duration>) -> Self::Future {
                async move { $body }.boxed()
            }
        }
    )*};
}

unary! {
    Sleep => |request| {
        tokio::time::sleep(duration(request.get_ref())).await;
        Ok(Response::new(request.into_inner()))
    };
    // 1 second in the answer means the principal "caller" of the tenant.
    Whoami => |request| {
        let principal = request.extensions().get::<Principal>().cloned();
        let known = principal.is_some_and(|p| &*p.name == "caller" && p.tenant == TenantId::SYSTEM);
        Ok(Response::new(prost_types::Duration { seconds: i64::from(known), nanos: 0 }))
    };
    Panic => |_request| panic!("canary of a panic");
    Fail => |_request| Err(status(Error::internal("canary of a cause")));
}

/// A stream with an item at each interval, until the drain.
struct Ticks(TestService);

impl ServerStreamingService<prost_types::Duration> for Ticks {
    type Response = prost_types::Duration;
    type ResponseStream = BoxStream<'static, Result<prost_types::Duration, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<prost_types::Duration>) -> Self::Future {
        let drain = self.0.drain.clone();
        let pause = duration(request.get_ref());
        let stream = async_stream::stream! {
            for seconds in 0.. {
                yield Ok(prost_types::Duration { seconds, nanos: 0 });
                if drain.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    yield Err(status(Error::ServerUnavailable { retry_after: Duration::from_secs(1) }));
                    return;
                }
            }
        };
        async { Ok(Response::new(stream.boxed())) }.boxed()
    }
}

/// An endless stream of items, as fast as they are read.
struct Flood;

impl ServerStreamingService<prost_types::Duration> for Flood {
    type Response = prost_types::Duration;
    type ResponseStream = BoxStream<'static, Result<prost_types::Duration, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<prost_types::Duration>) -> Self::Future {
        let items = futures::stream::repeat_with(|| Ok(prost_types::Duration { seconds: i64::MAX, nanos: 1 }));
        async { Ok(Response::new(items.boxed())) }.boxed()
    }
}

fn duration(message: &prost_types::Duration) -> Duration {
    Duration::new(message.seconds.try_into().unwrap(), message.nanos.try_into().unwrap())
}

pub(crate) fn message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs().try_into().unwrap(), nanos: duration.subsec_nanos() as i32 }
}

/// Calls a unary method of the test service.
pub(crate) async fn unary(
    channel: &Channel,
    method: &str,
    duration: Duration,
) -> Result<prost_types::Duration, Status> {
    unary_request(channel, method, Request::new(message(duration))).await
}

pub(crate) async fn unary_request(
    channel: &Channel,
    method: &str,
    request: Request<prost_types::Duration>,
) -> Result<prost_types::Duration, Status> {
    let mut client = Client::new(channel.clone());
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = format!("/test.v1.Test/{method}").parse().unwrap();
    let codec = ProstCodec::<prost_types::Duration, prost_types::Duration>::default();
    client.unary(request, path, codec).await.map(Response::into_inner)
}

/// Opens a stream of the test service.
pub(crate) async fn stream(
    channel: &Channel,
    method: &str,
    request: Request<prost_types::Duration>,
) -> Result<tonic::Streaming<prost_types::Duration>, Status> {
    let mut client = Client::new(channel.clone());
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = format!("/test.v1.Test/{method}").parse().unwrap();
    let codec = ProstCodec::<prost_types::Duration, prost_types::Duration>::default();
    client.server_streaming(request, path, codec).await.map(Response::into_inner)
}
