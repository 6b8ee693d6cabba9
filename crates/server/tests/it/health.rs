use std::time::Duration;

use futures::StreamExt as _;
use jackfield_server::config::PrincipalConfig;
use jackfield_transport::health::{HealthListRequest, HealthListResponse, LIVENESS, Readiness};
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::support::{TestServer, eventually, spawn, unary};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn readiness_is_shown_for_every_service_and_to_strangers() {
    let server = TestServer::start(|_| {}).await;
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 2)).await.unwrap();
    let mut health = HealthClient::new(stranger);
    for service in ["", "test.v1.Test", "grpc.health.v1.Health"] {
        eventually("serving", async || {
            health.check(of(service)).await.unwrap().get_ref().status() == ServingStatus::Serving
        })
        .await;
    }
    assert_eq!(health.check(of("nothing")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = health.watch(of("nothing")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    let mut watch = health.watch(of("test.v1.Test")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.ready.send_replace(Readiness::NotReady);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.ready.send_replace(Readiness::Ready);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let open = tokio::time::timeout(Duration::from_millis(50), unknown.message()).await;
    assert!(open.is_err(), "a watch of an unknown service stays open: {open:?}");
}

#[tokio::test]
async fn a_process_that_is_not_ready_is_alive() {
    let server = TestServer::start(|_| {}).await;
    server.ready.send_replace(Readiness::NotReady);
    let mut health = HealthClient::new(server.channel().await);
    eventually("not serving", async || {
        health.check(of("")).await.unwrap().get_ref().status() == ServingStatus::NotServing
    })
    .await;
    assert_eq!(health.check(of(LIVENESS)).await.unwrap().get_ref().status(), ServingStatus::Serving);
    let mut watch = health.watch(of(LIVENESS)).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn list_names_all_services() {
    let server = TestServer::start(|_| {}).await;
    let mut client = tonic::client::Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let codec = ProstCodec::<HealthListRequest, HealthListResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/List");
    let answer = client.unary(Request::new(HealthListRequest {}), path, codec).await.unwrap().into_inner();
    assert!(answer.statuses.contains_key("") && answer.statuses.contains_key("test.v1.Test"), "{answer:?}");
}

#[tokio::test]
async fn the_plaintext_health_listener_serves_nothing_else() {
    let server = TestServer::start(|config| config.listen.health_address = "127.0.0.1:0".into()).await;
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.health_address.unwrap())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    eventually("serving", async || health.check(of("")).await.unwrap().get_ref().status() == ServingStatus::Serving)
        .await;
    assert_eq!(unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn reflection_is_for_known_callers_and_lists_the_methods() {
    let server = TestServer::start(|_| {}).await;
    let ask = |message| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        Request::new(futures::stream::iter([request]))
    };
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 2)).await.unwrap();
    let listing = MessageRequest::ListServices(String::new());
    let refused = ServerReflectionClient::new(stranger).server_reflection_info(ask(listing.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let mut client = ServerReflectionClient::new(server.channel().await);
    let mut answers = client.server_reflection_info(ask(listing)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["test.v1.Test", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("grpc.health.v1.Health.List".into());
    let mut answers = client.server_reflection_info(ask(symbol)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
}

#[tokio::test]
async fn probes_have_their_own_connections() {
    let server = TestServer::start(|config| {
        config.listen.health_address = "127.0.0.1:0".into();
        config.limits.max_connections = 1;
    })
    .await;
    let full = server.channel().await;
    unary(&full, "Whoami", Duration::ZERO).await.unwrap();
    let address = format!("http://{}", server.health_address.unwrap());
    let probe = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    HealthClient::new(probe).check(of("")).await.unwrap();
}

#[tokio::test]
async fn a_conversation_with_reflection_ends() {
    let server = TestServer::start(|config| config.streams.total_timeout = Duration::from_millis(200)).await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let silent = Request::new(futures::stream::pending::<ServerReflectionRequest>());
    let asked = async { client.server_reflection_info(silent).await.unwrap().into_inner().message().await };
    let ended = tokio::time::timeout(crate::support::PATIENCE, asked).await.expect("it ends");
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
}

/// grpcurl keeps its conversation open until its call has ended, and asks nothing in it meanwhile.
#[tokio::test]
async fn a_conversation_in_which_nothing_is_asked_ends_without_an_error() {
    let server = TestServer::start(|_| {}).await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let once = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let silent = futures::stream::iter([once]).chain(futures::stream::pending());
    let mut answers = client.server_reflection_info(Request::new(silent)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let ended = tokio::time::timeout(crate::support::PATIENCE, answers.message()).await.expect("it ends");
    assert_eq!(ended.unwrap(), None);
}

/// Opens watches until one is refused with `reason`. They stay open as long as the result lives.
async fn watches(channel: &Channel, reason: &str) -> Vec<tonic::Streaming<HealthCheckResponse>> {
    let mut open = Vec::new();
    loop {
        match HealthClient::new(channel.clone()).watch(of("")).await {
            Ok(watch) => open.push(watch.into_inner()),
            Err(status) => {
                assert_eq!(status.get_details_error_info().unwrap().reason, reason, "{status:?}");
                return open;
            }
        }
    }
}

#[tokio::test]
async fn watches_of_one_caller_leave_room_for_others() {
    let server = TestServer::start(|config| {
        config.streams.max_open = 40;
        config.limits.max_connections_per_identity = 4;
    })
    .await;
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 2)).await.unwrap();
    let of_stranger = watches(&stranger, "RATE_LIMITED").await;
    assert_eq!(of_stranger.len(), 4, "one for each connection that it may have");
    let caller = server.channel().await;
    let of_caller = watches(&caller, "RATE_LIMITED").await;
    assert_eq!(of_caller.len(), 4);
    drop(of_stranger);
    eventually("room again", async || HealthClient::new(stranger.clone()).watch(of("")).await.is_ok()).await;
}

#[tokio::test]
async fn conversations_of_one_caller_leave_room_for_others() {
    let server = TestServer::start(|config| {
        config.identity.principals.push(PrincipalConfig {
            name: "other".into(),
            tenant: "tenant".into(),
            spiffe: "spiffe://test.example/other".into(),
            ..PrincipalConfig::default()
        });
    })
    .await;
    let silent = || Request::new(futures::stream::pending::<ServerReflectionRequest>());
    // A connection has a limit of its own.
    let greedy = [server.channel().await, server.channel().await, server.channel().await];
    let mut open = Vec::new();
    let refused = loop {
        match ServerReflectionClient::new(greedy[open.len() / 50].clone()).server_reflection_info(silent()).await {
            Ok(conversation) => open.push(conversation),
            Err(status) => break status,
        }
        assert!(open.len() <= 128, "there is a limit");
    };
    assert_eq!((open.len(), refused.code()), (128, Code::ResourceExhausted), "{refused:?}");
    assert!(refused.message().contains("reflection") && refused.message().contains("-protoset"), "{refused:?}");
    let other = server.connect(&server.pki.client("spiffe://test.example/other", 2)).await.unwrap();
    ServerReflectionClient::new(other).server_reflection_info(silent()).await.unwrap();
}

#[tokio::test]
async fn unfinished_probes_leave_room_for_others() {
    let server = TestServer::start(|_| {}).await;
    let channel = server.channel().await;
    for _ in 0..90 {
        let mut client = tonic::client::Grpc::new(channel.clone());
        spawn(async move {
            // A refused probe is retried until all places of this caller are taken.
            for _ in 0..100 {
                client.ready().await.unwrap();
                let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
                let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
                let call = client.client_streaming(Request::new(futures::stream::pending()), path, codec);
                match call.await.map(drop) {
                    Err(status) if status.code() == Code::ResourceExhausted => sleep(Duration::from_millis(10)).await,
                    _ => return,
                }
            }
        });
    }
    let mut greedy = HealthClient::new(channel);
    eventually("no more room for the greedy caller", async || greedy.check(of("")).await.is_err()).await;
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 2)).await.unwrap();
    HealthClient::new(stranger).check(of("")).await.unwrap();
    eventually("room again", async || greedy.check(of("")).await.is_ok()).await;
}
