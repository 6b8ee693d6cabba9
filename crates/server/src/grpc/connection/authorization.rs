//! Messages of authorisations.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, unfold};
use jackfield_api::v1 as pb;
use jackfield_domain::authorization::{
    AuthorizationAnswer, AuthorizationDraft, AuthorizationResponse, AuthorizationResult, AuthorizationSession,
    Delivery, DeviceInvitation, Invitation, MAX_CODE, MAX_ERROR, MAX_ISSUER, MAX_STATE, StartedAuthorization,
};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::value::scopes::Scopes;
use jackfield_domain::value::text::{UserId, bounded_text};
use jackfield_domain::value::url::RedirectUri;
use jackfield_domain::{AuthorizationSessionId, Error, Result, Secret, Violation, Violations};
use jackfield_service::Watching;
use jackfield_transport::call::status::status;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::grpc::fields::MAX_URL;
use crate::grpc::parse;
use crate::grpc::render;

/// The states on the wire.
pub(super) type SessionStream = BoxStream<'static, Result<pb::WatchAuthorizationResponse, Status>>;

/// The field that says how an authorisation is completed.
const MODE: &str = "completion_mode";
/// The wait before another server is asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The id of the session that a request names.
pub(super) fn id(reference: &str) -> Result<AuthorizationSessionId> {
    let mut violations = Violations::default();
    let reference = parse::reference(&mut violations, reference, ReferenceForms::ID);
    Ok(id_of(violations.into_result(reference)?))
}

pub(super) fn id_of(reference: Ref) -> AuthorizationSessionId {
    match reference {
        Ref::Id(id) => AuthorizationSessionId(id),
        // Only ids are parsed.
        Ref::Name(_) | Ref::External(_) => AuthorizationSessionId(Uuid::nil()),
    }
}

/// The handshake that a request starts.
pub(super) fn draft(request: pb::StartAuthorizationRequest) -> Result<AuthorizationDraft> {
    let pb::StartAuthorizationRequest {
        connection,
        user_id,
        scopes,
        redirect_uri,
        return_uri,
        credential,
        allow_account_change,
        completion_mode,
        find_linked_users,
    } = request;
    let mut violations = Violations::default();
    let connection = violations.check(Ref::parse("connection", &connection, ReferenceForms::ID_NAME_EXTERNAL));
    let user_id = violations.check(UserId::parse("user_id", &user_id));
    let scopes = match scopes.is_empty() {
        true => Some(None),
        false => violations.check_all(Scopes::parse_list("scopes", &scopes)).map(Some),
    };
    let delivery = delivery(&mut violations, &redirect_uri, &return_uri, completion_mode);
    let credential = parse::optional_reference(&mut violations, "credential", &credential, ReferenceForms::ID_EXTERNAL);
    let parsed = connection.zip(user_id).zip(scopes.zip(delivery)).zip(credential);
    let (((connection, user_id), (scopes, delivery)), credential) = violations.into_result(parsed)?;
    Ok(AuthorizationDraft {
        connection,
        user_id,
        scopes,
        delivery,
        credential,
        allow_account_change,
        find_linked_users: find_linked_users.unwrap_or_default(),
    })
}

fn delivery(violations: &mut Violations, redirect_uri: &str, return_uri: &str, mode: i32) -> Option<Delivery> {
    let parse = |field, uri| RedirectUri::parse(field, uri, MAX_URL);
    let unknown = |_| Violation::field(MODE, format!("has the unknown enum value {mode}"));
    let mode = violations.check(pb::CompletionMode::try_from(mode).map_err(unknown))?;
    let mut refuse = |field, description: &str| {
        violations.push(Violation::field(field, description));
        None
    };
    match (mode, parse::non_empty(redirect_uri), parse::non_empty(return_uri)) {
        (pb::CompletionMode::Device, None, None) => Some(Delivery::Device),
        (pb::CompletionMode::Device, _, _) => {
            refuse(MODE, "must not be COMPLETION_MODE_DEVICE together with redirect_uri or return_uri")
        }
        (pb::CompletionMode::CookieBound, Some(_), _) => {
            refuse(MODE, "must not be COMPLETION_MODE_COOKIE_BOUND together with redirect_uri")
        }
        (pb::CompletionMode::CookieBound, None, uri) => {
            let uri = violations.check(uri.map(|uri| parse("return_uri", uri)).transpose());
            uri.map(Delivery::CookieBound)
        }
        (pb::CompletionMode::Unspecified | pb::CompletionMode::Confirmed, redirect_uri, return_uri) => {
            match (redirect_uri, return_uri) {
                (None, None) => Some(Delivery::Application(None)),
                (Some(uri), None) => violations.check(parse("redirect_uri", uri)).map(Some).map(Delivery::Application),
                (None, Some(uri)) => violations.check(parse("return_uri", uri)).map(Delivery::Callback),
                (Some(_), Some(_)) => refuse("return_uri", "must not be given together with redirect_uri"),
            }
        }
    }
}

/// The user and the answer of a request.
pub(super) fn answer(request: pb::CompleteAuthorizationRequest) -> Result<(UserId, AuthorizationAnswer)> {
    let pb::CompleteAuthorizationRequest { user_id, completion_code, state, code, error, iss } = request;
    let mut violations = Violations::default();
    let user_id = violations.check(UserId::parse("user_id", &user_id));
    let answer = if completion_code.is_empty() {
        let state = match state.is_empty() {
            true => violations.check(Err(Violation::field("state", "is required, unless completion_code is given"))),
            false => violations.check(Secret::parse_token("state", state, MAX_STATE)),
        };
        let iss = violations.check(iss.map(|iss| bounded_text("iss", &iss, MAX_ISSUER, true)).transpose());
        let result = result(&mut violations, code, &error);
        state
            .zip(iss)
            .zip(result)
            .map(|((state, iss), result)| AuthorizationAnswer::Response(AuthorizationResponse { state, iss, result }))
    } else {
        for (field, is_given) in [
            ("state", !state.is_empty()),
            ("code", !code.is_empty()),
            ("error", !error.is_empty()),
            ("iss", iss.is_some()),
        ] {
            if is_given {
                violations.push(Violation::field(field, "must not be given together with completion_code"));
            }
        }
        let code = violations.check(Secret::parse_token("completion_code", completion_code, MAX_STATE));
        code.map(AuthorizationAnswer::CompletionCode)
    };
    violations.into_result(user_id.zip(answer))
}

fn result(violations: &mut Violations, code: String, error: &str) -> Option<AuthorizationResult> {
    match (code.is_empty(), error.is_empty()) {
        (false, true) => violations.check(Secret::parse_line("code", code, MAX_CODE)).map(AuthorizationResult::Code),
        (true, false) => {
            violations.check(bounded_text("error", error, MAX_ERROR, false)).map(AuthorizationResult::Error)
        }
        (true, true) => {
            violations.check(Err(Violation::field("code", "is required, or error, unless completion_code is given")))
        }
        (false, false) => violations.check(Err(Violation::field("error", "must not be given together with code"))),
    }
}

pub(super) fn started_to_message(started: StartedAuthorization) -> pb::StartAuthorizationResponse {
    let StartedAuthorization { session, invitation } = started;
    let response = pb::StartAuthorizationResponse { authorization: Some(to_message(session)), ..Default::default() };
    match invitation {
        None => response,
        Some(Invitation::Redirect(url)) => {
            pb::StartAuthorizationResponse { authorization_url: url.expose().to_owned(), ..response }
        }
        Some(Invitation::Device(device)) => {
            let DeviceInvitation { user_code, verification_uri, verification_uri_complete: complete } = device;
            pb::StartAuthorizationResponse {
                user_code: user_code.expose().to_owned(),
                verification_uri: verification_uri.as_str().to_owned(),
                verification_uri_complete: complete.map(|uri| uri.expose().to_owned()).unwrap_or_default(),
                ..response
            }
        }
    }
}

/// The states of a session as messages. When the server drains it ends, and can be watched at another one.
pub(super) fn stream(sessions: Watching, drain: CancellationToken) -> SessionStream {
    let message = |session| pb::WatchAuthorizationResponse { authorization: Some(to_message(session)) };
    let messages = unfold(Some((sessions, drain)), move |open| async move {
        let (mut sessions, drain) = open?;
        match drain.run_until_cancelled(sessions.next()).await {
            Some(next) => Some((next?.map(message).map_err(status), Some((sessions, drain)))),
            None => Some((Err(status(Error::ServerUnavailable { retry_after: RETRY_AFTER })), None)),
        }
    });
    messages.boxed()
}

/// A session as its callers see it.
pub(super) fn to_message(session: AuthorizationSession) -> pb::AuthorizationSession {
    let AuthorizationSession {
        id,
        principal,
        user_id,
        connection,
        credential,
        credential_create_time: _,
        revoked_version: _,
        scopes,
        granted_scopes,
        redirect_uri,
        return_uri,
        device,
        browser,
        issuer: _,
        client: _,
        allow_account_change: _,
        find_linked_users: _,
        linked_users,
        linked_credentials: _,
        state,
        failure,
        failure_detail,
        state_digest: _,
        completion_digest: _,
        expire_time,
        meta,
    } = session;
    // The names of the contract are those of the domain with a prefix. A test compares them.
    let state = pb::AuthorizationState::from_str_name(&format!("AUTHORIZATION_STATE_{}", state.as_str()));
    let reason = failure.and_then(|failure| {
        pb::AuthorizationFailure::from_str_name(&format!("AUTHORIZATION_FAILURE_{}", failure.as_str()))
    });
    let mode = match (device, browser) {
        (Some(_), _) => pb::CompletionMode::Device,
        (None, Some(_)) => pb::CompletionMode::CookieBound,
        (None, None) => pb::CompletionMode::Confirmed,
    };
    pb::AuthorizationSession {
        id: id.to_string(),
        user_id: user_id.into(),
        connection: connection.to_string(),
        credential: credential.map(|id| id.to_string()).unwrap_or_default(),
        state: state.unwrap_or_default().into(),
        failure: reason.unwrap_or_default().into(),
        failure_message: failure.map(|failure| failure.message().to_owned()).unwrap_or_default(),
        failure_detail,
        scopes,
        granted_scopes,
        redirect_uri: redirect_uri.map(String::from).unwrap_or_default(),
        return_uri: return_uri.map(String::from).unwrap_or_default(),
        principal,
        completion_mode: mode.into(),
        linked_users: linked_users.into_iter().map(String::from).collect(),
        expire_time: Some(render::timestamp(expire_time)),
        create_time: Some(render::timestamp(meta.create_time)),
        update_time: Some(render::timestamp(meta.update_time)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jackfield_domain::authorization::{AuthorizationFailure, AuthorizationState};

    use super::*;

    /// The names of an enum of the contract without their prefix, and without UNSPECIFIED.
    fn names(prefix: &str, name_of: impl Fn(i32) -> Option<&'static str>) -> BTreeSet<&'static str> {
        let names = (1..1_000).filter_map(name_of);
        names.map(|name| name.strip_prefix(prefix).unwrap_or_else(|| panic!("{name}"))).collect()
    }

    #[test]
    fn the_contract_has_the_names_of_the_domain() {
        let states = names("AUTHORIZATION_STATE_", |number| {
            pb::AuthorizationState::try_from(number).ok().map(|state| state.as_str_name())
        });
        assert_eq!(states, AuthorizationState::NAMES.iter().copied().collect());
        let failures = names("AUTHORIZATION_FAILURE_", |number| {
            pb::AuthorizationFailure::try_from(number).ok().map(|failure| failure.as_str_name())
        });
        assert_eq!(failures, AuthorizationFailure::NAMES.iter().copied().collect());
    }
}
