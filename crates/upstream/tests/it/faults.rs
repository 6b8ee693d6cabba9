//! Servers that do wrong. Each fault has its name, says whether the request may have left, and repeats nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jackfield_upstream::client::{Definition, Limits, header_of};
use jackfield_upstream::error::{CallError, Fault, Phase};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::pki::Authority;
use crate::server::{Peer, Server};
use crate::support::{Answers, client, definition, development, fail, fault, get, network, post, request};

const TOKEN: &str = "canary-of-a-token";

fn at(server: &Server) -> String {
    format!("http://localhost:{}/?token={TOKEN}", server.port())
}

/// Calls a server that answers with these bytes and then waits.
async fn answered(bytes: impl Into<Vec<u8>>, limits: Limits) -> CallError {
    let bytes = bytes.into();
    let server = Server::plain(move |mut peer| {
        let bytes = bytes.clone();
        async move {
            peer.request().await;
            peer.send(bytes).await;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let mut definition = Definition { limits, ..definition(&at(&server)) };
    definition.headers.extend([header_of("authorization", TOKEN, true).unwrap()]);
    let error = fail(&client(development(), definition), &at(&server)).await;
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
    error
}

fn after_sending(fault: Fault) -> CallError {
    CallError { fault, sent: true }
}

#[tokio::test]
async fn responses_that_are_too_large_are_cut() {
    let limits = Limits { body: 1000, head: 2000, ..Limits::default() };
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunks = "100\r\n".to_owned() + &"x".repeat(256) + "\r\n";
    for (response, expected) in [
        (format!("{ok}content-length: 1001\r\n\r\n"), Fault::BodyTooLarge),
        (format!("{ok}content-length: 999999999999\r\n\r\n"), Fault::BodyTooLarge),
        (format!("{ok}transfer-encoding: chunked\r\n\r\n{}", chunks.repeat(4)), Fault::BodyTooLarge),
        (format!("{ok}connection: close\r\n\r\n{}", "x".repeat(1001)), Fault::BodyTooLarge),
        (format!("{ok}x: {}\r\n", "x".repeat(2001)), Fault::HeadersTooLarge),
        (format!("{ok}{}", "x: y\r\n".repeat(101) + "\r\n"), Fault::HeadersTooLarge),
    ] {
        assert_eq!(answered(response.clone(), limits).await, after_sending(expected), "{response:.80}");
    }
}

/// Interim responses are skipped. All of them together may be as large as the head of the response.
#[tokio::test]
async fn interim_responses_are_skipped_up_to_the_limit_of_the_headers() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "x".repeat(400));
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 3000\r\n\r\n".to_owned() + &"x".repeat(3000);
    let limits = Limits { head: 2000, ..Limits::default() };
    for (count, reason) in [(0, ""), (3, "HTTP/1.1 100\r\n\r\n"), (4, "HTTP/1.1 102 x\r\n\r\n")] {
        let response = hint.repeat(count) + reason + &last;
        let server = Server::plain(move |mut peer| {
            let response = response.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.send(&response).await;
                }
            }
        })
        .await;
        let definition = Definition { limits, ..definition(&at(&server)) };
        let client = client(development(), definition);
        for _ in 0..3 {
            assert_eq!(get(&client, &at(&server)).await.body.len(), 3000, "{count}");
        }
        assert_eq!(server.accepted(), 1);
    }
    for wrong in [
        hint.repeat(5) + &last,
        "HTTP/1.1 100\r\n\r\n".repeat(200) + &last,
        format!("HTTP/1.1 102 {}\r\n\r\n", "x".repeat(1500)).repeat(2) + &last,
    ] {
        // The buffer may have all of it at once. It is more than a buffer only if the server goes on.
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let server = Server::plain(move |mut peer| {
            let (wrong, count) = (wrong.clone(), count.clone());
            async move {
                peer.request().await;
                let interim = wrong.split("HTTP/1.1 200").next().unwrap().to_owned();
                for _ in 0..16 * 1024 {
                    if tokio::io::AsyncWriteExt::write_all(&mut peer.io, interim.as_bytes()).await.is_err() {
                        break;
                    }
                    count.fetch_add(interim.len(), Ordering::SeqCst);
                }
                peer.send(wrong).await;
            }
        })
        .await;
        let definition = Definition { limits, ..definition(&at(&server)) };
        let error = fail(&client(development(), definition), &at(&server)).await;
        assert_eq!(error, after_sending(Fault::HeadersTooLarge));
        assert!(written.load(Ordering::SeqCst) < 12 << 20, "the connection is closed");
    }
}

#[tokio::test]
async fn ten_megabytes_are_not_read() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let server = Server::plain(move |mut peer: Peer| {
        let count = count.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
            for _ in 0..10 * 16 {
                if tokio::io::AsyncWriteExt::write_all(&mut peer.io, &[b'x'; 64 * 1024]).await.is_err() {
                    break;
                }
                count.fetch_add(64 * 1024, Ordering::SeqCst);
            }
        }
    })
    .await;
    let mut definition = definition(&at(&server));
    definition.limits.body = 64 * 1024;
    assert_eq!(fault(&client(development(), definition), &at(&server)).await, Fault::BodyTooLarge);
    assert!(
        written.load(Ordering::SeqCst) < 8 << 20,
        "the connection is closed, and the buffers of the system are full"
    );
}

#[tokio::test]
async fn responses_that_are_wrong_are_refused() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (response, expected) in [
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), Fault::ResponseMalformed),
        ("<html>".to_owned(), Fault::ResponseMalformed),
        ("HTTP/1.1 twenty OK\r\n\r\n".to_owned(), Fault::ResponseMalformed),
        (format!("{ok}a b: c\r\n\r\n"), Fault::ResponseMalformed),
        (format!("{ok}content-length: 1\r\ncontent-length: 2\r\n\r\nx"), Fault::ResponseMalformed),
        (format!("{ok}transfer-encoding: chunked\r\n\r\nzz\r\n"), Fault::ResponseMalformed),
        (format!("{ok}content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx"), Fault::BodyEncoded),
        (format!("{ok}transfer-encoding: gzip\r\n\r\nx"), Fault::BodyEncoded),
        (format!("{ok}transfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), Fault::BodyEncoded),
        (format!("{ok}transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), Fault::BodyEncoded),
        (format!("{ok}transfer-encoding: identity\r\n\r\nx"), Fault::BodyEncoded),
        (format!("{ok}content-length: 2\r\n\r\nx"), Fault::ReadTimeout),
        (String::new(), Fault::ReadTimeout),
    ] {
        assert_eq!(answered(response.clone(), Limits::default()).await, after_sending(expected), "{response}");
    }
}

#[tokio::test]
async fn a_server_that_trickles_is_cut_at_the_total_timeout() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for start in [String::new(), format!("{ok}x: "), format!("{ok}content-length: 1000\r\n\r\n")] {
        let server = Server::plain(move |mut peer| {
            let start = start.clone();
            async move {
                peer.request().await;
                peer.send(start).await;
                loop {
                    peer.send("H").await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await;
        let mut definition = definition(&at(&server));
        definition.timeouts.total = Duration::from_millis(800);
        let client = client(development(), definition);
        let began = Instant::now();
        assert_eq!(fail(&client, &at(&server)).await, after_sending(Fault::TotalTimeout));
        assert!(began.elapsed() < Duration::from_millis(1500));
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_cut_where_it_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (scheme, expected) in [
        ("http", after_sending(Fault::ReadTimeout)),
        ("https", CallError { fault: Fault::ConnectTimeout(Phase::Handshaking), sent: false }),
    ] {
        let url = format!("{scheme}://localhost:{}/", address.port());
        let mut definition = definition(&url);
        definition.timeouts.connect = Duration::from_millis(200);
        let began = Instant::now();
        assert_eq!(fail(&client(development(), definition), &url).await, expected);
        assert!(began.elapsed() < Duration::from_millis(1000));
    }
}

#[tokio::test]
async fn requests_that_may_have_left_are_not_repeated() {
    for is_reset in [false, true] {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        // It answers the first request of a connection, and ends with the second, after reading it.
        let server = Server::raw(move |stream| {
            let count = count.clone();
            async move {
                if is_reset {
                    stream.set_zero_linger().unwrap();
                }
                let mut peer = Peer { io: Box::new(stream), certificate: None, handshake: None };
                peer.request().await;
                count.fetch_add(1, Ordering::SeqCst);
                peer.respond("").await;
                peer.request().await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await;
        let client = client(development(), definition(&at(&server)));
        client.send(post(&at(&server), "{}")).await.unwrap();
        assert_eq!(client.idle(), 1);
        let error = client.send(post(&at(&server), "{}")).await.unwrap_err();
        assert_eq!(error, after_sending(Fault::ConnectionLost), "{is_reset}");
        assert_eq!((requests.load(Ordering::SeqCst), server.accepted()), (2, 1), "{is_reset}");
    }
}

#[tokio::test]
async fn a_reset_in_the_body_is_a_lost_connection() {
    let server = Server::raw(|stream| async move {
        stream.set_zero_linger().unwrap();
        let mut peer = Peer { io: Box::new(stream), certificate: None, handshake: None };
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    })
    .await;
    let client = client(development(), definition(&at(&server)));
    assert_eq!(fail(&client, &at(&server)).await, after_sending(Fault::ConnectionLost));
}

#[tokio::test]
async fn a_response_too_many_is_not_taken_for_that_of_the_next_request() {
    let server = Server::plain(|mut peer| async move {
        while peer.request().await.is_some() {
            let response = |body| format!("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n{body}");
            peer.send(response("first ") + &response("second")).await;
        }
    })
    .await;
    let client = client(development(), definition(&at(&server)));
    for call in 1..10 {
        assert_eq!(get(&client, &at(&server)).await.body, "first ");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(server.accepted(), call, "the connection is not used again");
    }
}

/// The runtime of the client does not see what the server does here, as if it was busy: the response that was not asked for is there when
/// the connection is taken, and nothing but the system knows.
#[tokio::test]
async fn a_response_on_an_idle_connection_is_not_taken_for_that_of_the_next_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let (turn, turns) = std::sync::mpsc::channel::<()>();
    let (sent, was_sent) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        for body in ["first", "second"] {
            let (mut stream, _) = listener.accept().unwrap();
            let read = std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
            assert!(read > 0 && read < 4096);
            let response = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            std::io::Write::write_all(&mut stream, response(body).as_bytes()).unwrap();
            if turns.recv().is_ok() {
                std::io::Write::write_all(&mut stream, response("stale").as_bytes()).unwrap();
                sent.send(()).unwrap();
            }
            // A connection that is closed sooner would not be used for another reason.
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        }
    });
    let client = client(development(), definition(&url));
    assert_eq!(get(&client, &url).await.body, "first");
    assert_eq!(client.idle(), 1);
    turn.send(()).unwrap();
    was_sent.recv().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(turn);
    assert_eq!(get(&client, &url).await.body, "second");
    drop(client);
    server.join().unwrap();
}

/// As above, but the runtime has time to see it.
#[tokio::test]
async fn an_idle_connection_ends_with_a_byte_that_was_not_asked_for() {
    let authority = Authority::new("authority");
    let handle = |mut peer: Peer| async move {
        while peer.request().await.is_some() {
            peer.respond("asked for").await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            peer.respond("not asked for").await;
        }
    };
    let plain = Server::plain(handle).await;
    let encrypted = Server::tls(authority.server("localhost", None), handle).await;
    for (server, scheme) in [(plain, "http"), (encrypted, "https")] {
        let url = format!("{scheme}://localhost:{}/", server.port());
        let client = client(development(), Definition { trust: authority.trust(), ..definition(&url) });
        for call in 1..5 {
            assert_eq!(get(&client, &url).await.body, "asked for");
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(server.accepted(), call);
        }
    }
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_once_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://localhost:{}/", address.port());
    let client = client(development(), definition(&url));
    let error = fail(&client, &url).await;
    assert_eq!(error, CallError { fault: Fault::Connect(std::io::ErrorKind::ConnectionRefused), sent: false });
    let late = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        Peer { io: Box::new(stream), certificate: None, handshake: None }.serve("late").await;
    };
    tokio::select! {
        response = get(&client, &url) => assert_eq!(response.body, "late"),
        () = late => panic!("the client went away"),
    }
}

#[tokio::test]
async fn other_addresses_of_a_name_are_tried() {
    let server = Server::plain(|peer| peer.serve("second")).await;
    let policy = jackfield_upstream::egress::Policy::default().with_development();
    let url = format!("http://localhost:{}/", server.port());
    let client = client(network(policy, Answers::of(&["127.0.0.2", "127.0.0.1"])), definition(&url));
    assert_eq!(get(&client, &url).await.body, "second");
}

#[tokio::test]
async fn names_without_addresses_are_unresolved() {
    let policy = jackfield_upstream::egress::Policy::default();
    let client = client(network(policy, Answers::default()), definition("https://nowhere.example/"));
    assert_eq!(fault(&client, "https://nowhere.example/").await, Fault::Unresolved);
}

#[tokio::test]
async fn outages_open_the_circuit_and_answers_close_it() {
    let server = Server::plain(|mut peer| async move {
        let request = peer.request().await.unwrap();
        let path = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
        peer.send(format!("HTTP/1.1 {path} Status\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")).await;
    })
    .await;
    let url = |status: &str| format!("http://localhost:{}/{status}", server.port());
    let mut definition = definition(&url(""));
    (definition.limits.failures, definition.limits.recovery) = (3, Duration::from_millis(200));
    let client = client(development(), definition);
    // Errors about single requests say nothing about the next one.
    for status in ["500", "500", "500", "429", "503", "503", "200", "502", "504", "503"] {
        assert_eq!(get(&client, &url(status)).await.status.as_str(), status);
    }
    let open = fail(&client, &url("200")).await;
    assert!(matches!(open.fault, Fault::CircuitOpen { retry_after } if retry_after <= Duration::from_millis(200)));
    assert_eq!((open.sent, open.fault.reason(), server.accepted()), (false, "CIRCUIT_OPEN", 10));
    tokio::time::sleep(Duration::from_millis(220)).await;
    assert_eq!(client.send(request(&url("200"))).await.unwrap().status, 200);
    assert_eq!(get(&client, &url("200")).await.status, 200);
}
