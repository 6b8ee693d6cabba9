//! Attempts: the lease, the record of the attempt, and the one request.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::credential::{
    Credential, CredentialRef, FailureClass, IssuedToken, Material, OAuth2Material, RefreshAttempt, RefreshOutcome,
    refresh_backoff, tokens_refused,
};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{CredentialId, Error, Resource, Result, TenantId, Timestamp};
use jackfield_store::{RefreshLease, Writer};
use jackfield_upstream::oauth::TokenFault;
use jackfield_vault::DataKey;
use tokio::time::Instant;
use uuid::Uuid;

use super::commit::{Ended, may_pass};
use super::endpoint::Admission;
use super::failure::Failure;
use super::hold::Hold;
use super::plan::Plan;
use super::received::Received;
use super::resend::{Earlier, PROCESS_ENDED, Resend, digest_of};
use super::{ALL_ATTEMPTS, CredentialIdentity, KEPT_ATTEMPTS, LEASE_POLL, RefreshError};
use crate::change::{Change, Length};
use crate::credential::lock_credential;
use crate::planted::{PlantedBug, Step, by_local_clock, planted, reached};
use crate::services::Services;

/// The beginning of an attempt.
enum Begun {
    Sending(Box<Sending>),
    /// Another replica has the lease.
    Busy,
    /// The credential is another one than planned.
    Changed,
    /// An attempt before this one has no end, and the journal may have its response.
    Unasked(Uuid),
    /// An attempt before this one ended without a response, and the refresh token may be spent.
    Lost {
        failure: Failure,
        attempt: Uuid,
        version: i64,
    },
}

/// An attempt that is written and may be sent.
pub(super) struct Sending {
    pub(super) lease: RefreshLease,
    pub(super) id: Uuid,
    /// The version of the material that is sent.
    pub(super) version: i64,
    /// The time of the attempt, by the clock of the database.
    pub(super) sent_time: Timestamp,
    /// The time of the attempt, by the clock of the process.
    pub(super) got_time: Timestamp,
    /// The time at which the credential was created. It distinguishes it from a later one with the same id.
    pub(super) create_time: Timestamp,
    /// The time before the lease was taken.
    started: Instant,
    /// The material that is sent: that of the credential, or its alternate.
    pub(super) tokens: OAuth2Material,
    /// The longest time that this request may take.
    limit: Duration,
    /// The time from which on it counts, if the provider accepts the refresh token for some time only.
    limited: Option<Instant>,
    /// True if the same tokens were sent before, under the same lease.
    is_repeat: bool,
    /// True if the refresh token is that of the alternate.
    is_alternate: bool,
    /// The number of attempts before it that had no end.
    left_open: usize,
}

// === impl Services ===

impl Services {
    /// Replaces the token of a credential, unless its material is newer than a version.
    pub(super) async fn refresh_run(
        &self,
        tenant: TenantId,
        identity: CredentialIdentity,
        version: i64,
    ) -> Result<Arc<IssuedToken>, RefreshError> {
        let refreshed = self.refresh_try(tenant, identity, version).await;
        if let Err(RefreshError::Other(error)) = &refreshed
            && (!error.retryable() || matches!(error, Error::UpstreamUnavailable { .. }))
            && !matches!(error, Error::OutcomeUnknown { .. })
            && let Err(error) = self.refresh_postpone(tenant, identity, version, error.reason()).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, credential.id = %identity.id, "a refresh could not be postponed");
        }
        refreshed
    }

    async fn refresh_try(
        &self,
        tenant: TenantId,
        identity: CredentialIdentity,
        version: i64,
    ) -> Result<Arc<IssuedToken>, RefreshError> {
        let id = identity.id;
        let until = Instant::now() + self.shared.refreshes.lease();
        let (mut asked, mut is_ready) = (Vec::new(), false);
        loop {
            let credential = self.find::<Credential>(tenant, &Ref::Id(id.0)).await?;
            if !identity.is_of(&credential) {
                return Err(Error::not_found(Resource::Credential, id).into());
            }
            if credential.material_version > version {
                return Ok(self.token_stored(tenant, &credential).await?);
            }
            let plan = self.refresh_plan(tenant, credential).await?;
            // The lease is not held meanwhile.
            let place = plan.budget.enter(is_ready).await;
            reached(id, Step::Planned).await;
            if self.shared.stop.is_cancelled() {
                return Err(Error::ServerUnavailable { retry_after: STOPPING_RETRY_AFTER }.into());
            }
            // Before the first attempt alone: one that follows it may be the last chance of a token that is spent.
            if !is_ready {
                self.shared.refreshes.journal.writable().await?;
            }
            is_ready = true;
            // The provider may have asked for a pause, or have become silent, while this one waited.
            if let Some(hold) = plan.budget.hold(identity, &plan.version, self.now()) {
                return Err(hold.into_error(&plan.credential));
            }
            let admission = plan.endpoint.admit();
            let admission = admission.map_err(|rest| Hold::Silent(rest).into_error(&plan.credential))?;
            match self.refresh_begin(&plan, &asked).await? {
                Begun::Sending(sending) => return self.refresh_send(&plan, *sending, admission).await,
                Begun::Changed | Begun::Busy if Instant::now() >= until => {
                    return Err(RefreshError::InProgress { retry_after: Duration::from_secs(1) });
                }
                Begun::Unasked(attempt) => {
                    match self.refresh_recover(attempt, None).await {
                        Err(error) if may_pass(&error) => return Err(error.into()),
                        // What cannot be read says nothing, as if it was not there.
                        Err(_) | Ok(_) => asked.push(attempt),
                    }
                }
                Begun::Lost { failure, attempt, version } => {
                    let ended = Ended { attempt, version, create_time: plan.credential.meta.create_time };
                    // Not in the transaction of the lease, which is locked after the credential.
                    if self.refresh_note(tenant, id, &ended, &failure).await? {
                        self.shared.gauge_sources.refresh_ended(failure.outcome);
                        return Err(RefreshError::Failed(failure));
                    }
                    // Its server was only slow, and has reported since what became of it.
                    if Instant::now() >= until {
                        return Err(RefreshError::InProgress { retry_after: Duration::from_secs(1) });
                    }
                }
                Begun::Changed | Begun::Busy => {
                    drop((place, admission));
                    tokio::time::sleep(LEASE_POLL).await;
                }
            }
        }
    }

    /// Takes the lease, reads the credential again, and writes the attempt, in one transaction.
    async fn refresh_begin(&self, plan: &Plan, asked: &[Uuid]) -> Result<Begun> {
        let (tenant, id) = (plan.tenant, plan.credential.id);
        let (started, got_time) = (Instant::now(), self.now());
        let (holder, length) = (self.shared.refreshes.holder, self.shared.refreshes.lease());
        // Within the transaction it could need a second connection.
        let system = self.shared.data_keys.system().await?;
        let is_stale = planted(PlantedBug::NoSecondReading);
        let stale = if is_stale { Some(self.planted_reading(tenant, id).await?) } else { None };
        let mut begun = Begun::Busy;
        let written = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let length = match planted(PlantedBug::LeaseOnLocalClock) {
                true => by_local_clock(length, got_time, txn.time().await?),
                false => length,
            };
            let Some(lease) = txn.refresh_lease_take(tenant, id, holder, length).await? else { return Ok(()) };
            let credential = txn.fetch::<Credential>(tenant, id).await?;
            let stored = self.shared.secrets.material(Some(txn), tenant, id).await?;
            let (credential, stored) = stale.unwrap_or((credential, stored));
            begun = match (credential, stored) {
                (Some(credential), Some((Material::OAuth2(tokens), version)))
                    if version == plan.credential.material_version
                        && credential.material_version == version
                        && CredentialIdentity::of(&plan.credential).is_of(&credential) =>
                {
                    let sending = Sending {
                        lease,
                        id: Uuid::now_v7(),
                        version,
                        sent_time: got_time,
                        got_time,
                        create_time: credential.meta.create_time,
                        started,
                        tokens,
                        limit: self.shared.refreshes.settings.timeout,
                        limited: None,
                        is_repeat: false,
                        is_alternate: false,
                        left_open: 0,
                    };
                    self.refresh_record(txn, plan, (&system, Some(asked)), sending).await?
                }
                _ => Begun::Changed,
            };
            if !matches!(begun, Begun::Sending(_)) {
                txn.refresh_lease_release(&lease).await?;
            }
            Ok(())
        });
        match (written.await, begun) {
            (Ok(()), begun) => {
                if let Begun::Sending(sending) = &begun {
                    (0..sending.left_open)
                        .for_each(|_| self.shared.gauge_sources.refresh_ended(RefreshOutcome::Unknown));
                }
                Ok(begun)
            }
            (Err(error @ Error::OutcomeUnknown { .. }), Begun::Sending(unsent)) => {
                self.refresh_unsent(tenant, id, &unsent).await;
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Writes an attempt. Attempts before it whose refresh token is the same, and whose response is not known, may have spent it: then it may
    /// be sent only within the grace period, which begins with the first of them.
    async fn refresh_record(
        &self,
        txn: &Writer,
        plan: &Plan,
        (system, asked): (&DataKey, Option<&[Uuid]>),
        mut sending: Sending,
    ) -> Result<Begun> {
        let (tenant, credential) = (plan.tenant, plan.credential.id);
        let Some(digest) = digest_of(system, tenant, &plan.credential, &sending.tokens) else {
            return Ok(Begun::Changed);
        };
        let made = txn.refresh_attempts(tenant, credential, ALL_ATTEMPTS).await?;
        let earlier = Earlier::of(&made, digest, &plan.credential, plan.grace());
        let is_unasked = |made: &&RefreshAttempt| asked.is_some_and(|asked| !asked.contains(&made.id));
        if let Some(open) = earlier.open().find(is_unasked) {
            return Ok(Begun::Unasked(open.id));
        }
        let (read, time) = (Instant::now(), txn.time().await?);
        match earlier.resend(time) {
            Resend::Free => {}
            Resend::Within(limit) => (sending.limit, sending.limited) = (sending.limit.min(limit), Some(read)),
            Resend::Lost { attempt, reason } => {
                let (failure, version) = (Failure::unknown(&reason), sending.version);
                return Ok(Begun::Lost { failure, attempt, version });
            }
        }
        // The lease is held here, so no other server makes them. One whose process has only been slow can still store what it got.
        for open in earlier.open() {
            let end = Failure::unknown(PROCESS_ENDED).end(time);
            sending.left_open += usize::from(txn.refresh_attempt_end(tenant, open.id, &end).await?);
        }
        let attempt = RefreshAttempt {
            id: sending.id,
            credential,
            material_version: sending.version,
            token_digest: digest,
            sent_time: sending.sent_time,
            end: None,
        };
        sending.sent_time = txn.refresh_attempt_insert(tenant, &attempt, KEPT_ATTEMPTS).await?;
        Ok(Begun::Sending(Box::new(sending)))
    }

    /// Sends the request, and stores what comes of it.
    async fn refresh_send(
        &self,
        plan: &Plan,
        mut sending: Sending,
        mut admission: Admission,
    ) -> Result<Arc<IssuedToken>, RefreshError> {
        let backoff = refresh_backoff(plan.credential.id, plan.credential.refresh_failure_count.saturating_add(1));
        let failure = loop {
            reached(plan.credential.id, Step::Recorded).await;
            // The process may have been frozen: the lease must outlast the request.
            if sending.started.elapsed() > self.shared.refreshes.lease() / 2 {
                break Failure::not_processed(LEASE_TOO_OLD, Duration::ZERO);
            }
            let deadline = sending.limited.unwrap_or_else(Instant::now) + sending.limit;
            if deadline <= Instant::now() {
                break Failure::not_processed(LEASE_TOO_OLD, Duration::ZERO);
            }
            let (grant, parameters) = plan.grant(&sending)?;
            let rotates = plan.credential.refresh_token_rotates();
            let exchanged = plan.client.exchange(&grant, parameters, Some(deadline)).await;
            let failure = match exchanged {
                Ok(response) => match Received::of(&plan.credential, &plan.connection, plan.tenant, &sending, response)
                {
                    Ok(received) => {
                        admission.note(Some(true));
                        plan.budget.accept(CredentialIdentity::of(&plan.credential));
                        return self.refresh_received(&plan.credential, &sending, received).await;
                    }
                    // The response says that the refresh token stays, or what it would be good for.
                    Err(flaw) if flaw.is_repeated || (!flaw.is_lost && tokens_refused(flaw.reason).is_some()) => {
                        admission.note(Some(true));
                        let failure = Failure { status: Some(flaw.status), ..Failure::flawed(flaw.reason, backoff) };
                        if plan.credential.client_grant { failure.of_client_grant() } else { failure }
                    }
                    Err(flaw) => {
                        admission.note(Some(false));
                        Failure { status: Some(flaw.status), ..Failure::lost(flaw.reason, rotates, backoff) }
                    }
                },
                Err(fault) => {
                    admission.note(fault.is_conclusive());
                    let failure = Failure::of(&fault, rotates, backoff);
                    let failure = if plan.credential.client_grant { failure.of_client_grant() } else { failure };
                    log(&plan.credential, &fault, &failure);
                    failure
                }
            };
            match self.refresh_follow(plan, &sending, &failure).await {
                Ok(Some(next)) => sending = next,
                Ok(None) => break self.refresh_put_off(plan, &sending, failure),
                // There may be an alternate. The next attempt is refused again, and finds it.
                Err(_) if failure.outcome == RefreshOutcome::Refused => {
                    break Failure { class: FailureClass::Transient, ..failure };
                }
                Err(_) => break failure,
            }
        };
        // A probe that was not sent leaves its place before its end is written, which may take long.
        drop(admission);
        let failure = Failure { connection_version: Some(plan.connection.meta.version), ..failure };
        plan.note(&failure, self.now());
        reached(plan.credential.id, Step::Failed).await;
        match self.refresh_fail(plan.tenant, plan.credential.id, &sending, &failure).await? {
            true => Err(RefreshError::Failed(failure)),
            // Other material was stored meanwhile, or it is known what became of the attempt: the failure says nothing about it.
            false => Ok(self.token_stored(plan.tenant, &plan.credential).await?),
        }
    }

    /// Puts off the next attempt with a refresh token whose response was lost again, as long as the provider accepts it: what it was used for
    /// first may be over by then. Whether there is time for that attempt is decided when it begins, by the clock of the database.
    fn refresh_put_off(&self, plan: &Plan, made: &Sending, failure: Failure) -> Failure {
        let is_lost = failure.class == FailureClass::Indeterminate && !made.is_alternate;
        let left = plan.grace().unwrap_or_default().saturating_sub(made.started.elapsed());
        let pause = plan.budget.pause_rest(&plan.version, self.now());
        let retry_after = failure.retry_after.max(plan.endpoint.rest().unwrap_or_default()).max(pause);
        match is_lost && retry_after + self.shared.refreshes.settings.timeout * 2 < left {
            true => Failure { class: FailureClass::Transient, retry_after, ..failure },
            false => failure,
        }
    }

    /// Begins the attempt that follows a failure, if one may: with the alternate of a credential whose refresh token was refused; or again,
    /// if the provider accepts a refresh token for some time after it was used.
    async fn refresh_follow(&self, plan: &Plan, made: &Sending, failure: &Failure) -> Result<Option<Sending>> {
        let (tenant, id) = (plan.tenant, plan.credential.id);
        let is_lost = failure.class == FailureClass::Indeterminate;
        let repeats = is_lost && !made.is_repeat && !made.is_alternate && plan.grace().is_some();
        let is_refused = failure.outcome == RefreshOutcome::Refused && !made.is_alternate;
        let is_refused = is_refused && !planted(PlantedBug::FirstRefusalBelieved);
        if !repeats && !is_refused {
            return Ok(None);
        }
        let system = self.shared.data_keys.system().await?;
        let mut begun = None;
        let written = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let credential = lock_credential(txn, tenant, id).await?;
            let Some(credential) = credential.filter(|credential| made.is_of(credential)) else { return Ok(()) };
            let (tokens, version) = match repeats {
                true => (made.tokens.duplicate(), made.version),
                false => match self.refresh_take_alternate(txn, tenant, credential, &made.tokens).await? {
                    Some(taken) => taken,
                    None => return Ok(()),
                },
            };
            let time = txn.time().await?;
            let end = failure.end(time);
            txn.refresh_attempt_end(tenant, made.id, &end).await?;
            let limit = self.shared.refreshes.settings.timeout;
            let (id, got_time) = (Uuid::now_v7(), self.now());
            let (is_repeat, is_alternate) = (repeats, !repeats);
            let blank = made.blank();
            let limited = None;
            let sending = Sending { id, version, got_time, tokens, limit, limited, is_repeat, is_alternate, ..blank };
            if let Begun::Sending(sending) = self.refresh_record(txn, plan, (&system, None), sending).await? {
                begun = Some(*sending);
            }
            Ok(())
        });
        if let Err(error) = written.await {
            let cause = &error.to_string();
            tracing::warn!(error = cause, credential.id = %plan.credential.id, "the attempt that follows a refresh could not be begun");
            // The lease is kept until the attempt that was made has its end.
            if let (Error::OutcomeUnknown { .. }, Some(unsent)) = (&error, begun) {
                let ended = Ended { attempt: unsent.id, version: unsent.version, create_time: unsent.create_time };
                let failure = Failure::not_processed(NOT_BEGUN, Duration::ZERO);
                if let Err(error) = self.refresh_note(tenant, plan.credential.id, &ended, &failure).await {
                    log_unsent(plan.credential.id, &error);
                }
            }
            return Err(error);
        }
        if begun.is_some() {
            self.shared.gauge_sources.refresh_ended(failure.outcome);
        }
        Ok(begun)
    }

    /// Ends an attempt that was not sent, because it is not known whether its beginning is stored: without an end it would count as sent.
    async fn refresh_unsent(&self, tenant: TenantId, id: CredentialId, sending: &Sending) {
        let failure = Failure::not_processed(NOT_BEGUN, Duration::ZERO);
        if let Err(error) = self.refresh_fail(tenant, id, sending, &failure).await {
            log_unsent(id, &error);
        }
    }

    /// The token of a credential as it is stored. One that was deleted and made again with the same id is another one.
    pub(super) async fn token_stored(&self, tenant: TenantId, before: &Credential) -> Result<Arc<IssuedToken>> {
        let reference = Ref::Id(before.id.0);
        if self.find::<Credential>(tenant, &reference).await?.meta.create_time != before.meta.create_time {
            return Err(Error::not_found(Resource::Credential, before.id));
        }
        self.token_open(tenant, &CredentialRef::Ref(reference)).await
    }
}

fn log_unsent(id: CredentialId, error: &Error) {
    let error = &error.to_string();
    tracing::error!(error, credential.id = %id, "the end of a refresh that was not sent could not be written");
}

// === impl Sending ===

impl Sending {
    /// Returns whether a credential still has the material that is sent.
    fn is_of(&self, credential: &Credential) -> bool {
        credential.material_version == self.version && credential.meta.create_time == self.create_time
    }

    /// The same attempt without its tokens.
    fn blank(&self) -> Self {
        Sending { tokens: OAuth2Material::default(), ..*self }
    }
}

fn log(credential: &Credential, fault: &TokenFault, failure: &Failure) {
    tracing::warn!(
        error = fault as &dyn std::error::Error,
        credential.id = %credential.id,
        outcome = failure.outcome.as_str(),
        reason = failure.reason,
        "a credential could not be refreshed",
    );
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The wait for another replica while this one stops.
const STOPPING_RETRY_AFTER: Duration = Duration::from_millis(500);
/// The reason of an attempt that was not sent because it is not known whether its beginning is stored.
const NOT_BEGUN: &str = "NOT_BEGUN";
/// The reason of an attempt that was not sent because too much of its lease was over.
const LEASE_TOO_OLD: &str = "LEASE_TOO_OLD";
