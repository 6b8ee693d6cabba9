//! Requests about permissions and sessions.

use std::collections::BTreeSet;

use jackfield_api::v1 as pb;
use jackfield_domain::application::{MAX_PERMISSIONS, PermissionChange, SessionRef, SessionToken};
use jackfield_domain::login::{LoginEvent, LoginId, password};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::text::{CompanyId, MAX_NAME, PermissionSlug, UserId, bounded_text};
use jackfield_domain::{Secret, SessionId, Violation, Violations};
use tonic::metadata::MetadataMap;

use crate::grpc::connector::login;
use crate::grpc::parse;

/// The forms in which an application is named.
pub(super) const APPLICATION_FORMS: ReferenceForms = ReferenceForms::ID_NAME_EXTERNAL;

/// Metadata that may name the application (the header X-LICENSE-MODULE of the model).
const APPLICATION_METADATA: &str = "x-jackfield-application";

/// The application that a message or the metadata names.
pub(super) fn named_by(violations: &mut Violations, metadata: &MetadataMap, named: &mut String) -> Option<Ref> {
    parse::from_metadata(violations, metadata, APPLICATION_METADATA, "application", named);
    violations.check(Ref::parse("application", named, APPLICATION_FORMS))
}

/// The application that a message or the metadata names, if one does.
pub(super) fn optional(violations: &mut Violations, metadata: &MetadataMap, named: &mut String) -> Option<Option<Ref>> {
    parse::from_metadata(violations, metadata, APPLICATION_METADATA, "application", named);
    parse::optional_reference(violations, "application", named, APPLICATION_FORMS)
}

/// The change that SetPermissions asks for.
pub(super) fn permission_change(
    violations: &mut Violations,
    request: pb::SetPermissionsRequest,
) -> Option<PermissionChange> {
    let pb::SetPermissionsRequest {
        application: _,
        company_id,
        company_name,
        user_id,
        permissions,
        request_id: _,
        validate_only: _,
    } = request;
    let company_id = violations.check(CompanyId::parse("company_id", &company_id));
    let name = parse::non_empty(&company_name).map(|name| bounded_text("company_name", name, MAX_NAME, false));
    let company_name = violations.check(name.transpose());
    let user_id = violations.check(UserId::parse("user_id", &user_id));
    let permissions = slugs(violations, &permissions)?;
    Some(PermissionChange { company_id: company_id?, company_name: company_name?, user_id: user_id?, permissions })
}

fn slugs(violations: &mut Violations, slugs: &[String]) -> Option<BTreeSet<PermissionSlug>> {
    if slugs.len() > MAX_PERMISSIONS {
        violations.push(Violation::field("permissions", format!("must have at most {MAX_PERMISSIONS} entries")));
        return None;
    }
    let slug = |(index, slug): (usize, &String)| PermissionSlug::parse(&format!("permissions[{index}]"), slug);
    let parsed: Vec<_> = slugs.iter().enumerate().map(|entry| violations.check(slug(entry))).collect();
    parsed.into_iter().collect()
}

/// The user name, the password and the facts of a log-in.
pub(super) fn login(
    violations: &mut Violations,
    request: pb::AuthenticateApplicationUserRequest,
) -> Option<((LoginId, Secret), LoginEvent)> {
    let pb::AuthenticateApplicationUserRequest { application: _, username, password: text, event_info } = request;
    let login_id = violations.check(LoginId::parse("username", &username));
    let password = violations.check(password("password", text));
    let event = login::event(violations, event_info.unwrap_or_default());
    login_id.zip(password).zip(event)
}

/// The token of a session.
pub(super) fn session_token(violations: &mut Violations, token: String) -> Option<SessionToken> {
    violations.check(SessionToken::parse("session_token", token))
}

/// The session that EndSession names.
pub(super) fn session(violations: &mut Violations, request: pb::EndSessionRequest) -> Option<SessionRef> {
    let pb::EndSessionRequest { application, session_token: token, id, request_id: _, validate_only: _ } = request;
    match (token.is_empty(), id.is_empty()) {
        (true, true) => {
            violations.push(Violation::field("session_token", "is required, unless id is given"));
            None
        }
        (true, false) => {
            let id = violations.check(parse::optional_id("id", &id)).flatten();
            id.map(|id| SessionRef::Id(SessionId(id)))
        }
        (false, given_once) => {
            if !given_once {
                violations.push(Violation::field("id", "must not be given together with session_token"));
            }
            if application.is_empty() {
                violations.push(Violation::reference("application", "is required with session_token"));
            }
            session_token(violations, token).map(SessionRef::Token)
        }
    }
}
