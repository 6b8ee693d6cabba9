//! Device authorisation (RFC 8628): a user decides with a code that they type at the provider.

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;

use super::response;
use super::{ClientAuthentication, TokenEndpoint, TokenFault};
use crate::client::{Client, Purpose};

/// A device authorisation endpoint, and the client that is registered there.
pub struct DeviceAuthorizationEndpoint<'a> {
    pub client: &'a Client,
    pub url: &'a HttpUrl,
    pub authentication: &'a ClientAuthentication,
    /// Parameters that are sent beside those of the request, which they cannot replace.
    pub parameters: &'a BTreeMap<String, String>,
}

/// The codes of an authorisation that has begun.
#[derive(Debug)]
pub struct DeviceAuthorization {
    /// The code for the token endpoint.
    pub device_code: Secret,
    /// The code that the user types.
    pub user_code: Secret,
    pub verification_uri: HttpUrl,
    /// The same with the code of the user in it.
    pub verification_uri_complete: Option<Secret>,
    /// The time for which the codes are good from the request on.
    pub lifetime: Duration,
    /// The least time between two polls. `None` if the server names none.
    pub interval: Option<Duration>,
}

// === impl DeviceAuthorizationEndpoint ===

impl DeviceAuthorizationEndpoint<'_> {
    /// Begins an authorisation. The client says who it is as at the token endpoint. To ask twice does no harm.
    ///
    /// # Errors
    /// The endpoint refused, or there is no usable response.
    pub async fn authorize(
        &self,
        scopes: &[String],
        deadline: Option<Instant>,
    ) -> Result<DeviceAuthorization, TokenFault> {
        let DeviceAuthorizationEndpoint { client, url, authentication, parameters } = *self;
        // The standard knows no other encoding.
        let content_type = TokenContentType::Form;
        let endpoint = TokenEndpoint { client, url, authentication, content_type, parameters };
        let scope = scopes.join(" ");
        let members = if scope.is_empty() { Vec::new() } else { vec![("scope", scope.as_str())] };
        response::read_device(&self.client.send_as(Purpose::Device, endpoint.request(members, deadline)?).await?)
    }
}
