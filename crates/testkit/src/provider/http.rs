//! Connections of a provider. HTTP is written by hand, because no library sends half an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Shared;
use super::fault::{ProviderAnswer, ProviderFault};
use super::grants::{Refresh, Refusal};
use super::request::{Endpoint, ProviderRequest};
use crate::system::Reply;

/// A request of HTTP/1.1.
pub(super) struct Message {
    head: String,
    pub(super) body: Vec<u8>,
}

/// A request in progress, which counts until this value is dropped.
struct Open(Arc<Shared>);

/// The longest head.
const MAX_HEAD: usize = 64 * 1024;

/// Answers the requests of a connection, one after the other.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // A client may go away at any time.
    let _ = answer_all(stream, &shared).await;
}

async fn answer_all(mut stream: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut start = [0; 64];
    loop {
        // A fault may say that the request is not read.
        let length = stream.peek(&mut start).await?;
        if length == 0 {
            return Ok(());
        }
        let Some(endpoint) = Endpoint::of(&start[..length]) else {
            Message::read(&mut stream).await?;
            send(&mut stream, &Reply::new(404, "not found"), None).await?;
            continue;
        };
        let fault = shared.script().next(endpoint);
        if matches!(fault.answer, ProviderAnswer::Unread) {
            return Ok(());
        }
        let message = Message::read(&mut stream).await?;
        let reply = reply(shared, endpoint, &message, &fault).await;
        match fault.answer {
            ProviderAnswer::Dropped => return Ok(()),
            ProviderAnswer::Half => {
                let bytes = written(&reply);
                return stream.write_all(&bytes[..bytes.len() - reply.body.len().div_ceil(2)]).await;
            }
            ProviderAnswer::Trickle(pause) => send(&mut stream, &reply, Some(pause)).await?,
            _ => send(&mut stream, &reply, None).await?,
        }
        if message.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
        if shared.options.drops_idle {
            return Message::read(&mut stream).await.map(|_| ());
        }
    }
}

/// Acts on a request, and returns the response. It goes on if the client has gone.
async fn reply(shared: &Arc<Shared>, endpoint: Endpoint, message: &Message, fault: &ProviderFault) -> Reply {
    let request = match ProviderRequest::read(endpoint, message) {
        Ok(request) => request,
        Err(refusal) => return refusal.reply(),
    };
    shared.grants().requests.push(request.clone());
    let _open = Open::of(shared);
    let _in_progress = Refresh::of(shared, &request);
    tokio::time::sleep(fault.before).await;
    let honest = if fault.acts { act(shared, &request, message) } else { Reply::new(200, "{}") };
    tokio::time::sleep(fault.after).await;
    if let Some(gate) = &fault.gate {
        gate.passed().await;
    }
    fault.answer.reply(honest)
}

fn act(shared: &Shared, request: &ProviderRequest, message: &Message) -> Reply {
    if let Some(foreign) = &shared.foreign {
        return foreign.answer(request.endpoint, message);
    }
    let options = &shared.options;
    let now = shared.now();
    let outcome = request.authenticate(options).and_then(|()| match request.endpoint {
        Endpoint::Token => {
            let tokens = shared.grants().exchange(&request.wanted()?, options, now)?;
            Ok(Reply::new(200, tokens.to_string()))
        }
        Endpoint::Revocation => {
            let token = request.parameter("token").ok_or_else(|| Refusal::new(400, "invalid_request"))?;
            shared.grants().revoke(token);
            // A token that is unknown is no error (RFC 7009 2.2).
            Ok(Reply::new(200, ""))
        }
    });
    outcome.unwrap_or_else(|refusal| refusal.reply())
}

// === impl Open ===

impl Open {
    fn of(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Open(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Refusal ===

impl Refusal {
    fn reply(&self) -> Reply {
        let headers = if self.status == 401 { vec![("www-authenticate", "Basic".to_owned())] } else { Vec::new() };
        let body = json!({ "error": self.code, "error_description": "refused" });
        Reply { headers, ..Reply::new(self.status, body.to_string()) }
    }
}

// === impl Message ===

impl Message {
    async fn read(stream: &mut TcpStream) -> std::io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            head.push(stream.read_u8().await?);
        }
        let mut message = Message { head: String::from_utf8_lossy(&head).into_owned(), body: Vec::new() };
        let length = message.header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
        message.body = vec![0; length];
        stream.read_exact(&mut message.body).await?;
        Ok(message)
    }

    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The bytes of a response.
fn written(reply: &Reply) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Status\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    // RFC 6749 5.1
    head.push_str("cache-control: no-store\r\n");
    if !reply.headers.iter().any(|(name, _)| *name == "content-type") {
        head.push_str("content-type: application/json\r\n");
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&reply.body);
    bytes
}

async fn send(stream: &mut TcpStream, reply: &Reply, pause: Option<Duration>) -> std::io::Result<()> {
    let bytes = written(reply);
    let Some(pause) = pause else { return stream.write_all(&bytes).await };
    for byte in bytes {
        stream.write_all(&[byte]).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
