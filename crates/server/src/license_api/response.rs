//! Responses of the licence API.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use jackfield_api::v1 as pb;
use serde::Serialize;

use super::failure::Failure;

/// A body of success.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Success {
    Granted { token: String, permissions: Vec<Company> },
    Profile { first_name: String, last_name: String, email: String },
    Permissions { permissions: Vec<Company> },
    Slugs { permissions: Vec<String> },
}

/// The permissions of a user in a company.
#[derive(Serialize)]
pub(super) struct Company {
    company_id: String,
    company_name: String,
    permissions: Vec<String>,
}

/// A body of an error.
#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
}

// === impl Success ===

impl Success {
    pub(super) fn granted(response: pb::AuthenticateApplicationUserResponse) -> Self {
        let pb::AuthenticateApplicationUserResponse { session_token, companies, .. } = response;
        Success::Granted { token: session_token, permissions: companies.into_iter().map(Company::from).collect() }
    }

    pub(super) fn profile(user: pb::SessionUser) -> Self {
        let pb::SessionUser { first_name, last_name, email, .. } = user;
        Success::Profile { first_name, last_name, email }
    }

    pub(super) fn permissions(response: pb::GetSessionPermissionsResponse) -> Self {
        Success::Permissions { permissions: response.companies.into_iter().map(Company::from).collect() }
    }

    /// The permissions in one company. There are none in a company for which the user may not use the application, so an
    /// answer does not say which companies there are.
    pub(super) fn company(response: pb::GetSessionPermissionsResponse, company: &str) -> Self {
        let found = response.companies.into_iter().find(|it| it.company_id == company);
        Success::Slugs { permissions: found.map(|it| it.permissions).unwrap_or_default() }
    }
}

impl From<pb::CompanyPermissions> for Company {
    fn from(company: pb::CompanyPermissions) -> Self {
        let pb::CompanyPermissions { company_id, company_name, permissions } = company;
        Company { company_id, company_name, permissions }
    }
}

/// The response for an outcome.
pub(super) fn of(outcome: Result<Success, Failure>, error_codes: bool) -> Response<Bytes> {
    let Failure { status, code, message, allow, retry_after } = match outcome {
        Ok(success) => return json(StatusCode::OK, &success),
        Err(failure) => failure,
    };
    let error_code = code.filter(|_| error_codes).map(super::failure::ErrorCode::as_str);
    let mut response = json(status, &Error { message: &message, error_code });
    if let Some(value) = allow.and_then(|method| HeaderValue::from_str(method.as_str()).ok()) {
        response.headers_mut().insert(ALLOW, value);
    }
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // Texts can always be written as JSON.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // It has a token, or what a token gives access to.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
