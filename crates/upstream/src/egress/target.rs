//! URLs that can be called. Parsers of URLs accept many forms of one host: octal and decimal addresses, full-width digits,
//! letters of other scripts. Only the form that is used is accepted here, so people and programs see the same host.

use std::net::IpAddr;

use http::uri::PathAndQuery;
use jackfield_domain::value::url::HttpUrl;
use url::{Host, Position, Url};

/// The destination of a call: an http or https URL with a host and a port that can be dialled.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    is_https: bool,
    host: Host<String>,
    port: u16,
    path_and_query: PathAndQuery,
}

/// The reason why a URL cannot be called, under any policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    #[error("the URL cannot be read")]
    Unreadable,
    #[error("the scheme must be https")]
    Scheme,
    #[error("http is for loopback in development mode only: use https")]
    PlainHttp,
    #[error("the URL must not contain user information")]
    UserInformation,
    #[error("the URL must not have a fragment")]
    Fragment,
    #[error("the host must be written as {0:?}, because that is what would be called")]
    HostForm(String),
    #[error("the host must not end with a dot")]
    TrailingDot,
    #[error("the host is not a name of the domain name system")]
    HostName,
    /// The usual port is the one of the scheme.
    #[error("port {port} is not permitted: use {usual}, or 1024 and above")]
    Port { port: u16, usual: u16 },
}

/// The longest name (RFC 1035 2.3.4), without the dot at its end.
const MAX_NAME: usize = 253;
/// The longest part of a name.
const MAX_LABEL: usize = 63;

// === impl Target ===

impl Target {
    /// Parses a URL.
    ///
    /// # Errors
    /// The URL cannot be called, whatever the policy says.
    pub fn parse(url: &HttpUrl) -> Result<Self, UrlFault> {
        let text = url.as_str();
        let url = Url::parse(text).map_err(|_| UrlFault::Unreadable)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlFault::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlFault::UserInformation);
        }
        if url.fragment().is_some() {
            return Err(UrlFault::Fragment);
        }
        let host = url.host().ok_or(UrlFault::Unreadable)?.to_owned();
        let used = host.to_string();
        if !written_host(text).eq_ignore_ascii_case(&used) {
            return Err(UrlFault::HostForm(used));
        }
        if let Host::Domain(name) = &host {
            check_name(name)?;
        }
        let is_https = url.scheme() == "https";
        let port = url.port_or_known_default().ok_or(UrlFault::Unreadable)?;
        if port == 0 {
            return Err(UrlFault::Port { port, usual: usual_port(is_https) });
        }
        let path_and_query =
            url[Position::BeforePath..Position::AfterQuery].parse().map_err(|_| UrlFault::Unreadable)?;
        Ok(Target { is_https, host, port, path_and_query })
    }

    /// The host as it is called: a name in lower case, or an address.
    pub fn host(&self) -> &Host<String> {
        &self.host
    }

    /// The host if it is an address. A resolver is never asked for one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// The port, also if it is the default of the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that the scheme has if a URL names none.
    pub(super) fn usual_port(&self) -> u16 {
        usual_port(self.is_https)
    }

    /// Returns true for https.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Scheme, host and port (RFC 6454), which decide whether two targets are one peer.
    pub fn origin(&self) -> (bool, &Host<String>, u16) {
        (self.is_https, &self.host, self.port)
    }

    /// The host, and the port if it is not the default of the scheme, as in the `host` header.
    pub fn authority(&self) -> String {
        match self.port {
            port if port == self.usual_port() => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// The path and the query, as in the first line of a request.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// Returns true for `localhost` and names below it (RFC 6761 6.3), and for addresses of this machine.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.to_canonical().is_loopback(),
        }
    }
}

/// The scheme, host and port. Paths and queries may have secrets.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

fn usual_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// The host of a URL as it was written. The URL was parsed before, so it has "://".
fn written_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if let Some(end) = authority.find(']') {
        return &authority[..=end];
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

/// Refuses what is no name of a host, although the parser of URLs lets it pass.
fn check_name(name: &str) -> Result<(), UrlFault> {
    if name.ends_with('.') {
        return Err(UrlFault::TrailingDot);
    }
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(inner)
    };
    if name.len() > MAX_NAME || !name.split('.').all(is_label) {
        return Err(UrlFault::HostName);
    }
    Ok(())
}
