//! The use case that refreshes a credential because a caller says so.

use jackfield_domain::credential::Credential;
use jackfield_domain::principal::right::CredentialsIssue;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result};
use tokio::time::Instant;

use super::deadline::answer_by;
use crate::caller::Caller;
use crate::refresh::{CredentialIdentity, ExpectedRefresh, Patience};
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Replaces the access token of a credential.
    pub async fn credential_refresh(
        &self,
        caller: &Caller<CredentialsIssue>,
        reference: &Ref,
        deadline: Option<Instant>,
    ) -> Result<Credential> {
        let tenant = caller.tenant();
        let credential = self.find::<Credential>(tenant, reference).await?;
        let patience = Patience::until(answer_by(deadline));
        let identity = CredentialIdentity::of(&credential);
        let refreshed = self.refreshed(tenant, identity, credential.material_version, patience).await;
        refreshed.map_err(|error| error.to_error(&ExpectedRefresh::of(&credential)))?;
        let found = self.find::<Credential>(tenant, &Ref::Id(credential.id.0)).await?;
        match identity.is_of(&found) {
            true => Ok(self.settled(found)),
            false => Err(Error::not_found(Resource::Credential, credential.id)),
        }
    }
}
