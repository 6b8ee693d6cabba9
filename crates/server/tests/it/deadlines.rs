use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt as _;

use crate::raw::{Raw, RawAnswer, framed};
use crate::support::{PATIENCE, TestServer, message};

const SLEEP: &str = "/test.v1.Test/Sleep";

/// Connects with plain HTTP/2, because tonic's client would end a call at its deadline itself.
async fn raw(server: &TestServer) -> Raw {
    Raw::connect(server.address).await
}

fn short(config: &mut jackfield_server::config::Config) {
    config.deadlines.default = Duration::from_millis(300);
    config.deadlines.max = Duration::from_millis(600);
    config.streams.total_timeout = Duration::from_millis(500);
    plaintext(config);
}

fn plaintext(config: &mut jackfield_server::config::Config) {
    config.listen.plaintext = true;
    config.listen.plaintext_principal = "caller".into();
}

fn assert_exceeded(answer: &RawAnswer) {
    let status = answer.status.as_ref().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_default() {
    let server = TestServer::start(short).await;
    assert_exceeded(&raw(&server).await.post(SLEEP, &[], framed(&message(PATIENCE))).await);
}

#[tokio::test]
async fn a_deadline_of_the_client_holds_up_to_the_maximum() {
    let server = TestServer::start(short).await;
    let mut raw = raw(&server).await;
    let later_than_default = framed(&message(Duration::from_millis(400)));
    let answer = raw.post(SLEEP, &[("grpc-timeout", "590m")], later_than_default).await;
    assert_eq!(answer.status.unwrap().code(), Code::Ok);
    for timeout in ["50m", "0n", "8H"] {
        let start = Instant::now();
        assert_exceeded(&raw.post(SLEEP, &[("grpc-timeout", timeout)], framed(&message(PATIENCE))).await);
        assert!(start.elapsed() < PATIENCE / 2);
    }
}

/// Timers have a resolution of a millisecond, in which this call would be answered.
#[tokio::test]
async fn a_call_whose_deadline_has_passed_is_not_begun() {
    let server = TestServer::start(short).await;
    let mut raw = raw(&server).await;
    for timeout in ["0n", "1n"] {
        for _ in 0..20 {
            assert_exceeded(&raw.post(SLEEP, &[("grpc-timeout", timeout)], framed(&message(Duration::ZERO))).await);
        }
    }
}

#[tokio::test]
async fn a_malformed_deadline_is_an_error() {
    let server = TestServer::start(plaintext).await;
    let answer = raw(&server).await.post(SLEEP, &[("grpc-timeout", "soon")], framed(&message(Duration::ZERO))).await;
    let status = answer.status.unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "grpc-timeout");
}

#[tokio::test]
async fn streams_end_at_their_deadline_with_a_status() {
    let server = TestServer::start(short).await;
    let mut raw = raw(&server).await;
    let busy = framed(&message(Duration::from_millis(20)));
    let silent = framed(&message(PATIENCE));
    for body in [busy, silent] {
        for headers in [&[][..], &[("grpc-timeout", "200m")][..]] {
            let start = Instant::now();
            assert_exceeded(&raw.post("/test.v1.Test/Stream", headers, body.clone()).await);
            assert!(start.elapsed() < PATIENCE / 2);
        }
    }
}
