//! Use cases that create, read, update and delete credentials.

use jackfield_domain::configuration::Configuration;
use jackfield_domain::connection::{Connection, ConnectionGrant};
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{Credential, CredentialDraft, CredentialKind, CredentialParents, CredentialPatch};
use jackfield_domain::error::Violation;
use jackfield_domain::principal::right::{CredentialsRead, CredentialsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{
    ConfigurationId, ConnectionId, ConnectorId, CredentialId, Error, Result, TenantId, Timestamp, UserConnectorId,
};
use jackfield_store::Writer;
use tokio::time::Instant;
use uuid::Uuid;

use super::material::{MaterialFacts, key_of, refuse_tokens_of_users};
use crate::caller::Caller;
use crate::change::{
    Change, DeleteOptions, Deleted, Expected, Length, RequestOptions, found_for_delete, found_for_update, lock_parent,
    missing, names, unchanged,
};
use crate::list::Listable;
use crate::services::Services;
use crate::user_connector::link_of;

/// The parents of a new credential.
pub(crate) struct Parents {
    pub(crate) connector: ConnectorId,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) link: UserConnectorId,
}

// === impl Services ===

impl Services {
    /// Stores a credential. With a refresh token alone, it gets its access token before the caller stops waiting, if it can.
    pub async fn credential_create(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        draft: CredentialDraft,
        deadline: Option<Instant>,
    ) -> Result<Credential> {
        let created = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let connector = lock_parent::<Connector>(txn, tenant, &draft.connector).await?.id;
            let connection = connection_of(txn, tenant, draft.connection.as_ref(), connector).await?;
            let link = link_of(txn, tenant, &draft.user_id, (connector, &draft.connector)).await?;
            let parents = Parents { connector, connection, link };
            self.credential_insert(txn, tenant, parents, draft).await
        });
        let created = created.await?;
        let exchanged = self.exchanged(caller.tenant(), request, &created, deadline).await;
        Ok(self.settled(exchanged.unwrap_or(created)))
    }

    pub async fn credential_get(&self, caller: &Caller<CredentialsRead>, reference: &Ref) -> Result<Credential> {
        self.find(caller.tenant(), reference).await.map(|credential| self.settled(credential))
    }

    /// Changes a credential. New material is treated as that of a new one.
    pub async fn credential_update(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        expected: &Expected,
        patch: CredentialPatch,
        deadline: Option<Instant>,
    ) -> Result<Credential> {
        let updated = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = find_locked(txn, tenant, reference).await?;
            let before = found_for_update(found, || missing::<Credential>(reference), expected)?;
            let mut credential = before.clone();
            check_parents(txn, tenant, &credential, &patch.parents).await?;
            match patch.is_default {
                Some(true) if !credential.is_default => {
                    let link = credential.user_connector;
                    if let Some(present) = txn.credential_fetch_default_for_update(tenant, link).await? {
                        self.set_default(txn, tenant, present, false).await?;
                    }
                    credential.is_default = true;
                }
                Some(false) if credential.is_default => {
                    return Err(Violation::field("credential.is_default", DEFAULT_IS_MOVED).into());
                }
                _ => {}
            }
            credential.apply(&patch).map_err(Error::Invalid)?;
            let has_refresh_token = before.refreshable && !before.client_grant;
            if patch.provider_account_id.is_none() && !patch.material.keeps_account(has_refresh_token) {
                // Nothing says whose the new material is.
                credential.provider_account_id.clear();
            }
            let material_changes = self.material_change(txn, tenant, &mut credential, patch.material).await?;
            if !material_changes && unchanged(&before, &credential) {
                return Ok(before);
            }
            credential.meta = credential.meta.changed(self.now());
            txn.replace(tenant, &credential).await?;
            Ok(credential)
        });
        let updated = updated.await?;
        let exchanged = self.exchanged(caller.tenant(), request, &updated, deadline).await;
        Ok(self.settled(exchanged.unwrap_or(updated)))
    }

    pub async fn credential_delete(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        reference: &Ref,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let (mut revocable, mut cancelled) = (None, Vec::new());
        let deleted = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = find_locked(txn, tenant, reference).await?;
            let Some(credential) = found_for_delete(found, || missing::<Credential>(reference), options)? else {
                return Ok(Deleted::default());
            };
            cancelled = self.authorizations_cancel_of_credential(txn, tenant, &credential).await?;
            revocable = self.revocable(txn, tenant, &credential).await?;
            let cascade = txn.credential_delete(tenant, credential.id).await?;
            if credential.is_default {
                self.mark_successor(txn, tenant, credential.user_connector).await?;
            }
            Ok(Deleted::with(cascade.counts()))
        });
        let deleted = deleted.await;
        self.revoke_deleted(request, &deleted.as_ref(), revocable);
        let deleted = deleted?;
        self.tell_cancelled(request, cancelled);
        Ok(deleted)
    }

    /// Adds a credential with its default configuration and its material. Its parents are locked.
    pub(crate) async fn credential_insert(
        &self,
        txn: &Writer,
        tenant: TenantId,
        Parents { connector, connection, link }: Parents,
        draft: CredentialDraft,
    ) -> Result<Credential> {
        let key = key_of(txn, tenant, &draft.material).await?;
        let present = txn.credential_fetch_default_for_update(tenant, link).await?;
        if present.is_none() && draft.is_default == Some(false) {
            return Err(Violation::field("credential.is_default", FIRST_IS_DEFAULT).into());
        }
        let is_default = present.is_none() || draft.is_default == Some(true);
        if let Some(present) = present.filter(|_| is_default) {
            self.set_default(txn, tenant, present, false).await?;
        }
        let facts = MaterialFacts::of(&draft.material);
        let client_grant = match (connection, draft.material.kind()) {
            (Some(connection), CredentialKind::OAuth2) => is_of_client(txn, tenant, connection).await?,
            _ => false,
        };
        refuse_tokens_of_users(client_grant, &draft.material)?;
        let now = self.now();
        let mut credential = Credential {
            id: draft.id.unwrap_or_else(CredentialId::generate),
            external_id: draft.external_id,
            user_id: draft.user_id,
            connector,
            connection,
            user_connector: link,
            key,
            kind: draft.material.kind(),
            state: facts.state,
            scopes: facts.scopes,
            requested_scopes: draft.requested_scopes,
            token_type: facts.token_type,
            expire_time: facts.expire_time,
            authorization_expire_time: facts.authorization_expire_time,
            provider_account_id: draft.provider_account_id,
            email_digest: draft.email_digest,
            provider_data: draft.provider_data,
            labels: draft.labels,
            is_default,
            material_version: 1,
            refreshable: facts.refreshable || client_grant,
            client_grant,
            last_refresh_time: None,
            refresh_failure_count: 0,
            failure_class: None,
            failure_reason: String::new(),
            failure_connection_version: None,
            next_refresh_time: None,
            refresh_token_kept_count: 0,
            refresh_token_kept_time: None,
            rejections: Vec::new(),
            default_configuration: ConfigurationId::generate(),
            meta: Meta::new(now),
        };
        credential.schedule(now);
        txn.insert(tenant, &credential).await?;
        let configuration = Configuration::blank(credential.default_configuration, &credential, true, credential.meta);
        txn.insert(tenant, &configuration).await?;
        self.shared.secrets.put_material(txn, tenant, &credential, &draft.material).await?;
        Ok(credential)
    }

    /// The credential with its current state.
    pub(super) fn settled(&self, mut credential: Credential) -> Credential {
        credential.settle(self.now());
        credential
    }
}

impl Listable for Credential {
    type Right = CredentialsRead;
    const LIST: &'static str = "credentials";

    fn settle(&mut self, now: Timestamp) {
        self.state = self.state_at(now);
    }
}

/// The credential with an id, locked together with its link until the transaction ends.
pub(crate) async fn lock_credential(txn: &Writer, tenant: TenantId, id: CredentialId) -> Result<Option<Credential>> {
    find_locked(txn, tenant, &Ref::Id(id.0)).await
}

/// The credential that a reference names, locked together with its link until the transaction ends.
pub(crate) async fn find_locked(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<Option<Credential>> {
    let Some(found) = txn.find::<Credential>(tenant, reference).await? else { return Ok(None) };
    txn.fetch_for_update::<UserConnector>(tenant, found.user_connector).await?;
    txn.fetch_for_update::<Credential>(tenant, found.id).await
}

/// Refuses a user, connector or connection that is not the one of the credential. One that does not exist is refused as
/// well.
async fn check_parents(
    txn: &Writer,
    tenant: TenantId,
    credential: &Credential,
    parents: &CredentialParents,
) -> Result<()> {
    let CredentialParents { user_id, connector, connection } = parents;
    let mut violations = Vec::new();
    let mut refuse = |field| violations.push(Violation::field(field, "may not be changed"));
    if user_id.as_ref().is_some_and(|user_id| *user_id != credential.user_id) {
        refuse("credential.user_id");
    }
    if let Some(connector) = connector
        && !names::<Connector>(txn, tenant, connector, Some(credential.connector.0)).await?
    {
        refuse("credential.connector");
    }
    if let Some(connection) = connection
        && !names::<Connection>(txn, tenant, connection, credential.connection.map(Uuid::from)).await?
    {
        refuse("credential.connection");
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// Returns whether the tokens of a connection are those of its client.
async fn is_of_client(txn: &Writer, tenant: TenantId, connection: ConnectionId) -> Result<bool> {
    let connection = txn.fetch::<Connection>(tenant, connection).await?;
    Ok(connection.is_some_and(|connection| connection.settings.grant == ConnectionGrant::ClientCredentials))
}

async fn connection_of(
    txn: &Writer,
    tenant: TenantId,
    reference: Option<&Ref>,
    connector: ConnectorId,
) -> Result<Option<ConnectionId>> {
    let Some(reference) = reference else { return Ok(None) };
    let connection = lock_parent::<Connection>(txn, tenant, reference).await?;
    if connection.connector != connector {
        return Err(Violation::field("credential.connection", "belongs to another connector").into());
    }
    Ok(Some(connection.id))
}

const FIRST_IS_DEFAULT: &str = "cannot be false: the first credential of a user for a connector is its default";
const DEFAULT_IS_MOVED: &str = "cannot be taken away; mark another credential as default to move it";
