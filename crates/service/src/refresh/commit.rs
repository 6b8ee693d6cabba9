//! The ends of attempts: new tokens become the material of their credential, failures are noted.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::credential::{
    Credential, CredentialState, FailureClass, IssuedToken, Material, OAuth2Material, REFRESH_TOKEN_INVALID,
    RefreshAttempt, RefreshEnd, RefreshOutcome, refresh_backoff, refresh_time, tokens_refused,
};
use jackfield_domain::{CredentialId, Error, Result, Secret, TenantId, Timestamp};
use jackfield_store::{RefreshLease, Writer};
use uuid::Uuid;

use super::attempt::Sending;
use super::failure::Failure;
use super::journal::Entry;
use super::received::Received;
use super::resend::token_digest;
use super::{ALL_ATTEMPTS, CredentialIdentity, RefreshError};
use crate::change::{Change, Length};
use crate::credential::{MaterialFacts, Revocable, lock_credential};
use crate::planted::{PlantedBug, Step, planted, reached};
use crate::services::Services;

/// An attempt that failed.
pub(super) struct Ended {
    pub(super) attempt: Uuid,
    /// The version of the material that was sent.
    pub(super) version: i64,
    /// The time at which the credential was created.
    pub(super) create_time: Timestamp,
}

/// The times that the end of an attempt is tried to be written. If it is not, the refresh token counts as spent.
const TRIES: u32 = 5;
/// The times that is tried to be written what could not be known otherwise: tokens that are not in the journal either, and that a refresh
/// token is not spent.
pub(super) const MOST_TRIES: u32 = 60;
/// The wait before it is tried again.
pub(super) const TRY_AGAIN: Duration = Duration::from_millis(500);

// === impl Services ===

impl Services {
    /// Stores received tokens: in the journal, which keeps them whatever becomes of the database, and then in the database.
    pub(super) async fn refresh_received(
        &self,
        before: &Credential,
        sending: &Sending,
        received: Received,
    ) -> Result<Arc<IssuedToken>, RefreshError> {
        let mut tries = 0;
        reached(before.id, Step::Received).await;
        let stored = loop {
            let is_journaled = self.refresh_journal(&received).await;
            if is_journaled {
                reached(before.id, Step::Journaled).await;
            }
            let error = match self.refresh_commit(&received, Some(&sending.lease)).await {
                Ok(stored) => break stored,
                Err(error) => error,
            };
            tries += 1;
            tracing::warn!(error = &error as &dyn std::error::Error, credential.id = %before.id, "refreshed tokens are not in the database yet");
            // They are in the journal.
            if is_journaled && may_pass(&error) {
                self.refresh_recover_soon(received.attempt, sending.lease);
                if let Some(flaw) = received.withheld() {
                    return Err(RefreshError::Failed(Failure::flawed(flaw, TRY_AGAIN)));
                }
                let (credential, tokens) = received.unstored(before);
                return Ok(self.token_issued(credential, tokens)?);
            }
            if !may_pass(&error) || tries >= MOST_TRIES {
                return Err(error.into());
            }
            tokio::time::sleep(TRY_AGAIN).await;
        };
        reached(before.id, Step::Stored).await;
        self.shared.refreshes.journal.remove(received.attempt).await;
        reached(before.id, Step::Ended).await;
        let Some((credential, tokens)) = stored else {
            let tenant = received.tenant;
            self.revoke_received(received);
            // Which says whether it was deleted or revoked.
            return Ok(self.token_stored(tenant, before).await?);
        };
        if let Some(flaw) = received.withheld() {
            let retry_after = refresh_backoff(before.id, before.refresh_failure_count.saturating_add(1));
            return Err(RefreshError::Failed(Failure::flawed(flaw, retry_after)));
        }
        Ok(self.token_issued(credential, Material::OAuth2(tokens))?)
    }

    /// Writes received tokens to the journal. Returns whether they are there.
    async fn refresh_journal(&self, received: &Received) -> bool {
        if planted(PlantedBug::NotJournaled) {
            return true;
        }
        let journal = &self.shared.refreshes.journal;
        let written = match self.shared.data_keys.system().await {
            Ok(system) => match Entry::of(received) {
                Ok(entry) => journal.append(&system, received.attempt, &entry).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = &written {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, credential.id = %received.credential, "the journal of refreshes cannot be written");
        }
        written.is_ok()
    }

    /// Revokes tokens whose credential was deleted or revoked meanwhile: they are of no use, and good at the provider.
    pub(super) fn revoke_received(&self, received: Received) {
        let Received { tenant, credential, connection, tokens, .. } = received;
        self.revoke_later(Revocable::of(tenant, Some(credential), Some(connection), tokens, None));
    }

    /// Makes received tokens the material of their credential, if it is still the material that was sent, or if the attempt was made after
    /// the one that replaced it. Otherwise they are its alternate. Returns what is then stored; `None` if the credential does not exist.
    /// It can be called again with the same tokens.
    pub(super) async fn refresh_commit(
        &self,
        received: &Received,
        lease: Option<&RefreshLease>,
    ) -> Result<Option<(Credential, OAuth2Material)>> {
        let (tenant, id) = (received.tenant, received.credential);
        let (mut stored, mut ended) = (None, None);
        let system = self.shared.data_keys.system().await?;
        let written = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            // A server that takes a lease locks the credential first.
            let Some(credential) = lock_credential(txn, tenant, id).await? else { return Ok(()) };
            let is_held = match lease {
                Some(lease) => txn.refresh_lease_release(lease).await?,
                None => false,
            };
            let present = self.shared.secrets.material(Some(txn), tenant, id).await?;
            let Some((Material::OAuth2(mut present), _)) = present else { return Ok(()) };
            if credential.meta.create_time != received.create_time {
                return Ok(());
            }
            let attempts = txn.refresh_attempts(tenant, id, ALL_ATTEMPTS).await?;
            if is_stored(&attempts, received.attempt) {
                stored = Some((credential, present));
                return Ok(());
            }
            if planted(PlantedBug::FenceCompared) && !is_held {
                self.refresh_end(txn, received, RefreshOutcome::Superseded).await?;
                stored = Some((credential, present));
                return Ok(());
            }
            let newest = is_newest(credential.material_version, &attempts, (received.version, received.sent_time));
            // A caller may have changed other tokens meanwhile: then the refresh token that was sent is still stored, and spent.
            let sent = attempts.iter().find(|made| made.id == received.attempt).map(|made| made.token_digest);
            let present_digest = present.refresh_token.as_ref().map(|token| token_digest(&system, tenant, token));
            let keeps_sent = received.rotated && sent.is_some() && sent == present_digest;
            ended = Some(if newest || keeps_sent { RefreshOutcome::Refreshed } else { RefreshOutcome::Superseded });
            stored = Some(if newest {
                self.refresh_store(txn, credential, present, received).await?
            } else if keeps_sent {
                let refresh_token = received.tokens.refresh_token.as_ref().map(Secret::duplicate);
                present.set_refresh_token(refresh_token, received.tokens.authorization_expire_time);
                self.refresh_replace_token(txn, credential, present, received).await?
            } else {
                self.refresh_end(txn, received, RefreshOutcome::Superseded).await?;
                // Material that a caller has stored may be of another grant.
                let is_of_same = is_of_refresh(credential.material_version, &attempts, received.version);
                if is_of_same && received.tokens.refresh_token.is_some() {
                    self.shared.secrets.put_alternate(txn, tenant, &credential, &received.tokens).await?;
                }
                (credential, present)
            });
            Ok(())
        });
        written.await?;
        if let Some(outcome) = ended {
            self.shared.gauge_sources.refresh_ended(outcome);
        }
        Ok(stored)
    }

    /// Stores received tokens as the next version of the material.
    async fn refresh_store(
        &self,
        txn: &Writer,
        mut credential: Credential,
        present: OAuth2Material,
        received: &Received,
    ) -> Result<(Credential, OAuth2Material)> {
        let (tenant, now) = (received.tenant, self.now());
        if credential.material_version == received.version {
            self.shared.secrets.alternate_delete(txn, tenant, credential.id).await?;
        } else {
            self.shared.secrets.put_alternate(txn, tenant, &credential, &present).await?;
        }
        let failures = credential.refresh_failure_count;
        let material = Material::OAuth2(received.tokens.duplicate());
        MaterialFacts::of(&material).apply(&mut credential);
        credential.material_version += 1;
        credential.note_rotation(received.rotated, received.got_time);
        match &received.flaw {
            None => {
                credential.last_refresh_time = Some(now);
                credential.next_refresh_time =
                    Some(refresh_time(credential.id, received.got_time, credential.expire_time));
            }
            Some(flaw) => {
                credential.refresh_failure_count = failures;
                if received.withheld().is_none() {
                    credential.last_refresh_time = Some(now);
                }
                // There may be no access token yet.
                credential.schedule(now);
                let retry_after = refresh_backoff(credential.id, failures.saturating_add(1));
                note(&mut credential, &Failure::flawed(flaw, retry_after), now);
            }
        }
        credential.meta = credential.meta.changed(now);
        txn.replace(tenant, &credential).await?;
        self.shared.secrets.put_material(txn, tenant, &credential, &material).await?;
        self.refresh_end(txn, received, RefreshOutcome::Refreshed).await?;
        match material {
            Material::OAuth2(tokens) => Ok((credential, tokens)),
            _ => Err(Error::internal("tokens of another kind")),
        }
    }

    /// Makes the refresh token of the alternate part of the material, in the place of one that was refused, so that it is there whatever
    /// becomes of the attempt with it. Returns the material and its version; `None` if there is no alternate.
    pub(super) async fn refresh_take_alternate(
        &self,
        txn: &Writer,
        tenant: TenantId,
        mut credential: Credential,
        refused: &OAuth2Material,
    ) -> Result<Option<(OAuth2Material, i64)>> {
        let alternate = self.shared.secrets.alternate_take(txn, tenant, credential.id).await?;
        let Some(alternate) = alternate.filter(|tokens| tokens.refresh_token.is_some()) else { return Ok(None) };
        let mut tokens = refused.duplicate();
        tokens.set_refresh_token(alternate.refresh_token, alternate.authorization_expire_time);
        credential.authorization_expire_time = tokens.authorization_expire_time;
        credential.material_version += 1;
        credential.meta = credential.meta.changed(self.now());
        txn.replace(tenant, &credential).await?;
        let material = Material::OAuth2(tokens.duplicate());
        self.shared.secrets.put_material(txn, tenant, &credential, &material).await?;
        Ok(Some((tokens, credential.material_version)))
    }

    /// Puts a received refresh token in the place of the one that was sent. The rest is as a caller has stored it.
    async fn refresh_replace_token(
        &self,
        txn: &Writer,
        mut credential: Credential,
        tokens: OAuth2Material,
        received: &Received,
    ) -> Result<(Credential, OAuth2Material)> {
        let now = self.now();
        credential.authorization_expire_time = tokens.authorization_expire_time;
        credential.note_refresh_token(tokens.refresh_token.is_some());
        credential.material_version += 1;
        credential.forget_kept();
        match received.flaw.as_deref() {
            // The user has to authorise again, whatever it is good for.
            Some(flaw) if tokens_refused(flaw).is_some() || flaw == REFRESH_TOKEN_INVALID => {
                note(&mut credential, &Failure::flawed(flaw, Duration::ZERO), now);
            }
            _ => credential.last_refresh_time = Some(now),
        }
        credential.meta = credential.meta.changed(now);
        txn.replace(received.tenant, &credential).await?;
        let material = Material::OAuth2(tokens.duplicate());
        self.shared.secrets.put_material(txn, received.tenant, &credential, &material).await?;
        self.refresh_end(txn, received, RefreshOutcome::Refreshed).await?;
        Ok((credential, tokens))
    }

    async fn refresh_end(&self, txn: &Writer, received: &Received, outcome: RefreshOutcome) -> Result<()> {
        let reason = received.flaw.clone().unwrap_or_default();
        let end = RefreshEnd { time: txn.time().await?, outcome, reason, status: received.status };
        txn.refresh_attempt_end(received.tenant, received.attempt, &end).await.map(|_| ())
    }

    /// Has the schedule try a credential again later that cannot be refreshed as things are, and notes why.
    pub(super) async fn refresh_postpone(
        &self,
        tenant: TenantId,
        identity: CredentialIdentity,
        version: i64,
        reason: &str,
    ) -> Result<()> {
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let Some(mut credential) = lock_credential(txn, tenant, identity.id).await? else { return Ok(()) };
            let now = self.now();
            let is_due = credential.next_refresh_time.is_some_and(|time| time <= now);
            if !is_due || !identity.is_of(&credential) || credential.material_version != version {
                return Ok(());
            }
            note(&mut credential, &Failure::postponed(reason), now);
            credential.meta = credential.meta.changed(now);
            txn.replace(tenant, &credential).await
        })
        .await
    }

    /// Notes that an attempt failed, and gives its lease back. Returns whether that says something about the material that is stored.
    pub(super) async fn refresh_fail(
        &self,
        tenant: TenantId,
        id: CredentialId,
        sending: &Sending,
        failure: &Failure,
    ) -> Result<bool> {
        self.shared.gauge_sources.refresh_ended(failure.outcome);
        let ended = Ended { attempt: sending.id, version: sending.version, create_time: sending.create_time };
        // Without its end, an attempt counts as lost: only one that is lost can be left so.
        let most = if failure.outcome == RefreshOutcome::Unknown { TRIES } else { MOST_TRIES };
        let mut tries = 0;
        loop {
            let written = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
                let is_noted = self.refresh_fail_in(txn, tenant, id, &ended, failure).await?;
                txn.refresh_lease_release(&sending.lease).await?;
                Ok(is_noted)
            });
            tries += 1;
            match written.await {
                Err(error) if may_pass(&error) && tries < most && !self.shared.stop.is_cancelled() => {
                    let error = &error.to_string();
                    tracing::warn!(error, credential.id = %id, "the end of a refresh could not be written, and is tried again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                written => return written,
            }
        }
    }

    /// Notes that an attempt of an earlier lease failed. Returns whether that says something about the material that is stored.
    pub(super) async fn refresh_note(
        &self,
        tenant: TenantId,
        id: CredentialId,
        ended: &Ended,
        failure: &Failure,
    ) -> Result<bool> {
        self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            self.refresh_fail_in(txn, tenant, id, ended, failure).await
        })
        .await
    }

    /// Notes that an attempt failed. A credential stays as it is whose material is another one by now, and so it does if an attempt that counts
    /// as lost has another outcome by now. Returns whether the failure says something about the material that is stored.
    pub(super) async fn refresh_fail_in(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: CredentialId,
        ended: &Ended,
        failure: &Failure,
    ) -> Result<bool> {
        let Ended { attempt, version, create_time } = *ended;
        let Some(mut credential) = lock_credential(txn, tenant, id).await? else { return Ok(false) };
        if credential.meta.create_time != create_time {
            return Ok(false);
        }
        let (time, now) = (txn.time().await?, self.now());
        let end = failure.end(time);
        txn.refresh_attempt_end(tenant, attempt, &end).await?;
        if credential.material_version != version && !is_believed(failure) {
            return Ok(false);
        }
        // The server that made it has only been slow, and has reported its outcome since it was taken for lost.
        if failure.outcome == RefreshOutcome::Unknown {
            let made = txn.refresh_attempts(tenant, id, ALL_ATTEMPTS).await?;
            let is_known = |end: &RefreshEnd| end.outcome != RefreshOutcome::Unknown;
            if made.iter().any(|made| made.id == attempt && made.end.as_ref().is_some_and(is_known)) {
                return Ok(false);
            }
        }
        let is_over = credential.failure_class.is_some_and(FailureClass::is_final);
        if !failure.class.is_final() && !self.refresh_take_back(txn, tenant, &mut credential, attempt).await? && is_over
        {
            // It is reported late, and says nothing about the attempt that was final.
            return Ok(true);
        }
        note(&mut credential, failure, now);
        credential.meta = credential.meta.changed(now);
        txn.replace(tenant, &credential).await?;
        Ok(true)
    }
}

/// Returns whether a change may be made by another try.
pub(super) fn may_pass(error: &Error) -> bool {
    error.retryable() || matches!(error, Error::OutcomeUnknown { .. })
}

/// Returns whether a failure counts, whatever is stored by then: as in planted bugs alone.
fn is_believed(failure: &Failure) -> bool {
    match failure.outcome {
        RefreshOutcome::Refused => planted(PlantedBug::FirstRefusalBelieved),
        RefreshOutcome::Unknown => planted(PlantedBug::LossWithoutVersion),
        _ => false,
    }
}

/// Returns whether the tokens of an attempt are stored already.
fn is_stored(attempts: &[RefreshAttempt], attempt: Uuid) -> bool {
    let end = attempts.iter().find(|made| made.id == attempt).and_then(|made| made.end.as_ref());
    end.is_some_and(|end| matches!(end.outcome, RefreshOutcome::Refreshed | RefreshOutcome::Superseded))
}

/// Returns whether the stored material is that of another refresh of the same material.
fn is_of_refresh(stored: i64, attempts: &[RefreshAttempt], version: i64) -> bool {
    let is_success = |end: &RefreshEnd| end.outcome == RefreshOutcome::Refreshed;
    let made_present =
        |made: &RefreshAttempt| made.material_version == version && made.end.as_ref().is_some_and(is_success);
    stored == version + 1 && attempts.iter().any(made_present)
}

/// Returns whether received tokens are newer than the material of a credential. Of two attempts with the same material the one that was made
/// last has the tokens that the provider accepts. Material that a caller has stored is newer than any.
fn is_newest(stored: i64, attempts: &[RefreshAttempt], (version, sent_time): (i64, Timestamp)) -> bool {
    if stored == version {
        return true;
    }
    let made_present = |made: &&RefreshAttempt| {
        let is_success = |end: &RefreshEnd| end.outcome == RefreshOutcome::Refreshed;
        made.material_version == version && made.end.as_ref().is_some_and(is_success)
    };
    stored == version + 1 && attempts.iter().find(made_present).is_some_and(|made| made.sent_time < sent_time)
}

/// Notes a failure in the facts of a credential. Its token stays as it is.
fn note(credential: &mut Credential, failure: &Failure, now: Timestamp) {
    credential.refresh_failure_count = credential.refresh_failure_count.saturating_add(1);
    credential.failure_class = Some(failure.class);
    credential.failure_reason = failure.reason.clone();
    credential.failure_connection_version = failure.connection_version;
    let (state, is_final) = match failure.class {
        FailureClass::Permanent => (CredentialState::NeedsReauth, true),
        FailureClass::Indeterminate => (CredentialState::Indeterminate, true),
        FailureClass::Connection | FailureClass::Transient => (credential.state, false),
    };
    credential.state = state;
    let wait = i64::try_from(failure.retry_after.as_micros()).unwrap_or(i64::MAX);
    credential.next_refresh_time = (!is_final).then(|| now.plus_micros(wait));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt with material of version 3 that was made at a time, and its outcome.
    fn attempt(sent_time: i64, outcome: RefreshOutcome) -> RefreshAttempt {
        RefreshAttempt {
            id: Uuid::from_u128(sent_time.unsigned_abs().into()),
            credential: CredentialId(Uuid::nil()),
            material_version: 3,
            token_digest: [0; 32],
            sent_time: Timestamp(sent_time),
            end: Some(RefreshEnd { time: Timestamp(sent_time + 1), outcome, reason: String::new(), status: None }),
        }
    }

    #[test]
    fn tokens_replace_the_material_that_was_sent() {
        assert!(is_newest(3, &[], (3, Timestamp(5))));
    }

    #[test]
    fn of_two_attempts_with_the_same_material_the_later_one_counts() {
        let attempts = [attempt(5, RefreshOutcome::Refreshed), attempt(4, RefreshOutcome::Unknown)];
        assert!(is_newest(4, &attempts, (3, Timestamp(6))));
        assert!(!is_newest(4, &attempts, (3, Timestamp(4))));
    }

    #[test]
    fn material_that_a_caller_stored_is_newer_than_any_attempt() {
        assert!(!is_newest(4, &[], (3, Timestamp(6))));
        assert!(!is_newest(4, &[attempt(5, RefreshOutcome::Unknown)], (3, Timestamp(6))));
        assert!(!is_newest(5, &[attempt(5, RefreshOutcome::Refreshed)], (3, Timestamp(6))));
        assert!(!is_newest(2, &[attempt(5, RefreshOutcome::Refreshed)], (3, Timestamp(6))));
    }

    #[test]
    fn tokens_are_stored_once() {
        let attempts = [attempt(5, RefreshOutcome::Refreshed), attempt(4, RefreshOutcome::Unknown)];
        assert!(is_stored(&attempts, attempts[0].id) && !is_stored(&attempts, attempts[1].id));
        assert!(!is_stored(&attempts, Uuid::nil()));
    }
}
