//! Clients of a test server: one connection, with a typed client for each service.

use std::net::SocketAddr;

use jackfield_api::v1::{
    admin_service_client::AdminServiceClient, application_service_client::ApplicationServiceClient,
    configuration_service_client::ConfigurationServiceClient, connection_service_client::ConnectionServiceClient,
    connector_service_client::ConnectorServiceClient, credentials_service_client::CredentialsServiceClient,
    key_service_client::KeyServiceClient, user_connector_service_client::UserConnectorServiceClient,
    user_service_client::UserServiceClient,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::pki::{Leaf, Pki};

/// A server that has callers, in this process or in a separate one.
pub trait Callers {
    /// The caller of that name among [`crate::data::PRINCIPALS`].
    fn client(&self, principal: &str) -> Client;

    /// A caller with a certificate that the test chooses.
    fn client_with(&self, leaf: &Leaf) -> Client;

    /// The authority of all certificates.
    fn pki(&self) -> &Pki;
}

/// A caller. It connects on its first call and reconnects if the connection is lost. Copies share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// A caller that trusts this authority and presents this certificate, or none.
    ///
    /// # Panics
    /// Panics if the certificates are not PEM.
    pub fn new(server: SocketAddr, ca_pem: &str, leaf: Option<&Leaf>) -> Self {
        Self::tuned(server, ca_pem, leaf, |endpoint| endpoint)
    }

    /// As [`Client::new`], on a connection with other settings.
    ///
    /// # Panics
    /// Panics if the certificates are not PEM.
    pub fn tuned(
        server: SocketAddr,
        ca_pem: &str,
        leaf: Option<&Leaf>,
        tune: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Self {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name("localhost");
        if let Some(leaf) = leaf {
            tls = tls.identity(Identity::from_pem(&leaf.certificate_pem, &leaf.key_pem));
        }
        let endpoint = tune(Endpoint::from_shared(format!("https://{server}")).expect("address of the server"));
        Self { channel: endpoint.tls_config(tls).expect("certificates of the client").connect_lazy() }
    }

    /// The connection itself, for clients of other services: health, reflection, raw paths.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// AdminService.
    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel())
    }

    /// ApplicationService.
    pub fn applications(&self) -> ApplicationServiceClient<Channel> {
        ApplicationServiceClient::new(self.channel())
    }

    /// ConfigurationService.
    pub fn configurations(&self) -> ConfigurationServiceClient<Channel> {
        ConfigurationServiceClient::new(self.channel())
    }

    /// ConnectionService.
    pub fn connections(&self) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel())
    }

    /// ConnectorService.
    pub fn connectors(&self) -> ConnectorServiceClient<Channel> {
        ConnectorServiceClient::new(self.channel())
    }

    /// CredentialsService.
    pub fn credentials(&self) -> CredentialsServiceClient<Channel> {
        CredentialsServiceClient::new(self.channel())
    }

    /// KeyService.
    pub fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel())
    }

    /// UserConnectorService.
    pub fn user_connectors(&self) -> UserConnectorServiceClient<Channel> {
        UserConnectorServiceClient::new(self.channel())
    }

    /// UserService.
    pub fn users(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel())
    }
}
