//! The callback listener: providers send the browsers of users there, with a code or an error. It keeps the code, and sends the browser on
//! to the application, which knows whose browser it is.

mod page;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Response, StatusCode};
use jackfield_domain::Secret;
use jackfield_domain::authorization::{
    AuthorizationResponse, AuthorizationResult, AuthorizationState, MAX_CODE, MAX_ERROR, MAX_ISSUER, MAX_STATE,
    is_callback_context, is_state,
};
use jackfield_domain::value::url::RedirectUri;
use jackfield_service::{ReturnedAuthorization, Services};
use jackfield_transport::call::http::{Calls, HttpApi, Unread};
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;

use self::page::Page;

/// The callback listener.
#[derive(Clone)]
pub struct CallbackApi {
    services: Services,
    turns: Arc<Semaphore>,
}

/// The path before the part that is the connection's.
const PATH: &str = "/callback/";
/// The requests for which the database is asked at once, and the time that each has for it, waiting included. Whoever can reach the listener
/// can send them.
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
    pub fn new(services: Services) -> Self {
        CallbackApi { services, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn respond(&self, request: http::Request<Bytes>) -> Response<Bytes> {
        if request.method() != Method::GET {
            return page::only_get();
        }
        let Some(context) = request.uri().path().strip_prefix(PATH) else { return Page::NotFound.response() };
        let response = Parameters::parse(request.uri().query().unwrap_or_default()).into_response();
        // The database is not asked for what was not made here.
        let is_ours =
            |response: &AuthorizationResponse| is_callback_context(context) && is_state(response.state.expose());
        let Some(response) = response.filter(is_ours) else { return Page::Unknown.response() };
        let returned = self.services.authorization_returned(context, response);
        let Some(returned) = in_turn(&self.turns, DEADLINE, returned).await else {
            return Page::Unavailable.response();
        };
        match returned {
            Ok(ReturnedAuthorization::Continue(uri)) => page::redirect(&uri),
            Ok(ReturnedAuthorization::Ended { session, return_uri }) => of_state(session.state, Some(&return_uri)),
            Ok(ReturnedAuthorization::Over(state)) => of_state(state, None),
            Ok(ReturnedAuthorization::Unknown) => Page::Unknown.response(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a callback could not be taken");
                Page::Unavailable.response()
            }
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

/// The page for a session that is in a state.
fn of_state(state: AuthorizationState, return_uri: Option<&RedirectUri>) -> Response<Bytes> {
    let page = match state {
        AuthorizationState::Completed => Page::Done,
        // The two before are not answered with a page.
        AuthorizationState::Started | AuthorizationState::Returned | AuthorizationState::Confirmed => Page::UnderWay,
        AuthorizationState::Denied => Page::Denied,
        AuthorizationState::Failed | AuthorizationState::Cancelled => Page::Failed,
        AuthorizationState::Expired => Page::Expired,
    };
    page.with_status(page.status(), return_uri)
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
