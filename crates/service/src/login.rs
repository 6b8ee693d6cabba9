//! Log-ins that connectors check.

use std::time::Duration;

use jackfield_domain::attempts::AttemptLimits;
use jackfield_domain::connector::{Connector, ConnectorKind, Generic};
use jackfield_domain::error::Precondition;
use jackfield_domain::login::{AcceptedLogin, LoginAttempt, LoginOutcome};
use jackfield_domain::principal::right::ConnectorsAuthenticate;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::routing::{RouteReason, RouteTarget};
use jackfield_domain::user::{ExternalUser, User, UserOrigin, login_key};
use jackfield_domain::{ConnectorId, Error, Resource, Result, TenantId, Violation};
use jackfield_upstream::login::{LoginFault, LoginResponse, authenticate};
use tokio::time::Instant;

use crate::attempts::CountedBy;
use crate::caller::Caller;
use crate::outbound::ConnectorClient;
use crate::services::Services;
use crate::user::Migrated;

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
    /// The connector that accepted the log-in, or that the caller named. Another one is not told: it would show which users are
    /// pinned.
    pub connector: Option<ConnectorId>,
}

/// The outcome of a log-in that one connector checked.
pub(crate) struct Checked {
    pub(crate) outcome: LoginOutcome,
    pub(crate) connector: ConnectorId,
    /// The stored user whose password was right, if the log-in was checked here.
    pub(crate) user: Option<User>,
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
                let Checked { outcome, connector, user: _ } = checked;
                Login { outcome, connector: Some(connector) }
            }
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
            let next = match self.ask_counted(caller, &Ref::Id(connector.0), attempt, !is_counted, deadline).await {
                Ok(checked) => checked.outcome,
                Err(error) => unusable(connector, error)?,
            };
            is_counted |= next != LoginOutcome::UpstreamFault;
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

    /// As [`Services::ask`], if there are not too many attempts.
    async fn ask_counted<R>(
        &self,
        caller: &Caller<R>,
        reference: &Ref,
        attempt: &LoginAttempt,
        counts_source: bool,
        deadline: Option<Instant>,
    ) -> Result<Checked> {
        let found = self.generic_client(caller.tenant(), reference).await?;
        let (tenant, checker) = (caller.tenant(), found.connector.id.0);
        let by = CountedBy { tenant, checker, attempt, counts_source };
        self.counted(by, self.ask_found(caller, found, attempt, deadline)).await
    }

    /// Asks the system of a connector, unless the user was migrated from it.
    pub(crate) async fn ask<R>(
        &self,
        caller: &Caller<R>,
        reference: &Ref,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Checked> {
        let found = self.generic_client(caller.tenant(), reference).await?;
        self.ask_found(caller, found, attempt, deadline).await
    }

    async fn generic_client(&self, tenant: TenantId, reference: &Ref) -> Result<ConnectorClient> {
        let usable = |connector: &Connector| generic(connector).map(|_| ());
        self.shared.outbound.client(tenant, reference, usable).await
    }

    async fn ask_found<R>(
        &self,
        caller: &Caller<R>,
        found: ConnectorClient,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Checked> {
        let ConnectorClient { connector, client } = found;
        let Generic { authentication_url, migrate_users, .. } = generic(&connector)?;
        if *migrate_users && let Some(user) = self.migrated_user(caller.tenant(), &connector, attempt).await? {
            return self.ask_here(caller.tenant(), &connector, user, attempt).await;
        }
        let fault = match client {
            Ok(client) => match authenticate(&client, authentication_url, attempt, deadline).await {
                Ok(LoginResponse::Accepted(accepted)) if *migrate_users => {
                    return self.accept_to_migrate(caller, &connector, accepted, attempt).await;
                }
                Ok(LoginResponse::Accepted(accepted)) => {
                    return Ok(Checked::new(&connector, LoginOutcome::Accepted(accepted)));
                }
                Ok(LoginResponse::Rejected) => return Ok(Checked::new(&connector, LoginOutcome::Rejected)),
                Err(fault) => fault_of(&connector, fault.reason(), &fault),
            },
            Err(error) => fault_of(&connector, LoginFault::DEFINITION_INVALID, &error),
        };
        Ok(Checked::new(&connector, fault))
    }

    /// The user with this login id, if the user was migrated from a connector.
    async fn migrated_user(
        &self,
        tenant: TenantId,
        connector: &Connector,
        attempt: &LoginAttempt,
    ) -> Result<Option<User>> {
        let known = self.shared.store.read().user_fetch_by_login(tenant, &login_key(attempt.login_id.as_str())).await?;
        Ok(known.filter(|user| user.is_from(&UserOrigin::from(connector))))
    }

    /// Checks the log-in of a user who was migrated from a connector. What is stored decides, whatever the system says.
    async fn ask_here(
        &self,
        tenant: TenantId,
        connector: &Connector,
        user: User,
        attempt: &LoginAttempt,
    ) -> Result<Checked> {
        let is_right = match attempt.chosen_password() {
            Some(password) => self.has_password(tenant, Some(&user), &password).await?,
            None => false,
        };
        Ok(match is_right {
            true => Checked::stored(connector, AcceptedLogin::from(user.clone()), user),
            false => Checked::new(connector, LoginOutcome::Rejected),
        })
    }

    /// Stores a user whom the system has accepted. A user who was stored before, and logs in with something that is not stored, is
    /// checked here. If the user cannot be stored, the system is asked at the next log-in, too.
    async fn accept_to_migrate<R>(
        &self,
        caller: &Caller<R>,
        connector: &Connector,
        accepted: Box<AcceptedLogin>,
        attempt: &LoginAttempt,
    ) -> Result<Checked> {
        let (tenant, origin) = (caller.tenant(), UserOrigin::from(connector));
        if let Some(user) = self.user_from(tenant, &origin, &accepted).await? {
            return self.ask_here(tenant, connector, user, attempt).await;
        }
        if let Some(password) = attempt.chosen_password() {
            match self.user_migrate(caller, origin, ExternalUser::from((*accepted).clone()), &password).await {
                Ok(Migrated::Now(user)) => return Ok(Checked::stored(connector, *accepted, user)),
                Ok(Migrated::Before(user)) => return self.ask_here(tenant, connector, user, attempt).await,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, connector.id = %connector.id, "a user could not be migrated");
                }
            }
        }
        Ok(Checked::new(connector, LoginOutcome::Accepted(accepted)))
    }

    /// The stored user whom the system of a connector has accepted, if the user was migrated from it.
    pub(crate) async fn user_from(
        &self,
        tenant: TenantId,
        origin: &UserOrigin,
        accepted: &AcceptedLogin,
    ) -> Result<Option<User>> {
        let reference = Ref::External(accepted.user.id.to_string());
        let found = self.shared.store.read().find::<User>(tenant, &reference).await?;
        Ok(found.filter(|user| user.is_from(origin)))
    }
}

// === impl Checked ===

impl Checked {
    /// The outcome that a system decided.
    fn new(connector: &Connector, outcome: LoginOutcome) -> Self {
        Checked { outcome, connector: connector.id, user: None }
    }

    /// The log-in of a stored user, whose password is right.
    fn stored(connector: &Connector, accepted: AcceptedLogin, user: User) -> Self {
        Checked { outcome: LoginOutcome::Accepted(Box::new(accepted)), connector: connector.id, user: Some(user) }
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

/// Tells the operator why a log-in could not be checked.
fn fault_of(connector: &Connector, reason: &str, fault: &(dyn std::error::Error + 'static)) -> LoginOutcome {
    tracing::warn!(connector.id = %connector.id, error.type = reason, error = fault, "a log-in could not be checked");
    LoginOutcome::UpstreamFault
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
