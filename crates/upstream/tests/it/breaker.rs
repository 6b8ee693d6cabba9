//! The trial after an outage: which responses close the circuit, which open it again, and which decide nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_upstream::client::Client;
use jackfield_upstream::error::Fault;
use jackfield_upstream::license::{LicenseApi, LicenseFault};

use crate::server::Server;
use crate::support::{client, definition, development, fault, get, url};

const RECOVERY: Duration = Duration::from_millis(300);
const OUTAGE: &str = "HTTP/1.1 503 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const GOOD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
/// A success without the body that the licence API has.
const WRONG: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>";
/// Responses that are read to no end.
const TOO_LARGE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9999999\r\n\r\n";
const MALFORMED: &str = "hello\r\n\r\n";
const ENCODED: &str = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
/// The body breaks off.
const LOST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 20\r\n\r\n{\"token\":";

/// A system with a response for each request, in turn, and a client whose breaker opens after two failures.
struct System {
    server: Server,
    client: Client,
    left: Arc<Mutex<VecDeque<&'static str>>>,
}

// === impl System ===

impl System {
    async fn of(responses: &[&'static str]) -> Self {
        let left = Arc::new(Mutex::new(responses.iter().copied().collect::<VecDeque<_>>()));
        let next = left.clone();
        let server = Server::plain(move |mut peer| {
            let next = next.clone();
            // Each connection has one request, and ends.
            async move {
                if peer.request().await.is_some() {
                    let response = next.lock().unwrap().pop_front().expect("another request");
                    peer.send(response).await;
                }
            }
        });
        let server = server.await;
        let mut definition = definition(&format!("http://localhost:{}/", server.port()));
        (definition.limits.failures, definition.limits.recovery) = (2, RECOVERY);
        System { client: client(development(), definition), server, left }
    }

    /// Has two failures open the circuit, and waits until a trial may be made.
    async fn opened(responses: &[&'static str]) -> Self {
        let system = System::of(&[&[OUTAGE, OUTAGE], responses].concat()).await;
        for _ in 0..2 {
            assert_eq!(get(&system.client, &system.url()).await.status, 503);
        }
        assert!(system.is_open().await);
        tokio::time::sleep(RECOVERY).await;
        system
    }

    fn url(&self) -> String {
        format!("http://localhost:{}/v1", self.server.port())
    }

    async fn log_in(&self) -> LicenseFault {
        let base = url(&self.url());
        let api = LicenseApi::new(&self.client, &base, "app", None).unwrap();
        api.authenticate("ada", &Secret::new("right".to_owned())).await.unwrap_err()
    }

    /// Makes a call that is refused without being sent.
    async fn is_open(&self) -> bool {
        matches!(fault(&self.client, &self.url()).await, Fault::CircuitOpen { .. })
    }

    fn left(&self) -> usize {
        self.left.lock().unwrap().len()
    }
}

/// The system answers again. That its answer is of no use may be about this one request, as at any other time.
#[tokio::test]
async fn a_wrong_body_closes_the_circuit() {
    let system = System::opened(&[WRONG, OUTAGE, WRONG, OUTAGE, OUTAGE]).await;
    assert_eq!(system.log_in().await.reason(), "BODY_MALFORMED");
    // One failure does not open it, and another wrong body is none.
    for reason in ["STATUS_UNEXPECTED", "BODY_MALFORMED", "STATUS_UNEXPECTED", "STATUS_UNEXPECTED"] {
        assert_eq!(system.log_in().await.reason(), reason);
    }
    assert!(system.is_open().await);
    assert_eq!(system.left(), 0);
}

/// The next request is a trial as well, so one failure is enough to open the circuit.
#[tokio::test]
async fn a_response_that_cannot_be_read_decides_nothing() {
    for (response, reason) in
        [(TOO_LARGE, "BODY_TOO_LARGE"), (MALFORMED, "RESPONSE_MALFORMED"), (ENCODED, "BODY_ENCODED")]
    {
        let system = System::opened(&[response, OUTAGE, GOOD]).await;
        assert_eq!(system.log_in().await.reason(), reason);
        assert_eq!(get(&system.client, &system.url()).await.status, 503, "{reason}");
        assert!(system.is_open().await, "{reason}");
        tokio::time::sleep(RECOVERY).await;
        assert_eq!(get(&system.client, &system.url()).await.body, "ok", "{reason}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_opens_the_circuit_again() {
    let system = System::opened(&[LOST, GOOD, OUTAGE, GOOD]).await;
    assert_eq!(system.log_in().await.reason(), "CONNECTION_LOST");
    assert!(system.is_open().await);
    tokio::time::sleep(RECOVERY).await;
    assert_eq!(get(&system.client, &system.url()).await.body, "ok");
    assert_eq!(get(&system.client, &system.url()).await.status, 503);
    // One failure does not open it.
    assert_eq!(get(&system.client, &system.url()).await.body, "ok");
}
