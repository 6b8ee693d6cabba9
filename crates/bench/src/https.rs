//! The bare client of the system: hyper's pooling client over rustls, which is what reqwest is made of. (reqwest itself
//! is no dependency of the workspace, because it would call other systems without the egress policy.)

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Result;
use crate::load::Call;

/// The system, and the identity for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) port: u16,
    /// The file with the authority of the system.
    pub(crate) ca: PathBuf,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// A client with a pool.
#[derive(Clone)]
pub(crate) struct Https {
    client: legacy::Client<Connector, Full<Bytes>>,
    uri: Uri,
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    address: SocketAddr,
}

/// A connection after its handshake.
struct Stream(TlsStream<TcpStream>);

const HOST: &str = "localhost";

/// The body of a log-in.
pub(crate) fn body(login_id: &str, password: &str) -> Bytes {
    let body = serde_json::json!({
        "loginId": login_id, "password": password, "noJWT": false, "newDevice": false, "eventInfo": {},
    });
    Bytes::from(body.to_string())
}

// === impl Https ===

impl Https {
    pub(crate) fn new(peer: &Peer) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&peer.ca)?)?;
        let chain = CertificateDer::pem_slice_iter(peer.certificate_pem.as_bytes());
        let chain = chain.collect::<std::result::Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(peer.key_pem.as_bytes())?;
        let tls = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port));
        let connector = Connector { tls: TlsConnector::from(Arc::new(tls)), address };
        let uri = format!("https://{HOST}:{}/login", peer.port).parse()?;
        Ok(Https { client: legacy::Client::builder(TokioExecutor::new()).build(connector), uri })
    }

    /// Asks the system to check a log-in, and reads the response.
    pub(crate) async fn log_in(&self, body: Bytes) -> Result<StatusCode> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(body))?;
        for name in [header::CONTENT_TYPE, header::ACCEPT] {
            request.headers_mut().insert(name, header::HeaderValue::from_static("application/json"));
        }
        let response = self.client.request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }
}

impl Call for Https {
    async fn call(&mut self, _: &'static str, body: Bytes) -> Result<()> {
        match self.log_in(body).await? {
            StatusCode::OK => Ok(()),
            status => Err(format!("the system answers {status}").into()),
        }
    }
}

// === impl Connector ===

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { tls, address } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
            Ok(TokioIo::new(Stream(tls.connect(name, stream).await?)))
        })
    }
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
