//! Responses of the licence API. Unknown members are ignored; a member that is there twice is refused.

use std::collections::HashSet;

use bytes::Bytes;
use http::StatusCode;
use jackfield_domain::value::json;
use jackfield_domain::value::text::bounded_text;
use jackfield_domain::{Secret, Violation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize as _, Zeroizing};

use super::{BodyFlaw, ErrorCode, LicenseFault, Rejection, USE_APP};
use crate::bounded::BoundedList;
use crate::client;

/// A token and the permissions of the user who logged in.
#[derive(Debug)]
pub struct Grant {
    pub token: Secret,
    /// Companies for which the user may not use the application are left out.
    pub companies: Vec<CompanyPermissions>,
    /// The status of the response.
    pub status: StatusCode,
}

/// The permissions of a user for one company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanyPermissions {
    pub company_id: String,
    /// It may be empty.
    pub company_name: String,
    /// The slugs of permissions, [`USE_APP`] among them.
    pub permissions: Vec<String>,
}

/// The profile of a user. Each text may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub first_name: String,
    pub last_name: String,
    pub email: String,
}

/// A response whose body is wiped when it was read: it may have a token.
pub(super) struct Response {
    status: StatusCode,
    body: Bytes,
}

/// A response that is no success.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    /// `None`: the body is no error of the licence API.
    error: Option<Option<ErrorCode>>,
}

/// The longest token, in characters.
pub const MAX_TOKEN: usize = 1_024;
/// The most companies of a response.
pub const MAX_COMPANIES: usize = 1_000;
/// The most permissions for one company.
pub const MAX_PERMISSIONS: usize = 1_000;
/// The longest text of another kind, in characters.
const MAX_TEXT: usize = 256;

#[derive(Deserialize)]
struct GrantBody {
    token: Zeroizing<String>,
    permissions: BoundedList<CompanyBody, MAX_COMPANIES>,
}

#[derive(Deserialize)]
struct CompaniesBody {
    permissions: BoundedList<CompanyBody, MAX_COMPANIES>,
}

#[derive(Deserialize)]
struct CompanyBody {
    company_id: Id,
    company_name: Option<String>,
    permissions: BoundedList<String, MAX_PERMISSIONS>,
}

#[derive(Deserialize)]
struct SlugsBody {
    permissions: BoundedList<String, MAX_PERMISSIONS>,
}

/// The client hands on what it gets, so servers may number their companies.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

#[derive(Deserialize)]
struct ProfileBody {
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: Option<String>,
    error_code: Option<String>,
}

type Outcome<T> = Result<Result<T, Refused>, LicenseFault>;

// === impl Response ===

impl From<client::Response> for Response {
    fn from(response: client::Response) -> Self {
        Response { status: response.status, body: response.body }
    }
}

impl Response {
    /// Reads a body of success. All published clients take 200 for one, and later ones 201 as well.
    fn read<B: DeserializeOwned, T>(self, convert: impl FnOnce(B) -> Result<T, BodyFlaw>) -> Outcome<T> {
        if matches!(self.status, StatusCode::OK | StatusCode::CREATED) {
            let read = parse(&self.body).and_then(convert);
            return read.map(Ok).map_err(|flaw| LicenseFault::Body { status: self.status, flaw });
        }
        let error = parse::<ErrorBody>(&self.body).ok();
        let error = error.filter(|error| error.message.is_some() || error.error_code.is_some());
        let error = error.map(|error| error.error_code.as_deref().map(ErrorCode::parse));
        Ok(Err(Refused { status: self.status, error }))
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        if let Ok(mut body) = std::mem::take(&mut self.body).try_into_mut() {
            body.as_mut().zeroize();
        }
    }
}

// === impl Refused ===

impl Refused {
    /// Decides if this rejects the user or the token. The published clients take every failure for that. Here it takes
    /// an error of the licence API that says so: a proxy in front, an outage or a request that the server does not
    /// understand is not the user's mistake. That a user is unknown must look like a wrong password.
    pub(super) fn rejection(self) -> Result<Rejection, LicenseFault> {
        let Refused { status, error } = self;
        let rejects = match (status.as_u16(), error) {
            (401, Some(code)) => matches!(code, None | Some(ErrorCode::NotAuthorized)),
            (403, Some(code)) => code == Some(ErrorCode::NotAuthorized),
            (404, Some(code)) => code == Some(ErrorCode::NotFound),
            _ => false,
        };
        let code = error.flatten();
        if rejects { Ok(Rejection { status, code }) } else { Err(LicenseFault::Status { status, code }) }
    }

    /// Decides if this rejects a token. That a path is unknown says nothing about one.
    pub(super) fn token_rejection(self) -> Result<Rejection, LicenseFault> {
        let Refused { status, error } = &self;
        match *status {
            StatusCode::NOT_FOUND => Err(LicenseFault::Status { status: *status, code: error.flatten() }),
            _ => self.rejection(),
        }
    }

    /// Returns true if the server does not know what the path names.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.error == Some(Some(ErrorCode::NotFound))
    }
}

/// Reads the response to a log-in.
pub(super) fn grant(response: Response) -> Outcome<Grant> {
    let status = response.status;
    response.read(|GrantBody { token, permissions }| {
        Ok(Grant { token: token_of(token)?, companies: companies(permissions)?, status })
    })
}

/// Reads a profile.
pub(super) fn profile(response: Response) -> Outcome<Profile> {
    response.read(|ProfileBody { first_name, last_name, email }| {
        Ok(Profile {
            first_name: optional_text("first_name", first_name)?,
            last_name: optional_text("last_name", last_name)?,
            email: optional_text("email", email)?,
        })
    })
}

/// Reads the permissions for all companies.
pub(super) fn permissions(response: Response) -> Outcome<Vec<CompanyPermissions>> {
    response.read(|CompaniesBody { permissions }| companies(permissions))
}

/// Reads the permissions for one company.
pub(super) fn company_permissions(response: Response) -> Outcome<Vec<String>> {
    response.read(|SlugsBody { permissions }| {
        let slugs = slugs(permissions)?;
        Ok(if may_use_app(&slugs) { slugs } else { Vec::new() })
    })
}

/// Nesting is limited by the parser.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyFlaw> {
    let text = std::str::from_utf8(body).map_err(|_| BodyFlaw::NotUtf8)?;
    let malformed = |error: serde_json::Error| BodyFlaw::Malformed { line: error.line(), column: error.column() };
    json::read(text).map_err(malformed)
}

/// A token is sent back in a header, so it has visible ASCII characters only.
fn token_of(mut token: Zeroizing<String>) -> Result<Secret, BodyFlaw> {
    let is_sendable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || token.len() > MAX_TOKEN || !is_sendable {
        return Err(invalid(format!("token must be 1 to {MAX_TOKEN} visible ASCII characters")));
    }
    Ok(Secret::new(std::mem::take(&mut *token)))
}

fn companies(
    BoundedList(bodies): BoundedList<CompanyBody, MAX_COMPANIES>,
) -> Result<Vec<CompanyPermissions>, BodyFlaw> {
    if bodies.len() > MAX_COMPANIES {
        return Err(invalid(format!("permissions has more than {MAX_COMPANIES} companies")));
    }
    let mut ids = HashSet::new();
    let mut companies = Vec::new();
    for CompanyBody { company_id, company_name, permissions } in bodies {
        let company_id = match company_id {
            Id::Text(id) => text("permissions.company_id", &id, false)?,
            Id::Number(id) => id.to_string(),
        };
        let company_name = optional_text("permissions.company_name", company_name)?;
        let permissions = slugs(permissions)?;
        if !ids.insert(company_id.clone()) {
            return Err(invalid("permissions has a company twice".to_owned()));
        }
        if may_use_app(&permissions) {
            companies.push(CompanyPermissions { company_id, company_name, permissions });
        }
    }
    Ok(companies)
}

fn may_use_app(slugs: &[String]) -> bool {
    slugs.iter().any(|slug| slug == USE_APP)
}

fn slugs(BoundedList(slugs): BoundedList<String, MAX_PERMISSIONS>) -> Result<Vec<String>, BodyFlaw> {
    if slugs.len() > MAX_PERMISSIONS {
        return Err(invalid(format!("permissions has more than {MAX_PERMISSIONS} slugs")));
    }
    slugs.iter().map(|slug| text("permissions.permissions", slug, false)).collect()
}

fn optional_text(field: &str, value: Option<String>) -> Result<String, BodyFlaw> {
    text(field, &value.unwrap_or_default(), true)
}

fn text(field: &str, value: &str, allow_empty: bool) -> Result<String, BodyFlaw> {
    let described = |Violation { field, description, .. }: Violation| invalid(format!("{field} {description}"));
    bounded_text(field, value, MAX_TEXT, allow_empty).map_err(described)
}

fn invalid(field: String) -> BodyFlaw {
    BodyFlaw::Field(field)
}
