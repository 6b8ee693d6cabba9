//! The server with a planted fault. A harness has to detect each of them, or it proves nothing.
//!
//! Everything is real except for a layer between the transport and the services, which simulates a fault that a
//! careless change could introduce. The program is `jackfield-faulty`; the shipped server contains none of it.

mod leak;
mod stock;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use jackfield_api::v1;
use jackfield_domain::Error;
use jackfield_server::config::{Config, Sources};
use jackfield_transport::Server;
use jackfield_transport::backend::{Backend, RouteContext};
use jackfield_transport::call::identity::Tenants;
use jackfield_transport::call::status;
use jackfield_transport::health::Readiness;
use jackfield_transport::telemetry::{Meters, Tracing};
use prost::Message;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};

/// The environment variable that names the fault.
pub const VARIABLE: &str = "FAULT";

/// The length of the window in which a kill exposes the fault.
const MOMENT: Duration = Duration::from_millis(40);

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Changes are answered before they are committed.
    AnswerBeforeCommit,
    /// A credential is deleted in several transactions: its configurations one by one, then itself.
    SeveralTransactions,
    /// The answer for repeats is stored after the change is committed, outside its transaction.
    RepeatsApart,
    /// Changes with an unknown outcome are reported as failed.
    UnknownReportedAsFailure,
    /// The library's own transport serves the services, with its defaults.
    StockTransport,
    /// Requests are logged as received.
    PrintsRequests,
    /// Refusals repeat the request.
    EchoesRequests,
    /// The program uses the default allocator, so memory is not wiped. Nothing else is wrong.
    DefaultAllocator,
    /// Refusals reveal that a resource belongs to another tenant.
    RevealsOtherTenants,
    /// Answers of single reads are cached for a moment by request, not by caller.
    SharesCachedReads,
}

/// The changes: path, and the tags of `request_id` and `validate_only` in the request.
const CHANGES: [(&str, u32, u32); 9] = [
    ("/jackfield.v1.ConnectorService/CreateConnector", 3, 4),
    ("/jackfield.v1.ConnectorService/UpdateConnector", 5, 6),
    ("/jackfield.v1.ConnectorService/DeleteConnector", 5, 6),
    ("/jackfield.v1.CredentialsService/CreateCredential", 4, 5),
    ("/jackfield.v1.CredentialsService/UpdateCredential", 6, 7),
    ("/jackfield.v1.CredentialsService/DeleteCredential", 4, 5),
    ("/jackfield.v1.ConfigurationService/CreateConfiguration", 3, 4),
    ("/jackfield.v1.ConfigurationService/UpdateConfiguration", 6, 7),
    ("/jackfield.v1.ConfigurationService/DestroyConfiguration", 5, 6),
];

/// Serves as the configuration says, with the fault that the environment names.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let Err(error) = runtime.block_on(serve()) else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "jackfield-faulty: {error}");
    ExitCode::FAILURE
}

/// Arguments: `--config FILE serve`, as for the server itself. It serves until it is killed or asked to stop.
async fn serve() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let fault: String = crate::proof::setting(VARIABLE, String::new());
    let fault = Fault::ALL.into_iter().find(|known| known.as_str() == fault).ok_or("no such fault")?;
    let _ = jackfield_transport::tls::provider().as_ref().clone().install_default();
    let config = Config::load(&Sources::from_process(std::env::args_os().nth(2).map(PathBuf::from), Vec::new()))?;
    let _tracing = Tracing::init(&config.telemetry, jackfield_server::startup::driver_log::replacement)?;
    let inner = jackfield_server::open(&config, None, None).await?;
    if fault == Fault::StockTransport {
        return stock::serve(config, inner).await;
    }
    let backend = FaultyBackend { inner, fault, data_dir: config.data_dir.clone() };
    let server = Server::bind(config.transport(), Arc::new(backend)).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let ended = async move {
        let _ = terminate.recv().await;
    };
    server.serve(ended).await;
    Ok(())
}

/// The real service, with the fault in front of it.
struct FaultyBackend {
    inner: Arc<dyn Backend>,
    fault: Fault,
    data_dir: PathBuf,
}

/// The layer between the transport and the services.
#[derive(Clone)]
struct Layer {
    fault: Fault,
    inner: Routes,
    tasks: TaskTracker,
    repeats: Arc<Repeats>,
    seen: Arc<leak::Seen>,
}

/// The answers to requests with a request id, in a separate file.
struct Repeats {
    file: PathBuf,
    answers: Mutex<HashMap<String, Bytes>>,
}

/// Any error while reading a body.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

// === impl Fault ===

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 10] = [
        Fault::AnswerBeforeCommit,
        Fault::SeveralTransactions,
        Fault::RepeatsApart,
        Fault::UnknownReportedAsFailure,
        Fault::StockTransport,
        Fault::PrintsRequests,
        Fault::EchoesRequests,
        Fault::DefaultAllocator,
        Fault::RevealsOtherTenants,
        Fault::SharesCachedReads,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::AnswerBeforeCommit => "answer-before-commit",
            Fault::SeveralTransactions => "several-transactions",
            Fault::RepeatsApart => "repeats-apart",
            Fault::UnknownReportedAsFailure => "unknown-reported-as-failure",
            Fault::StockTransport => "stock-transport",
            Fault::PrintsRequests => "prints-requests",
            Fault::EchoesRequests => "echoes-requests",
            Fault::DefaultAllocator => "default-allocator",
            Fault::RevealsOtherTenants => "reveals-other-tenants",
            Fault::SharesCachedReads => "shares-cached-reads",
        }
    }
}

/// The first message of an answer. A list looks for its next page once this one is taken.
async fn first_message(mut body: Body) -> Bytes {
    let mut answer = Vec::new();
    loop {
        let length = answer.get(1..5).map(|length: &[u8]| u32::from_be_bytes(length.try_into().expect("four bytes")));
        if let Some(message) = length.and_then(|length| answer.get(5..5 + length as usize)) {
            return Bytes::copy_from_slice(message);
        }
        match body.frame().await {
            Some(Ok(frame)) => answer.extend(frame.into_data().unwrap_or_default()),
            Some(Err(_)) | None => return Bytes::new(),
        }
    }
}

// === impl FaultyBackend ===

impl Backend for FaultyBackend {
    fn add_routes(&self, context: &RouteContext, routes: &mut RoutesBuilder) {
        let mut inner = RoutesBuilder::default();
        self.inner.add_routes(context, &mut inner);
        let repeats = Arc::new(Repeats::load(&self.data_dir));
        let layer = Layer {
            fault: self.fault,
            inner: inner.routes(),
            tasks: context.tasks.clone(),
            repeats,
            seen: Arc::default(),
        };
        routes
            .add_service(AdminLayer(layer.clone()))
            .add_service(ApplicationLayer(layer.clone()))
            .add_service(ConfigurationLayer(layer.clone()))
            .add_service(ConnectionLayer(layer.clone()))
            .add_service(ConnectorLayer(layer.clone()))
            .add_service(CredentialsLayer(layer.clone()))
            .add_service(KeyLayer(layer.clone()))
            .add_service(UserConnectorLayer(layer.clone()))
            .add_service(UserLayer(layer));
    }

    fn start(&self, context: &RouteContext) {
        self.inner.start(context);
    }

    fn add_instruments(&self, meters: &Meters) {
        self.inner.add_instruments(meters);
    }

    fn descriptor_set(&self) -> &'static [u8] {
        self.inner.descriptor_set()
    }

    fn error_reasons(&self) -> Vec<&'static str> {
        self.inner.error_reasons()
    }

    fn tenants(&self) -> Arc<dyn Tenants> {
        self.inner.tenants()
    }

    fn probe(&self) -> BoxFuture<'static, Readiness> {
        self.inner.probe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }
}

macro_rules! layers {
    ($($name:ident = $service:literal),* $(,)?) => {$(
        #[derive(Clone)]
        struct $name(Layer);

        impl NamedService for $name {
            const NAME: &'static str = $service;
        }

        impl Service<Request<Body>> for $name {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<Body>) -> Self::Future {
                let layer = self.0.clone();
                async move { Ok(layer.call(request).await) }.boxed()
            }
        }
    )*};
}

layers! {
    AdminLayer = "jackfield.v1.AdminService",
    ApplicationLayer = "jackfield.v1.ApplicationService",
    ConfigurationLayer = "jackfield.v1.ConfigurationService",
    ConnectionLayer = "jackfield.v1.ConnectionService",
    ConnectorLayer = "jackfield.v1.ConnectorService",
    CredentialsLayer = "jackfield.v1.CredentialsService",
    KeyLayer = "jackfield.v1.KeyService",
    UserConnectorLayer = "jackfield.v1.UserConnectorService",
    UserLayer = "jackfield.v1.UserService",
}

// === impl Layer ===

impl Layer {
    async fn call(self, request: Request<Body>) -> Response<Body> {
        if self.fault.is_leak() {
            return self.leak(request).await;
        }
        let path = request.uri().path().to_owned();
        let change = CHANGES.into_iter().find(|(name, _, _)| *name == path);
        let Some((_, request_id, validate_only)) = change else { return self.pass(request).await };
        let (parts, body) = request.into_parts();
        // An incomplete body gets no answer: its caller is gone.
        let Ok(body) = body.collect().await else { return Response::new(Body::empty()) };
        let message = body.to_bytes().split_off(5);
        match self.fault {
            Fault::AnswerBeforeCommit => {
                let answer = self.send(&parts, &with(&message, validate_only, &[0, 1])).await;
                self.tasks.clone().spawn(async move {
                    tokio::time::sleep(MOMENT).await;
                    self.send(&parts, &message).await;
                });
                answer
            }
            Fault::SeveralTransactions if path.ends_with("/DeleteCredential") => {
                self.delete_one_by_one(&parts, &message).await;
                self.send(&parts, &message).await
            }
            Fault::SeveralTransactions => self.send(&parts, &message).await,
            Fault::RepeatsApart => self.repeatable(&parts, &message, request_id).await,
            Fault::UnknownReportedAsFailure => {
                let answer = self.send(&parts, &message).await;
                match status::reason_of(answer.headers()).as_deref() {
                    Some("OUTCOME_UNKNOWN") => {
                        let (retry_after, source) = (MOMENT, "it is not known".into());
                        status::status(Error::StoreUnavailable { retry_after, source }).into_http()
                    }
                    _ => answer,
                }
            }
            // These faults are handled elsewhere.
            Fault::StockTransport
            | Fault::PrintsRequests
            | Fault::EchoesRequests
            | Fault::DefaultAllocator
            | Fault::RevealsOtherTenants
            | Fault::SharesCachedReads => self.send(&parts, &message).await,
        }
    }

    /// Deletes the configurations of the credential that is to be deleted, one by one.
    async fn delete_one_by_one(&self, parts: &Parts, message: &[u8]) {
        let Ok(request) = v1::DeleteCredentialRequest::decode(message) else { return };
        let list = v1::ListConfigurationsRequest { credential: request.reference.clone(), ..Default::default() };
        let listed = self.ask(parts, "/jackfield.v1.ConfigurationService/ListConfigurations", &list).await;
        let Ok(listed) = v1::ListConfigurationsResponse::decode(listed) else { return };
        for configuration in listed.configurations.into_iter().filter(|configuration| !configuration.is_default) {
            let destroy = v1::DestroyConfigurationRequest {
                reference: configuration.id,
                credential: configuration.credential,
                ..Default::default()
            };
            self.ask(parts, "/jackfield.v1.ConfigurationService/DestroyConfiguration", &destroy).await;
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Answers a repeat from the file. Writes any other answer to the file, but too late.
    async fn repeatable(&self, parts: &Parts, message: &Bytes, tag: u32) -> Response<Body> {
        let Some(request_id) = text(message, tag) else { return self.send(parts, message).await };
        let key = format!("{} {request_id}", parts.uri.path());
        if let Some(answer) = self.repeats.find(&key) {
            return answered(answer);
        }
        let (mut head, body) = self.send(parts, &with(message, tag, &[2, 0])).await.into_parts();
        let Ok(body) = body.collect().await else { return Response::from_parts(head, Body::empty()) };
        let (trailers, answer) = (body.trailers().cloned(), body.to_bytes());
        if answer.is_empty() {
            head.headers.extend(trailers.unwrap_or_default());
            return Response::from_parts(head, Body::empty());
        }
        tokio::time::sleep(MOMENT).await;
        self.repeats.keep(key, answer.clone());
        answered(answer)
    }

    /// The first message that a method answers with.
    async fn ask(&self, parts: &Parts, path: &'static str, message: &impl Message) -> Bytes {
        let mut parts = parts.clone();
        parts.uri = path.parse().expect("a path");
        // A separate call: nothing in it comes from the client's own call.
        let (layer, message) = (self.clone(), message.encode_to_vec());
        let asked = self.tasks.spawn(async move {
            let body = layer.send(&parts, &message.into()).await.into_body();
            first_message(body).await
        });
        asked.await.unwrap_or_default()
    }

    async fn send(&self, parts: &Parts, message: &Bytes) -> Response<Body> {
        let length = u32::try_from(message.len()).expect("a message of a few bytes");
        let frame = [&[0], &length.to_be_bytes()[..], message].concat();
        let body = Full::new(Bytes::from(frame)).map_err(|never| -> BodyError { match never {} });
        self.pass(Request::from_parts(parts.clone(), Body::new(body))).await
    }

    async fn pass(&self, request: Request<Body>) -> Response<Body> {
        match self.inner.clone().call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// A message with an additional field that overrides the existing one. `value` is the wire type and the byte after the
/// tag.
fn with(message: &Bytes, tag: u32, value: &[u8; 2]) -> Bytes {
    let key = u8::try_from(tag << 3).expect("a low tag") | value[0];
    [&message[..], &[key, value[1]]].concat().into()
}

/// The text in a field of a message; `None` if it is empty.
fn text(message: &[u8], tag: u32) -> Option<String> {
    use prost::encoding::{DecodeContext, WireType, decode_key, skip_field, string};
    let (mut rest, mut found) = (message, String::new());
    while !rest.is_empty() {
        let (field, wire) = decode_key(&mut rest).ok()?;
        if field == tag && wire == WireType::LengthDelimited {
            string::merge(wire, &mut found, &mut rest, DecodeContext::default()).ok()?;
        } else {
            skip_field(wire, field, &mut rest, DecodeContext::default()).ok()?;
        }
    }
    Some(found).filter(|text| !text.is_empty())
}

/// A successful answer.
fn answered(frame: Bytes) -> Response<Body> {
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(frame).map_err(|never| -> BodyError { match never {} });
    let mut response = Response::new(Body::new(body.with_trailers(std::future::ready(Some(Ok(trailers))))));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

// === impl Repeats ===

impl Repeats {
    fn load(data_dir: &Path) -> Self {
        let file = data_dir.join("repeats");
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let answers = lines.lines().filter_map(|line| {
            let (key, answer) = line.rsplit_once(' ')?;
            Some((key.to_owned(), hex::decode(answer).ok()?.into()))
        });
        Self { answers: Mutex::new(answers.collect()), file }
    }

    fn find(&self, key: &str) -> Option<Bytes> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: String, answer: Bytes) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{key} {}\n", hex::encode(&answer));
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&self.file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("a file for answers");
        answers.insert(key, answer);
    }
}
