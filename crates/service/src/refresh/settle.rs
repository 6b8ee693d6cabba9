//! Attempts whose process has ended: they get an end soon, whether or not a caller asks for their credential. Until then nothing says that a
//! refresh token may be spent, and the time for which a provider accepts it again passes.

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{
    Credential, CredentialState, Material, RefreshAttempt, RefreshOutcome, refresh_backoff,
};
use jackfield_domain::{Error, Result, TenantId};
use jackfield_store::{LeftAttempt, Writer};
use jackfield_vault::DataKey;
use uuid::Uuid;

use super::commit::{Ended, may_pass};
use super::failure::Failure;
use super::plan::grace_of;
use super::resend::{Earlier, PROCESS_ENDED, Resend, digest_of};
use super::{ALL_ATTEMPTS, CredentialIdentity};
use crate::change::{Change, Length};
use crate::credential::lock_credential;
use crate::services::Services;

/// The step that follows an attempt whose process has ended.
enum Settled {
    /// It has an end, or there is nothing to settle.
    Done(Option<RefreshOutcome>),
    /// The provider accepts its refresh token again, for a while: it is sent again, with the material of this version.
    Repeated(CredentialIdentity, i64),
}

/// The attempts that are read at a time.
const STEP: u64 = 100;

// === impl Services ===

impl Services {
    /// Ends attempts whose lease is over.
    pub(crate) async fn refreshes_settle(&self) -> Result<()> {
        let (mut after, mut failed) = (Uuid::nil(), None);
        loop {
            let left = self.shared.store.read().refresh_attempts_left(after, STEP).await?;
            for attempt in &left {
                // One that cannot be settled does not keep the others from it.
                if let Err(error) = self.refresh_settle(*attempt).await {
                    failed = Some(error);
                }
                if self.shared.stop.is_cancelled() {
                    return Ok(());
                }
            }
            match left.last() {
                Some(last) if left.len() as u64 == STEP => after = last.id,
                _ => return failed.map_or(Ok(()), Err),
            }
        }
    }

    /// Ends an attempt, or has its refresh token sent again, by the same rules by which a refresh that finds it goes on.
    async fn refresh_settle(&self, left: LeftAttempt) -> Result<()> {
        let LeftAttempt { tenant, credential, id } = left;
        // Its task is still there, or another one finds it.
        if self.shared.refreshes.flights.has_id(tenant, credential) {
            return Ok(());
        }
        match self.refresh_recover(id, None).await {
            Ok(true) => return Ok(()),
            Err(error) if may_pass(&error) => return Err(error),
            // What cannot be read says nothing, as if it was not there.
            Ok(false) | Err(_) => {}
        }
        let system = self.shared.data_keys.system().await?;
        let mut settled = Settled::Done(None);
        let written = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            settled = self.refresh_settle_in(txn, &system, left).await?;
            Ok(())
        });
        match written.await {
            // It is gone with its tenant.
            Err(Error::TenantUnknown { .. }) => return Ok(()),
            written => written?,
        }
        match settled {
            Settled::Done(None) => {}
            Settled::Done(Some(outcome)) => {
                tracing::warn!(credential.id = %credential, "the server that refreshed a credential has ended without an outcome");
                self.shared.gauge_sources.refresh_ended(outcome);
            }
            // Not awaited: it waits for the provider. It ends the attempt when it begins its own.
            Settled::Repeated(identity, version) => drop(self.flight((tenant, identity), version)),
        }
        Ok(())
    }

    async fn refresh_settle_in(&self, txn: &Writer, system: &DataKey, left: LeftAttempt) -> Result<Settled> {
        let LeftAttempt { tenant, credential: id, id: attempt } = left;
        // Before its lease, as everywhere.
        let Some(credential) = lock_credential(txn, tenant, id).await? else { return Ok(Settled::Done(None)) };
        let (holder, length) = (self.shared.refreshes.holder, self.shared.refreshes.lease());
        let Some(lease) = txn.refresh_lease_take(tenant, id, holder, length).await? else {
            return Ok(Settled::Done(None));
        };
        let settled = self.refresh_settle_held(txn, system, tenant, (credential, attempt)).await?;
        txn.refresh_lease_release(&lease).await?;
        Ok(settled)
    }

    /// Settles an attempt whose credential is locked, and whose lease is held.
    async fn refresh_settle_held(
        &self,
        txn: &Writer,
        system: &DataKey,
        tenant: TenantId,
        (credential, attempt): (Credential, Uuid),
    ) -> Result<Settled> {
        let made = txn.refresh_attempts(tenant, credential.id, ALL_ATTEMPTS).await?;
        let is_open = |made: &&RefreshAttempt| made.id == attempt && made.end.is_none();
        let Some(open) = made.iter().find(is_open) else { return Ok(Settled::Done(None)) };
        let digest = match self.shared.secrets.material(Some(txn), tenant, credential.id).await {
            Ok(Some((Material::OAuth2(tokens), _))) => digest_of(system, tenant, &credential, &tokens),
            Ok(_) | Err(Error::DecryptFailed { .. }) => None,
            Err(error) => return Err(error),
        };
        let time = txn.time().await?;
        let connection = match credential.connection {
            Some(connection) => txn.fetch::<Connection>(tenant, connection).await?,
            None => None,
        };
        let grace = connection.as_ref().and_then(grace_of);
        let earlier = Earlier::of(&made, open.token_digest, &credential, grace);
        if digest != Some(open.token_digest) || earlier.is_outlived(attempt) {
            // It says nothing of the material that is stored by now.
            let end = Failure::unknown(PROCESS_ENDED).end(time);
            let is_written = txn.refresh_attempt_end(tenant, attempt, &end).await?;
            return Ok(Settled::Done(is_written.then_some(RefreshOutcome::Unknown)));
        }
        let failure = match earlier.resend(time) {
            Resend::Within(_) => {
                let identity = CredentialIdentity::of(&credential);
                return Ok(Settled::Repeated(identity, credential.material_version));
            }
            Resend::Lost { .. } => Failure::unknown(PROCESS_ENDED),
            // The refresh token stays, so nothing is lost.
            Resend::Free => {
                let failures = credential.refresh_failure_count.saturating_add(1);
                Failure::lost(PROCESS_ENDED, false, refresh_backoff(credential.id, failures))
            }
        };
        let (version, create_time) = (credential.material_version, credential.meta.create_time);
        let ended = Ended { attempt, version, create_time };
        self.refresh_fail_in(txn, tenant, credential.id, &ended, &failure).await?;
        Ok(Settled::Done(Some(failure.outcome)))
    }

    /// Takes back that a refresh token may be spent, if no attempt with it is in doubt any more: a process that seemed to have ended was only
    /// slow, and reports of its attempt, which has its end already, that the provider did not process it. Returns whether it was taken back.
    pub(super) async fn refresh_take_back(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &mut Credential,
        reported: Uuid,
    ) -> Result<bool> {
        if credential.state != CredentialState::Indeterminate {
            return Ok(false);
        }
        let made = txn.refresh_attempts(tenant, credential.id, ALL_ATTEMPTS).await?;
        let Some(attempt) = made.iter().find(|made| made.id == reported) else { return Ok(false) };
        if Earlier::of(&made, attempt.token_digest, credential, None).may_be_spent() {
            return Ok(false);
        }
        credential.state = if credential.has_token() { CredentialState::Valid } else { CredentialState::Expired };
        // The attempt counts once.
        credential.refresh_failure_count = credential.refresh_failure_count.saturating_sub(1);
        Ok(true)
    }
}
