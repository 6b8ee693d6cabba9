//! Cookie-bound authorisations: the browser that was sent to the provider is known again when it comes back.

use serde::{Deserialize, Serialize};

use super::{AuthorizationDigest, AuthorizationSession, AuthorizationState, is_state};
use crate::document::is_default;
use crate::value::id::AuthorizationSessionId;
use crate::value::secret::Secret;
use crate::value::time::Timestamp;
use crate::value::url::HttpUrl;

/// The browser of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserBinding {
    /// A keyed digest of the cookie. `None` until a browser with a cookie has opened the connect URL.
    #[serde(default, skip_serializing_if = "is_default")]
    cookie_digest: Option<AuthorizationDigest>,
    /// The times that the browser has come back with a code that could not be taken.
    #[serde(default, skip_serializing_if = "is_default")]
    vain_returns: u32,
}

/// The cookies that a browser sends, of those that were set here.
#[derive(Debug, Default)]
pub struct BrowserCookies(Vec<(String, Secret)>);

/// The column of the sealed URL of the provider, to which the browser is sent once it has the cookie.
pub const AUTHORIZATION_URL_COLUMN: &str = "authorization_url";
/// The path of the connect URL.
pub const CONNECT_PATH: &str = "/connect";
/// The beginning of the name of a cookie. Browsers take one with `__Host-` only from the host itself, over TLS, for all of its paths, so no
/// other host of the domain can plant one (RFC 6265bis 4.1.3.2).
const COOKIE_PREFIX: &str = "__Host-jackfield-";
/// The most cookies that are looked at. A user has ten open sessions for a connection at most.
const MAX_COOKIES: usize = 100;
/// The times that the browser of a session may come back in vain.
pub const MAX_VAIN_RETURNS: u32 = 10;

// === impl AuthorizationSession ===

impl AuthorizationSession {
    /// Binds a session that waits for its browser to the one that has these cookies. Returns false if it is not the session of that browser: it
    /// is bound to another one, or has ended, or is of another kind.
    #[must_use]
    pub fn bind(&mut self, cookies: &[AuthorizationDigest], now: Timestamp) -> bool {
        let is_started = self.state == AuthorizationState::Started;
        let unbound = self.browser.as_mut().filter(|browser| is_started && browser.cookie_digest.is_none());
        match (unbound, cookies.first()) {
            (Some(browser), Some(cookie)) => {
                browser.cookie_digest = Some(cookie.clone());
                self.meta = self.meta.changed(now);
                true
            }
            (_, _) => is_started && self.is_bound_to(cookies),
        }
    }

    /// Returns true if a browser has opened the connect URL.
    pub fn is_bound(&self) -> bool {
        self.browser.as_ref().is_some_and(|browser| browser.cookie_digest.is_some())
    }

    /// Counts a return of the browser whose code could not be taken. Returns false if it was the last one that is permitted.
    #[must_use]
    pub fn count_vain_return(&mut self) -> bool {
        let Some(browser) = &mut self.browser else { return false };
        browser.vain_returns += 1;
        browser.vain_returns < MAX_VAIN_RETURNS
    }

    /// Returns true if these are the cookies of the browser to which the session is bound.
    pub fn is_bound_to(&self, cookies: &[AuthorizationDigest]) -> bool {
        let bound = self.browser.as_ref().and_then(|browser| browser.cookie_digest.as_ref());
        bound.is_some_and(|bound| cookies.contains(bound))
    }
}

// === impl BrowserCookies ===

impl BrowserCookies {
    /// Adds those of a `Cookie` header (RFC 6265 5.4). What was not made here is left out.
    pub fn add(&mut self, header: &str) {
        for pair in header.split(';') {
            // Browsers have other blanks in names, and then `__Host-` is no prefix for them: another host could plant such a cookie.
            let Some((name, value)) = pair.trim_matches([' ', '\t']).split_once('=') else { continue };
            if name.starts_with(COOKIE_PREFIX) && is_state(value) && self.0.len() < MAX_COOKIES {
                self.0.push((name.to_owned(), Secret::new(value.to_owned())));
            }
        }
    }

    /// The cookies of a session, with their names. One whose name is there twice is left out: a browser has one of a name.
    pub fn of(&self, id: AuthorizationSessionId) -> impl Iterator<Item = (&str, &Secret)> {
        let start = cookie_name(id, "");
        let is_once = |name: &str| self.0.iter().filter(|(other, _)| other == name).count() == 1;
        let of_session = self.0.iter().filter(move |(name, _)| name.starts_with(&start) && is_once(name));
        of_session.map(|(name, value)| (&**name, value))
    }
}

/// The name of a cookie of a session. Each session has its own, so that a browser can have several; and each answer makes another one, so that
/// two tabs that open a connect URL at once do not replace each other's.
pub fn cookie_name(id: AuthorizationSessionId, part: &str) -> String {
    format!("{COOKIE_PREFIX}{}-{part}", id.0.simple())
}

/// The URL at the callback listener that a browser opens first. Its token is good in one browser.
pub fn connect_url(public_url: &HttpUrl, token: &Secret) -> Secret {
    let base = public_url.as_str().trim_end_matches('/');
    Secret::new(format!("{base}{CONNECT_PATH}?token={}", token.expose()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_cookie_is_that_of_one_session_and_there_once() {
        let id = |number| AuthorizationSessionId(Uuid::from_u128(number));
        let (name, value) = (cookie_name(id(1), "x"), "a".repeat(43));
        assert_eq!(name, "__Host-jackfield-00000000000000000000000000000001-x");
        let of = |headers: &[&str], number| {
            let mut cookies = BrowserCookies::default();
            headers.iter().for_each(|header| cookies.add(header));
            let values: Vec<_> = cookies.of(id(number)).map(|(_, value)| value.expose().to_owned()).collect();
            assert!(values.len() <= 2);
            (!values.is_empty()).then(|| values.concat())
        };
        let pair = format!("{name}={value}");
        let sent = &*format!("theme=dark; {pair};x; {}={}", cookie_name(id(2), ""), "b".repeat(43));
        let another = format!("{}={}", cookie_name(id(1), "y"), "c".repeat(43));
        assert_eq!(of(&[sent, &another], 1), Some(format!("{value}{}", "c".repeat(43))), "of two tabs");
        assert_eq!(of(&[sent, sent, &another], 1), Some("c".repeat(43)));
        assert_eq!(of(&[sent], 1), Some(value.clone()));
        assert_eq!(of(&[sent], 2), Some("b".repeat(43)));
        assert_eq!(of(&["a=b", sent], 1), Some(value.clone()));
        assert_eq!(of(&[], 1), None);
        assert_eq!(of(&[sent, sent], 1), None);
        for header in [
            format!("{pair}; {pair}"),
            format!("{pair}a"),
            format!("{name}=\"{value}\""),
            format!("{}={value}", name.to_lowercase()),
            name.clone(),
            format!("\u{2000}{pair}"),
            format!("\u{a0}{pair}"),
            format!("\u{85}{pair}"),
            format!("\u{b}{pair}"),
        ] {
            assert_eq!(of(&[&header], 1), None, "{header}");
        }
    }
}
