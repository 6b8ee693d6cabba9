//! The start of an authorisation: everything that it needs is checked before the user is sent away.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::authorization::{
    AuthorizationDraft, AuthorizationSession, AuthorizationState, CODE_VERIFIER_COLUMN, Delivery, ExpectedIssuer,
    NONCE_COLUMN, OPENID, SESSION_MICROS, StartedAuthorization, callback_uri,
};
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, CredentialKind};
use jackfield_domain::principal::right::ConnectionsAuthorize;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{AuthorizationSessionId, Error, Result, SecretAddress, TenantId, Violation};
use jackfield_upstream::oauth::AuthorizationRequest;
use jackfield_vault::{random_token, sha256};

use super::account::profile_url;
use super::endpoint::{endpoints, incomplete};
use super::{STATE, context_of};
use crate::caller::Caller;
use crate::change::{Change, lock_parent, missing};
use crate::services::Services;

/// The open sessions of a user for a connection.
const MAX_OPEN: usize = 10;

/// The provider of a connection, as far as the start needs it.
struct Provider {
    authorization_url: HttpUrl,
    issuer: ExpectedIssuer,
}

// === impl Services ===

impl Services {
    /// Starts a session, and returns the URL to which the user is to be sent.
    pub async fn authorization_start(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        draft: AuthorizationDraft,
    ) -> Result<StartedAuthorization> {
        let tenant = caller.tenant();
        let connection = self.find::<Connection>(tenant, &draft.connection).await?;
        // The user would come back in vain.
        let client = self.token_client(tenant, &connection).await?.facts(&connection);
        let connector = self.find::<Connector>(tenant, &Ref::Id(connection.connector.0)).await?;
        let scopes: Vec<String> = match &draft.scopes {
            Some(scopes) => scopes.as_slice().to_vec(),
            None => connection.settings.scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        };
        let asks_for_id_token = scopes.iter().any(|scope| scope == OPENID);
        let provider = Provider::of(&connection, &connector, asks_for_id_token)?;
        let tells_account = asks_for_id_token || profile_url(&connection, &connector).is_some();
        let reauthorized = self.reauthorized(tenant, &connection, &draft, tells_account).await?;
        let (redirect_uri, return_uri) = self.uris(tenant, &connection, draft.delivery)?;
        let (state, code_verifier) = (random_token()?, random_token()?);
        let nonce = asks_for_id_token.then(random_token).transpose()?;
        let now = self.now();
        let session = AuthorizationSession {
            id: AuthorizationSessionId::generate(),
            principal: caller.name().to_owned(),
            user_id: draft.user_id,
            connection: connection.id,
            credential: reauthorized.as_ref().map(|credential| credential.id),
            credential_create_time: reauthorized.map(|credential| credential.meta.create_time),
            scopes,
            granted_scopes: Vec::new(),
            redirect_uri,
            return_uri,
            issuer: provider.issuer,
            client,
            allow_account_change: draft.allow_account_change,
            state: AuthorizationState::Started,
            failure: None,
            failure_detail: String::new(),
            state_digest: self.authorization_digest(STATE, &state).await?,
            completion_digest: None,
            expire_time: now.plus_micros(SESSION_MICROS),
            meta: Meta::new(now),
        };
        let challenge = URL_SAFE_NO_PAD.encode(sha256(code_verifier.expose().as_bytes()));
        let request = AuthorizationRequest {
            endpoint: &provider.authorization_url,
            client_id: &connection.settings.client_id,
            redirect_uri: &session.redirect_uri,
            scopes: &session.scopes,
            state: &state,
            code_challenge: &challenge,
            nonce: nonce.as_ref(),
            parameters: connection.settings.parameters.as_map(),
        };
        let url = request.url().ok_or_else(|| Error::internal("a stored URL is none"))?;
        let mut cancelled = Vec::new();
        self.change(Change::on_behalf_of(caller), async |txn| {
            lock_parent::<Connection>(txn, tenant, &Ref::Id(connection.id.0)).await?;
            let open = txn.authorizations_open_for_update(tenant, &session.user_id, connection.id).await?;
            // One more comes. Those that are started at the same time may exceed it, until the next start.
            let too_many = (open.len() + 1).saturating_sub(MAX_OPEN);
            cancelled = self.cancel_all(txn, tenant, open.into_iter().take(too_many)).await?;
            txn.authorization_insert(tenant, &session).await?;
            let secrets = [(CODE_VERIFIER_COLUMN, Some(&code_verifier)), (NONCE_COLUMN, nonce.as_ref())];
            for (column, secret) in secrets {
                let Some(secret) = secret else { continue };
                let address = SecretAddress::of(tenant, session.id, column);
                self.shared.secrets.put(txn, address, secret.expose().as_bytes()).await?;
            }
            Ok(())
        })
        .await?;
        cancelled.into_iter().for_each(|id| self.shared.changed_authorizations.tell(id));
        Ok(StartedAuthorization { session, url })
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
                let Some(url) = &self.shared.facts.callback_url else {
                    let description = "cannot be used: this server has no callback listener (callback.address)";
                    return Err(Violation::field("return_uri", description).into());
                };
                if !settings.return_uris.contains(&uri) {
                    return Err(Violation::field("return_uri", "is not among the return_uris of the connection").into());
                }
                Ok((callback_uri(url, &context_of(tenant, connection.id)), Some(uri)))
            }
        }
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

// === impl Provider ===

impl Provider {
    fn of(connection: &Connection, connector: &Connector, asks_for_id_token: bool) -> Result<Self> {
        let (settings, of_connector) = (&connection.settings, endpoints(connector));
        let url = settings.authentication_url.clone();
        let url = url.or_else(|| of_connector?.authorization_url.clone());
        let issuer = Some(settings.issuer_url.clone()).filter(|issuer| !issuer.is_empty());
        let issuer = issuer.or_else(|| Some(of_connector?.issuer_url.as_ref()?.as_str().to_owned()));
        if issuer.is_none() && (settings.iss_parameter_supported || asks_for_id_token) {
            let field = if asks_for_id_token { "issuer_url (for the scope openid)" } else { "issuer_url" };
            return Err(incomplete(connection, field, Some("issuer_url")));
        }
        let authorization_url =
            url.ok_or_else(|| incomplete(connection, "authentication_url", Some("authorization_url")))?;
        Ok(Provider {
            authorization_url,
            issuer: ExpectedIssuer { issuer, is_advertised: settings.iss_parameter_supported },
        })
    }
}
