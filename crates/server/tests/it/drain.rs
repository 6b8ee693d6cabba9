use std::sync::Arc;
use std::time::Duration;

use jackfield_server::config::Config;
use jackfield_transport::Server;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::support::{PATIENCE, Steps, TestBackend, TestServer, eventually, message, spawn, stream, unary};

/// Long enough for a call to get through on a slow machine.
const DELAY: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_drain_reports_not_serving_ends_streams_and_lets_calls_finish() {
    let mut server = TestServer::start(|config| {
        config.drain.delay = DELAY;
        config.listen.health_address = "127.0.0.1:0".into();
    })
    .await;
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    let mut list = stream(&channel, "Stream", Request::new(message(PATIENCE))).await.unwrap();
    list.message().await.unwrap().unwrap();
    // It continues past the delay, and ends well within the grace period.
    let slow = spawn({
        let channel = channel.clone();
        async move { unary(&channel, "Sleep", 2 * DELAY).await }
    });
    eventually("the call is running", async || server.meters.page().unwrap().contains("Test/Sleep")).await;

    server.stop();
    // Health changes first, while everything is still served.
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();

    // Then streams end, with a reason to retry.
    let error = list.message().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.get_details_retry_info().is_some());
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
    // No new connection is accepted, and running calls finish.
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
    slow.await.unwrap().unwrap();
    assert!(tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap(), "nothing had to be cut");
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_after_the_grace_period() {
    let mut server = TestServer::start(|config| config.drain.grace = Duration::from_millis(300)).await;
    let channel = server.channel().await;
    let endless = spawn(async move { unary(&channel, "Sleep", PATIENCE).await });
    // An unfinished handshake and a silent connection must not delay it either.
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    eventually("the call is running", async || server.meters.page().unwrap().contains("Test/Sleep")).await;
    server.stop();
    let complete = tokio::time::timeout(PATIENCE / 2, server.ended).await.unwrap().unwrap();
    assert!(!complete);
    assert!(endless.await.unwrap().is_err());
}

#[tokio::test]
async fn silent_connections_do_not_delay_the_end() {
    let mut server = TestServer::start(|config| {
        config.listen.plaintext = true;
        config.tls.handshake_timeout = 10 * PATIENCE;
        config.drain.grace = 10 * PATIENCE;
    })
    .await;
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let open = || server.metric("jackfield_server_connections_open", "listener=\"tcp\"");
    eventually("the connection is there", async || open() == Some(1.0)).await;
    server.stop();
    assert!(tokio::time::timeout(PATIENCE, server.ended).await.expect("it ends").unwrap());
}

#[tokio::test]
async fn a_service_starts_with_its_server_and_is_always_closed() {
    let mut server = TestServer::start(|_| {}).await;
    let mut config = Config::default();
    config.listen.plaintext = true;
    config.listen.address = server.address.to_string();
    let backend = TestBackend { ready: server.ready.subscribe(), steps: Steps::default() };
    let steps = backend.steps.clone();
    assert!(Server::bind(config.transport(), Arc::new(backend)).await.is_err(), "another server has the address");
    assert_eq!(*steps.lock().unwrap(), ["close"]);
    server.stop();
    tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap();
    assert_eq!(*server.steps.lock().unwrap(), ["start", "close"]);
}

#[tokio::test]
async fn connections_without_calls_do_not_delay_the_end() {
    let mut server = TestServer::start(|config| config.drain.grace = PATIENCE).await;
    let channel = server.channel().await;
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    server.stop();
    assert!(tokio::time::timeout(PATIENCE / 2, server.ended).await.unwrap().unwrap());
}
