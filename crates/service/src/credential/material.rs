//! Changes of material: how a patch changes the stored material, and the facts that the credential shows of it.

use jackfield_domain::credential::{
    Credential, CredentialState, Material, MaterialPatch, OAuth2Material, custom_fields_after,
};
use jackfield_domain::error::Violation;
use jackfield_domain::key::KeyKind;
use jackfield_domain::{Error, KeyId, Resource, Result, TenantId, Timestamp};
use jackfield_store::Writer;

use super::issue::not_valid;
use crate::key::lock_key;
use crate::services::Services;

/// The facts of material that are not secret.
pub(crate) struct MaterialFacts {
    pub(super) state: CredentialState,
    pub(super) scopes: Vec<String>,
    pub(super) token_type: String,
    pub(super) expire_time: Option<Timestamp>,
    pub(super) refreshable: bool,
}

// === impl Services ===

impl Services {
    /// Changes the stored material and brings the facts in line with it. Returns false if the material stays.
    pub(crate) async fn material_change(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &mut Credential,
        patch: MaterialPatch,
    ) -> Result<bool> {
        let Some(kind) = patch.kind() else { return Ok(false) };
        if kind != credential.kind {
            let description = format!("must be of the kind of the credential, {}", credential.kind.as_str());
            return Err(Violation::field("material", description).into());
        }
        let needs_stored = match &patch {
            MaterialPatch::Replace(Material::OAuth2(tokens), _) => {
                tokens.refresh_token.is_none() || tokens.id_token.is_none()
            }
            MaterialPatch::Keep | MaterialPatch::Replace(..) => false,
            MaterialPatch::Tokens(_) | MaterialPatch::Fields(_) => true,
        };
        let stored = match needs_stored {
            true => self.shared.secrets.material(Some(txn), tenant, credential.id).await?,
            false => None,
        };
        let material = match (patch, stored.map(|(stored, _)| stored)) {
            (MaterialPatch::Keep, _) => return Ok(false),
            (MaterialPatch::Replace(Material::OAuth2(tokens), change), Some(Material::OAuth2(stored))) => {
                Material::OAuth2(tokens.or_stored(change.applied(stored)))
            }
            (MaterialPatch::Replace(material, _), _) => material,
            (MaterialPatch::Tokens(tokens), Some(Material::OAuth2(stored))) => {
                // The state, the expiry and the scopes are those of the access token, which stays.
                let tokens = tokens.applied(stored);
                credential.refreshable = tokens.refresh_token.is_some();
                if credential.failure_class.is_some() {
                    credential.state = MaterialFacts::state_of(&tokens);
                    credential.forget_failures();
                }
                credential.schedule(self.now());
                let material = Material::OAuth2(tokens);
                return self.material_store(txn, tenant, credential, &material).await.map(|()| true);
            }
            (MaterialPatch::Fields(entries), Some(Material::Custom(stored))) => {
                Material::Custom(custom_fields_after(entries, stored)?)
            }
            (MaterialPatch::Tokens(_) | MaterialPatch::Fields(_), None)
                if credential.state == CredentialState::Revoked =>
            {
                return Err(not_valid(credential));
            }
            (MaterialPatch::Tokens(_) | MaterialPatch::Fields(_), _) => {
                let id = credential.id.to_string();
                return Err(Error::DecryptFailed { resource: Resource::Credential, id });
            }
        };
        credential.key = key_of(txn, tenant, &material).await?;
        MaterialFacts::of(&material).apply(credential);
        credential.schedule(self.now());
        self.material_store(txn, tenant, credential, &material).await.map(|()| true)
    }

    /// Stores the next version of the material.
    async fn material_store(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &mut Credential,
        material: &Material,
    ) -> Result<()> {
        credential.material_version += 1;
        // It is of the earlier material.
        self.shared.secrets.alternate_delete(txn, tenant, credential.id).await?;
        self.shared.secrets.put_material(txn, tenant, credential, material).await
    }
}

// === impl MaterialFacts ===

impl MaterialFacts {
    /// Makes these the facts of a credential. Nothing is known of refreshes of the new material.
    pub(crate) fn apply(self, credential: &mut Credential) {
        let MaterialFacts { state, scopes, token_type, expire_time, refreshable } = self;
        (credential.state, credential.scopes, credential.token_type) = (state, scopes, token_type);
        (credential.expire_time, credential.refreshable) = (expire_time, refreshable);
        credential.forget_failures();
    }

    /// The state of a credential that has these tokens.
    fn state_of(tokens: &OAuth2Material) -> CredentialState {
        if tokens.access_token.is_some() { CredentialState::Valid } else { CredentialState::NeedsReauth }
    }

    pub(crate) fn of(material: &Material) -> Self {
        let valid = MaterialFacts {
            state: CredentialState::Valid,
            scopes: Vec::new(),
            token_type: String::new(),
            expire_time: None,
            refreshable: false,
        };
        match material {
            Material::OAuth2(tokens) => MaterialFacts {
                state: MaterialFacts::state_of(tokens),
                scopes: tokens.scopes.clone(),
                token_type: tokens.access_token.as_ref().map(|_| tokens.token_type.clone()).unwrap_or_default(),
                expire_time: tokens.expire_time.filter(|_| tokens.access_token.is_some()),
                refreshable: tokens.refresh_token.is_some(),
            },
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
