//! Log-ins that a system checks over HTTP: the protocol of the FusionAuth Generic Connector.

mod free_json;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use jackfield_domain::Timestamp;
use jackfield_domain::login::{AcceptedLogin, AuthenticatedUser, LoginAttempt, LoginReason, MAX_LOGIN_ID};
use jackfield_domain::user::{MAX_REGISTRATIONS, MAX_ROLES, Registration, registrations};
use jackfield_domain::value::json::{self, JsonObject};
use jackfield_domain::value::text::bounded_text;
use jackfield_domain::value::url::HttpUrl;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

use self::free_json::FreeJson;
use crate::bounded::BoundedList;
use crate::client::{Client, Deadline, Request, Response};
use crate::error::CallError;

/// The response of a system to a log-in.
#[derive(Debug)]
pub enum LoginResponse {
    Accepted {
        login: Box<AcceptedLogin>,
        /// The member of the user that says that the system will not accept this log-in forever.
        ends_by: Option<&'static str>,
    },
    Rejected(Rejection),
}

/// The reason for which a system rejects a log-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The status. It does not say if the user is unknown or the password is wrong.
    Status,
    /// The user of a 200 is deactivated (`active` is false).
    UserInactive,
    /// The account of the user of a 200 has ended (`expiry`).
    UserExpired,
}

/// A log-in without a usable response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    #[error(transparent)]
    Call(#[from] CallError),
    /// The status is none of those that accept or reject a log-in.
    #[error("status {0} neither accepts nor rejects a log-in: 200 accepts it, 404 rejects it")]
    Status(StatusCode),
    #[error("the body of the response is not UTF-8")]
    BodyNotUtf8,
    #[error("the body of the response is not JSON of the expected form: line {line}, column {column}")]
    BodyMalformed { line: usize, column: usize },
    #[error("the response has no user")]
    UserMissing,
    #[error("the user has no id that is a UUID")]
    UserIdInvalid,
    #[error("the user has none of username, email, phoneNumber and mobilePhone")]
    UserUnnamed,
    #[error("the user has an unusable field: {0}")]
    UserInvalid(String),
}

/// The body of a request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    login_id: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_id: Option<&'a str>,
    #[serde(rename = "noJWT")]
    no_jwt: bool,
    new_device: bool,
    event_info: EventInfo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    device_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    device_type: &'a str,
}

/// The body of a response that accepts. Unknown members are ignored; a member that is there twice is refused.
#[derive(Deserialize)]
struct Accepted {
    user: Option<User>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: Option<String>,
    username: Option<String>,
    email: Option<String>,
    phone_number: Option<String>,
    /// It counts if there is no phone number.
    mobile_phone: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    active: Option<bool>,
    /// The end of the account, in milliseconds since 1970.
    expiry: Option<i64>,
    password_change_required: Option<bool>,
    #[serde(default)]
    data: FreeJson,
    registrations: Option<BoundedList<UserRegistration, MAX_REGISTRATIONS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserRegistration {
    application_id: String,
    roles: Option<BoundedList<String, MAX_ROLES>>,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Asks a system to check a log-in, at a time. The request is sent once.
///
/// # Errors
/// The response neither accepts nor rejects the log-in, or there is none.
pub async fn authenticate(
    client: &Client,
    url: &HttpUrl,
    attempt: &LoginAttempt,
    now: Timestamp,
    deadline: Option<Instant>,
) -> Result<LoginResponse, LoginFault> {
    read(&client.send(request(url, attempt, deadline)).await?, now)
}

/// The request that asks a system to check a log-in.
pub(crate) fn request(url: &HttpUrl, attempt: &LoginAttempt, deadline: Option<Instant>) -> Request {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (ACCEPT, JSON)]);
    let deadline = deadline.map(Deadline::Caller);
    Request { method: Method::POST, url: url.clone(), headers, body: body(attempt), deadline }
}

impl LoginResponse {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            LoginResponse::Rejected(Rejection::Status) => StatusCode::NOT_FOUND,
            LoginResponse::Accepted { .. }
            | LoginResponse::Rejected(Rejection::UserInactive | Rejection::UserExpired) => StatusCode::OK,
        }
    }
}

// === impl Rejection ===

impl Rejection {
    /// The reason, as operators learn it.
    pub fn reason(self) -> LoginReason {
        match self {
            Rejection::Status => LoginReason::SystemRejected,
            Rejection::UserInactive => LoginReason::UserInactive,
            Rejection::UserExpired => LoginReason::UserExpired,
        }
    }
}

impl LoginFault {
    /// The reason of a call that cannot be made because of its definition.
    pub const DEFINITION_INVALID: &str = "DEFINITION_INVALID";

    /// Returns false if the request provably did not leave.
    pub fn was_sent(&self) -> bool {
        match self {
            LoginFault::Call(error) => error.sent,
            _ => true,
        }
    }

    /// The name of the fault. It does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            LoginFault::Call(error) => error.fault.reason(),
            LoginFault::Status(_) => "STATUS_UNEXPECTED",
            LoginFault::BodyNotUtf8 => "BODY_NOT_UTF8",
            LoginFault::BodyMalformed { .. } => "BODY_MALFORMED",
            LoginFault::UserMissing => "USER_MISSING",
            LoginFault::UserIdInvalid => "USER_ID_INVALID",
            LoginFault::UserUnnamed => "USER_UNNAMED",
            LoginFault::UserInvalid(_) => "USER_INVALID",
        }
    }

    /// The status of the response, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            LoginFault::Call(_) => None,
            LoginFault::Status(status) => Some(*status),
            LoginFault::BodyNotUtf8
            | LoginFault::BodyMalformed { .. }
            | LoginFault::UserMissing
            | LoginFault::UserIdInvalid
            | LoginFault::UserUnnamed
            | LoginFault::UserInvalid(_) => Some(StatusCode::OK),
        }
    }
}

/// The body, wiped after it was sent.
fn body(attempt: &LoginAttempt) -> Bytes {
    let LoginAttempt { login_id, password, application_id, no_jwt, new_device, event } = attempt;
    let event_info = EventInfo {
        ip_address: event.ip_address,
        user_agent: &event.user_agent,
        device_name: &event.device_name,
        device_type: &event.device_type,
    };
    let body = Body {
        login_id: login_id.as_str(),
        password: password.expose(),
        application_id: application_id.as_deref(),
        no_jwt: *no_jwt,
        new_device: *new_device,
        event_info,
    };
    // Texts and booleans can always be written as JSON.
    let bytes = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default());
    Bytes::from_owner(bytes)
}

/// The meaning of a response at a time.
pub(crate) fn read(response: &Response, now: Timestamp) -> Result<LoginResponse, LoginFault> {
    match response.status {
        StatusCode::OK => of_user(user(&response.body)?, now),
        StatusCode::NOT_FOUND => Ok(LoginResponse::Rejected(Rejection::Status)),
        // Not even 401 is about the user: a gateway in front of the system may not know us.
        status => Err(LoginFault::Status(status)),
    }
}

/// The meaning of a user. One who may not log in is rejected, whatever else is wrong with the user.
fn of_user(user: User, now: Timestamp) -> Result<LoginResponse, LoginFault> {
    let rejected = |rejection| Ok(LoginResponse::Rejected(rejection));
    if user.active == Some(false) {
        return rejected(Rejection::UserInactive);
    }
    if user.expiry.is_some_and(|expiry| expiry.saturating_mul(1_000) <= now.0) {
        return rejected(Rejection::UserExpired);
    }
    let ends_by = match (user.expiry, user.password_change_required) {
        (Some(_), _) => Some("expiry"),
        (None, Some(true)) => Some("passwordChangeRequired"),
        (None, Some(false) | None) => None,
    };
    Ok(LoginResponse::Accepted { login: Box::new(accepted(user)?), ends_by })
}

/// The user of a body.
fn user(body: &[u8]) -> Result<User, LoginFault> {
    let text = std::str::from_utf8(body).map_err(|_| LoginFault::BodyNotUtf8)?;
    let malformed = |error: serde_json::Error| LoginFault::BodyMalformed { line: error.line(), column: error.column() };
    let Accepted { user } = json::read(text).map_err(malformed)?;
    user.ok_or(LoginFault::UserMissing)
}

fn accepted(user: User) -> Result<AcceptedLogin, LoginFault> {
    let id = user.id.as_deref().and_then(|id| Uuid::try_parse(id).ok()).filter(|id| !id.is_nil());
    let id = id.ok_or(LoginFault::UserIdInvalid)?;
    let mut phone_numbers = [user.phone_number, user.mobile_phone].into_iter().flatten();
    let phone_number = phone_numbers.find(|text| !text.trim().is_empty());
    let authenticated = AuthenticatedUser {
        id,
        username: text_of(user.username),
        email: text_of(user.email),
        phone_number: text_of(phone_number),
        first_name: text_of(user.first_name),
        last_name: text_of(user.last_name),
        data: JsonObject::parse("data", user.data.0).map_err(unusable)?,
    };
    let AuthenticatedUser { username, email, phone_number, .. } = &authenticated;
    if [username, email, phone_number].iter().all(|text| text.trim().is_empty()) {
        return Err(LoginFault::UserUnnamed);
    }
    let given = user.registrations.map_or_else(Vec::new, |BoundedList(given)| given).into_iter();
    let given = given.map(|UserRegistration { application_id, roles }| {
        let roles = roles.map_or_else(Vec::new, |BoundedList(roles)| roles);
        Registration { application_id, roles }
    });
    let registrations = registrations("registrations", given.collect()).map_err(|violations| {
        violations.into_iter().next().map_or(LoginFault::UserInvalid("registrations".to_owned()), unusable)
    })?;
    Ok(AcceptedLogin { user: authenticated, registrations })
}

/// A text of a user. One that is too long or has control characters is left out: a name must not keep its user out.
fn text_of(text: Option<String>) -> String {
    bounded_text("text", &text.unwrap_or_default(), MAX_LOGIN_ID, true).unwrap_or_default()
}

/// The fault, without the value that a violation has in quotation marks: a system could send the password back in it.
fn unusable(violation: jackfield_domain::Violation) -> LoginFault {
    let jackfield_domain::Violation { field, mut description, .. } = violation;
    if let (Some(first), Some(last)) = (description.find('"'), description.rfind('"')) {
        description.replace_range(first..=last, "\"…\"");
    }
    LoginFault::UserInvalid(format!("{field} {description}"))
}
