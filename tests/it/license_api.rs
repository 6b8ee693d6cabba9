//! The licence API that Jackfield serves, byte for byte. Its published clients use it in `cloudspot/served.rs`.

pub(crate) mod chain;
mod failures;
mod frames;
mod transport;

use std::net::SocketAddr;

use jackfield_api::v1;
use jackfield_testkit::data::LicenseApi;
use jackfield_testkit::{Backend, Client, TestServer, fixture};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::steps;

/// The password of [`fixture::a_user`].
pub(crate) const PASSWORD: &str = "password of the fixture";

/// A response of HTTP/1.1.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

// === impl Answer ===

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks an error: its status, its code, and that it has a message.
    #[track_caller]
    fn expect(&self, status: u16, code: &str) {
        let json = self.json();
        assert_eq!((self.status, &json["error_code"]), (status, &json!(code)), "{self:?}");
        assert!(json["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert_eq!(json.as_object().unwrap().len(), 2, "{self:?}");
    }
}

/// Starts a server that serves the applications of the tenant alpha.
pub(crate) async fn served(backend: Backend, change: impl FnOnce(&mut LicenseApi)) -> TestServer {
    TestServer::start_with(backend, |config| {
        config.license_api = on_loopback();
        change(&mut config.license_api);
    })
    .await
}

/// A configuration that serves the applications of the tenant alpha in plaintext.
pub(crate) fn on_loopback() -> LicenseApi {
    let (address, tenant) = ("127.0.0.1:0".to_owned(), "alpha".to_owned());
    LicenseApi { address, plaintext: true, tenant, ..LicenseApi::default() }
}

/// Stores an application whose external id is its name.
pub(crate) async fn application(client: &Client, name: &str, connector: Option<String>) -> String {
    let external_id = Some(name.to_owned());
    let application = v1::Application { external_id, connector, ..fixture::an_application(name) };
    steps::application(client, application).await.id
}

/// Stores the user Ann.
pub(crate) async fn ann(client: &Client) -> v1::User {
    let user = v1::User {
        user_id: "ann-1".to_owned(),
        email: Some("ann@example.com".to_owned()),
        first_name: Some("Ann".to_owned()),
        last_name: Some("Größe".to_owned()),
        ..fixture::a_user("ann")
    };
    steps::user(client, user).await
}

/// Sends bytes on a connection, and reads everything until it ends.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = Vec::new();
    let reading = reader.read_to_end(&mut received);
    // The server may have answered and closed before all is sent.
    let (_, read) = tokio::join!(writer.write_all(bytes), reading);
    read.expect("the response and the end of the connection");
    received
}

async fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    let stream = TcpStream::connect(address).await.expect("a connection");
    Answer::parse(&exchange(stream, bytes).await)
}

/// A request as text.
fn request(line: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

async fn log_in(address: SocketAddr, application: &str, username: &str, password: &str) -> Answer {
    let body = json!({ "username": username, "password": password }).to_string();
    let headers = [("X-LICENSE-MODULE", application), ("Content-Type", "application/json")];
    send(address, &request("POST /api/v1/auth/authenticate/", &headers, &body)).await
}

async fn get(address: SocketAddr, path: &str, application: &str, token: &str) -> Answer {
    let headers = [("X-LICENSE-MODULE", application), ("X-LICENSE-TOKEN", token)];
    send(address, &request(&format!("GET /api/v1/{path}"), &headers, "")).await
}

fn token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_str().expect("a token").to_owned()
}
