//! Log-ins that connectors check.

use std::time::Duration;

use jackfield_domain::connector::{Connector, ConnectorKind, Generic};
use jackfield_domain::error::Precondition;
use jackfield_domain::login::{AcceptedLogin, LoginAttempt, LoginOutcome};
use jackfield_domain::principal::right::ConnectorsAuthenticate;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::routing::{RouteReason, RouteTarget};
use jackfield_domain::user::{ExternalUser, login_key};
use jackfield_domain::{ConnectorId, Error, Resource, Result, Violation};
use jackfield_upstream::login::{LoginFault, LoginResponse, authenticate};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::outbound::ConnectorClient;
use crate::services::Services;

/// The settings of log-ins.
#[derive(Clone, Copy, Debug)]
pub struct LoginSettings {
    /// Log-ins that are not accepted are answered after a whole number of these intervals, so that the time of a rejection
    /// does not say why.
    pub rejection_interval: Duration,
}

/// The time before the caller's deadline at which a system must have answered, so that the caller still gets the outcome.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// The outcome of a log-in, and the connector that was asked last.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    pub outcome: LoginOutcome,
    pub connector: ConnectorId,
}

// === impl Services ===

impl Services {
    /// Has a connector check a log-in: the one that is named, or those of the routing policy in their order. The password is sent to
    /// each system once at most, and not stored.
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
            Some(reference) => self.ask(caller, reference, attempt, deadline).await?,
            None => self.ask_in_turn(caller, attempt, deadline).await?,
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
        let mut login: Option<Login> = None;
        for route in self.routes(caller.tenant(), &attempt.login_id).await? {
            let connector = match (route.target, &login) {
                (RouteTarget::Connector(connector), _) => connector,
                (RouteTarget::Connection(connection), None) => {
                    let (reason, resource) = (Precondition::ConnectionRequired, Resource::Connection);
                    let message = "the user logs in with a connection, not with a password";
                    return Err(Error::precondition(reason, resource, connection, message));
                }
                // Connectors before it may know the user. They did not accept the log-in, and no password goes further.
                (RouteTarget::Connection(_), Some(_)) => break,
            };
            let next = self.ask(caller, &Ref::Id(connector.0), attempt, deadline).await?;
            if matches!(next.outcome, LoginOutcome::Accepted(_)) {
                if route.reason != RouteReason::Pinned {
                    self.user_pin(caller, &attempt.login_id, connector).await;
                }
                return Ok(next);
            }
            // A system that could not be asked may know the user, whatever the others say.
            let is_fault = login.is_some_and(|login| login.outcome == LoginOutcome::UpstreamFault);
            let outcome = if is_fault { LoginOutcome::UpstreamFault } else { next.outcome };
            login = Some(Login { outcome, connector });
        }
        login.ok_or_else(|| Error::internal("routes without a first one"))
    }

    /// Asks the system of a connector, unless the user was migrated from it.
    pub(crate) async fn ask<R>(
        &self,
        caller: &Caller<R>,
        reference: &Ref,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Login> {
        let usable = |connector: &Connector| generic(connector).map(|_| ());
        let found = self.shared.outbound.client(caller.tenant(), reference, usable).await?;
        let ConnectorClient { connector, client } = found;
        let Generic { authentication_url, migrate_users, .. } = generic(&connector)?;
        if *migrate_users && let Some(outcome) = self.ask_here(caller, connector.id, attempt).await? {
            return Ok(Login { outcome, connector: connector.id });
        }
        let outcome = match client {
            Ok(client) => match authenticate(&client, authentication_url, attempt, deadline).await {
                Ok(LoginResponse::Accepted(accepted)) => {
                    match *migrate_users && !self.migrate_user(caller, connector.id, &accepted, attempt).await {
                        true => LoginOutcome::Rejected,
                        false => LoginOutcome::Accepted(accepted),
                    }
                }
                Ok(LoginResponse::Rejected) => LoginOutcome::Rejected,
                Err(fault) => {
                    report(&connector, fault.reason(), &fault);
                    LoginOutcome::UpstreamFault
                }
            },
            Err(error) => {
                report(&connector, LoginFault::DEFINITION_INVALID, &error);
                LoginOutcome::UpstreamFault
            }
        };
        Ok(Login { outcome, connector: connector.id })
    }

    /// Checks the log-in of a user who was migrated from a connector; `None` for any other user.
    async fn ask_here<R>(
        &self,
        caller: &Caller<R>,
        connector: ConnectorId,
        attempt: &LoginAttempt,
    ) -> Result<Option<LoginOutcome>> {
        let (tenant, login_id) = (caller.tenant(), attempt.login_id.as_str());
        let known = self.shared.store.read().user_fetch_by_login(tenant, &login_key(login_id)).await?;
        if known.is_none_or(|user| user.connector != Some(connector)) {
            return Ok(None);
        }
        let user = match attempt.chosen_password() {
            Some(password) => self.authenticate_local(tenant, login_id, &password).await?,
            None => None,
        };
        let accepted = user.filter(|user| user.connector == Some(connector)).map(AcceptedLogin::from);
        Ok(Some(accepted.map_or(LoginOutcome::Rejected, |accepted| LoginOutcome::Accepted(Box::new(accepted)))))
    }

    /// Stores a user whom the system has accepted. If that fails, the system is asked at the next log-in, too. Returns false if the user
    /// was stored before, under another login id, and is disabled.
    async fn migrate_user<R>(
        &self,
        caller: &Caller<R>,
        connector: ConnectorId,
        accepted: &AcceptedLogin,
        attempt: &LoginAttempt,
    ) -> bool {
        let Some(password) = attempt.chosen_password() else { return true };
        let user = ExternalUser::from(accepted.clone());
        match self.user_migrate(caller, connector, user, &password).await {
            Ok(user) => user.enabled,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, connector.id = %connector, "a user could not be migrated");
                true
            }
        }
    }
}

/// The time until which a system may take to answer, if the caller waits until a deadline.
pub(crate) fn before_deadline(deadline: Instant) -> Instant {
    deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline)
}

/// The settings of a connector that can check log-ins.
fn generic(connector: &Connector) -> Result<&Generic> {
    let ConnectorKind::Generic(generic) = &connector.kind else {
        let kind = connector.kind.as_str();
        let description = format!("must name a connector of the kind generic; this one is of the kind {kind}");
        return Err(Violation::field("connector", description).into());
    };
    if !connector.enabled {
        let (reason, resource) = (Precondition::ConnectorDisabled, Resource::Connector);
        return Err(Error::precondition(reason, resource, connector.id, "the connector is disabled"));
    }
    Ok(generic)
}

/// Tells the operator why a log-in could not be checked.
fn report(connector: &Connector, reason: &str, fault: &(dyn std::error::Error + 'static)) {
    tracing::warn!(connector.id = %connector.id, error.type = reason, error = fault, "a log-in could not be checked");
}

/// The smallest whole number of intervals, at least one, that is not shorter than a time.
fn whole(elapsed: Duration, interval: Duration) -> Duration {
    if interval.is_zero() {
        return elapsed;
    }
    let count = elapsed.as_nanos().div_ceil(interval.as_nanos()).max(1);
    u32::try_from(count).ok().and_then(|count| interval.checked_mul(count)).unwrap_or(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_to_whole_intervals() {
        let ms = Duration::from_millis;
        let cases = [(0, 500, 500), (1, 500, 500), (500, 500, 500), (501, 500, 1_000), (7, 0, 7)];
        for (elapsed, interval, expected) in cases {
            assert_eq!(whole(ms(elapsed), ms(interval)), ms(expected), "{elapsed} {interval}");
        }
    }
}
