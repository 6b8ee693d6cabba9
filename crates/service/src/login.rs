//! Log-ins that connectors check.

use std::time::{Duration, Instant};

use jackfield_domain::connector::{Connector, ConnectorKind, Generic};
use jackfield_domain::error::Precondition;
use jackfield_domain::login::{LoginAttempt, LoginOutcome};
use jackfield_domain::principal::right::ConnectorsAuthenticate;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::routing::{RouteReason, RouteTarget};
use jackfield_domain::{ConnectorId, Error, Resource, Result, TenantId, Violation};
use jackfield_upstream::login::{LoginFault, LoginResponse, authenticate};

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
    ) -> Result<Login> {
        let start = Instant::now();
        let login = match reference {
            Some(reference) => self.ask(caller.tenant(), reference, attempt).await?,
            None => self.ask_in_turn(caller, attempt).await?,
        };
        if !matches!(login.outcome, LoginOutcome::Accepted(_)) {
            let elapsed = start.elapsed();
            tokio::time::sleep(whole(elapsed, self.shared.login.rejection_interval) - elapsed).await;
        }
        Ok(login)
    }

    /// Asks the connectors of the routing policy until one accepts, and pins the user to that one.
    async fn ask_in_turn(&self, caller: &Caller<ConnectorsAuthenticate>, attempt: &LoginAttempt) -> Result<Login> {
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
            let next = self.ask(caller.tenant(), &Ref::Id(connector.0), attempt).await?;
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

    async fn ask(&self, tenant: TenantId, reference: &Ref, attempt: &LoginAttempt) -> Result<Login> {
        let ConnectorClient { connector, client } = self.shared.outbound.client(tenant, reference).await?;
        let Generic { authentication_url, .. } = generic(&connector)?;
        let outcome = match client {
            Ok(client) => match authenticate(&client, authentication_url, attempt, None).await {
                Ok(LoginResponse::Accepted(accepted)) => LoginOutcome::Accepted(accepted),
                Ok(LoginResponse::Rejected { status }) => {
                    if status.as_u16() != 404 {
                        let status = status.as_u16();
                        tracing::info!(
                            connector.id = %connector.id,
                            http.response.status_code = status,
                            "a log-in was rejected with a status other than 404"
                        );
                    }
                    LoginOutcome::Rejected
                }
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
