//! Revocation of tokens (RFC 7009).

use std::collections::BTreeMap;

use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::credential::RevokedTokenKind;
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;

use super::response;
use super::{ClientAuthentication, TokenEndpoint, TokenFault};
use crate::client::{Client, Purpose};

/// A revocation endpoint, and the client that is registered there.
pub struct RevocationEndpoint<'a> {
    pub client: &'a Client,
    pub url: &'a HttpUrl,
    pub authentication: &'a ClientAuthentication,
}

/// The answer of a revocation endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The token is not good any more, or never was.
    Revoked,
    /// The endpoint does not revoke tokens of this kind (`unsupported_token_type`).
    Unsupported,
}

// === impl RevocationEndpoint ===

impl RevocationEndpoint<'_> {
    /// Revokes a token. The client says who it is as at the token endpoint. To ask twice does no harm.
    ///
    /// # Errors
    /// The endpoint refused, or there is no usable response.
    pub async fn revoke(
        &self,
        token: &Secret,
        kind: RevokedTokenKind,
        deadline: Option<Instant>,
    ) -> Result<Revocation, TokenFault> {
        let parameters = BTreeMap::new();
        let (client, url, authentication) = (self.client, self.url, self.authentication);
        // The standard knows no other encoding.
        let content_type = TokenContentType::Form;
        let endpoint = TokenEndpoint { client, url, authentication, content_type, parameters: &parameters };
        let hint = match kind {
            RevokedTokenKind::RefreshToken => "refresh_token",
            RevokedTokenKind::AccessToken => "access_token",
        };
        let request = endpoint.request(vec![("token", token.expose()), ("token_type_hint", hint)], deadline)?;
        response::read_revocation(&self.client.send_as(Purpose::Revocation, request).await?)
    }
}
