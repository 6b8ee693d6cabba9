//! Log-ins and sessions of applications whose users a licence server knows. It is asked whenever a session is used, with
//! the token that it gave at the log-in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jackfield_domain::application::{
    Application, CompanyPermissions, LICENSE_TOKEN_COLUMN, MAX_COMPANIES, Session, SessionHolder, SessionPermissions,
    USE_APP, UserProfile,
};
use jackfield_domain::connector::{Connector, ConnectorKind, EventOperation, EventOutcome, License};
use jackfield_domain::login::{LoginAttempt, LoginId, LoginReason};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::text::{CompanyId, PermissionSlug, UserId};
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{ConnectorId, Error, Result, Secret, SecretAddress, Violation};
use jackfield_upstream::client::{Client, StatusCode};
use jackfield_upstream::license::{
    self, Authentication, BodyFlaw, Grant, LicenseApi, LicenseFault, Profile, Rejection, TokenResponse,
};
use jackfield_upstream::login::LoginFault;
use tokio::time::Instant;

use super::authenticate::{Identified, Licensed, Verdict};
use super::session::no_session;
use crate::caller::Caller;
use crate::change::Change;
use crate::events::{CheckedLogin, Finding};
use crate::login::{report, require_connector_enabled};
use crate::outbound::ConnectorClient;
use crate::services::Services;

/// A licence server that can be asked for an application.
struct LicenseServer {
    connector: Arc<Connector>,
    client: Arc<Client>,
    base_url: HttpUrl,
    /// The id that the server knows the application by.
    module: String,
    deadline: Option<Instant>,
}

/// A licence server and the token of a session.
pub(super) struct LicensedSession {
    server: LicenseServer,
    token: Secret,
}

/// The wait before a licence server is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Services ===

impl Services {
    /// Has the licence server of a connector check a log-in. The token of the user is used at once, for the profile.
    pub(super) async fn license_verdict<R>(
        &self,
        caller: &Caller<R>,
        (application, connector): (&Application, ConnectorId),
        attempt: &LoginAttempt,
        deadline: Option<Instant>,
    ) -> Result<Verdict> {
        let start = Instant::now();
        let ConnectorClient { connector, client } = self.license_client(caller, connector).await?;
        let module = module_of(settings(&connector)?, application);
        let (operation, application_id) = (EventOperation::AuthenticateApplicationUser, Some(&*module));
        let record = |outcome, finding| {
            let connector = &connector;
            let login = CheckedLogin { operation, connector, attempt, application_id, start, outcome, finding };
            self.shared.events.record(caller, login);
        };
        let checked = match client {
            Ok(client) => LicenseServer::of(connector.clone(), client, application, deadline)?.log_in(attempt).await,
            Err(error) => {
                report(&connector, LoginFault::DEFINITION_INVALID, &error);
                record(EventOutcome::UpstreamFault, Finding::fault(LoginFault::DEFINITION_INVALID, None, &error));
                return Ok(Verdict::UpstreamFault { was_asked: false });
            }
        };
        let (verdict, outcome, finding) = match checked {
            Ok(Ok((identified, status))) => {
                let finding = Finding::checked(LoginReason::SystemAccepted, Some(status.as_u16()));
                (Verdict::Accepted(Box::new(identified)), EventOutcome::Accepted, finding)
            }
            Ok(Err(Rejection { status, .. })) => {
                let finding = Finding::checked(LoginReason::SystemRejected, Some(status.as_u16()));
                (Verdict::Rejected, EventOutcome::Rejected, finding)
            }
            Err((fault, was_asked)) => {
                report(&connector, fault.reason(), &fault);
                let finding = Finding::fault(fault.reason(), fault.status().map(|status| status.as_u16()), &fault);
                (Verdict::UpstreamFault { was_asked }, EventOutcome::UpstreamFault, finding)
            }
        };
        record(outcome, finding);
        Ok(verdict)
    }

    /// The licence server of a session of an application, and the token that it gave. A token goes to no other server.
    pub(super) async fn licensed_session<R>(
        &self,
        caller: &Caller<R>,
        (application, session, base_url): (&Application, &Session, &HttpUrl),
        deadline: Option<Instant>,
    ) -> Result<LicensedSession> {
        let connector = application.connector.ok_or_else(no_session)?;
        let ConnectorClient { connector, client } = self.license_client(caller, connector).await?;
        let client = client.map_err(|error| unavailable(&connector, LoginFault::DEFINITION_INVALID, &error))?;
        let server = LicenseServer::of(connector, client, application, deadline)?;
        if !server.base_url.has_same_origin(base_url) {
            return Err(self.other_server(caller, server.connector.id, session, base_url).await?);
        }
        let address = SecretAddress::of(caller.tenant(), session.id, LICENSE_TOKEN_COLUMN);
        // Without a token the session has just ended.
        let token = self.shared.secrets.text(None, address).await?.ok_or_else(no_session)?;
        Ok(LicensedSession { server, token })
    }

    /// Ends a session that another server has opened, and returns the error for that; unless another replica has changed the connector a
    /// moment ago.
    async fn other_server<R>(
        &self,
        caller: &Caller<R>,
        connector: ConnectorId,
        session: &Session,
        base_url: &HttpUrl,
    ) -> Result<Error> {
        let connector = self.find::<Connector>(caller.tenant(), &Ref::Id(connector.0)).await?;
        if settings(&connector)?.base_url.has_same_origin(base_url) {
            return Ok(Error::ServerUnavailable { retry_after: RETRY_AFTER });
        }
        self.session_discard(caller, session).await;
        Ok(no_session())
    }

    /// The profile of the user of a session.
    pub(super) async fn license_profile<R>(
        &self,
        caller: &Caller<R>,
        session: &Session,
        LicensedSession { server, token }: LicensedSession,
    ) -> Result<UserProfile> {
        let response = async { server.api()?.profile(&token).await };
        let profile = self.if_token_valid(caller, session, &server.connector, response.await).await?;
        Ok(profile_of(profile))
    }

    /// The permissions of the user of a session, as far as the vocabulary of the application has them.
    pub(super) async fn license_permissions<R>(
        &self,
        caller: &Caller<R>,
        (application, session): (&Application, &Session),
        LicensedSession { server, token }: LicensedSession,
    ) -> Result<SessionPermissions> {
        let response = async { server.api()?.permissions(&token).await };
        let found = self.if_token_valid(caller, session, &server.connector, response.await).await?;
        let companies = companies_of(found).map_err(|flaw| unavailable(&server.connector, flaw.reason(), &flaw))?;
        Ok(application.permitted(companies))
    }

    async fn license_client<R>(&self, caller: &Caller<R>, connector: ConnectorId) -> Result<ConnectorClient> {
        let usable = |connector: &Connector| settings(connector).map(|_| ());
        self.shared.outbound.client(caller.tenant(), &Ref::Id(connector.0), usable).await
    }

    /// Returns what a licence server responded to the token of a session. If the server does not accept the token, the session ends.
    async fn if_token_valid<R, T>(
        &self,
        caller: &Caller<R>,
        session: &Session,
        connector: &Connector,
        response: Result<TokenResponse<T>, LicenseFault>,
    ) -> Result<T> {
        match response {
            Ok(TokenResponse::Valid(value)) => Ok(value),
            Ok(TokenResponse::TokenInvalid(_)) => {
                self.session_discard(caller, session).await;
                Err(no_session())
            }
            Err(fault) => Err(unavailable(connector, fault.reason(), &fault)),
        }
    }

    /// Ends a session that cannot be used any more. If that fails, the next use finds the same.
    async fn session_discard<R>(&self, caller: &Caller<R>, session: &Session) {
        let discard = async |txn: &jackfield_store::Writer| txn.session_delete(caller.tenant(), session.id).await;
        if let Err(error) = self.change(Change::on_behalf_of(caller), discard).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, session.id = %session.id, "a session could not be ended");
        }
    }
}

// === impl LicenseServer ===

impl LicenseServer {
    /// Takes the connector of an application and its client.
    fn of(
        connector: Arc<Connector>,
        client: Arc<Client>,
        application: &Application,
        deadline: Option<Instant>,
    ) -> Result<Self> {
        let settings = settings(&connector)?;
        let (base_url, module) = (settings.base_url.clone(), module_of(settings, application));
        Ok(LicenseServer { connector, client, base_url, module, deadline })
    }

    fn api(&self) -> Result<LicenseApi<'_>, LicenseFault> {
        LicenseApi::new(&self.client, &self.base_url, &self.module, self.deadline)
    }

    /// Logs a user in, and returns the status by which the server accepts that, or says how it rejects it. With a fault comes false if the
    /// password provably did not leave.
    async fn log_in(
        &self,
        attempt: &LoginAttempt,
    ) -> Result<Result<(Identified, StatusCode), Rejection>, (LicenseFault, bool)> {
        let api = self.api().map_err(|fault| (fault, false))?;
        let response = api.authenticate(attempt.login_id.as_str(), &attempt.password).await;
        match response.map_err(with_sent)? {
            Authentication::Accepted(grant) => {
                let status = grant.status;
                let identified = self.identify(&api, attempt, grant).await;
                identified.map(|identified| Ok((identified, status))).map_err(|fault| (fault, true))
            }
            Authentication::Rejected(rejection) => Ok(Err(rejection)),
        }
    }

    /// The user to whom the server gave a token.
    async fn identify(
        &self,
        api: &LicenseApi<'_>,
        attempt: &LoginAttempt,
        grant: Grant,
    ) -> Result<Identified, LicenseFault> {
        let profile = match api.profile(&grant.token).await? {
            TokenResponse::Valid(profile) => profile,
            TokenResponse::TokenInvalid(rejection) => {
                return Err(LicenseFault::Status { status: rejection.status, code: rejection.code });
            }
        };
        let Grant { token, companies, status } = grant;
        let unusable = |flaw| LicenseFault::Body { status, flaw };
        Ok(Identified {
            user_id: user_id(&profile, &attempt.login_id).map_err(unusable)?,
            holder: SessionHolder::License { base_url: self.base_url.clone() },
            version: None,
            profile: profile_of(profile),
            licensed: Some(Licensed { token, companies: companies_of(companies).map_err(unusable)? }),
        })
    }
}

/// The id that a licence server knows an application by.
fn module_of(settings: &License, application: &Application) -> String {
    application.external_id.clone().map_or_else(|| settings.application_id.clone(), String::from)
}

/// A fault of the first request, with whether it may have arrived.
fn with_sent(fault: LicenseFault) -> (LicenseFault, bool) {
    let was_sent = fault.was_sent();
    (fault, was_sent)
}

/// The settings of a connector that can be used for a licence server.
fn settings(connector: &Connector) -> Result<&License> {
    let ConnectorKind::License(settings) = &connector.kind else {
        return Err(Error::internal("a connector of another kind than license"));
    };
    require_connector_enabled(connector)?;
    Ok(settings)
}

/// The id of a user: the email address, because responses have no id. A user without one, or with one that is too long for an
/// id, has the login id.
fn user_id(profile: &Profile, login_id: &LoginId) -> Result<UserId, BodyFlaw> {
    let mut candidates = [profile.email.as_str(), login_id.as_str()].map(str::trim).into_iter();
    let usable = candidates.find_map(|id| UserId::parse("user_id", id).ok());
    usable.ok_or_else(|| BodyFlaw::Field("email is missing, and the login id is too long for an id".to_owned()))
}

fn profile_of(profile: Profile) -> UserProfile {
    let Profile { first_name, last_name, email } = profile;
    UserProfile { first_name, last_name, email, ..UserProfile::default() }
}

/// Companies as they are kept here. A slug that no vocabulary can have is left out.
fn companies_of(found: Vec<license::CompanyPermissions>) -> Result<Vec<CompanyPermissions>, BodyFlaw> {
    let invalid = |Violation { field, description, .. }| BodyFlaw::Field(format!("{field} {description}"));
    let company = |company: license::CompanyPermissions| {
        let license::CompanyPermissions { company_id, company_name, permissions } = company;
        let company_id = CompanyId::parse("permissions.company_id", &company_id).map_err(invalid)?;
        let company_name = if company_name.is_empty() { company_id.as_str().to_owned() } else { company_name };
        let slugs = permissions.iter().filter_map(|slug| PermissionSlug::parse("permissions", slug).ok());
        Ok(CompanyPermissions { company_id, company_name, permissions: BTreeSet::from_iter(slugs) })
    };
    if found.len() as u64 > MAX_COMPANIES {
        return Err(BodyFlaw::Field(format!("permissions has more than {MAX_COMPANIES} companies with {USE_APP}")));
    }
    found.into_iter().map(company).collect()
}

/// Tells the operator why a session could not be checked, and makes the error for the caller.
fn unavailable(connector: &Connector, reason: &str, fault: &(dyn std::error::Error + 'static)) -> Error {
    tracing::warn!(connector.id = %connector.id, error.type = reason, error = fault, "a session could not be checked");
    Error::UpstreamUnavailable { connector: connector.id.to_string(), retry_after: RETRY_AFTER }
}
