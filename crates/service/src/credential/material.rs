//! Changes of material: how a patch changes the stored material, and the facts that the credential shows of it.

use jackfield_domain::credential::{
    ClearedTokens, Credential, CredentialKind, CredentialState, Material, MaterialPatch, custom_fields_after,
};
use jackfield_domain::error::Violation;
use jackfield_domain::key::KeyKind;
use jackfield_domain::{Error, KeyId, Resource, Result, Secret, TenantId, Timestamp};
use jackfield_store::Writer;

use crate::key::lock_key;
use crate::services::Services;

/// The facts of material that are not secret.
pub(super) struct MaterialFacts {
    pub(super) state: CredentialState,
    pub(super) scopes: Vec<String>,
    pub(super) token_type: String,
    pub(super) expire_time: Option<Timestamp>,
    pub(super) refreshable: bool,
}

// === impl Services ===

impl Services {
    /// The material after a patch; `None` if it stays.
    pub(super) async fn material_changed(
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
            false => self.shared.secrets.material(Some(txn), tenant, credential.id).await?,
        };
        Ok(Some(match (patch, stored.map(|(stored, _)| stored)) {
            (MaterialPatch::Replace(Material::OAuth2(mut tokens), cleared), Some(Material::OAuth2(stored))) => {
                let kept = |token: Option<Secret>, cleared: bool| token.filter(|_| !cleared);
                tokens.refresh_token =
                    tokens.refresh_token.take().or(kept(stored.refresh_token, cleared.refresh_token));
                tokens.id_token = tokens.id_token.take().or(kept(stored.id_token, cleared.id_token));
                Material::OAuth2(tokens)
            }
            (MaterialPatch::Replace(material, _), _) => material,
            (MaterialPatch::Fields(entries), Some(Material::Custom(stored))) => {
                Material::Custom(custom_fields_after(entries, stored)?)
            }
            (MaterialPatch::Fields(_), _) => {
                let id = credential.id.to_string();
                return Err(Error::DecryptFailed { resource: Resource::Credential, id });
            }
            (MaterialPatch::Keep, _) => return Ok(None),
        }))
    }

    /// Replaces the stored material and brings the facts in line with it.
    pub(super) async fn material_replace(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &mut Credential,
        material: &Material,
    ) -> Result<()> {
        credential.key = key_of(txn, tenant, material).await?;
        let MaterialFacts { state, scopes, token_type, expire_time, refreshable } = MaterialFacts::of(material);
        (credential.state, credential.scopes, credential.token_type) = (state, scopes, token_type);
        (credential.expire_time, credential.refreshable) = (expire_time, refreshable);
        (credential.refresh_failure_count, credential.failure_class) = (0, None);
        credential.material_version += 1;
        self.shared.secrets.put_material(txn, tenant, credential, material).await
    }
}

// === impl MaterialFacts ===

impl MaterialFacts {
    pub(super) fn of(material: &Material) -> Self {
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

/// The key that a client certificate names, locked until the transaction ends.
pub(super) async fn key_of(txn: &Writer, tenant: TenantId, material: &Material) -> Result<Option<KeyId>> {
    let Material::ClientCertificate { key } = material else { return Ok(None) };
    let field = "material.client_certificate.key";
    Ok(Some(lock_key(txn, tenant, key, KeyKind::ClientIdentity, field).await??))
}
