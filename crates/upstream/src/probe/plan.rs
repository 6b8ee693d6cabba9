//! The request of a probe, and the responses that are good.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use jackfield_domain::Secret;
use jackfield_domain::connector::{
    ApiKey, ClientCertificate, ConnectorKind, Generic, HttpBasic, License, OAuth2Endpoints,
};
use jackfield_domain::login::{LoginAttempt, LoginEvent, LoginId};
use jackfield_domain::value::url::HttpUrl;
use tokio::time::Instant;
use uuid::Uuid;

use super::token::TokenCheck;
use crate::client::{Deadline, Request};
use crate::license::{self, Requests};
use crate::login;
use crate::oidc::{DocumentUrls, document_request};

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
    /// A document of this issuer is read, or another one if there is none. It needs these members, and the URLs of a connection should be
    /// those of the members with these names.
    Document {
        issuer: String,
        needed: &'static [&'static str],
        endpoints: Vec<(&'static str, HttpUrl)>,
        or: Option<Box<Plan>>,
    },
    /// The key set of an issuer is read.
    Keys,
    /// A code that was not issued is sent to a token endpoint.
    Token(Box<TokenCheck>),
    /// An endpoint of an OAuth provider is called without parameters, which it has to refuse.
    Endpoint { method: Method },
    /// The root of an API is read. Its credentials may be those of users, who take no part in a probe.
    Base { is_of_users: bool },
}

/// The use of the documents of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentUse {
    /// ID tokens are checked, which takes a discovery document that is whole.
    IdTokens,
    /// Only endpoints are looked up, in the discovery document or in metadata.
    Endpoints,
    /// It is not known yet, so metadata do, and a discovery document has to be whole.
    Unknown,
}

/// The members that every provider of OpenID Connect needs (Discovery 1.0, 3).
const OF_DISCOVERY: &[&str] = &["authorization_endpoint", "token_endpoint", "jwks_uri"];
/// The members that every other provider needs (RFC 8414 2). Not all of them have users, or sign tokens.
const OF_METADATA: &[&str] = &["token_endpoint"];
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
            ConnectorKind::OAuth2(endpoints) => return of_oauth2(endpoints),
            ConnectorKind::ApiKey(ApiKey { base_url, .. }) | ConnectorKind::HttpBasic(HttpBasic { base_url }) => {
                (base_url.clone()?, Subject::Base { is_of_users: true })
            }
            ConnectorKind::ClientCertificate(ClientCertificate { base_url }) => {
                (base_url.clone()?, Subject::Base { is_of_users: false })
            }
        };
        Some(Plan { url, subject })
    }

    /// Plans to read the discovery document of an issuer, or its metadata if there is none and they do. `None`: the issuer has no such URLs.
    pub fn discovery(issuer: &str, used_for: DocumentUse, endpoints: Vec<(&'static str, HttpUrl)>) -> Option<Self> {
        let DocumentUrls { openid, oauth } = DocumentUrls::of(issuer).ok()?;
        let document = |needed, or, endpoints| Subject::Document { issuer: issuer.to_owned(), needed, endpoints, or };
        let needed = if used_for == DocumentUse::Endpoints { OF_METADATA } else { OF_DISCOVERY };
        let or = (used_for != DocumentUse::IdTokens).then(|| {
            let subject = document(OF_METADATA, None, endpoints.clone());
            Box::new(Plan { url: oauth, subject })
        });
        Some(Plan { url: openid, subject: document(needed, or, endpoints) })
    }

    /// Plans to read a key set.
    pub fn keys(url: HttpUrl) -> Self {
        Plan { url, subject: Subject::Keys }
    }

    /// Plans to send a code that was not issued to a token endpoint.
    pub fn token(check: TokenCheck) -> Self {
        Plan { url: check.url.clone(), subject: Subject::Token(Box::new(check)) }
    }

    /// Plans to read an endpoint, without parameters.
    pub fn endpoint(url: HttpUrl) -> Self {
        Plan { url, subject: Subject::Endpoint { method: Method::GET } }
    }

    /// Plans to post a form without parameters to an endpoint, which takes nothing else.
    pub fn posted(url: HttpUrl) -> Self {
        Plan { url, subject: Subject::Endpoint { method: Method::POST } }
    }

    /// The request, unless none can be made of the settings of the connector or the connection: then the reason.
    pub(super) fn request(&self, deadline: Option<Instant>) -> Result<Request, String> {
        Ok(match &self.subject {
            Subject::Login { attempt, .. } => login::request(&self.url, attempt, deadline),
            Subject::License { base, application_id, login_id, password, .. } => {
                let requests = Requests::new(base, application_id, deadline).map_err(|fault| fault.to_string())?;
                requests.authenticate(login_id.as_str(), password)
            }
            Subject::Token(check) => check.request(0, deadline).map_err(|fault| fault.to_string())?,
            Subject::Endpoint { method } => self.empty(method.clone(), deadline),
            Subject::Document { .. } | Subject::Keys => {
                document_request(self.url.clone(), deadline.map(Deadline::Caller))
            }
            Subject::Base { .. } => self.empty(Method::GET, deadline),
        })
    }

    /// A request without parameters.
    fn empty(&self, method: Method, deadline: Option<Instant>) -> Request {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = match method {
            Method::POST => HeaderMap::from_iter([(CONTENT_TYPE, form)]),
            _ => HeaderMap::new(),
        };
        let deadline = deadline.map(Deadline::Caller);
        Request { method, url: self.url.clone(), headers, body: Bytes::new(), deadline }
    }
}

// === impl Subject ===

impl Subject {
    /// Returns true if calls depend on the body of the response.
    pub(super) fn has_body(&self) -> bool {
        match self {
            Subject::Login { .. }
            | Subject::License { .. }
            | Subject::Document { .. }
            | Subject::Keys
            | Subject::Token(_) => true,
            Subject::Endpoint { .. } | Subject::Base { .. } => false,
        }
    }
}

/// The discovery document, or an endpoint if there is no issuer that has one. The token endpoint is the most important one.
fn of_oauth2(endpoints: &OAuth2Endpoints) -> Option<Plan> {
    let OAuth2Endpoints {
        issuer_url,
        authorization_url,
        token_url,
        profile_url,
        revocation_url,
        jwks_url,
        device_authorization_url,
    } = endpoints;
    let of_issuer =
        issuer_url.as_ref().and_then(|issuer| Plan::discovery(issuer.as_str(), DocumentUse::Unknown, Vec::new()));
    if of_issuer.is_some() {
        return of_issuer;
    }
    let endpoints = [token_url, authorization_url, device_authorization_url, revocation_url, profile_url, jwks_url];
    let url = endpoints.into_iter().flatten().next()?;
    Some(Plan::endpoint(url.clone()))
}

/// A login that no user has. Its name says where it comes from.
fn unknown_login() -> Option<(LoginId, Secret)> {
    let login_id = LoginId::parse("login_id", &format!("{UNKNOWN_LOGIN}{}", Uuid::now_v7().simple())).ok()?;
    Some((login_id, Secret::new(Uuid::now_v7().simple().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://a.example/b";

    fn needed(plan: &Plan) -> (&str, &[&str], Option<&Plan>) {
        let Subject::Document { needed, or, .. } = &plan.subject else { panic!("another subject") };
        (plan.url.as_str(), needed, or.as_deref())
    }

    #[test]
    fn the_document_that_is_needed_is_read() {
        const OPENID: &str = "https://a.example/b/.well-known/openid-configuration";
        const OAUTH: &str = "https://a.example/.well-known/oauth-authorization-server/b";
        for (used_for, of_openid, may_be_metadata) in [
            (DocumentUse::IdTokens, OF_DISCOVERY, false),
            (DocumentUse::Endpoints, OF_METADATA, true),
            (DocumentUse::Unknown, OF_DISCOVERY, true),
        ] {
            let plan = Plan::discovery(ISSUER, used_for, Vec::new()).unwrap();
            let (url, members, or) = needed(&plan);
            assert_eq!((url, members), (OPENID, of_openid), "{used_for:?}");
            let or = or.map(|plan| (needed(plan).0, needed(plan).1));
            assert_eq!(or, may_be_metadata.then_some((OAUTH, OF_METADATA)), "{used_for:?}");
        }
    }

    #[test]
    fn an_issuer_that_can_have_no_document_is_not_asked() {
        let url = |text: &str| Some(HttpUrl::parse("url", text, 100).unwrap());
        let endpoints = OAuth2Endpoints {
            issuer_url: url("https://a.example/b?c=d"),
            token_url: url("https://a.example/token"),
            ..OAuth2Endpoints::default()
        };
        let plan = Plan::of(&ConnectorKind::OAuth2(endpoints), None).unwrap();
        assert_eq!(plan.url.as_str(), "https://a.example/token");
    }
}
