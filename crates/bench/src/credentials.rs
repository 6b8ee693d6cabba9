//! Credentials that lines about tokens create, all of one user and one connector.

use jackfield_api::v1;
use jackfield_api::v1::connection_service_client::ConnectionServiceClient;
use jackfield_api::v1::connector_service_client::ConnectorServiceClient;
use jackfield_api::v1::credential_material::Material;
use jackfield_api::v1::credentials_service_client::CredentialsServiceClient;
use jackfield_api::v1::user_connector_service_client::UserConnectorServiceClient;
use jackfield_testkit::{Provider, ProviderOptions, fixture};
use tonic::transport::Channel;

use crate::Result;

/// A user who is linked with a connector.
pub(crate) struct Credentials {
    channel: Channel,
    user_id: String,
    connector: String,
    /// The id of the connection; empty if there is none.
    connection: String,
}

/// An access token as long as those of usual providers.
pub(crate) fn access_token() -> String {
    "a".repeat(1024)
}

/// A refresh token as long as those of usual providers.
pub(crate) fn refresh_token() -> String {
    "r".repeat(512)
}

// === impl Credentials ===

impl Credentials {
    /// Creates a connector and a user, both of this name.
    pub(crate) async fn of(channel: Channel, name: &str) -> Result<Self> {
        let connector = Some(fixture::an_oauth2_connector(name));
        let request = v1::CreateConnectorRequest { connector, ..Default::default() };
        let answer = ConnectorServiceClient::new(channel.clone()).create_connector(request).await?;
        let connector = answer.into_inner().connector.ok_or("no connector")?.id;
        let user_id = name.to_owned();
        let request = v1::AddUserConnectorRequest {
            user_id: user_id.clone(),
            connector: connector.clone(),
            ..Default::default()
        };
        UserConnectorServiceClient::new(channel.clone()).add_user_connector(request).await?;
        Ok(Credentials { channel, user_id, connector, connection: String::new() })
    }

    /// As [`Credentials::of`], with a connection to a token endpoint, and the client id and the secret of the connection.
    pub(crate) async fn of_connection(
        channel: Channel,
        name: &str,
        token_url: &str,
        client: Option<(&str, &str)>,
    ) -> Result<Self> {
        let credentials = Self::of(channel, name).await?;
        let mut connection = v1::Connection {
            token_url: Some(token_url.to_owned()),
            ..fixture::a_connection(name, &credentials.connector)
        };
        if let Some((id, secret)) = client {
            connection.client_id = Some(id.to_owned());
            connection.client_secrets =
                vec![v1::ClientSecret { secret_id: "1".to_owned(), value: secret.to_owned(), create_time: None }];
        }
        let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
        let answer = ConnectionServiceClient::new(credentials.channel.clone()).create_connection(request).await?;
        let connection = answer.into_inner().connection.ok_or("no connection")?.id;
        Ok(Credentials { connection, ..credentials })
    }

    /// As [`Credentials::of_connection`], with the token endpoint of a provider with its default options.
    pub(crate) async fn of_provider(channel: Channel, name: &str, provider: &Provider) -> Result<Self> {
        let ProviderOptions { client_id, client_secrets, .. } = ProviderOptions::default();
        let secret = client_secrets.first().ok_or("no client secret")?;
        Self::of_connection(channel, name, &provider.token_url(), Some((&client_id, secret))).await
    }

    /// Creates a credential, and returns its id.
    pub(crate) async fn create(&self, id: Option<&str>, material: v1::CredentialMaterial) -> Result<String> {
        let facts = v1::Credential {
            connection: self.connection.clone(),
            ..fixture::a_credential(&self.user_id, &self.connector)
        };
        let request = v1::CreateCredentialRequest {
            credential: Some(facts),
            material: Some(material),
            id: id.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let answer = CredentialsServiceClient::new(self.channel.clone()).create_credential(request).await?;
        Ok(answer.into_inner().credential.ok_or("no credential")?.id)
    }

    /// Creates a credential of a new grant whose access token has expired, and returns its id.
    pub(crate) async fn create_expired(&self, provider: &Provider) -> Result<String> {
        let issued = provider.grant(&self.user_id, &["read"]);
        let oauth2 = v1::OAuth2Material {
            access_token: issued.access_token,
            refresh_token: issued.refresh_token,
            expire_time: Some(fixture::seconds_from_now(-60)),
            scopes: vec!["read".to_owned()],
            ..Default::default()
        };
        self.create(None, v1::CredentialMaterial { material: Some(Material::Oauth2(oauth2)) }).await
    }
}
