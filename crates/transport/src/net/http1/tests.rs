//! Clients that do not read, or send too slowly.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::metrics::noop::NoopMeterProvider;
use rustix::io::Errno;
use tokio::io::{DuplexStream, ReadBuf};
use tower::service_fn;

use super::*;
use crate::call::ResponseBody;
use crate::config::PrincipalConfig;
use crate::net::Acceptor;
use crate::observe::metrics::Metrics;

/// The body of every response, which no buffer holds.
const LARGE: usize = 1024 * 1024;
const STALL: Duration = Duration::from_secs(7);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Answers everything, after a while.
struct Api {
    delay: Duration,
}

impl HttpApi for Api {
    fn answer(&self, _request: http::Request<Bytes>, _calls: Calls) -> BoxFuture<'static, http::Response<Bytes>> {
        let delay = self.delay;
        async move {
            sleep(delay).await;
            http::Response::new(Bytes::from(vec![b'x'; LARGE]))
        }
        .boxed()
    }

    fn refuse(&self, why: Unread) -> http::Response<Bytes> {
        assert_eq!(why, Unread::Incomplete);
        http::Response::builder().status(408).body(Bytes::new()).unwrap()
    }
}

/// A socket from which this was read, and whose peer is gone then.
struct Lost(Option<&'static [u8]>);

impl AsyncRead for Lost {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0.take() {
            Some(bytes) => buf.put_slice(bytes),
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lost {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(Errno::TIMEDOUT.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(Errno::TIMEDOUT.into()))
    }
}

/// Serves a connection with small buffers. Returns its other end, and when and why it will have ended.
fn connection(delay: Duration) -> (DuplexStream, impl Future<Output = (Duration, &'static str)>) {
    let (client, server) = tokio::io::duplex(4 * 1024);
    (client, served(delay, server))
}

/// Serves a connection. Returns when and why it ended.
fn served(
    delay: Duration,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> impl Future<Output = (Duration, &'static str)> {
    let mut config = TransportConfig::default();
    config.limits.write_stall_timeout = STALL;
    let metrics = Metrics::new(&NoopMeterProvider::new().meter("test"), &[]);
    let clock = Arc::new(jackfield_domain::SystemClock);
    let shared = Acceptor::new(&config, metrics, Arc::default(), clock, Default::default(), Default::default()).0;
    let caller = Arc::new(ConfiguredPrincipal::of(&PrincipalConfig::default()));
    let none = |_| async { Ok::<_, Infallible>(http::Response::new(ResponseBody::new(tonic::body::Body::empty()))) };
    let front = HttpFront::new(Arc::new(Api { delay }), Stack::new(service_fn(none)), caller.clone(), None, &config);
    let peer = Peer::Tcp(([127, 0, 0, 1], 1).into());
    let info = ConnectInfo::new(peer, None, Vec::new(), Ok(caller));
    let begin = Instant::now();
    async move {
        let cause = serve_request(&shared, &front, io, info).await;
        (begin.elapsed(), cause)
    }
}

fn seconds(took: Duration) -> u64 {
    took.as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    for delay in [Duration::ZERO, Duration::from_secs(30)] {
        let (mut client, ended) = connection(delay);
        client.write_all(REQUEST).await.unwrap();
        let (took, cause) = ended.await;
        assert_eq!((seconds(took), cause), (seconds(delay + STALL), "stalled"), "the time for its call is no stall");
    }
}

/// The system gives up a connection whose packets are lost. Its error has the kind of a stall.
#[tokio::test(start_paused = true)]
async fn a_connection_that_the_system_gave_up_is_no_stall() {
    assert_eq!(io::Error::from(Errno::TIMEDOUT).kind(), io::ErrorKind::TimedOut);
    assert_eq!(served(Duration::ZERO, Lost(Some(REQUEST))).await.1, "error");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_everything_in_the_time_of_a_request() {
    let (mut client, ended) = connection(Duration::ZERO);
    client.write_all(REQUEST).await.unwrap();
    let reading = async {
        let mut total = 0;
        let mut buffer = vec![0; LARGE / 8];
        loop {
            sleep(STALL / 2).await;
            match client.read_exact(&mut buffer).await {
                Ok(read) => total += read,
                Err(_) => break total,
            }
        }
    };
    let (total, (took, cause)) = tokio::join!(reading, ended);
    assert_eq!((total, cause), (LARGE, "client"));
    assert!(took > STALL * 3, "{took:?}");

    // A client that takes a byte now and then holds the connection for a bounded time.
    let (mut client, ended) = connection(Duration::ZERO);
    client.write_all(REQUEST).await.unwrap();
    let reading = async {
        while client.read_exact(&mut [0; 1_024]).await.is_ok() {
            sleep(STALL / 2).await;
        }
    };
    let (took, cause) = tokio::select! {
        ended = ended => ended,
        () = reading => panic!("it is not cut"),
    };
    assert_eq!((seconds(took), cause), (2 * 10 + 60 + 7, "stalled"));
}

/// Sends the beginning of a request, and a byte of the rest each second. Returns when and why the connection ends.
async fn trickled(begin: &[u8]) -> (u64, &'static str) {
    let (mut client, ended) = connection(Duration::ZERO);
    client.write_all(begin).await.unwrap();
    let trickle = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            if client.write_all(b"t").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let (took, cause) = tokio::select! {
        ended = ended => ended,
        () = trickle => unreachable!(),
    };
    (seconds(took), cause)
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_and_a_slow_body_are_cut() {
    // A second of it is for what the client still sends.
    assert_eq!(trickled(b"GET / HTTP/1.1\r\nhost").await, (10 + 1, "idle"));
    let body = trickled(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n").await;
    assert_eq!(body, (10 + 1, "client"));
}
