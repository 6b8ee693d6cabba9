use std::time::Duration;

use jackfield_server::config::{Config, PrincipalConfig};
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt as _;

use crate::raw::{Raw, framed};
use crate::support::{PATIENCE, TestServer, assert_no_answer, eventually, message, spawn, stream, unary};

const SECOND: &str = "spiffe://test.example/second";

#[tokio::test]
async fn calls_beyond_the_limit_are_shed_but_health_checks_are_not() {
    let server = TestServer::start(|config| config.limits.max_calls = 1).await;
    let channel = server.channel().await;
    let busy = spawn({
        let channel = channel.clone();
        async move { unary(&channel, "Sleep", Duration::from_secs(2)).await }
    });
    eventually("the call is running", async || server.meters.page().unwrap().contains("Test/Sleep")).await;
    let shed = unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err();
    assert_eq!(shed.code(), Code::Unavailable);
    assert_eq!(shed.get_details_error_info().unwrap().reason, "SERVER_UNAVAILABLE");
    assert!(shed.get_details_retry_info().unwrap().retry_delay.is_some());
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    busy.await.unwrap().unwrap();
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn one_identity_does_not_fill_the_server() {
    let server = TestServer::start(|config| config.limits.max_calls_per_identity = 1).await;
    let channel = server.channel().await;
    let busy = spawn({
        let channel = channel.clone();
        async move { unary(&channel, "Sleep", Duration::from_secs(2)).await }
    });
    eventually("the call is running", async || server.meters.page().unwrap().contains("Test/Sleep")).await;
    let refused = unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "RATE_LIMITED");
    // Unknown callers have separate room, and receive the reason.
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 2)).await.unwrap();
    assert_eq!(unary(&stranger, "Whoami", Duration::ZERO).await.unwrap_err().code(), Code::Unauthenticated);
    busy.await.unwrap().unwrap();
    for _ in 0..20 {
        unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_of_an_identity_are_closed() {
    let server = TestServer::start(|config| config.limits.max_connections_per_identity = 1).await;
    let first = server.channel().await;
    unary(&first, "Whoami", Duration::ZERO).await.unwrap();
    let client = server.pki.client(crate::support::CALLER, 9);
    if let Ok(second) = server.connect(&client).await {
        assert_no_answer(&unary(&second, "Whoami", Duration::ZERO).await.unwrap_err());
    }
    unary(&first, "Whoami", Duration::ZERO).await.unwrap();
    assert!(server.metric("jackfield_server_connections_refused_total", "cap=\"per_identity\"") > Some(0.0));
}

/// Adds a second principal to the tenant of the first.
fn with_second(config: &mut Config) {
    let first = config.identity.principals[0].clone();
    config.identity.principals.push(PrincipalConfig { name: "second".into(), spiffe: SECOND.into(), ..first });
}

#[tokio::test]
async fn one_tenant_does_not_fill_the_server() {
    let server = TestServer::start(|config| {
        with_second(config);
        config.limits.max_calls_per_tenant = 1;
    })
    .await;
    let channel = server.channel().await;
    let busy = spawn({
        let channel = channel.clone();
        async move { unary(&channel, "Sleep", Duration::from_secs(2)).await }
    });
    eventually("the call is running", async || server.meters.page().unwrap().contains("Test/Sleep")).await;
    let second = server.connect(&server.pki.client(SECOND, 2)).await.unwrap();
    let refused = unary(&second, "Whoami", Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "RATE_LIMITED");
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 3)).await.unwrap();
    assert_eq!(unary(&stranger, "Whoami", Duration::ZERO).await.unwrap_err().code(), Code::Unauthenticated);
    busy.await.unwrap().unwrap();
    eventually("room again", async || unary(&second, "Whoami", Duration::ZERO).await.is_ok()).await;
}

#[tokio::test]
async fn connections_beyond_the_cap_of_a_tenant_are_closed() {
    let server = TestServer::start(|config| {
        with_second(config);
        config.limits.max_connections_per_tenant = 1;
    })
    .await;
    let first = server.channel().await;
    unary(&first, "Whoami", Duration::ZERO).await.unwrap();
    if let Ok(second) = server.connect(&server.pki.client(SECOND, 2)).await {
        assert_no_answer(&unary(&second, "Whoami", Duration::ZERO).await.unwrap_err());
    }
    // Unknown callers do not count for that tenant, and share one limit.
    let stranger = server.connect(&server.pki.client("spiffe://test.example/stranger", 3)).await.unwrap();
    assert_eq!(unary(&stranger, "Whoami", Duration::ZERO).await.unwrap_err().code(), Code::Unauthenticated);
    if let Ok(other) = server.connect(&server.pki.client("spiffe://test.example/other", 4)).await {
        assert_no_answer(&unary(&other, "Whoami", Duration::ZERO).await.unwrap_err());
    }
    unary(&first, "Whoami", Duration::ZERO).await.unwrap();
    let refused = server.metric("jackfield_server_connections_refused_total", "cap=\"per_tenant\"");
    assert!(refused >= Some(2.0), "{refused:?}");
}

#[tokio::test]
async fn silent_peers_are_dropped_and_do_not_hinder_others() {
    let server = TestServer::start(|config| {
        config.tls.handshake_timeout = Duration::from_secs(2);
        config.tls.max_handshakes_per_ip = 2;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(tokio::net::TcpStream::connect(server.address).await.unwrap());
    }
    unary(&server.channel().await, "Whoami", Duration::ZERO).await.unwrap();
    for mut socket in silent {
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut [0])).await.expect("closed");
        assert!(matches!(read, Ok(0) | Err(_)));
    }
    assert!(server.metric("jackfield_server_handshakes_failed_total", "cause=\"timeout\"") > Some(0.0));
}

#[tokio::test]
async fn an_old_connection_is_closed_gracefully_and_its_calls_finish() {
    let server = TestServer::start(|config| config.limits.connection_age = Duration::from_millis(200)).await;
    let channel = server.channel().await;
    // Longer than the age: the call continues after GOAWAY.
    unary(&channel, "Sleep", Duration::from_millis(800)).await.unwrap();
    for _ in 0..20 {
        unary_or_again(&channel, "Sleep", Duration::from_millis(30)).await;
    }
    assert!(server.metric("jackfield_server_connections_ended_total", "cause=\"age\"") > Some(0.0));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = TestServer::start(|config| config.limits.connection_idle_timeout = Duration::from_millis(500)).await;
    let channel = server.channel().await;
    // Longer than the idle limit: a connection with a call is not idle and gets no GOAWAY. It accepts another call.
    let slow = spawn({
        let channel = channel.clone();
        async move { unary_or_again(&channel, "Sleep", Duration::from_secs(3)).await }
    });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    let open = server.metric("jackfield_server_connections_open", "listener=\"tcp\"");
    assert_eq!(open, Some(1.0), "one connection, which was not replaced");
    slow.await.unwrap();
    let ended = || server.metric("jackfield_server_connections_ended_total", "cause=\"idle\"");
    eventually("idle", async || ended() > Some(0.0)).await;
    unary_or_again(&channel, "Whoami", Duration::ZERO).await;
}

/// Makes a call, again if the connection was just closing: such a call was never sent, so clients repeat it.
async fn unary_or_again(channel: &Channel, method: &str, duration: Duration) {
    if let Err(error) = unary(channel, method, duration).await {
        assert_no_answer(&error);
        unary(channel, method, duration).await.unwrap();
    }
}

#[tokio::test]
async fn an_unread_stream_is_ended() {
    let server = TestServer::start(|config| {
        config.limits.write_stall_timeout = Duration::from_millis(200);
        config.streams.idle_timeout = Duration::from_millis(400);
    })
    .await;
    let channel = server.channel().await;
    let mut flood = stream(&channel, "Flood", Request::new(message(Duration::ZERO))).await.unwrap();
    flood.message().await.unwrap().unwrap();
    let stalled = || server.metric("jackfield_server_streams_stalled_total", "");
    eventually("the stream is ended", async || stalled() == Some(1.0)).await;
    // Other calls on the connection are not affected.
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    let error = loop {
        match flood.message().await {
            Ok(item) => assert!(item.is_some(), "a stream that was cut must not look complete"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert_eq!(error.get_details_error_info().unwrap().reason, "DEADLINE_EXCEEDED");
}

fn plaintext(config: &mut Config) {
    config.listen.plaintext = true;
    config.listen.plaintext_principal = "caller".into();
}

#[tokio::test]
async fn requests_that_are_not_grpc_get_a_clear_answer() {
    let server = TestServer::start(plaintext).await;
    let mut raw = Raw::connect(server.address).await;
    for (method, content_type, code) in [
        ("GET", "application/grpc", 405),
        ("POST", "application/json", 415),
        ("POST", "application/grpc-web", 415),
        ("POST", "application/grpc+proto", 200),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri("http://localhost/test.v1.Test/Whoami")
            .header("content-type", content_type)
            .body(http_body_util::Full::from(framed(&message(Duration::ZERO))))
            .unwrap();
        assert_eq!(raw.send(request).await.http_status, code, "{method} {content_type}");
    }
}

#[tokio::test]
async fn malformed_and_oversized_messages_are_refused_in_our_form() {
    let server = TestServer::start(plaintext).await;
    let mut raw = Raw::connect(server.address).await;
    let mut refused = async |headers: &[(&str, &str)], bytes: Vec<u8>| {
        raw.post("/test.v1.Test/Sleep", headers, bytes).await.status.unwrap()
    };
    // Five bytes announce 5 MiB, more than tonic's own limit.
    let too_large = refused(&[], vec![0, 0, 0x50, 0, 0]).await;
    assert_eq!(too_large.code(), Code::ResourceExhausted, "{too_large:?}");
    assert_eq!(too_large.get_details_error_info().unwrap().reason, "QUOTA_EXCEEDED");
    for malformed in [vec![0, 0, 0, 0, 2, 0x0a, 0xff], vec![9, 0, 0, 0, 0], vec![0, 0, 0, 0, 9, 1]] {
        let status = refused(&[], malformed.clone()).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{malformed:?}: {status:?}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "MESSAGE_MALFORMED");
        assert_eq!(status.message(), "the request does not hold exactly one well-formed message");
    }
    let compressed = refused(&[("grpc-encoding", "gzip")], vec![1, 0, 0, 0, 0]).await;
    assert_eq!(compressed.code(), Code::Unimplemented, "{compressed:?}");
    assert_eq!(compressed.get_details_error_info().unwrap().reason, "MESSAGE_MALFORMED", "{compressed:?}");
    assert_eq!(compressed.metadata().get("grpc-accept-encoding").unwrap(), "identity");
}

/// The gRPC specification calls this a violation of cardinality.
#[tokio::test]
async fn a_call_with_two_messages_or_none_is_not_executed() {
    let server = TestServer::start(plaintext).await;
    let mut raw = Raw::connect(server.address).await;
    let message = framed(&message(Duration::ZERO));
    // A call that reaches the handler of "Panic" is answered INTERNAL.
    let executed = raw.post("/test.v1.Test/Panic", &[], message.clone()).await.status.unwrap();
    assert_eq!(executed.code(), Code::Internal);
    for path in ["/test.v1.Test/Panic", "/test.v1.Test/Stream", "/grpc.health.v1.Health/Check"] {
        for bytes in [vec![], message.repeat(2), message.repeat(3)] {
            let answer = raw.post(path, &[], bytes).await;
            let status = answer.status.unwrap();
            assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
            assert_eq!(status.message(), "the call takes exactly one request message");
            assert_eq!(status.get_details_error_info().unwrap().reason, "MESSAGE_MALFORMED");
            assert!(answer.body.is_empty());
        }
    }
}

#[tokio::test]
async fn headers_over_the_limit_are_answered_in_grpc() {
    let server = TestServer::start(plaintext).await;
    let mut raw = Raw::connect(server.address).await;
    let mut with = async |bytes: usize| {
        let value = "v".repeat(bytes);
        raw.post("/test.v1.Test/Whoami", &[("x-large", &value)], framed(&message(Duration::ZERO))).await
    };
    assert_eq!(with(15 * 1024).await.status.unwrap().code(), Code::Ok);
    for bytes in [16 * 1024, 20_000, 60_000] {
        let answer = with(bytes).await;
        let status = answer.status.unwrap();
        assert_eq!((answer.http_status, status.code()), (200, Code::ResourceExhausted), "{bytes}: {status:?}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("QUOTA_EXCEEDED", "16384"));
        assert_eq!(status.message(), "size of the request headers over the limit of 16384");
    }
}

#[tokio::test]
async fn public_methods_accept_only_small_messages() {
    let server = TestServer::start(plaintext).await;
    let mut raw = Raw::connect(server.address).await;
    for method in ["Check", "List", "Watch"] {
        let announced = [&[0][..], &1025_u32.to_be_bytes()].concat();
        let status = raw.post(&format!("/grpc.health.v1.Health/{method}"), &[], announced).await.status.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{method}: {status:?}");
    }
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        for (size, is_answered) in [(16 * 1024, true), (16 * 1024 + 1, false)] {
            let answer = raw.post(&path, &[], framed(&listing_of(size))).await;
            // Reflection ends its stream without an answer when the request stream breaks.
            assert_eq!(!answer.body.is_empty(), is_answered, "{path}, {size} bytes: {:?}", answer.status);
        }
    }
}

/// A request for the list of services, with a host that makes it this large.
fn listing_of(size: usize) -> ServerReflectionRequest {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let mut request = ServerReflectionRequest { host: "h".repeat(size / 2), message_request };
    request.host.extend(std::iter::repeat_n('h', size - request.encoded_len()));
    assert_eq!(request.encoded_len(), size);
    request
}
