//! Changes of material: how a patch changes the stored material, and the facts that the credential shows of it.

use jackfield_domain::credential::{
    Credential, CredentialState, Material, MaterialPatch, OAuth2Material, custom_fields_after,
};
use jackfield_domain::error::Violation;
use jackfield_domain::key::KeyKind;
use jackfield_domain::{Error, KeyId, Resource, Result, SecretPatch, TenantId, Timestamp};
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
    pub(super) authorization_expire_time: Option<Timestamp>,
    pub(super) refreshable: bool,
}

const OF_CLIENT: &str =
    "must have no tokens: the connection has the grant type CLIENT_CREDENTIALS, and its client gets them";

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
        if let MaterialPatch::Replace(material, _) = &patch {
            refuse_tokens_of_users(credential.client_grant, material)?;
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
                let gives_token = matches!(tokens.refresh_token, SecretPatch::Set(_));
                if gives_token && credential.client_grant {
                    return Err(Violation::field("material.oauth2.refresh_token", OF_CLIENT).into());
                }
                let tokens = tokens.applied(stored);
                credential.note_refresh_token(tokens.refresh_token.is_some());
                credential.authorization_expire_time = tokens.authorization_expire_time;
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
        // An authorisation adds those that it asked for.
        credential.requested_scopes.clear();
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
        // They are of the earlier material.
        credential.forget_kept();
        credential.rejections.clear();
        credential.email_digest = None;
        self.shared.secrets.alternate_delete(txn, tenant, credential.id).await?;
        self.shared.secrets.put_material(txn, tenant, credential, material).await
    }
}

// === impl MaterialFacts ===

impl MaterialFacts {
    /// Makes these the facts of a credential. Nothing is known of refreshes of the new material.
    pub(crate) fn apply(self, credential: &mut Credential) {
        let MaterialFacts { state, scopes, token_type, expire_time, authorization_expire_time, refreshable } = self;
        (credential.state, credential.scopes, credential.token_type) = (state, scopes, token_type);
        (credential.expire_time, credential.authorization_expire_time) = (expire_time, authorization_expire_time);
        credential.note_refresh_token(refreshable);
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
            authorization_expire_time: None,
            refreshable: false,
        };
        match material {
            Material::OAuth2(tokens) => MaterialFacts {
                state: MaterialFacts::state_of(tokens),
                scopes: tokens.scopes.clone(),
                token_type: tokens.access_token.as_ref().map(|_| tokens.token_type.clone()).unwrap_or_default(),
                expire_time: tokens.expire_time.filter(|_| tokens.access_token.is_some()),
                authorization_expire_time: tokens.authorization_expire_time,
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

/// Refuses tokens of a user in a credential whose tokens are those of the client: the next refresh would replace them by tokens with other
/// rights.
pub(super) fn refuse_tokens_of_users(client_grant: bool, material: &Material) -> Result<()> {
    match material {
        Material::OAuth2(OAuth2Material { access_token: None, refresh_token: None, .. }) => Ok(()),
        Material::OAuth2(_) if client_grant => Err(Violation::field("material.oauth2", OF_CLIENT).into()),
        _ => Ok(()),
    }
}
