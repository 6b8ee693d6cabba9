//! The other users with the same identity at a provider, whom a completed authorisation names. Nothing of theirs is changed: the application
//! decides what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use jackfield_domain::authorization::AuthorizationSession;
use jackfield_domain::connection::{Connection, ConnectionSettings};
use jackfield_domain::credential::{CredentialState, EmailDigest};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectionId, CredentialId, Result, Secret, TenantId};
use jackfield_store::{IdenticalCredential, IdentityMark, Writer};

use super::redeem::Tokens;
use crate::services::Services;

/// The most users whom an authorisation names.
const MAX_LINKED: usize = 10;
/// The most credentials that are looked at for each mark, the oldest first. Those of the user and those that are revoked are among them.
const MAX_LOOKED_AT: u64 = 1_000;
/// The purpose of digests of verified e-mail addresses.
const VERIFIED_EMAIL: &str = "verified email";

/// Other users, and the credential of each by which it is named.
type LinkedUsers = (Vec<UserId>, Vec<CredentialId>);

/// The look-up of other users for some tokens. It is not made again once it has failed: tokens that came are worth more than what is known of
/// other users.
#[derive(Default)]
pub(super) struct LinkedLookup {
    has_failed: AtomicBool,
}

// === impl LinkedLookup ===

impl LinkedLookup {
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

// === impl Services ===

impl Services {
    /// The digest of a verified e-mail address. It is keyed by the data key of the system, which is never replaced, and the same address has
    /// another one in each tenant. `None` if the key cannot be had: then no address is compared.
    pub(super) async fn email_digest(&self, tenant: TenantId, email: Option<&Secret>) -> Option<EmailDigest> {
        let email = email?.expose().as_bytes();
        match self.shared.data_keys.system().await {
            Ok(system) => {
                Some(EmailDigest::new(system.fingerprint(VERIFIED_EMAIL, &[tenant.0.as_bytes().as_slice(), email])))
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, tenant.id = %tenant, "a verified e-mail address is not compared");
                None
            }
        }
    }

    /// The other users of the tenant with the identity of the tokens of a session, those with the oldest credentials first. Of two
    /// authorisations that end at the same moment, neither may name the other user. The transaction cannot go on after an error.
    pub(super) async fn linked_users(
        &self,
        txn: &Writer,
        tenant: TenantId,
        (session, connection): (&AuthorizationSession, &Connection),
        tokens: &Tokens,
    ) -> Result<LinkedUsers> {
        if tokens.linked.has_failed() {
            return Ok(LinkedUsers::default());
        }
        let found = linked_users(txn, tenant, (session, connection), tokens).await;
        if let Err(error) = &found {
            tokens.linked.has_failed.store(true, Ordering::Relaxed);
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, authorization.id = %session.id, "an authorisation names no other users, because they could not be looked up");
        }
        found
    }

    /// A session that is read later, without the users whose credentials were deleted or revoked since.
    pub(super) async fn linked_users_left(
        &self,
        tenant: TenantId,
        mut session: AuthorizationSession,
    ) -> Result<AuthorizationSession> {
        // A session that an earlier release has completed does not have the credentials.
        if session.linked_credentials.is_empty() {
            return Ok(session);
        }
        let left = self.shared.store.read().credentials_fetch(tenant, &session.linked_credentials).await?;
        let is_left = |(user_id, id): &(UserId, &CredentialId)| {
            left.iter().any(|credential| {
                credential.id == **id && credential.user_id == *user_id && credential.state != CredentialState::Revoked
            })
        };
        let named = std::mem::take(&mut session.linked_users).into_iter().zip(&session.linked_credentials);
        let named: Vec<UserId> = named.filter(is_left).map(|(user_id, _)| user_id).collect();
        session.linked_users = named;
        Ok(session)
    }
}

async fn linked_users(
    txn: &Writer,
    tenant: TenantId,
    (session, connection): (&AuthorizationSession, &Connection),
    tokens: &Tokens,
) -> Result<LinkedUsers> {
    let settings = &connection.settings;
    if !settings.may_link(session.find_linked_users) {
        return Ok(LinkedUsers::default());
    }
    let user_id = &session.user_id;
    let mut found = Vec::new();
    if let Some(account) = tokens.account.as_deref().filter(|account| !account.is_empty()) {
        let mark = IdentityMark::AccountAt(connection.id, account);
        found.extend(txn.credentials_fetch_identical(tenant, user_id, mark, MAX_LOOKED_AT).await?);
        if settings.trust_identity_user_id {
            let mark = IdentityMark::Account(account);
            let identical = txn.credentials_fetch_identical(tenant, user_id, mark, MAX_LOOKED_AT).await?;
            found.extend(linking(txn, tenant, session, connection, identical, true).await?);
        }
    }
    if let Some(digest) = &tokens.email_digest {
        let mark = IdentityMark::Email(digest);
        let identical = txn.credentials_fetch_identical(tenant, user_id, mark, MAX_LOOKED_AT).await?;
        found.extend(linking(txn, tenant, session, connection, identical, false).await?);
    }
    Ok(oldest(found))
}

/// Those of some credentials whose connections allow it as they are now.
async fn linking(
    txn: &Writer,
    tenant: TenantId,
    session: &AuthorizationSession,
    own: &Connection,
    mut identical: Vec<IdenticalCredential>,
    needs_trust: bool,
) -> Result<Vec<IdenticalCredential>> {
    let ids: BTreeSet<ConnectionId> = identical.iter().map(|credential| credential.connection).collect();
    let ids: Vec<ConnectionId> = ids.into_iter().collect();
    let connections = txn.connections_fetch(tenant, &ids).await?;
    let connections: BTreeMap<_, _> = connections.iter().map(|other| (other.id, other)).collect();
    identical.retain(|credential| {
        connections.get(&credential.connection).is_some_and(|other| {
            own.settings.linking.links(other.settings.linking, session.find_linked_users)
                && (!needs_trust || other.settings.trust_identity_user_id && is_same_provider(own, other))
        })
    });
    Ok(identical)
}

/// Returns whether the account ids of two connections are those of one provider. Another provider may have the same ids for other people. The
/// connections of one connector may be of several providers, so what they say themselves comes first.
fn is_same_provider(one: &Connection, other: &Connection) -> bool {
    let own = |connection: &Connection| {
        let ConnectionSettings { issuer_url, token_url, .. } = &connection.settings;
        (Some(issuer_url.clone()).filter(|issuer| !issuer.is_empty()), token_url.clone())
    };
    match (own(one), own(other)) {
        ((None, None), (None, None)) => one.connector == other.connector,
        ((None, one), (None, other)) => one == other,
        ((one, _), (other, _)) => one == other,
    }
}

/// The users of the oldest credentials, each once.
fn oldest(mut found: Vec<IdenticalCredential>) -> LinkedUsers {
    found.sort_unstable_by_key(|credential| (credential.create_time, credential.id));
    let (mut users, mut credentials) = LinkedUsers::default();
    for credential in found {
        if users.len() < MAX_LINKED && !users.contains(&credential.user_id) {
            users.push(credential.user_id);
            credentials.push(credential.id);
        }
    }
    (users, credentials)
}
