//! The check of one log-in by one connector.

use jackfield_domain::connector::{Connector, ConnectorKind, EventOperation, EventOutcome, Generic};
use jackfield_domain::error::Precondition;
use jackfield_domain::login::{AcceptedLogin, LoginAttempt, LoginOutcome, LoginReason};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user::{ExternalUser, User, UserOrigin, login_key};
use jackfield_domain::{Error, Resource, Result, TenantId, Violation};
use jackfield_upstream::client::StatusCode;
use jackfield_upstream::login::{LoginFault, LoginResponse, authenticate};
use tokio::time::Instant;

use crate::attempts::CountedBy;
use crate::caller::Caller;
use crate::events::{CheckedLogin, Finding};
use crate::outbound::ConnectorClient;
use crate::services::Services;
use crate::user::Migrated;

/// The outcome of a log-in that one connector checked.
pub(crate) struct Checked {
    pub(crate) outcome: LoginOutcome,
    pub(crate) connector: UserOrigin,
    /// The password was compared here, or may have reached the system.
    pub(crate) was_asked: bool,
    /// The stored user whose password was right, if the log-in was checked here.
    pub(crate) user: Option<User>,
}

/// An outcome, and what only operators learn about it.
struct Found {
    outcome: LoginOutcome,
    was_asked: bool,
    user: Option<User>,
    finding: Finding,
}

// === impl Services ===

impl Services {
    /// Asks the system of a connector, if there are not too many attempts ([`Services::ask`]).
    pub(super) async fn ask_counted<R>(
        &self,
        caller: &Caller<R>,
        reference: &Ref,
        attempt: &LoginAttempt,
        counts_source: bool,
        deadline: Option<Instant>,
    ) -> Result<Checked> {
        let client = self.generic_client(caller.tenant(), reference).await?;
        let (tenant, checker) = (caller.tenant(), client.connector.id.0);
        let (login_id, address) = (&attempt.login_id, attempt.event.ip_address);
        let by = CountedBy { tenant, checker, login_id, address, counts_source };
        self.counted(by, self.ask_with(caller, EventOperation::AuthenticateUser, client, attempt, deadline)).await
    }

    /// Asks the system of a connector, unless the user was migrated from it.
    pub(crate) async fn ask<R>(
        &self,
        caller: &Caller<R>,
        operation: EventOperation,
        reference: &Ref,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Checked> {
        let client = self.generic_client(caller.tenant(), reference).await?;
        self.ask_with(caller, operation, client, attempt, deadline).await
    }

    async fn generic_client(&self, tenant: TenantId, reference: &Ref) -> Result<ConnectorClient> {
        let usable = |connector: &Connector| generic(connector).map(|_| ());
        self.shared.outbound.client(tenant, reference, usable).await
    }

    async fn ask_with<R>(
        &self,
        caller: &Caller<R>,
        operation: EventOperation,
        client: ConnectorClient,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Checked> {
        let start = Instant::now();
        let Found { outcome, was_asked, user, finding } = self.check(caller, &client, attempt, deadline).await?;
        let connector = &client.connector;
        let event_outcome = EventOutcome::from(&outcome);
        let application_id = attempt.application_id.as_deref();
        let checked =
            CheckedLogin { operation, connector, attempt, application_id, start, outcome: event_outcome, finding };
        self.shared.events.record(caller, checked);
        Ok(Checked { outcome, connector: UserOrigin::from(&**connector), was_asked, user })
    }

    async fn check<R>(
        &self,
        caller: &Caller<R>,
        ConnectorClient { connector, client }: &ConnectorClient,
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Found> {
        let (tenant, settings) = (caller.tenant(), generic(connector)?);
        if settings.migrate_users
            && let Some(user) = Box::pin(self.migrated_user(tenant, connector, attempt)).await?
        {
            // Futures that most log-ins do without are on the heap, so that the future of every log-in is small.
            return Box::pin(self.check_stored(tenant, user, attempt, None)).await;
        }
        let client = match client {
            Ok(client) => client,
            Err(error) => return Ok(Found::fault(connector, LoginFault::DEFINITION_INVALID, (None, false), error)),
        };
        let response = match authenticate(client, &settings.authentication_url, attempt, self.now(), deadline).await {
            Ok(response) => response,
            Err(fault) => {
                return Ok(Found::fault(connector, fault.reason(), (fault.status(), fault.was_sent()), &fault));
            }
        };
        let status = response.status();
        match response {
            LoginResponse::Rejected(rejection) => {
                if let Some(password) = attempt.chosen_password().filter(|_| settings.migrate_users) {
                    // A user who is stored takes a hash, so another one does, too: where many wait for hashes, both wait.
                    Box::pin(self.check_password(tenant, None, &password)).await?;
                }
                Ok(Found::rejected(rejection.reason(), Some(status)))
            }
            LoginResponse::Accepted { login, ends_by } if settings.migrate_users => {
                Box::pin(self.accept_to_migrate(caller, connector, login, ends_by, attempt)).await
            }
            LoginResponse::Accepted { login, ends_by: _ } => {
                Ok(Found::accepted(login, None, LoginReason::SystemAccepted, Some(status)))
            }
        }
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
    async fn check_stored(
        &self,
        tenant: TenantId,
        user: User,
        attempt: &LoginAttempt,
        status: Option<StatusCode>,
    ) -> Result<Found> {
        let reason = match attempt.chosen_password() {
            Some(password) => self.check_password(tenant, Some(&user), &password).await?,
            // No user here has such a password.
            None => LoginReason::PasswordWrong,
        };
        Ok(match reason {
            LoginReason::PasswordRight => {
                let accepted = Box::new(AcceptedLogin::from(user.clone()));
                Found::accepted(accepted, Some(user), reason, status)
            }
            _ => Found::rejected(reason, status),
        })
    }

    /// Stores a user whom the system has accepted. A user who was stored before, and logs in with something that is not stored, is
    /// checked here. If the user cannot be stored, or is not accepted forever, the system is asked at the next log-in, too.
    async fn accept_to_migrate<R>(
        &self,
        caller: &Caller<R>,
        connector: &Connector,
        accepted: Box<AcceptedLogin>,
        ends_by: Option<&'static str>,
        attempt: &LoginAttempt,
    ) -> Result<Found> {
        let (tenant, origin) = (caller.tenant(), UserOrigin::from(connector));
        let status = Some(StatusCode::OK);
        if let Some(user) = self.user_from(tenant, &origin, &accepted).await? {
            return self.check_stored(tenant, user, attempt, status).await;
        }
        if let Some(user_member) = ends_by {
            tracing::warn!(user_member, connector.id = %connector.id, "a user could not be migrated");
        } else if let Some(password) = attempt.chosen_password() {
            match self.user_migrate(caller, origin, ExternalUser::from((*accepted).clone()), &password).await {
                Ok(Migrated::Now(user)) => {
                    return Ok(Found::accepted(accepted, Some(user), LoginReason::SystemAccepted, status));
                }
                Ok(Migrated::Before(user)) => return self.check_stored(tenant, user, attempt, status).await,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, connector.id = %connector.id, "a user could not be migrated");
                }
            }
        }
        Ok(Found::accepted(accepted, None, LoginReason::UserNotMigrated, status))
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

// === impl Found ===

impl Found {
    fn accepted(
        accepted: Box<AcceptedLogin>,
        user: Option<User>,
        reason: LoginReason,
        status: Option<StatusCode>,
    ) -> Self {
        let finding = Finding::checked(reason, status.map(|status| status.as_u16()));
        Found { outcome: LoginOutcome::Accepted(accepted), was_asked: true, user, finding }
    }

    fn rejected(reason: LoginReason, status: Option<StatusCode>) -> Self {
        let finding = Finding::checked(reason, status.map(|status| status.as_u16()));
        Found { outcome: LoginOutcome::Rejected, was_asked: true, user: None, finding }
    }

    /// A log-in that could not be checked.
    fn fault(
        connector: &Connector,
        reason: &'static str,
        (status, was_asked): (Option<StatusCode>, bool),
        fault: &(dyn std::error::Error + 'static),
    ) -> Self {
        report(connector, reason, fault);
        let finding = Finding::fault(reason, status.map(|status| status.as_u16()), fault);
        Found { outcome: LoginOutcome::UpstreamFault, was_asked, user: None, finding }
    }
}

/// The settings of a connector that can check log-ins.
fn generic(connector: &Connector) -> Result<&Generic> {
    let ConnectorKind::Generic(generic) = &connector.kind else {
        let kind = connector.kind.as_str();
        let description = format!("must name a connector of the kind generic; this one is of the kind {kind}");
        return Err(Violation::field("connector", description).into());
    };
    require_connector_enabled(connector)?;
    Ok(generic)
}

/// Refuses the use of a connector that is disabled.
pub(crate) fn require_connector_enabled(connector: &Connector) -> Result<()> {
    if connector.enabled {
        return Ok(());
    }
    let (reason, resource) = (Precondition::ConnectorDisabled, Resource::Connector);
    Err(Error::precondition(reason, resource, connector.id, "the connector is disabled"))
}

/// Tells the operator why a log-in could not be checked.
pub(crate) fn report(connector: &Connector, reason: &str, fault: &(dyn std::error::Error + 'static)) {
    tracing::warn!(connector.id = %connector.id, error.type = reason, error = fault, "a log-in could not be checked");
}
