//! The callback listener: providers send the browsers of users there, with a code or an error. It keeps the code, and sends the browser on
//! to the application, which knows whose browser it is. A cookie-bound session begins here as well, with a connect URL: there the login in
//! front of the listener tells whose browser it is, and the browser gets a cookie by which it is known when it comes back.

mod page;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use jackfield_domain::authorization::{
    AuthorizationFailure, AuthorizationResponse, AuthorizationResult, AuthorizationSession, AuthorizationState,
    BrowserCookies, CONNECT_PATH, MAX_CODE, MAX_ERROR, MAX_ISSUER, MAX_STATE, is_callback_context, is_state,
};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{Error, Result, Secret};
use jackfield_service::{ConnectedAuthorization, ReturnedAuthorization, Services};
use jackfield_transport::call::http::{Calls, HttpApi, Unread};
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;

use self::page::Page;

/// The callback listener.
#[derive(Clone)]
pub struct CallbackApi {
    services: Services,
    /// The header in which the login in front of the listener names the user, if there is one.
    user_header: Option<HeaderName>,
    turns: Arc<Semaphore>,
}

/// The path before the part that is the connection's.
const PATH: &str = "/callback/";
/// The parameter of a connect URL, and the one of a browser that got its cookie and opens it again.
const TOKEN: &str = "token";
const WITH_COOKIE: &str = "cookie=1";
/// The requests for which the database is asked at once, and the time that each has for it, waiting included. Each client that can reach the
/// listener can send them.
const AT_ONCE: usize = 32;
const DEADLINE: Duration = Duration::from_secs(10);

/// The parameters of a response, each at most once. Others are not looked at.
#[derive(Default)]
struct Parameters {
    state: Option<Secret>,
    code: Option<Secret>,
    error: Option<String>,
    iss: Option<String>,
    /// One of them is there twice, is too long, or is no text.
    is_malformed: bool,
}

// === impl CallbackApi ===

impl CallbackApi {
    /// The listener over the use cases.
    pub fn new(services: Services, user_header: Option<HeaderName>) -> Self {
        CallbackApi { services, user_header, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn respond(&self, request: http::Request<Bytes>) -> Response<Bytes> {
        if request.method() != Method::GET {
            return page::only_get();
        }
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        match path.strip_prefix(PATH) {
            Some(context) => self.returned(context, query, request.headers()).await,
            None if path == CONNECT_PATH => self.connect(query, request.headers()).await,
            None => Page::NotFound.response(),
        }
    }

    /// Gives the browser of a user a cookie, binds the session to it, and sends it on to the provider.
    async fn connect(&self, query: &str, headers: &HeaderMap) -> Response<Bytes> {
        let Some(user_header) = &self.user_header else { return Page::NotFound.response() };
        // The database is not asked for what was not made here, or before it is known who asks.
        let Some(token) = token(query) else { return Page::Unknown.response() };
        let Some(user_id) = user(headers, user_header) else { return Page::LoggedOut.response() };
        let cookies = cookies(headers);
        let connected = self.services.authorization_connect(&token, &user_id, &cookies);
        match in_turn(&self.turns, DEADLINE, connected).await {
            Some(Ok(ConnectedAuthorization::NeedsCookie { cookie_name, cookie })) => {
                let response = match query.split('&').any(|pair| pair == WITH_COOKIE) {
                    false => page::redirect(&with_cookie(&token)),
                    // It got one just before.
                    true => Page::NoCookie.response(),
                };
                page::with_cookie(response, &cookie_name, Some(&cookie))
            }
            Some(Ok(ConnectedAuthorization::Continue(url))) => page::redirect(&url),
            Some(Ok(ConnectedAuthorization::Taken)) => Page::Taken.response(),
            Some(Ok(ConnectedAuthorization::Ended(session))) => of_session(&session, &cookies),
            Some(Ok(ConnectedAuthorization::Over(session))) => of_earlier(&session, &cookies),
            Some(Ok(ConnectedAuthorization::Unknown)) => Page::Unknown.response(),
            Some(Err(error)) => unavailable(&error),
            None => Page::Unavailable.response(),
        }
    }

    /// Takes the response of a provider.
    async fn returned(&self, context: &str, query: &str, headers: &HeaderMap) -> Response<Bytes> {
        let response = Parameters::parse(query).into_response();
        // The database is not asked for what was not made here.
        let is_ours =
            |response: &AuthorizationResponse| is_callback_context(context) && is_state(response.state.expose());
        let Some(response) = response.filter(is_ours) else { return Page::Unknown.response() };
        let cookies = cookies(headers);
        let returned = self.services.authorization_returned(context, response, &cookies);
        match in_turn(&self.turns, DEADLINE, returned).await {
            Some(Ok(ReturnedAuthorization::Continue(uri))) => page::redirect(&uri),
            Some(Ok(ReturnedAuthorization::Ended(session))) => of_session(&session, &cookies),
            // It takes no turn: the provider has to answer.
            Some(Ok(ReturnedAuthorization::Redeeming(redeeming))) => {
                redeemed(redeeming.ended(DEADLINE).await, &cookies)
            }
            Some(Ok(ReturnedAuthorization::Over(session))) => of_earlier(&session, &cookies),
            Some(Ok(ReturnedAuthorization::Answered)) => Page::Answered.response(),
            Some(Ok(ReturnedAuthorization::Unknown)) => Page::Unknown.response(),
            Some(Err(error)) => unavailable(&error),
            None => Page::Unavailable.response(),
        }
    }
}

impl HttpApi for CallbackApi {
    fn answer(&self, request: http::Request<Bytes>, _calls: Calls) -> BoxFuture<'static, Response<Bytes>> {
        let api = self.clone();
        async move { api.respond(request).await }.boxed()
    }

    fn refuse(&self, why: Unread) -> Response<Bytes> {
        let status = match why {
            Unread::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Unread::TargetTooLong => StatusCode::URI_TOO_LONG,
            Unread::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Unread::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Unread::HeadMalformed
            | Unread::HostInvalid
            | Unread::ExpectationUnknown
            | Unread::Encoded
            | Unread::TransferUnknown
            | Unread::Malformed => StatusCode::BAD_REQUEST,
        };
        Page::Malformed.with_status(status, None)
    }
}

/// Does some work when it is its turn. `None` if the time is over.
async fn in_turn<T>(turns: &Semaphore, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = async {
        let _turn = turns.acquire().await.ok()?;
        Some(work.await)
    };
    tokio::time::timeout(deadline, work).await.ok().flatten()
}

/// The response once a code has been redeemed, or when a browser has waited long enough for that.
fn redeemed(ended: Result<AuthorizationSession>, cookies: &BrowserCookies) -> Response<Bytes> {
    match ended {
        Ok(session) => of_session(&session, cookies),
        Err(error) if !error.retryable() => {
            warn(&error);
            Page::Failed.response()
        }
        Err(error) => unavailable(&error),
    }
}

/// The response for a session that has just ended, or that still goes on. Its cookies are of no use any more after its end.
fn of_session(session: &AuthorizationSession, cookies: &BrowserCookies) -> Response<Bytes> {
    let (page, is_bound) = (of_state(session.state), session.browser.is_some());
    let response = match (&session.return_uri, page) {
        // Another user, or another browser, has started it. There is no way back for this one.
        _ if is_of_another(session) => return Page::WrongBrowser.response(),
        // Where the application confirms the user, a browser without a completion code is of no use to it.
        (Some(uri), Page::Done) if is_bound => page::redirect(&Secret::new(uri.to_ascii())),
        (return_uri, page) => page.with_status(page.status(), return_uri.as_ref()),
    };
    let ended = cookies.of(session.id).filter(|_| is_bound && session.state.is_final());
    ended.fold(response, |response, (name, _)| page::with_cookie(response, name, None))
}

/// The response for a session that had ended before, or whose code is being redeemed: the browser has loaded a page again.
fn of_earlier(session: &AuthorizationSession, cookies: &BrowserCookies) -> Response<Bytes> {
    match is_of_another(session) {
        true => of_state(session.state).response(),
        false => of_session(session, cookies),
    }
}

/// Returns true if a session has ended because another user or another browser than the right one came.
fn is_of_another(session: &AuthorizationSession) -> bool {
    matches!(session.failure, Some(AuthorizationFailure::WrongBrowser | AuthorizationFailure::UserMismatch))
}

/// The page for a session that is in a state.
fn of_state(state: AuthorizationState) -> Page {
    match state {
        AuthorizationState::Completed => Page::Done,
        // Nothing was taken: the browser has to bring it again.
        AuthorizationState::Started | AuthorizationState::Returned => Page::Unavailable,
        AuthorizationState::Confirmed => Page::UnderWay,
        AuthorizationState::Denied => Page::Denied,
        AuthorizationState::Failed | AuthorizationState::Cancelled => Page::Failed,
        AuthorizationState::Expired => Page::Expired,
    }
}

fn unavailable(error: &Error) -> Response<Bytes> {
    warn(error);
    Page::Unavailable.response()
}

fn warn(error: &Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "a callback could not be taken");
}

/// The token of a connect URL. `None` if it is there twice, or was not made here.
fn token(query: &str) -> Option<Secret> {
    let mut tokens = query.split('&').filter_map(|pair| pair.split_once('=').filter(|(name, _)| *name == TOKEN));
    let (_, token) = tokens.next()?;
    (tokens.next().is_none() && is_state(token)).then(|| Secret::new(token.to_owned()))
}

/// The reference to the connect URL by which a browser that got its cookie opens it again: whatever the path is for the browser, it stays.
fn with_cookie(token: &Secret) -> Secret {
    Secret::new(format!("?{TOKEN}={}&{WITH_COOKIE}", token.expose()))
}

/// The user whom the login in front of the listener names. `None` if it names none, or more than one.
fn user(headers: &HeaderMap, name: &HeaderName) -> Option<UserId> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    UserId::parse("user_id", std::str::from_utf8(value.as_bytes()).ok()?).ok()
}

/// The cookies that were set here. Those of others may be anything.
fn cookies(headers: &HeaderMap) -> BrowserCookies {
    let mut cookies = BrowserCookies::default();
    let headers = headers.get_all(COOKIE).iter();
    headers.for_each(|header| cookies.add(&String::from_utf8_lossy(header.as_bytes())));
    cookies
}

// === impl Parameters ===

impl Parameters {
    fn parse(query: &str) -> Self {
        let mut parameters = Parameters::default();
        let chars = |text: &str| text.chars().count();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), value) = (decoded(name), decoded(value)) else { continue };
            let is_first = match &*name {
                "state" => set(&mut parameters.state, value.map(Secret::new), MAX_STATE, |it| chars(it.expose())),
                "code" => set(&mut parameters.code, value.map(Secret::new), MAX_CODE, |it| chars(it.expose())),
                "error" => set(&mut parameters.error, value, MAX_ERROR, |it| chars(it)),
                "iss" => set(&mut parameters.iss, value, MAX_ISSUER, |it| chars(it)),
                _ => true,
            };
            parameters.is_malformed |= !is_first;
        }
        parameters
    }

    /// The response. `None` if there is no state, so that no session can be found.
    fn into_response(self) -> Option<AuthorizationResponse> {
        let Parameters { state, code, error, iss, is_malformed } = self;
        let state = state.filter(|state| !state.expose().is_empty())?;
        let result = match (code, error) {
            _ if is_malformed => AuthorizationResult::Malformed,
            (Some(code), None) if !code.expose().is_empty() => AuthorizationResult::Code(code),
            (None, Some(error)) => AuthorizationResult::Error(error),
            _ => AuthorizationResult::Malformed,
        };
        Some(AuthorizationResponse { state, iss, result })
    }
}

/// Sets a parameter. Returns false if it was there before, is no text, or is too long.
fn set<T>(slot: &mut Option<T>, value: Option<T>, max: usize, length: impl Fn(&T) -> usize) -> bool {
    match value {
        Some(value) if slot.is_none() && length(&value) <= max => {
            *slot = Some(value);
            true
        }
        _ => false,
    }
}

/// A name or a value of a form.
fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_waits_for_its_turn_and_not_for_ever() {
        let (turns, short, long) = (Semaphore::new(1), Duration::from_millis(20), Duration::from_secs(60));
        assert_eq!(in_turn(&turns, long, async { 1 }).await, Some(1));
        assert_eq!(in_turn(&turns, short, std::future::pending::<()>()).await, None);
        let turn = turns.acquire().await.unwrap();
        assert_eq!(in_turn(&turns, short, async { 2 }).await, None, "all turns are taken");
        drop(turn);
        assert_eq!(in_turn(&turns, long, async { 3 }).await, Some(3));
    }

    #[test]
    fn a_browser_that_waits_for_its_tokens_is_told_the_truth() {
        let body = |page: Page| page.response().into_body();
        let retryable = Error::UpstreamUnavailable { connector: "c".to_owned(), retry_after: DEADLINE };
        let busy = redeemed(Err(retryable), &BrowserCookies::default());
        assert_eq!(busy.into_body(), body(Page::Unavailable), "it can be loaded again");
        let failed = redeemed(Err(Error::internal("x")), &BrowserCookies::default());
        assert_eq!((failed.status(), failed.into_body()), (StatusCode::BAD_REQUEST, body(Page::Failed)));
        assert_eq!(of_state(AuthorizationState::Started), Page::Unavailable, "nothing was taken");
        assert_eq!(of_state(AuthorizationState::Confirmed), Page::UnderWay);
    }

    #[test]
    fn a_token_and_a_user_are_there_once() {
        let text = "a".repeat(43);
        let found = |query: &str| token(query).map(|token| token.expose().to_owned());
        assert_eq!(found(&format!("utm=1&token={text}")), Some(text.clone()));
        let twice = format!("token={text}&token={text}");
        for query in [String::new(), twice, format!("token={text}a"), format!("state={text}")] {
            assert_eq!(found(&query), None, "{query}");
        }
        let name = HeaderName::from_static("x-user");
        let found = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, http::HeaderValue::from_bytes(value).unwrap());
            }
            user(&headers, &name).map(|user| user.as_str().to_owned())
        };
        assert_eq!(found(&[b"ada"]).as_deref(), Some("ada"));
        assert_eq!(found(&["zoë".as_bytes()]).as_deref(), Some("zoë"));
        let wrong: [&[&[u8]]; 5] = [&[], &[b"ada", b"eve"], &[b"ada", b"ada"], &[b""], &[b"zo\xeb"]];
        for values in wrong {
            assert_eq!(found(values), None, "{values:?}");
        }
    }

    #[test]
    fn each_parameter_is_there_once() {
        let result = |query: &str| Parameters::parse(query).into_response();
        let code = |query: &str| match result(query).unwrap().result {
            AuthorizationResult::Code(code) => code.expose().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(code("state=s&code=a%2Fb+c&iss=https%3A%2F%2Fas.example"), "a/b c");
        assert_eq!(result("code=c&state=s&iss=https%3A%2F%2Fa").unwrap().iss.as_deref(), Some("https://a"));
        assert!(result("code=c").is_none() && result("state=&code=c").is_none() && result("").is_none());
        for malformed in [
            "state=s",
            "state=s&code=",
            "state=s&code=a&code=b",
            "state=s&code=a&error=b",
            "state=s&code=%ff",
            "state=s&state=t&code=c",
            "state=s&code=c&iss=a&iss=b",
        ] {
            assert!(matches!(result(malformed).unwrap().result, AuthorizationResult::Malformed), "{malformed}");
        }
        assert!(matches!(result("state=s&error=x&error_description=y").unwrap().result, AuthorizationResult::Error(_)));
        // The limits are those of CompleteAuthorization.
        for (name, rest, max) in [("code", "", 4_096), ("error", "", 256), ("iss", "&code=c", 2_048)] {
            let query = |length: usize| format!("state=s{rest}&{name}={}", "%C3%A9".repeat(length));
            let is_malformed =
                |length| matches!(result(&query(length)).unwrap().result, AuthorizationResult::Malformed);
            assert!(!is_malformed(max) && is_malformed(max + 1), "{name}");
        }
    }
}
