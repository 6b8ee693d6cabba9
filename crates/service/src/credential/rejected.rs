//! ReportTokenRejected: an API rejected a token. It is replaced if that may help, and not over and over again if it does not.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::credential::{ApiAnswer, Credential, CredentialRef, IssuedToken, Remedy, TokenRejection};
use jackfield_domain::error::{Precondition, RefreshDelay};
use jackfield_domain::principal::right::CredentialsIssue;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Resource, Result, TenantId};
use tokio::time::Instant;

use super::deadline::answer_by;
use super::lock_credential;
use crate::caller::Caller;
use crate::change::{Change, Length};
use crate::refresh::{CredentialIdentity, ExpectedRefresh, Patience, runs_out};
use crate::services::Services;

// === impl Services ===

impl Services {
    /// Replaces a token that an API rejected, unless a newer one is stored, or another one would not help.
    pub async fn token_rejected(
        &self,
        caller: &Caller<CredentialsIssue>,
        reference: &Ref,
        version: i64,
        answer: &ApiAnswer,
        deadline: Option<Instant>,
    ) -> Result<Arc<IssuedToken>> {
        let tenant = caller.tenant();
        let credential = self.find::<Credential>(tenant, reference).await?;
        let (id, identity) = (credential.id, CredentialIdentity::of(&credential));
        if version > credential.material_version {
            let message = format!("the newest token has the version {}", credential.material_version);
            return Err(Error::precondition(Precondition::CredentialNotValid, Resource::Credential, id, message));
        }
        if version < credential.material_version {
            return self.access_token_issue(caller, &CredentialRef::Ref(Ref::Id(id.0)), 0, &[], deadline).await;
        }
        let refusal = match answer.remedy() {
            // Those who report what is being replaced wait for it.
            Remedy::Replacement if self.is_refreshing(tenant, identity) => None,
            Remedy::Replacement => credential.replacement_wait(self.now()).map(|wait| too_soon(&credential, wait)),
            Remedy::Scopes => Some(lacks_scopes(&credential, answer)),
            Remedy::LogIn => Some(needs_log_in(&credential, answer)),
        };
        let rejection = TokenRejection::of(answer, version, refusal.is_none(), self.now());
        self.rejection_keep(tenant, &credential, rejection).await;
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let refreshed = self.refreshed(tenant, identity, version, Patience::until(answer_by(deadline))).await;
        let issued = refreshed.map_err(|error| error.to_error(&ExpectedRefresh::of(&credential)))?;
        match runs_out(issued.expire_time, self.now()) {
            // A caller has stored it meanwhile. What this replica keeps may be the token that was reported.
            true => {
                Box::pin(self.access_token_open(tenant, &CredentialRef::Ref(Ref::Id(id.0)), 0, &[], deadline)).await
            }
            false => Ok(issued),
        }
    }

    /// Keeps a rejection with its credential. A report need not fail with it.
    async fn rejection_keep(&self, tenant: TenantId, credential: &Credential, rejection: TokenRejection) {
        if credential.knows_rejection(&rejection) {
            return;
        }
        let (id, identity) = (credential.id, CredentialIdentity::of(credential));
        let kept = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let found = lock_credential(txn, tenant, id).await?;
            let found = found.filter(|found| identity.is_of(found) && !found.knows_rejection(&rejection));
            let Some(mut credential) = found else { return Ok(()) };
            credential.keep_rejection(rejection);
            credential.meta = credential.meta.changed(self.now());
            txn.replace(tenant, &credential).await
        });
        if let Err(error) = kept.await {
            let error = &error.to_string();
            tracing::warn!(error, credential.id = %id, "the rejection of a token could not be kept");
        }
    }
}

/// The refusal to replace a token again.
fn too_soon(credential: &Credential, retry_after: Duration) -> Error {
    let age = "it was replaced a short time ago, or replacing it has not helped";
    let message =
        format!("the token is not replaced yet: {age}. The API may reject it for another reason than its age");
    let (cause, resource, id) = (RefreshDelay::TooSoon, Resource::Credential, credential.id.to_string());
    Error::RefreshDelayed { cause, resource, id, retry_after, message }
}

/// The refusal to replace a token whose rights do not suffice.
fn lacks_scopes(credential: &Credential, answer: &ApiAnswer) -> Error {
    let missing: Vec<_> = answer.scopes.iter().filter(|scope| !credential.scopes.contains(scope)).collect();
    let message = match missing.as_slice() {
        [] => format!("the rights of the token do not suffice for the API ({answer}): a refresh adds none"),
        missing => {
            let missing = missing.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
            format!("the credential lacks scopes that the API demands: {missing}")
        }
    };
    Error::precondition(Precondition::ScopeMissing, Resource::Credential, credential.id, message)
}

/// The refusal to replace a token of a log-in that does not suffice (RFC 9470).
fn needs_log_in(credential: &Credential, answer: &ApiAnswer) -> Error {
    let demands = answer.log_in.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
    let demands = if demands.is_empty() { "another log-in".to_owned() } else { demands };
    let message = format!("the API demands another log-in of the user ({answer}): authorise again with {demands}");
    Error::precondition(Precondition::ReauthRequired, Resource::Credential, credential.id, message)
}
