//! Clients that say who they are by the key of their connection: by a signature, or by a certificate.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::connector::{Connector, OAuth2Endpoints};
use jackfield_domain::error::Precondition;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Error, Resource, Result, Secret, TenantId};
use jackfield_upstream::client::{Client, Deadline};
use jackfield_upstream::egress::Target;
use jackfield_upstream::oauth::{AssertionKey, ClientAssertion, RsaScheme};
use jackfield_upstream::oidc::{DocumentFault, Fetcher, ProviderEndpoint, ProviderEndpoints};
use jackfield_upstream::probe::Probe;
use tokio::time::Instant;

use super::endpoint::{RETRY_AFTER, endpoints, incomplete, unusable};
use crate::outbound::{ConnectionIdentity, READ_ATTEMPTS};
use crate::services::Services;

/// The client for endpoints to which a connection says who it is.
pub(super) struct Authenticated {
    pub(super) client: Arc<Client>,
    pub(super) aliases: Aliases,
}

/// The endpoints of an issuer for clients that present a certificate. They take the place of those that it publishes for others, and of
/// no other URLs (RFC 8705 5).
#[derive(Default)]
pub(super) struct Aliases(Option<Arc<ProviderEndpoints>>);

/// The longest wait for the metadata of an issuer.
const TIMEOUT: Duration = Duration::from_secs(30);

// === impl Services ===

impl Services {
    /// The assertions of a connection, for the issuer alone.
    ///
    /// # Errors
    /// The connection lacks its key or its issuer, or the key does not sign.
    pub(super) async fn client_assertion(
        &self,
        tenant: TenantId,
        (connection, connector): (&Connection, &Connector),
    ) -> Result<ClientAssertion> {
        let issuer = issuer_of(connection, connector);
        let issuer = issuer.ok_or_else(|| incomplete(connection, "issuer_url", Some("issuer_url")))?;
        let private_key = self.private_key_of(tenant, connection).await?;
        let key = AssertionKey::from_pem(&private_key, None, RsaScheme::Pkcs1);
        // Rotated material may be of another kind than what was checked.
        let key = key.map_err(|fault| {
            let message = format!("connection.client_key names a key that signs no assertions: {fault}");
            Error::precondition(Precondition::ConnectionIncomplete, Resource::Connection, connection.id, message)
        })?;
        let client_id = connection.settings.client_id.clone();
        Ok(ClientAssertion::new(client_id, issuer, key, Arc::clone(&self.shared.clock)))
    }

    /// The client for endpoints to which a connection says who it is: that of its connector, unless it presents a certificate of its own.
    ///
    /// # Errors
    /// The connection lacks its key, the definition cannot be used, or it is not known where the certificate is to be presented.
    pub(super) async fn authenticated(
        &self,
        tenant: TenantId,
        of: (&Connection, &Connector),
        client: &Arc<Client>,
        deadline: Option<Instant>,
    ) -> Result<Authenticated> {
        let (connection, connector) = of;
        if !connection.settings.client_authentication.presents_certificate() {
            return Ok(Authenticated { client: Arc::clone(client), aliases: Aliases::default() });
        }
        let aliases = self.aliases(tenant, of, client, deadline).await?;
        let identity = identity_of(of, &aliases).ok_or_else(|| incomplete(connection, "client_key", None))?;
        let client = self.shared.outbound.connection_client(tenant, connector.id, identity).await?;
        Ok(Authenticated { client: client.map_err(|error| unusable(connector, &error))?, aliases })
    }

    /// The endpoints that the issuer of a connection has for certificates. An issuer that publishes nothing has none. One that does not answer
    /// has those that it published last, and for a day also one whose document is gone.
    async fn aliases(
        &self,
        tenant: TenantId,
        (connection, connector): (&Connection, &Connector),
        client: &Client,
        deadline: Option<Instant>,
    ) -> Result<Aliases> {
        let Some(issuer) = issuer_of(connection, connector) else { return Ok(Aliases::default()) };
        let longest = Instant::now() + TIMEOUT;
        // That an issuer does not answer in less time says nothing about it.
        let deadline = match deadline.filter(|deadline| *deadline < longest) {
            Some(earlier) => Some(Deadline::Caller(earlier)),
            None => Some(Deadline::Server(longest)),
        };
        let fetcher = Fetcher { client, id: (tenant, connection.id.0), now: self.now(), deadline };
        match self.shared.issuers.discovery.endpoints(&fetcher, &issuer).await {
            Ok(endpoints) => Ok(Aliases(Some(endpoints))),
            Err(fault) if fault.is_absence() || fault == DocumentFault::IssuerInvalid => Ok(Aliases::default()),
            Err(fault) => {
                let (id, reason) = (connector.id, fault.reason());
                let error = &fault as &(dyn std::error::Error + 'static);
                tracing::warn!(connector.id = %id, error.type = reason, error, "the metadata of an issuer cannot be had");
                Err(Error::UpstreamUnavailable { connector: id.to_string(), retry_after: RETRY_AFTER })
            }
        }
    }

    /// The same for a test, of whose calls nothing is kept. If the endpoints cannot be had, its verdicts about the issuer say why.
    pub(super) async fn tested_aliases(
        &self,
        tenant: TenantId,
        of: (&Connection, &Connector),
        probe: &Probe,
    ) -> Aliases {
        let (connection, connector) = of;
        let Some(issuer) = issuer_of(connection, connector) else { return Aliases::default() };
        match self.shared.outbound.published_endpoints(probe, &issuer).await {
            Some(Ok(endpoints)) => Aliases(Some(Arc::new(endpoints))),
            Some(Err(fault)) if fault.keeps_last() => {
                let id = (tenant, connection.id.0);
                Aliases(self.shared.issuers.discovery.last_endpoints(id, &issuer, self.now()))
            }
            Some(Err(_)) | None => Aliases::default(),
        }
    }

    /// The private key of a connection, of the material that is current now.
    async fn private_key_of(&self, tenant: TenantId, connection: &Connection) -> Result<Secret> {
        // Other material may become current in between, and then that before is gone.
        for _ in 0..READ_ATTEMPTS {
            let key = match connection.client_key {
                Some(id) => self.shared.outbound.key(tenant, Some(id)).await?.flatten(),
                None => None,
            };
            let key = key.ok_or_else(|| incomplete(connection, "client_key", None))?;
            if let Some(private_key) = self.shared.outbound.private_key(tenant, Some(&key)).await? {
                return Ok(private_key);
            }
        }
        Err(Error::internal("a key lacks its private key"))
    }
}

// === impl Aliases ===

impl Aliases {
    /// The token endpoint that is called in place of one.
    pub(super) fn of_token(&self, url: &HttpUrl) -> HttpUrl {
        self.of(url, |it| &it.token)
    }

    /// The revocation endpoint that is called in place of one.
    pub(super) fn of_revocation(&self, url: &HttpUrl) -> HttpUrl {
        self.of(url, |it| &it.revocation)
    }

    /// The device authorisation endpoint that is called in place of one.
    pub(super) fn of_device(&self, url: &HttpUrl) -> HttpUrl {
        self.of(url, |it| &it.device_authorization)
    }

    fn of(&self, url: &HttpUrl, endpoint: fn(&ProviderEndpoints) -> &ProviderEndpoint) -> HttpUrl {
        self.0.as_deref().map_or_else(|| url.clone(), |endpoints| endpoint(endpoints).for_certificate(url))
    }
}

/// The certificate of a connection, and where it is presented. `None` if the connection has no key, or presents no certificate.
pub(super) fn identity_of(
    (connection, connector): (&Connection, &Connector),
    aliases: &Aliases,
) -> Option<ConnectionIdentity> {
    let settings = &connection.settings;
    let key = connection.client_key.filter(|_| settings.client_authentication.presents_certificate())?;
    let of_connector = endpoints(connector);
    let url = |own: &Option<HttpUrl>, other: fn(&OAuth2Endpoints) -> &Option<HttpUrl>| {
        own.clone().or_else(|| other(of_connector?).clone())
    };
    let urls = [
        url(&settings.token_url, |it| &it.token_url).map(|url| aliases.of_token(&url)),
        url(&settings.revocation_url, |it| &it.revocation_url).map(|url| aliases.of_revocation(&url)),
        url(&settings.device_authorization_url, |it| &it.device_authorization_url).map(|url| aliases.of_device(&url)),
    ];
    let origins = urls.iter().flatten().filter_map(|url| Target::parse(url).ok()).collect();
    Some(ConnectionIdentity { connection: connection.id, meta: connection.meta, key, origins })
}

/// The issuer at which a connection is registered.
fn issuer_of(connection: &Connection, connector: &Connector) -> Option<String> {
    let own = Some(connection.settings.issuer_url.clone()).filter(|issuer| !issuer.is_empty());
    own.or_else(|| Some(endpoints(connector)?.issuer_url.as_ref()?.as_str().to_owned()))
}
