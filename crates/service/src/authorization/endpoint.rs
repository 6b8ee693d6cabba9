//! The token endpoint of a connection: what the connection, its secrets and its connector say about it, in one place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::authorization::AuthorizationClient;
use jackfield_domain::connection::{
    ClientAuthentication as Method, ClientSecretFacts, Connection, ConnectionKind, TokenContentType,
    client_secret_column,
};
use jackfield_domain::connector::{Connector, ConnectorKind, OAuth2Endpoints};
use jackfield_domain::credential::RevokedTokenKind;
use jackfield_domain::error::Precondition;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectionId, Error, Resource, Result, Secret, SecretAddress, TenantId};
use jackfield_upstream::client::{Client, DefinitionError};
use jackfield_upstream::login::LoginFault;
use jackfield_upstream::oauth::{
    ClientAuthentication, DeviceAuthorization, DeviceAuthorizationEndpoint, Grant, Revocation, RevocationEndpoint,
    TokenEndpoint, TokenFault, TokenResponse,
};
use tokio::time::Instant;

use super::accepted::AcceptedSecrets;
use super::client_key::Authenticated;
use crate::login::require_connector_enabled;
use crate::outbound::ConnectorClient;
use crate::services::Services;

/// The client of a connection at its token endpoint.
pub(crate) struct TokenClient {
    /// For documents of the issuer and profiles of users.
    pub(crate) client: Arc<Client>,
    /// For endpoints to which the client says who it is.
    authenticated: Authenticated,
    pub(crate) connector: Arc<Connector>,
    /// The URL that is called: that of the connection, or its alias for certificates.
    pub(crate) token_url: HttpUrl,
    pub(crate) client_authentications: ClientAuthentications,
    pub(crate) content_type: TokenContentType,
}

/// The client of a connection at its revocation endpoint.
pub(crate) struct RevocationClient {
    client: Arc<Client>,
    revocation_url: HttpUrl,
    client_authentications: ClientAuthentications,
}

/// The ways in which a client says who it is.
pub(crate) struct ClientAuthentications {
    /// One for each client secret, in the order in which they are tried; one for a public client. Never empty.
    all: Vec<ClientAuthentication>,
    /// The facts of the secrets, in the same order.
    secrets: Vec<ClientSecretFacts>,
    connection: (TenantId, ConnectionId),
    accepted: Arc<AcceptedSecrets>,
}

/// The wait before a connector whose definition cannot be used is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);
const NO_AUTHENTICATION: TokenFault = TokenFault::Request("the connection has no client authentication");

// === impl TokenClient ===

impl TokenClient {
    /// The part of it that stays as long as an authorisation lasts.
    pub(super) fn facts(&self, connection: &Connection) -> AuthorizationClient {
        AuthorizationClient { token_url: self.token_url.clone(), client_id: connection.settings.client_id.clone() }
    }

    /// Exchanges a grant for tokens. Another client secret is tried only if the endpoint says that it does not accept the client: in any
    /// other case the grant may be spent.
    ///
    /// # Errors
    /// The endpoint refused the grant, or there is no usable response: the fault of the last secret that was tried.
    pub(crate) async fn exchange(
        &self,
        grant: &Grant<'_>,
        parameters: &BTreeMap<String, String>,
        deadline: Option<Instant>,
    ) -> Result<TokenResponse, TokenFault> {
        let TokenClient { authenticated, token_url: url, client_authentications, content_type, .. } = self;
        let (client, content_type) = (&authenticated.client, *content_type);
        let mut outcome = Err(NO_AUTHENTICATION);
        for (index, authentication) in client_authentications.all.iter().enumerate() {
            let endpoint = TokenEndpoint { client, url, authentication, content_type, parameters };
            outcome = endpoint.exchange(grant, deadline).await;
            if !client_authentications.goes_on(index, &outcome) {
                break;
            }
        }
        outcome
    }

    /// Begins a device authorisation.
    ///
    /// # Errors
    /// The endpoint refused, or there is no usable response: the fault of the last secret that was tried.
    pub(super) async fn authorize_device(
        &self,
        url: &HttpUrl,
        scopes: &[String],
        parameters: &BTreeMap<String, String>,
        deadline: Instant,
    ) -> Result<DeviceAuthorization, TokenFault> {
        let TokenClient { authenticated: Authenticated { client, aliases }, client_authentications, .. } = self;
        let url = &aliases.of_device(url);
        let mut outcome = Err(NO_AUTHENTICATION);
        for (index, authentication) in client_authentications.all.iter().enumerate() {
            let endpoint = DeviceAuthorizationEndpoint { client, url, authentication, parameters };
            outcome = endpoint.authorize(scopes, Some(deadline)).await;
            if !client_authentications.goes_on(index, &outcome) {
                break;
            }
        }
        outcome
    }
}

// === impl RevocationClient ===

impl RevocationClient {
    /// Revokes a token.
    ///
    /// # Errors
    /// The endpoint refused, or there is no usable response: the fault of the last secret that was tried.
    pub(crate) async fn revoke(
        &self,
        token: &Secret,
        kind: RevokedTokenKind,
        deadline: Instant,
    ) -> Result<Revocation, TokenFault> {
        let RevocationClient { client, revocation_url: url, client_authentications } = self;
        let mut outcome = Err(NO_AUTHENTICATION);
        for (index, authentication) in client_authentications.all.iter().enumerate() {
            outcome = RevocationEndpoint { client, url, authentication }.revoke(token, kind, Some(deadline)).await;
            if !client_authentications.goes_on(index, &outcome) {
                break;
            }
        }
        outcome
    }
}

// === impl ClientAuthentications ===

impl ClientAuthentications {
    /// Returns whether the next secret is tried after the outcome of one: only if the endpoint said that it does not accept the client. A
    /// secret that was accepted is the first next time.
    fn goes_on<T>(&self, index: usize, outcome: &Result<T, TokenFault>) -> bool {
        if let (Ok(_), Some(secret)) = (outcome, self.secrets.get(index)) {
            self.accepted.note(self.connection, secret);
        }
        matches!(outcome, Err(fault) if fault.refuses_client())
    }
}

// === impl Services ===

impl Services {
    /// The client of a connection at its token endpoint.
    ///
    /// # Errors
    /// The connector is disabled, the connection is inactive, or something is missing that the endpoint needs.
    pub(crate) async fn token_client(&self, tenant: TenantId, connection: &Connection) -> Result<TokenClient> {
        let settings = &connection.settings;
        require_active(connection)?;
        let (connector, client) = self.connection_client(tenant, connection).await?;
        let token_url = require_complete(connection, &connector)?;
        let of = (connection, &*connector);
        let client_authentications = self.client_authentications(tenant, of).await?;
        let authenticated = self.authenticated(tenant, of, &client, None).await?;
        Ok(TokenClient {
            token_url: authenticated.aliases.of_token(&token_url),
            client,
            authenticated,
            connector,
            client_authentications,
            content_type: settings.content_type,
        })
    }

    /// The client of a connection at its revocation endpoint; `None` if neither it nor its connector has one. A connection that is not
    /// active revokes tokens all the same. What has to be fetched for it is not awaited beyond the deadline.
    ///
    /// # Errors
    /// The connector is disabled, or something is missing that the endpoint needs.
    pub(crate) async fn revocation_client(
        &self,
        tenant: TenantId,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<Option<RevocationClient>> {
        require_oauth(connection)?;
        let (connector, client) = self.connection_client(tenant, connection).await?;
        let from_connector = endpoints(&connector).and_then(|endpoints| endpoints.revocation_url.clone());
        let Some(revocation_url) = connection.settings.revocation_url.clone().or(from_connector) else {
            return Ok(None);
        };
        let of = (connection, &*connector);
        let client_authentications = self.client_authentications(tenant, of).await?;
        let Authenticated { client, aliases } = self.authenticated(tenant, of, &client, Some(deadline)).await?;
        let revocation_url = aliases.of_revocation(&revocation_url);
        Ok(Some(RevocationClient { client, revocation_url, client_authentications }))
    }

    /// The connector of a connection, which must be enabled, and its client.
    async fn connection_client(
        &self,
        tenant: TenantId,
        connection: &Connection,
    ) -> Result<(Arc<Connector>, Arc<Client>)> {
        let reference = Ref::Id(connection.connector.0);
        let found = self.shared.outbound.client(tenant, &reference, require_connector_enabled).await?;
        let ConnectorClient { connector, client } = found;
        let client = client.map_err(|error| unusable(&connector, &error))?;
        Ok((connector, client))
    }

    /// The ways in which a connection says who it is, with its secrets opened.
    async fn client_authentications(
        &self,
        tenant: TenantId,
        of: (&Connection, &Connector),
    ) -> Result<ClientAuthentications> {
        let connection = of.0;
        if connection.settings.client_id.is_empty() {
            return Err(incomplete(connection, "client_id", None));
        }
        let mut ordered = connection.client_secrets.clone();
        self.shared.accepted_secrets.first((tenant, connection.id), &mut ordered);
        let (all, secrets) = self.authentications(tenant, of, ordered).await?;
        let accepted = Arc::clone(&self.shared.accepted_secrets);
        match all.is_empty() {
            true => Err(incomplete(connection, "client_secrets", None)),
            false => Ok(ClientAuthentications { all, secrets, connection: (tenant, connection.id), accepted }),
        }
    }

    /// The ways in which a connection says who it is, one for each of these secrets, and the facts of the secrets that are still there. One
    /// way and no facts for a public client, and for one that has a key.
    pub(super) async fn authentications(
        &self,
        tenant: TenantId,
        (connection, connector): (&Connection, &Connector),
        ordered: Vec<ClientSecretFacts>,
    ) -> Result<(Vec<ClientAuthentication>, Vec<ClientSecretFacts>)> {
        let client_id = connection.settings.client_id.clone();
        let of_secret: fn(String, Secret) -> ClientAuthentication = match connection.settings.client_authentication {
            Method::None => return Ok((vec![ClientAuthentication::None { client_id }], Vec::new())),
            Method::PrivateKeyJwt => {
                let assertion = self.client_assertion(tenant, (connection, connector)).await?;
                return Ok((vec![ClientAuthentication::PrivateKeyJwt(Box::new(assertion))], Vec::new()));
            }
            Method::TlsClientAuth | Method::SelfSignedTlsClientAuth => {
                return Ok((vec![ClientAuthentication::Certificate { client_id }], Vec::new()));
            }
            Method::ClientSecretBasic => {
                |client_id, client_secret| ClientAuthentication::SecretBasic { client_id, client_secret }
            }
            Method::ClientSecretPost => {
                |client_id, client_secret| ClientAuthentication::SecretPost { client_id, client_secret }
            }
        };
        let (mut authentications, mut secrets) = (Vec::with_capacity(ordered.len()), Vec::with_capacity(ordered.len()));
        for facts in ordered {
            let column = client_secret_column(&facts.secret_id);
            // One that is gone was removed in between.
            if let Some(secret) =
                self.shared.secrets.text(None, SecretAddress::of(tenant, connection.id, &column)).await?
            {
                authentications.push(of_secret(client_id.clone(), secret));
                secrets.push(facts);
            }
        }
        Ok((authentications, secrets))
    }
}

/// Refuses a connection that is not active, or speaks another protocol than OAuth.
pub(crate) fn require_active(connection: &Connection) -> Result<()> {
    if !connection.settings.active {
        let (reason, message) = (Precondition::ConnectionInactive, "the connection is not active");
        return Err(Error::precondition(reason, Resource::Connection, connection.id, message));
    }
    require_oauth(connection)
}

/// The URL of the token endpoint of a connection that has everything which a request to it needs, as far as its settings and those of its
/// connector tell.
pub(crate) fn require_complete(connection: &Connection, connector: &Connector) -> Result<HttpUrl> {
    let settings = &connection.settings;
    require_oauth(connection)?;
    let from_connector = endpoints(connector).and_then(|endpoints| endpoints.token_url.clone());
    let token_url = settings.token_url.clone().or(from_connector);
    let token_url = token_url.ok_or_else(|| incomplete(connection, "token_url", Some("token_url")))?;
    if settings.client_id.is_empty() {
        return Err(incomplete(connection, "client_id", None));
    }
    match settings.client_authentication {
        Method::ClientSecretBasic | Method::ClientSecretPost if connection.client_secrets.is_empty() => {
            Err(incomplete(connection, "client_secrets", None))
        }
        Method::ClientSecretBasic
        | Method::ClientSecretPost
        | Method::None
        | Method::PrivateKeyJwt
        | Method::TlsClientAuth
        | Method::SelfSignedTlsClientAuth => Ok(token_url),
    }
}

/// Refuses a connection that speaks another protocol than OAuth.
fn require_oauth(connection: &Connection) -> Result<()> {
    if connection.settings.kind == ConnectionKind::OAuth2 {
        return Ok(());
    }
    let message = "the connection is not of the type CONNECTION_TYPE_OAUTH2";
    Err(Error::precondition(Precondition::ConnectionIncomplete, Resource::Connection, connection.id, message))
}

/// The endpoints that a connector has for its connections.
pub(crate) fn endpoints(connector: &Connector) -> Option<&OAuth2Endpoints> {
    match &connector.kind {
        ConnectorKind::OAuth2(endpoints) => Some(endpoints),
        ConnectorKind::ApiKey(_)
        | ConnectorKind::ClientCertificate(_)
        | ConnectorKind::Generic(_)
        | ConnectorKind::HttpBasic(_)
        | ConnectorKind::License(_) => None,
    }
}

/// The error for a connector whose definition cannot be used, which is logged.
pub(super) fn unusable(connector: &Connector, error: &DefinitionError) -> Error {
    let error = error as &(dyn std::error::Error + 'static);
    let (id, reason) = (connector.id, LoginFault::DEFINITION_INVALID);
    tracing::warn!(connector.id = %id, error.type = reason, error, "a token endpoint cannot be called");
    Error::UpstreamUnavailable { connector: id.to_string(), retry_after: RETRY_AFTER }
}

/// The error for a connection that lacks a setting, which its connector may have instead.
pub(crate) fn incomplete(connection: &Connection, field: &str, of_connector: Option<&str>) -> Error {
    let message = match of_connector {
        Some(other) => format!("connection.{field} is required, or connector.oauth2.{other} of its connector"),
        None => format!("connection.{field} is required"),
    };
    Error::precondition(Precondition::ConnectionIncomplete, Resource::Connection, connection.id, message)
}
