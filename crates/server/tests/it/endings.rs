//! Streams end with a status, whatever their clients read: at their deadline, when they are not read, with their
//! connection, and with the server.

use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use jackfield_server::config::Config;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::raw::framed;
use crate::support::{PATIENCE, TestServer, eventually, message, spawn};

/// The initial windows of grpc-go and others, and those of malicious clients.
const WINDOWS: [u32; 4] = [0, 1, 16, 65_535];

fn plaintext(config: &mut Config) {
    config.listen.plaintext = true;
    config.listen.plaintext_principal = "caller".into();
}

/// Connects so that each stream may send `window` bytes before any of it is read.
async fn connect(server: &TestServer, window: u32) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 30);
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    spawn(connection);
    sender.ready().await.unwrap()
}

async fn call(sender: &SendRequest<Bytes>, method: &str, argument: Duration) -> ResponseFuture {
    let (answer, mut body) = begin(sender, &format!("test.v1.Test/{method}")).await;
    body.send_data(framed(&message(argument)).into(), true).unwrap();
    answer
}

/// Sends the headers of a call.
async fn begin(sender: &SendRequest<Bytes>, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = http::Request::post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    sender.clone().ready().await.unwrap().send_request(request, false).unwrap()
}

/// The behaviour of the reader: whether it reopens its window as it reads.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    Nothing,
    Everything,
}

/// The status that a call ends with, and the number of bytes before it.
async fn end(answer: ResponseFuture, reads: Reads) -> (Status, usize) {
    let work = async {
        let answer = answer.await.unwrap();
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return (status, 0);
        }
        let (mut body, mut bytes) = (answer.into_body(), 0);
        while let Some(data) = body.data().await {
            let data = data.expect("a stream is not reset");
            bytes += data.len();
            if reads == Reads::Everything {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
        }
        let trailers = body.trailers().await.unwrap().expect("a status");
        (Status::from_header_map(&trailers).expect("a status"), bytes)
    };
    tokio::time::timeout(PATIENCE, work).await.expect("an end")
}

fn check(status: &Status, code: Code, reason: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, reason);
    let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!(retry.is_some(), code == Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn unread_streams_end_with_a_status_at_any_window() {
    let server = TestServer::start(|config| {
        plaintext(config);
        config.limits.write_stall_timeout = Duration::from_millis(100);
        config.streams.idle_timeout = Duration::from_millis(200);
    })
    .await;
    for window in WINDOWS {
        let sender = connect(&server, window).await;
        let flood = call(&sender, "Flood", Duration::ZERO).await;
        let (status, bytes) = end(flood, Reads::Nothing).await;
        check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
        assert_eq!(bytes, window as usize, "the window is full");
        // The answer of a unary call has 7 bytes.
        let (status, bytes) = end(call(&sender, "Whoami", Duration::ZERO).await, Reads::Nothing).await;
        if window < 7 {
            check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
            assert_eq!(bytes, window as usize);
        } else {
            assert_eq!((status.code(), bytes), (Code::Ok, 7));
        }
    }
    let stalled = server.metric("jackfield_server_streams_stalled_total", "");
    assert_eq!(stalled, Some(6.0), "four lists and two answers");
    let exceeded = server.metric("jackfield_server_errors_total", "reason=\"DEADLINE_EXCEEDED\"");
    assert_eq!(exceeded, Some(4.0), "the lists have ended as far as callers can see");
}

#[tokio::test]
async fn deadlines_hold_for_unread_streams() {
    let server = TestServer::start(|config| {
        plaintext(config);
        config.streams.total_timeout = Duration::from_millis(200);
    })
    .await;
    for window in WINDOWS {
        let sender = connect(&server, window).await;
        let (status, _) = end(call(&sender, "Flood", Duration::ZERO).await, Reads::Nothing).await;
        check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    assert_eq!(server.metric("jackfield_server_streams_stalled_total", ""), Some(0.0));
}

#[tokio::test]
async fn calls_that_outlast_their_connection_end_with_a_status() {
    let server = TestServer::start(|config| {
        plaintext(config);
        config.limits.connection_age = Duration::from_millis(100);
        config.limits.connection_age_grace = Duration::from_millis(200);
    })
    .await;
    for (method, window, reads) in [
        ("Flood", 65_535, Reads::Everything),
        ("Flood", 0, Reads::Nothing),
        ("Flood", 65_535, Reads::Nothing),
        ("Stream", 65_535, Reads::Everything),
        ("Sleep", 65_535, Reads::Everything),
    ] {
        let sender = connect(&server, window).await;
        let (status, _) = end(call(&sender, method, PATIENCE).await, reads).await;
        check(&status, Code::Unavailable, "SERVER_UNAVAILABLE");
    }
    let ended = || server.metric("jackfield_server_connections_ended_total", "cause=\"age\"");
    eventually("the connections are closed", async || ended() == Some(5.0)).await;
}

/// The framed length of an item of "Flood".
const FLOOD_ITEM: usize = 17;

/// Lists end with a part of the grace period left, for messages that their readers have received in part.
#[tokio::test]
async fn a_list_ends_behind_a_whole_message_at_the_age_of_its_connection() {
    let server = TestServer::start(|config| {
        plaintext(config);
        config.limits.connection_age = Duration::from_secs(1);
        config.limits.connection_age_grace = Duration::from_secs(10);
    })
    .await;
    // The window is not a multiple of the item length, so the reader stops within an item.
    let sender = connect(&server, 1_000).await;
    let late = call(&sender, "Flood", Duration::ZERO).await;
    let read = call(&sender, "Flood", Duration::ZERO).await;
    // It ends when lists end.
    for answer in [read, late] {
        let (status, bytes) = end(answer, Reads::Everything).await;
        check(&status, Code::Unavailable, "SERVER_UNAVAILABLE");
        assert_eq!((bytes > 1_000, bytes % FLOOD_ITEM), (true, 0), "{bytes} bytes");
    }
}

#[tokio::test]
async fn lists_have_a_part_of_the_grace_period_when_the_server_stops() {
    let mut server = TestServer::start(|config| {
        plaintext(config);
        config.drain.grace = Duration::from_secs(8);
    })
    .await;
    let sender = connect(&server, 65_535).await;
    let mut read = call(&sender, "Flood", Duration::ZERO).await.await.unwrap().into_body();
    let unread = call(&sender, "Flood", Duration::ZERO).await;
    server.stop();
    eventually("no new connection is accepted", async || TcpStream::connect(server.address).await.is_err()).await;
    // Far more than was in transit by then.
    let mut bytes = 0;
    while bytes < 512 << 10 {
        let data = read.data().await.expect("the list goes on").unwrap();
        bytes += data.len();
        read.flow_control().release_capacity(data.len()).unwrap();
    }
    let (status, _) = end(unread, Reads::Nothing).await;
    check(&status, Code::Unavailable, "SERVER_UNAVAILABLE");
    while let Some(data) = read.data().await {
        read.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    let status = Status::from_header_map(&read.trailers().await.unwrap().unwrap()).unwrap();
    check(&status, Code::Unavailable, "SERVER_UNAVAILABLE");
    assert!(tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap(), "nothing had to be cut");
}

/// A watch whose request has not come has no deadline, and is not awaited.
#[tokio::test]
async fn a_watch_without_a_request_ends_with_the_server() {
    let mut server = TestServer::start(|config| {
        plaintext(config);
        config.drain.grace = 10 * PATIENCE;
    })
    .await;
    let sender = connect(&server, 65_535).await;
    let (watch, _body) = begin(&sender, "grpc.health.v1.Health/Watch").await;
    let open = || server.metric("jackfield_server_calls_open", "Watch");
    eventually("the call has begun", async || open() == Some(1.0)).await;
    server.stop();
    let (status, _) = end(watch, Reads::Everything).await;
    check(&status, Code::Unavailable, "SERVER_UNAVAILABLE");
    assert!(tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap(), "nothing had to be cut");
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_period_ends_with_a_status() {
    let mut server = TestServer::start(|config| {
        plaintext(config);
        config.drain.grace = Duration::from_millis(300);
    })
    .await;
    let sender = connect(&server, 65_535).await;
    let slow = call(&sender, "Sleep", PATIENCE).await;
    eventually("the call is running", async || server.meters.page().unwrap().contains("Test/Sleep")).await;
    server.stop();
    let (status, _) = end(slow, Reads::Everything).await;
    check(&status, Code::Unavailable, "SERVER_UNAVAILABLE");
    assert!(!tokio::time::timeout(PATIENCE, server.ended).await.unwrap().unwrap(), "a call was cut");
}
