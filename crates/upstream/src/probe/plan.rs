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
    /// The discovery document of this issuer is read.
    Discovery { issuer: HttpUrl },
    /// An endpoint of an OAuth provider is called without parameters, which it has to refuse.
    Endpoint,
    /// The root of an API is read. Its credentials may be those of users, who take no part in a probe.
    Base { is_of_users: bool },
}

/// The path of the discovery document (OpenID Connect Discovery 1.0, 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";
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
            ConnectorKind::License(License { base_url, .. }) => (base_url.clone(), Subject::Base { is_of_users: true }),
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

    pub(super) fn request(&self, deadline: Option<Instant>) -> Request {
        match &self.subject {
            Subject::Login { attempt, .. } => login::request(&self.url, attempt, deadline),
            Subject::Discovery { .. } | Subject::Endpoint | Subject::Base { .. } => Request {
                method: Method::GET,
                url: self.url.clone(),
                headers: HeaderMap::new(),
                body: Bytes::new(),
                deadline,
            },
        }
    }
}

// === impl Subject ===

impl Subject {
    /// Returns true if calls depend on the body of the response.
    pub(super) fn has_body(&self) -> bool {
        matches!(self, Subject::Login { .. } | Subject::Discovery { .. })
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
        return Some((url, Subject::Discovery { issuer: issuer.clone() }));
    }
    let endpoints = [token_url, authorization_url, device_authorization_url, revocation_url, profile_url, jwks_url];
    let url = endpoints.into_iter().flatten().next()?;
    Some((url.clone(), Subject::Endpoint))
}

/// A login that no user has. Its name says where it comes from.
fn unknown_login() -> Option<(LoginId, Secret)> {
    let login_id = LoginId::parse("login_id", &format!("{UNKNOWN_LOGIN}{}", Uuid::now_v7().simple())).ok()?;
    Some((login_id, Secret::new(Uuid::now_v7().simple().to_string())))
}
