//! The account at the provider: whose tokens a response has. It is found before anything of the response is stored.

use std::time::Duration;

use jackfield_domain::authorization::{AuthorizationEnd, AuthorizationFailure, AuthorizationSession};
use jackfield_domain::connection::{Connection, ConnectionSettings, UserIdFault, is_business_account, user_id_of};
use jackfield_domain::connector::Connector;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectionId, Secret, TenantId};
use jackfield_upstream::oidc::{
    Algorithm, Discovery, DocumentFault, Fetcher, IdTokenClaims, IdTokenRules, IdTokenUse, KeySets, ProfileFault,
    fetch_profile,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::endpoint::{TokenClient, endpoints};
use crate::services::Services;

/// The published documents of issuers, as connections have fetched them.
pub(crate) struct Issuers {
    discovery: Discovery,
    keys: KeySets,
}

/// A connection and its client, for calls about the account of a user.
#[derive(Clone, Copy)]
pub(super) struct AccountClient<'a> {
    pub(super) tenant: TenantId,
    pub(super) connection: &'a Connection,
    pub(super) client: &'a TokenClient,
}

/// The places that tell the account of a user.
pub(super) struct AccountSource {
    openid: Option<OpenId>,
    profile_url: Option<HttpUrl>,
}

/// The rules that an ID token must keep.
struct OpenId {
    issuer: String,
    nonce: Secret,
    jwks_url: HttpUrl,
    algorithms: Option<Vec<Algorithm>>,
}

/// The longest wait for the documents of an issuer, and again for the profile of a user.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The detail of a response that has no ID token.
const MISSING: &str = "MISSING";

// === impl Services ===

impl Services {
    /// The places that tell the account of the user of a session. The documents of the issuer are fetched now: without them, a code would be
    /// spent for tokens that cannot be used.
    pub(super) async fn account_source(
        &self,
        of: AccountClient<'_>,
        session: &AuthorizationSession,
        nonce: Option<Secret>,
    ) -> Result<AccountSource, AuthorizationEnd> {
        let (settings, issuers) = (&of.connection.settings, &self.shared.issuers);
        let connector = &of.client.connector;
        let profile_url = profile_url(of.connection, connector);
        let Some(nonce) = nonce else { return Ok(AccountSource { openid: None, profile_url }) };
        // The one that the session began with. A session of an earlier version may have none.
        let issuer = session.issuer.issuer.clone().ok_or_else(|| unavailable(&DocumentFault::IssuerInvalid))?;
        let fetcher = self.fetcher(of);
        let of_connector = || endpoints(connector)?.jwks_url.clone();
        let (jwks_url, algorithms, profile_url) = match settings.jwks_url.clone().or_else(of_connector) {
            Some(url) => (url, None, profile_url),
            None => {
                let metadata = issuers.discovery.metadata(&fetcher, &issuer).await.map_err(|it| unavailable(&it))?;
                let profile_url = profile_url.or_else(|| metadata.userinfo_endpoint.clone());
                (metadata.jwks_uri.clone(), metadata.id_token_signing_algorithms.clone(), profile_url)
            }
        };
        issuers.keys.prepare(&fetcher, &jwks_url).await.map_err(|fault| unavailable(&fault))?;
        Ok(AccountSource { openid: Some(OpenId { issuer, nonce, jwks_url, algorithms }), profile_url })
    }

    /// The account whose tokens a response has: its id at the provider. `None` if nothing tells it: no ID token was asked for, and there is
    /// no profile.
    pub(super) async fn account_of(
        &self,
        of: AccountClient<'_>,
        source: &AccountSource,
        access_token: &Secret,
        id_token: Option<&Secret>,
    ) -> Result<Option<String>, AuthorizationEnd> {
        let settings = &of.connection.settings;
        let claims = match &source.openid {
            Some(openid) => Some(self.claims(of, openid, access_token, id_token).await?),
            None => None,
        };
        let subject = claims.as_ref().map(|claims| claims.subject.as_str());
        let none = Map::new();
        let signed = claims.as_ref().map_or(&none, |claims| &claims.all);
        let profile = match source.profile_url.as_ref().filter(|_| subject.is_none() || needs_profile(settings, signed))
        {
            Some(url) => {
                let profile = fetch_profile(&self.fetcher(of), url, access_token, subject).await;
                profile.map_err(|fault| no_profile(&fault))?.0
            }
            None => Map::new(),
        };
        if settings.require_business_account && !is_business_account(signed, &profile) {
            return Err(AuthorizationEnd::failed(AuthorizationFailure::BusinessAccountRequired, ""));
        }
        if subject.is_none() && source.profile_url.is_none() {
            return Ok(None);
        }
        let account = user_id_of(&settings.user_id_expression, signed, &profile);
        account
            .map(Some)
            .map_err(|fault| AuthorizationEnd::failed(AuthorizationFailure::AccountUnknown, fault.reason()))
    }

    /// The claims of the ID token of a response, once it is known to be one for this session.
    async fn claims(
        &self,
        of: AccountClient<'_>,
        openid: &OpenId,
        access_token: &Secret,
        id_token: Option<&Secret>,
    ) -> Result<IdTokenClaims, AuthorizationEnd> {
        let refused = |detail: &str| AuthorizationEnd::failed(AuthorizationFailure::IdTokenRefused, detail);
        let id_token = id_token.ok_or_else(|| refused(MISSING))?;
        let rules = IdTokenRules {
            issuer: &openid.issuer,
            client_id: &of.connection.settings.client_id,
            algorithms: openid.algorithms.as_deref(),
            used_for: IdTokenUse::LogIn { nonce: Some(openid.nonce.expose()) },
            access_token: Some(access_token),
        };
        let (keys, fetcher) = (&self.shared.issuers.keys, self.fetcher(of));
        let claims = rules.validate(id_token, keys, &openid.jwks_url, &fetcher).await;
        claims.map_err(|fault| refused(fault.reason()))
    }

    fn fetcher<'a>(&self, of: AccountClient<'a>) -> Fetcher<'a> {
        let id = (of.tenant, of.connection.id.0);
        // The caller may leave, so its deadline is none.
        Fetcher { client: &of.client.client, id, now: self.now(), deadline: Some(Instant::now() + TIMEOUT) }
    }
}

// === impl Issuers ===

impl Issuers {
    /// Keeps the documents of at most so many issuers.
    pub(crate) fn new(max: usize) -> Self {
        Issuers { discovery: Discovery::new(max), keys: KeySets::new(max) }
    }

    /// Forgets what was fetched for a connection that was changed or deleted.
    pub(crate) fn forget(&self, tenant: TenantId, connection: ConnectionId) {
        self.discovery.remove((tenant, connection.0));
        self.keys.remove((tenant, connection.0));
    }

    /// Forgets what was fetched for the connections of a tenant.
    pub(crate) fn forget_tenant(&self, tenant: TenantId) {
        self.discovery.remove_tenant(tenant);
        self.keys.remove_tenant(tenant);
    }
}

/// The URL of the profiles of users, if one is known without the metadata of the issuer.
pub(super) fn profile_url(connection: &Connection, connector: &Connector) -> Option<HttpUrl> {
    let of_connector = || endpoints(connector)?.profile_url.clone();
    connection.settings.oidc_user_endpoint_url.clone().or_else(of_connector)
}

/// Returns true if the claims lack something that a profile may have.
fn needs_profile(settings: &ConnectionSettings, claims: &Map<String, Value>) -> bool {
    let none = Map::new();
    let lacks_name = matches!(user_id_of(&settings.user_id_expression, claims, &none), Err(UserIdFault::Missing(_)));
    lacks_name || (settings.require_business_account && !is_business_account(claims, &none))
}

fn unavailable(fault: &DocumentFault) -> AuthorizationEnd {
    AuthorizationEnd::failed(AuthorizationFailure::IssuerUnavailable, fault.reason())
}

fn no_profile(fault: &ProfileFault) -> AuthorizationEnd {
    AuthorizationEnd::failed(AuthorizationFailure::ProfileUnavailable, fault.reason())
}
