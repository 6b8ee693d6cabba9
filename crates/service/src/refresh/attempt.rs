//! Attempts: the lease, the record of the attempt, and the one request.

use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{
    Credential, CredentialRef, CredentialState, FailureClass, IssuedToken, Material, OAuth2Material, RefreshAttempt,
    RefreshEnd, RefreshOutcome, refresh_backoff,
};
use jackfield_domain::error::Precondition;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{CredentialId, Error, Resource, Result, Secret, TenantId, Timestamp};
use jackfield_store::{RefreshLease, Writer};
use jackfield_upstream::oauth::{Grant, TokenFault};
use jackfield_vault::DataKey;
use tokio::time::Instant;
use uuid::Uuid;

use super::commit::Ended;
use super::failure::Failure;
use super::received::Received;
use super::schedule::Spent;
use super::{KEPT_ATTEMPTS, LEASE_POLL, RefreshError};
use crate::authorization::TokenClient;
use crate::change::{Change, Length};
use crate::credential::lock_credential;
use crate::services::Services;

/// A refresh that can be attempted.
struct Plan {
    tenant: TenantId,
    credential: Credential,
    connection: Connection,
    client: TokenClient,
    budget: Arc<Spent>,
}

/// The beginning of an attempt.
enum Begun {
    Sending(Box<Sending>),
    /// Another replica has the lease.
    Busy,
    /// The credential is another one than planned.
    Changed,
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
    /// True if an attempt before this one failed, under the same lease.
    follows: bool,
}

// === impl Services ===

impl Services {
    /// Replaces the token of a credential, unless its material is newer than a version.
    pub(super) async fn refresh_run(
        &self,
        tenant: TenantId,
        id: CredentialId,
        version: i64,
    ) -> Result<Arc<IssuedToken>, RefreshError> {
        let refreshed = self.refresh_try(tenant, id, version).await;
        if let Err(RefreshError::Other(error)) = &refreshed
            && (!error.retryable() || matches!(error, Error::UpstreamUnavailable { .. }))
            && let Err(error) = self.refresh_postpone(tenant, id, version, error.reason()).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, credential.id = %id, "a refresh could not be postponed");
        }
        refreshed
    }

    async fn refresh_try(
        &self,
        tenant: TenantId,
        id: CredentialId,
        version: i64,
    ) -> Result<Arc<IssuedToken>, RefreshError> {
        let until = Instant::now() + self.shared.refreshes.lease();
        loop {
            let credential = self.find::<Credential>(tenant, &Ref::Id(id.0)).await?;
            if credential.material_version > version {
                return Ok(self.token_stored(tenant, id).await?);
            }
            let plan = self.refresh_plan(tenant, credential).await?;
            // The lease is not held meanwhile.
            let place = plan.budget.enter().await;
            if self.shared.stop.is_cancelled() {
                return Err(Error::ServerUnavailable { retry_after: STOPPING_RETRY_AFTER }.into());
            }
            match self.refresh_begin(&plan).await? {
                Begun::Sending(sending) => return self.refresh_send(&plan, *sending).await,
                Begun::Changed | Begun::Busy if Instant::now() >= until => {
                    return Err(RefreshError::InProgress { retry_after: Duration::from_secs(1) });
                }
                Begun::Lost { attempt, .. } if Instant::now() < until && self.refresh_recover(attempt).await? => {}
                Begun::Lost { failure, attempt, version } => {
                    self.shared.gauge_sources.refresh_ended(failure.outcome);
                    let ended = Ended { attempt, version, create_time: plan.credential.meta.create_time };
                    // Not in the transaction of the lease, which is locked after the credential.
                    self.refresh_note(tenant, id, &ended, &failure).await?;
                    return Err(RefreshError::Failed(failure));
                }
                Begun::Changed => {}
                Begun::Busy => {
                    drop(place);
                    tokio::time::sleep(LEASE_POLL).await;
                }
            }
        }
    }

    /// Everything that a refresh needs, or the reason why there can be none.
    async fn refresh_plan(&self, tenant: TenantId, credential: Credential) -> Result<Plan, RefreshError> {
        let reauth = |message: &str| {
            Error::precondition(Precondition::ReauthRequired, Resource::Credential, credential.id, message)
        };
        if let Some(failure) = self.refresh_failed(&credential) {
            return Err(RefreshError::Failed(failure));
        }
        match credential.state {
            CredentialState::Revoked | CredentialState::Pending => {
                let message = format!("the credential is {}", credential.state.as_str());
                let reason = Precondition::CredentialNotValid;
                return Err(Error::precondition(reason, Resource::Credential, credential.id, message).into());
            }
            _ if !credential.refreshes() && credential.connection.is_some() => {
                return Err(reauth("there is no refresh token: the user has to authorise").into());
            }
            _ => {}
        }
        let Some(connection) = credential.connection else {
            return Err(reauth("the credential has no connection, through which it could be refreshed").into());
        };
        let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
        let budget = self.shared.refreshes.budget.of(tenant, connection.id);
        if let Some((reason, retry_after)) = budget.refused(&connection) {
            return Err(RefreshError::Failed(Failure::of_client(reason, retry_after)));
        }
        let client = self.token_client(tenant, &connection).await?;
        Ok(Plan { tenant, credential, connection, client, budget })
    }

    /// The last failure of a credential, if no attempt may be made now.
    fn refresh_failed(&self, credential: &Credential) -> Option<Failure> {
        let class = credential.failure_class?;
        let wait = credential.next_refresh_time.map(|time| time.0.saturating_sub(self.now().0)).unwrap_or_default();
        let retry_after = Duration::from_micros(u64::try_from(wait).unwrap_or_default());
        let blocks = match class {
            FailureClass::Permanent | FailureClass::Indeterminate => true,
            FailureClass::Transient => !retry_after.is_zero(),
            // The budget of the connection knows whether it is still the same.
            FailureClass::Connection => false,
        };
        blocks.then(|| Failure::of_last(class, &credential.failure_reason, retry_after))
    }

    /// Takes the lease, reads the credential again, and writes the attempt, in one transaction.
    async fn refresh_begin(&self, plan: &Plan) -> Result<Begun> {
        let (tenant, id) = (plan.tenant, plan.credential.id);
        let (started, got_time) = (Instant::now(), self.now());
        let (holder, length) = (self.shared.refreshes.holder, self.shared.refreshes.lease());
        // Within the transaction it could need a second connection.
        let system = self.shared.data_keys.system().await?;
        let mut begun = Begun::Busy;
        let written = self.change(Change::of_tenant_by_system(tenant, Length::Short), async |txn| {
            let Some(lease) = txn.refresh_lease_take(tenant, id, holder, length).await? else { return Ok(()) };
            let credential = txn.fetch::<Credential>(tenant, id).await?;
            let stored = self.shared.secrets.material(Some(txn), tenant, id).await?;
            begun = match (credential, stored) {
                (Some(credential), Some((Material::OAuth2(tokens), version)))
                    if version == plan.credential.material_version && credential.material_version == version =>
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
                        follows: false,
                    };
                    self.refresh_record(txn, plan, &system, sending).await?
                }
                _ => Begun::Changed,
            };
            if !matches!(begun, Begun::Sending(_)) {
                txn.refresh_lease_release(&lease).await?;
            }
            Ok(())
        });
        written.await?;
        Ok(begun)
    }

    /// Writes an attempt. Attempts before it whose refresh token is the same, and whose response is not known, may have spent it: then it may
    /// be sent only within the grace period, which begins with the first of them.
    async fn refresh_record(&self, txn: &Writer, plan: &Plan, system: &DataKey, mut sending: Sending) -> Result<Begun> {
        let (tenant, credential) = (plan.tenant, plan.credential.id);
        let Some(refresh_token) = &sending.tokens.refresh_token else { return Ok(Begun::Changed) };
        let digest = token_digest(system, tenant, refresh_token);
        let made = txn.refresh_attempts(tenant, credential, KEPT_ATTEMPTS).await?;
        let is_unknown = |end: &RefreshEnd| end.outcome == RefreshOutcome::Unknown;
        // One without an end may have its tokens in a journal, whatever is known of the provider.
        let rotates = plan.credential.refresh_token_rotates();
        let may_have_spent = |made: &&RefreshAttempt| {
            made.token_digest == digest && made.end.as_ref().is_none_or(|end| rotates && is_unknown(end))
        };
        let mut lost = made.iter().filter(may_have_spent);
        if let Some(last) = lost.next() {
            let first = lost.next_back().unwrap_or(last);
            let left = first.sent_time.plus_micros(micros(plan.grace())).0.saturating_sub(txn.time().await?.0);
            // Half of what is left: a request that is given up may reach the provider later.
            let limit = Duration::from_micros(u64::try_from(left / 2).unwrap_or_default());
            if limit < LEAST_LIMIT {
                let failure = Failure::unknown(last.end.as_ref().map_or(PROCESS_ENDED, |end| &end.reason));
                return Ok(Begun::Lost { failure, attempt: last.id, version: last.material_version });
            }
            sending.limit = sending.limit.min(limit);
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
    async fn refresh_send(&self, plan: &Plan, mut sending: Sending) -> Result<Arc<IssuedToken>, RefreshError> {
        let backoff = refresh_backoff(plan.credential.id, plan.credential.refresh_failure_count.saturating_add(1));
        let failure = loop {
            // The process may have been frozen: the lease must outlast the request.
            if sending.started.elapsed() > self.shared.refreshes.lease() / 2 {
                break Failure::not_processed(LEASE_TOO_OLD, Duration::ZERO);
            }
            let deadline = Instant::now() + sending.limit;
            let Some(refresh_token) = &sending.tokens.refresh_token else {
                return Err(Error::internal("an attempt without a refresh token").into());
            };
            let grant = Grant::RefreshToken { refresh_token, scope: None };
            let parameters = &plan.connection.settings.refresh_parameters;
            match plan.client.exchange(&grant, parameters.as_map(), Some(deadline)).await {
                Ok(response) => match Received::of(plan.tenant, plan.credential.id, &sending, response) {
                    Ok(received) => return self.refresh_received(&plan.credential, &sending, received).await,
                    Err(failure) => break failure,
                },
                Err(fault) => {
                    let failure = Failure::of(&fault, plan.credential.refresh_token_rotates(), backoff);
                    log(&plan.credential, &fault, &failure);
                    match self.refresh_follow(plan, &sending, &failure).await? {
                        Some(next) => sending = next,
                        None => break failure,
                    }
                }
            }
        };
        if failure.refuses_client {
            plan.budget.refuse(&plan.connection, &failure.reason, failure.retry_after);
        }
        match self.refresh_fail(plan.tenant, plan.credential.id, &sending, &failure).await? {
            true => Err(RefreshError::Failed(failure)),
            // Other material was stored meanwhile, and the failure says nothing about it.
            false => Ok(self.token_stored(plan.tenant, plan.credential.id).await?),
        }
    }

    /// Begins the attempt that follows a failure, if one may: with the alternate of a credential whose refresh token was refused; or again,
    /// if the provider accepts a refresh token for some time after it was used.
    async fn refresh_follow(&self, plan: &Plan, made: &Sending, failure: &Failure) -> Result<Option<Sending>> {
        let (tenant, id) = (plan.tenant, plan.credential.id);
        let repeats = failure.class == FailureClass::Indeterminate && !plan.grace().is_zero();
        if made.follows || !repeats && failure.outcome != RefreshOutcome::Refused {
            return Ok(None);
        }
        self.shared.gauge_sources.refresh_ended(failure.outcome);
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
            let end = RefreshEnd { time, outcome: failure.outcome, reason: failure.reason.clone() };
            txn.refresh_attempt_end(tenant, made.id, &end).await?;
            let limit = self.shared.refreshes.settings.timeout;
            let (id, got_time) = (Uuid::now_v7(), self.now());
            let sending = Sending { id, version, got_time, tokens, limit, follows: true, ..made.blank() };
            if let Begun::Sending(sending) = self.refresh_record(txn, plan, &system, sending).await? {
                begun = Some(*sending);
            }
            Ok(())
        });
        written.await?;
        Ok(begun)
    }

    /// The token of a credential as it is stored.
    async fn token_stored(&self, tenant: TenantId, id: CredentialId) -> Result<Arc<IssuedToken>> {
        self.token_open(tenant, &CredentialRef::Ref(Ref::Id(id.0))).await
    }
}

// === impl Plan ===

impl Plan {
    /// The time for which the provider accepts a refresh token again that was used.
    fn grace(&self) -> Duration {
        self.connection.settings.refresh_token_grace_period.unwrap_or_default()
    }
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

/// A keyed digest of a refresh token.
pub(super) fn token_digest(system: &DataKey, tenant: TenantId, refresh_token: &Secret) -> [u8; 32] {
    system.fingerprint("refresh token", &[tenant.0.as_bytes().as_slice(), refresh_token.expose().as_bytes()])
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

/// The shortest time that a request is given. With less left of the grace period, none is sent.
const LEAST_LIMIT: Duration = Duration::from_secs(1);
/// The wait for another replica while this one stops.
const STOPPING_RETRY_AFTER: Duration = Duration::from_millis(500);
/// The reason of an attempt whose process ended before it had the response.
const PROCESS_ENDED: &str = "PROCESS_ENDED";
/// The reason of an attempt that was not sent because too much of its lease was over.
const LEASE_TOO_OLD: &str = "LEASE_TOO_OLD";
