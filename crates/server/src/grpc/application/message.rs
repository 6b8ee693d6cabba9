//! Applications, permissions and sessions as messages.

use jackfield_api::v1 as pb;
use jackfield_domain::application::{
    Application, CompanyPermissions, Permission, PermissionGrant, Session, UserProfile,
};
use jackfield_domain::value::text::PermissionSlug;
use jackfield_service::{ApplicationLogin, ListedPage, OpenedSession, PermittedSession, SessionUser};

use crate::grpc::render;

pub(super) fn applications_to_page(page: ListedPage<Application>) -> pb::ListApplicationsResponse {
    pb::ListApplicationsResponse {
        applications: page.items.into_iter().map(application_to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

pub(super) fn grants_to_page(page: ListedPage<PermissionGrant>) -> pb::ListPermissionsResponse {
    pb::ListPermissionsResponse {
        grants: page.items.into_iter().map(grant_to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

pub(super) fn sessions_to_page(page: ListedPage<Session>) -> pb::ListSessionsResponse {
    pb::ListSessionsResponse {
        sessions: page.items.into_iter().map(session_to_message).collect(),
        next_page_token: page.next_page_token,
    }
}

pub(super) fn application_to_message(application: Application) -> pb::Application {
    let Application { id, name, external_id, enabled, permissions, connector, session_lifetime, labels, meta } =
        application;
    let permission = |Permission { slug, description }| pb::Permission { slug: String::from(slug), description };
    pb::Application {
        id: id.to_string(),
        name: name.into(),
        external_id: external_id.map(String::from),
        enabled: Some(enabled),
        permissions: permissions.into_iter().map(permission).collect(),
        connector: connector.map(|id| id.to_string()),
        session_lifetime: Some(render::duration(session_lifetime)),
        labels: labels.into(),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
        etag: meta.etag(),
    }
}

pub(super) fn grant_to_message(grant: PermissionGrant) -> pb::PermissionGrant {
    let PermissionGrant { id, application, company_id, company_name, user_id, permissions, meta } = grant;
    pb::PermissionGrant {
        id: id.to_string(),
        application: application.to_string(),
        company_id: company_id.into(),
        company_name,
        user_id: user_id.into(),
        permissions: slugs(permissions),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
    }
}

pub(super) fn user_to_message(found: SessionUser) -> pb::GetSessionUserResponse {
    let SessionUser { session, profile } = found;
    let user = Some(profile_to_message(&session, profile));
    pb::GetSessionUserResponse { user, session: Some(session_to_message(session)) }
}

pub(super) fn login_to_message(login: ApplicationLogin) -> pb::AuthenticateApplicationUserResponse {
    let outcome = |outcome: pb::LoginOutcome| pb::AuthenticateApplicationUserResponse {
        outcome: outcome.into(),
        ..Default::default()
    };
    let OpenedSession { token, session, profile, permissions } = match login {
        ApplicationLogin::Accepted(opened) => *opened,
        ApplicationLogin::Rejected => return outcome(pb::LoginOutcome::Rejected),
        ApplicationLogin::UpstreamFault => return outcome(pb::LoginOutcome::UpstreamFault),
    };
    pb::AuthenticateApplicationUserResponse {
        session_token: token.expose().to_owned(),
        user: Some(profile_to_message(&session, profile)),
        session: Some(session_to_message(session)),
        permissions: slugs(permissions.flat().into_iter().cloned()),
        companies: permissions.into_companies().into_iter().map(company_to_message).collect(),
        ..outcome(pb::LoginOutcome::Accepted)
    }
}

pub(super) fn permissions_to_message(found: PermittedSession) -> pb::GetSessionPermissionsResponse {
    let PermittedSession { session, permissions } = found;
    pb::GetSessionPermissionsResponse {
        permissions: slugs(permissions.flat().into_iter().cloned()),
        companies: permissions.into_companies().into_iter().map(company_to_message).collect(),
        session: Some(session_to_message(session)),
    }
}

fn profile_to_message(session: &Session, profile: UserProfile) -> pb::SessionUser {
    let UserProfile { username, email, phone_number, first_name, last_name, data } = profile;
    let (user_id, data) = (session.user_id.to_string(), render::json(data));
    pb::SessionUser { user_id, username, email, phone_number, first_name, last_name, data }
}

fn company_to_message(company: CompanyPermissions) -> pb::CompanyPermissions {
    let CompanyPermissions { company_id, company_name, permissions } = company;
    pb::CompanyPermissions { company_id: company_id.into(), company_name, permissions: slugs(permissions) }
}

fn session_to_message(session: Session) -> pb::Session {
    let Session { id, application, user_id, holder: _, token_digest: _, expire_time, meta } = session;
    pb::Session {
        id: id.to_string(),
        application: application.to_string(),
        user_id: user_id.into(),
        expire_time: Some(render::timestamp(expire_time)),
        create_time: Some(render::timestamp(meta.create_time)),
    }
}

fn slugs(slugs: impl IntoIterator<Item = PermissionSlug>) -> Vec<String> {
    slugs.into_iter().map(String::from).collect()
}
