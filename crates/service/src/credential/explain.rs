//! ExplainCredential: why there is no token, and what has to be done. No material is opened for it.

use jackfield_domain::credential::{Credential, CredentialRef, Explanation, ParentStates, RefreshAttempt};
use jackfield_domain::principal::right::CredentialsRead;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result};
use jackfield_store::IssuableCredential;

use crate::caller::Caller;
use crate::refresh::KEPT_ATTEMPTS;
use crate::services::Services;

/// A credential with an explanation of its state.
pub struct ExplainedCredential {
    pub credential: Credential,
    pub explanation: Explanation,
    /// The last attempts to refresh it, the newest first.
    pub attempts: Vec<RefreshAttempt>,
}

// === impl Services ===

impl Services {
    /// Explains whether a credential has a token to issue.
    pub async fn credential_explain(
        &self,
        caller: &Caller<CredentialsRead>,
        reference: &Ref,
    ) -> Result<ExplainedCredential> {
        let (tenant, read) = (caller.tenant(), self.shared.store.read());
        let found = read.credential_fetch_issuable(tenant, &CredentialRef::Ref(reference.clone())).await?;
        let found = found.ok_or_else(|| Error::not_found(Resource::Credential, reference))?;
        let IssuableCredential { credential, connector_enabled, connection_active, material: _ } = found;
        let attempts = read.refresh_attempts(tenant, credential.id, KEPT_ATTEMPTS).await?;
        let parents = ParentStates {
            connector_enabled: connector_enabled == Some(true),
            connection_active: credential.connection.map(|_| connection_active == Some(true)),
            silent_until: credential.connection.and_then(|connection| self.refresh_held_back(tenant, connection)),
        };
        let explanation = credential.explain(parents, self.now());
        Ok(ExplainedCredential { credential: self.settled(credential), explanation, attempts })
    }
}
