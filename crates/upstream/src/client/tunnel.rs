//! The request for a tunnel through a proxy (RFC 9110 9.3.6).

use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::definition::Proxy;
use crate::egress::Target;
use crate::error::ProxyFault;

/// The largest head of a response of a proxy, with those of interim responses before it (RFC 9110 15.2), in bytes.
const MAX_HEAD: usize = 8 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Asks for a tunnel to a target, and returns when the stream is one.
pub(super) async fn tunnel(stream: &mut TcpStream, target: &Target, proxy: &Proxy) -> Result<(), ProxyFault> {
    let lost = |error: std::io::Error| ProxyFault::Lost(error.kind());
    stream.write_all(&request(target, proxy.authorization.as_ref())).await.map_err(lost)?;
    let mut left = MAX_HEAD;
    loop {
        let mut head = Vec::new();
        // Byte by byte, because what follows the head is no longer the proxy's.
        while !head.ends_with(END_OF_HEAD) {
            if !may_begin_response(&head) {
                return Err(ProxyFault::Malformed);
            }
            left = left.checked_sub(1).ok_or(ProxyFault::HeadersTooLarge)?;
            head.push(stream.read_u8().await.map_err(lost)?);
        }
        match status(&head) {
            Some(200..=299) => return Ok(()),
            // A proxy that switches to another protocol was not asked to.
            Some(status @ (101 | 300..)) => return Err(ProxyFault::Status(status)),
            Some(_) => {}
            None => return Err(ProxyFault::Malformed),
        }
    }
}

/// Returns true if a response begins with these bytes, or these with the beginning of one.
fn may_begin_response(head: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = head.len().min(BEGIN.len());
    head[..length] == BEGIN[..length]
}

fn request(target: &Target, authorization: Option<&HeaderValue>) -> Vec<u8> {
    let peer = format!("{}:{}", target.host(), target.port());
    let mut request = format!("CONNECT {peer} HTTP/1.1\r\nhost: {peer}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// The status in the first line of a response.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (code, rest) = rest.split_at_checked(3)?;
    let ends = rest.starts_with(b" ") || rest.starts_with(b"\r\n");
    let digits = code.iter().all(u8::is_ascii_digit);
    let status = std::str::from_utf8(code).ok()?.parse().ok()?;
    (ends && digits && (100..=599).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_status_lines_have_a_status() {
        for (head, expected) in [
            (&b"HTTP/1.1 200 Connection established\r\n\r\n"[..], Some(200)),
            (b"HTTP/1.0 407\r\n\r\n", Some(407)),
            (b"HTTP/1.1 2000 x\r\n\r\n", None),
            (b"HTTP/1.1 +20 x\r\n\r\n", None),
            (b"HTTP/1.1 999 x\r\n\r\n", None),
            (b"HTTP/2 200\r\n\r\n", None),
            (b"200 OK\r\n\r\n", None),
            (b"HTTP/1.1 20", None),
            (b"\r\n\r\n", None),
        ] {
            assert_eq!(status(head), expected, "{head:?}");
        }
    }
}
