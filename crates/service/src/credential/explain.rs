//! ExplainCredential: why there is no token, what happens next, and what has to be done. No material is opened for it.

use jackfield_domain::credential::{
    Credential, CredentialRef, Explanation, ParentStates, RefreshAttempt, RefreshOutlook,
};
use jackfield_domain::principal::right::CredentialsRead;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result, Timestamp};
use jackfield_store::IssuableCredential;

use crate::caller::Caller;
use crate::refresh::{ALL_ATTEMPTS, KEPT_ATTEMPTS};
use crate::services::Services;

/// A credential with an explanation of its state.
pub struct ExplainedCredential {
    pub credential: Credential,
    pub explanation: Explanation,
    /// The time at which the server makes the next attempt to refresh it by itself; `None` if it makes none.
    pub next_attempt: Option<Timestamp>,
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
        let mut attempts = read.refresh_attempts(tenant, credential.id, ALL_ATTEMPTS).await?;
        let parents = ParentStates {
            connector_enabled: connector_enabled == Some(true),
            connection_active: credential.connection.map(|_| connection_active == Some(true)),
        };
        let outlook = match parents {
            ParentStates { connector_enabled: true, connection_active: None | Some(true) } => {
                self.refresh_outlook(tenant, &credential, &attempts).await?
            }
            // Nothing is refreshed.
            ParentStates { .. } => RefreshOutlook::default(),
        };
        attempts.truncate(KEPT_ATTEMPTS as usize);
        let explanation = credential.explain(parents, &outlook, self.now());
        let next_attempt = outlook.next;
        Ok(ExplainedCredential { credential: self.settled(credential), explanation, next_attempt, attempts })
    }
}
