//! Connect URLs: the browser of a cookie-bound session opens one before it is sent to the provider. The cookie says that it is the same browser
//! when it comes back, and not whose it is. The login in front of the listener names the user when the connect URL is opened. Without it, anyone
//! who is sent that URL would get the cookie, and give their account to the sender.
//!
//! The browser gets its cookie first, and opens the URL once more with it. Only then is the session bound to it. So no answer that is lost
//! loses the session: before the browser has shown the cookie nothing has changed, and afterwards it is known by it, and may open the URL
//! again. To all other browsers the URL is of no use any more.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::authorization::{
    AUTHORIZATION_URL_COLUMN, AuthorizationDigest, AuthorizationEnd, AuthorizationFailure, AuthorizationSession,
    AuthorizationState, BrowserCookies, connect_url, cookie_name,
};
use jackfield_domain::value::id::AuthorizationSessionId;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectionId, Error, Result, Secret, TenantId, Violation};
use jackfield_vault::random_token;

use super::{CONNECT, COOKIE, STATE, missing, warn_of_attack};
use crate::change::{Change, Length};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

/// The outcome of a connect URL that a browser has opened.
#[derive(Debug)]
pub enum ConnectedAuthorization {
    /// The browser gets the cookie, and opens the URL again.
    NeedsCookie { cookie_name: String, cookie: Secret },
    /// The browser has the cookie, and goes on to the provider.
    Continue(Secret),
    /// Another browser, or another user, has opened the URL before. Nothing changes.
    Taken,
    /// The session has ended just now.
    Ended(Box<AuthorizationSession>),
    /// The session had ended before, or its code is being redeemed.
    Over(Box<AuthorizationSession>),
    /// There is no such session, or it is one of a tenant that the login is not for.
    Unknown,
}

/// The characters of the name of a cookie that tell those of two tabs apart.
const NAME_PART: usize = 8;

// === impl Services ===

impl Services {
    /// Makes a connect URL for a tenant, and the state of the request to which it leads. Only this server can make the state of the token, so
    /// it is not known before the URL is opened, and the token finds the session as long as there is one.
    pub(super) async fn connect_begin(&self, tenant: TenantId, connection: ConnectionId) -> Result<(Secret, Secret)> {
        let url = self.callback_url("completion_mode")?;
        self.require_callback_login(tenant, connection).await?;
        let token = random_token()?;
        Ok((connect_url(url, &token), self.state_of_connect(&token).await?))
    }

    async fn state_of_connect(&self, token: &Secret) -> Result<Secret> {
        let system = self.shared.data_keys.system().await?;
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(system.fingerprint(CONNECT, &[token.expose().as_bytes()]))))
    }

    /// Refuses a cookie-bound session of a tenant whose users the login in front of the listener does not name. A user who is sent a connect URL
    /// gets a cookie with it, and only who is logged in tells them from the user. Another tenant could start sessions for ids of users
    /// that are not its own.
    async fn require_callback_login(&self, tenant: TenantId, connection: ConnectionId) -> Result<()> {
        let refuse = |description: &str| Err(Violation::field("completion_mode", description).into());
        if self.shared.facts.callback_tenant.is_none() {
            return refuse(
                "cannot be COMPLETION_MODE_COOKIE_BOUND: the callback listener does not know who is logged in (callback.user_header)",
            );
        }
        match self.is_of_callback_login(tenant, connection).await? {
            true => Ok(()),
            false => refuse(
                "cannot be COMPLETION_MODE_COOKIE_BOUND: the login in front of the callback listener is that of another tenant (callback.tenant)",
            ),
        }
    }

    /// Returns whether the login in front of the listener names users of a tenant, which has this connection.
    async fn is_of_callback_login(&self, tenant: TenantId, connection: ConnectionId) -> Result<bool> {
        let Some(name) = &self.shared.facts.callback_tenant else { return Ok(false) };
        if planted_in(connection, AuthorizationBug::TenantNotCompared) {
            return Ok(true);
        }
        match self.tenant_id_by_name(name.as_str()).await {
            Ok(of_login) => Ok(of_login == tenant),
            Err(Error::TenantUnknown { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The keyed digests of the cookies of a session.
    pub(super) async fn cookie_digests(
        &self,
        cookies: &BrowserCookies,
        id: AuthorizationSessionId,
    ) -> Result<Vec<AuthorizationDigest>> {
        let mut digests = Vec::new();
        for (_, cookie) in cookies.of(id) {
            digests.push(self.authorization_digest(COOKIE, cookie).await?);
        }
        Ok(digests)
    }

    /// Opens a connect URL in the browser of a user, who is logged in there. If it is the first one to do so, another user ends the session:
    /// the URL was passed on.
    pub async fn authorization_connect(
        &self,
        token: &Secret,
        user_id: &UserId,
        cookies: &BrowserCookies,
    ) -> Result<ConnectedAuthorization> {
        let state = self.state_of_connect(token).await?;
        let digest = self.authorization_digest(STATE, &state).await?;
        let found = self.shared.store.read().authorization_find_of_any_tenant(&digest).await?;
        let Some((tenant, found)) = found else { return Ok(ConnectedAuthorization::Unknown) };
        // The configuration was another one when it was started, or is another one on another server.
        if !self.is_of_callback_login(tenant, found.connection).await? {
            warn_of(
                tenant,
                &found,
                "TENANT_MISMATCH",
                "a connect URL of a tenant was opened at the login of another one",
            );
            return Ok(ConnectedAuthorization::Unknown);
        }
        let id = found.id;
        let cookies = self.cookie_digests(cookies, id).await?;
        let mut connected = None;
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let locked = txn.authorization_fetch_for_update(tenant, id).await?.ok_or_else(|| missing(id))?;
            let is_overdue = locked.is_overdue(self.now());
            let mut session = locked.settled(self.now());
            let (state, is_bound, is_user) = (session.state, session.is_bound(), is_visitor(&session, user_id));
            connected = Some(match state {
                // Its own user has opened it, and goes on.
                AuthorizationState::Started if is_bound && !is_user => ConnectedAuthorization::Taken,
                AuthorizationState::Started if !is_user => {
                    let end = AuthorizationEnd::failed(AuthorizationFailure::UserMismatch, "");
                    ConnectedAuthorization::Ended(Box::new(self.end(txn, tenant, session, end).await?))
                }
                AuthorizationState::Started if !is_bound && cookies.is_empty() => {
                    let part = random_token()?.expose().chars().take(NAME_PART).collect::<String>();
                    ConnectedAuthorization::NeedsCookie { cookie_name: cookie_name(id, &part), cookie: random_token()? }
                }
                AuthorizationState::Started if session.bind(&cookies, self.now()) => {
                    if !is_bound {
                        txn.authorization_replace(tenant, &session).await?;
                    }
                    let url = self.secret_of(txn, tenant, &session, AUTHORIZATION_URL_COLUMN).await?;
                    ConnectedAuthorization::Continue(url)
                }
                AuthorizationState::Started => ConnectedAuthorization::Taken,
                // Another user does not learn what became of it.
                _ if !is_user && !is_overdue => ConnectedAuthorization::Unknown,
                _ => {
                    if is_overdue {
                        self.lapse(txn, tenant, &session).await?;
                    }
                    ConnectedAuthorization::Over(Box::new(session))
                }
            });
            Ok(())
        })
        .await?;
        match &connected {
            Some(ConnectedAuthorization::Taken) if found.user_id == *user_id => {
                warn_of(tenant, &found, "WRONG_BROWSER", "a connect URL was opened again in another browser");
            }
            Some(ConnectedAuthorization::Taken) => {
                warn_of(tenant, &found, "USER_MISMATCH", "a connect URL was opened again by another user");
            }
            Some(ConnectedAuthorization::Ended(session)) => {
                self.shared.changed_authorizations.tell(id);
                warn_of_attack(tenant, session);
            }
            _ => {}
        }
        connected.ok_or_else(|| Error::internal("a connect URL without a result"))
    }
}

/// Returns true if a session is that of the user who opens its connect URL.
fn is_visitor(session: &AuthorizationSession, user_id: &UserId) -> bool {
    session.user_id == *user_id || planted_in(session.connection, AuthorizationBug::VisitorNotCompared)
}

/// Logs that a connect URL was opened by another user than its own, or in another browser. The session goes on.
fn warn_of(tenant: TenantId, session: &AuthorizationSession, reason: &'static str, what: &'static str) {
    let (connection, id) = (session.connection, session.id);
    tracing::warn!(tenant.id = %tenant, connection.id = %connection, authorization.id = %id, error.type = reason, "{what}");
}
