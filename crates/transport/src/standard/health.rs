//! `grpc.health.v1`: Check, Watch and List. Readiness follows what the service behind this server needs.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use crate::call::status::{health_service_unknown, status};

/// Size of a request message in bytes. Callers are not authenticated, and only send the name of a service.
pub(crate) const MAX_REQUEST_MESSAGE: usize = 1024;
/// Name that is SERVING as long as the process answers at all, for probes that restart what they find dead: a restart does
/// not bring a database back.
pub const LIVENESS: &str = "liveness";
const LIST_PATH: &str = "/grpc.health.v1.Health/List";
/// The time after which a database or keyring that does not answer counts as not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The state in which calls succeed, or do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Database and keyring answer.
    Ready,
    /// One of them does not, or the server stops.
    NotReady,
}

/// Asks the service behind this server whether it is ready.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Readiness> + Send + Sync>;

/// The state that all health services show.
#[derive(Clone, Debug)]
pub struct HealthState {
    readiness: Arc<watch::Sender<Readiness>>,
    draining: CancellationToken,
}

/// The service. One state for all names: there is one process behind them.
#[derive(Clone, Debug)]
pub struct HealthService {
    services: Arc<BTreeSet<String>>,
    readiness: watch::Receiver<Readiness>,
    /// Ends watches at drain.
    drain: CancellationToken,
}

/// [`HealthServer`] and the method List, which the generated code does not have yet.
#[derive(Clone, Debug)]
pub struct HealthRoute {
    service: HealthService,
    server: HealthServer<HealthService>,
}

/// Request of List.
#[derive(Clone, PartialEq, Message)]
pub struct HealthListRequest {}

/// Response of List.
#[derive(Clone, PartialEq, Message)]
pub struct HealthListResponse {
    /// The state of each service, by full name.
    #[prost(btree_map = "string, message", tag = "1")]
    pub statuses: BTreeMap<String, HealthCheckResponse>,
}

// === impl HealthState ===

impl HealthState {
    /// Makes a state that is not ready until the first probe says otherwise.
    #[expect(
        clippy::new_without_default,
        reason = "a state that is never probed never becomes ready: make it on purpose"
    )]
    pub fn new() -> Self {
        let readiness = Arc::new(watch::Sender::new(Readiness::NotReady));
        HealthState { readiness, draining: CancellationToken::new() }
    }

    /// Returns the state that the services show.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Shows NOT_SERVING from now on, whatever probes say.
    pub fn start_draining(&self) {
        self.draining.cancel();
        self.set(Readiness::NotReady);
    }

    /// Probes at intervals until `stop`.
    pub async fn probe(self, probe: Probe, interval: Duration, stop: CancellationToken) {
        loop {
            let readiness = tokio::time::timeout(PROBE_TIMEOUT, probe()).await.unwrap_or(Readiness::NotReady);
            self.set(readiness);
            if stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
                return;
            }
        }
    }

    fn set(&self, asked: Readiness) {
        let draining = self.draining.is_cancelled();
        self.readiness.send_if_modified(|readiness| {
            let new = if draining { Readiness::NotReady } else { asked };
            let changed = *readiness != new;
            *readiness = new;
            if changed {
                tracing::info!(ready = new == Readiness::Ready, draining, "readiness changed");
            }
            changed
        });
    }
}

// === impl HealthService ===

impl HealthService {
    /// Makes a service that answers for these services, for the empty name and for [`LIVENESS`]; `drain` ends watches.
    pub fn new(services: Vec<String>, readiness: watch::Receiver<Readiness>, drain: CancellationToken) -> Self {
        let mut services: BTreeSet<String> = services.into_iter().collect();
        services.extend([String::new(), LIVENESS.to_owned()]);
        HealthService { services: Arc::new(services), readiness, drain }
    }

    /// Makes a route of it.
    pub fn into_route(self) -> HealthRoute {
        let server = HealthServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_REQUEST_MESSAGE);
        HealthRoute { server, service: self }
    }

    fn list(&self) -> HealthListResponse {
        let readiness = *self.readiness.borrow();
        let status = |name: &String| (name.clone(), answer(serving(name, readiness)));
        HealthListResponse { statuses: self.services.iter().map(status).collect() }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        if !self.services.contains(name) {
            return Err(health_service_unknown());
        }
        Ok(Response::new(answer(serving(name, *self.readiness.borrow()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let known = self.services.contains(&name);
        let mut readiness = self.readiness.clone();
        let drain = self.drain.clone();
        let stream = async_stream::stream! {
            let mut shown = None;
            loop {
                let now = if known { serving(&name, *readiness.borrow_and_update()) } else { ServingStatus::ServiceUnknown };
                if shown != Some(now) {
                    shown = Some(now);
                    yield Ok(answer(now));
                }
                // A watch of an unknown name stays open, as the contract of health asks.
                if !matches!(drain.run_until_cancelled(readiness.changed()).await, Some(Ok(()))) {
                    let retry_after = Duration::from_secs(1);
                    yield Err(status(jackfield_domain::Error::ServerUnavailable { retry_after }));
                    return;
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }
}

fn serving(name: &str, readiness: Readiness) -> ServingStatus {
    match readiness {
        Readiness::NotReady if name != LIVENESS => ServingStatus::NotServing,
        Readiness::NotReady | Readiness::Ready => ServingStatus::Serving,
    }
}

const fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

// === impl HealthRoute ===

impl NamedService for HealthRoute {
    const NAME: &'static str = <HealthServer<HealthService> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for HealthRoute {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != LIST_PATH {
            return Service::call(&mut self.server, request);
        }
        let service = ListMethod(self.service.clone());
        Box::pin(async move {
            let codec = ProstCodec::<HealthListResponse, HealthListRequest>::default();
            let mut grpc = Grpc::new(codec)
                .accept_compressed(CompressionEncoding::Gzip)
                .apply_max_message_size_config(Some(MAX_REQUEST_MESSAGE), None);
            Ok(grpc.unary(service, request).await)
        })
    }
}

struct ListMethod(HealthService);

impl UnaryService<HealthListRequest> for ListMethod {
    type Response = HealthListResponse;
    type Future = std::future::Ready<Result<Response<HealthListResponse>, Status>>;

    fn call(&mut self, _: Request<HealthListRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.list())))
    }
}

/// The descriptors of health with the method List.
///
/// # Errors
/// The descriptors that come with the generated code do not decode.
pub fn descriptor_set() -> Result<Vec<u8>, prost::DecodeError> {
    let mut set = FileDescriptorSet::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
    for file in set.file.iter_mut().filter(|file| file.package() == "grpc.health.v1") {
        let Some(service) = file.service.iter_mut().find(|service| service.name() == "Health") else { continue };
        if service.method.iter().any(|method| method.name() == "List") {
            continue;
        }
        service.method.push(MethodDescriptorProto {
            name: Some("List".into()),
            input_type: Some(".grpc.health.v1.HealthListRequest".into()),
            output_type: Some(".grpc.health.v1.HealthListResponse".into()),
            ..MethodDescriptorProto::default()
        });
        let request = DescriptorProto { name: Some("HealthListRequest".into()), ..DescriptorProto::default() };
        file.message_type.push(request);
        file.message_type.push(list_response_descriptor());
    }
    Ok(set.encode_to_vec())
}

/// `map<string, HealthCheckResponse> statuses = 1;` as descriptors spell it.
fn list_response_descriptor() -> DescriptorProto {
    let field = |name: &str, number, kind: Type, label: Label, type_name: Option<&str>| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(label.into()),
        type_name: type_name.map(Into::into),
        json_name: Some(name.into()),
        ..FieldDescriptorProto::default()
    };
    let entry = DescriptorProto {
        name: Some("StatusesEntry".into()),
        field: vec![
            field("key", 1, Type::String, Label::Optional, None),
            field("value", 2, Type::Message, Label::Optional, Some(".grpc.health.v1.HealthCheckResponse")),
        ],
        options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..DescriptorProto::default()
    };
    let map = ".grpc.health.v1.HealthListResponse.StatusesEntry";
    DescriptorProto {
        name: Some("HealthListResponse".into()),
        field: vec![field("statuses", 1, Type::Message, Label::Repeated, Some(map))],
        nested_type: vec![entry],
        ..DescriptorProto::default()
    }
}
