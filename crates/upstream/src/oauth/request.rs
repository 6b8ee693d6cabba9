//! Requests to a token endpoint.

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use tokio::time::Instant;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::assertion::ASSERTION_TYPE;
use super::{ClientAuthentication, Grant, TokenEndpoint, TokenFault};
use crate::client::{Deadline, Request, basic};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

// === impl TokenEndpoint ===

impl TokenEndpoint<'_> {
    /// A request with these members in its body, and the proof of who the client is. The endpoint is given the time until the deadline.
    pub(super) fn request(&self, members: Vec<(&str, &str)>, deadline: Option<Instant>) -> Result<Request, TokenFault> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
        let assertion = self.authentication.assertion()?;
        let mut members: Vec<(&str, &str)> = members;
        match self.authentication {
            ClientAuthentication::None { client_id } | ClientAuthentication::Certificate { client_id } => {
                members.push(("client_id", client_id));
            }
            ClientAuthentication::SecretPost { client_id, client_secret } => {
                members.extend([("client_id", client_id.as_str()), ("client_secret", client_secret.expose())]);
            }
            ClientAuthentication::SecretBasic { client_id, client_secret } => {
                headers.insert(AUTHORIZATION, basic_of(client_id, client_secret)?);
            }
            ClientAuthentication::PrivateKeyJwt(client) => {
                members.extend([("client_id", client.client_id()), ("client_assertion_type", ASSERTION_TYPE)]);
                members.extend(assertion.as_ref().map(|assertion| ("client_assertion", assertion.expose())));
            }
        }
        let own: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        let is_free = |name: &str| !own.contains(&name) && !is_reserved(name);
        let more = self.parameters.iter().filter(|(name, _)| is_free(name));
        members.extend(more.map(|(name, value)| (name.as_str(), value.as_str())));
        let body = match self.content_type {
            TokenContentType::Json => json(&members),
            TokenContentType::Form => form(&members),
        };
        headers.insert(CONTENT_TYPE, if self.content_type == TokenContentType::Json { JSON } else { FORM });
        let deadline = deadline.map(Deadline::Server);
        Ok(Request { method: Method::POST, url: self.url.clone(), headers, body, deadline })
    }
}

// === impl ClientAuthentication ===

impl ClientAuthentication {
    /// The assertion of a client that signs.
    fn assertion(&self) -> Result<Option<Secret>, TokenFault> {
        let ClientAuthentication::PrivateKeyJwt(client) = self else { return Ok(None) };
        let unsigned = |_| TokenFault::Request("the private key of the client does not sign");
        client.sign().map(Some).map_err(unsigned)
    }
}

// === impl Grant ===

impl Grant<'_> {
    pub(super) fn members(&self) -> Vec<(&str, &str)> {
        match self {
            Grant::AuthorizationCode { code, redirect_uri, code_verifier } => vec![
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", redirect_uri.as_str()),
                ("code_verifier", code_verifier.expose()),
            ],
            Grant::DeviceCode { device_code } => {
                vec![("grant_type", DEVICE_CODE_GRANT), ("device_code", device_code.expose())]
            }
            Grant::RefreshToken { refresh_token, scope } => {
                let mut members = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
                members.extend(scope.map(|scope| ("scope", scope)));
                members
            }
            Grant::ClientCredentials { scope } => {
                let mut members = vec![("grant_type", "client_credentials")];
                members.extend(scope.map(|scope| ("scope", scope)));
                members
            }
        }
    }
}

/// Returns whether a parameter belongs to a grant or to the authentication of the client, of this request or of another.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 10] = [
        "grant_type",
        "code",
        "redirect_uri",
        "code_verifier",
        "refresh_token",
        "device_code",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    ];
    RESERVED.contains(&name)
}

/// The header of `client_secret_basic`. Both parts are encoded as in a form first (RFC 6749 2.3.1).
fn basic_of(client_id: &str, client_secret: &Secret) -> Result<HeaderValue, TokenFault> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let unusable = |_| TokenFault::Request("no header can have the id and the secret of the client");
    basic(&encoded(client_id), &Secret::new(encoded(client_secret.expose()))).map_err(unusable)
}

fn form(members: &[(&str, &str)]) -> Bytes {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(size(members)));
    form.extend_pairs(members);
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}

fn json(members: &[(&str, &str)]) -> Bytes {
    let object: serde_json::Map<_, _> =
        members.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    // Texts can always be written as JSON.
    Bytes::from_owner(Zeroizing::new(serde_json::to_vec(&object).unwrap_or_default()))
}

/// The most bytes that a form takes, so that no part of it is copied while it grows.
fn size(members: &[(&str, &str)]) -> usize {
    members.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum()
}
