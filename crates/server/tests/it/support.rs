//! A server on a free port with certificates of its own, and a service that does what a test asks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use jackfield_domain::principal::Principal;
use jackfield_domain::{Error, TenantId};
use jackfield_server::Server;
use jackfield_server::backend::{Backend, RouteContext};
use jackfield_server::config::{Config, PrincipalConfig};
use jackfield_server::grpc::status::status;
use jackfield_server::health::Readiness;
use jackfield_server::identity::Tenants;
use jackfield_server::telemetry::Meters;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
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

/// Every test that could hang ends by this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CALLER: &str = "spiffe://test.example/caller";

/// A running server.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) health_address: Option<SocketAddr>,
    pub(crate) metrics_address: Option<SocketAddr>,
    pub(crate) meters: Meters,
    pub(crate) pki: Pki,
    pub(crate) ready: watch::Sender<Readiness>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) ended: JoinHandle<bool>,
}

/// An authority in a directory, with the files that the server reads.
pub(crate) struct Pki {
    pub(crate) directory: tempfile::TempDir,
    ca: CertificateParams,
    ca_key: KeyPair,
}

/// A certificate to be made.
pub(crate) struct Leaf<'a> {
    pub(crate) sans: Vec<SanType>,
    pub(crate) serial: u64,
    pub(crate) common_name: &'a str,
    /// Seconds from now.
    pub(crate) valid_for: i64,
    pub(crate) usage: ExtendedKeyUsagePurpose,
}

/// Certificate and key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// === impl TestServer ===

impl TestServer {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> TestServer {
        Self::start_with(Pki::new(), change).await
    }

    pub(crate) async fn start_with(pki: Pki, change: impl FnOnce(&mut Config)) -> TestServer {
        // The subscriber of the first test is the one of all; it makes the logging code run.
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("debug").try_init();
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
        let backend = Arc::new(TestBackend { ready: ready.subscribe() });
        let server = Server::bind(config, backend).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        TestServer {
            address: server.local_addr().unwrap_or(([127, 0, 0, 1], 0).into()),
            health_address: server.health_addr(),
            metrics_address: server.metrics_addr(),
            meters: server.meters(),
            pki,
            ready,
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

    /// A channel as the known caller.
    pub(crate) async fn channel(&self) -> Channel {
        self.connect(&self.pki.client(CALLER, 1)).await.unwrap()
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

/// An error of the connection, not one that the server answered.
pub(crate) fn assert_no_answer(error: &Status) {
    assert!(error.metadata().get("x-request-id").is_none() && error.details().is_empty(), "{error:?}");
}

/// Waits for something to become true.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === impl Pki ===

impl Pki {
    pub(crate) fn new() -> Pki {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, "test CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate().unwrap();
        let pki = Pki { directory: tempfile::tempdir().unwrap(), ca_key, ca };
        pki.write("ca.pem", &pki.ca.self_signed(&pki.ca_key).unwrap().pem());
        pki.write_server(100);
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        write_atomically(&self.path(name), content);
    }

    pub(crate) fn write_server(&self, serial: u64) {
        let server = self.issue(&Leaf {
            sans: vec![SanType::DnsName("localhost".try_into().unwrap())],
            serial,
            common_name: "server",
            valid_for: 3_600,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        });
        self.write("server-key.pem", &server.key);
        self.write("server.pem", &server.certificate);
    }

    pub(crate) fn client(&self, uri: &str, serial: u64) -> Pair {
        self.issue(&Leaf {
            sans: vec![SanType::URI(uri.try_into().unwrap())],
            serial,
            common_name: "client",
            valid_for: 3_600,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        })
    }

    pub(crate) fn issue(&self, leaf: &Leaf<'_>) -> Pair {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        params.subject_alt_names = leaf.sans.clone();
        params.serial_number = Some(SerialNumber::from(leaf.serial));
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.not_before = (now() - Duration::from_secs(3_600)).into();
        params.not_after = match u64::try_from(leaf.valid_for) {
            Ok(seconds) => (now() + Duration::from_secs(seconds)).into(),
            Err(_) => (now() - Duration::from_secs(leaf.valid_for.unsigned_abs())).into(),
        };
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.ca, &self.ca_key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn write_crl(&self, revoked: &[u64]) {
        let params = CertificateRevocationListParams {
            this_update: (now() - Duration::from_secs(60)).into(),
            next_update: (now() + Duration::from_secs(3_600)).into(),
            crl_number: SerialNumber::from(revoked.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: (now() - Duration::from_secs(1)).into(),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&Issuer::from_params(&self.ca, &self.ca_key)).unwrap();
        self.write("crl.pem", &crl.pem().unwrap());
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the machine's clock")]
pub(crate) fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn write_atomically(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Echoes after a delay, streams at a pace, panics, fails: what a test asks for.
struct TestBackend {
    ready: watch::Receiver<Readiness>,
}

impl Backend for TestBackend {
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder) {
        routes.add_service(TestService { drain: context.drain.clone() });
    }

    fn descriptor_set(&self) -> &'static [u8] {
        static SET: OnceLock<Vec<u8>> = OnceLock::new();
        SET.get_or_init(|| {
            let method = |name: &str, streaming| MethodDescriptorProto {
                name: Some(name.into()),
                input_type: Some(".google.protobuf.Duration".into()),
                output_type: Some(".google.protobuf.Duration".into()),
                server_streaming: Some(streaming),
                ..MethodDescriptorProto::default()
            };
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
                service: vec![service],
                ..FileDescriptorProto::default()
            };
            FileDescriptorSet { file: vec![file] }.encode_to_vec()
        })
    }

    fn tenants(&self) -> Arc<dyn Tenants> {
        Arc::new(OneTenant)
    }

    fn probe(&self) -> BoxFuture<'static, Readiness> {
        let ready = *self.ready.borrow();
        async move { ready }.boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

struct OneTenant;

impl Tenants for OneTenant {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, jackfield_domain::Result<TenantId>> {
        let known = name == "tenant";
        async move { if known { Ok(TenantId::SYSTEM) } else { Err(Error::TenantUnknown { tenant: name.into() }) } }
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
    // 1 second in the answer stands for the principal "caller" of the tenant.
    Whoami => |request| {
        let principal = request.extensions().get::<Principal>().cloned();
        let known = principal.is_some_and(|p| p.name == "caller" && p.tenant == TenantId::SYSTEM);
        Ok(Response::new(prost_types::Duration { seconds: i64::from(known), nanos: 0 }))
    };
    Panic => |_request| panic!("canary of a panic");
    Fail => |_request| Err(status(Error::internal("canary of a cause")));
}

/// An item each so often until drain.
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

/// Items without end, as fast as they are taken.
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

/// A connection without TLS and without a gRPC client, which would do half of the server's work.
pub(crate) struct Raw(hyper::client::conn::http2::SendRequest<http_body_util::Full<bytes::Bytes>>);

/// What came back.
pub(crate) struct RawAnswer {
    pub(crate) http_status: u16,
    /// In the headers, or in the trailers.
    pub(crate) status: Option<Status>,
}

// === impl Raw ===

impl Raw {
    /// The server must serve plaintext.
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
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
        RawAnswer { http_status, status }
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
