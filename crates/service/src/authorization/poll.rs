//! The polls for device authorisations (RFC 8628 3.4): the token endpoint is asked until the user has decided.
//!
//! Of several replicas, one has the lease of a session and asks. The time of the next poll and what the provider said about the pace are
//! stored, so that another replica goes on in the same way. A poll whose answer is lost is repeated, later each time (3.5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use jackfield_domain::authorization::{
    AuthorizationEnd, AuthorizationFailure, AuthorizationSession, DEVICE_CODE_COLUMN, DevicePolling,
};
use jackfield_domain::connection::Connection;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{AuthorizationSessionId, ConnectionId, Error, Result, Secret, TenantId, Timestamp};
use jackfield_store::{DueAuthorization, PollLease};
use jackfield_upstream::oauth::{Grant, TokenFailure, TokenFault, TokenResponse};
use jackfield_upstream::oidc::DocumentFault;
use tokio::time::Instant;

use super::account::{AccountClient, unavailable};
use super::redeem::{
    JOURNALED_ATTEMPTS, STORE_ATTEMPTS, detail_of, failure_of, is_refused_for_unknown_reasons, is_unknown_refusal,
    repeated, tokens_of, warn_of_failure,
};
use crate::change::{Change, Length};
use crate::services::Services;

/// The polls of this process that are under way, by connection.
#[derive(Default)]
pub(crate) struct DevicePolls(Mutex<HashMap<Key, usize>>);

type Key = (TenantId, ConnectionId);

/// The place of a poll. Dropping it frees the place.
struct Place {
    polls: Arc<DevicePolls>,
    key: Key,
}

/// The reason why there is no place for a poll.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    Process,
    /// The connection has enough of them, or its tenant.
    Connection,
}

/// A poll that is to be sent.
struct Poll {
    lease: PollLease,
    /// The time before the lease was taken.
    taken: Instant,
    session: AuthorizationSession,
    device_code: Secret,
}

/// The outcome of a poll that has no tokens. The provider may ask for a wait.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The user has not decided.
    Pending(Option<Duration>),
    /// The same, and the provider is asked too often.
    SlowDown(Option<Duration>),
    /// The provider was not asked, or has not looked at the code.
    Unsent(Option<Duration>),
    /// There is no answer, or none that says anything about the session.
    Lost(Option<Duration>),
    End(AuthorizationEnd),
}

/// The interval at which sessions are looked for that are due.
const INTERVAL: Duration = Duration::from_secs(1);
/// The sessions that are looked at in one step.
const STEP: usize = 64;
/// The polls at once, those of one tenant, and those of one connection.
const MAX_POLLS: usize = 64;
const MAX_POLLS_OF_TENANT: usize = 32;
const MAX_POLLS_OF_CONNECTION: usize = 16;
/// The wait after a poll that was refused when another replica had not ended its own: it, or its next start, may store the tokens.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(60);

// === impl Services ===

impl Services {
    /// Polls for the sessions that are due, until the server stops.
    pub(crate) async fn authorizations_poll(&self) {
        while self.shared.stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            if let Err(error) = self.poll_step().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "authorisations that are to be polled for could not be read");
            }
        }
    }

    /// Begins as many polls as there are places for.
    async fn poll_step(&self) -> Result<()> {
        // A connection without room is left out, so that it does not keep those of others back.
        let mut full = Vec::new();
        loop {
            let due = self.shared.store.read().authorizations_due(self.now(), &full, STEP as u64).await?;
            let (count, known) = (due.len(), full.len());
            for DueAuthorization { tenant, id, connection } in due {
                if full.contains(&(tenant, connection)) {
                    continue;
                }
                let place = match self.shared.device_polls.place((tenant, connection)) {
                    Ok(place) => place,
                    Err(Full::Process) => return Ok(()),
                    Err(Full::Connection) => {
                        full.push((tenant, connection));
                        continue;
                    }
                };
                // The tokens are here already, and the code is spent.
                if self.shared.refreshes.authorizations.has(id.0).await {
                    if let Err(error) = self.authorization_recover(id.0).await {
                        log(id, &error);
                    }
                    continue;
                }
                match self.poll_begin(tenant, id).await {
                    Ok(Some(poll)) => self.poll_apart(tenant, poll, place),
                    // Another replica polls, or it has ended.
                    Ok(None) => {}
                    Err(error) => log(id, &error),
                }
            }
            if count < STEP || full.len() == known || self.shared.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Takes the lease of a session, and the code.
    async fn poll_begin(&self, tenant: TenantId, id: AuthorizationSessionId) -> Result<Option<Poll>> {
        let taken = Instant::now();
        let mut begun = None;
        // A lease that is lost is taken again.
        self.change(Change::of_tenant_by_system(tenant, Length::Volatile), async |txn| {
            let found = txn.authorization_fetch_for_update(tenant, id).await?;
            let Some(session) = found.filter(|found| found.state.is_open() && !found.is_overdue(self.now())) else {
                return Ok(());
            };
            let Some(polling) = session.device else { return Ok(()) };
            let timeout = self.shared.refreshes.timeout();
            // A server that takes over must not ask too early either: the request may leave as late as `timeout` from now.
            let length = (timeout * 3).max(timeout * 2 + polling.wait());
            let Some(lease) = txn.authorization_poll_take(tenant, id, length).await? else { return Ok(()) };
            // One that cannot be read does not keep the lease from being stored: it would stay the first that is due.
            let device_code = self.secret_of(txn, tenant, &session, DEVICE_CODE_COLUMN).await;
            begun = Some(device_code.map(|device_code| Poll { lease, taken, session, device_code }));
            Ok(())
        })
        .await?;
        begun.transpose()
    }

    /// Polls in a task of its own, for which the end of the server waits: the answer may have the tokens.
    fn poll_apart(&self, tenant: TenantId, poll: Poll, place: Place) {
        let services = self.clone();
        self.shared.tasks.spawn(async move {
            if let Err(error) = services.poll(tenant, &poll).await {
                log(poll.session.id, &error);
            }
            drop(place);
        });
    }

    async fn poll(&self, tenant: TenantId, poll: &Poll) -> Result<()> {
        let session = &poll.session;
        let connection = self.find::<Connection>(tenant, &Ref::Id(session.connection.0)).await?;
        let client = match self.token_client(tenant, &connection).await {
            Ok(client) => client,
            // The connection may be mended before the time of the session is over.
            Err(error) => {
                log(session.id, &error);
                return self.poll_end(tenant, poll, Outcome::Unsent(None)).await;
            }
        };
        // The code would go to an endpoint, or be that of a client, that the user was not asked about.
        if client.facts(&connection) != session.client {
            let end = AuthorizationEnd::failed(AuthorizationFailure::ConnectionChanged, "");
            return self.poll_end(tenant, poll, Outcome::End(end)).await;
        }
        let of = AccountClient { tenant, connection: &connection, client: &client };
        let source = match self.account_source(of, session).await {
            Ok(source) => source,
            Err(fault) => {
                log_documents(session.id, &fault);
                let outcome = match fault.is_transient() {
                    true => Outcome::Unsent(None),
                    false => Outcome::End(unavailable(&fault)),
                };
                return self.poll_end(tenant, poll, outcome).await;
            }
        };
        // The answer may have the tokens, of which there would be no other copy.
        if let Err(error) = self.shared.refreshes.authorizations.writable().await {
            log(session.id, &error);
            return self.poll_end(tenant, poll, Outcome::Unsent(None)).await;
        }
        let received = self.poll_send(of, poll).await;
        let tokens = received
            .and_then(|(response, asked)| tokens_of(Ok(response), &session.scopes, asked).map_err(Outcome::End));
        match tokens {
            Ok(oauth) => self.device_approved(of, session, &source, oauth).await,
            Err(outcome) => self.poll_end(tenant, poll, outcome).await,
        }
    }

    /// Sends a poll. Returns the tokens, and the time before the request.
    async fn poll_send(&self, of: AccountClient<'_>, poll: &Poll) -> Result<(TokenResponse, Timestamp), Outcome> {
        let timeout = self.shared.refreshes.timeout();
        // The lease must last until the answer is there, and so must the session: tokens
        // that come later cannot be stored in it.
        let ends_early =
            poll.session.expire_time <= self.now().plus_micros(i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX));
        if ends_early || poll.taken.elapsed() > timeout {
            return Err(Outcome::Unsent(None));
        }
        let (asked, deadline) = (self.now(), Some(Instant::now() + timeout));
        let is_repeat = poll.session.device.is_some_and(|polling| polling.is_answer_lost);
        let grant = Grant::DeviceCode { device_code: &poll.device_code };
        let parameters = of.connection.settings.token_parameters.as_map();
        let response = of.client.exchange(&grant, parameters, deadline).await;
        response.map(|response| (response, asked)).map_err(|fault| match Outcome::of(&fault, is_repeat) {
            // The server that died may have the tokens in its journal. If not, the next poll is refused as well.
            Outcome::End(_) if fault.class() == TokenFailure::Grant && poll.lease.is_taken_over && !is_repeat => {
                Outcome::Lost(Some(TAKE_OVER_WAIT))
            }
            outcome => outcome,
        })
    }

    /// Ends a session, or plans its next poll. Nothing changes if another replica polls by now.
    async fn poll_end(&self, tenant: TenantId, poll: &Poll, outcome: Outcome) -> Result<()> {
        let polling = poll.session.device.unwrap_or_else(|| DevicePolling::new(None));
        let (polling, wait, end) = match outcome {
            Outcome::Pending(wait) => (polling.answered(), wait, None),
            Outcome::SlowDown(wait) => (polling.slowed_down(), wait, None),
            Outcome::Unsent(wait) => (polling.unsent(), wait, None),
            Outcome::Lost(wait) => (polling.lost(), wait, None),
            Outcome::End(end) => (polling, None, Some(end)),
        };
        let (wait, end) = (wait.unwrap_or_default().max(polling.wait()), end.as_ref());
        let is_news = end.is_some() || poll.session.device != Some(polling);
        let length = if is_news { Length::Short } else { Length::Volatile };
        let written = || {
            let work = self.change(Change::of_tenant_by_system(tenant, length), async |txn| {
                let found = txn.authorization_fetch_for_update(tenant, poll.session.id).await?;
                let Some(mut found) = found.filter(|found| found.state.is_open() && !found.is_overdue(self.now()))
                else {
                    return Ok(false);
                };
                if !txn.authorization_poll_release(&poll.lease, wait).await? {
                    return Ok(false);
                }
                match end {
                    Some(end) => drop(self.end(txn, tenant, found, end.clone()).await?),
                    None if found.device != Some(polling) => {
                        found.device = Some(polling);
                        txn.authorization_replace(tenant, &found).await?;
                    }
                    None => {}
                }
                Ok(true)
            });
            work.boxed()
        };
        // An end and a new pace come from an answer that does not come again. A plan alone is made again when the lease is over.
        let attempts = match (end, is_news) {
            (Some(_), _) => STORE_ATTEMPTS,
            (None, true) => JOURNALED_ATTEMPTS,
            (None, false) => 1,
        };
        let is_written = repeated(attempts, written).await?;
        if let Some(end) = end.filter(|_| is_written) {
            warn_of_failure(&poll.session, end);
            self.shared.changed_authorizations.tell(poll.session.id);
        }
        Ok(())
    }
}

// === impl Outcome ===

impl Outcome {
    /// The outcome of a fault. The answer before it is lost if `is_repeat`, and may have had the tokens.
    fn of(fault: &TokenFault, is_repeat: bool) -> Self {
        let code = match fault {
            TokenFault::Refused { code, .. } => code.as_str(),
            TokenFault::Call(_)
            | TokenFault::Request(_)
            | TokenFault::Status { .. }
            | TokenFault::BodyMalformed { .. } => "",
        };
        match (code, fault.class()) {
            ("authorization_pending", _) => Outcome::Pending(fault.retry_after()),
            ("slow_down", _) => Outcome::SlowDown(fault.retry_after()),
            // With status 401, it is about the client.
            ("access_denied" | "authorization_declined", TokenFailure::User) => {
                Outcome::End(AuthorizationEnd::of_error(code))
            }
            ("expired_token", _) => Outcome::End(AuthorizationEnd::Expired),
            _ if is_unknown_refusal(fault) => Outcome::End(failure_of(fault)),
            (_, TokenFailure::Grant) if is_repeat => {
                Outcome::End(AuthorizationEnd::failed(AuthorizationFailure::AnswerLost, detail_of(fault)))
            }
            (_, TokenFailure::Transient) if is_refused_for_unknown_reasons(fault) => Outcome::End(failure_of(fault)),
            (_, TokenFailure::Transient) => Outcome::Unsent(fault.retry_after()),
            (_, TokenFailure::Unknown) => Outcome::Lost(fault.retry_after()),
            (
                _,
                TokenFailure::Grant
                | TokenFailure::Connection
                | TokenFailure::Request
                | TokenFailure::User
                | TokenFailure::Pending,
            ) => Outcome::End(failure_of(fault)),
        }
    }
}

// === impl DevicePolls ===

impl DevicePolls {
    /// A place for a poll, if there is room.
    fn place(self: &Arc<Self>, key: Key) -> Result<Place, Full> {
        let mut polls = self.lock();
        if polls.values().sum::<usize>() >= MAX_POLLS {
            return Err(Full::Process);
        }
        let of_connection = polls.get(&key).copied().unwrap_or_default();
        let of_tenant: usize = polls.iter().filter(|((tenant, _), _)| *tenant == key.0).map(|(_, count)| count).sum();
        if of_connection >= MAX_POLLS_OF_CONNECTION || of_tenant >= MAX_POLLS_OF_TENANT {
            return Err(Full::Connection);
        }
        polls.insert(key, of_connection + 1);
        drop(polls);
        Ok(Place { polls: Arc::clone(self), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let mut polls = self.polls.lock();
        match polls.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                polls.remove(&self.key);
            }
        }
    }
}

fn log_documents(id: AuthorizationSessionId, fault: &DocumentFault) {
    let error = fault as &dyn std::error::Error;
    tracing::warn!(error, authorization.id = %id, "the documents of an issuer cannot be had");
}

fn log(id: AuthorizationSessionId, error: &Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, authorization.id = %id, "a poll for an authorisation could not be made");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_have_bounds() {
        let polls = Arc::new(DevicePolls::default());
        let (tenant, connection) = (TenantId::generate(), ConnectionId::generate);
        let first = (tenant, connection());
        let mut places: Vec<Place> = (0..MAX_POLLS_OF_CONNECTION).filter_map(|_| polls.place(first).ok()).collect();
        assert_eq!((places.len(), polls.place(first).err()), (MAX_POLLS_OF_CONNECTION, Some(Full::Connection)));
        places.extend((places.len()..MAX_POLLS_OF_TENANT).filter_map(|_| polls.place((tenant, connection())).ok()));
        assert_eq!(polls.place((tenant, connection())).err(), Some(Full::Connection));
        let other = || (TenantId::generate(), connection());
        places.extend((places.len()..MAX_POLLS).filter_map(|_| polls.place(other()).ok()));
        assert_eq!((places.len(), polls.place(other()).err()), (MAX_POLLS, Some(Full::Process)));
        places.remove(0);
        assert!(polls.place(other()).is_ok());
        places.clear();
        assert!(polls.lock().is_empty());
    }
}
