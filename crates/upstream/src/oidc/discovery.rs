//! The metadata of issuers (OpenID Connect Discovery 1.0, RFC 9207), and what was read of it.

use std::sync::Arc;

use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{TenantId, Timestamp};
use serde::Deserialize;

use super::algorithm::Algorithm;
use super::documents::{Documents, Fetcher};
use super::fault::DocumentFault;
use super::published::{DocumentUrls, ProviderEndpoints, endpoints, usable_url};
use crate::bounded::BoundedList;
use crate::clients::ClientId;

/// The metadata of issuers, as connections have fetched it.
pub struct Discovery {
    documents: Documents<ProviderMetadata>,
    endpoints: Documents<ProviderEndpoints>,
}

/// The metadata of an issuer that signs ID tokens, in a discovery document that is whole. Its URLs are those of others: the egress policy holds for each call to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderMetadata {
    /// The issuer, byte for byte the one that was asked.
    pub issuer: String,
    pub authorization_endpoint: HttpUrl,
    pub token_endpoint: HttpUrl,
    pub jwks_uri: HttpUrl,
    pub userinfo_endpoint: Option<HttpUrl>,
    pub revocation_endpoint: Option<HttpUrl>,
    pub device_authorization_endpoint: Option<HttpUrl>,
    /// The algorithms of ID tokens, those left out that are not permitted. `None` if the issuer does not tell.
    pub id_token_signing_algorithms: Option<Vec<Algorithm>>,
    pub token_endpoint_auth_methods: Vec<String>,
    /// None if the issuer does not tell, which may have no PKCE then.
    pub code_challenge_methods: Vec<String>,
    /// Authorisation responses have the parameter `iss` (RFC 9207).
    pub sends_response_issuer: bool,
}

/// The reason why an authorisation response is not from the issuer that was asked (RFC 9207 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseIssuerFault {
    #[error("the authorisation response has no iss, although the issuer says that its responses have one")]
    Missing,
    #[error("the iss of the authorisation response is not the issuer that was asked")]
    Mismatch,
}

/// Unknown members are ignored.
#[derive(Deserialize)]
struct Body {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
    userinfo_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    id_token_signing_alg_values_supported: Option<Names>,
    token_endpoint_auth_methods_supported: Option<Names>,
    code_challenge_methods_supported: Option<Names>,
    authorization_response_iss_parameter_supported: Option<bool>,
}

type Names = BoundedList<String, MAX_NAMES>;

/// The most names in a list. Those after it count as if they were not there.
const MAX_NAMES: usize = 64;
/// The method of clients where the metadata names none (OpenID Connect Discovery 1.0 3).
const DEFAULT_AUTH_METHOD: &str = "client_secret_basic";

/// Asks an issuer for its metadata.
///
/// # Errors
/// There is none, it is that of another issuer, or a part of it is unusable.
pub async fn discover(fetcher: &Fetcher<'_>, issuer: &str) -> Result<ProviderMetadata, DocumentFault> {
    let urls = DocumentUrls::of(issuer)?;
    ProviderMetadata::of(fetcher.fetch(&urls.openid).await?, issuer)
}

/// Checks from which issuer an authorisation response is, before the code in it goes anywhere. The texts are compared byte for byte.
/// The response of an issuer that neither states support for `iss` nor sends it passes unchecked.
///
/// # Errors
/// The response is from another issuer, or may be.
pub fn check_response_issuer(
    expected: &str,
    sends_response_issuer: bool,
    given: Option<&str>,
) -> Result<(), ResponseIssuerFault> {
    match given {
        Some(given) if given == expected => Ok(()),
        Some(_) => Err(ResponseIssuerFault::Mismatch),
        None if sends_response_issuer => Err(ResponseIssuerFault::Missing),
        None => Ok(()),
    }
}

// === impl Discovery ===

impl Discovery {
    /// Keeps the metadata of at most so many issuers.
    pub fn new(max: usize) -> Self {
        Discovery { documents: Documents::new(max), endpoints: Documents::new(max) }
    }

    /// Returns the metadata of an issuer, and asks for it if it is not known or too old.
    ///
    /// # Errors
    /// As with [`discover`]. Nothing is kept then but the fault, for a few seconds.
    pub async fn metadata(&self, fetcher: &Fetcher<'_>, issuer: &str) -> Result<Arc<ProviderMetadata>, DocumentFault> {
        // Two issuers that differ in a slash at the end have the same URL, so the text is compared again.
        let url = DocumentUrls::of(issuer)?.openid;
        let metadata = self.documents.get(fetcher, &url, discover(fetcher, issuer)).await?;
        if metadata.issuer == issuer { Ok(metadata) } else { Err(DocumentFault::IssuerMismatch) }
    }

    /// Returns the endpoints of an issuer, and asks for them if they are not known or too old. If the issuer does not answer then, those that
    /// it published last are used, however old they are; and for a day if there is no document where it was.
    ///
    /// # Errors
    /// It publishes none, or the document is that of another issuer. Nothing is kept then but the fault, for a few seconds.
    pub async fn endpoints(
        &self,
        fetcher: &Fetcher<'_>,
        issuer: &str,
    ) -> Result<Arc<ProviderEndpoints>, DocumentFault> {
        let url = DocumentUrls::of(issuer)?.openid;
        let found = self.endpoints.get_or_last(fetcher, &url, endpoints(fetcher, issuer)).await?;
        if found.issuer == issuer { Ok(found) } else { Err(DocumentFault::IssuerMismatch) }
    }

    /// The endpoints that an issuer published last, as a connection has fetched them.
    pub fn last_endpoints(&self, id: ClientId, issuer: &str, now: Timestamp) -> Option<Arc<ProviderEndpoints>> {
        let url = DocumentUrls::of(issuer).ok()?.openid;
        self.endpoints.last(id, &url, now).filter(|last| last.issuer == issuer)
    }

    /// Forgets what was fetched for a connection.
    pub fn remove(&self, id: ClientId) {
        self.documents.remove(id);
        self.endpoints.remove(id);
    }

    /// Forgets what was fetched for a tenant.
    pub fn remove_tenant(&self, tenant: TenantId) {
        self.documents.remove_tenant(tenant);
        self.endpoints.remove_tenant(tenant);
    }
}

// === impl ProviderMetadata ===

impl ProviderMetadata {
    fn of(body: Body, issuer: &str) -> Result<Self, DocumentFault> {
        if body.issuer != issuer {
            return Err(DocumentFault::IssuerMismatch);
        }
        let required = |name, text| endpoint(name, text)?.ok_or(DocumentFault::Field(name));
        let names = |list: Option<Names>| list.map(|BoundedList(names)| names);
        let algorithms = names(body.id_token_signing_alg_values_supported);
        Ok(ProviderMetadata {
            issuer: body.issuer,
            authorization_endpoint: required("authorization_endpoint", body.authorization_endpoint)?,
            token_endpoint: required("token_endpoint", body.token_endpoint)?,
            jwks_uri: required("jwks_uri", body.jwks_uri)?,
            userinfo_endpoint: endpoint("userinfo_endpoint", body.userinfo_endpoint)?,
            revocation_endpoint: endpoint("revocation_endpoint", body.revocation_endpoint)?,
            device_authorization_endpoint: endpoint(
                "device_authorization_endpoint",
                body.device_authorization_endpoint,
            )?,
            id_token_signing_algorithms: algorithms
                .map(|names| names.iter().filter_map(|name| Algorithm::parse(name)).collect()),
            token_endpoint_auth_methods: names(body.token_endpoint_auth_methods_supported)
                .unwrap_or_else(|| vec![DEFAULT_AUTH_METHOD.to_owned()]),
            code_challenge_methods: names(body.code_challenge_methods_supported).unwrap_or_default(),
            sends_response_issuer: body.authorization_response_iss_parameter_supported.unwrap_or_default(),
        })
    }
}

/// The URL of an endpoint, if there is one. One that cannot be used is a fault.
fn endpoint(name: &'static str, text: Option<String>) -> Result<Option<HttpUrl>, DocumentFault> {
    text.map(|text| usable_url(name, &text).ok_or(DocumentFault::Field(name))).transpose()
}

#[cfg(test)]
mod tests;
