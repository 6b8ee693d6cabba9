//! URLs, kept as they were written: a provider compares some of them letter by letter.

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::text::{is_unprintable, texts};
use crate::error::Violation;

texts! {
    /// An absolute http or https URL without user information and fragment.
    HttpUrl;
    /// A URL to which a provider may send users back: absolute, without fragment (RFC 6749 3.1.2), also with the scheme
    /// of a native application (RFC 8252).
    RedirectUri;
}

/// Schemes of URLs that contain the content to run or show.
const INLINE_SCHEMES: [&str; 5] = ["javascript", "vbscript", "data", "blob", "file"];

// === impl HttpUrl ===

impl HttpUrl {
    /// Parses a URL of at most `max` characters.
    pub fn parse(field: &str, value: &str, max: usize) -> Result<Self, Violation> {
        let refuse = |description: &str| Err(Violation::field(field, description));
        let url = absolute(field, value, max)?;
        let authority = match value.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                rest.split(['/', '?', '#']).next().unwrap_or_default()
            }
            _ => return refuse("must be an absolute http or https URL"),
        };
        if authority.contains('@') {
            return refuse("must not contain user information");
        }
        if authority.is_empty() || !url.has_host() {
            return refuse("must name a host");
        }
        Ok(Self(value.to_owned()))
    }

    /// Refuses http.
    pub fn require_https(self, field: &str) -> Result<Self, Violation> {
        if self.is_https() { Ok(self) } else { Err(Violation::field(field, "must be an https URL")) }
    }

    /// Refuses http, except to this machine (OpenID Connect Discovery 1.0 demands https of issuers).
    pub fn require_https_unless_loopback(self, field: &str) -> Result<Self, Violation> {
        if self.is_https() || self.is_loopback() {
            return Ok(self);
        }
        Err(Violation::field(field, "must be an https URL; http is for loopback only"))
    }

    /// Refuses a URL with a query: paths are appended to it.
    pub fn require_base(self, field: &str) -> Result<Self, Violation> {
        match self.0.contains('?') {
            true => Err(Violation::field(field, "must not have a query: paths are appended to it")),
            false => Ok(self),
        }
    }

    /// Refuses all but the http URL of a host and a port.
    pub fn require_proxy(self, field: &str) -> Result<Self, Violation> {
        let parsed = Url::parse(&self.0).ok();
        match parsed.filter(|url| url.scheme() == "http" && url.path() == "/" && url.query().is_none()) {
            Some(_) => Ok(self),
            None => Err(Violation::field(field, "must be an http URL of a host and a port, without path and query")),
        }
    }

    /// Returns true if both URLs have the same scheme, host and port (RFC 6454).
    pub fn has_same_origin(&self, other: &Self) -> bool {
        let origin = |url: &Self| Url::parse(&url.0).ok().map(|url| url.origin());
        origin(self).is_some_and(|own| Some(own) == origin(other))
    }

    /// Returns true if the scheme is https.
    pub fn is_https(&self) -> bool {
        self.0.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    fn is_loopback(&self) -> bool {
        match Url::parse(&self.0).ok().as_ref().and_then(Url::host) {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

// === impl RedirectUri ===

impl RedirectUri {
    /// Parses a redirect URI of at most `max` characters.
    pub fn parse(field: &str, value: &str, max: usize) -> Result<Self, Violation> {
        let url = absolute(field, value, max)?;
        if INLINE_SCHEMES.contains(&url.scheme()) {
            return Err(Violation::field(field, format!("must not be a {} URL", url.scheme())));
        }
        Ok(Self(value.to_owned()))
    }

    /// The URI as a header can have it: as it was written, if it was written so.
    pub fn to_ascii(&self) -> String {
        match self.0.is_ascii() {
            true => self.0.clone(),
            false => Url::parse(&self.0).map_or_else(|_| self.0.clone(), String::from),
        }
    }
}

/// Parses an absolute URL without fragment. The parser repairs much (blanks, backslashes, missing slashes). What it would
/// repair is refused, so that every reader sees the same URL.
fn absolute(field: &str, value: &str, max: usize) -> Result<Url, Violation> {
    let refuse = |description: String| Err(Violation::field(field, description));
    if value.is_empty() {
        return refuse("must not be blank".to_owned());
    }
    if value.chars().count() > max {
        return refuse(format!("must be at most {max} characters long"));
    }
    if value.chars().any(|c| is_unprintable(c) || c.is_whitespace() || c == '\\') {
        return refuse("must not contain blanks, backslashes or control characters".to_owned());
    }
    match Url::parse(value) {
        Ok(url) if url.fragment().is_some() => refuse("must not have a fragment".to_owned()),
        Ok(url) => Ok(url),
        Err(error) => refuse(format!("is not an absolute URL: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_urls_are_kept_as_written() {
        let urls = [
            "https://example.com",
            "HTTP://Example.com:8080/a?b=c",
            "https://[::1]:1/",
            "http://localhost/%20",
            "https://bücher.example/ä",
        ];
        for good in urls {
            assert_eq!(HttpUrl::parse("url", good, 2048).unwrap().as_str(), good);
        }
        let wrong = [
            "",
            "example.com",
            "/login",
            "ftp://example.com",
            "https://",
            "https:///x",
            "https:example.com",
            "https:/x.y",
            "https://u@example.com",
            "https://u:p@example.com",
            "https://@example.com",
            "https://example.com#f",
            "https://example.com/#",
            "https://exa mple.com",
            " https://example.com",
            "https://example.com/\n",
            "https:\\\\example.com",
            "https://example.com\\@evil.example",
            "https://example.com:99999",
            "https://[::1",
            "javascript:alert(1)//http://x",
            "https://ex\u{202e}ample.com",
            "https://1.2.3.4.5",
        ];
        for wrong in wrong {
            assert!(HttpUrl::parse("url", wrong, 2048).is_err(), "{wrong:?}");
        }
        let exact = format!("https://example.com/{}", "a".repeat(236));
        assert!(HttpUrl::parse("url", &exact, 256).is_ok() && HttpUrl::parse("url", &exact, 255).is_err());
    }

    #[test]
    fn https_can_be_demanded() {
        let url = |text: &str| HttpUrl::parse("url", text, 2048).unwrap();
        assert!(url("https://a.example").require_https("url").is_ok());
        assert!(url("http://localhost").require_https("url").is_err());
        for good in
            ["HTTPS://a.example", "http://localhost:1", "http://127.0.0.9/", "http://[::1]/", "http://a.localhost"]
        {
            assert!(url(good).require_https_unless_loopback("url").is_ok(), "{good}");
        }
        for wrong in ["http://a.example", "http://localhost.example", "http://0.0.0.0", "http://[::]/"] {
            assert!(url(wrong).require_https_unless_loopback("url").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_base_has_no_query() {
        let url = |text: &str| HttpUrl::parse("url", text, 2048).unwrap();
        assert!(url("https://a.example/api/v1%3F").require_base("url").is_ok());
        for wrong in ["https://a.example?", "https://a.example/?a=b", "https://a.example/a?"] {
            assert!(url(wrong).require_base("url").is_err(), "{wrong}");
        }
    }

    #[test]
    fn redirect_uris_may_have_schemes_of_applications() {
        for good in ["https://a.example/cb", "com.example.app:/cb", "http://127.0.0.1:5000/cb"] {
            assert!(RedirectUri::parse("redirect_uris[0]", good, 2048).is_ok(), "{good}");
        }
        for wrong in
            ["", "/cb", "https://a.example/#x", "javascript:alert(1)", "JavaScript:x", "data:text/html,x", "a b:c"]
        {
            assert!(RedirectUri::parse("redirect_uris[0]", wrong, 2048).is_err(), "{wrong}");
        }
    }
}
