//! Use cases that refresh a credential because a caller says so.

use std::sync::Arc;

use jackfield_domain::credential::{Credential, CredentialRef, IssuedToken};
use jackfield_domain::error::Precondition;
use jackfield_domain::principal::right::CredentialsIssue;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result};

use crate::caller::Caller;
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Replaces the access token of a credential.
    pub async fn credential_refresh(&self, caller: &Caller<CredentialsIssue>, reference: &Ref) -> Result<Credential> {
        let tenant = caller.tenant();
        let credential = self.find::<Credential>(tenant, reference).await?;
        let refreshed = self.refreshed(tenant, credential.id, credential.material_version).await;
        refreshed.map_err(|error| error.to_error(&credential))?;
        self.find(tenant, &Ref::Id(credential.id.0)).await.map(|credential| self.settled(credential))
    }

    /// Replaces a token that an API rejected, unless a newer one is stored.
    pub async fn token_rejected(
        &self,
        caller: &Caller<CredentialsIssue>,
        reference: &Ref,
        version: i64,
    ) -> Result<Arc<IssuedToken>> {
        let tenant = caller.tenant();
        let credential = self.find::<Credential>(tenant, reference).await?;
        if version > credential.material_version {
            let message = format!("the newest token has the version {}", credential.material_version);
            let reason = Precondition::CredentialNotValid;
            return Err(Error::precondition(reason, Resource::Credential, credential.id, message));
        }
        if version < credential.material_version {
            return self.access_token_issue(caller, &CredentialRef::Ref(Ref::Id(credential.id.0)), 0, &[]).await;
        }
        self.refreshed(tenant, credential.id, version).await.map_err(|error| error.to_error(&credential))
    }
}
