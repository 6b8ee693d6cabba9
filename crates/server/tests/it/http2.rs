//! HTTP/2 spoken by hand, as no library would speak it.

use std::time::Duration;

use jackfield_server::config::Config;
use jackfield_testkit::frame::{
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, next_frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{PATIENCE, TestServer, eventually};

fn plaintext(config: &mut Config) {
    config.listen.plaintext = true;
    config.listen.plaintext_principal = "caller".into();
}

/// The HEADERS frame of a call, without compression (RFC 7541): POST, http, and literals for path and content type.
fn call(stream: u32, path: &str) -> Vec<u8> {
    let content_type = "application/grpc";
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block.extend([0x0f, 0x10, u8::try_from(content_type.len()).unwrap()]);
    block.extend(content_type.as_bytes());
    frame(HEADERS, END_HEADERS, stream, &block)
}

async fn connect(server: &TestServer, settings: &[u8]) -> TcpStream {
    greet(TcpStream::connect(server.address).await.unwrap(), settings).await
}

async fn greet(mut socket: TcpStream, settings: &[u8]) -> TcpStream {
    socket.write_all(PREFACE).await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
    socket
}

/// Sends until the connection ends, and returns the code of the final GOAWAY.
async fn goaway_after(socket: TcpStream, attack: impl Iterator<Item = Vec<u8>>) -> Option<u32> {
    let (mut read, mut write) = socket.into_split();
    let sent = async {
        for bytes in attack {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut goaway = None;
    let ended = async {
        while let Some(frame) = next_frame(&mut read).await {
            if frame.kind == GOAWAY {
                goaway = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
    };
    let work = async {
        tokio::select! {
            () = ended => {}
            () = sent => {}
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the connection is ended");
    goaway
}

/// The ids of the streams that a client opens.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}

#[tokio::test]
async fn the_limits_are_announced() {
    let server = TestServer::start(plaintext).await;
    let mut socket = connect(&server, &[]).await;
    let settings = next_frame(&mut socket).await.unwrap();
    assert_eq!(settings.kind, SETTINGS);
    let announced = |id: u16| {
        let setting = settings.payload.chunks(6).find(|setting| setting[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!(announced(3), Some(100), "SETTINGS_MAX_CONCURRENT_STREAMS");
    assert_eq!(announced(4), Some(64 * 1024), "SETTINGS_INITIAL_WINDOW_SIZE");
    assert_eq!(announced(5).unwrap_or(16 * 1024), 16 * 1024, "SETTINGS_MAX_FRAME_SIZE");
    // The size that is read: clients that know it send no more, and headers over the limit of 16 KiB get a proper
    // answer.
    assert_eq!(announced(6), Some(64 * 1024), "SETTINGS_MAX_HEADER_LIST_SIZE");
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let server = TestServer::start(plaintext).await;
    let socket = connect(&server, &[]).await;
    let reset = |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let attack = streams(20_000).map(move |stream| [call(stream, "/test.v1.Test/Sleep"), reset(stream)].concat());
    assert_eq!(goaway_after(socket, attack).await, Some(ENHANCE_YOUR_CALM));
}

/// Cancels as many calls as may be open at once, before the server has processed any of them, and continues with the
/// same client. An errgroup, a leaving user or a deadline of milliseconds does this.
#[tokio::test]
async fn calls_cancelled_together_do_not_affect_others() {
    const GOOD: u32 = 5;
    let server = TestServer::start(plaintext).await;
    let mut socket = connect(&server, &[]).await;
    let mut streams = (0..).map(|index| 2 * index + 1);
    let whoami = |stream| [call(stream, "/test.v1.Test/Whoami"), frame(DATA, END_STREAM, stream, &[0; 5])].concat();
    for round in 0..400_usize {
        let given_up: Vec<u32> = streams.by_ref().take(60 + round % 36).collect();
        let good: Vec<u32> = streams.by_ref().take(GOOD as usize).collect();
        let mut bytes = Vec::new();
        for stream in &given_up {
            bytes.extend([call(*stream, "/test.v1.Test/Sleep"), frame(DATA, END_STREAM, *stream, &[0; 5])].concat());
        }
        bytes.extend(good.iter().flat_map(|stream| whoami(*stream)));
        bytes.extend(given_up.iter().flat_map(|stream| frame(RST_STREAM, 0, *stream, &8u32.to_be_bytes())));
        socket.write_all(&bytes).await.unwrap();
        let mut answers = 0;
        let answered = async {
            while answers < GOOD {
                let Frame { kind, payload, .. } = next_frame(&mut socket).await.expect("the connection stays open");
                assert_ne!(kind, GOAWAY, "round {round}: {}", String::from_utf8_lossy(&payload));
                // The message of one second means that the caller is known: each good call was answered.
                answers += u32::from(kind == DATA && payload == [0, 0, 0, 0, 2, 8, 1]);
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("good calls are answered");
    }
}

#[tokio::test]
async fn streams_that_make_the_server_reset_them_end_the_connection() {
    let server = TestServer::start(plaintext).await;
    let socket = connect(&server, &[]).await;
    // An overflowing window is a stream error, so the server has to reset the stream.
    let provoke = |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
    let attack = streams(20_000).map(move |stream| [call(stream, "/test.v1.Test/Sleep"), provoke(stream)].concat());
    assert_eq!(goaway_after(socket, attack).await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_client_that_is_disconnected_while_it_sends_receives_the_reason() {
    let server = TestServer::start(plaintext).await;
    let socket = TcpSocket::new_v4().unwrap();
    // There is no room for the server's GOAWAY: it stays in the server's buffer, and a TCP reset would discard it.
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut socket = greet(socket.connect(server.address).await.unwrap(), &[]).await;
    let request = [call(1, "/test.v1.Test/Flood"), frame(DATA, END_STREAM, 1, &[0; 5])].concat();
    socket.write_all(&request).await.unwrap();
    while next_frame(&mut socket).await.expect("an answer").kind != DATA {}
    let provoke = |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
    let attack = streams(8_000).skip(1).map(|stream| [call(stream, "/test.v1.Test/Sleep"), provoke(stream)].concat());
    let _ = socket.write_all(&attack.collect::<Vec<_>>().concat()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(goaway_after(socket, std::iter::empty()).await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection() {
    let server = TestServer::start(|config| {
        plaintext(config);
        config.limits.max_control_frames_per_second = 1;
    })
    .await;
    let socket = connect(&server, &[]).await;
    let pings = std::iter::repeat_with(|| frame(PING, 0, 0, &[0; 8])).take(1_000);
    assert_eq!(goaway_after(socket, pings).await, Some(ENHANCE_YOUR_CALM));
    let ended = || server.metric("jackfield_server_connections_ended_total", "cause=\"flood\"");
    eventually("it is counted", async || ended() == Some(1.0)).await;
    assert!(crate::support::logged(&["connection ended: the client floods it", "caller"]));
}

#[tokio::test]
async fn a_peer_that_sends_no_preface_is_dropped() {
    let server = TestServer::start(|config| {
        plaintext(config);
        config.tls.handshake_timeout = Duration::from_millis(200);
    })
    .await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut hello = connect(&server, &[]).await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("dropped").ok();
    assert!(server.metric("jackfield_server_connections_ended_total", "cause=\"no_preface\"") > Some(0.0));
    // The other connection may be silent now.
    hello.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    let answered = async {
        loop {
            let frame = next_frame(&mut hello).await.unwrap();
            if frame.kind == PING {
                return frame.payload;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, answered).await.unwrap(), [7; 8]);
}
