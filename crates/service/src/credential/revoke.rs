//! Revocations. Material is destroyed here first, and then the provider is asked to accept its tokens no more (RFC 7009). So nothing is
//! issued any more from the moment of the commit, and a provider that does not answer holds nothing up.

use std::time::Duration;

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{
    Credential, CredentialKind, CredentialState, MATERIAL_COLUMN, Material, OAuth2Material, RevocationOutcome,
    RevokedTokenKind, TokenRevocation,
};
use jackfield_domain::principal::right::CredentialsWrite;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{ConnectionId, CredentialId, Error, Result, Secret, SecretAddress, TenantId};
use jackfield_store::Writer;
use jackfield_upstream::oauth::{Revocation, TokenFailure, TokenFault};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::crud::find_locked;
use crate::authorization::RevocationClient;
use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions, missing};
use crate::services::Services;

/// The outcome of a request to revoke a credential.
pub struct RevokedCredential {
    /// False if it was revoked before.
    pub revoked: bool,
    pub revocations: Vec<TokenRevocation>,
}

/// Tokens that are gone here, or will be when the transaction commits, and are to be revoked at their provider.
pub(crate) struct Revocable {
    tenant: TenantId,
    /// `None` for tokens that no credential has had.
    credential: Option<CredentialId>,
    connection: Option<ConnectionId>,
    /// In the order in which they are sent; `None` for one that cannot be opened.
    tokens: Vec<(RevokedTokenKind, Option<Secret>)>,
}

/// The revocations that no caller waits for.
pub(crate) struct LaterRevocations {
    /// The room for those that wait, because each has tokens in memory.
    room: Semaphore,
    /// The places for those that are sent, because they share the calls of their connectors with refreshes.
    places: Semaphore,
    /// The places for those that callers wait for.
    called: Semaphore,
}

/// The bounds of the attempts to revoke the tokens of a credential.
#[derive(Clone, Copy)]
enum Patience {
    /// A caller waits.
    Short,
    /// No caller waits.
    Long,
}

/// The attempts at one thing that may succeed later.
struct Attempts {
    patience: Patience,
    until: Instant,
    made: u32,
    pause: Duration,
}

/// What became of a token, and the reason.
type Fate = (RevocationOutcome, String);

const MAX_WAITING: usize = 1_000;
const MAX_SENDING: usize = 8;
/// The longest time that one attempt takes.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest pause before what a revocation needs is looked for again. A fault of the metadata of an issuer is remembered for as long.
const CLIENT_PAUSE: Duration = Duration::from_secs(5);

// === impl Services ===

impl Services {
    /// Revokes a credential, and its tokens at their provider. It goes on if the caller leaves.
    pub async fn credential_revoke(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        reference: &Ref,
    ) -> Result<RevokedCredential> {
        let (mut revocable, mut cancelled) = (None, Vec::new());
        let revoked = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let found = find_locked(txn, tenant, reference).await?;
            let mut credential = found.ok_or_else(|| missing::<Credential>(reference))?;
            // Whatever was begun before does not bring it back, even if it was revoked already.
            cancelled = self.authorizations_cancel_of_credential(txn, tenant, &credential).await?;
            if credential.state == CredentialState::Revoked {
                return Ok(false);
            }
            revocable = self.revocable(txn, tenant, &credential).await?;
            credential.revoke(self.now());
            txn.replace(tenant, &credential).await?;
            txn.secret_delete(SecretAddress::of(tenant, credential.id, MATERIAL_COLUMN)).await?;
            self.shared.secrets.alternate_delete(txn, tenant, credential.id).await?;
            Ok(true)
        });
        let revoked = match revoked.await {
            Err(error) => {
                self.revoke_deleted(request, &Err::<(), _>(&error), revocable);
                return Err(error);
            }
            Ok(revoked) => revoked,
        };
        self.tell_cancelled(request, cancelled);
        let Some(revocable) = revocable.filter(|_| !request.validate_only) else {
            return Ok(RevokedCredential { revoked, revocations: Vec::new() });
        };
        let services = self.clone();
        let task = async move { services.tokens_revoke(revocable, Patience::Short).await };
        let revocations = self.shared.tasks.spawn(task).await.map_err(Error::internal)?;
        Ok(RevokedCredential { revoked, revocations })
    }

    /// The tokens of a credential that can be revoked; `None` if there are none. It is read before its material is deleted, in the same
    /// transaction. Tokens that cannot be opened can be deleted all the same.
    pub(crate) async fn revocable(
        &self,
        txn: &Writer,
        tenant: TenantId,
        credential: &Credential,
    ) -> Result<Option<Revocable>> {
        if credential.kind != CredentialKind::OAuth2 {
            return Ok(None);
        }
        let id = credential.id;
        let revocable = match self.shared.secrets.material(Some(txn), tenant, id).await {
            Ok(Some((Material::OAuth2(tokens), _))) => {
                let alternate = match self.shared.secrets.alternate(txn, tenant, id).await {
                    Err(Error::DecryptFailed { .. }) => None,
                    alternate => alternate?,
                };
                Revocable::of(tenant, Some(credential.id), credential.connection, tokens, alternate)
            }
            Ok(_) => return Ok(None),
            Err(Error::DecryptFailed { .. }) => Revocable::of_sealed(tenant, credential),
            Err(error) => return Err(error),
        };
        Ok(Some(revocable).filter(|revocable| !revocable.tokens.is_empty()))
    }

    /// Revokes the tokens that a change has deleted. If it is not known whether it did, they are gone as far as is known, and their caller
    /// wanted that.
    pub(crate) fn revoke_deleted<T>(
        &self,
        request: &RequestOptions,
        outcome: &Result<T, &Error>,
        revocables: impl IntoIterator<Item = Revocable>,
    ) {
        let are_gone = matches!(outcome, Ok(_) | Err(Error::OutcomeUnknown { .. }));
        if are_gone && !request.validate_only {
            revocables.into_iter().for_each(|revocable| self.revoke_later(revocable));
        }
    }

    /// Revokes tokens at their provider without a caller who waits. They are in memory only: if the process ends before, the provider is not
    /// asked.
    pub(crate) fn revoke_later(&self, revocable: Revocable) {
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            match services.shared.later_revocations.room.try_acquire() {
                Ok(_room) => drop(services.tokens_revoke(revocable, Patience::Long).await),
                Err(_) => {
                    let fate = (RevocationOutcome::NotSent, TOO_MANY.to_owned());
                    for (kind, _) in &revocable.tokens {
                        services.report(&revocable, *kind, &fate);
                    }
                }
            }
        });
    }

    /// Revokes tokens at their provider, one after the other. If it does not answer for one, the others are not sent.
    async fn tokens_revoke(&self, revocable: Revocable, patience: Patience) -> Vec<TokenRevocation> {
        let until = Instant::now() + patience.time();
        let mut client = self.revocation_client_of(&revocable, Attempts::new(patience, until)).await;
        let mut revocations = Vec::with_capacity(revocable.tokens.len());
        for (kind, token) in &revocable.tokens {
            let fate = match (&client, token) {
                (Err(fate), _) => fate.clone(),
                (Ok(_), None) => (RevocationOutcome::NotSent, "DECRYPT_FAILED".to_owned()),
                (Ok(client), Some(token)) => {
                    self.token_revoke(client, (*kind, token), Attempts::new(patience, until)).await
                }
            };
            self.report(&revocable, *kind, &fate);
            if fate.0 == RevocationOutcome::Unreachable {
                client = Err(fate.clone());
            }
            let (outcome, reason) = fate;
            revocations.push(TokenRevocation { kind: *kind, outcome, reason });
        }
        revocations
    }

    /// The client that revokes tokens. What it needs may be away for a while, such as the metadata of the issuer.
    async fn revocation_client_of(
        &self,
        revocable: &Revocable,
        mut attempts: Attempts,
    ) -> Result<RevocationClient, Fate> {
        let unsupported = |reason: &str| (RevocationOutcome::NotSupported, reason.to_owned());
        let not_sent = |reason: &str| (RevocationOutcome::NotSent, reason.to_owned());
        let connection = revocable.connection.ok_or_else(|| unsupported("NO_CONNECTION"))?;
        loop {
            let place = match self.revocation_place(&attempts).await {
                Ok(place) => place,
                Err(reason) => return Err(not_sent(reason)),
            };
            let found = self.revocation_client_once(revocable.tenant, connection, attempts.deadline()).await;
            drop(place);
            let error = match found {
                Ok(client) => return client.ok_or_else(|| unsupported("NO_REVOCATION_URL")),
                Err(error) => error,
            };
            let pause = attempts.pause.max(CLIENT_PAUSE);
            if !error.retryable() || !self.waits_for(&mut attempts, pause).await {
                return Err(not_sent(error.reason()));
            }
        }
    }

    async fn revocation_client_once(
        &self,
        tenant: TenantId,
        connection: ConnectionId,
        deadline: Instant,
    ) -> Result<Option<RevocationClient>> {
        let connection = self.find::<Connection>(tenant, &Ref::Id(connection.0)).await?;
        self.revocation_client(tenant, &connection, deadline).await
    }

    /// Revokes a token. Attempts that may not have reached the provider are repeated: to revoke a token twice does no harm.
    async fn token_revoke(
        &self,
        client: &RevocationClient,
        (kind, token): (RevokedTokenKind, &Secret),
        mut attempts: Attempts,
    ) -> Fate {
        loop {
            let place = match self.revocation_place(&attempts).await {
                Ok(place) => place,
                Err(reason) => return (RevocationOutcome::NotSent, reason.to_owned()),
            };
            let sent = client.revoke(token, kind, attempts.deadline()).await;
            drop(place);
            let fault = match sent {
                Ok(Revocation::Revoked) => return (RevocationOutcome::Revoked, String::new()),
                Ok(Revocation::Unsupported) => {
                    return (RevocationOutcome::NotSupported, "unsupported_token_type".to_owned());
                }
                Err(fault) => fault,
            };
            let fate = fate_of(&fault);
            let attempt = attempts.made + 1;
            tracing::debug!(error = &fault as &dyn std::error::Error, attempt, "a token could not be revoked");
            let pause = fault.retry_after().unwrap_or(attempts.pause);
            if fate.0 != RevocationOutcome::Unreachable || !self.waits_for(&mut attempts, pause).await {
                return fate;
            }
        }
    }

    /// Waits for the next attempt. Returns false if there is none: enough were made, the time is over by then, or the server stops.
    async fn waits_for(&self, attempts: &mut Attempts, pause: Duration) -> bool {
        attempts.made += 1;
        attempts.pause *= 2;
        if attempts.made >= attempts.patience.attempts() || Instant::now() + pause >= attempts.until {
            return false;
        }
        self.shared.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }

    /// Waits for a place, as long as there is time for an attempt.
    ///
    /// # Errors
    /// The reason why there is none: the server stops, or too many others are sent.
    async fn revocation_place(&self, attempts: &Attempts) -> Result<SemaphorePermit<'_>, &'static str> {
        let revocations = &self.shared.later_revocations;
        let places = match attempts.patience {
            Patience::Short => &revocations.called,
            Patience::Long => &revocations.places,
        };
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Err(STOPPING),
            place = timeout_at(attempts.until, places.acquire()) => place.map_err(|_| TOO_MANY)?.map_err(|_| STOPPING),
        }
    }

    /// Logs and counts what became of a token at its provider.
    fn report(&self, revocable: &Revocable, kind: RevokedTokenKind, (outcome, reason): &Fate) {
        self.shared.gauge_sources.revocation_ended(*outcome);
        let credential = revocable.credential.map(|id| id.to_string());
        let (kind, outcome_name) = (kind.as_str(), outcome.as_str());
        match outcome {
            RevocationOutcome::Revoked => {
                tracing::info!(credential.id = credential, token.kind = kind, "a token was revoked at its provider");
            }
            RevocationOutcome::NotSupported => {
                tracing::info!(
                    credential.id = credential,
                    token.kind = kind,
                    reason,
                    "a token was not revoked at its provider, which cannot be asked to"
                );
            }
            RevocationOutcome::Refused | RevocationOutcome::Unreachable | RevocationOutcome::NotSent => {
                tracing::warn!(
                    credential.id = credential,
                    token.kind = kind,
                    outcome = outcome_name,
                    reason,
                    "a token was not revoked at its provider, and may be good there"
                );
            }
        }
    }
}

// === impl Revocable ===

impl Revocable {
    /// The tokens of a credential, in the order in which they are revoked. With a refresh token, most providers end the grant (RFC 7009 2.1).
    pub(crate) fn of(
        tenant: TenantId,
        credential: Option<CredentialId>,
        connection: Option<ConnectionId>,
        tokens: OAuth2Material,
        alternate: Option<OAuth2Material>,
    ) -> Self {
        let alternate = alternate.unwrap_or_default();
        let kinds = [
            (RevokedTokenKind::RefreshToken, [tokens.refresh_token, alternate.refresh_token]),
            (RevokedTokenKind::AccessToken, [tokens.access_token, alternate.access_token]),
        ];
        let tokens = kinds
            .into_iter()
            .flat_map(|(kind, tokens)| tokens.into_iter().flatten().map(move |token| (kind, Some(token))));
        Revocable { tenant, credential, connection, tokens: tokens.collect() }
    }

    /// The tokens of a credential that cannot be opened.
    fn of_sealed(tenant: TenantId, credential: &Credential) -> Self {
        let refresh_token =
            (credential.refreshable && !credential.client_grant).then_some((RevokedTokenKind::RefreshToken, None));
        let access_token = credential.has_token().then_some((RevokedTokenKind::AccessToken, None));
        let tokens = refresh_token.into_iter().chain(access_token).collect();
        Revocable { tenant, credential: Some(credential.id), connection: credential.connection, tokens }
    }
}

// === impl LaterRevocations ===

impl Default for LaterRevocations {
    fn default() -> Self {
        LaterRevocations {
            room: Semaphore::new(MAX_WAITING),
            places: Semaphore::new(MAX_SENDING),
            called: Semaphore::new(MAX_SENDING),
        }
    }
}

// === impl Patience ===

impl Patience {
    /// The time for all tokens of a credential together.
    fn time(self) -> Duration {
        match self {
            Patience::Short => Duration::from_secs(10),
            Patience::Long => Duration::from_secs(300),
        }
    }

    /// The most attempts to revoke one token.
    fn attempts(self) -> u32 {
        match self {
            Patience::Short => 3,
            Patience::Long => 8,
        }
    }

    /// The pause after the first attempt, unless the provider asks for another. It doubles with each attempt.
    fn first_pause(self) -> Duration {
        match self {
            Patience::Short => Duration::from_millis(200),
            Patience::Long => Duration::from_secs(1),
        }
    }
}

// === impl Attempts ===

impl Attempts {
    fn new(patience: Patience, until: Instant) -> Self {
        Attempts { patience, until, made: 0, pause: patience.first_pause() }
    }

    /// The end of an attempt that begins now.
    fn deadline(&self) -> Instant {
        self.until.min(Instant::now() + ATTEMPT_TIMEOUT)
    }
}

/// What a failed attempt says about a token. Only what is unreachable is asked again.
fn fate_of(fault: &TokenFault) -> Fate {
    let outcome = match (fault, fault.class()) {
        (TokenFault::Request(_), _) => RevocationOutcome::NotSent,
        (TokenFault::Call(error), TokenFailure::Connection) if !error.sent => RevocationOutcome::NotSent,
        // A code that is not known does not pass, whatever it means for a grant.
        (TokenFault::Refused { status, code, .. }, _)
            if !code.is_known() && !fault.is_unprocessed() && !status.is_server_error() =>
        {
            RevocationOutcome::Refused
        }
        // Each leads to another endpoint, whatever was done.
        (TokenFault::Status { status, .. }, _) if status.is_redirection() => RevocationOutcome::Refused,
        (_, TokenFailure::Transient | TokenFailure::Unknown) => RevocationOutcome::Unreachable,
        _ => RevocationOutcome::Refused,
    };
    let reason = match fault {
        TokenFault::Refused { code, .. } if code.is_known() => code.as_str(),
        _ => fault.reason(),
    };
    (outcome, reason.to_owned())
}

/// The reason for which tokens are not revoked while too many others wait.
const TOO_MANY: &str = "TOO_MANY_REVOCATIONS";
/// The reason for which tokens are not revoked that wait when the server stops.
const STOPPING: &str = "SERVER_STOPPING";
