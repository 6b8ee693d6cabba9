//! The only repetition that there is: that of a request that did not leave, because its connection had ended before.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::Method;
use jackfield_domain::connector::Timeouts;

use super::*;
use crate::egress::Policy;
use crate::observe::Metrics;
use crate::resolve::SystemResolver;
use crate::tls::Trust;

/// A way in which a server ends an idle connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Reset,
    /// It sends a response before there is a request.
    Unasked,
}

/// A server for two connections, each with one response. It hands over the first one afterwards.
struct Server {
    port: u16,
    first: Receiver<TcpStream>,
    thread: JoinHandle<()>,
}

const BODY: &[u8] = b"the body of the request";
/// The time for bytes to come from one side of this machine to the other.
const WAY: Duration = Duration::from_millis(50);

// === impl End ===

impl End {
    /// Ends a connection. Returns it, unless it is gone.
    fn of(self, mut stream: TcpStream) -> Option<TcpStream> {
        match self {
            End::Closed => stream.shutdown(Shutdown::Write).unwrap(),
            End::Reset => {
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                return None;
            }
            End::Unasked => stream.write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").unwrap(),
        }
        Some(stream)
    }
}

// === impl Server ===

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, first) = channel();
        let thread = std::thread::spawn(move || {
            for body in ["first", "other"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(BODY) {
                    let mut bytes = [0; 1024];
                    let read = stream.read(&mut bytes).unwrap();
                    assert_ne!(read, 0, "the request is complete");
                    request.extend_from_slice(&bytes[..read]);
                }
                stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{body}").as_bytes()).unwrap();
                // The second one is not awaited.
                let _ = sender.send(stream);
            }
        });
        Server { port, first, thread }
    }

    fn request(&self) -> Request {
        let url = HttpUrl::parse("url", &format!("http://127.0.0.1:{}/", self.port), 100).unwrap();
        Request { method: Method::POST, url, headers: HeaderMap::new(), body: Bytes::from_static(BODY), deadline: None }
    }
}

/// The connection ends after it was found to be usable. No server can be made to do that in time, so the test does it between both.
#[tokio::test]
async fn a_request_that_did_not_leave_is_sent_over_another_connection() {
    for end in [End::Closed, End::Reset, End::Unasked] {
        let server = Server::start();
        let target = Target::parse(&server.request().url).unwrap();
        let second = Duration::from_secs(1);
        let definition = Definition {
            origins: vec![target.clone()],
            identity: None,
            identity_origins: None,
            headers: HeaderMap::new(),
            trust: Trust::public(),
            timeouts: Timeouts { connect: 10 * second, read: 10 * second, total: 60 * second },
            limits: Limits::default(),
            proxy: None,
            propagate_trace_context: false,
        };
        let network = Network {
            policy: Policy::default().with_development(),
            resolver: Box::new(SystemResolver::default()),
            metrics: Metrics::default(),
        };
        let client = Client::new(Arc::new(network), definition, Arc::new(Places::new(1))).unwrap();
        assert_eq!(client.send(server.request()).await.unwrap().body, "first");
        assert_eq!(client.idle(), 1);

        let (mut first, mut ended) = (Some(server.first.recv().unwrap()), None);
        let kept = || {
            let taken = client.pool.take(&target);
            if let Some(stream) = first.take() {
                assert!(taken.is_some(), "{end:?}");
                ended = end.of(stream);
                std::thread::sleep(WAY);
            }
            taken
        };
        let until = Deadline::Server(Instant::now() + Duration::from_secs(60));
        let attempt = Attempt::new(client.breakers[0].admit().unwrap(), client.definition.timeouts, until);
        let response = client.call_over(kept, &target, server.request(), &attempt).await;
        assert_eq!(response.unwrap().0.body, "other", "{end:?}");
        attempt.dismiss();
        server.thread.join().unwrap();
        if let Some(mut ended) = ended {
            let mut left = Vec::new();
            // The client may have reset it.
            let _ = ended.read_to_end(&mut left);
            assert_eq!(left, b"", "{end:?}: nothing was sent over it");
        }
    }
}
