//! A credential source over gRPC: it demands client certificates, and a test decides its answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jackfield_api::source::v1 as source;
use jackfield_api::source::v1::credential_source_service_server::{
    CredentialSourceService, CredentialSourceServiceServer,
};
use jackfield_api::v1;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, async_trait};

use crate::pki::Pki;

/// A running source. It ends when this value is dropped.
pub struct GrpcSource {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<source::FetchCredentialsRequest>>>,
    is_open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The material, or the code and the message of an error.
type Answer = Result<Option<v1::CredentialMaterial>, (Code, String)>;
type Handler = dyn Fn(&source::FetchCredentialsRequest) -> Answer + Send + Sync;

struct Service {
    handler: Arc<Handler>,
    asked: Arc<Mutex<Vec<source::FetchCredentialsRequest>>>,
    is_open: watch::Receiver<bool>,
}

// === impl GrpcSource ===

impl GrpcSource {
    /// Starts a source with a certificate of this authority, which has issued those of its clients, too.
    ///
    /// # Panics
    /// Panics if it does not start.
    #[expect(clippy::disallowed_methods, reason = "the task ends with the source")]
    pub async fn start(
        pki: &Pki,
        handler: impl Fn(&source::FetchCredentialsRequest) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let file = |name: &str| std::fs::read(pki.path(name)).expect("a file of the authority");
        let identity = Identity::from_pem(file("server.pem"), file("server-key.pem"));
        let tls = ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(pki.ca_pem()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let is_open = watch::Sender::new(true);
        let service = Service { handler: Arc::new(handler), asked: Arc::clone(&asked), is_open: is_open.subscribe() };
        let mut router = Server::builder().tls_config(tls).expect("TLS");
        let serving = router
            .add_service(CredentialSourceServiceServer::new(service))
            .serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(async move { serving.await.expect("a source that serves") });
        GrpcSource { address, asked, is_open, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// From now on no answer is sent.
    pub fn hold(&self) {
        self.is_open.send_replace(false);
    }

    /// The questions so far.
    pub fn asked(&self) -> Vec<source::FetchCredentialsRequest> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for GrpcSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl CredentialSourceService for Service {
    #[expect(clippy::disallowed_methods, reason = "the source of a platform makes statuses of its own")]
    async fn fetch_credentials(
        &self,
        request: Request<source::FetchCredentialsRequest>,
    ) -> Result<Response<source::FetchCredentialsResponse>, Status> {
        let request = request.into_inner();
        let answer = (self.handler)(&request);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        // It fails only if the source is gone.
        drop(self.is_open.clone().wait_for(|is_open| *is_open).await);
        match answer {
            Ok(material) => Ok(Response::new(source::FetchCredentialsResponse { material })),
            Err((code, message)) => Err(Status::new(code, message)),
        }
    }
}
