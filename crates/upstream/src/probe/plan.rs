//! The request of a probe, and the responses that are good.

use bytes::Bytes;
use http::{HeaderMap, Method};
use jackfield_domain::Secret;
use jackfield_domain::connector::{
    ApiKey, ClientCertificate, ConnectorKind, Generic, HttpBasic, License, OAuth2Endpoints,
};
use jackfield_domain::login::{LoginAttempt, LoginEvent, LoginId};
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::Request;
use crate::license::{self, LicenseFault, Requests};
use crate::login;

/// The plan of a probe: a URL, and what is asked for there.
pub struct Plan {
    pub(super) url: HttpUrl,
    pub(super) subject: Subject,
}

/// The subject of a request.
pub(super) enum Subject {
    /// A login is posted: one that should be accepted, or one that cannot be.
    Login { attempt: LoginAttempt, is_real: bool },
    /// A login is posted to a licence server, for an application: one that should be accepted, or one that cannot be.
    License { base: HttpUrl, application_id: String, login_id: LoginId, password: Secret, is_real: bool },
    /// The discovery document of this issuer is read, or its metadata if there is none.
    Discovery { issuer: HttpUrl, metadata: Option<Box<Plan>> },
    /// The metadata of this issuer are read.
    Metadata { issuer: HttpUrl },
    /// An endpoint of an OAuth provider is called without parameters, which it has to refuse.
    Endpoint,
    /// The root of an API is read. Its credentials may be those of users, who take no part in a probe.
    Base { is_of_users: bool },
}

/// The path of the discovery document (OpenID Connect Discovery 1.0, 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The path of the metadata of an OAuth provider (RFC 8414 3), which comes before the path of the issuer.
const METADATA: &str = "/.well-known/oauth-authorization-server";
/// The beginning of login ids that no user has.
const UNKNOWN_LOGIN: &str = "jackfield-test-";

// === impl Plan ===

impl Plan {
    /// Plans the probe of a connector, with a login that should be accepted or without. `None`: there is no URL to call.
    pub fn of(kind: &ConnectorKind, login: Option<(LoginId, Secret)>) -> Option<Self> {
        let (url, subject) = match kind {
            ConnectorKind::Generic(Generic { authentication_url, .. }) => {
                let is_real = login.is_some();
                let (login_id, password) = login.or_else(unknown_login)?;
                let event = LoginEvent::default();
                let attempt =
                    LoginAttempt { login_id, password, application_id: None, no_jwt: true, new_device: false, event };
                (authentication_url.clone(), Subject::Login { attempt, is_real })
            }
            ConnectorKind::License(License { base_url, application_id }) => {
                let is_real = login.is_some();
                let (login_id, password) = login.or_else(unknown_login)?;
                let (base, application_id) = (base_url.clone(), application_id.clone());
                (
                    license::authentication_url(&base),
                    Subject::License { base, application_id, login_id, password, is_real },
                )
            }
            ConnectorKind::OAuth2(endpoints) => of_oauth2(endpoints)?,
            ConnectorKind::ApiKey(ApiKey { base_url, .. }) | ConnectorKind::HttpBasic(HttpBasic { base_url }) => {
                (base_url.clone()?, Subject::Base { is_of_users: true })
            }
            ConnectorKind::ClientCertificate(ClientCertificate { base_url }) => {
                (base_url.clone()?, Subject::Base { is_of_users: false })
            }
        };
        Some(Plan { url, subject })
    }

    /// The request, unless none can be made of the settings of the connector.
    pub(super) fn request(&self, deadline: Option<Instant>) -> Result<Request, LicenseFault> {
        Ok(match &self.subject {
            Subject::Login { attempt, .. } => login::request(&self.url, attempt, deadline),
            Subject::License { base, application_id, login_id, password, .. } => {
                Requests::new(base, application_id, deadline)?.authenticate(login_id.as_str(), password)
            }
            Subject::Discovery { .. } | Subject::Metadata { .. } | Subject::Endpoint | Subject::Base { .. } => {
                Request {
                    method: Method::GET,
                    url: self.url.clone(),
                    headers: HeaderMap::new(),
                    body: Bytes::new(),
                    deadline,
                }
            }
        })
    }
}

// === impl Subject ===

impl Subject {
    /// Returns true if calls depend on the body of the response.
    pub(super) fn has_body(&self) -> bool {
        match self {
            Subject::Login { .. } | Subject::License { .. } | Subject::Discovery { .. } | Subject::Metadata { .. } => {
                true
            }
            Subject::Endpoint | Subject::Base { .. } => false,
        }
    }
}

/// The discovery document, or an endpoint if there is no issuer. The token endpoint is the most important one.
fn of_oauth2(endpoints: &OAuth2Endpoints) -> Option<(HttpUrl, Subject)> {
    let OAuth2Endpoints {
        issuer_url,
        authorization_url,
        token_url,
        profile_url,
        revocation_url,
        jwks_url,
        device_authorization_url,
    } = endpoints;
    if let Some(issuer) = issuer_url {
        let url = format!("{}{DISCOVERY}", issuer.as_str().trim_end_matches('/'));
        let url = HttpUrl::parse("issuer_url", &url, usize::MAX).ok()?;
        return Some((url, Subject::Discovery { issuer: issuer.clone(), metadata: of_metadata(issuer) }));
    }
    let endpoints = [token_url, authorization_url, device_authorization_url, revocation_url, profile_url, jwks_url];
    let url = endpoints.into_iter().flatten().next()?;
    Some((url.clone(), Subject::Endpoint))
}

/// The metadata of an issuer. `None`: it has a query, which no issuer may have.
fn of_metadata(issuer: &HttpUrl) -> Option<Box<Plan>> {
    let (scheme, rest) = issuer.as_str().split_once("://").filter(|(_, rest)| !rest.contains('?'))?;
    let (authority, path) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    let url = HttpUrl::parse("issuer_url", &format!("{scheme}://{authority}{METADATA}{path}"), usize::MAX).ok()?;
    Some(Box::new(Plan { url, subject: Subject::Metadata { issuer: issuer.clone() } }))
}

/// A login that no user has. Its name says where it comes from.
fn unknown_login() -> Option<(LoginId, Secret)> {
    let login_id = LoginId::parse("login_id", &format!("{UNKNOWN_LOGIN}{}", Uuid::now_v7().simple())).ok()?;
    Some((login_id, Secret::new(Uuid::now_v7().simple().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_an_issuer_are_where_the_standards_say() {
        for (issuer, document, metadata) in [
            ("https://a.example", "https://a.example", Some("https://a.example")),
            ("https://a.example/", "https://a.example", Some("https://a.example")),
            ("https://a.example:8443/b/c", "https://a.example:8443/b/c", Some("https://a.example:8443")),
            ("https://a.example/b/c/", "https://a.example/b/c", Some("https://a.example")),
            ("https://a.example/b?c=d", "https://a.example/b?c=d", None),
        ] {
            let issuer_url = Some(HttpUrl::parse("issuer_url", issuer, 100).unwrap());
            let endpoints = OAuth2Endpoints { issuer_url, ..OAuth2Endpoints::default() };
            let plan = Plan::of(&ConnectorKind::OAuth2(endpoints), None).unwrap();
            assert_eq!(plan.url.as_str(), format!("{document}/.well-known/openid-configuration"));
            let Subject::Discovery { metadata: found, .. } = plan.subject else { panic!("another subject") };
            let path = if issuer.contains("/b/c") { "/b/c" } else { "" };
            let expected = metadata.map(|origin| format!("{origin}/.well-known/oauth-authorization-server{path}"));
            assert_eq!(found.map(|plan| plan.url.as_str().to_owned()), expected, "{issuer}");
        }
    }
}
