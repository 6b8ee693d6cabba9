//! Sessions: the use of an application by a user who has logged in.

use jackfield_domain::application::{
    Application, Session, SessionHolder, SessionPermissions, SessionRef, SessionToken, TokenDigest, UserProfile,
};
use jackfield_domain::principal::right::{ApplicationsAuthenticate, ApplicationsRead};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user::User;
use jackfield_domain::{Error, Resource, Result};
use jackfield_vault::sha256;
use tokio::time::Instant;

use super::license::LicensedSession;
use super::require_enabled;
use crate::caller::Caller;
use crate::change::{Change, Length, RequestOptions};
use crate::list::Listable;
use crate::login::before_deadline;
use crate::services::Services;

/// The user of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionUser {
    pub session: Session,
    pub profile: UserProfile,
}

/// The permissions of the user of a session, and the session.
#[derive(Clone, Debug, PartialEq)]
pub struct PermittedSession {
    pub session: Session,
    pub permissions: SessionPermissions,
}

/// A session that can be used, its user, and its application.
struct LiveSession {
    application: Application,
    session: Session,
    user: LiveUser,
}

/// The user of a session that can be used.
enum LiveUser {
    Known(Box<UserProfile>),
    /// The licence server has to be asked.
    Licensed(Box<LicensedSession>),
}

// === impl Services ===

impl Services {
    /// The user of a session of an application.
    pub async fn session_user(
        &self,
        caller: &Caller<ApplicationsAuthenticate>,
        application: &Ref,
        token: &SessionToken,
        deadline: Option<Instant>,
    ) -> Result<SessionUser> {
        let LiveSession { session, user, .. } = self.live_session(caller, application, token, deadline).await?;
        let profile = match user {
            LiveUser::Known(profile) => *profile,
            LiveUser::Licensed(licensed) => self.license_profile(caller, &session, *licensed).await?,
        };
        Ok(SessionUser { session, profile })
    }

    /// The permissions of the user of a session of an application, as they are now.
    pub async fn session_permissions(
        &self,
        caller: &Caller<ApplicationsAuthenticate>,
        application: &Ref,
        token: &SessionToken,
        deadline: Option<Instant>,
    ) -> Result<PermittedSession> {
        let live = self.live_session(caller, application, token, deadline).await?;
        let LiveSession { application, session, user } = live;
        let permissions = match user {
            LiveUser::Known(_) => {
                let (read, id) = (self.shared.store.read(), application.id);
                application.granted(read.permission_grants_of_user(caller.tenant(), id, &session.user_id).await?)
            }
            LiveUser::Licensed(licensed) => {
                self.license_permissions(caller, (&application, &session), *licensed).await?
            }
        };
        Ok(PermittedSession { permissions, session })
    }

    /// Ends a session, which is one of the application if one is named. Returns whether there was one. A disabled application does not keep its sessions from
    /// being ended.
    pub async fn session_end(
        &self,
        caller: &Caller<ApplicationsAuthenticate>,
        request: &RequestOptions,
        application: Option<&Ref>,
        session: &SessionRef,
    ) -> Result<bool> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let application = match application {
                Some(application) => Some(super::find(txn, tenant, application).await?),
                None => None,
            };
            let found = match session {
                SessionRef::Id(id) => txn.fetch::<Session>(tenant, *id).await?,
                SessionRef::Token(token) => txn.session_find(tenant, &digest(token)).await?,
            };
            let Some(found) = found.filter(|found| found.is_live(self.now())) else { return Ok(false) };
            application.iter().try_for_each(|application| require_same(application, &found))?;
            txn.session_delete(tenant, found.id).await
        })
        .await
    }

    /// The session with a token, if it can be used in an application: it has not expired, it is one of the application, the
    /// application is enabled, and the user exists and is enabled. A licence server is yet to be asked.
    async fn live_session(
        &self,
        caller: &Caller<ApplicationsAuthenticate>,
        application: &Ref,
        token: &SessionToken,
        deadline: Option<Instant>,
    ) -> Result<LiveSession> {
        let tenant = caller.tenant();
        let application = self.find::<Application>(tenant, application).await?;
        let found = self.shared.store.read().session_find(tenant, &digest(token)).await?;
        let session = found.filter(|found| found.is_live(self.now())).ok_or_else(no_session)?;
        require_same(&application, &session)?;
        require_enabled(&application)?;
        let user = match &session.holder {
            SessionHolder::User(id) => {
                let user = self.shared.store.read().fetch::<User>(tenant, *id).await?;
                LiveUser::Known(Box::new(user.filter(|user| user.enabled).ok_or_else(no_session)?.into()))
            }
            SessionHolder::External(profile) => LiveUser::Known(profile.clone()),
            SessionHolder::License { base_url } => {
                let (of, deadline) = ((&application, &session, base_url), deadline.map(before_deadline));
                LiveUser::Licensed(Box::new(self.licensed_session(caller, of, deadline).await?))
            }
        };
        Ok(LiveSession { application, session, user })
    }
}

impl Listable for Session {
    type Right = ApplicationsRead;
    const LIST: &'static str = "sessions";
}

/// The digest by which a token is looked up.
pub(super) fn digest(token: &SessionToken) -> TokenDigest {
    TokenDigest::new(sha256(token.expose().as_bytes()))
}

/// Refuses a session of another application.
fn require_same(application: &Application, session: &Session) -> Result<()> {
    if session.application == application.id {
        return Ok(());
    }
    Err(Error::ApplicationMismatch { application: application.id.to_string() })
}

/// The error for a token of no session, or of one that has ended. It does not say which.
pub(super) fn no_session() -> Error {
    Error::not_found_by(Resource::Session, None, None)
}
