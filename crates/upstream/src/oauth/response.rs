//! Responses of a token endpoint.
//!
//! A response may have a refresh token that replaces the one that was sent, and be unusable in another part. So each part is judged on its
//! own: the caller must keep the refresh token first, whatever else is wrong.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use jackfield_domain::Secret;
use jackfield_domain::value::json;
use jackfield_domain::value::url::HttpUrl;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::device::DeviceAuthorization;
use super::fault::{ErrorCode, TokenFault, is_success};
use super::revocation::Revocation;
use crate::client::Response;
use crate::retry_after::retry_after;

/// The tokens of a response.
#[derive(Debug)]
pub struct TokenResponse {
    pub status: StatusCode,
    pub access: Result<AccessToken, AccessFlaw>,
    /// The refresh token. If there is none, the one that was sent stays good (RFC 6749 6), unless the response loses it.
    pub refresh_token: Option<Secret>,
    /// True if the response has a refresh token that cannot be used. The one that was sent may be spent all the same.
    pub loses_refresh_token: bool,
    /// The time after which the user has to authorise again, if the server tells it: the rest of the authorisation, or else the time for which
    /// the refresh token is good.
    pub authorization_lifetime: Option<Duration>,
    pub id_token: Option<Secret>,
}

/// An access token.
#[derive(Debug)]
pub struct AccessToken {
    pub token: Secret,
    pub token_type: String,
    /// The time for which it is good from the request on. `None` if the server does not tell it.
    pub lifetime: Option<Duration>,
    /// The scopes that were granted. `None` if they are those that were asked for (RFC 6749 5.1).
    pub scopes: Option<Vec<String>>,
}

/// The reason why a response has no usable access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AccessFlaw {
    #[error("the token endpoint gave no usable answer: access_token is missing, empty or not a text")]
    TokenMissing,
    #[error(
        "the token endpoint gave no usable answer: access_token has over {MAX_TOKEN} characters, or others than visible ASCII \
         characters and blanks, so that no header can have it"
    )]
    TokenUnusable,
    #[error(
        "the token endpoint gave no usable answer: token_type is not a name of 1 to {MAX_TYPE} letters, digits, \"-\", \".\", \"_\", \":\" \
         and \"/\""
    )]
    TypeInvalid,
    #[error("the token endpoint gave no usable answer: expires_in is not a number of seconds, or negative")]
    LifetimeInvalid,
    #[error(
        "the token endpoint gave no usable answer: scope is neither a text nor a list of texts, has over {MAX_SCOPE} characters, or has \
         control characters"
    )]
    ScopeInvalid,
    #[error("the token endpoint gave no usable answer: it has {} beside its tokens", .0.as_str())]
    ErrorBeside(ErrorCode),
}

/// The longest lifetime that is believed. A longer one means that the token does not expire.
pub const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The members that tell the rest of an authorisation: those of drafts of the IETF (the authorisation, and then its refresh token), and those
/// that Google and LinkedIn, Intuit, and Keycloak have for the refresh token.
const AUTHORIZATION_LIFETIMES: [&str; 5] = [
    "authorization_expires_in",
    "refresh_token_timeout",
    "refresh_token_expires_in",
    "x_refresh_token_expires_in",
    "refresh_expires_in",
];
/// The longest token, in characters.
const MAX_TOKEN: usize = 64 * 1024;
const MAX_SCOPE: usize = 4_096;
const MAX_TYPE: usize = 64;
/// The longest device code, user code and verification URI, in characters.
const MAX_DEVICE_CODE: usize = 4_096;
const MAX_USER_CODE: usize = 64;
const MAX_URI: usize = 2_048;

/// The members of a body.
struct Members(Map<String, Value>);

/// Reads the response to a grant.
///
/// # Errors
/// The endpoint refused, or the response says neither.
pub(crate) fn read(response: &Response) -> Result<TokenResponse, TokenFault> {
    let read = read_as(response, |members| Some(members.tokens(response.status)));
    let Err(TokenFault::Refused { status, code, .. }) = &read else { return read };
    if !is_success(*status) || code.refuses_grant() {
        return read;
    }
    // It may be no error at all: what was sent is spent if there are tokens, and the refresh token beside it is in no other place.
    let tokens = Members::of(response).map(|members| members.tokens(*status));
    match tokens.filter(|tokens| tokens.access.is_ok() || tokens.refresh_token.is_some()) {
        Some(tokens) => Ok(TokenResponse { access: Err(AccessFlaw::ErrorBeside(*code)), ..tokens }),
        None => read,
    }
}

/// Reads the response of a device authorisation endpoint (RFC 8628 3.2).
///
/// # Errors
/// The endpoint refused, or the response lacks something.
pub(super) fn read_device(response: &Response) -> Result<DeviceAuthorization, TokenFault> {
    read_as(response, Members::device)
}

/// Reads a response whose members are a success, unless they or the status say otherwise. `None` of them: they lack something.
fn read_as<T>(response: &Response, success: impl FnOnce(Members) -> Option<T>) -> Result<T, TokenFault> {
    let (status, retry_after) = (response.status, retry_after(&response.headers));
    let members = Members::of(response);
    // Slack and GitHub refuse with 200.
    if let Some(code) = members.as_ref().and_then(Members::error) {
        return Err(TokenFault::Refused { status, code, retry_after });
    }
    match status {
        status if is_success(status) => members.and_then(success).ok_or(TokenFault::BodyMalformed { status }),
        status => Err(TokenFault::Status { status, retry_after }),
    }
}

/// Reads the response of a revocation endpoint.
///
/// # Errors
/// The endpoint refused, or the response says neither.
pub(super) fn read_revocation(response: &Response) -> Result<Revocation, TokenFault> {
    let (status, retry_after) = (response.status, retry_after(&response.headers));
    let members = Members::of(response);
    let code = members.as_ref().and_then(|members| members.0.get("error")?.as_str()).unwrap_or_default();
    match (code, members.as_ref().and_then(Members::error)) {
        ("unsupported_token_type", _) => Ok(Revocation::Unsupported),
        // The standard says 200 for a token that is not good (any more). Google and Slack say this.
        ("invalid_token" | "token_revoked", _) if !status.is_server_error() => Ok(Revocation::Revoked),
        (_, Some(code)) => Err(TokenFault::Refused { status, code, retry_after }),
        // The body of a success says nothing (RFC 7009 2.2).
        (_, None) if status.is_success() => Ok(Revocation::Revoked),
        (_, None) => Err(TokenFault::Status { status, retry_after }),
    }
}

// === impl AccessFlaw ===

impl AccessFlaw {
    /// The name of the flaw. It does not change.
    pub fn reason(self) -> &'static str {
        match self {
            AccessFlaw::TokenMissing => "ACCESS_TOKEN_MISSING",
            AccessFlaw::TokenUnusable => "ACCESS_TOKEN_UNUSABLE",
            AccessFlaw::TypeInvalid => "TOKEN_TYPE_INVALID",
            AccessFlaw::LifetimeInvalid => "EXPIRES_IN_INVALID",
            AccessFlaw::ScopeInvalid => "SCOPE_INVALID",
            AccessFlaw::ErrorBeside(_) => "TOKEN_REFUSED",
        }
    }
}

// === impl Members ===

impl Members {
    /// The members of a JSON object, or of a form: some servers send one whatever they are asked for, and some with a wrong media type.
    fn of(response: &Response) -> Option<Self> {
        let media_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = media_type.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
        let text = std::str::from_utf8(&response.body).ok();
        let is_object = text.is_some_and(|text| json::without_mark(text).trim_start().starts_with('{'));
        if is_form && !is_object {
            return Self::of_form(&response.body);
        }
        let text = text?;
        match json::read(text) {
            Ok(members) => Some(Members(members)),
            Err(_) if is_object => None,
            Err(_) => Self::of_unlabelled_form(text.trim_ascii()),
        }
    }

    fn of_form(body: &[u8]) -> Option<Self> {
        let mut members = HashMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            // Neither of two values is sure to be the one that counts.
            if members.insert(name.into_owned(), Value::from(value.into_owned())).is_some() {
                return None;
            }
        }
        Some(Members(members.into_iter().collect()))
    }

    /// The members of a form with tokens that has another media type. A page may have a link with tokens, but never without the characters that
    /// a form does not have.
    fn of_unlabelled_form(text: &str) -> Option<Self> {
        let is_form = |byte: u8| byte.is_ascii_alphanumeric() || b"*-._~+%=&:/,@!$'()".contains(&byte);
        let members = text.bytes().all(is_form).then(|| Self::of_form(text.as_bytes()))??;
        members.0.contains_key("access_token").then_some(members)
    }

    fn error(&self) -> Option<ErrorCode> {
        match self.0.get("error")? {
            Value::Null => None,
            Value::String(code) if code.is_empty() => None,
            Value::String(code) => Some(ErrorCode::parse(code)),
            // Some send an object that describes it.
            _ => Some(ErrorCode::parse("")),
        }
    }

    fn tokens(mut self, status: StatusCode) -> TokenResponse {
        let told = |name: &&str| seconds(self.0.get(*name)?).ok().flatten();
        let authorization_lifetime = AUTHORIZATION_LIFETIMES.iter().find_map(told);
        let is_replaced = match self.0.get("refresh_token") {
            // Neither is a token, and false says that there is none.
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(token)) => !token.is_empty(),
            Some(_) => true,
        };
        let refresh_token = self.token("refresh_token");
        TokenResponse {
            status,
            loses_refresh_token: is_replaced && refresh_token.is_none(),
            refresh_token,
            authorization_lifetime,
            id_token: self.token("id_token"),
            access: self.access(),
        }
    }

    /// The codes of a device authorisation. `None` if something is missing or cannot be used.
    fn device(mut self) -> Option<DeviceAuthorization> {
        let lifetime = seconds(self.0.get("expires_in")?).ok()??;
        let interval = self.0.get("interval").map_or(Ok(None), seconds).ok()?;
        // Google has another name for it, which drafts had.
        let verification_uri = self.url("verification_uri").or_else(|| self.url("verification_url"))?;
        // It has the user code, so its text is in no other place either.
        let complete = self.secret("verification_uri_complete");
        let complete = complete.and_then(|uri| url("verification_uri_complete", uri.expose()));
        Some(DeviceAuthorization {
            device_code: self.token("device_code").filter(|code| code.expose().len() <= MAX_DEVICE_CODE)?,
            user_code: self.token("user_code").filter(|code| code.expose().len() <= MAX_USER_CODE)?,
            verification_uri,
            verification_uri_complete: complete.map(|url| Secret::new(url.into())),
            lifetime,
            interval,
        })
    }

    /// A URL that a user can be sent to.
    fn url(&self, name: &str) -> Option<HttpUrl> {
        url(name, self.0.get(name)?.as_str()?)
    }

    fn access(&mut self) -> Result<AccessToken, AccessFlaw> {
        let is_there = matches!(self.0.get("access_token"), Some(Value::String(token)) if !token.is_empty());
        if !is_there {
            return Err(AccessFlaw::TokenMissing);
        }
        let token = self.token("access_token").ok_or(AccessFlaw::TokenUnusable)?;
        let lifetime = self.0.get("expires_in").map_or(Ok(None), seconds)?;
        Ok(AccessToken { token, token_type: self.token_type()?, lifetime, scopes: self.scopes()? })
    }

    /// Takes a text, so that it is in no other place.
    fn secret(&mut self, name: &str) -> Option<Secret> {
        match self.0.remove(name)? {
            Value::String(text) => Some(Secret::new(text)),
            _ => None,
        }
    }

    /// Takes a token.
    fn token(&mut self, name: &str) -> Option<Secret> {
        let token = self.secret(name)?;
        let text = token.expose();
        let is_usable =
            !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        is_usable.then_some(token)
    }

    /// The type of the access token. Without one it is a bearer token, which is what servers that leave it out mean.
    fn token_type(&self) -> Result<String, AccessFlaw> {
        match self.0.get("token_type") {
            None | Some(Value::Null) => Ok("Bearer".to_owned()),
            Some(Value::String(name)) if name.eq_ignore_ascii_case("bearer") => Ok("Bearer".to_owned()),
            Some(Value::String(name))
                if (1..=MAX_TYPE).contains(&name.len())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte)) =>
            {
                Ok(name.clone())
            }
            Some(_) => Err(AccessFlaw::TypeInvalid),
        }
    }

    /// The scopes, between blanks, or commas as with GitHub and Slack, or as a list.
    fn scopes(&self) -> Result<Option<Vec<String>>, AccessFlaw> {
        let text = match self.0.get("scope") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(list)) => {
                let scopes: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                scopes.ok_or(AccessFlaw::ScopeInvalid)?.join(" ")
            }
            Some(_) => return Err(AccessFlaw::ScopeInvalid),
        };
        if text.len() > MAX_SCOPE || text.contains(|c: char| c.is_control()) {
            return Err(AccessFlaw::ScopeInvalid);
        }
        // A comma may be part of a scope (RFC 6749 3.3).
        let between = if text.contains(' ') { ' ' } else { ',' };
        let mut scopes: Vec<String> = Vec::new();
        for scope in text.split(between).filter(|scope| !scope.is_empty()) {
            if !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        Ok(Some(scopes))
    }
}

fn url(name: &str, text: &str) -> Option<HttpUrl> {
    HttpUrl::parse(name, text, MAX_URI).ok()
}

/// A lifetime in seconds: a number, which some servers send as a text. One beyond all reason means that there is no end, and so does 0, or
/// that the server does not tell it: Mailchimp sends it for access tokens that do not expire, and Keycloak for refresh tokens.
fn seconds(value: &Value) -> Result<Option<Duration>, AccessFlaw> {
    let seconds = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds > MAX_LIFETIME.as_secs_f64() || seconds == 0.0 => Ok(None),
        Some(seconds) if seconds > 0.0 => Ok(Some(Duration::from_secs_f64(seconds))),
        _ => Err(AccessFlaw::LifetimeInvalid),
    }
}

#[cfg(test)]
mod tests;
