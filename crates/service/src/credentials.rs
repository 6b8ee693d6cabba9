//! Use cases of credentials: their facts, and the two ways in which material leaves.

use std::collections::BTreeMap;
use std::future::Future;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jackfield_domain::credential::{
    Credential, CredentialDraft, CredentialPatch, CredentialRef, CredentialStatus, IssuedToken, MATERIAL_COLUMN,
    Material, OAuth2Material,
};
use jackfield_domain::error::{Precondition, Violation};
use jackfield_domain::key::KeyKind;
use jackfield_domain::meta::Meta;
use jackfield_domain::reference::Ref;
use jackfield_domain::{
    ConfigurationId, ConnectionId, ConnectorId, CredentialId, Error, KeyId, Resource, Result, Secret, TenantId,
};
use jackfield_store::{AuditEvent, Page, PageQuery, Reader, Writer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::caller::Caller;
use crate::configurations::blank;
use crate::links::link_of;
use crate::material;
use crate::mutation::{Begun, Deletion, Mutation, check_etag};
use crate::open::Services;
use crate::pager::Listable;
use crate::secrets::SecretPlace;

/// Outcome of a deletion.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CredentialDeleted {
    pub deleted: bool,
    pub configurations: u64,
}

/// Material that was revealed.
pub struct Revealed {
    pub material: Material,
    pub material_version: i64,
    /// Id of the record of the call.
    pub audit_event: Uuid,
}

// === impl Services: facts ===

impl Services {
    pub async fn credential_create(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        draft: CredentialDraft,
    ) -> Result<Credential> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        let tenant = caller.tenant();
        let now = self.now();
        let txn = &change.txn;
        let connector = txn.connector_find(tenant, &draft.connector).await?;
        let connector = connector.ok_or_else(|| Error::not_found(Resource::Connector, &draft.connector))?.id;
        let connection = connection_of(txn, tenant, draft.connection.as_ref(), connector).await?;
        let link = link_of(txn, tenant, &draft.user_id, connector, now).await?;
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
            status: facts.status,
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
        txn.credential_insert(tenant, &credential).await?;
        txn.configuration_insert(tenant, &blank(credential.default_configuration, &credential, true, credential.meta))
            .await?;
        self.material_put(txn, tenant, credential.id, &draft.material, key).await?;
        self.finish(caller, mutation, change, credential).await
    }

    pub async fn credential_get(&self, caller: &Caller, reference: &Ref) -> Result<Credential> {
        let found = self.shared.store.read().credential_find(caller.tenant(), reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Credential, reference))
    }

    pub async fn credential_update(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        reference: &Ref,
        etag: &str,
        patch: CredentialPatch,
    ) -> Result<Credential> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        let tenant = caller.tenant();
        let txn = &change.txn;
        let found = txn.credential_find(tenant, reference).await?;
        let found = found.ok_or_else(|| Error::not_found(Resource::Credential, reference))?;
        // Marks of default are under the lock of the link, which comes before that of the credential.
        txn.user_connector_lock(tenant, found.user_connector).await?;
        let credential = txn.credential_fetch_for_update(tenant, found.id).await?;
        let mut credential = credential.ok_or_else(|| Error::not_found(Resource::Credential, reference))?;
        check_etag(&credential.meta, etag, Resource::Credential, credential.id)?;

        let CredentialPatch { external_id, provider_account_id, provider_data, labels, is_default, material } = patch;
        match is_default {
            Some(true) if !credential.is_default => {
                if let Some(former) = txn.credential_fetch_default_for_update(tenant, credential.user_connector).await?
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
        if let Some(labels) = labels {
            credential.labels = labels;
        }
        if let Some(material) = material {
            self.material_replace(txn, tenant, &mut credential, material).await?;
        }
        credential.meta = credential.meta.changed(self.now());
        txn.credential_replace(tenant, &credential).await?;
        self.finish(caller, mutation, change, credential).await
    }

    pub async fn credential_delete(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<CredentialDeleted> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        let tenant = caller.tenant();
        let txn = &change.txn;
        let found = match txn.credential_find(tenant, reference).await? {
            Some(found) => {
                txn.user_connector_lock(tenant, found.user_connector).await?;
                txn.credential_fetch_for_update(tenant, found.id).await?
            }
            None => None,
        };
        let Some(credential) = found else {
            if deletion.allow_missing {
                return self.finish(caller, mutation, change, CredentialDeleted::default()).await;
            }
            return Err(Error::not_found(Resource::Credential, reference));
        };
        check_etag(&credential.meta, &deletion.etag, Resource::Credential, credential.id)?;
        let configurations = txn.credential_delete(tenant, credential.id).await?;
        if credential.is_default {
            let heir = txn.credential_fetch_newest(tenant, credential.user_connector, credential.id).await?;
            if let Some(heir) = heir {
                self.default_mark(txn, tenant, heir, true).await?;
            }
        }
        self.finish(caller, mutation, change, CredentialDeleted { deleted: true, configurations }).await
    }

    /// Moves the mark of default to or from a credential.
    async fn default_mark(&self, txn: &Writer, tenant: TenantId, mut credential: Credential, mark: bool) -> Result<()> {
        credential.is_default = mark;
        credential.meta = credential.meta.changed(self.now());
        txn.credential_replace(tenant, &credential).await
    }

    async fn material_put(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: CredentialId,
        material: &Material,
        key: Option<KeyId>,
    ) -> Result<()> {
        let bytes = material::to_bytes(material, key)?;
        self.secret_put(txn, material_place(tenant, id), &bytes).await
    }

    /// Puts new material in place of the stored one and brings the facts in line with it.
    async fn material_replace(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &mut Credential,
        mut material: Material,
    ) -> Result<()> {
        if material.kind() != credential.kind {
            let description = format!("must be of the kind of the credential, {}", credential.kind.as_str());
            return Err(Violation::field("material", description).into());
        }
        if let Material::OAuth2(tokens) = &mut material {
            let place = material_place(tenant, credential.id);
            let sealed = txn.secret_fetch(tenant, place.owner, place.owner_id, place.name).await?;
            if let Some(sealed) = sealed
                && let Material::OAuth2(stored) = material::from_bytes(&self.secret_open(place, &sealed).await?)?
            {
                tokens.refresh_token = tokens.refresh_token.take().or(stored.refresh_token);
                tokens.id_token = tokens.id_token.take().or(stored.id_token);
            }
        }
        let key = key_of(txn, tenant, &material).await?;
        self.material_put(txn, tenant, credential.id, &material, key).await?;
        let facts = MaterialFacts::of(&material);
        credential.key = key;
        credential.status = facts.status;
        credential.scopes = facts.scopes;
        credential.token_type = facts.token_type;
        credential.expire_time = facts.expire_time;
        credential.refreshable = facts.refreshable;
        credential.refresh_failure_count = 0;
        credential.failure_class = None;
        credential.material_version += 1;
        Ok(())
    }
}

// === impl Services: the ways out ===

impl Services {
    /// Hands out a usable token.
    pub async fn access_token_issue(
        &self,
        caller: &Caller,
        reference: &CredentialRef,
        min_validity_micros: i64,
        scopes: &[String],
    ) -> Result<IssuedToken> {
        let tenant = caller.tenant();
        let credential = self.credential_named(tenant, reference).await?;
        self.check_usable(tenant, &credential).await?;
        let refuse =
            |reason, message: String| Err(Error::precondition(reason, Resource::Credential, credential.id, message));
        if let Some(missing) = scopes.iter().find(|scope| !credential.scopes.contains(scope)) {
            let message = format!("the credential does not have the scope {missing}");
            return refuse(Precondition::CredentialNotValid, message);
        }
        if matches!(credential.status, CredentialStatus::Revoked | CredentialStatus::Pending) {
            let message = format!("the credential is {}", credential.status.as_str());
            return refuse(Precondition::CredentialNotValid, message);
        }
        let until = self.now().plus_micros(min_validity_micros);
        if let Some(expiry) = credential.expire_time.filter(|expiry| *expiry <= until) {
            let message = format!("the access token is good until {expiry}, which is not long enough");
            return refuse(Precondition::ReauthRequired, message);
        }
        let material = self.material_fetch(tenant, credential.id).await?;
        let (token, token_type, fields) = match material {
            Material::OAuth2(OAuth2Material { access_token: Some(token), token_type, .. }) => {
                (token, token_type, BTreeMap::new())
            }
            Material::OAuth2(_) => {
                let message = "no access token is stored: the user has to authorise".to_owned();
                return refuse(Precondition::ReauthRequired, message);
            }
            Material::ApiKey(api_key) => (api_key, "ApiKey".to_owned(), BTreeMap::new()),
            Material::Basic { username, password } => {
                (basic(&username, &password), "Basic".to_owned(), BTreeMap::new())
            }
            Material::Custom(fields) => (Secret::new(String::new()), "Custom".to_owned(), fields),
            Material::ClientCredentials { .. } | Material::ClientCertificate { .. } => {
                let message = format!("a credential of kind {} holds no token", credential.kind.as_str());
                return refuse(Precondition::CredentialNotValid, message);
            }
        };
        Ok(IssuedToken {
            credential: credential.id,
            material_version: credential.material_version,
            token,
            token_type,
            expire_time: credential.expire_time,
            scopes: credential.scopes,
            fields,
        })
    }

    /// Hands out the material itself. The record of it is durable before the material is opened.
    pub async fn credential_reveal(&self, caller: &Caller, reference: &Ref, purpose: String) -> Result<Revealed> {
        let tenant = caller.tenant();
        let credential = self.credential_get(caller, reference).await?;
        if !self.reveal_enabled() {
            let message = "the operator of this server has switched RevealCredential off";
            return Err(Error::precondition(
                Precondition::RevealDisabled,
                Resource::Credential,
                credential.id,
                message,
            ));
        }
        let audit_event = Uuid::now_v7();
        let event = AuditEvent {
            id: audit_event,
            time: self.now(),
            principal: caller.name().to_owned(),
            action: "credentials.reveal",
            resource: Resource::Credential,
            resource_id: credential.id.0,
            purpose,
            request_id: caller.request_id().to_owned(),
        };
        let txn = self.shared.store.write().await?;
        txn.audit_insert(tenant, event).await?;
        txn.commit().await?;
        tracing::info!(
            credential.id = %credential.id,
            audit.event = %audit_event,
            caller.name = caller.name(),
            "credential revealed"
        );
        let material = self.material_fetch(tenant, credential.id).await?;
        Ok(Revealed { material, material_version: credential.material_version, audit_event })
    }

    async fn credential_named(&self, tenant: TenantId, reference: &CredentialRef) -> Result<Credential> {
        let read = self.shared.store.read();
        match reference {
            CredentialRef::Ref(reference) => {
                let found = read.credential_find(tenant, reference).await?;
                found.ok_or_else(|| Error::not_found(Resource::Credential, reference))
            }
            CredentialRef::DefaultOf { user_id, connector } => {
                let found = read.connector_find(tenant, connector).await?;
                let found = found.ok_or_else(|| Error::not_found(Resource::Connector, connector))?;
                let link = read.user_connector_fetch_pair(tenant, user_id, found.id, self.now()).await?;
                let missing = || format!("{user_id} and {connector}");
                let link = link.ok_or_else(|| Error::not_found(Resource::UserConnector, missing()))?;
                let found = read.credential_fetch_default(tenant, link.id).await?;
                found.ok_or_else(|| Error::not_found(Resource::Credential, missing()))
            }
        }
    }

    /// Refuses what its connector or connection does not allow.
    async fn check_usable(&self, tenant: TenantId, credential: &Credential) -> Result<()> {
        let read = self.shared.store.read();
        let connector = read.connector_fetch(tenant, credential.connector).await?;
        if !connector.is_some_and(|connector| connector.enabled) {
            let message = "the connector of the credential is disabled";
            let id = credential.connector;
            return Err(Error::precondition(Precondition::ConnectorDisabled, Resource::Connector, id, message));
        }
        let Some(id) = credential.connection else { return Ok(()) };
        let connection = read.connection_fetch(tenant, id).await?;
        if !connection.is_some_and(|connection| connection.settings.active) {
            let message = "the connection of the credential is not active";
            return Err(Error::precondition(Precondition::ConnectionInactive, Resource::Connection, id, message));
        }
        Ok(())
    }

    async fn material_fetch(&self, tenant: TenantId, id: CredentialId) -> Result<Material> {
        let bytes = self.secret_fetch(material_place(tenant, id)).await?;
        // It is there as long as the credential is; if not, the credential went away in between.
        let bytes = bytes.ok_or_else(|| Error::not_found(Resource::Credential, id))?;
        material::from_bytes(&bytes)
    }
}

impl Listable for Credential {
    const LIST: &'static str = "credentials";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.credential_page(query)
    }
}

/// What material says of itself that is not secret.
struct MaterialFacts {
    status: CredentialStatus,
    scopes: Vec<String>,
    token_type: String,
    expire_time: Option<jackfield_domain::Timestamp>,
    refreshable: bool,
}

impl MaterialFacts {
    fn of(material: &Material) -> Self {
        let valid = MaterialFacts {
            status: CredentialStatus::Valid,
            scopes: Vec::new(),
            token_type: String::new(),
            expire_time: None,
            refreshable: false,
        };
        match material {
            Material::OAuth2(tokens) => {
                let has_token = tokens.access_token.is_some();
                MaterialFacts {
                    status: if has_token { CredentialStatus::Valid } else { CredentialStatus::NeedsReauth },
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

fn material_place(tenant: TenantId, id: CredentialId) -> SecretPlace<'static> {
    SecretPlace { tenant, owner: Resource::Credential, owner_id: id.0, name: MATERIAL_COLUMN }
}

async fn connection_of(
    txn: &Writer,
    tenant: TenantId,
    reference: Option<&Ref>,
    connector: ConnectorId,
) -> Result<Option<ConnectionId>> {
    let Some(reference) = reference else { return Ok(None) };
    let connection = txn.connection_find(tenant, reference).await?;
    let connection = connection.ok_or_else(|| Error::not_found(Resource::Connection, reference))?;
    if connection.connector != connector {
        return Err(Violation::field("credential.connection", "stands on another connector").into());
    }
    Ok(Some(connection.id))
}

async fn key_of(txn: &Writer, tenant: TenantId, material: &Material) -> Result<Option<KeyId>> {
    let Material::ClientCertificate { key: reference } = material else { return Ok(None) };
    let key = txn.key_find(tenant, reference).await?.ok_or_else(|| Error::not_found(Resource::Key, reference))?;
    if key.kind != KeyKind::ClientIdentity {
        return Err(Violation::field("material.client_certificate.key", "must name a client identity").into());
    }
    Ok(Some(key.id))
}

/// What goes behind "Basic " (RFC 7617).
fn basic(username: &Secret, password: &Secret) -> Secret {
    let pair = Secret::new(format!("{}:{}", username.expose(), password.expose()));
    Secret::new(STANDARD.encode(pair.expose()))
}

const FIRST_IS_DEFAULT: &str = "cannot be false: the first credential of a user for a connector is its default";
const DEFAULT_IS_MOVED: &str = "cannot be taken away; mark another credential as default to move it";
