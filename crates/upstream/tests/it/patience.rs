//! Callers who do not wait: when the circuit breaker counts a call that they gave up, and what the total timeout includes.

use std::time::Duration;

use jackfield_upstream::client::{Client, Deadline, Request};
use jackfield_upstream::error::Fault;
use tokio::time::{Instant, timeout};

use crate::server::Server;
use crate::support::{client, definition, development, fault, get, request};

const RECOVERY: Duration = Duration::from_millis(500);
/// Half of it is a fair time.
const TIMEOUT: Duration = Duration::from_millis(600);
const FAIR: Duration = Duration::from_millis(350);
const UNFAIR: Duration = Duration::from_millis(50);

/// A server that accepts connections and says nothing.
async fn silent() -> Server {
    Server::raw(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await
}

/// A client with a breaker that opens after two failures.
fn breaking(text: &str) -> Client {
    let mut definition = definition(text);
    (definition.timeouts.connect, definition.timeouts.read) = (TIMEOUT, TIMEOUT);
    (definition.limits.failures, definition.limits.recovery) = (2, RECOVERY);
    client(development(), definition)
}

/// Makes a call for a caller with this patience.
async fn call(client: &Client, text: &str, patience: Duration) -> Fault {
    let deadline = Some(Deadline::Caller(Instant::now() + patience));
    client.send(Request { deadline, ..request(text) }).await.unwrap_err().fault
}

#[tokio::test]
async fn a_caller_who_waited_long_enough_counts() {
    let server = silent().await;
    // Without TLS the response is awaited, and with it the handshake.
    for scheme in ["http", "https"] {
        let text = format!("{scheme}://localhost:{}/", server.port());
        let impatient = breaking(&text);
        for _ in 0..4 {
            assert_eq!(call(&impatient, &text, UNFAIR).await, Fault::CallerTimeout, "{scheme}");
        }
        let patient = breaking(&text);
        for _ in 0..2 {
            assert_eq!(call(&patient, &text, FAIR).await, Fault::CallerTimeout, "{scheme}");
        }
        assert!(matches!(call(&patient, &text, FAIR).await, Fault::CircuitOpen { .. }), "{scheme}");
        // The trial is a call like all others: an impatient one leaves its place to the next, and a fair one keeps the circuit open.
        tokio::time::sleep(RECOVERY).await;
        assert_eq!(call(&patient, &text, UNFAIR).await, Fault::CallerTimeout, "{scheme}");
        assert_eq!(call(&patient, &text, FAIR).await, Fault::CallerTimeout, "{scheme}");
        assert!(matches!(call(&patient, &text, FAIR).await, Fault::CircuitOpen { .. }), "{scheme}");
    }
}

/// Less time than the total timeout is as a caller's patience, whichever side set it.
#[tokio::test]
async fn an_earlier_deadline_of_the_server_counts_after_a_fair_time() {
    let server = silent().await;
    let text = format!("http://localhost:{}/", server.port());
    let client = breaking(&text);
    for patience in [UNFAIR, UNFAIR, UNFAIR, FAIR, FAIR] {
        let deadline = Some(Deadline::Server(Instant::now() + patience));
        let fault = client.send(Request { deadline, ..request(&text) }).await.unwrap_err().fault;
        assert_eq!(fault, Fault::TotalTimeout);
    }
    assert!(matches!(fault(&client, &text).await, Fault::CircuitOpen { .. }));
}

#[tokio::test]
async fn a_caller_who_leaves_counts_as_one_whose_time_is_over() {
    let server = silent().await;
    let text = format!("http://localhost:{}/", server.port());
    let client = breaking(&text);
    for patience in [UNFAIR, UNFAIR, UNFAIR, FAIR, FAIR] {
        assert!(timeout(patience, client.send(request(&text))).await.is_err());
    }
    assert!(matches!(fault(&client, &text).await, Fault::CircuitOpen { .. }));
}

#[tokio::test]
async fn a_system_that_sends_bytes_is_not_silent() {
    let server = Server::plain(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        loop {
            peer.send("x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let text = format!("http://localhost:{}/", server.port());
    let client = breaking(&text);
    for _ in 0..4 {
        assert_eq!(call(&client, &text, FAIR).await, Fault::CallerTimeout);
    }
}

#[tokio::test]
async fn the_total_timeout_includes_the_wait_for_a_place() {
    let server = Server::plain(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            peer.respond("late").await;
        }
    })
    .await;
    let text = format!("http://localhost:{}/", server.port());
    let mut definition = definition(&text);
    definition.timeouts.connect = Duration::from_millis(400);
    definition.timeouts.read = Duration::from_secs(10);
    definition.timeouts.total = Duration::from_millis(500);
    (definition.limits.concurrency, definition.limits.failures) = (1, 1);
    let client = client(development(), definition);
    let start = Instant::now();
    let (first, second) = tokio::join!(client.send(request(&text)), client.send(request(&text)));
    assert_eq!(first.unwrap().body, "late");
    assert_eq!(second.unwrap_err().fault, Fault::TotalTimeout);
    assert!(start.elapsed() < Duration::from_millis(590), "{:?}", start.elapsed());
    // The queue is ours, so the circuit is closed.
    assert_eq!(get(&client, &text).await.body, "late");
}
