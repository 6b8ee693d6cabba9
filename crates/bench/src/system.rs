//! The system that log-ins are checked at: an HTTPS server that demands client certificates, in a process of its own.
//! It accepts every log-in with the same user, after a time that is set.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jackfield_api::v1;
use jackfield_api::v1::connector_service_client::ConnectorServiceClient;
use jackfield_api::v1::key_service_client::KeyServiceClient;
use jackfield_testkit::{Identity, Pki, fixture};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::transport::Channel;

use crate::Result;
use crate::bare::stdin_closes;
use crate::https::Peer;
use crate::process::{Baseline, Job as Process};

/// The job of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The directory with its certificates.
    pki: PathBuf,
    /// The time from a request to its answer.
    thinks: Duration,
}

/// A running system.
pub(crate) struct System {
    pki: Pki,
    process: Baseline,
    _directory: TempDir,
}

const USER: &[u8] = br#"{"user": {"id": "11111111-1111-4111-8111-111111111111", "active": true, "username": "ada",
"email": "ada@example.com", "mobilePhone": "+41791234567", "firstName": "Ada", "lastName": "Lovelace", "verified": true,
"data": {"plan": 7, "team": "analysis"}, "insertInstant": 1600000000000, "passwordChangeRequired": false,
"registrations": [{"applicationId": "app", "roles": ["admin", "user"], "verified": true}]}}"#;

/// Serves until standard input closes. Prints its address on standard output.
pub(crate) async fn serve(job: Job) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&job.pki)?));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await?;
            #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
            tokio::spawn(serve_connection(acceptor.clone(), stream, job.thinks));
        }
    };
    tokio::select! {
        () = stdin_closes() => Ok(()),
        ended = accept => ended,
    }
}

async fn serve_connection(acceptor: TlsAcceptor, stream: TcpStream, thinks: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(|request| respond(request, thinks)))
        .await?;
    Ok(())
}

async fn respond(
    request: Request<Incoming>,
    thinks: Duration,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    // A body that does not arrive ends its connection.
    let _ = request.into_body().collect().await;
    if !thinks.is_zero() {
        tokio::time::sleep(thinks).await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(USER)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn tls(pki: &Path) -> Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.pem"))?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let chain = CertificateDer::pem_file_iter(pki.join("server.pem"))?.collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(pki.join("server-key.pem"))?;
    Ok(ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?)
}

// === impl System ===

impl System {
    /// Starts one that answers a request after a time.
    pub(crate) fn start(thinks: Duration) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let pki = Pki::create(directory.path());
        let process = Baseline::start(&Process::System(Job { pki: directory.path().to_owned(), thinks }))?;
        Ok(System { pki, process, _directory: directory })
    }

    /// The system as a client with an identity of its own sees it.
    pub(crate) fn peer(&self, name: &str) -> Result<Peer> {
        let leaf = self.pki.client(Identity::of(name));
        let (port, ca) = (self.process.address()?.port(), self.pki.path("ca.pem"));
        Ok(Peer { port, ca, certificate_pem: leaf.certificate_pem, key_pem: leaf.key_pem })
    }

    /// Imports the authority of the system, and returns the id of the key.
    pub(crate) async fn import_trust(&self, channel: &Channel) -> Result<String> {
        let name = format!("system {}: trust", self.process.address()?);
        let key = v1::Key { name, certificate_pem: self.pki.ca_pem(), ..Default::default() };
        import(channel, key, String::new()).await
    }

    /// Creates a connector with an identity of its own, and returns its id.
    pub(crate) async fn connector(&self, channel: &Channel, trust: &str, name: &str) -> Result<String> {
        let Peer { port, certificate_pem, key_pem, .. } = self.peer(name)?;
        let key = v1::Key { name: format!("{name}: identity"), certificate_pem, ..Default::default() };
        let identity = import(channel, key, key_pem).await?;
        let generic = v1::GenericConnector {
            authentication_url: format!("https://localhost:{port}/login"),
            ..Default::default()
        };
        let connector = v1::Connector {
            client_identity_key: Some(identity),
            trust_bundle_key: Some(trust.to_owned()),
            kind: Some(v1::connector::Kind::Generic(generic)),
            ..fixture::a_connector(name)
        };
        let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
        let created = ConnectorServiceClient::new(channel.clone()).create_connector(request).await?;
        Ok(created.into_inner().connector.ok_or("no connector")?.id)
    }
}

/// Imports a key, and returns its id.
async fn import(channel: &Channel, key: v1::Key, private_key_pem: String) -> Result<String> {
    let request = v1::ImportKeyRequest { key: Some(key), private_key_pem, ..Default::default() };
    let imported = KeyServiceClient::new(channel.clone()).import_key(request).await?;
    Ok(imported.into_inner().key.ok_or("no key")?.id)
}
