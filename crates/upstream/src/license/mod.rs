//! The client of the Cloudspot licence API: a server that checks passwords, and knows the permissions of each user in an
//! application and a company.
//!
//! Every call names the application. A log-in returns a token, and the other calls take it.

mod fault;
mod response;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use jackfield_domain::Secret;
use jackfield_domain::value::url::HttpUrl;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::response::Refused;
use crate::client::{self, Client, Deadline, Request, secret_value};

pub use self::fault::{BodyFlaw, ErrorCode, LicenseFault};
pub use self::response::{CompanyPermissions, Grant, MAX_COMPANIES, MAX_PERMISSIONS, MAX_TOKEN, Profile};

/// The licence API of one server, for one application.
pub struct LicenseApi<'a> {
    client: &'a Client,
    requests: Requests<'a>,
}

/// The requests to the licence API of one server, for one application.
pub(crate) struct Requests<'a> {
    base: &'a HttpUrl,
    application: HeaderValue,
    deadline: Option<Instant>,
}

/// The response to a user name and a password.
#[derive(Debug)]
pub enum Authentication {
    Accepted(Grant),
    Rejected(Rejection),
}

/// The response to a token.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenResponse<T> {
    Valid(T),
    /// The token is unknown, has ended, or belongs to another application.
    TokenInvalid(Rejection),
}

/// The status and the error code by which the server rejected a user or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub status: StatusCode,
    /// Servers of the first release send none.
    pub code: Option<ErrorCode>,
}

/// The permission without which a user may not use an application for a company.
pub const USE_APP: &str = "use_app";

/// The path at which a password is checked.
const AUTHENTICATE: &str = "auth/authenticate/";
/// The id of the application.
const MODULE: HeaderName = HeaderName::from_static("x-license-module");
/// The token of the session.
const TOKEN: HeaderName = HeaderName::from_static("x-license-token");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The characters of a company id that a path must not have as they are (RFC 3986 2.3).
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Bytes of the body that are neither the user name nor the password.
const BODY_FRAME: usize = 32;
/// Bytes that one byte of a text may take in JSON (`\u0000`).
const ESCAPED: usize = 6;

#[derive(Serialize)]
struct Credentials<'a> {
    username: &'a str,
    password: &'a str,
}

// === impl LicenseApi ===

impl<'a> LicenseApi<'a> {
    /// Takes a client, the URL below which the server has the API, the id of the application there, and the time at which
    /// the caller stops waiting.
    ///
    /// # Errors
    /// The URL has a query, or a header cannot have the id.
    pub fn new(
        client: &'a Client,
        base: &'a HttpUrl,
        application: &str,
        deadline: Option<Instant>,
    ) -> Result<Self, LicenseFault> {
        Ok(LicenseApi { client, requests: Requests::new(base, application, deadline)? })
    }

    /// Asks the server to check a password. The request is sent once.
    ///
    /// # Errors
    /// The server neither accepted nor rejected the user.
    pub async fn authenticate(&self, username: &str, password: &Secret) -> Result<Authentication, LicenseFault> {
        read_authentication(self.client.send(self.requests.authenticate(username, password)).await?)
    }

    /// Returns the profile of the user who has a token.
    ///
    /// # Errors
    /// The server neither accepted nor rejected the token.
    pub async fn profile(&self, token: &Secret) -> Result<TokenResponse<Profile>, LicenseFault> {
        read_profile(self.get("auth/users/profile/", token).await?)
    }

    /// Returns the permissions of the user who has a token, by company. Companies for which the user may not use the
    /// application are left out, so there may be none.
    ///
    /// # Errors
    /// The server neither accepted nor rejected the token.
    pub async fn permissions(&self, token: &Secret) -> Result<TokenResponse<Vec<CompanyPermissions>>, LicenseFault> {
        read_permissions(self.get("auth/get-permissions/", token).await?)
    }

    /// Returns the permissions of the user who has a token, for one company. There are none if the user may not use the
    /// application for it, or if the server does not know it.
    ///
    /// # Errors
    /// The server neither accepted nor rejected the token, or a path cannot have the id of the company.
    pub async fn company_permissions(
        &self,
        token: &Secret,
        company: &str,
    ) -> Result<TokenResponse<Vec<String>>, LicenseFault> {
        // Both would name another path.
        if matches!(company, "" | "." | "..") {
            return Err(LicenseFault::Request("the id of the company is empty or made of dots"));
        }
        let path = format!("auth/get-company-permissions/{}/", utf8_percent_encode(company, NOT_UNRESERVED));
        read_company_permissions(self.get(&path, token).await?)
    }

    async fn get(&self, path: &str, token: &Secret) -> Result<client::Response, LicenseFault> {
        Ok(self.client.send(self.requests.get(path, token)?).await?)
    }
}

// === impl Requests ===

impl<'a> Requests<'a> {
    /// Takes what [`LicenseApi::new`] takes.
    pub(crate) fn new(base: &'a HttpUrl, application: &str, deadline: Option<Instant>) -> Result<Self, LicenseFault> {
        if base.as_str().contains('?') {
            return Err(LicenseFault::Request("the URL of the licence API must not have a query"));
        }
        let unusable = LicenseFault::Request("the id of the application is empty, or no header can have it");
        match HeaderValue::from_str(application) {
            Ok(header) if !application.trim().is_empty() => Ok(Requests { base, application: header, deadline }),
            _ => Err(unusable),
        }
    }

    /// The request that asks a server to check a password.
    pub(crate) fn authenticate(&self, username: &str, password: &Secret) -> Request {
        let url = authentication_url(self.base);
        Request { method: Method::POST, body: credentials(username, password), ..self.request(url) }
    }

    fn get(&self, path: &str, token: &Secret) -> Result<Request, LicenseFault> {
        let mut request = self.request(endpoint(self.base, path));
        let unusable = || LicenseFault::Request("no header can have the token");
        request.headers.insert(TOKEN, secret_value(token.expose()).ok_or_else(unusable)?);
        Ok(request)
    }

    fn request(&self, url: HttpUrl) -> Request {
        let headers = HeaderMap::from_iter([(MODULE, self.application.clone()), (CONTENT_TYPE, JSON), (ACCEPT, JSON)]);
        let deadline = self.deadline.map(Deadline::Caller);
        Request { method: Method::GET, url, headers, body: Bytes::new(), deadline }
    }
}

/// The URL at which a server checks passwords.
pub(crate) fn authentication_url(base: &HttpUrl) -> HttpUrl {
    endpoint(base, AUTHENTICATE)
}

fn endpoint(base: &HttpUrl, path: &str) -> HttpUrl {
    let base = base.as_str();
    HttpUrl::stored(format!("{}/{path}", base.strip_suffix('/').unwrap_or(base)))
}

/// Reads the response to a user name and a password.
///
/// # Errors
/// It neither accepts nor rejects the user.
pub fn read_authentication(response: client::Response) -> Result<Authentication, LicenseFault> {
    Ok(match response::grant(response.into())? {
        Ok(grant) => Authentication::Accepted(grant),
        Err(refused) => Authentication::Rejected(refused.rejection()?),
    })
}

/// Reads the response to a token that asks for the profile.
///
/// # Errors
/// It neither accepts nor rejects the token.
pub fn read_profile(response: client::Response) -> Result<TokenResponse<Profile>, LicenseFault> {
    token_response(response::profile(response.into())?)
}

/// Reads the response to a token that asks for the permissions in all companies.
///
/// # Errors
/// It neither accepts nor rejects the token.
pub fn read_permissions(response: client::Response) -> Result<TokenResponse<Vec<CompanyPermissions>>, LicenseFault> {
    token_response(response::permissions(response.into())?)
}

/// Reads the response to a token that asks for the permissions in one company. There are none in one that is not known.
///
/// # Errors
/// It neither accepts nor rejects the token.
pub fn read_company_permissions(response: client::Response) -> Result<TokenResponse<Vec<String>>, LicenseFault> {
    match response::company_permissions(response.into())? {
        Err(refused) if refused.is_not_found() => Ok(TokenResponse::Valid(Vec::new())),
        outcome => token_response(outcome),
    }
}

fn token_response<T>(outcome: Result<T, Refused>) -> Result<TokenResponse<T>, LicenseFault> {
    match outcome {
        Ok(value) => Ok(TokenResponse::Valid(value)),
        Err(refused) => refused.token_rejection().map(TokenResponse::TokenInvalid),
    }
}

/// The body of a log-in, wiped after it was sent.
fn credentials(username: &str, password: &Secret) -> Bytes {
    // A buffer that grows would leave parts of the password behind.
    let size = BODY_FRAME + ESCAPED * (username.len() + password.expose().len());
    let mut body = Zeroizing::new(Vec::with_capacity(size));
    // Texts can always be written as JSON.
    let _ = serde_json::to_writer(&mut *body, &Credentials { username, password: password.expose() });
    Bytes::from_owner(body)
}
