//! Calls that succeed: what is sent, what is kept, what is shared.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_upstream::client::{Client, Deadline, DefinitionError, Places, basic};
use jackfield_upstream::error::Fault;
use tokio::time::Instant;

use crate::server::{Peer, Server, header};
use crate::support::{client, definition, development, fail, get, post, request};

fn at(server: &Server) -> String {
    format!("http://localhost:{}/", server.port())
}

/// A server that keeps the requests that it gets.
async fn recorder() -> (Server, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    let server = Server::plain(move |mut peer| {
        let kept = kept.clone();
        async move {
            while let Some(request) = peer.request().await {
                kept.lock().unwrap().push(request);
                peer.respond("{}").await;
            }
        }
    });
    (server.await, requests)
}

#[tokio::test]
async fn requests_have_the_headers_of_definition_and_call() {
    let (server, requests) = recorder().await;
    let mut definition = definition(&at(&server));
    definition.headers.insert("authorization", basic("user", &Secret::new("pässword".into())).unwrap());
    definition.headers.insert("x-static", "definition".parse().unwrap());
    let client = client(development(), definition);
    let mut call = post(&format!("{}login?a=b", at(&server)), "{\"a\":1}");
    call.headers.insert("x-static", "call".parse().unwrap());
    call.headers.insert("host", "elsewhere.example".parse().unwrap());
    call.headers.insert("content-length", "9999".parse().unwrap());
    call.headers.insert("accept-encoding", "gzip".parse().unwrap());
    let response = client.send(call).await.unwrap();
    assert_eq!((response.status.as_u16(), &*response.body), (200, &b"{}"[..]));
    assert_eq!(format!("{response:?}"), "Response { status: 200, .. }");
    let request = requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("POST /login?a=b HTTP/1.1\r\n") && request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
    for (name, value) in [
        ("host", format!("localhost:{}", server.port())),
        ("authorization", "Basic dXNlcjpww6Rzc3dvcmQ=".to_owned()),
        ("x-static", "call".to_owned()),
        ("content-length", "7".to_owned()),
        ("accept-encoding", "identity".to_owned()),
        ("user-agent", format!("jackfield/{}", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(header(&request, name), Some(value.as_str()), "{name}");
    }
}

#[tokio::test]
async fn headers_of_the_connection_are_refused_in_a_definition() {
    for name in ["host", "content-length", "transfer-encoding", "connection", "proxy-authorization"] {
        let mut definition = definition("https://login.example/");
        definition.headers.insert(name, "1".parse().unwrap());
        let error = Client::new(Arc::new(development()), definition, Arc::new(Places::new(1))).unwrap_err();
        assert_eq!(error, DefinitionError::Header(name.parse().unwrap()));
    }
    for (user, password) in [("a:b", "c"), ("a\n", "c"), ("a", "c\0")] {
        assert_eq!(basic(user, &Secret::new(password.into())), Err(DefinitionError::Credentials));
    }
}

#[tokio::test]
async fn connections_are_kept_and_replaced_when_the_server_closed_them() {
    // It closes each connection after three responses, without saying so.
    let server = Server::plain(|mut peer: Peer| async move {
        for _ in 0..3 {
            peer.request().await;
            peer.respond("").await;
        }
    })
    .await;
    let client = client(development(), definition(&at(&server)));
    for call in 0..9 {
        get(&client, &at(&server)).await;
        // The close of the server arrives.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(server.accepted(), call / 3 + 1);
    }
}

#[tokio::test]
async fn idle_connections_end_in_time() {
    let server = Server::plain(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let hint = header(&request, "x-hint").unwrap_or_default();
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: {hint}\r\n\r\n")).await;
        }
    })
    .await;
    let hinted = |hint: &str| {
        let mut request = request(&at(&server));
        request.headers.insert("x-hint", hint.parse().unwrap());
        request
    };
    let mut definition = definition(&at(&server));
    definition.limits.idle_timeout = Duration::from_millis(100);
    let client = client(development(), definition);
    client.send(hinted("timeout=1, max=10")).await.unwrap();
    assert_eq!(client.idle(), 0, "the server closes within the margin");
    client.send(hinted("timeout=60")).await.unwrap();
    assert_eq!(client.idle(), 1);
    client.sweep();
    assert_eq!(client.idle(), 1);
    tokio::time::sleep(Duration::from_millis(120)).await;
    client.sweep();
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn idle_connections_of_all_clients_are_bounded() {
    let server = Server::plain(|peer| peer.serve("")).await;
    let (network, places) = (Arc::new(development()), Arc::new(Places::new(3)));
    let make = || Client::new(network.clone(), definition(&at(&server)), places.clone()).unwrap();
    let clients: Vec<Client> = (0..5).map(|_| make()).collect();
    for client in &clients {
        get(client, &at(&server)).await;
    }
    let idle: Vec<usize> = clients.iter().map(Client::idle).collect();
    assert_eq!(idle, [0, 0, 1, 1, 1], "those that were used first gave way");
    // A client that is used keeps its connection, also while others come.
    for _ in 0..10 {
        get(&clients[4], &at(&server)).await;
        get(&clients[0], &at(&server)).await;
    }
    assert_eq!((clients[0].idle(), clients[4].idle()), (1, 1));
    assert_eq!(server.accepted(), 6, "only the first client had to connect again");
    drop(clients);
    assert_eq!(places.free(), 3);
}

#[tokio::test]
async fn calls_wait_for_a_place_and_give_up() {
    let server = Server::plain(|mut peer| async move {
        peer.request().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        peer.respond("").await;
    })
    .await;
    let limited = |connect| {
        let mut definition = definition(&at(&server));
        definition.limits.concurrency = 1;
        definition.timeouts.connect = Duration::from_millis(connect);
        client(development(), definition)
    };
    let url = at(&server);
    let patient = limited(1000);
    let (one, two) = tokio::join!(patient.send(request(&url)), patient.send(request(&url)));
    assert!(one.is_ok() && two.is_ok());
    let impatient = limited(50);
    let (one, two) = tokio::join!(impatient.send(request(&url)), impatient.send(request(&url)));
    assert!(one.is_ok());
    let error = two.unwrap_err();
    assert_eq!((error.fault, error.sent), (Fault::Busy, false));
}

#[tokio::test]
async fn a_call_that_is_dropped_closes_its_connection() {
    let closed = Arc::new(tokio::sync::Notify::new());
    let notify = closed.clone();
    let server = Server::plain(move |mut peer| {
        let notify = notify.clone();
        async move {
            assert!(peer.request().await.is_some());
            assert!(peer.request().await.is_none());
            notify.notify_one();
        }
    })
    .await;
    let url = at(&server);
    let mut definition = definition(&url);
    definition.timeouts.read = Duration::from_secs(60);
    let client = client(development(), definition);
    let call = tokio::time::timeout(Duration::from_millis(50), client.send(request(&url)));
    assert!(call.await.is_err());
    tokio::time::timeout(Duration::from_secs(5), closed.notified()).await.unwrap();
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn the_patience_of_the_caller_counts() {
    let server = Server::plain(|mut peer| async move {
        peer.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let client = client(development(), definition(&at(&server)));
    for (deadline, expected) in [
        (Deadline::Caller as fn(Instant) -> Deadline, Fault::CallerTimeout),
        // It is the server that gives the system no more time.
        (Deadline::Server, Fault::TotalTimeout),
    ] {
        let deadline = Some(deadline(Instant::now() + Duration::from_millis(50)));
        let call = jackfield_upstream::client::Request { deadline, ..request(&at(&server)) };
        let error = client.send(call).await.unwrap_err();
        assert_eq!((error.fault, error.sent), (expected, true));
    }
    assert_eq!(fail(&client, &at(&server)).await.fault, Fault::ReadTimeout);
}

#[test]
fn the_future_of_a_call_is_small() {
    let client = client(development(), definition("https://login.example/"));
    let size = size_of_val(&client.send(request("https://login.example/")));
    assert!(size < 8 * 1024, "{size} bytes are moved and wiped for each call");
}
