//! Calls as bytes. The load generator encodes a request once and does not decode answers, so that its cost is small and
//! the same for both sides.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::uri::PathAndQuery;
use jackfield_testkit::raw::Raw;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

use crate::Result;
use crate::load::Call;

/// Flow-control windows of clients in bytes: large enough that they never delay a stream on the loopback.
const WINDOW: u32 = 4 * 1024 * 1024;

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Client(Grpc<Channel>);

/// Connects with mutual TLS, with the files that a first start in development creates.
pub(crate) async fn connect(address: SocketAddr, pki: &Path) -> Result<Channel> {
    let read = |file: &str| std::fs::read(pki.join(file));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")?))
        .identity(Identity::from_pem(read("client.pem")?, read("client-key.pem")?))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    Ok(endpoint.connect().await?)
}

/// Several such connections.
pub(crate) async fn connect_many(address: SocketAddr, pki: &Path, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::new(connect(address, pki).await?));
    }
    Ok(clients)
}

// === impl Client ===

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        Client(Grpc::new(channel))
    }

    /// Makes a call with one answer.
    pub(crate) async fn unary(&mut self, path: &'static str, request: Bytes) -> std::result::Result<Bytes, Status> {
        self.ready().await?;
        let answer = self.0.unary(Request::new(request), PathAndQuery::from_static(path), Raw).await?;
        Ok(answer.into_inner())
    }

    /// Makes a call that is answered by a stream.
    pub(crate) async fn stream(
        &mut self,
        path: &'static str,
        request: Bytes,
    ) -> std::result::Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        let answer = self.0.server_streaming(Request::new(request), PathAndQuery::from_static(path), Raw).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> std::result::Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::from_error(error.into()))
    }
}

impl Call for Client {
    async fn call(&mut self, path: &'static str, request: Bytes) -> Result<()> {
        self.unary(path, request).await?;
        Ok(())
    }
}

/// The number of rows in a page: entries of field 1 of a message whose other fields are length-delimited too.
pub(crate) fn rows(page: &[u8]) -> usize {
    let (mut at, mut rows) = (0, 0);
    while let Some(&tag) = page.get(at) {
        rows += usize::from(tag >> 3 == 1);
        let Some((length, next)) = varint(page, at + 1) else { break };
        at = next + length;
    }
    rows
}

/// The token of the next page, the text in field 2.
pub(crate) fn next_page_token(page: &[u8]) -> String {
    let mut at = 0;
    while let Some(&tag) = page.get(at) {
        let Some((length, next)) = varint(page, at + 1) else { break };
        at = next + length;
        if tag >> 3 == 2 {
            return String::from_utf8_lossy(&page[next..at]).into_owned();
        }
    }
    String::new()
}

fn varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = *bytes.get(at)?;
        value |= usize::from(byte & 0x7f) << shift;
        (at, shift) = (at + 1, shift + 7);
        if byte < 0x80 {
            return Some((value, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use jackfield_api::v1;
    use prost::Message as _;

    use super::*;

    #[test]
    fn rows_and_token_of_a_page_are_read_without_decoding_it() {
        let connections = vec![v1::Connection { name: "n".repeat(300), ..Default::default() }; 3];
        let page = v1::ListConnectionsResponse { connections, next_page_token: "token".to_owned() }.encode_to_vec();
        assert_eq!((rows(&page), next_page_token(&page).as_str()), (3, "token"));
        let last = v1::ListConnectionsResponse::default().encode_to_vec();
        assert_eq!((rows(&last), next_page_token(&last).as_str()), (0, ""));
    }
}
