//! Probes of connections: what a connection lacks, and what its endpoints say, without a token or a code of any user.

use std::sync::Arc;

use jackfield_domain::authorization::{OPENID, callback_uri};
use jackfield_domain::connection::{ClientAuthentication as Method, Connection, ConnectionGrant, ConnectionKind};
use jackfield_domain::connector::{Connector, OAuth2Endpoints};
use jackfield_domain::principal::right::ConnectionsTest;
use jackfield_domain::probe::{ProbeEndpoint, ProbeReason, ProbeResult};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{Error, Result, TenantId};
use jackfield_upstream::client::Client;
use jackfield_upstream::oidc::DocumentUrls;
use jackfield_upstream::probe::{
    ConnectionProbe, DocumentUse, Finding, Owner, Plan, Probe, ProbedCode, TokenCheck, Verdicts,
};
use jackfield_vault::random_token;
use tokio::time::Instant;

use super::client_key::{Aliases, identity_of};
use super::context_of;
use super::endpoint::endpoints;
use crate::caller::Caller;
use crate::outbound::ConnectorDefinition;
use crate::services::Services;

/// The URLs of a connection, or those of its connector in their place.
struct Urls {
    issuer: Option<String>,
    authorization: Option<HttpUrl>,
    token: Option<HttpUrl>,
    keys: Option<HttpUrl>,
    device_authorization: Option<HttpUrl>,
    revocation: Option<HttpUrl>,
    profile: Option<HttpUrl>,
}

/// The redirect URI of a connection that has none. No code was issued for any.
const NO_REDIRECT_URI: &str = "https://jackfield.invalid/callback";
const MAX_URL: usize = 2_048;

// === impl Services ===

impl Services {
    /// Finds out step by step whether the endpoints of a connection can be used. The probe goes on while its verdicts are awaited.
    pub async fn connection_test(
        &self,
        caller: &Caller<ConnectionsTest>,
        reference: &Ref,
        deadline: Option<Instant>,
    ) -> Result<Verdicts> {
        let (tenant, outbound) = (caller.tenant(), &self.shared.outbound);
        let connection = self.find::<Connection>(tenant, reference).await?;
        let of_connector = Ref::Id(connection.connector.0);
        let ConnectorDefinition { connector, definition, client } =
            outbound.definition(tenant, &of_connector, None).await?;
        let of = (&connection, &connector);
        let mut urls = Urls::of(&connection, &connector);
        let seeks_keys = urls.keys.is_none();
        let mut findings = findings(&connection, &connector, &urls);
        let owner = Owner { tenant, connector: Some(connector.id.0) };
        let probe = |definition, client| Probe { owner, client, definition, plan: None, now: self.now(), deadline };
        let is_oauth = connection.settings.kind == ConnectionKind::OAuth2;
        let connector = probe(definition, client);
        let aliases = match is_oauth && connection.settings.client_authentication.presents_certificate() {
            // On the heap, because most tests do without.
            true => Box::pin(self.tested_aliases(tenant, of, &connector)).await,
            false => Aliases::default(),
        };
        let authenticated = match identity_of(of, &aliases) {
            Some(identity) => {
                let ConnectorDefinition { definition, client, .. } =
                    outbound.definition(tenant, &of_connector, Some(identity)).await?;
                Some(probe(definition, client))
            }
            None => None,
        };
        let published = urls.published();
        urls.replace(&aliases);
        // Other protocols have no endpoints that are called.
        let plans = match is_oauth {
            true => {
                let client = &authenticated.as_ref().unwrap_or(&connector).client;
                let check = match &urls.token {
                    Some(url) => self.token_check(tenant, of, client.as_ref(), url).await?,
                    None => Err(None),
                };
                let check = check.map_err(|finding| findings.extend(finding)).ok();
                plans(&connection, check, urls, published)
            }
            false => Vec::new(),
        };
        Ok(outbound.probe_connection(ConnectionProbe { connector, authenticated, findings, plans, seeks_keys }))
    }

    /// The test of the token endpoint. Without one: the client cannot say who it is, and the finding if there is none yet.
    async fn token_check(
        &self,
        tenant: TenantId,
        of: (&Connection, &Connector),
        client: Option<&Arc<Client>>,
        url: &HttpUrl,
    ) -> Result<Result<TokenCheck, Option<Finding>>> {
        let connection = of.0;
        let settings = &connection.settings;
        let Some(client) = client.filter(|_| !settings.client_id.is_empty()) else { return Ok(Err(None)) };
        // A verdict counts the secrets in the order in which the connection has them.
        let authentications = match self.authentications(tenant, of, connection.client_secrets.clone()).await {
            Ok((authentications, _)) if authentications.is_empty() => return Ok(Err(None)),
            Ok((authentications, _)) => authentications,
            Err(Error::Precondition { message, .. }) if connection.client_key.is_some() => {
                let (result, reason) = (ProbeResult::Failed, ProbeReason::DefinitionInvalid);
                return Ok(Err(Some(Finding {
                    result,
                    reason,
                    message: format!("The client cannot sign: {message}."),
                })));
            }
            Err(Error::Precondition { .. }) => return Ok(Err(None)),
            Err(error) => return Err(error),
        };
        let of_callback = || {
            let url = self.shared.facts.callback_url.as_ref()?;
            Some(callback_uri(url, &context_of(tenant, connection.id)))
        };
        let redirect_uri = match settings.redirect_uris.first().cloned().or_else(of_callback) {
            Some(uri) => uri,
            None => RedirectUri::parse("redirect_uri", NO_REDIRECT_URI, MAX_URL)?,
        };
        Ok(Ok(TokenCheck {
            client: Arc::clone(client),
            url: url.clone(),
            authentications,
            content_type: settings.content_type,
            sends: probed_code(of),
            parameters: settings.token_parameters.as_map().clone(),
            redirect_uri,
            code: random_token()?,
            code_verifier: random_token()?,
        }))
    }
}

// === impl Urls ===

impl Urls {
    fn of(connection: &Connection, connector: &Connector) -> Self {
        let settings = &connection.settings;
        let none = OAuth2Endpoints::default();
        let other = endpoints(connector).unwrap_or(&none);
        let own_issuer = Some(settings.issuer_url.clone()).filter(|issuer| !issuer.is_empty());
        let other_issuer = || other.issuer_url.as_ref().map(|issuer| issuer.as_str().to_owned());
        let issuer = own_issuer.or_else(other_issuer);
        // The keys of a connector are those of its issuer.
        let is_its_own = other.issuer_url.as_ref().is_none_or(|own| Some(own.as_str()) == issuer.as_deref());
        let either = |own: &Option<HttpUrl>, other: &Option<HttpUrl>| own.clone().or_else(|| other.clone());
        Urls {
            issuer,
            authorization: either(&settings.authentication_url, &other.authorization_url),
            token: either(&settings.token_url, &other.token_url),
            keys: settings.jwks_url.clone().or_else(|| other.jwks_url.clone().filter(|_| is_its_own)),
            device_authorization: either(&settings.device_authorization_url, &other.device_authorization_url),
            revocation: either(&settings.revocation_url, &other.revocation_url),
            profile: either(&settings.oidc_user_endpoint_url, &other.profile_url),
        }
    }

    /// Puts the endpoints for certificates in place of others.
    fn replace(&mut self, aliases: &Aliases) {
        self.token = self.token.as_ref().map(|url| aliases.of_token(url));
        self.revocation = self.revocation.as_ref().map(|url| aliases.of_revocation(url));
        self.device_authorization = self.device_authorization.as_ref().map(|url| aliases.of_device(url));
    }

    /// The URLs by the names of the members that a discovery document has for them.
    fn published(&self) -> Vec<(&'static str, HttpUrl)> {
        let Urls { issuer: _, authorization, token, keys, device_authorization, revocation, profile } = self;
        let named = [
            ("authorization_endpoint", authorization),
            ("token_endpoint", token),
            ("jwks_uri", keys),
            ("device_authorization_endpoint", device_authorization),
            ("revocation_endpoint", revocation),
            ("userinfo_endpoint", profile),
        ];
        named.into_iter().filter_map(|(name, url)| Some((name, url.clone()?))).collect()
    }
}

/// The endpoints that are probed, in their order.
fn plans(
    connection: &Connection,
    check: Option<TokenCheck>,
    urls: Urls,
    published: Vec<(&'static str, HttpUrl)>,
) -> Vec<(ProbeEndpoint, Plan)> {
    let Urls { issuer, authorization: _, token, keys, device_authorization, revocation, profile } = urls;
    // Only a connection that wants ID tokens depends on the document of OpenID Connect.
    let used_for = if asks_for_id_token(connection) { DocumentUse::IdTokens } else { DocumentUse::Endpoints };
    let discovery = issuer.and_then(|issuer| Plan::discovery(&issuer, used_for, published));
    let all = [
        (ProbeEndpoint::Token, check.map(Plan::token).or_else(|| token.map(Plan::posted))),
        (ProbeEndpoint::Discovery, discovery),
        (ProbeEndpoint::Keys, keys.map(Plan::keys)),
        (ProbeEndpoint::DeviceAuthorization, device_authorization.map(Plan::posted)),
        (ProbeEndpoint::Revocation, revocation.map(Plan::posted)),
        (ProbeEndpoint::Profile, profile.map(Plan::endpoint)),
    ];
    all.into_iter().filter_map(|(endpoint, plan)| Some((endpoint, plan?))).collect()
}

/// The findings about a connection before anything is called: what keeps authorisations and refreshes from succeeding.
fn findings(connection: &Connection, connector: &Connector, urls: &Urls) -> Vec<Finding> {
    let settings = &connection.settings;
    let mut findings = Vec::new();
    let mut add = |is_so: bool, result, reason, message: &str| {
        if is_so {
            findings.push(Finding { result, reason, message: message.to_owned() });
        }
    };
    let (warning, failed) = (ProbeResult::Warning, ProbeResult::Failed);
    add(!settings.active, warning, ProbeReason::ConnectionInactive, "The connection is not active.");
    add(!connector.enabled, warning, ProbeReason::ConnectorDisabled, "The connector of the connection is disabled.");
    if settings.kind != ConnectionKind::OAuth2 {
        let message = "The connection is not of the type CONNECTION_TYPE_OAUTH2, so none of its endpoints is called.";
        add(true, failed, ProbeReason::ConnectionTypeUnsupported, message);
        return findings;
    }
    let has_no_client_id = settings.client_id.is_empty();
    add(has_no_client_id, failed, ProbeReason::ClientIdMissing, "The connection has no client_id.");
    let method = settings.client_authentication;
    let has_no_secret = method.has_secret() && connection.client_secrets.is_empty();
    let message = "The connection has no client secret, and its client_authentication needs one.";
    add(has_no_secret, failed, ProbeReason::ClientSecretMissing, message);
    let has_key = method == Method::PrivateKeyJwt || method.presents_certificate();
    let message = "The connection has no client_key, and its client_authentication needs one.";
    add(has_key && connection.client_key.is_none(), failed, ProbeReason::ClientKeyMissing, message);
    let message = "There is no token endpoint: neither connection.token_url nor connector.oauth2.token_url.";
    add(urls.token.is_none(), failed, ProbeReason::UrlMissing, message);
    let has_users = settings.grant == ConnectionGrant::AuthorizationCode;
    let starts_nowhere = has_users && urls.authorization.is_none() && urls.device_authorization.is_none();
    let message = "There is no authorisation endpoint: neither connection.authentication_url nor \
                   connector.oauth2.authorization_url, and no device_authorization_url either.";
    add(starts_nowhere, failed, ProbeReason::UrlMissing, message);
    let signs = method == Method::PrivateKeyJwt;
    let needs_issuer = settings.iss_parameter_supported || asks_for_id_token(connection) || signs;
    let message = "The connection needs an issuer_url, for the scope openid (which it has if it was created without a scope), for \
         iss_parameter_supported or for its assertions.";
    add(needs_issuer && urls.issuer.is_none(), failed, ProbeReason::IssuerMissing, message);
    let has_no_document = urls.issuer.as_deref().is_some_and(|issuer| DocumentUrls::of(issuer).is_err());
    let message = "The issuer_url is no https URL without a query, so it has no discovery document, and there is no \
                   jwks_url.";
    let lacks_keys = asks_for_id_token(connection) && urls.keys.is_none();
    add(has_no_document && lacks_keys, failed, ProbeReason::DefinitionInvalid, message);
    findings
}

/// The code that the client of a connection is tested with: one that its users bring.
fn probed_code((connection, connector): (&Connection, &Connector)) -> ProbedCode {
    let Urls { authorization, device_authorization, .. } = Urls::of(connection, connector);
    match connection.settings.grant {
        ConnectionGrant::ClientCredentials => ProbedCode::Unused,
        ConnectionGrant::AuthorizationCode if authorization.is_none() && device_authorization.is_some() => {
            ProbedCode::Device
        }
        ConnectionGrant::AuthorizationCode => ProbedCode::Authorization,
    }
}

fn asks_for_id_token(connection: &Connection) -> bool {
    connection.settings.scope.split(' ').any(|scope| scope == OPENID)
}
