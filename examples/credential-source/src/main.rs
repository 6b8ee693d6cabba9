//! A credential source: it serves `jackfield.source.v1` over gRPC, and demands client certificates. deploy/guide/sources.md shows how
//! Jackfield asks it.
//!
//! It is the authentication callback of the Fiscus SDK: it has credentials of the user `ada` for connectors named Gmail and Salesforce.
//! The first start makes an authority, a certificate of its own and one for Jackfield, in a directory:
//! `credential-source [directory] [address]`, by default `data/source` and `127.0.0.1:8445`.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use jackfield_api::source::v1::credential_source_service_server::{
    CredentialSourceService, CredentialSourceServiceServer,
};
use jackfield_api::source::v1::{FetchCredentialsRequest, FetchCredentialsResponse};
use jackfield_api::v1::credential_material::Material;
use jackfield_api::v1::{ClientCredentialsMaterial, CredentialMaterial, OAuth2Material};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, async_trait};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

struct Source;

#[async_trait]
impl CredentialSourceService for Source {
    async fn fetch_credentials(
        &self,
        request: Request<FetchCredentialsRequest>,
    ) -> Result<Response<FetchCredentialsResponse>, Status> {
        let FetchCredentialsRequest { user_id, connector_name, .. } = request.into_inner();
        // Without material, the source has none.
        let material =
            credentials(&user_id, &connector_name).map(|material| CredentialMaterial { material: Some(material) });
        Ok(Response::new(FetchCredentialsResponse { material }))
    }
}

/// The callback.
fn credentials(user_id: &str, connector_name: &str) -> Option<Material> {
    match (user_id, connector_name) {
        ("ada", "Gmail") => Some(Material::ClientCredentials(ClientCredentialsMaterial {
            client_id: "YOUR_CLIENT_ID".to_owned(),
            client_secret: "YOUR_CLIENT_SECRET".to_owned(),
        })),
        ("ada", "Salesforce") => Some(Material::Oauth2(OAuth2Material {
            access_token: "USER_ACCESS_TOKEN".to_owned(),
            refresh_token: "USER_REFRESH_TOKEN".to_owned(),
            ..Default::default()
        })),
        _ => None,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "data/source".to_owned()));
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8445".to_owned());
    example_certificates::make(&directory)?;
    let file = |name: &str| std::fs::read(directory.join(name));
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(file("server.pem")?, file("server-key.pem")?))
        .client_ca_root(Certificate::from_pem(file("ca.pem")?));
    let bound = TcpListener::bind(&address).await;
    let listener = bound.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let (port, identity) = (listener.local_addr()?.port(), directory.join("client.pem"));
    writeln!(
        std::io::stdout(),
        "Gives credentials at https://localhost:{port}, to clients with {}",
        identity.display()
    )?;
    let mut server = Server::builder().tls_config(tls)?;
    let source = CredentialSourceServiceServer::new(Source);
    Ok(server.add_service(source).serve_with_incoming(TcpIncoming::from(listener)).await?)
}
