//! Log-ins to applications.

use std::time::Duration;

use jackfield_domain::application::{
    Application, CompanyPermissions, LICENSE_TOKEN_COLUMN, MAX_SESSIONS, Session, SessionHolder, SessionPermissions,
    SessionToken, UserProfile,
};
use jackfield_domain::attempts::AttemptEnd;
use jackfield_domain::connector::{Connector, ConnectorKind, EventOperation};
use jackfield_domain::login::{AcceptedLogin, LoginAttempt, LoginEvent, LoginId, LoginOutcome};
use jackfield_domain::principal::right::ApplicationsAuthenticate;
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user::{User, UserOrigin};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectorId, Error, Result, Secret, SecretAddress, SessionId, TenantId};
use jackfield_store::Writer;
use jackfield_vault::random_token;
use tokio::time::Instant;

use super::require_enabled;
use super::session::digest;
use crate::attempts::CountedBy;
use crate::caller::Caller;
use crate::change::{Change, lock_parent};
use crate::login::{Checked, before_deadline};
use crate::services::Services;

/// The outcome of a log-in to an application.
pub enum ApplicationLogin {
    Accepted(Box<OpenedSession>),
    /// An unknown user and a wrong password are the same.
    Rejected,
    /// The system of the connector could not be asked, or its response cannot be used.
    UpstreamFault,
}

/// A new session with its token, its user, and the permissions of the user.
pub struct OpenedSession {
    pub token: SessionToken,
    pub session: Session,
    pub profile: UserProfile,
    pub permissions: SessionPermissions,
}

/// The checker of the passwords of an application.
pub(super) enum Authenticator {
    /// The users of the tenant.
    Users,
    /// The system of a generic connector.
    Generic(ConnectorId),
    /// The licence server of a connector.
    License(ConnectorId),
}

/// The answer of an authenticator.
pub(super) enum Verdict {
    Accepted(Box<Identified>),
    Rejected,
    UpstreamFault {
        /// The password may have reached the system.
        was_asked: bool,
    },
}

/// A user whose password is right.
pub(super) struct Identified {
    pub(super) user_id: UserId,
    pub(super) holder: SessionHolder,
    /// The version of a stored user whose password was compared.
    pub(super) version: Option<i64>,
    pub(super) profile: UserProfile,
    /// For a user of a licence server. The permissions of all others are those that are stored.
    pub(super) licensed: Option<Licensed>,
}

/// The token of a user of a licence server, and the permissions of the user.
pub(super) struct Licensed {
    pub(super) token: Secret,
    pub(super) companies: Vec<CompanyPermissions>,
}

/// The wait before a log-in is tried again during which the application got another connector.
const RETRY_AFTER: Duration = Duration::from_millis(500);

// === impl Services ===

impl Services {
    /// Has the password of a user checked, and opens a session if it is right.
    pub async fn application_authenticate(
        &self,
        caller: &Caller<ApplicationsAuthenticate>,
        application: &Ref,
        (login_id, password): (LoginId, Secret),
        event: LoginEvent,
        deadline: Option<Instant>,
    ) -> Result<ApplicationLogin> {
        let (start, deadline) = (Instant::now(), deadline.map(before_deadline));
        let application = self.find::<Application>(caller.tenant(), application).await?;
        require_enabled(&application)?;
        let client_id = match &application.external_id {
            Some(external_id) => external_id.to_string(),
            None => application.id.to_string(),
        };
        let application_id = Some(client_id);
        let attempt = LoginAttempt { login_id, password, application_id, no_jwt: true, new_device: false, event };
        let authenticator = self.authenticator(caller.tenant(), &application).await?;
        // All applications without a connector compare the same passwords.
        let checker = application.connector.map_or(caller.tenant().0, |connector| connector.0);
        let (tenant, login_id, address) = (caller.tenant(), &attempt.login_id, attempt.event.ip_address);
        let by = CountedBy { tenant, checker, login_id, address, counts_source: true };
        let verdict = self.verdict(caller, (&application, authenticator), &attempt, deadline);
        let outcome = match self.counted(by, verdict).await? {
            Verdict::Accepted(identified) => {
                let opened = self.session_open(caller, &application, *identified).await?;
                return Ok(ApplicationLogin::Accepted(Box::new(opened)));
            }
            Verdict::Rejected => ApplicationLogin::Rejected,
            Verdict::UpstreamFault { .. } => ApplicationLogin::UpstreamFault,
        };
        self.delay_rejection(start, deadline).await;
        Ok(outcome)
    }

    /// The checker of the passwords of an application.
    async fn authenticator(&self, tenant: TenantId, application: &Application) -> Result<Authenticator> {
        let Some(connector) = application.connector else { return Ok(Authenticator::Users) };
        let connector = self.find::<Connector>(tenant, &Ref::Id(connector.0)).await?;
        Authenticator::of(&connector).ok_or_else(|| Error::internal("a connector that checks no passwords"))
    }

    /// Has an authenticator check a log-in.
    async fn verdict<R>(
        &self,
        caller: &Caller<R>,
        (application, authenticator): (&Application, Authenticator),
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Verdict> {
        let tenant = caller.tenant();
        let connector = match authenticator {
            Authenticator::Users => {
                let Some(password) = attempt.chosen_password() else { return Ok(Verdict::Rejected) };
                let user = self.authenticate_local(tenant, attempt.login_id.as_str(), &password).await?;
                return Ok(user.map_or(Verdict::Rejected, |user| Verdict::Accepted(Box::new(Identified::from(user)))));
            }
            Authenticator::Generic(connector) => connector,
            Authenticator::License(connector) => {
                return self.license_verdict(caller, (application, connector), attempt, deadline).await;
            }
        };
        let (operation, reference) = (EventOperation::AuthenticateApplicationUser, Ref::Id(connector.0));
        let checked = self.ask(caller, operation, &reference, attempt, deadline).await?;
        let Checked { outcome, was_asked, user, connector: origin } = checked;
        Ok(match (outcome, user) {
            (LoginOutcome::Accepted(_), Some(user)) => Verdict::Accepted(Box::new(Identified::from(user))),
            (LoginOutcome::Accepted(accepted), None) => self.external(tenant, &origin, *accepted).await?,
            (LoginOutcome::Rejected, _) => Verdict::Rejected,
            (LoginOutcome::UpstreamFault, _) => Verdict::UpstreamFault { was_asked },
        })
    }

    /// The verdict on a user whom the system of a connector has accepted. One who was migrated while the connector did so is a user of
    /// the tenant, and can be disabled.
    async fn external(&self, tenant: TenantId, origin: &UserOrigin, accepted: AcceptedLogin) -> Result<Verdict> {
        Ok(match self.user_from(tenant, origin, &accepted).await? {
            Some(user) if !user.enabled => Verdict::Rejected,
            Some(user) => Verdict::Accepted(Box::new(Identified::from(user))),
            None => Verdict::Accepted(Box::new(Identified::from(accepted))),
        })
    }

    /// Opens a session. It ends the oldest one of the user if there are too many.
    async fn session_open(
        &self,
        caller: &Caller<ApplicationsAuthenticate>,
        checked: &Application,
        identified: Identified,
    ) -> Result<OpenedSession> {
        let token = SessionToken::new(random_token()?);
        let Identified { user_id, holder, version, profile, licensed } = identified;
        let opened = self.change(Change::on_behalf_of(caller), async |txn| {
            let tenant = caller.tenant();
            if let Some(version) = version {
                require_unchanged(txn, tenant, &holder, version).await?;
            }
            let application = lock_parent::<Application>(txn, tenant, &Ref::Id(checked.id.0)).await?;
            require_enabled(&application)?;
            if application.connector != checked.connector {
                // Its change ended all sessions of users of the previous connector.
                return Err(Error::ServerUnavailable { retry_after: RETRY_AFTER });
            }
            let now = self.now();
            let lifetime = i64::try_from(application.session_lifetime.as_micros()).unwrap_or(i64::MAX);
            let session = Session {
                id: SessionId::generate(),
                application: application.id,
                user_id,
                holder,
                token_digest: digest(&token),
                expire_time: now.plus_micros(lifetime),
                meta: Meta::new(now),
            };
            txn.sessions_trim(tenant, application.id, &session.user_id, MAX_SESSIONS - 1).await?;
            txn.insert(tenant, &session).await?;
            if let Some(Licensed { token, companies }) = licensed {
                let address = SecretAddress::of(tenant, session.id, LICENSE_TOKEN_COLUMN);
                self.shared.secrets.put(txn, address, token.expose().as_bytes()).await?;
                return Ok((session, application.permitted(companies)));
            }
            let grants = txn.permission_grants_of_user(tenant, application.id, &session.user_id).await?;
            Ok((session, application.granted(grants)))
        });
        let (session, permissions) = opened.await?;
        Ok(OpenedSession { token, session, profile, permissions })
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// The authenticator that a connector is; `None` if it is of a kind that checks no passwords.
    pub(super) fn of(connector: &Connector) -> Option<Self> {
        match connector.kind {
            ConnectorKind::Generic(_) => Some(Authenticator::Generic(connector.id)),
            ConnectorKind::License(_) => Some(Authenticator::License(connector.id)),
            ConnectorKind::ApiKey(_)
            | ConnectorKind::ClientCertificate(_)
            | ConnectorKind::HttpBasic(_)
            | ConnectorKind::OAuth2(_) => None,
        }
    }
}

// === impl AttemptEnd ===

impl From<&Verdict> for AttemptEnd {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Accepted(_) => AttemptEnd::Succeeded,
            Verdict::Rejected => AttemptEnd::Failed,
            Verdict::UpstreamFault { was_asked: true } => AttemptEnd::Failed,
            Verdict::UpstreamFault { was_asked: false } => AttemptEnd::Unchecked,
        }
    }
}

// === impl Identified ===

impl From<User> for Identified {
    fn from(user: User) -> Self {
        Identified {
            user_id: user.user_id.clone(),
            holder: SessionHolder::User(user.id),
            version: Some(user.meta.version),
            profile: UserProfile::from(user),
            licensed: None,
        }
    }
}

impl From<AcceptedLogin> for Identified {
    fn from(accepted: AcceptedLogin) -> Self {
        let AcceptedLogin { user, registrations: _ } = accepted;
        let user_id = UserId::stored(user.id.to_string());
        let profile = UserProfile::from(user);
        let holder = SessionHolder::External(Box::new(profile.clone()));
        Identified { user_id, holder, version: None, profile, licensed: None }
    }
}

/// Refuses a user who was changed since the password was compared. A new password, for example, ends all sessions, and this one was to be
/// opened with the previous one. Other changes of the user wait until the session is open.
async fn require_unchanged(txn: &Writer, tenant: TenantId, holder: &SessionHolder, version: i64) -> Result<()> {
    let SessionHolder::User(id) = holder else { return Ok(()) };
    match txn.fetch_for_update::<User>(tenant, *id).await? {
        Some(user) if user.meta.version == version => Ok(()),
        _ => Err(Error::ServerUnavailable { retry_after: RETRY_AFTER }),
    }
}
