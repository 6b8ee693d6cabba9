//! RevealCredential: the material itself, for callers who may see it.

use jackfield_domain::credential::{Credential, CredentialState, Material};
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::CredentialsReveal;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result, TenantId};
use uuid::Uuid;

use super::issue::{READ_ATTEMPTS, RETRY_AFTER, not_valid};
use crate::caller::Caller;
use crate::change::Change;
use crate::change::audit::{self, Action};
use crate::services::Services;

/// Material that was revealed.
pub struct Revealed {
    pub material: Material,
    pub material_version: i64,
    /// The id of the audit event of the call.
    pub audit_event: Uuid,
}

// === impl Services ===

impl Services {
    /// Reveals the material of a credential. The audit event is durable before the material is opened.
    pub async fn credential_reveal(
        &self,
        caller: &Caller<CredentialsReveal>,
        reference: &Ref,
        purpose: String,
    ) -> Result<Revealed> {
        let tenant = caller.tenant();
        let credential = self.find::<Credential>(tenant, reference).await?;
        if !self.shared.facts.reveal_enabled {
            let (reason, resource) = (Precondition::RevealDisabled, Resource::Credential);
            let message = "the operator of this server has switched RevealCredential off";
            return Err(Error::precondition(reason, resource, credential.id, message));
        }
        let (resource, resource_id) = (Resource::Credential, credential.id.0);
        let action = Action { name: "credentials.reveal", resource, resource_id, purpose };
        let recorded = self.change(Change::on_behalf_of(caller), async |txn| {
            audit::record(txn, tenant, caller.actor(), action, self.now()).await
        });
        let audit_event = recorded.await?;
        tracing::info!(
            credential.id = %credential.id,
            audit.event = %audit_event,
            caller.name = caller.name(),
            "credential revealed"
        );
        let (material, material_version) = self.current_material(tenant, credential).await?;
        Ok(Revealed { material, material_version, audit_event })
    }

    /// The material of a credential and its version. If the credential was read before a change and the material after it, both are
    /// read again.
    async fn current_material(&self, tenant: TenantId, mut credential: Credential) -> Result<(Material, i64)> {
        let id = credential.id;
        let gone = || Error::not_found(Resource::Credential, id);
        for _ in 0..READ_ATTEMPTS {
            // It exists as long as the credential does, and is not revoked. Otherwise one of both happened in between.
            let material = self.shared.secrets.material(None, tenant, id).await?;
            match material {
                Some((material, version)) if version == credential.material_version => return Ok((material, version)),
                None if credential.state == CredentialState::Revoked => return Err(not_valid(&credential)),
                Some(_) | None => {}
            }
            credential = self.shared.store.read().fetch::<Credential>(tenant, id).await?.ok_or_else(gone)?;
        }
        Err(Error::ServerUnavailable { retry_after: RETRY_AFTER })
    }
}
