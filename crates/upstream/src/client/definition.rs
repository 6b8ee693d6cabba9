//! The definition of a client: everything that decides how it calls.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::Full;
use jackfield_domain::Secret;
use jackfield_domain::connector::Timeouts;
use jackfield_domain::value::maps::is_refused_header;
use jackfield_domain::value::url::HttpUrl;

use super::deadline::Deadline;
use crate::egress::{Target, UrlFault};
use crate::error::Fault;
use crate::observe;
use crate::tls::{ClientCertificateFault, Identity, IdentityError, TlsFault, Trust, TrustError};

/// The definition of a client.
#[derive(Debug)]
pub struct Definition {
    /// The origins that may learn who we are: `identity` and `headers` are for them alone. A call to another origin, such as
    /// one that a discovery document names, has neither.
    pub origins: Vec<Target>,
    pub identity: Option<Identity>,
    /// The origins that get `identity` in place of `origins`, which then only get `headers`.
    pub identity_origins: Option<Vec<Target>>,
    pub headers: HeaderMap,
    pub trust: Trust,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub proxy: Option<Proxy>,
    /// Requests to the origins have the trace of the call, if it is traced (W3C Trace Context).
    pub propagate_trace_context: bool,
}

/// The limits of a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body of a response, in bytes.
    pub body: usize,
    /// The largest head of a response, in bytes.
    pub head: usize,
    /// The most calls at a time. Others wait for a place, for the connect timeout at most, as part of their total timeout. That of a call
    /// whose place was reserved begins afterwards.
    pub concurrency: usize,
    /// The most idle connections. With as many as calls at a time, no call has to make a connection again.
    pub idle: usize,
    /// The longest time that a connection is idle. A server may set a shorter one (`keep-alive: timeout=…`).
    pub idle_timeout: Duration,
    /// The failures in a row after which no calls are made for `recovery`.
    pub failures: u32,
    /// The time without calls, after which one call is tried.
    pub recovery: Duration,
}

/// An HTTP proxy that is asked for a tunnel (CONNECT, RFC 9110 9.3.6). It sees the names of hosts, and nothing else.
#[derive(Debug)]
pub struct Proxy {
    pub(super) target: Target,
    pub(super) authorization: Option<HeaderValue>,
}

/// A request. It has no printable form: its URL, its headers and its body may have secrets.
pub struct Request {
    pub method: Method,
    pub url: HttpUrl,
    /// They replace headers of the definition. Those that frame the message are set by the client.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The end of the call, if it is earlier than that of the total timeout.
    pub deadline: Option<Deadline>,
}

/// A part of a definition that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    #[error("header {0}: the client sets it itself")]
    Header(HeaderName),
    #[error("identity: {0}")]
    Identity(#[from] IdentityError),
    #[error("trust bundle: {0}")]
    Trust(#[from] TrustError),
    #[error("the proxy: {0}")]
    ProxyUrl(#[from] UrlFault),
    #[error("the proxy must be an http URL without a path: the tunnel is encrypted, the way to the proxy is not")]
    ProxyScheme,
    #[error("a name or a password has characters that no header can have")]
    Credentials,
    #[error("header {0:?}: its name or its value has characters that no header can have")]
    HeaderText(String),
    #[error("TLS: {0}")]
    Tls(String),
}

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("jackfield/", env!("CARGO_PKG_VERSION")));
/// The usual number of headers of a request.
const HEADERS: usize = 8;
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

// === impl Definition ===

impl Definition {
    /// Refuses what would break the framing of requests.
    pub(crate) fn check(&self) -> Result<(), DefinitionError> {
        match self.headers.keys().find(|name| is_refused_header(name.as_str())) {
            Some(name) => Err(DefinitionError::Header(name.clone())),
            None => Ok(()),
        }
    }

    /// Returns true if a target may learn who we are.
    pub(crate) fn knows(&self, target: &Target) -> bool {
        self.origins.iter().any(|origin| origin.origin() == target.origin())
    }

    /// The identity for a target.
    pub(crate) fn identity(&self, target: &Target) -> Option<&Identity> {
        let is_for = |target: &Target| match &self.identity_origins {
            Some(origins) => origins.iter().any(|origin| origin.origin() == target.origin()),
            None => self.knows(target),
        };
        self.identity.as_ref().filter(|_| is_for(target))
    }

    /// The request as it is sent to a target.
    pub(crate) fn message(&self, target: &Target, request: Request) -> http::Request<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(header::USER_AGENT, USER_AGENT);
        let is_known = self.knows(target);
        if is_known {
            headers.extend(self.headers.clone());
        }
        headers.extend(request.headers);
        let own: Vec<_> = headers.keys().filter(|name| is_refused_header(name.as_str())).cloned().collect();
        for name in own {
            headers.remove(name);
        }
        if is_known && self.propagate_trace_context {
            observe::propagate(&mut headers);
        }
        headers.insert(header::ACCEPT_ENCODING, IDENTITY);
        if let Ok(host) = HeaderValue::from_str(&target.authority()) {
            headers.insert(header::HOST, host);
        }
        let mut message = http::Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.uri_mut() = Uri::from(target.path_and_query().clone());
        *message.headers_mut() = headers;
        message
    }

    /// The fault if a response comes from the TLS of the server, because it does not accept the certificate of the client. The
    /// system that was called has not seen the request.
    pub(crate) fn refusal(&self, target: &Target, status: StatusCode, body: &[u8]) -> Option<Fault> {
        let fault = ClientCertificateFault::of_response(status.as_u16(), body).filter(|_| target.is_https())?;
        let flaw = self.identity(target).and_then(Identity::flaw);
        Some(Fault::Tls(TlsFault::ClientCertificate(fault.or(flaw))))
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 1024 * 1024,
            head: 16 * 1024,
            concurrency: 32,
            idle: 32,
            idle_timeout: Duration::from_secs(30),
            failures: 5,
            recovery: Duration::from_secs(10),
        }
    }
}

// === impl Proxy ===

impl Proxy {
    /// Takes the URL of a proxy, and a name with a password for it.
    ///
    /// # Errors
    /// The URL has another scheme, or a path; or name and password cannot be sent.
    pub fn new(url: &HttpUrl, credentials: Option<(&str, &Secret)>) -> Result<Self, DefinitionError> {
        let target = Target::parse(url)?;
        if target.is_https() || target.path_and_query() != "/" {
            return Err(DefinitionError::ProxyScheme);
        }
        let authorization = credentials.map(|(user, password)| basic(user, password)).transpose()?;
        Ok(Proxy { target, authorization })
    }
}

/// The value of an `authorization` header for a name and a password (RFC 7617), in UTF-8. It does not show in logs.
///
/// # Errors
/// The name has a colon, or one of them has control characters.
pub fn basic(user: &str, password: &Secret) -> Result<HeaderValue, DefinitionError> {
    if user.contains(':') || user.contains(char::is_control) || password.expose().contains(char::is_control) {
        return Err(DefinitionError::Credentials);
    }
    let pair = Secret::new(format!("{user}:{}", password.expose()));
    let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    secret_value(value.expose()).ok_or(DefinitionError::Credentials)
}

/// A header of a definition. The value of a secret one does not show in logs.
///
/// # Errors
/// Name or value has characters that no header can have.
pub fn header_of(name: &str, value: &str, is_secret: bool) -> Result<(HeaderName, HeaderValue), DefinitionError> {
    let wrong = || DefinitionError::HeaderText(name.to_owned());
    let value = if is_secret { secret_value(value) } else { HeaderValue::from_str(value).ok() };
    Ok((name.parse().map_err(|_| wrong())?, value.ok_or_else(wrong)?))
}

/// The value of a header that does not show in logs; `None` if it has characters that no header can have.
pub fn secret_value(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
