//! Requests to a provider: what they ask for, and who asks.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::grants::{Refusal, Wanted};
use super::http::Message;
use super::{ProviderAuthentication, ProviderOptions};

/// An endpoint of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Token,
    Revocation,
}

/// A request that a provider has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderRequest {
    pub endpoint: Endpoint,
    /// The header `authorization`, if there is one.
    pub authorization: Option<String>,
    /// The parameters of the body.
    pub parameters: BTreeMap<String, String>,
}

// === impl Endpoint ===

impl Endpoint {
    /// Finds the endpoint of a request by its first bytes.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        let all = [Endpoint::Token, Endpoint::Revocation];
        all.into_iter().find(|endpoint| start.starts_with(format!("POST {} ", endpoint.path()).as_bytes()))
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Endpoint::Token => "/token",
            Endpoint::Revocation => "/revoke",
        }
    }
}

// === impl ProviderRequest ===

impl ProviderRequest {
    /// Reads a request. A parameter that is there twice is refused (RFC 6749 3.2).
    pub(super) fn read(endpoint: Endpoint, message: &Message) -> Result<Self, Refusal> {
        let refuse = || Refusal::new(400, "invalid_request");
        let mut parameters = BTreeMap::new();
        let media_type = message.header("content-type").unwrap_or_default();
        match media_type.split(';').next().unwrap_or_default().trim() {
            "application/x-www-form-urlencoded" => {
                for (name, value) in form_urlencoded::parse(&message.body) {
                    if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                        return Err(refuse());
                    }
                }
            }
            "application/json" => {
                let object: Map<String, Value> = serde_json::from_slice(&message.body).map_err(|_| refuse())?;
                for (name, value) in object {
                    parameters.insert(name, value.as_str().ok_or_else(refuse)?.to_owned());
                }
            }
            _ => return Err(refuse()),
        }
        let authorization = message.header("authorization").map(str::to_owned);
        Ok(ProviderRequest { endpoint, authorization, parameters })
    }

    /// The value of a parameter. One without a value counts as one that is not there (RFC 6749 3.2).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.parameter(name).ok_or_else(|| Refusal::new(400, "invalid_request"))
    }

    /// Checks that the client is the registered one (RFC 6749 2.3).
    pub(super) fn authenticate(&self, options: &ProviderOptions) -> Result<(), Refusal> {
        let wrong = || Refusal::new(401, "invalid_client");
        let in_body = self.parameter("client_secret").map(str::to_owned);
        let (id, secret, method) = match &self.authorization {
            // A client must not use more than one method.
            Some(_) if in_body.is_some() => return Err(Refusal::new(400, "invalid_request")),
            Some(header) => {
                let (id, secret) = basic(header).ok_or_else(wrong)?;
                (Some(id), Some(secret), ProviderAuthentication::Basic)
            }
            None => (self.parameter("client_id").map(str::to_owned), in_body, ProviderAuthentication::Post),
        };
        let is_registered = id.as_deref() == Some(&options.client_id)
            && self.parameter("client_id").is_none_or(|id| id == options.client_id);
        let is_proven = match secret {
            None => options.client_secrets.is_empty(),
            Some(secret) => {
                [ProviderAuthentication::Either, method].contains(&options.authentication)
                    && options.client_secrets.contains(&secret)
            }
        };
        if is_registered && is_proven { Ok(()) } else { Err(wrong()) }
    }

    /// The grant that the request asks for.
    pub(super) fn wanted(&self) -> Result<Wanted<'_>, Refusal> {
        let scopes = self.parameter("scope").map(|scope| scope.split(' ').map(str::to_owned).collect());
        match self.required("grant_type")? {
            "refresh_token" => Ok(Wanted::Refresh {
                token: self.required("refresh_token")?,
                scopes,
                resource: self.parameter("resource"),
            }),
            "authorization_code" => Ok(Wanted::Redeem {
                code: self.required("code")?,
                redirect_uri: self.parameter("redirect_uri"),
                verifier: self.parameter("code_verifier"),
            }),
            "client_credentials" => Ok(Wanted::Credentials { scopes: scopes.unwrap_or_default() }),
            _ => Err(Refusal::new(400, "unsupported_grant_type")),
        }
    }
}

/// The id and the secret of a header, both decoded as in a form (RFC 6749 2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some((decoded(id), decoded(secret)))
}

fn decoded(text: &str) -> String {
    // A name without a value is one pair.
    form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}
