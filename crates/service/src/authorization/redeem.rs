//! The redemption of a code. It is processed once: a code that is sent twice looks stolen, and its tokens may be revoked (RFC 6749 4.1.2). Only
//! a request that did not leave, or was not processed, is sent again.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jackfield_domain::authorization::{
    AuthorizationEnd, AuthorizationFailure, AuthorizationSession, AuthorizationState, UNKNOWN_ERROR_CODE,
};
use jackfield_domain::connection::{Connection, Linking};
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{
    Credential, CredentialDraft, CredentialKind, CredentialState, EmailDigest, Material, MaterialPatch, OAuth2Material,
    REFRESH_TOKEN_INVALID, TokensPatch,
};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::json::JsonObject;
use jackfield_domain::value::maps::Labels;
use jackfield_domain::{CredentialId, Error, Result, Secret, SecretPatch, TenantId, Timestamp};
use jackfield_store::Writer;
use jackfield_upstream::oauth::{AccessToken, Grant, TokenFailure, TokenFault, TokenResponse};
use jackfield_upstream::oidc::DocumentFault;
use tokio::time::Instant;

use super::account::{Account, AccountClient, AccountFault, AccountSource, unavailable};
use super::complete::Redemption;
use super::linked::LinkedLookup;
use super::missing;
use crate::change::{Change, Length, lock_parent};
use crate::credential::{Parents, Revocable, find_locked};
use crate::planted::{AuthorizationBug, planted_in};
use crate::services::Services;
use crate::user_connector::link_or_new;

/// The attempts to store what cannot be had a second time, and the wait between them.
pub(super) const STORE_ATTEMPTS: u32 = 60;
const STORE_WAIT: Duration = Duration::from_millis(500);
/// The attempts to store tokens that are in the journal as well.
pub(super) const JOURNALED_ATTEMPTS: u32 = 10;
/// The attempts to find whose tokens came.
const ACCOUNT_ATTEMPTS: u32 = 3;
/// The first wait before a code is sent again. It doubles.
const SEND_WAIT: Duration = Duration::from_millis(250);

/// The tokens of a response. They are not cloned, but each attempt to store them needs a copy.
pub(super) struct Tokens {
    pub(super) oauth: OAuth2Material,
    /// The id of the account at the provider whose tokens these are, if it is known.
    pub(super) account: Option<String>,
    /// A digest of its verified e-mail address, if that is known and compared.
    pub(super) email_digest: Option<EmailDigest>,
    pub(super) linked: LinkedLookup,
}

// === impl Services ===

impl Services {
    /// Redeems a code whose session is confirmed, and stores what comes of it.
    pub(super) async fn redeem(
        &self,
        of: AccountClient<'_>,
        source: Result<AccountSource, DocumentFault>,
        redemption: Redemption,
    ) -> Result<AuthorizationSession> {
        let Redemption { session, code, code_verifier, nonce } = redemption;
        let source = match source {
            Ok(source) => source,
            Err(fault) => return self.end_confirmed(of.tenant, &session, unavailable(&fault), STORE_ATTEMPTS).await,
        };
        let redirect_uri = session.redirect_uri.as_ref();
        let redirect_uri = redirect_uri.ok_or_else(|| Error::internal("a code without a redirect URI"))?;
        let grant = Grant::AuthorizationCode { code: &code, redirect_uri, code_verifier: &code_verifier };
        let (outcome, asked) = self.code_send(of, &grant).await;
        let oauth = match tokens_of(outcome, &session.scopes, asked) {
            Ok(oauth) => oauth,
            Err(end) => return self.end_confirmed(of.tenant, &session, end, STORE_ATTEMPTS).await,
        };
        self.tokens_keep(of, &session, (&source, nonce.as_ref()), oauth).await
    }

    /// Keeps tokens that cannot be had a second time, and completes their session.
    pub(super) async fn tokens_keep(
        &self,
        of: AccountClient<'_>,
        session: &AuthorizationSession,
        source: (&AccountSource, Option<&Secret>),
        oauth: OAuth2Material,
    ) -> Result<AuthorizationSession> {
        // Before anything else is asked: from now on they are in no other place.
        let _held = self.shared.refreshes.authorizations.hold(session.id.0);
        let is_journaled = self.authorization_journal(of.tenant, session, &oauth, source.1).await;
        let attempts = if is_journaled { JOURNALED_ATTEMPTS } else { STORE_ATTEMPTS };
        self.tokens_settle(of, session, source, oauth, (is_journaled, attempts)).await
    }

    /// Finds whose tokens these are, and stores them, or drops them and ends the session. Returns it as it is if they are in the journal and
    /// cannot be stored yet.
    pub(super) async fn tokens_settle(
        &self,
        of: AccountClient<'_>,
        session: &AuthorizationSession,
        source: (&AccountSource, Option<&Secret>),
        oauth: OAuth2Material,
        (is_journaled, attempts): (bool, u32),
    ) -> Result<AuthorizationSession> {
        let AccountClient { tenant, connection, .. } = of;
        let account = self.account_found(of, source, &oauth).await;
        let Account { id: account, verified_email } = match account {
            Ok(account) => account,
            // They are stored once the account can be asked for.
            Err(fault) if fault.is_transient && is_journaled => {
                tracing::warn!(authorization.id = %session.id, "the tokens of an authorisation wait in the journal for their account");
                return Ok(session.clone());
            }
            Err(fault) => {
                let ended = self.end_confirmed(tenant, session, fault.end, attempts).await;
                // Those of a session that could not be ended stay in the journal, if they are there.
                match &ended {
                    Err(_) if is_journaled => {}
                    ended => self.tokens_drop(tenant, ended.as_ref().unwrap_or(session), oauth).await,
                }
                return ended;
            }
        };
        // Not within the transaction: the key may have to be read.
        let email_digest = self.email_digest(tenant, verified_email.as_ref()).await;
        let tokens = Tokens { oauth, account, email_digest, linked: LinkedLookup::default() };
        let stored = repeated(attempts, || self.tokens_store(tenant, connection, session, &tokens).boxed()).await;
        let ended = match stored {
            // They are stored when the database is back.
            Err(error) if is_journaled && may_pass(&error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, authorization.id = %session.id, "the tokens of an authorisation wait in the journal");
                return Ok(session.clone());
            }
            Err(error) => self.end_confirmed(tenant, session, not_stored(session, &error), attempts).await?,
            Ok(stored) => stored,
        };
        match ended.state {
            AuthorizationState::Completed => self.shared.refreshes.authorizations.remove(session.id.0).await,
            _ => self.tokens_drop(tenant, &ended, tokens.oauth).await,
        }
        Ok(ended)
    }

    /// Gives up tokens of a session that has ended without them: revokes them at the provider, unless that could end the grant of the
    /// credential that was to be authorised again.
    pub(super) async fn tokens_drop(&self, tenant: TenantId, ended: &AuthorizationSession, oauth: OAuth2Material) {
        // Otherwise another attempt has stored them.
        if ended.state != AuthorizationState::Completed && !self.has_grant(tenant, ended).await {
            self.revoke_later(Revocable::of(tenant, None, Some(ended.connection), oauth, None));
        }
        self.shared.refreshes.authorizations.remove(ended.id.0).await;
    }

    /// Returns whether the credential that was to be authorised again may have a grant of its own.
    async fn has_grant(&self, tenant: TenantId, session: &AuthorizationSession) -> bool {
        let Some(id) = session.credential else { return false };
        match self.shared.store.read().fetch::<Credential>(tenant, id).await {
            Ok(found) => found.is_some_and(|found| {
                Some(found.meta.create_time) == session.credential_create_time
                    && found.state != CredentialState::Revoked
            }),
            Err(_) => true,
        }
    }

    /// The account whose tokens these are. What may pass is tried some times.
    async fn account_found(
        &self,
        of: AccountClient<'_>,
        source: (&AccountSource, Option<&Secret>),
        oauth: &OAuth2Material,
    ) -> Result<Account, AccountFault> {
        let Some(access_token) = &oauth.access_token else { return Ok(Account::default()) };
        let mut made = 1;
        loop {
            match self.account_of(of, source, access_token, oauth.id_token.as_ref()).await {
                Err(fault) if fault.is_transient && made < ACCOUNT_ATTEMPTS => tokio::time::sleep(STORE_WAIT).await,
                account => return account,
            }
            made += 1;
        }
    }

    /// Sends a code, again if it was not processed. Returns the outcome, and the time before the last request.
    async fn code_send(
        &self,
        of: AccountClient<'_>,
        grant: &Grant<'_>,
    ) -> (Result<TokenResponse, TokenFault>, Timestamp) {
        let timeout = self.shared.refreshes.timeout();
        let (until, mut wait) = (Instant::now() + timeout, SEND_WAIT);
        loop {
            let (asked, deadline) = (self.now(), Some(Instant::now() + timeout));
            let outcome = of.client.exchange(grant, of.connection.settings.token_parameters.as_map(), deadline).await;
            let Err(fault) = &outcome else { return (outcome, asked) };
            let pause = fault.retry_after().unwrap_or_default().max(wait);
            if !fault.is_unprocessed() || Instant::now() + pause >= until || self.shared.stop.is_cancelled() {
                return (outcome, asked);
            }
            tokio::time::sleep(pause).await;
            wait *= 2;
        }
    }

    /// Ends a confirmed session without tokens. Nothing else changes.
    pub(super) async fn end_confirmed(
        &self,
        tenant: TenantId,
        session: &AuthorizationSession,
        end: AuthorizationEnd,
        attempts: u32,
    ) -> Result<AuthorizationSession> {
        warn_of_failure(session, &end);
        let end = &end;
        let ended = || {
            let changed = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
                // An attempt whose outcome was not known may have ended it.
                let found = txn.authorization_fetch_for_update(tenant, session.id).await?;
                match found.ok_or_else(|| missing(session.id))? {
                    found if found.takes_tokens(self.now()) => self.end(txn, tenant, found, end.clone()).await,
                    found => Ok(found),
                }
            });
            changed.boxed()
        };
        repeated(attempts, ended).await
    }

    /// Stores tokens in the credential of a session, or in a new one, and completes the session. If the other users cannot be looked up,
    /// the change is rolled back, and made again without them.
    pub(super) async fn tokens_store(
        &self,
        tenant: TenantId,
        connection: &Connection,
        session: &AuthorizationSession,
        tokens: &Tokens,
    ) -> Result<AuthorizationSession> {
        let had_failed = tokens.linked.has_failed();
        match self.tokens_store_once(tenant, connection, session, tokens).await {
            Err(_) if tokens.linked.has_failed() && !had_failed => {
                self.tokens_store_once(tenant, connection, session, tokens).await
            }
            stored => stored,
        }
    }

    async fn tokens_store_once(
        &self,
        tenant: TenantId,
        connection: &Connection,
        session: &AuthorizationSession,
        tokens: &Tokens,
    ) -> Result<AuthorizationSession> {
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            // An attempt whose outcome was not known may have stored them.
            let stored = txn.authorization_fetch(tenant, session.id).await?;
            if let Some(stored) = stored.filter(|stored| stored.state == AuthorizationState::Completed) {
                return Ok(stored);
            }
            let connector = lock_parent::<Connector>(txn, tenant, &Ref::Id(connection.connector.0)).await?;
            let connection = lock_parent::<Connection>(txn, tenant, &Ref::Id(connection.id.0)).await?;
            let credential = match session.credential {
                Some(id) => self.credential_renew(txn, tenant, (session, &connection), id, tokens).await?,
                None => {
                    let link = link_or_new(txn, tenant, &session.user_id, &connector, self.now()).await?;
                    let parents = Parents { connector: connector.id, connection: Some(connection.id), link };
                    let draft = draft(session, (&connector, &connection), tokens);
                    Ok(self.credential_insert(txn, tenant, parents, draft).await?.id)
                }
            };
            let mut locked = self.taking_tokens(txn, tenant, session).await?;
            let end = match credential {
                Ok(id) => {
                    locked.credential = Some(id);
                    locked.granted_scopes.clone_from(&tokens.oauth.scopes);
                    (locked.linked_users, locked.linked_credentials) =
                        self.linked_users(txn, tenant, (session, &connection), tokens).await?;
                    AuthorizationEnd::Completed
                }
                Err(failure) => AuthorizationEnd::failed(failure, ""),
            };
            self.end(txn, tenant, locked, end).await
        })
        .await
    }

    /// The session as it is stored, locked. It is still the one whose tokens came.
    async fn taking_tokens(
        &self,
        txn: &Writer,
        tenant: TenantId,
        session: &AuthorizationSession,
    ) -> Result<AuthorizationSession> {
        let found = txn.authorization_fetch_for_update(tenant, session.id).await?;
        match found.ok_or_else(|| missing(session.id))? {
            found if found.takes_tokens(self.now()) => Ok(found),
            found => Err(super::ended(&found)),
        }
    }

    /// Replaces the tokens of a credential, which keeps its id and its configurations. The tokens before belong to another grant, so
    /// none of them is kept. Those of another account, or of one that nothing tells, are refused unless the session permits them.
    async fn credential_renew(
        &self,
        txn: &Writer,
        tenant: TenantId,
        (session, connection): (&AuthorizationSession, &Connection),
        id: CredentialId,
        tokens: &Tokens,
    ) -> Result<Result<CredentialId, AuthorizationFailure>> {
        let found = find_locked(txn, tenant, &Ref::Id(id.0)).await?;
        let found = found.filter(|credential| is_still(credential, session, connection));
        let Some(mut credential) = found else { return Ok(Err(AuthorizationFailure::CredentialMissing)) };
        let present = credential.provider_account_id.as_str();
        let is_any = session.allow_account_change || planted_in(connection.id, AuthorizationBug::AccountNotCompared);
        if !present.is_empty() && !is_any {
            match tokens.account.as_deref() {
                Some(account) if account == present => {}
                Some(_) => return Ok(Err(AuthorizationFailure::AccountMismatch)),
                None => return Ok(Err(AuthorizationFailure::AccountUnknown)),
            }
        }
        credential.provider_account_id = tokens.account.clone().unwrap_or_default();
        let none_kept = TokensPatch { refresh_token: SecretPatch::Clear, id_token: SecretPatch::Clear };
        let patch = MaterialPatch::Replace(tokens.material(), none_kept);
        self.material_change(txn, tenant, &mut credential, patch).await?;
        credential.requested_scopes.clone_from(&session.scopes);
        credential.email_digest = tokens.email_digest_for(connection);
        credential.connection = Some(session.connection);
        credential.meta = credential.meta.changed(self.now());
        txn.replace::<Credential>(tenant, &credential).await?;
        Ok(Ok(id))
    }
}

// === impl Tokens ===

impl Tokens {
    fn material(&self) -> Material {
        Material::OAuth2(self.oauth.duplicate())
    }

    /// The digest that is stored for a connection as it is now.
    fn email_digest_for(&self, connection: &Connection) -> Option<EmailDigest> {
        self.email_digest.clone().filter(|_| connection.settings.linking != Linking::Disabled)
    }
}

/// The tokens of an exchange that began at a time, or how the session ends.
pub(super) fn tokens_of(
    outcome: Result<TokenResponse, TokenFault>,
    asked_scopes: &[String],
    asked: Timestamp,
) -> Result<OAuth2Material, AuthorizationEnd> {
    let response = outcome.map_err(|fault| failure_of(&fault))?;
    let TokenResponse { status: _, access, refresh_token, loses_refresh_token, authorization_lifetime, id_token } =
        response;
    let unusable = |reason| AuthorizationEnd::failed(AuthorizationFailure::TokenUnusable, reason);
    let access = access.map_err(|flaw| unusable(flaw.reason()))?;
    // The user would have to authorise again when the access token expires.
    if loses_refresh_token {
        return Err(unusable(REFRESH_TOKEN_INVALID));
    }
    let AccessToken { token, token_type, lifetime, scopes } = access;
    let micros = |lifetime: Duration| i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX);
    Ok(OAuth2Material {
        access_token: Some(token),
        refresh_token,
        id_token,
        token_type,
        expire_time: lifetime.map(|lifetime| asked.plus_micros(micros(lifetime))),
        authorization_expire_time: authorization_lifetime.map(|lifetime| asked.plus_micros(micros(lifetime))),
        scopes: scopes.unwrap_or_else(|| asked_scopes.to_vec()),
    })
}

/// Makes a change that may have to be tried again, at most some times.
pub(super) async fn repeated<'a, T>(attempts: u32, change: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    let mut made = 1;
    loop {
        match change().await {
            Err(error) if may_pass(&error) && made < attempts => tokio::time::sleep(STORE_WAIT).await,
            made => return made,
        }
        made += 1;
    }
}

/// Returns true if a credential is the one that a session was started for. One that was deleted and made again with the same id may be
/// another user's.
fn is_still(credential: &Credential, session: &AuthorizationSession, connection: &Connection) -> bool {
    // A credential that was revoked after the user had been sent away stays so.
    let is_given_up =
        credential.state == CredentialState::Revoked && session.revoked_version != Some(credential.material_version);
    Some(credential.meta.create_time) == session.credential_create_time
        && credential.user_id == session.user_id
        && credential.kind == CredentialKind::OAuth2
        && !is_given_up
        && credential.connector == connection.connector
        && credential.connection.is_none_or(|id| id == connection.id)
}

/// The new credential of a session.
fn draft(
    session: &AuthorizationSession,
    (connector, connection): (&Connector, &Connection),
    tokens: &Tokens,
) -> CredentialDraft {
    CredentialDraft {
        id: None,
        external_id: None,
        user_id: session.user_id.clone(),
        connector: Ref::Id(connector.id.0),
        connection: Some(Ref::Id(session.connection.0)),
        provider_account_id: tokens.account.clone().unwrap_or_default(),
        email_digest: tokens.email_digest_for(connection),
        provider_data: JsonObject::default(),
        labels: Labels::default(),
        is_default: None,
        requested_scopes: session.scopes.clone(),
        material: tokens.material(),
    }
}

/// Logs the failure of a session.
pub(super) fn warn_of_failure(session: &AuthorizationSession, end: &AuthorizationEnd) {
    if let AuthorizationEnd::Failed { failure, detail } = end {
        let (connection, reason, detail) = (session.connection, failure.as_str(), detail.as_str());
        tracing::warn!(connection.id = %connection, error.type = reason, error.detail = detail, "an authorisation failed");
    }
}

/// The end of a session whose code was not exchanged.
pub(super) fn failure_of(fault: &TokenFault) -> AuthorizationEnd {
    let failure = match fault.class() {
        // A refresh is tried again later, in case the endpoint only fails. Here it has refused a code that is not sent again.
        TokenFailure::Transient if is_refused_for_unknown_reasons(fault) => AuthorizationFailure::RequestRefused,
        TokenFailure::Transient => AuthorizationFailure::EndpointUnavailable,
        TokenFailure::Unknown => AuthorizationFailure::AnswerLost,
        TokenFailure::Grant => AuthorizationFailure::GrantRefused,
        TokenFailure::Connection => AuthorizationFailure::ClientRefused,
        TokenFailure::Request | TokenFailure::Pending => AuthorizationFailure::RequestRefused,
        TokenFailure::User => AuthorizationFailure::UserActionRequired,
    };
    AuthorizationEnd::failed(failure, detail_of(fault))
}

/// Returns true for an error code that is not known, in a response whose status says success.
pub(super) fn is_unknown_refusal(fault: &TokenFault) -> bool {
    match fault {
        TokenFault::Refused { status, code, .. } => status.is_success() && !code.is_known(),
        TokenFault::Call(_) | TokenFault::Request(_) | TokenFault::Status { .. } | TokenFault::BodyMalformed { .. } => {
            false
        }
    }
}

/// The detail of a fault that is shown.
pub(super) fn detail_of(fault: &TokenFault) -> &str {
    match fault {
        TokenFault::Refused { code, .. } if code.is_known() => code.as_str(),
        TokenFault::Refused { .. } => UNKNOWN_ERROR_CODE,
        TokenFault::Call(_) | TokenFault::Request(_) | TokenFault::Status { .. } | TokenFault::BodyMalformed { .. } => {
            fault.reason()
        }
    }
}

/// Returns true for an error code that is not known, with a status that says neither that the request was not processed nor that the endpoint
/// fails.
pub(super) fn is_refused_for_unknown_reasons(fault: &TokenFault) -> bool {
    match fault {
        TokenFault::Refused { status, code, .. } => {
            !code.is_known() && !fault.is_unprocessed() && !status.is_server_error()
        }
        TokenFault::Call(_) | TokenFault::Request(_) | TokenFault::Status { .. } | TokenFault::BodyMalformed { .. } => {
            false
        }
    }
}

/// The end of a session whose tokens are lost.
pub(super) fn not_stored(session: &AuthorizationSession, error: &Error) -> AuthorizationEnd {
    let cause = error as &dyn std::error::Error;
    tracing::error!(error = cause, authorization.id = %session.id, "the tokens of a user could not be stored");
    AuthorizationEnd::failed(AuthorizationFailure::NotStored, error.reason())
}

/// Returns whether tokens may be stored by another attempt. If it is not known whether they were, the next attempt finds out.
pub(super) fn may_pass(error: &Error) -> bool {
    error.retryable() || matches!(error, Error::OutcomeUnknown { .. })
}
