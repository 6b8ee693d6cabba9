//! The account at the provider: whose tokens a response has. It is found before anything of the response is stored.

use std::time::Duration;

use jackfield_domain::authorization::{AuthorizationEnd, AuthorizationFailure, AuthorizationSession};
use jackfield_domain::connection::{
    Connection, ConnectionSettings, Linking, UserIdFault, is_business_account, user_id_of, verified_email,
};
use jackfield_domain::connector::Connector;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectionId, Secret, TenantId, Timestamp};
use jackfield_upstream::client::Deadline;
use jackfield_upstream::oidc::{
    Algorithm, Discovery, DocumentFault, Fetcher, IdTokenClaims, IdTokenFault, IdTokenRules, IdTokenUse, KeySets,
    ProfileFault, ProfileNeed, claimed_subject, fetch_profile,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::endpoint::{TokenClient, endpoints};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

/// The published documents of issuers, as connections have fetched them.
pub(crate) struct Issuers {
    pub(super) discovery: Discovery,
    keys: KeySets,
}

/// A connection and its client, for calls about the account of a user.
#[derive(Clone, Copy)]
pub(super) struct AccountClient<'a> {
    pub(super) tenant: TenantId,
    pub(super) connection: &'a Connection,
    pub(super) client: &'a TokenClient,
}

/// The account of a user at the provider.
#[derive(Default)]
pub(super) struct Account {
    /// Its id. `None` if nothing tells it.
    pub(super) id: Option<String>,
    /// Its verified e-mail address. `None` if nothing tells it, or if the connection links no users.
    pub(super) verified_email: Option<Secret>,
}

/// The places that tell the account of a user.
pub(super) struct AccountSource {
    openid: Option<OpenId>,
    profile_url: Option<HttpUrl>,
    /// The time at which the tokens came, for which an ID token is checked. `None`: now.
    received: Option<Timestamp>,
}

/// The rules that an ID token must keep.
struct OpenId {
    issuer: String,
    jwks_url: HttpUrl,
    algorithms: Option<Vec<Algorithm>>,
}

/// The reason why it is not known whose tokens a response has.
pub(super) struct AccountFault {
    pub(super) end: AuthorizationEnd,
    /// True if the next try may find out.
    pub(super) is_transient: bool,
}

/// The longest wait for the documents of an issuer, and again for the profile of a user.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for a profile that only tells an e-mail address. The user waits meanwhile, and the tokens are good without it.
const OPTIONAL_PROFILE_TIMEOUT: Duration = Duration::from_secs(3);
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
    ) -> Result<AccountSource, DocumentFault> {
        let (settings, issuers) = (&of.connection.settings, &self.shared.issuers);
        let connector = &of.client.connector;
        let profile_url = profile_url(of.connection, connector);
        if !session.asks_for_id_token() {
            return Ok(AccountSource { openid: None, profile_url, received: None });
        }
        // The one that the session began with, which needs one.
        let issuer = session.issuer.issuer.clone().ok_or(DocumentFault::IssuerInvalid)?;
        let fetcher = self.fetcher(of);
        // The keys of a connector are those of its issuer.
        let of_connector = || {
            let endpoints = endpoints(connector)?;
            let is_its_own = endpoints.issuer_url.as_ref().is_none_or(|own| own.as_str() == issuer);
            endpoints.jwks_url.clone().filter(|_| is_its_own)
        };
        let (jwks_url, algorithms, profile_url) = match settings.jwks_url.clone().or_else(of_connector) {
            Some(url) => (url, None, profile_url),
            None => {
                let metadata = issuers.discovery.metadata(&fetcher, &issuer).await?;
                let profile_url = profile_url.or_else(|| metadata.userinfo_endpoint.clone());
                (metadata.jwks_uri.clone(), metadata.id_token_signing_algorithms.clone(), profile_url)
            }
        };
        issuers.keys.prepare(&fetcher, &jwks_url).await?;
        Ok(AccountSource { openid: Some(OpenId { issuer, jwks_url, algorithms }), profile_url, received: None })
    }

    /// The account whose tokens a response has. Nothing tells its id if no ID token was asked for, and there is no profile.
    pub(super) async fn account_of(
        &self,
        of: AccountClient<'_>,
        (source, nonce): (&AccountSource, Option<&Secret>),
        access_token: &Secret,
        id_token: Option<&Secret>,
    ) -> Result<Account, AccountFault> {
        let settings = &of.connection.settings;
        let claims = match &source.openid {
            Some(openid) => {
                let time = source.received.unwrap_or_else(|| self.now());
                Some(self.claims(of, (openid, nonce, time), access_token, id_token).await?)
            }
            None => None,
        };
        let subject = claims.as_ref().map(|claims| claims.subject.as_str());
        let none = Map::new();
        let signed = claims.as_ref().map_or(&none, |claims| &claims.all);
        let profile = match &source.profile_url {
            Some(url) if subject.is_none() || needs_profile(settings, signed) => {
                let need = (url, ProfileNeed::Required);
                let profile = fetch_profile(&self.fetcher(of), need, access_token, subject).await;
                profile.map_err(|fault| no_profile(&fault))?.0
            }
            Some(url) if settings.needs_email(signed) => self.profile_if_there(of, url, access_token, subject).await,
            Some(_) | None => Map::new(),
        };
        if settings.require_business_account && !is_business_account(signed, &profile) {
            return Err(AccountFault::of(AuthorizationFailure::BusinessAccountRequired, "", false));
        }
        if subject.is_none() && source.profile_url.is_none() {
            return Ok(Account::default());
        }
        let id = user_id_of(&settings.user_id_expression, signed, &profile);
        let id = id.map_err(|fault| AccountFault::of(AuthorizationFailure::AccountUnknown, fault.reason(), false))?;
        let links = settings.linking != Linking::Disabled;
        let verified_email = links.then(|| verified_email(signed, &profile)).flatten();
        Ok(Account { id: Some(id), verified_email })
    }

    /// The profile of a user, which is asked for their e-mail address only. It is empty if it cannot be had soon: the tokens are good without
    /// it. It takes nothing that other calls need: its circuit is its own, and it gives up its place to a call that waits for one.
    async fn profile_if_there(
        &self,
        of: AccountClient<'_>,
        url: &HttpUrl,
        access_token: &Secret,
        subject: Option<&str>,
    ) -> Map<String, Value> {
        let fetcher = self.fetcher_within(of, OPTIONAL_PROFILE_TIMEOUT);
        match fetch_profile(&fetcher, (url, ProfileNeed::Optional), access_token, subject).await {
            Ok(profile) => profile.0,
            Err(fault) => {
                let (connection, reason) = (of.connection.id, fault.reason());
                tracing::warn!(connection.id = %connection, error.type = reason, "no profile tells the e-mail address of a user");
                Map::new()
            }
        }
    }

    /// The claims of the ID token of a response, once it is known to be one for this session.
    async fn claims(
        &self,
        of: AccountClient<'_>,
        (openid, nonce, time): (&OpenId, Option<&Secret>, Timestamp),
        access_token: &Secret,
        id_token: Option<&Secret>,
    ) -> Result<IdTokenClaims, AccountFault> {
        let refused =
            |detail: &str, is_transient| AccountFault::of(AuthorizationFailure::IdTokenRefused, detail, is_transient);
        let id_token = id_token.ok_or_else(|| refused(MISSING, false))?;
        let claimed;
        let used_for = match planted_in(of.connection.id, AuthorizationBug::NonceNotCompared) {
            false => IdTokenUse::LogIn { nonce: nonce.map(Secret::expose) },
            true => {
                claimed = claimed_subject(id_token).unwrap_or_default();
                IdTokenUse::Refresh { subject: &claimed, nonce: None }
            }
        };
        let rules = IdTokenRules {
            issuer: &openid.issuer,
            client_id: &of.connection.settings.client_id,
            algorithms: openid.algorithms.as_deref(),
            used_for,
            access_token: Some(access_token),
            time,
        };
        let (keys, fetcher) = (&self.shared.issuers.keys, self.fetcher(of));
        let claims = rules.validate(id_token, keys, &openid.jwks_url, &fetcher).await;
        claims.map_err(|fault| match &fault {
            IdTokenFault::KeysUnreachable(document) => refused(fault.reason(), document.is_transient()),
            _ => refused(fault.reason(), false),
        })
    }

    fn fetcher<'a>(&self, of: AccountClient<'a>) -> Fetcher<'a> {
        self.fetcher_within(of, TIMEOUT)
    }

    fn fetcher_within<'a>(&self, of: AccountClient<'a>, timeout: Duration) -> Fetcher<'a> {
        let id = (of.tenant, of.connection.id.0);
        // The caller may leave, so its deadline is none.
        let deadline = Some(Deadline::Server(Instant::now() + timeout));
        Fetcher { client: &of.client.client, id, now: self.now(), deadline }
    }
}

// === impl AccountSource ===

impl AccountSource {
    /// The same places, for tokens that came at a time.
    pub(super) fn of_time(self, received: Timestamp) -> Self {
        AccountSource { received: Some(received), ..self }
    }
}

// === impl AccountFault ===

impl AccountFault {
    fn of(failure: AuthorizationFailure, detail: &str, is_transient: bool) -> Self {
        AccountFault { end: AuthorizationEnd::failed(failure, detail), is_transient }
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

pub(super) fn unavailable(fault: &DocumentFault) -> AuthorizationEnd {
    AuthorizationEnd::failed(AuthorizationFailure::IssuerUnavailable, fault.reason())
}

fn no_profile(fault: &ProfileFault) -> AccountFault {
    let is_transient = matches!(fault, ProfileFault::Document(document) if document.is_transient());
    AccountFault::of(AuthorizationFailure::ProfileUnavailable, fault.reason(), is_transient)
}
