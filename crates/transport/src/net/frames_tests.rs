use super::*;

const PRIORITY: u8 = 0x2;
const UNKNOWN: u8 = 0xbe;

fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
    of_stream(1, length, kind, flags)
}

fn of_stream(stream: u32, length: usize, kind: u8, flags: u8) -> Vec<u8> {
    let mut bytes = vec![(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.resize(HEAD_LENGTH + length, 0xff);
    bytes
}

/// A meter behind the preface that allows ten frames for nothing, and a hundred calls that are given up at once.
fn meter(wire: &WireState) -> FrameMeter {
    let limits = Limits {
        max_control_frames_per_second: 1,
        max_pending_accept_reset_streams: 100,
        max_concurrent_streams: 20,
        ..Limits::default()
    };
    let mut meter = FrameMeter::new(&limits);
    meter.read(&[b'P'; PREFACE_LENGTH], wire).unwrap();
    meter
}

/// Returns the number of these frames that a meter lets pass; a slow machine that takes a second lets one more pass.
fn passing(meter: &mut FrameMeter, wire: &WireState, frame: &[u8]) -> usize {
    (0..10_000).take_while(|_| meter.read(frame, wire).is_ok()).count()
}

#[test]
fn heads_are_found_however_the_bytes_are_cut() {
    let heads = [(0, SETTINGS, 0), (8, PING, 0), (70_000, DATA, 1), (3, RST_STREAM, 0)];
    let mut bytes = vec![b'P'; PREFACE_LENGTH];
    bytes.extend(heads.iter().flat_map(|(length, kind, flags)| of_stream(0x8000_0007, *length, *kind, *flags)));
    for piece in [1, 2, 5, 9, 24, 25, 1_000, 1_000_000] {
        let mut scanner = Scanner::new(PREFACE_LENGTH);
        let mut found = Vec::new();
        for chunk in bytes.chunks(piece) {
            scanner.scan(chunk, |head| {
                assert_eq!(head.stream, 7);
                found.push((head.length, head.kind, head.flags));
            });
        }
        assert_eq!(found, heads, "pieces of {piece}");
        assert!(scanner.between_frames());
    }
}

#[test]
fn a_flood_of_pings_is_seen_and_serving_a_client_forgives_them() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    let ping = frame(8, PING, 0);
    for _ in 0..10 {
        meter.read(&ping, &wire).unwrap();
    }
    assert!((0..3).any(|_| meter.read(&ping, &wire) == Err(Flood::Pings)));
    assert!(wire.flood.load(Ordering::Relaxed));
    meter.written(&frame(100, HEADERS, 0), &wire);
    meter.read(&ping, &wire).unwrap();
    meter.written(&frame(100, DATA, 0), &wire);
    assert_eq!(wire.data_written.load(Ordering::Relaxed), 100);
}

#[test]
fn what_answers_nothing_is_not_free() {
    for (kind, length, flags) in [
        (PING, 8, 0),
        (PING, 8, FLAG_ACK),
        (SETTINGS, 0, FLAG_ACK),
        (SETTINGS, 6, 0),
        (PRIORITY, 5, 0),
        (GOAWAY, 8, 0),
        (RST_STREAM, 4, 0),
        (DATA, 0, 0),
        (DATA, 1, 0),
        (UNKNOWN, 0, 0),
        (UNKNOWN, 100, FLAG_ACK),
    ] {
        let wire = WireState::default();
        let passed = passing(&mut meter(&wire), &wire, &frame(length, kind, flags));
        assert!((10..20).contains(&passed), "{passed} frames of kind {kind}, {length} bytes, flags {flags}");
    }
    let wire = WireState::default();
    let passed = passing(&mut meter(&wire), &wire, &frame(4, WINDOW_UPDATE, 0));
    assert!((110..120).contains(&passed), "{passed} windows");
}

#[test]
fn acknowledgements_messages_and_calls_are_free() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    for call in 0..1_000 {
        for kind in [PING, SETTINGS] {
            meter.written(&frame(8, kind, 0), &wire);
            meter.read(&frame(8, kind, FLAG_ACK), &wire).unwrap();
        }
        let stream = 2 * call + 1;
        meter.read(&of_stream(stream, 50, HEADERS, 0), &wire).unwrap();
        meter.read(&of_stream(stream, 50, DATA, 0), &wire).unwrap();
        meter.read(&of_stream(stream, 0, DATA, FLAG_END_STREAM), &wire).unwrap();
        meter.turn();
        meter.read(&of_stream(stream, 4, RST_STREAM, 0), &wire).unwrap();
    }
    assert!(!wire.flood.load(Ordering::Relaxed));
}

/// The libraries differ in when they say that they have read: by the frame, by the kilobyte, by half a window.
#[test]
fn a_client_that_reads_a_long_list_may_open_windows_in_every_usual_way() {
    for (window, piece) in [(64 * 1024, 1_024), (64 * 1024, 16_384), (4 << 20, 512), (16 << 20, 8 << 20)] {
        let wire = WireState::default();
        let mut meter = meter(&wire);
        meter.read(&of_stream(1, 50, HEADERS, FLAG_END_STREAM), &wire).unwrap();
        for _ in 0..4 {
            for _ in 0..window / 16_384 {
                meter.written(&of_stream(1, 16_384, DATA, 0), &wire);
            }
            // Of the connection and of the stream, and the time that it took by a PING.
            for _ in 0..window / piece {
                meter.read(&of_stream(0, 4, WINDOW_UPDATE, 0), &wire).unwrap();
                meter.read(&of_stream(1, 4, WINDOW_UPDATE, 0), &wire).unwrap();
            }
            meter.read(&of_stream(0, 8, PING, 0), &wire).unwrap();
        }
    }
}

#[test]
fn windows_that_are_opened_by_a_byte_are_not_free() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    let dribble = (0..10_000).take_while(|_| {
        meter.written(&of_stream(1, 1, DATA, 0), &wire);
        meter.read(&of_stream(1, 4, WINDOW_UPDATE, 0), &wire).is_ok()
    });
    assert!(dribble.count() < 200);
}

#[test]
fn calls_that_are_given_up_are_free_beside_one_that_is_answered() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    let mut streams = (0..).map(|index| 2 * index + 1);
    let mut given_up = |meter: &mut FrameMeter| {
        let stream = streams.next().unwrap();
        meter.read(&of_stream(stream, 50, HEADERS, FLAG_END_STREAM), &wire)?;
        meter.read(&of_stream(stream, 4, RST_STREAM, 0), &wire)
    };
    for _ in 0..100 {
        meter.turn();
        for _ in 0..20 {
            given_up(&mut meter).unwrap();
        }
        meter.written(&of_stream(1, 10, HEADERS, FLAG_END_STREAM), &wire);
    }
    let passed = (0..10_000).take_while(|_| given_up(&mut meter).is_ok()).count();
    assert!((90..300).contains(&passed), "{passed}");
    assert_eq!(given_up(&mut meter), Err(Flood::Resets));
}

#[test]
fn calls_that_were_looked_at_may_be_given_up_without_end() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    for stream in (0..10_000).map(|index| 2 * index + 1) {
        meter.read(&of_stream(stream, 50, HEADERS, FLAG_END_STREAM), &wire).unwrap();
        meter.turn();
        meter.read(&of_stream(stream, 4, RST_STREAM, 0), &wire).unwrap();
    }
}

#[test]
fn streams_that_the_client_makes_us_reset_are_counted() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    let passed = (0..10_000).take_while(|_| {
        meter.written(&frame(4, RST_STREAM, 0), &wire);
        meter.read(&[], &wire).is_ok()
    });
    assert!((100..300).contains(&passed.count()));
}

/// The convention of gRPC for keep-alive (gRFC A8).
#[test]
fn pings_have_a_word_of_their_own() {
    for (flags, expected) in [(0, Flood::Pings), (FLAG_ACK, Flood::Control)] {
        let wire = WireState::default();
        let mut meter = meter(&wire);
        let found = (0..10_000).find_map(|_| meter.read(&frame(8, PING, flags), &wire).err());
        assert_eq!(found, Some(expected));
    }
    assert_eq!(Flood::Pings.to_string(), "too_many_pings");
}

#[test]
fn the_client_receives_the_reason_but_not_in_the_middle_of_a_frame() {
    let wire = WireState::default();
    let mut meter = meter(&wire);
    meter.read(&of_stream(0x1234, 5, HEADERS, 0), &wire).unwrap();
    let goaway = meter.goaway(Flood::Resets).unwrap();
    let mut expected = vec![0, 0, 23, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 11];
    expected.extend(b"too_many_resets");
    assert_eq!(goaway, expected);
    meter.written(&frame(100, DATA, 0)[..50], &wire);
    assert_eq!(meter.goaway(Flood::Resets), None);
}
