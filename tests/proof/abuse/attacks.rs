//! The attacks. Each is the behaviour of one peer until the server ends the connection. Peers reconnect until the time
//! is over.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jackfield_api::v1;
use jackfield_testkit::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::{Caller, End, block, call, header, indexed_header, request, streams};

/// An attack on a running server.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// The number of concurrent connections.
    pub(super) peers: usize,
    pub(super) run: fn(Caller, usize) -> BoxFuture<'static, End>,
    /// The ways in which it may end. At least one connection has to end in the first way; if that is [`End::Held`],
    /// none has to end.
    pub(super) ends: &'static [End],
}

const ENHANCE_YOUR_CALM: End = End::Goaway(11);
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/jackfield.v1.ConnectorService/ListConnectors";
const GET: &str = "/jackfield.v1.ConnectorService/GetConnector";
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// The number of frames in each piece of a flood. A pause follows each piece, because other work shares the machine.
const PIECE: usize = 64;
const PAUSE: Duration = Duration::from_millis(2);

/// The time for which a client reads nothing. The server allows a second.
const UNREAD: Duration = Duration::from_millis(2_800);

macro_rules! attacks {
    ($($name:literal, $peers:literal, [$($end:expr),+], $caller:ident, $peer:ident => $run:expr;)*) => {
        [$(Attack {
            name: $name,
            peers: $peers,
            run: |$caller, $peer| async move { $run.await.unwrap_or_else(|error| End::of(&error)) }.boxed(),
            ends: &[$($end),+],
        }),*]
    };
}

/// All attacks except those that need a prepared server: fewer file descriptors, certificates that expire.
pub(super) const ATTACKS: [Attack; 33] = attacks! {
    "rapid reset", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream_by(caller, peer, PIECE, |stream| {
            [call(stream, WATCH), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        });
    "reset me: window overflow", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| [call(stream, WATCH), increment(stream, 0x7fff_ffff)].concat());
    "reset me: window by zero", 8, [End::Goaway(1), ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| [call(stream, WATCH), increment(stream, 0)].concat());
    "reset me: content-length", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| {
            let block = [block(WATCH), header("content-length", "1")].concat();
            [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
        });
    "reset me: connection header", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| {
            frame(HEADERS, END_HEADERS, stream, &[block(WATCH), header("connection", "close")].concat())
        });
    "reset me: priority on itself", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| {
            let itself = [&stream.to_be_bytes()[..], &[0]].concat();
            [call(stream, WATCH), frame(PRIORITY, 0, stream, &itself)].concat()
        });
    "CONTINUATION without end", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, frame(HEADERS, 0, 1, &block(WATCH)), frame(CONTINUATION, 0, 1, &header("x", "y")));
    "header bomb", 8, [ENHANCE_YOUR_CALM, End::Reset(1), End::Answered, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| {
            let part = header("x-bomb", &"b".repeat(4_000)).repeat(4);
            let middle = frame(CONTINUATION, 0, stream, &part).repeat(8);
            [frame(HEADERS, 0, stream, &block(WATCH)), middle, frame(CONTINUATION, END_HEADERS, stream, &part)].concat()
        });
    "HPACK table bomb", 8, [ENHANCE_YOUR_CALM, End::Reset(1), End::Answered, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| {
            // Each index refers to the 4,000 bytes that were added to the table before.
            let bomb = [indexed_header("x-bomb", &"b".repeat(4_000)), vec![0xbe; 10_000]].concat();
            frame(HEADERS, END_HEADERS, stream, &[block(WATCH), bomb].concat())
        });
    // The server reads a few of its calls in a turn and answers them before it reads more, so there are never too many.
    // As with any attack, it must not slow others or use memory.
    "HPACK table resized", 8, [End::Held, ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        per_stream(caller, peer, |stream| {
            // Alternates between 0 and 4,096 (RFC 7541 6.3 allows at most two updates).
            frame(HEADERS, END_HEADERS, stream, &[[0x20, 0x3f, 0xe1, 0x1f].repeat(1_000), block(CHECK)].concat())
        });
    "PING flood", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer => flood(caller, peer, vec![], frame(PING, 0, 0, &[0; 8]));
    "SETTINGS flood", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer => flood(caller, peer, vec![], frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9]));
    "PRIORITY flood", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, vec![], frame(PRIORITY, 0, 1001, &[0, 0, 0, 1, 9]));
    "empty DATA flood", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, call(1, REFLECT), frame(DATA, 0, 1, &[]));
    "one-byte DATA flood", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, call(1, REFLECT), frame(DATA, 0, 1, &[0]));
    "unsolicited PING acknowledgements", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, vec![], frame(PING, ACK, 0, &[0; 8]));
    "unsolicited SETTINGS acknowledgements", 8, [End::Goaway(1), ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, vec![], frame(SETTINGS, ACK, 0, &[]));
    "needless window updates", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer => flood(caller, peer, vec![], increment(0, 1));
    "window updates of an ended stream", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, request(1, CHECK, &[]), increment(1, 1));
    "resets of an ended stream", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, request(1, CHECK, &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    "frames of an unknown type", 8, [ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, vec![], frame(0xbe, 0, 0, &[0; 8]));
    "GOAWAY flood", 8, [End::Goaway(0), ENHANCE_YOUR_CALM, End::Closed], caller, peer =>
        flood(caller, peer, vec![], frame(GOAWAY, 0, 0, &[0; 8]));
    "windows of zero, lists", 20, [End::Answered, End::Closed], caller, peer => windows_of_zero(caller, peer, 10, LIST, Vec::new());
    "windows of zero, single answers", 20, [End::Answered, End::Closed], caller, peer => {
        let get = v1::GetConnectorRequest { reference: "name:connector 0".to_owned() };
        windows_of_zero(caller, peer, 100, GET, get.encode_to_vec())
    };
    "answers never read", 2, [End::Closed], caller, peer => never_read(caller, peer, None);
    "a byte a second", 2, [End::Closed], caller, peer => never_read(caller, peer, Some(Duration::from_secs(1)));
    "silent TCP", 300, [End::Closed], caller, peer => silent(caller, peer, &[]);
    // A handshake record that claims a length of 512 bytes, and only a part of it.
    "half a TLS hello", 300, [End::Closed], caller, peer => silent(caller, peer, &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7]);
    "half a preface", 64, [End::Closed], caller, peer => half_preface(caller, peer);
    "streams left open", 20, [End::Reset(0), End::Closed], caller, peer => left_open(caller, peer);
    "oversized messages", 8, [End::Reset(0), End::Answered], caller, peer => oversized(caller, peer, 0);
    "compressed bombs", 8, [End::Reset(0), End::Answered], caller, peer => oversized(caller, peer, 1);
    "compressed bombs, half a gigabyte", 8, [End::Answered, End::Reset(0)], caller, peer => bombs(caller, peer);
};

/// A client returns with a ticket of a session from when its certificate was valid.
pub(super) const EXPIRED: Attack = Attack {
    name: "expired certificate, resumed",
    peers: 4,
    run: |caller, peer| async move { greeted(caller, peer).await.unwrap_or(End::Closed) }.boxed(),
    ends: &[End::Closed],
};

// === impl Attack ===

impl Attack {
    /// Returns whether a connection has to end in the first way.
    pub(super) fn has_to_end(&self) -> bool {
        self.ends[0] != End::Held
    }

    /// Returns whether any client that passes the handshake can run it, known or not.
    pub(super) fn is_of_anybody(&self) -> bool {
        const OF_ANYBODY: [&str; 6] = [
            "rapid reset",
            "PING flood",
            "unsolicited PING acknowledgements",
            "needless window updates",
            "resets of an ended stream",
            "frames of an unknown type",
        ];
        OF_ANYBODY.contains(&self.name)
    }

    /// The least duration for its effect to show.
    pub(super) fn least(&self) -> Duration {
        match self.name {
            "answers never read" | "a byte a second" => 2 * UNREAD,
            // Many hashes have to be made.
            "wrong passwords" => Duration::from_secs(8),
            _ => Duration::ZERO,
        }
    }
}

type Ended = Result<End, std::io::Error>;

fn increment(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// Repeats a piece on stream after stream.
async fn per_stream(caller: Caller, peer: usize, piece: fn(u32) -> Vec<u8>) -> Ended {
    per_stream_by(caller, peer, 8, piece).await
}

/// As [`per_stream`], with `count` streams in a piece.
async fn per_stream_by(caller: Caller, peer: usize, count: usize, piece: fn(u32) -> Vec<u8>) -> Ended {
    let conn = caller.http2(peer, &[]).await?;
    let mut streams = streams();
    let some = std::iter::from_fn(move || Some(streams.by_ref().take(count).flat_map(piece).collect()));
    Ok(conn.attack(some, PAUSE).await)
}

/// Repeats a frame endlessly.
async fn flood(caller: Caller, peer: usize, first: Vec<u8>, again: Vec<u8>) -> Ended {
    let mut conn = caller.http2(peer, &[]).await?;
    conn.send(&first).await?;
    Ok(conn.attack(std::iter::repeat(again.repeat(PIECE)), PAUSE).await)
}

/// Requests large answers as a client whose windows are zero.
async fn windows_of_zero(caller: Caller, peer: usize, count: u32, path: &'static str, message: Vec<u8>) -> Ended {
    let mut conn = caller.http2(peer, &[0, 4, 0, 0, 0, 0]).await?;
    for stream in streams().take(count as usize) {
        conn.send(&request(stream, path, &message)).await?;
    }
    // The server ends the calls that it has read; those that wait for memory keep waiting.
    Ok(conn.streams_ended(1).await)
}

/// Requests lists with large windows as a client that reads nothing, or hardly anything, from its socket.
async fn never_read(caller: Caller, peer: usize, sip: Option<Duration>) -> Ended {
    let mut socket = caller.tls(peer).await?;
    let open = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), &increment(0, 0x7000_0000)];
    socket.write_all(&open.concat()).await?;
    for stream in streams().take(10) {
        socket.write_all(&request(stream, LIST, &[])).await?;
    }
    socket.flush().await?;
    let (mut tcp, _) = socket.into_inner();
    let end = tokio::time::Instant::now() + UNREAD;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(sip.unwrap_or(UNREAD).min(UNREAD)).await;
        if sip.is_some() && matches!(tcp.read(&mut [0]).await, Ok(0) | Err(_)) {
            return Ok(End::Closed);
        }
    }
    // The end of the connection comes after everything that the system has buffered, so it shows only after reading
    // that. A connection that stays open is given up for another one: its calls may have been refused.
    let drain = async {
        let mut rest = vec![0; 64 * 1024];
        while tcp.read(&mut rest).await? > 0 {}
        Ok(End::Closed)
    };
    tokio::time::timeout(UNREAD, drain).await.unwrap_or(Ok(End::Held))
}

/// Sends these bytes and no more.
async fn silent(caller: Caller, peer: usize, words: &'static [u8]) -> Ended {
    let mut tcp = caller.tcp(peer).await?;
    tcp.write_all(words).await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    Ok(End::Closed)
}

async fn half_preface(caller: Caller, peer: usize) -> Ended {
    let mut socket = caller.tls(peer).await?;
    socket.write_all(&PREFACE[..10]).await?;
    socket.flush().await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    Ok(End::Closed)
}

/// Starts calls whose request message never comes.
async fn left_open(caller: Caller, peer: usize) -> Ended {
    const STREAMS: u32 = 50;
    let mut conn = caller.http2(peer, &[]).await?;
    for stream in streams().take(STREAMS as usize) {
        conn.send(&call(stream, CHECK)).await?;
    }
    Ok(conn.streams_ended(STREAMS).await)
}

/// Messages that claim the greatest length, or compression, and that are long.
async fn oversized(caller: Caller, peer: usize, compressed: u8) -> Ended {
    const STREAMS: u32 = 10;
    let mut conn = caller.http2(peer, &[]).await?;
    for stream in streams().take(STREAMS as usize) {
        let block = [block(LIST), header("grpc-encoding", "gzip")].concat();
        let head = frame(DATA, 0, stream, &[compressed, 0xff, 0xff, 0xff, 0xff]);
        conn.send(&[frame(HEADERS, END_HEADERS, stream, &block), head].concat()).await?;
        conn.send(&frame(DATA, 0, stream, &[0; 4_096])).await?;
    }
    Ok(conn.streams_ended(STREAMS).await)
}

/// Messages within the size limit that would decompress to a thousand times their size.
async fn bombs(caller: Caller, peer: usize) -> Ended {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    const STREAMS: u32 = 10;
    const MIB: usize = 1024 * 1024;
    let bomb = BOMB.get_or_init(|| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        // As many as fit into the initial window of a stream.
        (0..50).for_each(|_| gzip.write_all(&[0; MIB]).expect("into memory"));
        gzip.finish().expect("into memory")
    });
    let mut conn = caller.http2(peer, &[]).await?;
    let length = u32::try_from(bomb.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length, bomb].concat();
    for stream in streams().take(STREAMS as usize) {
        let block = [block(GET), header("grpc-encoding", "gzip")].concat();
        conn.send(&frame(HEADERS, END_HEADERS, stream, &block)).await?;
        for part in message.chunks(16 * 1024) {
            conn.send(&frame(DATA, 0, stream, part)).await?;
        }
        conn.send(&frame(DATA, END_STREAM, stream, &[])).await?;
    }
    Ok(conn.streams_ended(STREAMS).await)
}

/// Reports whether a connection gets as far as the HTTP/2 preface.
async fn greeted(caller: Caller, peer: usize) -> Ended {
    let mut conn = caller.http2(peer, &[]).await?;
    conn.send(&request(1, CHECK, &[])).await?;
    Ok(conn.streams_ended(1).await)
}
