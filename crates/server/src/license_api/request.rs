//! Requests of the licence API.

use bytes::Bytes;
use http::header::{HeaderMap, USER_AGENT};
use http::{Method, StatusCode};
use jackfield_domain::value::json;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::failure::{ErrorCode, Failure};
use super::only;

/// A request.
pub(super) struct Request {
    /// A reference to the application.
    pub(super) application: String,
    pub(super) route: Route,
}

/// The part of the API that a request is for.
pub(super) enum Route {
    Authenticate {
        username: String,
        password: String,
        user_agent: String,
    },
    Profile {
        session_token: String,
    },
    /// In all companies, or in one of them.
    Permissions {
        session_token: String,
        company: Option<String>,
    },
}

/// A path of the API.
enum Path {
    Authenticate,
    Profile,
    Permissions,
    CompanyPermissions(String),
}

/// The version of the API that clients of all releases use.
const ROOT: &str = "/api/v1/";
const COMPANY: &str = "auth/get-company-permissions/";
/// The id of the application.
const MODULE: &str = "x-license-module";
/// The token of the session.
const TOKEN: &str = "x-license-token";
/// The longest description of a client that is passed on, in characters.
const MAX_USER_AGENT: usize = 1_024;

/// The body of a log-in. Unknown members are ignored.
#[derive(Deserialize)]
struct Credentials {
    username: Option<String>,
    password: Option<String>,
}

// === impl Request ===

impl Request {
    pub(super) fn parse(request: http::Request<Bytes>) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let path = Path::parse(head.uri.path())?;
        let method = match path {
            Path::Authenticate => Method::POST,
            Path::Profile | Path::Permissions | Path::CompanyPermissions(_) => Method::GET,
        };
        if head.method != method {
            return Err(only(&method));
        }
        let application = match header(&head.headers, MODULE)? {
            Some(id) => format!("ext:{id}"),
            None => return Err(Failure::expected(format!("The header {MODULE} is required."))),
        };
        let route = match path {
            Path::Authenticate => {
                let Credentials { username, password } = credentials(&body)?;
                let missing = |name| move || Failure::expected(format!("{name} is required."));
                let username = username.ok_or_else(missing("username"))?;
                let password = password.ok_or_else(missing("password"))?;
                Route::Authenticate { username, password, user_agent: user_agent(&head.headers) }
            }
            Path::Profile => Route::Profile { session_token: token(&head.headers)? },
            Path::Permissions => Route::Permissions { session_token: token(&head.headers)?, company: None },
            Path::CompanyPermissions(company) => {
                Route::Permissions { session_token: token(&head.headers)?, company: Some(company) }
            }
        };
        Ok(Request { application, route })
    }
}

// === impl Path ===

impl Path {
    /// Parses a path. Clients end it with a slash, which may be missing.
    fn parse(path: &str) -> Result<Self, Failure> {
        let rest = path.strip_prefix(ROOT).map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        match rest {
            Some("auth/authenticate") => Ok(Path::Authenticate),
            Some("auth/users/profile") => Ok(Path::Profile),
            Some("auth/get-permissions") => Ok(Path::Permissions),
            // Clients do not encode slashes, which an id may have.
            Some(rest) if let Some(company) = rest.strip_prefix(COMPANY).filter(|company| !company.is_empty()) => {
                let company = percent_decode_str(company).decode_utf8();
                company.map(|company| Path::CompanyPermissions(company.into_owned())).map_err(|_| {
                    Failure::new(
                        StatusCode::BAD_REQUEST,
                        Some(ErrorCode::InvalidFormat),
                        "The id of the company is not UTF-8.",
                    )
                })
            }
            _ => Err(Failure::new(StatusCode::NOT_FOUND, Some(ErrorCode::NotFound), "There is nothing at this path.")),
        }
    }
}

/// The one value of a header; `None` if it is missing or blank.
fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next(), values.next()) else {
        return Err(Failure::unexpected(format!("The header {name} is there twice.")));
    };
    let Some(value) = value else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| Failure::unexpected(format!("The header {name} is not UTF-8.")))?.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn token(headers: &HeaderMap) -> Result<String, Failure> {
    header(headers, TOKEN).ok().flatten().ok_or_else(Failure::no_token)
}

fn user_agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT).collect()
}

fn credentials(body: &[u8]) -> Result<Credentials, Failure> {
    let invalid = |message: String| Failure::new(StatusCode::BAD_REQUEST, Some(ErrorCode::InvalidFormat), message);
    let text = std::str::from_utf8(body).map_err(|_| invalid("The body is not UTF-8.".to_owned()))?;
    json::read(text).map_err(|error| {
        // The message of the parser is not shown: it may quote the password.
        let place = format!("line {}, column {}", error.line(), error.column());
        invalid(format!("The body is not JSON of the expected form: {place}."))
    })
}
