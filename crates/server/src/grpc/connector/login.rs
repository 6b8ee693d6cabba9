//! Messages of AuthenticateUser.

use std::net::IpAddr;

use jackfield_api::v1 as pb;
use jackfield_domain::login::{
    AcceptedLogin, AuthenticatedUser, LoginAttempt, LoginEvent, LoginId, LoginOutcome, password,
};
use jackfield_domain::request::reference::{Ref, ReferenceForms};
use jackfield_domain::user::{MAX_APPLICATION_ID, Registration};
use jackfield_domain::value::text::bounded_text;
use jackfield_domain::{Result, Violation, Violations};
use jackfield_service::Login;

use crate::grpc::{parse, render};

const MAX_USER_AGENT: usize = 1_024;
const MAX_DEVICE_NAME: usize = 256;
const MAX_DEVICE_TYPE: usize = 64;

/// The connector and the log-in that a request names.
pub(super) fn parse(request: pb::AuthenticateUserRequest) -> Result<(Option<Ref>, LoginAttempt)> {
    let pb::AuthenticateUserRequest {
        connector,
        login_id,
        password: text,
        application_id,
        no_jwt,
        new_device,
        event_info,
    } = request;
    let mut violations = Violations::default();
    let connector = parse::optional_reference(&mut violations, "connector", &connector, ReferenceForms::ID_NAME);
    let login_id = violations.check(LoginId::parse("login_id", &login_id));
    let password = violations.check(password("password", text));
    let application_id = parse::non_empty(&application_id)
        .map(|text| bounded_text("application_id", text, MAX_APPLICATION_ID, false))
        .transpose();
    let application_id = violations.check(application_id);
    let event = event(&mut violations, event_info.unwrap_or_default());
    let parsed = connector.zip(login_id).zip(password.zip(application_id)).zip(event);
    let (((connector, login_id), (password, application_id)), event) = violations.into_result(parsed)?;
    Ok((connector, LoginAttempt { login_id, password, application_id, no_jwt, new_device, event }))
}

pub(super) fn to_message(login: Login) -> pb::AuthenticateUserResponse {
    let Login { outcome, connector } = login;
    let (outcome, accepted) = match outcome {
        LoginOutcome::Accepted(accepted) => (pb::LoginOutcome::Accepted, Some(accepted)),
        LoginOutcome::Rejected => (pb::LoginOutcome::Rejected, None),
        LoginOutcome::UpstreamFault => (pb::LoginOutcome::UpstreamFault, None),
    };
    let (user, registrations) = match accepted.map(|accepted| *accepted) {
        Some(AcceptedLogin { user, registrations }) => (Some(user_to_message(user)), registrations),
        None => (None, Vec::new()),
    };
    let registrations = registrations.into_iter().map(|registration| {
        let Registration { application_id, roles } = registration;
        pb::UserRegistration { application_id, roles }
    });
    pb::AuthenticateUserResponse {
        outcome: outcome.into(),
        user,
        registrations: registrations.collect(),
        connector: connector.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// The facts of a log-in.
pub(in crate::grpc) fn event(violations: &mut Violations, info: pb::LoginEventInfo) -> Option<LoginEvent> {
    let pb::LoginEventInfo { ip_address, user_agent, device_name, device_type } = info;
    let wrong = |_| Violation::field("event_info.ip_address", "must be an IPv4 or IPv6 address");
    let ip_address = parse::non_empty(&ip_address).map(|text| text.parse::<IpAddr>().map_err(wrong)).transpose();
    let ip_address = violations.check(ip_address);
    let mut text = |field, text: String, max| violations.check(bounded_text(field, &text, max, true));
    let user_agent = text("event_info.user_agent", user_agent, MAX_USER_AGENT);
    let device_name = text("event_info.device_name", device_name, MAX_DEVICE_NAME);
    let device_type = text("event_info.device_type", device_type, MAX_DEVICE_TYPE);
    Some(LoginEvent {
        ip_address: ip_address?,
        user_agent: user_agent?,
        device_name: device_name?,
        device_type: device_type?,
    })
}

fn user_to_message(user: AuthenticatedUser) -> pb::AuthenticatedUser {
    let AuthenticatedUser { id, username, email, phone_number, first_name, last_name, data } = user;
    pb::AuthenticatedUser {
        id: id.to_string(),
        username,
        email,
        phone_number,
        first_name,
        last_name,
        data: render::json(data),
    }
}
