//! The client of an authorisation server: it sends users to the authorisation endpoint, or has them type a code (RFC 8628), exchanges grants
//! for tokens at the token endpoint (RFC 6749), and revokes tokens at the revocation endpoint (RFC 7009).

mod assertion;
mod authorize;
mod device;
mod fault;
mod request;
mod response;
mod revocation;

use std::collections::BTreeMap;

use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use tokio::time::Instant;

use crate::client::{Client, Purpose, Request};

pub use self::assertion::{AssertionError, AssertionKey, ClientAssertion, RsaScheme};
pub use self::authorize::AuthorizationRequest;
pub use self::device::{DeviceAuthorization, DeviceAuthorizationEndpoint};
pub use self::fault::{ErrorCode, TokenFailure, TokenFault};
pub(crate) use self::response::read as read_tokens;
pub use self::response::{AccessFlaw, AccessToken, MAX_LIFETIME, TokenResponse};
pub use self::revocation::{Revocation, RevocationEndpoint};

/// A token endpoint, and the client that is registered there.
pub struct TokenEndpoint<'a> {
    pub client: &'a Client,
    pub url: &'a HttpUrl,
    pub authentication: &'a ClientAuthentication,
    pub content_type: TokenContentType,
    /// Parameters that are sent beside those of the grant, which they cannot replace.
    pub parameters: &'a BTreeMap<String, String>,
}

/// The way in which a client says who it is (RFC 6749 2.3).
#[derive(Debug)]
pub enum ClientAuthentication {
    /// A public client, which has no secret.
    None { client_id: String },
    /// `client_secret_basic`: id and secret in the header.
    SecretBasic { client_id: String, client_secret: Secret },
    /// `client_secret_post`: id and secret in the body.
    SecretPost { client_id: String, client_secret: Secret },
    /// `private_key_jwt`: a signature in the body.
    PrivateKeyJwt(Box<ClientAssertion>),
    /// `tls_client_auth` and `self_signed_tls_client_auth`: the certificate of the connection, and the id in the body (RFC 8705 2).
    Certificate { client_id: String },
}

/// A grant: the proof of an authorisation that is exchanged for tokens (RFC 6749 1.3).
#[derive(Debug)]
pub enum Grant<'a> {
    /// An authorisation code (RFC 6749 4.1.3), with the verifier of its challenge (RFC 7636 4.5).
    AuthorizationCode { code: &'a Secret, redirect_uri: &'a RedirectUri, code_verifier: &'a Secret },
    /// A device code (RFC 8628 3.4). It is sent again and again until the user has decided.
    DeviceCode { device_code: &'a Secret },
    /// A refresh token (RFC 6749 6). Some servers demand the scopes again.
    RefreshToken { refresh_token: &'a Secret, scope: Option<&'a str> },
    /// The client itself (RFC 6749 4.4).
    ClientCredentials { scope: Option<&'a str> },
}

// === impl TokenEndpoint ===

impl TokenEndpoint<'_> {
    /// Exchanges a grant for tokens, within the time that the endpoint is given. The request is sent once, over a connection of its own: a
    /// grant that is sent twice may count as stolen, and one that is sent to an endpoint that has closed the connection may be lost.
    ///
    /// # Errors
    /// The endpoint refused the grant, or there is no usable response. [`TokenFault::class`] says if the grant may be spent.
    pub async fn exchange(&self, grant: &Grant<'_>, deadline: Option<Instant>) -> Result<TokenResponse, TokenFault> {
        response::read(&self.client.send_as(Purpose::Exchange, self.message(grant, deadline)?).await?)
    }

    /// The request that exchanges a grant. A probe sends it over a connection of its own.
    pub(crate) fn message(&self, grant: &Grant<'_>, deadline: Option<Instant>) -> Result<Request, TokenFault> {
        self.request(grant.members(), deadline)
    }
}

// === impl ClientAuthentication ===

impl ClientAuthentication {
    /// The id of the client.
    pub fn client_id(&self) -> &str {
        match self {
            ClientAuthentication::None { client_id }
            | ClientAuthentication::Certificate { client_id }
            | ClientAuthentication::SecretBasic { client_id, .. }
            | ClientAuthentication::SecretPost { client_id, .. } => client_id,
            ClientAuthentication::PrivateKeyJwt(assertion) => assertion.client_id(),
        }
    }
}
