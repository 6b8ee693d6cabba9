//! Log-ins that connectors check.

mod check;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jackfield_domain::attempts::AttemptLimits;
use jackfield_domain::error::Precondition;
use jackfield_domain::login::{LoginAttempt, LoginOutcome};
use jackfield_domain::principal::right::ConnectorsAuthenticate;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::routing::{RouteReason, RouteTarget};
use jackfield_domain::{ConnectorId, Error, Resource, Result};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::services::Services;

pub(crate) use check::{Checked, report, require_connector_enabled};

/// The settings of log-ins.
#[derive(Clone, Copy, Debug)]
pub struct LoginSettings {
    /// Log-ins that are not accepted are answered after a whole number of these intervals, so that the time of a rejection
    /// does not say why.
    pub rejection_interval: Duration,
    pub attempts: AttemptLimits,
}

/// The time before the caller's deadline at which a system must have answered, so that the caller still gets the outcome.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// The outcome of a log-in.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    pub outcome: LoginOutcome,
    /// The connector that accepted the log-in, or that the caller named. Another one is not named: it would show which users are
    /// pinned.
    pub connector: Option<ConnectorId>,
}

// === impl Services ===

impl Services {
    /// Has a connector check a log-in: the one that is named, or those of the routing policy in their order. The password is sent to
    /// each connector once at most, and not stored.
    pub async fn user_authenticate(
        &self,
        caller: &Caller<ConnectorsAuthenticate>,
        reference: Option<&Ref>,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Login> {
        let start = Instant::now();
        let deadline = deadline.map(before_deadline);
        let login = match reference {
            Some(reference) => {
                let checked = self.ask_counted(caller, reference, attempt, true, deadline).await?;
                let Checked { outcome, connector, .. } = checked;
                Login { outcome, connector: Some(connector.connector) }
            }
            None => Box::pin(self.ask_in_turn(caller, attempt, deadline)).await?,
        };
        if !matches!(login.outcome, LoginOutcome::Accepted(_)) {
            self.delay_rejection(start, deadline).await;
        }
        Ok(login)
    }

    /// Waits until the next time at which log-ins that began at a time and are not accepted are answered.
    pub(crate) async fn delay_rejection(&self, start: Instant, deadline: Option<Instant>) {
        let end = start + whole(start.elapsed(), self.shared.login.rejection_interval);
        tokio::time::sleep_until(deadline.map_or(end, |deadline| end.min(deadline))).await;
    }

    /// Asks the connectors of the routing policy until one accepts, and pins the user to that one.
    async fn ask_in_turn(
        &self,
        caller: &Caller<ConnectorsAuthenticate>,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Login> {
        let mut outcome = None;
        // True once the log-in is counted for its source, which it is once.
        let mut is_counted = false;
        for route in self.routes(caller.tenant(), &attempt.login_id).await? {
            let connector = match (route.target, &outcome) {
                (RouteTarget::Connector(connector), _) => connector,
                (RouteTarget::Connection(connection), None) => {
                    let (reason, resource) = (Precondition::ConnectionRequired, Resource::Connection);
                    let message = "the user logs in with a connection, not with a password";
                    return Err(Error::precondition(reason, resource, connection, message));
                }
                // Connectors before it may know the user. They did not accept the log-in, and no password goes further.
                (RouteTarget::Connection(_), Some(_)) => break,
            };
            let (next, was_asked) =
                match self.ask_counted(caller, &Ref::Id(connector.0), attempt, !is_counted, deadline).await {
                    Ok(checked) => (checked.outcome, checked.was_asked),
                    Err(error) => (unusable(connector, error)?, false),
                };
            is_counted |= was_asked;
            let is_faulty = outcome == Some(LoginOutcome::UpstreamFault);
            if matches!(next, LoginOutcome::Accepted(_)) {
                // A system before this one that could not be asked may be the one of the user.
                if route.reason != RouteReason::Pinned && !is_faulty {
                    self.user_pin(caller, &attempt.login_id, connector).await;
                }
                return Ok(Login { outcome: next, connector: Some(connector) });
            }
            outcome = Some(if is_faulty { LoginOutcome::UpstreamFault } else { next });
        }
        let outcome = outcome.ok_or_else(|| Error::internal("routes without a first one"))?;
        Ok(Login { outcome, connector: None })
    }
}

/// The time until which a system may take to answer, if the caller waits until a deadline.
pub(crate) fn before_deadline(deadline: Instant) -> Instant {
    deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline)
}

/// The outcome for a connector of a route that cannot be asked at all, because it is disabled or was deleted in between. It is no error of
/// the call: that would show who is pinned to it, and keep other connectors from being asked.
fn unusable(connector: ConnectorId, error: Error) -> Result<LoginOutcome> {
    match error {
        Error::NotFound { .. } | Error::Precondition { reason: Precondition::ConnectorDisabled, .. } => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(connector.id = %connector, error, "a log-in could not be checked");
            Ok(LoginOutcome::UpstreamFault)
        }
        error => Err(error),
    }
}

/// The smallest whole number of intervals, at least one, that is not shorter than a time.
fn whole(elapsed: Duration, interval: Duration) -> Duration {
    if interval.is_zero() {
        return elapsed;
    }
    let count = elapsed.as_nanos().div_ceil(interval.as_nanos()).max(1);
    u32::try_from(count).ok().and_then(|count| interval.checked_mul(count)).unwrap_or(elapsed)
}
