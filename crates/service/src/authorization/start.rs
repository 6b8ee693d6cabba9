//! The start of an authorisation: everything that it needs is checked before the user is sent away.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::authorization::{
    AUTHORIZATION_URL_COLUMN, AuthorizationDraft, AuthorizationEnd, AuthorizationSession, AuthorizationState,
    BrowserBinding, CODE_VERIFIER_COLUMN, Delivery, DevicePolling, ExpectedIssuer, Invitation, NONCE_COLUMN, OPENID,
    SESSION_MICROS, StartedAuthorization, callback_uri,
};
use jackfield_domain::connection::{Connection, ConnectionGrant, Linking};
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, CredentialKind, CredentialState};
use jackfield_domain::principal::right::ConnectionsAuthorize;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{AuthorizationSessionId, Error, Result, Secret, SecretAddress, TenantId, Timestamp, Violation};
use jackfield_upstream::oauth::AuthorizationRequest;
use jackfield_vault::{random_token, sha256};

use super::account::profile_url;
use super::endpoint::{endpoints, incomplete};
use super::redeem::warn_of_failure;
use super::{STATE, context_of};
use crate::caller::Caller;
use crate::change::{Change, lock_parent, missing};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

/// The open sessions of a user for a connection.
const MAX_OPEN: usize = 10;

/// The beginning of a session, by the way in which the response comes back.
pub(super) struct Begun {
    pub(super) redirect_uri: Option<RedirectUri>,
    pub(super) return_uri: Option<RedirectUri>,
    pub(super) device: Option<DevicePolling>,
    /// The state of the request. `None` if there is none.
    pub(super) state: Option<Secret>,
    /// The browser that opens a connect URL first. `None` if it goes to the provider at once, or if there is none.
    pub(super) browser: Option<BrowserBinding>,
    pub(super) invitation: Option<Invitation>,
    /// The secrets that are sealed, by column.
    pub(super) secrets: Vec<(&'static str, Secret)>,
    pub(super) expire_time: Timestamp,
    /// The end of a session that the provider refused at once.
    pub(super) end: Option<AuthorizationEnd>,
}

// === impl Services ===

impl Services {
    /// Starts a session, and returns what the user needs: the URL to which they are sent, or the code that they type.
    pub async fn authorization_start(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        draft: AuthorizationDraft,
    ) -> Result<StartedAuthorization> {
        let tenant = caller.tenant();
        let connection = self.find::<Connection>(tenant, &draft.connection).await?;
        if connection.settings.grant == ConnectionGrant::ClientCredentials {
            let description = "has the grant type CLIENT_CREDENTIALS: its tokens are those of the client, and no user authorises them";
            return Err(Violation::field("connection", description).into());
        }
        if draft.find_linked_users && connection.settings.linking == Linking::Disabled {
            let description = "cannot be used: the linking of the connection is LINKING_TYPE_DISABLED";
            return Err(Violation::field("find_linked_users", description).into());
        }
        // The user would come back in vain.
        let client = self.token_client(tenant, &connection).await?;
        let connector = self.find::<Connector>(tenant, &Ref::Id(connection.connector.0)).await?;
        let scopes: Vec<String> = match &draft.scopes {
            Some(scopes) => scopes.as_slice().to_vec(),
            None => connection.settings.scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        };
        let asks_for_id_token = scopes.iter().any(|scope| scope == OPENID);
        let issuer = expected_issuer(&connection, &connector, &draft.delivery, asks_for_id_token)?;
        let tells_account = asks_for_id_token || profile_url(&connection, &connector).is_some();
        if connection.settings.require_business_account && !tells_account {
            let field = "oidc_user_endpoint_url (or the scope openid, for require_business_account)";
            return Err(incomplete(&connection, field, Some("profile_url")));
        }
        let reauthorized = self.reauthorized(tenant, &connection, &draft, tells_account).await?;
        let of = (&connection, &connector);
        let begun = match draft.delivery {
            Delivery::Device => self.device_begin(of, &client, &scopes).await?,
            delivery => self.redirect_begin(tenant, of, delivery, &scopes).await?,
        };
        let Begun { redirect_uri, return_uri, device, state, browser, invitation, secrets, expire_time, end } = begun;
        // Without a state, nothing finds the session by it.
        let state = state.map_or_else(random_token, Ok)?;
        let state_digest = self.authorization_digest(STATE, &state).await?;
        let now = self.now();
        let mut session = AuthorizationSession {
            id: AuthorizationSessionId::generate(),
            principal: caller.name().to_owned(),
            user_id: draft.user_id,
            connection: connection.id,
            credential: reauthorized.as_ref().map(|credential| credential.id),
            credential_create_time: reauthorized.as_ref().map(|credential| credential.meta.create_time),
            revoked_version: reauthorized
                .filter(|credential| credential.state == CredentialState::Revoked)
                .map(|credential| credential.material_version),
            scopes,
            granted_scopes: Vec::new(),
            redirect_uri,
            return_uri,
            device,
            browser,
            issuer,
            client: client.facts(&connection),
            allow_account_change: draft.allow_account_change,
            find_linked_users: draft.find_linked_users,
            linked_users: Vec::new(),
            linked_credentials: Vec::new(),
            state: AuthorizationState::Started,
            failure: None,
            failure_detail: String::new(),
            state_digest,
            completion_digest: None,
            expire_time,
            meta: Meta::new(now),
        };
        if let Some(end) = end {
            warn_of_failure(&session, &end);
            session.end(end, now);
        }
        self.authorization_store(caller, &session, &secrets).await?;
        Ok(StartedAuthorization { session, invitation })
    }

    /// Stores a session that begins, and its secrets.
    async fn authorization_store(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        session: &AuthorizationSession,
        secrets: &[(&'static str, Secret)],
    ) -> Result<()> {
        let (tenant, connection) = (caller.tenant(), session.connection);
        let mut cancelled = Vec::new();
        self.change(Change::on_behalf_of(caller), async |txn| {
            lock_parent::<Connection>(txn, tenant, &Ref::Id(connection.0)).await?;
            if session.state.is_open() {
                let mut open = txn.authorizations_open_for_update(tenant, &session.user_id, connection).await?;
                open.retain(|session| session.state.is_open());
                // One more comes. Those that are started at the same time may exceed it, until the next start.
                let too_many = (open.len() + 1).saturating_sub(MAX_OPEN);
                cancelled = self.cancel_all(txn, tenant, open.into_iter().take(too_many)).await?.0;
            }
            txn.authorization_insert(tenant, session).await?;
            for (column, secret) in secrets {
                let address = SecretAddress::of(tenant, session.id, column);
                self.shared.secrets.put(txn, address, secret.expose().as_bytes()).await?;
            }
            match session.device.filter(|_| session.state.is_open()) {
                Some(polling) => txn.authorization_poll_plan(tenant, session.id, polling.wait()).await,
                None => Ok(()),
            }
        })
        .await?;
        cancelled.into_iter().for_each(|id| self.shared.changed_authorizations.tell(id));
        Ok(())
    }

    /// Makes the URL to which the user is sent.
    async fn redirect_begin(
        &self,
        tenant: TenantId,
        (connection, connector): (&Connection, &Connector),
        delivery: Delivery,
        scopes: &[String],
    ) -> Result<Begun> {
        let settings = &connection.settings;
        let of_connector = || endpoints(connector)?.authorization_url.clone();
        let url = settings.authentication_url.clone().or_else(of_connector);
        let url = url.ok_or_else(|| incomplete(connection, "authentication_url", Some("authorization_url")))?;
        let connect = match delivery {
            Delivery::CookieBound(_) => Some(self.connect_begin(tenant, connection.id).await?),
            Delivery::Application(_) | Delivery::Callback(_) | Delivery::Device => None,
        };
        let (redirect_uri, return_uri) = self.uris(tenant, connection, delivery)?;
        let (connect_url, state) = match connect {
            Some((url, state)) => (Some(url), state),
            None => (None, random_token()?),
        };
        let code_verifier = match planted_in(connection.id, AuthorizationBug::VerifierShared) {
            false => random_token()?,
            true => Secret::new("v".repeat(43)),
        };
        let nonce = scopes.iter().any(|scope| scope == OPENID).then(random_token).transpose()?;
        let challenge = URL_SAFE_NO_PAD.encode(sha256(code_verifier.expose().as_bytes()));
        let request = AuthorizationRequest {
            endpoint: &url,
            client_id: &settings.client_id,
            redirect_uri: &redirect_uri,
            scopes,
            state: &state,
            code_challenge: &challenge,
            nonce: nonce.as_ref(),
            parameters: settings.parameters.as_map(),
        };
        let url = request.url().ok_or_else(|| Error::internal("a stored URL is none"))?;
        let mut secrets = vec![(CODE_VERIFIER_COLUMN, code_verifier)];
        secrets.extend(nonce.map(|nonce| (NONCE_COLUMN, nonce)));
        let browser = connect_url.is_some().then(BrowserBinding::default);
        let url = match connect_url {
            None => url,
            // The browser gets it once it has shown its cookie, and not before.
            Some(connect_url) => {
                secrets.push((AUTHORIZATION_URL_COLUMN, url));
                connect_url
            }
        };
        Ok(Begun {
            redirect_uri: Some(redirect_uri),
            return_uri,
            state: Some(state),
            browser,
            invitation: Some(Invitation::Redirect(url)),
            secrets,
            ..Begun::until(self.now().plus_micros(SESSION_MICROS))
        })
    }

    /// The redirect URI of a session, and the URI to which the callback listener sends the browser.
    fn uris(
        &self,
        tenant: TenantId,
        connection: &Connection,
        delivery: Delivery,
    ) -> Result<(RedirectUri, Option<RedirectUri>)> {
        let settings = &connection.settings;
        match delivery {
            // One URI may serve several connections, and the application does not say at which one the browser arrived. Without its
            // issuer, the answer of one provider could be passed off as that of another.
            Delivery::Application(_) if !settings.iss_parameter_supported => {
                let description = "cannot be used, because the connection does not say that its provider names itself in \
                                   its answers: set iss_parameter_supported and issuer_url if it does (RFC 9207), or \
                                   use return_uri and the callback listener";
                Err(Violation::field("redirect_uri", description).into())
            }
            Delivery::Application(Some(uri)) if settings.redirect_uris.contains(&uri) => Ok((uri, None)),
            Delivery::Application(Some(_)) => {
                Err(Violation::field("redirect_uri", "is not among the redirect_uris of the connection").into())
            }
            Delivery::Application(None) => match settings.redirect_uris.as_slice() {
                [uri] => Ok((uri.clone(), None)),
                _ => {
                    let description =
                        "is required, or return_uri: the connection does not have exactly one redirect URI";
                    Err(Violation::field("redirect_uri", description).into())
                }
            },
            Delivery::Callback(uri) => {
                let url = self.callback_url("return_uri")?;
                require_return_uri(connection, &uri)?;
                Ok((callback_uri(url, &context_of(tenant, connection.id)), Some(uri)))
            }
            Delivery::CookieBound(uri) => {
                let url = self.callback_url("completion_mode")?;
                uri.iter().try_for_each(|uri| require_return_uri(connection, uri))?;
                Ok((callback_uri(url, &context_of(tenant, connection.id)), uri))
            }
            Delivery::Device => Err(Error::internal("no browser comes back")),
        }
    }

    /// The URL of the callback listener, which a field of a request needs.
    pub(super) fn callback_url(&self, field: &'static str) -> Result<&HttpUrl> {
        self.shared.facts.callback_url.as_ref().ok_or_else(|| {
            let description = "cannot be used: this server has no callback listener (callback.address)";
            Violation::field(field, description).into()
        })
    }

    /// The credential that is authorised again: one of the user, for the connection.
    async fn reauthorized(
        &self,
        tenant: TenantId,
        connection: &Connection,
        draft: &AuthorizationDraft,
        tells_account: bool,
    ) -> Result<Option<Credential>> {
        let Some(reference) = &draft.credential else { return Ok(None) };
        let found = self.shared.store.read().find::<Credential>(tenant, reference).await?;
        let credential = found.ok_or_else(|| missing::<Credential>(reference))?;
        let refuse = |description: &str| Err(Violation::field("credential", description).into());
        if credential.user_id != draft.user_id {
            return refuse("belongs to another user");
        }
        if credential.connector != connection.connector || credential.connection.is_some_and(|id| id != connection.id) {
            return refuse("belongs to another connection");
        }
        if credential.kind != CredentialKind::OAuth2 {
            return refuse("is not of the kind OAUTH2");
        }
        if !tells_account && !credential.provider_account_id.is_empty() && !draft.allow_account_change {
            let description = "must be true: the credential has a provider_account_id, and neither an ID token (the scope openid) nor a \
                               profile (connection.oidc_user_endpoint_url, or connector.oauth2.profile_url) tells which account comes back";
            return Err(Violation::field("allow_account_change", description).into());
        }
        Ok(Some(credential))
    }
}

// === impl Begun ===

impl Begun {
    /// A session that lasts until a time, and has nothing yet.
    pub(super) fn until(expire_time: Timestamp) -> Self {
        Begun {
            redirect_uri: None,
            return_uri: None,
            device: None,
            state: None,
            browser: None,
            invitation: None,
            secrets: Vec::new(),
            expire_time,
            end: None,
        }
    }
}

/// Refuses a URI of the application to which the connection sends no browser.
fn require_return_uri(connection: &Connection, uri: &RedirectUri) -> Result<()> {
    match connection.settings.return_uris.contains(uri) {
        true => Ok(()),
        false => Err(Violation::field("return_uri", "is not among the return_uris of the connection").into()),
    }
}

/// The issuer that the response must name, or the ID token.
fn expected_issuer(
    connection: &Connection,
    connector: &Connector,
    delivery: &Delivery,
    asks_for_id_token: bool,
) -> Result<ExpectedIssuer> {
    let settings = &connection.settings;
    let issuer = Some(settings.issuer_url.clone()).filter(|issuer| !issuer.is_empty());
    let issuer = issuer.or_else(|| Some(endpoints(connector)?.issuer_url.as_ref()?.as_str().to_owned()));
    let is_named = settings.iss_parameter_supported && *delivery != Delivery::Device;
    if issuer.is_none() && (is_named || asks_for_id_token) {
        let field = if asks_for_id_token { "issuer_url (for the scope openid)" } else { "issuer_url" };
        return Err(incomplete(connection, field, Some("issuer_url")));
    }
    Ok(ExpectedIssuer { issuer, is_advertised: settings.iss_parameter_supported })
}
