//! Authorisations: how a user permits a connection to act for them, and the token endpoints that exchange what came of it, and the accounts
//! whose tokens these are.
//!
//! A session is started, completed once, and ends in a credential. Its secrets (state, code verifier, nonce, code, completion code) are
//! sealed, or stored only as keyed digests by which the session is found. A cookie-bound session has its browser come back instead of being
//! completed by the application. A device authorisation has a device code instead, and is completed by
//! whichever replica polls the provider when the user has decided. A session that is completed names the other users with the same identity
//! (`linked`). The log warns of sessions whose response comes to the path of another connection (`misled`).

mod accepted;
mod account;
mod bound;
mod callback;
mod changed;
mod client_key;
mod complete;
mod connect;
mod device;
mod endpoint;
mod journal;
mod linked;
mod misled;
mod poll;
mod probe;
mod redeem;
mod redemptions;
mod start;

use futures::StreamExt as _;
use futures::future::ready;
use futures::stream::{once, try_unfold};
use jackfield_domain::authorization::{
    AuthorizationDigest, AuthorizationEnd, AuthorizationFailure, AuthorizationResponse, AuthorizationSession,
    ExpectedIssuer, callback_context,
};
use jackfield_domain::credential::Credential;
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::ConnectionsAuthorize;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{AuthorizationSessionId, ConnectionId, ConnectorId, Error, Resource, Result, Secret, TenantId};
use jackfield_store::Writer;
use jackfield_vault::sha256;

use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

use changed::Watcher;

pub(crate) use accepted::AcceptedSecrets;
pub(crate) use account::Issuers;
pub use bound::Redeeming;
pub use callback::ReturnedAuthorization;
pub(crate) use changed::ChangedAuthorizations;
pub use connect::ConnectedAuthorization;
pub(crate) use endpoint::{RevocationClient, TokenClient, require_complete};
pub(crate) use misled::MisledSessions;
pub(crate) use poll::DevicePolls;
pub(crate) use redemptions::Redemptions;

/// The states of a session, each once, until the last.
pub type Watching = futures::stream::BoxStream<'static, Result<AuthorizationSession>>;

/// The purposes of digests: a state is never found by a completion code. The state of a session with a connect URL is one as well.
const STATE: &str = "authorization state";
const COMPLETION: &str = "authorization completion";
const CONNECT: &str = "authorization connect";
const COOKIE: &str = "authorization cookie";

// === impl Services ===

impl Services {
    /// A session as it is now.
    pub async fn authorization_get(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        id: AuthorizationSessionId,
    ) -> Result<AuthorizationSession> {
        self.authorization_now(caller.tenant(), id).await
    }

    /// Ends a session that has not been completed. One that was cancelled before stays so.
    pub async fn authorization_cancel(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        request: &RequestOptions,
        id: AuthorizationSessionId,
    ) -> Result<AuthorizationSession> {
        let cancelled = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = txn.authorization_fetch_for_update(tenant, id).await?;
            let session = found.ok_or_else(|| missing(id))?.settled(self.now());
            require_principal(caller, &session)?;
            match session.state {
                jackfield_domain::authorization::AuthorizationState::Cancelled => Ok(session),
                state if state.is_open() => self.end(txn, tenant, session, AuthorizationEnd::Cancelled).await,
                _ => Err(ended(&session)),
            }
        });
        let cancelled = cancelled.await?;
        self.shared.changed_authorizations.tell(id);
        Ok(cancelled)
    }

    /// The states of a session from now on. A session lasts for some minutes, so this ends by itself.
    pub async fn authorization_watch(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        id: AuthorizationSessionId,
    ) -> Result<Watching> {
        let tenant = caller.tenant();
        let watcher = self.shared.changed_authorizations.watch(id);
        let first = self.authorization_now(tenant, id).await?;
        let begin = (self.clone(), watcher, first.clone());
        let later = try_unfold(begin, move |(services, mut watcher, seen)| async move {
            let next = services.authorization_after(tenant, &mut watcher, &seen).await?;
            Ok(next.map(|next| (next.clone(), (services, watcher, next))))
        });
        Ok(once(ready(Ok(first))).chain(later).boxed())
    }

    /// The session once it has another state; `None` if it cannot have one any more.
    async fn authorization_after(
        &self,
        tenant: TenantId,
        watcher: &mut Watcher,
        seen: &AuthorizationSession,
    ) -> Result<Option<AuthorizationSession>> {
        if seen.state.is_final() {
            return Ok(None);
        }
        loop {
            watcher.changed().await;
            let session = self.authorization_now(tenant, seen.id).await?;
            if session.state != seen.state {
                return Ok(Some(session));
            }
        }
    }

    async fn authorization_now(&self, tenant: TenantId, id: AuthorizationSessionId) -> Result<AuthorizationSession> {
        let found = self.shared.store.read().authorization_fetch(tenant, id).await?;
        let session = found.ok_or_else(|| missing(id))?.settled(self.now());
        self.linked_users_left(tenant, session).await
    }

    /// Ends a session that is locked, and destroys its secrets.
    async fn end(
        &self,
        txn: &Writer,
        tenant: TenantId,
        mut session: AuthorizationSession,
        end: AuthorizationEnd,
    ) -> Result<AuthorizationSession> {
        session.end(end, self.now());
        txn.authorization_forget_secrets(tenant, session.id).await?;
        txn.authorization_replace(tenant, &session).await?;
        Ok(session)
    }

    /// Ends sessions that are locked and must not be completed any more. Returns their ids, for those who watch them, and the number of those
    /// whose time was not over.
    async fn cancel_all(
        &self,
        txn: &Writer,
        tenant: TenantId,
        sessions: impl IntoIterator<Item = AuthorizationSession>,
    ) -> Result<(Vec<AuthorizationSessionId>, u64)> {
        let (mut ended, mut cancelled) = (Vec::new(), 0);
        for session in sessions {
            ended.push(session.id);
            let settled = session.settled(self.now());
            if settled.state.is_final() {
                self.lapse(txn, tenant, &settled).await?;
            } else {
                self.end(txn, tenant, settled, AuthorizationEnd::Cancelled).await?;
                cancelled += 1;
            }
        }
        Ok((ended, cancelled))
    }

    /// Ends the sessions of a user for the connections of a connector, to which the user is not linked any more: they would link the user
    /// again. One whose code is being redeemed finds that it has ended, and its tokens are revoked.
    pub(crate) async fn authorizations_cancel_of(
        &self,
        txn: &Writer,
        tenant: TenantId,
        user_id: &UserId,
        connector: ConnectorId,
    ) -> Result<(Vec<AuthorizationSessionId>, u64)> {
        let open = txn.authorizations_open_of_connector_for_update(tenant, user_id, connector).await?;
        self.cancel_all(txn, tenant, open).await
    }

    /// Ends the sessions that would give a credential new tokens, because it is revoked or deleted. One whose code is being redeemed finds
    /// that it has ended, and its tokens are revoked. The credential is locked.
    pub(crate) async fn authorizations_cancel_of_credential(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &Credential,
    ) -> Result<Vec<AuthorizationSessionId>> {
        let (user_id, id) = (&credential.user_id, credential.id);
        let open = txn.authorizations_open_of_credential_for_update(tenant, user_id, id).await?;
        self.cancel_all(txn, tenant, open).await.map(|(ended, _)| ended)
    }

    /// Wakes those who watch sessions that a request has ended.
    pub(crate) fn tell_cancelled(&self, request: &RequestOptions, cancelled: Vec<AuthorizationSessionId>) {
        if !request.validate_only {
            cancelled.into_iter().for_each(|id| self.shared.changed_authorizations.tell(id));
        }
    }

    /// Records that the time of a session that is locked is over, and destroys its secrets. It is [settled](AuthorizationSession::settled).
    async fn lapse(&self, txn: &Writer, tenant: TenantId, settled: &AuthorizationSession) -> Result<()> {
        txn.authorization_forget_secrets(tenant, settled.id).await?;
        txn.authorization_replace(tenant, settled).await
    }

    /// Records it for a session that was found. Maintenance destroys the secrets of sessions that are abandoned.
    async fn lapse_found(&self, tenant: TenantId, id: AuthorizationSessionId) -> Result<()> {
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            match txn.authorization_fetch_for_update(tenant, id).await? {
                Some(found) if found.is_overdue(self.now()) => {
                    self.lapse(txn, tenant, &found.settled(self.now())).await
                }
                Some(_) | None => Ok(()),
            }
        })
        .await
    }

    /// The digest by which a session is found. It is keyed, so that the database does not tell if a guess is right.
    async fn authorization_digest(&self, purpose: &str, secret: &Secret) -> Result<AuthorizationDigest> {
        let system = self.shared.data_keys.system().await?;
        Ok(AuthorizationDigest::new(system.fingerprint(purpose, &[secret.expose().as_bytes()])))
    }
}

/// The part of the path of the callback listener for a connection. Ids of connections can be chosen, so two tenants may have the same.
fn context_of(tenant: TenantId, connection: ConnectionId) -> String {
    callback_context(sha256(&[tenant.0.as_bytes().as_slice(), connection.0.as_bytes()].concat()))
}

/// Logs the end of a session that someone tried to use for another user, in another browser, or for another provider.
fn warn_of_attack(tenant: TenantId, session: &AuthorizationSession) {
    let Some(
        failure @ (AuthorizationFailure::IssuerMismatch
        | AuthorizationFailure::UserMismatch
        | AuthorizationFailure::WrongBrowser),
    ) = session.failure
    else {
        return;
    };
    let (connection, id, reason) = (session.connection, session.id, failure.as_str());
    tracing::warn!(tenant.id = %tenant, connection.id = %connection, authorization.id = %id, error.type = reason, "an authorisation was refused");
}

/// Refuses a caller that did not start a session.
fn require_principal<R>(caller: &Caller<R>, session: &AuthorizationSession) -> Result<()> {
    if session.principal == caller.name() || planted_in(session.connection, AuthorizationBug::PrincipalNotCompared) {
        return Ok(());
    }
    Err(refused(Precondition::AuthorizationMismatch, session, "another caller has started the authorisation"))
}

/// The code in a response to a session, or how the session ends by it.
fn judged<'r>(
    session: &AuthorizationSession,
    response: &'r AuthorizationResponse,
) -> Result<&'r Secret, AuthorizationEnd> {
    if planted_in(session.connection, AuthorizationBug::IssuerNotCompared) {
        let issuer = ExpectedIssuer { issuer: response.iss.clone(), is_advertised: false };
        return AuthorizationSession { issuer, ..session.clone() }.judge(response);
    }
    session.judge(response)
}

fn ended(session: &AuthorizationSession) -> Error {
    let message = format!("the authorisation is {}, and can be completed once", session.state.as_str());
    refused(Precondition::AuthorizationEnded, session, message)
}

fn refused(reason: Precondition, session: &AuthorizationSession, message: impl Into<String>) -> Error {
    Error::precondition(reason, Resource::AuthorizationSession, session.id, message)
}

fn missing(id: AuthorizationSessionId) -> Error {
    Error::not_found(Resource::AuthorizationSession, id)
}
