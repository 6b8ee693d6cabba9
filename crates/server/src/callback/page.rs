//! The pages of the callback listener: plain text that any browser and any screen reader shows, without script, style and images.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use jackfield_domain::Secret;
use jackfield_domain::authorization::SESSION_MICROS;
use jackfield_domain::value::url::RedirectUri;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Done,
    /// The user or the browser is confirmed, and the code is being redeemed.
    UnderWay,
    Denied,
    Expired,
    Failed,
    /// Another user, or another browser, has started it.
    WrongBrowser,
    /// Another browser has opened the connect URL.
    Taken,
    /// The browser does not send the cookie that it just got.
    NoCookie,
    /// The login in front of the listener names no user.
    LoggedOut,
    /// The session has another response, with which it can still be completed.
    Answered,
    /// There is no such session at this path.
    Unknown,
    NotFound,
    Malformed,
    Unavailable,
}

/// The headers of every response. Nothing is loaded, framed, kept, or passed on to another site: the address has secrets.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

// === impl Page ===

impl Page {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Page::Done | Page::UnderWay | Page::Denied => StatusCode::OK,
            Page::Expired => StatusCode::GONE,
            Page::Failed
            | Page::WrongBrowser
            | Page::Taken
            | Page::NoCookie
            | Page::Answered
            | Page::Unknown
            | Page::Malformed => StatusCode::BAD_REQUEST,
            Page::LoggedOut => StatusCode::FORBIDDEN,
            Page::NotFound => StatusCode::NOT_FOUND,
            Page::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The heading, and what the user can do.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Page::Done => ("Done", "Go back to the application. You can close this page."),
            Page::UnderWay => (
                "Almost done",
                "This is being finished. Reload this page in a few seconds to see how it ends, or go back to the application.",
            ),
            Page::Denied => (
                "Access was not granted",
                "Nothing was changed. If you did not mean to refuse, go back to the application and start again.",
            ),
            Page::Expired => ("This took too long", "Nothing was changed. Go back to the application and start again."),
            Page::Failed => (
                "The connection could not be made",
                "Nothing was changed. Go back to the application and start again. If that does not help, tell those who run the application.",
            ),
            Page::WrongBrowser => (
                "This was not started here",
                "Nothing was connected. It was started by another user, or in another browser. If you did not start it, close this page: another person may have sent you the link. If you did, go back to the application and start again in this browser, with cookies allowed.",
            ),
            Page::Taken => (
                "This link was opened elsewhere",
                "It is good in one browser only: the one that opened it first. Go on there, or go back to the application and start again in this browser.",
            ),
            Page::NoCookie => (
                "This browser keeps no cookies",
                "Nothing was changed. Without a cookie, this browser would not be known when it comes back. Allow cookies for this page and reload it, or go back to the application and start again in another browser.",
            ),
            Page::LoggedOut => (
                "You are not logged in",
                "Nothing was changed. Log in to the application in this browser, and start again there.",
            ),
            Page::Answered => (
                "This was answered before",
                "The first answer is kept, and this one changed nothing. Go back to the application, which can go on with the first one for a minute. Only if it does not, start again there.",
            ),
            Page::Unknown => (
                "This link is not valid here",
                "It is too old, or was changed on its way. Go back to the application and start again there.",
            ),
            Page::NotFound => ("There is nothing here", "Go back to the application."),
            Page::Malformed => ("This request cannot be read", "Go back to the application and start again."),
            Page::Unavailable => ("Not available at the moment", "Reload this page in a few seconds."),
        }
    }

    pub(super) fn response(self) -> Response<Bytes> {
        self.with_status(self.status(), None)
    }

    /// The page with another status, and with a link back to the application if there is one.
    pub(super) fn with_status(self, status: StatusCode, return_uri: Option<&RedirectUri>) -> Response<Bytes> {
        let (heading, text) = self.texts();
        let link =
            return_uri.map(|uri| format!("<p><a href=\"{}\">Back to the application</a></p>\n", escaped(uri.as_str())));
        let link = link.unwrap_or_default();
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{heading}</title>\n</head>\n\
             <body>\n<main>\n<h1>{heading}</h1>\n<p>{text}</p>\n{link}</main>\n</body>\n</html>\n"
        );
        let mut response = bare(status, body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response
    }
}

/// Sends the browser on to the application.
pub(super) fn redirect(uri: &Secret) -> Response<Bytes> {
    let Ok(mut location) = HeaderValue::from_str(uri.expose()) else { return Page::Failed.response() };
    location.set_sensitive(true);
    let mut response = bare(StatusCode::SEE_OTHER, String::new());
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The response with the cookie of a session, or without a value for it: the browser then forgets it. No script reads it, and no other site has
/// the browser send it, but with a navigation: the provider's way back is one.
pub(super) fn with_cookie(mut response: Response<Bytes>, name: &str, value: Option<&Secret>) -> Response<Bytes> {
    let (value, seconds) = match value {
        Some(value) => (value.expose(), SESSION_MICROS / 1_000_000),
        None => ("", 0),
    };
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let Ok(mut cookie) = HeaderValue::from_str(&cookie) else { return Page::Failed.response() };
    cookie.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}

/// The response to another method.
pub(super) fn only_get() -> Response<Bytes> {
    let mut response = Page::NotFound.with_status(StatusCode::METHOD_NOT_ALLOWED, None);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

fn bare(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A text in an attribute of HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_cannot_end_its_attribute() {
        assert_eq!(
            escaped("https://a.example/?a=\"><script>'&"),
            "https://a.example/?a=&quot;&gt;&lt;script&gt;&#39;&amp;"
        );
    }
}
