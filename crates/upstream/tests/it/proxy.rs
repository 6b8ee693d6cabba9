//! Calls through a proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use jackfield_domain::Secret;
use jackfield_upstream::client::{Definition, DefinitionError, Network, Proxy};
use jackfield_upstream::egress::{Policy, Refusal, Rule};
use jackfield_upstream::error::{CallError, Fault, ProxyFault};
use tokio::net::TcpStream;

use crate::pki::Authority;
use crate::server::Server;
use crate::support::{Answers, client, definition, fail, fault, get, network, url};

/// A proxy that connects every tunnel to one address, and keeps what it was asked.
async fn proxy(to: SocketAddr) -> (Server, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = requests.clone();
    let server = Server::plain(move |mut peer| {
        let kept = kept.clone();
        async move {
            let request = peer.request().await.unwrap();
            kept.lock().unwrap().push(request);
            let mut upstream = TcpStream::connect(to).await.unwrap();
            // Interim responses are skipped.
            peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
            peer.send("HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await;
            let _ = tokio::io::copy_bidirectional(&mut peer.io, &mut upstream).await;
        }
    });
    (server.await, requests)
}

fn through(server: &Server) -> Option<Proxy> {
    let password = Secret::new("word".into());
    let address = url(&format!("http://proxy.example:{}", server.port()));
    Some(Proxy::new(&address, Some(("pass", &password))).unwrap())
}

/// A network in which the operator has allowed the proxy.
fn with_proxy(answers: Answers) -> Network {
    network(Policy::default().allow("proxy.example").unwrap(), answers)
}

#[tokio::test]
async fn the_tunnel_has_the_name_and_the_identity_goes_through_it() {
    let authority = Authority::new("authority");
    let server = Server::tls(authority.server("login.example", Some(&authority)), |peer| peer.serve("hello")).await;
    let (proxy, requests) = proxy(server.address).await;
    let answers = Answers::of(&["127.0.0.1"]);
    let definition = Definition {
        identity: Some(authority.client("caller.example").identity()),
        trust: authority.trust(),
        proxy: through(&proxy),
        ..definition("https://login.example/")
    };
    let client = client(with_proxy(answers.clone()), definition);
    for _ in 0..2 {
        assert_eq!(get(&client, "https://login.example/path").await.body, "hello");
    }
    let head = "CONNECT login.example:443 HTTP/1.1\r\nhost: login.example:443\r\n";
    let expected = format!("{head}proxy-authorization: Basic cGFzczp3b3Jk\r\n\r\n");
    assert_eq!(*requests.lock().unwrap(), [expected], "one tunnel serves both calls");
    assert_eq!(answers.asked(), 1, "only the name of the proxy is resolved");
}

#[tokio::test]
async fn addresses_and_local_names_are_refused_before_the_proxy_is_asked() {
    let (proxy, _) = proxy("127.0.0.1:1".parse().unwrap()).await;
    let definition = Definition { proxy: through(&proxy), ..definition("https://login.example/") };
    let client = client(with_proxy(Answers::of(&["127.0.0.1"])), definition);
    for name in ["localhost", "metadata.google.internal", "vault"] {
        let expected = Refusal::ProxiedName { rule: Rule::LocalName };
        assert_eq!(fault(&client, &format!("https://{name}/")).await, Fault::Refused(expected));
    }
    for host in ["10.0.0.1", "169.254.169.254", "[::1]"] {
        assert_eq!(fault(&client, &format!("https://{host}/")).await.reason(), "EGRESS_REFUSED");
    }
    assert_eq!(proxy.accepted(), 0);
}

#[tokio::test]
async fn the_proxy_itself_needs_to_be_allowed() {
    let (proxy, _) = proxy("127.0.0.1:1".parse().unwrap()).await;
    let definition = Definition { proxy: through(&proxy), ..definition("https://login.example/") };
    let client = client(network(Policy::default(), Answers::of(&["127.0.0.1"])), definition);
    assert_eq!(fault(&client, "https://login.example/").await.reason(), "EGRESS_REFUSED");
    assert_eq!(proxy.accepted(), 0);
}

#[tokio::test]
async fn refusals_and_faults_of_the_proxy_are_named() {
    for (response, expected) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", ProxyFault::Status(407)),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\n\r\n", ProxyFault::Status(302)),
        ("SSH-2.0\r\n\r\n", ProxyFault::Malformed),
        ("SSH-2.0 without an end", ProxyFault::Malformed),
        ("HTTP/1.1 200", ProxyFault::Lost(std::io::ErrorKind::UnexpectedEof)),
        ("HTTP/1.1 100\r\n\r\nHTTP/1.1 403\r\n\r\n", ProxyFault::Status(403)),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", ProxyFault::Status(101)),
        (&format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100 * 1024)), ProxyFault::HeadersTooLarge),
        (&"HTTP/1.1 100\r\nx: y\r\n\r\n".repeat(1000), ProxyFault::HeadersTooLarge),
    ] {
        let server = Server::answering(response).await;
        let definition = Definition { proxy: through(&server), ..definition("https://login.example/") };
        let error = fail(&client(with_proxy(Answers::of(&["127.0.0.1"])), definition), "https://login.example/").await;
        assert_eq!(error, CallError { fault: Fault::Proxy(expected), sent: false });
    }
}

#[test]
fn a_proxy_is_an_http_url_without_a_path() {
    for wrong in ["https://proxy.example", "http://proxy.example/path", "http://proxy.example/?a"] {
        assert_eq!(Proxy::new(&url(wrong), None).unwrap_err(), DefinitionError::ProxyScheme, "{wrong}");
    }
    assert!(matches!(Proxy::new(&url("http://0x7f.1:3128"), None), Err(DefinitionError::ProxyUrl(_))));
    assert!(
        !format!("{:?}", Proxy::new(&url("http://a.example"), Some(("u", &Secret::new("p".into()))))).contains("dTp")
    );
}
