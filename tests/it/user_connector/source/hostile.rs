//! Sources over gRPC that break HTTP/2, or wear out their peer. Each ends with its reason, and within its time.

use futures::future::join_all;
use jackfield_domain::credential_source::MAX_SOURCE_BYTES;
use jackfield_testkit::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame,
};
use jackfield_testkit::{HostilePeer, Then, collect, reason_of};

use super::*;

/// A hostile source: its bytes, and the code and the reason that a caller gets.
type Peer = (&'static str, Vec<u8>, Then, (Code, &'static str));

/// The content of a frame. A body that is larger than it may be by one of them is still within its window.
const BLOCK: usize = 8 * 1024;
const FAILED: (Code, &str) = (Code::Unavailable, "CREDENTIAL_SOURCE_FAILED");
const LATE: (Code, &str) = (Code::Unavailable, "CREDENTIAL_SOURCE_TIMEOUT");

/// The frame of a response of status 200, with a type, as HPACK without compression (RFC 7541).
fn head(flags: u8) -> Vec<u8> {
    let content_type = "application/grpc";
    let mut block = vec![0x88, 0x0f, 0x10, u8::try_from(content_type.len()).unwrap()];
    block.extend(content_type.as_bytes());
    frame(HEADERS, flags, 1, &block)
}

/// An interim response (RFC 9110 15.2): the status 103.
fn interim() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &[0x08, 3, b'1', b'0', b'3'])
}

/// The end of the connection with this code, for the streams above one.
fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn reset(code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, 1, &code.to_be_bytes())
}

/// A message that is announced with 100 bytes, of which 10 come.
fn half() -> Vec<u8> {
    [head(END_HEADERS), frame(DATA, 0, 1, &[0, 0, 0, 0, 100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])].concat()
}

fn peers() -> [Peer; 20] {
    let begun = || head(END_HEADERS);
    [
        ("nothing, and the end", vec![], Then::Close, FAILED),
        ("no HTTP/2", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Then::Hang, FAILED),
        ("GOAWAY before the response", goaway(1, 0), Then::Close, FAILED),
        ("GOAWAY that does not take the request", goaway(0, 0), Then::Hang, FAILED),
        ("GOAWAY with an error", goaway(1, 11), Then::Close, FAILED),
        ("GOAWAY, and silence", goaway(1, 0), Then::Hang, LATE),
        ("GOAWAY before the body", [begun(), goaway(1, 0)].concat(), Then::Close, FAILED),
        ("GOAWAY within the body", [half(), goaway(1, 0)].concat(), Then::Close, FAILED),
        ("reset before the response", reset(7), Then::Hang, FAILED),
        ("reset before the body", [begun(), reset(2)].concat(), Then::Hang, FAILED),
        ("reset within the body", [half(), reset(8)].concat(), Then::Hang, FAILED),
        ("reset without an error", [half(), reset(0)].concat(), Then::Hang, FAILED),
        ("no trailers", [half(), frame(DATA, END_STREAM, 1, &[])].concat(), Then::Hang, FAILED),
        ("a stream that was not opened", frame(DATA, 0, 3, &[0; 5]), Then::Hang, FAILED),
        ("headers without end", head(0), Then::Repeat(frame(CONTINUATION, 0, 1, &[0x0f, 0x10, 1, b'a'])), FAILED),
        (
            "more of a body than was permitted",
            [begun(), frame(DATA, 0, 1, &[0; BLOCK]).repeat(MAX_SOURCE_BYTES / BLOCK + 1)].concat(),
            Then::Hang,
            FAILED,
        ),
        ("a body of nothing", begun(), Then::Repeat(frame(DATA, 0, 1, &[])), FAILED),
        ("PINGs", vec![], Then::Repeat(frame(PING, 0, 0, &[0; 8])), LATE),
        ("SETTINGS", vec![], Then::Repeat(frame(SETTINGS, 0, 0, &[])), LATE),
        ("interim responses", vec![], Then::Repeat(interim()), LATE),
    ]
}

on_both! {
    async fn a_hostile_endpoint_has_its_reason_and_changes_nothing(server) {
        let client = server.client("alpha");
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let link = steps::linked(&client, "ada", "Gmail").await;
        let credential = steps::api_key(&client, &link, "before").await;
        // A source of its own for each, and a user who has it.
        let asked = peers().into_iter().enumerate().map(async |(index, (name, bytes, then, end))| {
            let user_id = format!("user-{index}");
            steps::link(&client, &user_id, &link.connector).await;
            let peer = HostilePeer::start(system.pki(), bytes, then).await;
            let Some(Endpoint::Https(remote)) = https(peer.url(), &keys).endpoint else { panic!("another endpoint") };
            let source = v1::CredentialSource {
                user_id: Some(user_id.clone()),
                endpoint: Some(Endpoint::Grpc(remote)),
                timeout: if end == LATE { in_millis(900) } else { None },
                ..Default::default()
            };
            set(&client, source).await;
            let refused = authenticate(&client, by_source(&user_id)).await;
            (name, refused, peer, end)
        });
        let (mut outcomes, mut expected) = (Vec::new(), Vec::new());
        for (name, refused, peer, (code, reason)) in join_all(asked).await {
            let refused = refused.expect_err(name);
            outcomes.push((name, refused.code(), reason_of(&refused)));
            expected.push((name, code, reason.to_owned()));
            // The server has let go of it.
            peer.ended(1).await;
        }
        assert_eq!(outcomes, expected);
        assert_eq!(steps::credential_now(&client, &credential.id).await, credential);
        let left = client.credentials().list_credentials(v1::ListCredentialsRequest::default()).await;
        assert_eq!(collect::items(left).await.unwrap(), [credential]);
    }
}
