//! A system that checks log-ins as the FusionAuth Generic Connector expects it, and demands client certificates. README.md shows
//! how Jackfield calls it.
//!
//! It knows one user, `ada`, with the password `correct horse`. The first start makes an authority, a certificate of its own
//! and one for Jackfield, in a directory: `login-backend [directory] [address]`, by default `data/example` and `127.0.0.1:8443`.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The largest request, in bytes.
const MAX_BODY: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "data/example".to_owned()));
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let acceptor = TlsAcceptor::from(Arc::new(certificates(&directory)?));
    let bound = TcpListener::bind(&address).await;
    let listener = bound.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let (port, identity) = (listener.local_addr()?.port(), directory.join("client.pem"));
    let said = format!("Checks log-ins at https://localhost:{port}/login, for clients with {}", identity.display());
    writeln!(std::io::stdout(), "{said}")?;
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        #[expect(clippy::disallowed_methods, reason = "a connection ends with the program")]
        tokio::spawn(async move {
            if let Err(error) = serve(acceptor, stream).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let stream = acceptor.accept(stream).await?;
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    server.serve_connection(TokioIo::new(stream), service_fn(respond)).await?;
    Ok(())
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if (request.method(), request.uri().path()) != (&Method::POST, "/login") {
        return Ok(response(StatusCode::NOT_FOUND, &Value::Null));
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let login: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    Ok(match login {
        None => response(StatusCode::BAD_REQUEST, &Value::Null),
        Some(login) if login["loginId"] == "ada" && login["password"] == "correct horse" => {
            let user = json!({
                "id": "0e1f6b0c-7d0c-4d43-9b1f-2f6c5f0f4b52",
                "username": "ada",
                "email": "ada@example.com",
                "registrations": [{ "applicationId": "calendar", "roles": ["editor"] }],
            });
            response(StatusCode::OK, &json!({ "user": user }))
        }
        Some(_) => response(StatusCode::NOT_FOUND, &Value::Null),
    })
}

fn response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

/// The certificates of the example, made at the first start.
fn certificates(directory: &Path) -> Result<ServerConfig> {
    example_certificates::make(directory)?;
    let path = |file: &str| directory.join(file);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("ca.pem"))?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let certificate = CertificateDer::from_pem_file(path("server.pem"))?;
    let key = PrivateKeyDer::from_pem_file(path("server-key.pem"))?;
    Ok(ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key)?)
}
