//! Use cases of credentials: their facts and how their material comes in. How it leaves is in `tokens.rs`.

use std::future::Future;

use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::{
    ClearedTokens, Credential, CredentialDraft, CredentialKind, CredentialParents, CredentialPatch, CredentialState,
    MATERIAL_COLUMN, Material, MaterialPatch,
};
use jackfield_domain::error::Violation;
use jackfield_domain::key::{Key, KeyKind};
use jackfield_domain::principal::right::{CredentialsRead, CredentialsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{
    ConfigurationId, ConnectionId, ConnectorId, CredentialId, Error, KeyId, Resource, Result, Secret, TenantId,
    UserConnectorId,
};
use jackfield_store::{Page, PageQuery, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::configurations::blank;
use crate::links::link_of;
use crate::material;
use crate::mutation::{Deletion, Expected, Mutation, Weight, check_etag, check_expected};
use crate::open::Services;
use crate::pager::Listable;
use crate::secrets::SecretPlace;

/// Outcome of a deletion.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CredentialDeleted {
    pub deleted: bool,
    pub configurations: u64,
}

// === impl Services ===

impl Services {
    pub async fn credential_create(
        &self,
        caller: &Caller<CredentialsWrite>,
        mutation: &Mutation,
        draft: CredentialDraft,
    ) -> Result<Credential> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let now = self.now();
            let connector = txn.lock_shared::<Connector>(tenant, &draft.connector).await?;
            let connector = connector.ok_or_else(|| Error::not_found(Resource::Connector, &draft.connector))?.id;
            let connection = connection_of(txn, tenant, draft.connection.as_ref(), connector).await?;
            let link = link_of(txn, tenant, &draft.user_id, (connector, &draft.connector)).await?;
            let key = key_of(txn, tenant, &draft.material).await?;
            let former = txn.credential_fetch_default_for_update(tenant, link).await?;
            if former.is_none() && draft.is_default == Some(false) {
                return Err(Violation::field("credential.is_default", FIRST_IS_DEFAULT).into());
            }
            let is_default = former.is_none() || draft.is_default == Some(true);
            if let Some(former) = former.filter(|_| is_default) {
                self.default_mark(txn, tenant, former, false).await?;
            }
            let facts = MaterialFacts::of(&draft.material);
            let credential = Credential {
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
                token_type: facts.token_type,
                expire_time: facts.expire_time,
                provider_account_id: draft.provider_account_id,
                provider_data: draft.provider_data,
                labels: draft.labels,
                is_default,
                material_version: 1,
                refreshable: facts.refreshable,
                last_refresh_time: None,
                refresh_failure_count: 0,
                failure_class: None,
                default_configuration: ConfigurationId::generate(),
                meta: Meta::new(now),
            };
            txn.insert(tenant, &credential).await?;
            txn.insert(tenant, &blank(credential.default_configuration, &credential, true, credential.meta)).await?;
            self.material_put(txn, tenant, &credential, &draft.material).await?;
            Ok(credential)
        })
        .await
    }

    pub async fn credential_get(&self, caller: &Caller<CredentialsRead>, reference: &Ref) -> Result<Credential> {
        self.credential_find(caller.tenant(), reference).await
    }

    pub(crate) async fn credential_find(&self, tenant: TenantId, reference: &Ref) -> Result<Credential> {
        let found = self.shared.store.read().find::<Credential>(tenant, reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Credential, reference))
    }

    pub async fn credential_update(
        &self,
        caller: &Caller<CredentialsWrite>,
        mutation: &Mutation,
        reference: &Ref,
        expected: &Expected,
        patch: CredentialPatch,
    ) -> Result<Credential> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let found = txn.find::<Credential>(tenant, reference).await?;
            let found = found.ok_or_else(|| Error::not_found(Resource::Credential, reference))?;
            // Marks of default are under the lock of the link, which comes before that of the credential.
            txn.user_connector_lock(tenant, found.user_connector).await?;
            let credential = txn.fetch_for_update::<Credential>(tenant, found.id).await?;
            let mut credential = credential.ok_or_else(|| Error::not_found(Resource::Credential, reference))?;
            check_expected(expected, &credential.meta, Resource::Credential, credential.id.0)?;

            let former = credential.clone();
            let CredentialPatch {
                external_id,
                provider_account_id,
                provider_data,
                labels,
                is_default,
                material,
                parents,
            } = patch;
            check_parents(txn, tenant, &credential, &parents).await?;
            match is_default {
                Some(true) if !credential.is_default => {
                    if let Some(former) =
                        txn.credential_fetch_default_for_update(tenant, credential.user_connector).await?
                    {
                        self.default_mark(txn, tenant, former, false).await?;
                    }
                    credential.is_default = true;
                }
                Some(false) if credential.is_default => {
                    return Err(Violation::field("credential.is_default", DEFAULT_IS_MOVED).into());
                }
                _ => {}
            }
            if let Some(external_id) = external_id {
                credential.external_id = external_id;
            }
            if let Some(provider_account_id) = provider_account_id {
                credential.provider_account_id = provider_account_id;
            }
            if let Some(provider_data) = provider_data {
                credential.provider_data = provider_data;
            }
            let wrong = labels.apply("credential.labels", &mut credential.labels);
            if !wrong.is_empty() {
                return Err(Error::Invalid(wrong));
            }
            let material = self.material_changed(txn, tenant, &credential, material).await?;
            if material.is_none() && credential == former {
                return Ok(former);
            }
            if let Some(material) = material {
                self.material_replace(txn, tenant, &mut credential, &material).await?;
            }
            credential.meta = credential.meta.changed(self.now());
            txn.replace(tenant, &credential).await?;
            Ok(credential)
        })
        .await
    }

    pub async fn credential_delete(
        &self,
        caller: &Caller<CredentialsWrite>,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<CredentialDeleted> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let found = match txn.find::<Credential>(tenant, reference).await? {
                Some(found) => {
                    txn.user_connector_lock(tenant, found.user_connector).await?;
                    txn.fetch_for_update::<Credential>(tenant, found.id).await?
                }
                None => None,
            };
            let Some(credential) = found else {
                if deletion.allow_missing {
                    return Ok(CredentialDeleted::default());
                }
                return Err(Error::not_found(Resource::Credential, reference));
            };
            check_etag(&credential.meta, &deletion.etag, Resource::Credential, credential.id)?;
            let configurations = txn.credential_delete(tenant, credential.id).await?.counts().configurations;
            if credential.is_default {
                self.default_inherit(txn, tenant, credential.user_connector).await?;
            }
            Ok(CredentialDeleted { deleted: true, configurations })
        })
        .await
    }

    /// Marks the youngest credential of a link that lost its default.
    pub(crate) async fn default_inherit(&self, txn: &Writer, tenant: TenantId, link: UserConnectorId) -> Result<()> {
        match txn.credential_fetch_newest(tenant, link).await? {
            Some(successor) => self.default_mark(txn, tenant, successor, true).await,
            None => Ok(()),
        }
    }

    /// Moves the mark of default to or from a credential.
    async fn default_mark(&self, txn: &Writer, tenant: TenantId, mut credential: Credential, mark: bool) -> Result<()> {
        credential.is_default = mark;
        credential.meta = credential.meta.changed(self.now());
        txn.replace(tenant, &credential).await
    }

    async fn material_put(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &Credential,
        material: &Material,
    ) -> Result<()> {
        let bytes = material::to_bytes(material, credential.key, credential.material_version)?;
        self.secret_put(txn, material_place(tenant, credential.id), &bytes).await
    }

    /// The material after a patch; `None` if it stays.
    async fn material_changed(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &Credential,
        patch: MaterialPatch,
    ) -> Result<Option<Material>> {
        let kind = match &patch {
            MaterialPatch::Keep => return Ok(None),
            MaterialPatch::Replace(material, _) => material.kind(),
            MaterialPatch::Fields(_) => CredentialKind::Custom,
        };
        if kind != credential.kind {
            let description = format!("must be of the kind of the credential, {}", credential.kind.as_str());
            return Err(Violation::field("material", description).into());
        }
        let whole = match &patch {
            MaterialPatch::Replace(Material::OAuth2(tokens), cleared) => {
                let ClearedTokens { refresh_token, id_token } = *cleared;
                (tokens.refresh_token.is_some() || refresh_token) && (tokens.id_token.is_some() || id_token)
            }
            MaterialPatch::Replace(..) => true,
            MaterialPatch::Keep | MaterialPatch::Fields(_) => false,
        };
        let stored = match whole {
            true => None,
            false => self.secret_fetch(Some(txn), material_place(tenant, credential.id)).await?,
        };
        let stored = match stored {
            Some(stored) => Some(material::from_bytes(&stored)?.0),
            None => None,
        };
        Ok(Some(match (patch, stored) {
            (MaterialPatch::Replace(Material::OAuth2(mut tokens), cleared), Some(Material::OAuth2(stored))) => {
                let kept = |token: Option<Secret>, cleared: bool| token.filter(|_| !cleared);
                tokens.refresh_token =
                    tokens.refresh_token.take().or(kept(stored.refresh_token, cleared.refresh_token));
                tokens.id_token = tokens.id_token.take().or(kept(stored.id_token, cleared.id_token));
                Material::OAuth2(tokens)
            }
            (MaterialPatch::Replace(material, _), _) => material,
            (MaterialPatch::Fields(entries), Some(Material::Custom(stored))) => {
                Material::Custom(entries.applied(stored)?)
            }
            (MaterialPatch::Fields(_), _) => {
                let id = credential.id.to_string();
                return Err(Error::DecryptFailed { resource: Resource::Credential, id });
            }
            (MaterialPatch::Keep, _) => return Ok(None),
        }))
    }

    /// Puts new material in place of the stored one and brings the facts in line with it.
    async fn material_replace(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &mut Credential,
        material: &Material,
    ) -> Result<()> {
        let key = key_of(txn, tenant, material).await?;
        let facts = MaterialFacts::of(material);
        credential.key = key;
        credential.state = facts.state;
        credential.scopes = facts.scopes;
        credential.token_type = facts.token_type;
        credential.expire_time = facts.expire_time;
        credential.refreshable = facts.refreshable;
        credential.refresh_failure_count = 0;
        credential.failure_class = None;
        credential.material_version += 1;
        self.material_put(txn, tenant, credential, material).await
    }
}

impl Listable for Credential {
    type Right = CredentialsRead;
    const LIST: &'static str = "credentials";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.page(query)
    }
}

/// What material says of itself that is not secret.
struct MaterialFacts {
    state: CredentialState,
    scopes: Vec<String>,
    token_type: String,
    expire_time: Option<jackfield_domain::Timestamp>,
    refreshable: bool,
}

impl MaterialFacts {
    fn of(material: &Material) -> Self {
        let valid = MaterialFacts {
            state: CredentialState::Valid,
            scopes: Vec::new(),
            token_type: String::new(),
            expire_time: None,
            refreshable: false,
        };
        match material {
            Material::OAuth2(tokens) => {
                let has_token = tokens.access_token.is_some();
                MaterialFacts {
                    state: if has_token { CredentialState::Valid } else { CredentialState::NeedsReauth },
                    scopes: tokens.scopes.clone(),
                    token_type: tokens.token_type.clone(),
                    expire_time: tokens.expire_time.filter(|_| has_token),
                    refreshable: tokens.refresh_token.is_some(),
                }
            }
            Material::ClientCredentials { .. } => MaterialFacts { refreshable: true, ..valid },
            Material::ApiKey(_) | Material::Basic { .. } | Material::ClientCertificate { .. } | Material::Custom(_) => {
                valid
            }
        }
    }
}

pub(crate) fn material_place(tenant: TenantId, id: CredentialId) -> SecretPlace<'static> {
    SecretPlace { tenant, owner: Resource::Credential, owner_id: id.0, name: MATERIAL_COLUMN }
}

/// Refuses another user, connector or connection than a credential has. What does not exist is another one, too.
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
        && txn.find::<Connector>(tenant, connector).await?.map(|found| found.id) != Some(credential.connector)
    {
        refuse("credential.connector");
    }
    if let Some(connection) = connection {
        let found = txn.find::<Connection>(tenant, connection).await?.map(|found| found.id);
        if found.is_none() || found != credential.connection {
            refuse("credential.connection");
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

async fn connection_of(
    txn: &Writer,
    tenant: TenantId,
    reference: Option<&Ref>,
    connector: ConnectorId,
) -> Result<Option<ConnectionId>> {
    let Some(reference) = reference else { return Ok(None) };
    let connection = txn.lock_shared::<Connection>(tenant, reference).await?;
    let connection = connection.ok_or_else(|| Error::not_found(Resource::Connection, reference))?;
    if connection.connector != connector {
        return Err(Violation::field("credential.connection", "stands on another connector").into());
    }
    Ok(Some(connection.id))
}

async fn key_of(txn: &Writer, tenant: TenantId, material: &Material) -> Result<Option<KeyId>> {
    let Material::ClientCertificate { key: reference } = material else { return Ok(None) };
    let key =
        txn.lock_shared::<Key>(tenant, reference).await?.ok_or_else(|| Error::not_found(Resource::Key, reference))?;
    if key.kind != KeyKind::ClientIdentity {
        return Err(Violation::field("material.client_certificate.key", "must name a client identity").into());
    }
    Ok(Some(key.id))
}

const FIRST_IS_DEFAULT: &str = "cannot be false: the first credential of a user for a connector is its default";
const DEFAULT_IS_MOVED: &str = "cannot be taken away; mark another credential as default to move it";
