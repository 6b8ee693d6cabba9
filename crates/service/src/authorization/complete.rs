//! The end of an authorisation: whose it is is checked before the code goes anywhere, and then it goes once.

use std::time::Duration;

use futures::FutureExt as _;
use jackfield_domain::authorization::{
    AuthorizationAnswer, AuthorizationClient, AuthorizationEnd, AuthorizationFailure, AuthorizationSession,
    AuthorizationState, CODE_COLUMN, CODE_VERIFIER_COLUMN, NONCE_COLUMN, REDEEM_MICROS,
};
use jackfield_domain::connection::Connection;
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::ConnectionsAuthorize;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{AuthorizationSessionId, Error, Resource, Result, Secret, SecretAddress, TenantId};
use jackfield_store::Writer;
use jackfield_upstream::oidc::DocumentFault;
use tracing::Instrument as _;

use super::account::{AccountClient, AccountSource};
use super::redeem::{STORE_ATTEMPTS, repeated};
use super::{COMPLETION, STATE, ended, judged, refused, require_principal, warn_of_attack};
use crate::caller::Caller;
use crate::change::{Change, Length};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;

/// The wait before the documents of an issuer are asked for again.
const DOCUMENTS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A code that is going to be redeemed.
pub(super) struct Redemption {
    pub(super) session: AuthorizationSession,
    pub(super) code: Secret,
    pub(super) code_verifier: Secret,
    /// The nonce that the ID token must have, if there has to be one.
    pub(super) nonce: Option<Secret>,
}

/// The outcome of the check.
pub(super) enum Checked {
    /// The session has ended, and why.
    Ended(Box<AuthorizationSession>),
    /// The session is confirmed, and its code is redeemed here only.
    Confirmed(Box<Redemption>),
}

/// The content of an answer once its session is found.
pub(super) enum Said {
    Code(Secret),
    /// The session ends.
    End(AuthorizationEnd),
}

// === impl Services ===

impl Services {
    /// Completes a session for a user: checks whose it is, redeems its code once, and stores the tokens. Once the check has begun it goes
    /// on if the caller leaves: a code that was taken and not redeemed would be lost.
    pub async fn authorization_complete(
        &self,
        caller: Caller<ConnectionsAuthorize>,
        user_id: UserId,
        answer: AuthorizationAnswer,
    ) -> Result<AuthorizationSession> {
        let tenant = caller.tenant();
        let found = self.answered(tenant, &user_id, &answer).await?;
        require_principal(&caller, &found)?;
        let is_overdue = found.is_overdue(self.now());
        if let Err(error) = require_open(&found.clone().settled(self.now()), &answer) {
            if is_overdue {
                self.lapse_found(tenant, found.id).await?;
            }
            return Err(error);
        }
        let connection = self.find::<Connection>(tenant, &Ref::Id(found.connection.0)).await?;
        // Before the code is taken, so that it is not lost to a connection that can be mended at once. Another user ends the session,
        // whatever the connection is like.
        let client = match answer.has_code() && is_of(&found, &user_id) {
            true => Some(self.token_client(tenant, &connection).await?),
            false => None,
        };
        // So are the documents of the issuer, without which the tokens could not be used.
        let source = match &client {
            Some(client) => {
                let of = AccountClient { tenant, connection: &connection, client };
                Some(self.account_source(of, &found).await)
            }
            None => None,
        };
        if let Some(Err(fault)) = &source {
            require_documents(&connection, fault)?;
        }
        // And so is the place for the tokens, of which there will be no other copy.
        if client.is_some() {
            self.shared.refreshes.authorizations.writable().await?;
        }
        let services = self.clone();
        let completing = async move {
            let facts = client.as_ref().map(|client| client.facts(&connection));
            let checked = services.check_answer(&caller, (&found, facts.as_ref()), &user_id, answer).await?;
            let of = client.as_ref().map(|client| AccountClient { tenant, connection: &connection, client });
            services.finish((tenant, found.id), checked, of.zip(source)).await
        };
        self.shared.tasks.spawn(completing.in_current_span()).await.map_err(Error::internal)?
    }

    /// Redeems the code of a session if there is one now.
    pub(super) async fn finish(
        &self,
        (tenant, id): (TenantId, AuthorizationSessionId),
        checked: Checked,
        client: Option<(AccountClient<'_>, Result<AccountSource, DocumentFault>)>,
    ) -> Result<AuthorizationSession> {
        self.shared.changed_authorizations.tell(id);
        let redemption = match checked {
            Checked::Ended(session) => {
                warn_of_attack(tenant, &session);
                return Ok(*session);
            }
            Checked::Confirmed(redemption) => *redemption,
        };
        let (of, source) = client.ok_or_else(|| Error::internal("a code without a client"))?;
        let session = self.redeem(of, source, redemption).await;
        self.shared.changed_authorizations.tell(id);
        session
    }

    /// The session that an answer belongs to.
    async fn answered(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        answer: &AuthorizationAnswer,
    ) -> Result<AuthorizationSession> {
        if let Some(session) = self.planted_session(tenant, user_id).await? {
            return Ok(session);
        }
        let read = self.shared.store.read();
        let found = match answer {
            AuthorizationAnswer::CompletionCode(code) => {
                let digest = self.authorization_digest(COMPLETION, code).await?;
                read.authorization_find_by_completion(tenant, &digest).await?
            }
            AuthorizationAnswer::Response(response) => {
                let digest = self.authorization_digest(STATE, &response.state).await?;
                read.authorization_find_by_state(tenant, &digest).await?
            }
        };
        found.ok_or_else(|| Error::not_found_by(Resource::AuthorizationSession, None, None))
    }

    /// Takes the code of a session, or ends it.
    async fn check_answer(
        &self,
        caller: &Caller<ConnectionsAuthorize>,
        (found, client): (&AuthorizationSession, Option<&AuthorizationClient>),
        user_id: &UserId,
        answer: AuthorizationAnswer,
    ) -> Result<Checked> {
        let mut made = None;
        let changed = self.change(Change::on_behalf_of(caller), async |txn| {
            let tenant = caller.tenant();
            let locked = txn.authorization_fetch_for_update(tenant, found.id).await?;
            let session = locked.ok_or_else(|| super::missing(found.id))?.settled(self.now());
            require_open(&session, &answer)?;
            let said = match is_of(&session, user_id) {
                true => self.said(txn, tenant, &session, &answer).await?,
                false if planted_in(session.connection, AuthorizationBug::MismatchEndsNothing) => {
                    let message = "the authorisation was started for another user";
                    return Err(refused(Precondition::AuthorizationMismatch, &session, message));
                }
                // The user who brings it has a link that was meant for another. It must not be used by either.
                false => Said::End(AuthorizationEnd::failed(AuthorizationFailure::UserMismatch, "")),
            };
            made = Some(self.take(txn, tenant, (session, client), said).await?);
            Ok(())
        });
        let changed = changed.await;
        self.taken(caller.tenant(), changed, made).await
    }

    /// Takes the code of a session that is locked, or ends it.
    pub(super) async fn take(
        &self,
        txn: &Writer,
        tenant: TenantId,
        (session, client): (AuthorizationSession, Option<&AuthorizationClient>),
        said: Said,
    ) -> Result<Checked> {
        match said {
            // The code and its verifier would go to an endpoint, or be those of a client, that the user was not asked about.
            Said::Code(_) if !is_its_client(&session, client) => {
                let end = AuthorizationEnd::failed(AuthorizationFailure::ConnectionChanged, "");
                self.end(txn, tenant, session, end).await.map(Box::new).map(Checked::Ended)
            }
            Said::End(end) => self.end(txn, tenant, session, end).await.map(Box::new).map(Checked::Ended),
            Said::Code(code) => self.confirm(txn, tenant, session, code).await.map(Box::new).map(Checked::Confirmed),
        }
    }

    /// The outcome of a check whose change has ended. If it is not known whether it was stored, the session tells.
    pub(super) async fn taken(&self, tenant: TenantId, changed: Result<()>, made: Option<Checked>) -> Result<Checked> {
        match (changed, made) {
            (Ok(()), made) => made.ok_or_else(|| Error::internal("a change without a result")),
            (Err(error @ Error::OutcomeUnknown { .. }), Some(Checked::Confirmed(redemption))) => {
                match self.is_confirmed(tenant, &redemption.session).await? {
                    true => Ok(Checked::Confirmed(redemption)),
                    false => Err(error),
                }
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Returns whether a session is stored as it was confirmed here. Then its code was taken here only.
    async fn is_confirmed(&self, tenant: TenantId, session: &AuthorizationSession) -> Result<bool> {
        // With its lock: a COMMIT that is still under way is waited for.
        let read = || {
            let read = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
                txn.authorization_fetch_for_update(tenant, session.id).await
            });
            read.boxed()
        };
        Ok(repeated(STORE_ATTEMPTS, read).await?.is_some_and(|stored| stored == *session))
    }

    /// The content of an answer, after the check of its issuer.
    async fn said(
        &self,
        txn: &Writer,
        tenant: TenantId,
        session: &AuthorizationSession,
        answer: &AuthorizationAnswer,
    ) -> Result<Said> {
        Ok(match answer {
            AuthorizationAnswer::Response(response) => match judged(session, response) {
                Ok(code) => Said::Code(code.duplicate()),
                Err(end) => Said::End(end),
            },
            AuthorizationAnswer::CompletionCode(_) => {
                Said::Code(self.secret_of(txn, tenant, session, CODE_COLUMN).await?)
            }
        })
    }

    /// Marks a session as confirmed, so that its code is redeemed here only, and takes its secrets.
    async fn confirm(
        &self,
        txn: &Writer,
        tenant: TenantId,
        mut session: AuthorizationSession,
        code: Secret,
    ) -> Result<Redemption> {
        let code_verifier = self.secret_of(txn, tenant, &session, CODE_VERIFIER_COLUMN).await?;
        let nonce = match session.asks_for_id_token() {
            true => Some(self.secret_of(txn, tenant, &session, NONCE_COLUMN).await?),
            false => None,
        };
        session.advance(AuthorizationState::Confirmed, self.now(), REDEEM_MICROS);
        txn.authorization_forget_secrets(tenant, session.id).await?;
        txn.authorization_replace(tenant, &session).await?;
        Ok(Redemption { session, code, code_verifier, nonce })
    }

    /// A secret of a session that is open.
    pub(super) async fn secret_of(
        &self,
        txn: &Writer,
        tenant: TenantId,
        session: &AuthorizationSession,
        column: &str,
    ) -> Result<Secret> {
        let secret = self.shared.secrets.text(Some(txn), SecretAddress::of(tenant, session.id, column)).await?;
        secret.ok_or_else(|| Error::internal(format!("an open session has no {column}")))
    }
}

/// Returns true if a session was started for a user.
fn is_of(session: &AuthorizationSession, user_id: &UserId) -> bool {
    session.user_id == *user_id || planted_in(session.connection, AuthorizationBug::UserNotCompared)
}

/// Returns true if a connection still has the client and the endpoint for which its session was started.
fn is_its_client(session: &AuthorizationSession, client: Option<&AuthorizationClient>) -> bool {
    client == Some(&session.client) || planted_in(session.connection, AuthorizationBug::ClientNotCompared)
}

/// Refuses to take a code while the documents of its issuer cannot be had. If they are wrong, the session ends with it.
pub(super) fn require_documents(connection: &Connection, fault: &DocumentFault) -> Result<()> {
    if !fault.is_transient() {
        return Ok(());
    }
    let error = fault as &dyn std::error::Error;
    tracing::warn!(error, connection.id = %connection.id, "the documents of an issuer cannot be had");
    let connector = connection.connector.to_string();
    Err(Error::UpstreamUnavailable { connector, retry_after: DOCUMENTS_RETRY_AFTER })
}

/// Refuses a session that has ended, or whose response comes another way.
fn require_open(session: &AuthorizationSession, answer: &AuthorizationAnswer) -> Result<()> {
    if !session.state.is_open() {
        return Err(ended(session));
    }
    match answer {
        // Only a session that has returned has a completion code.
        AuthorizationAnswer::Response(_) if session.browser.is_some() => {
            let message = "it is cookie-bound: the callback listener completes it when its browser comes back";
            Err(refused(Precondition::AuthorizationMismatch, session, message))
        }
        AuthorizationAnswer::Response(_) if session.return_uri.is_some() => {
            let message = "the callback listener takes the response: complete it with the completion code";
            Err(refused(Precondition::AuthorizationMismatch, session, message))
        }
        AuthorizationAnswer::CompletionCode(_) | AuthorizationAnswer::Response(_) => Ok(()),
    }
}
