//! The licence API (Cloudspot) over ApplicationService: requests of its published clients become calls.
//!
//! Their objects fail on members that they do not know, so responses have exactly those of the first release.

mod failure;
mod request;
mod response;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{Method, Response, StatusCode};
use jackfield_api::v1 as pb;
use jackfield_transport::call::http::{Calls, HttpApi, Unread};

use self::failure::{ErrorCode, Failure};
use self::request::{Request, Route};
use self::response::Success;

/// The licence API.
#[derive(Clone, Copy, Debug)]
pub struct LicenseApi {
    /// True if errors have their code.
    pub error_codes: bool,
}

/// The paths of the methods that requests become.
const AUTHENTICATE: &str = "/jackfield.v1.ApplicationService/AuthenticateApplicationUser";
const GET_USER: &str = "/jackfield.v1.ApplicationService/GetSessionUser";
const GET_PERMISSIONS: &str = "/jackfield.v1.ApplicationService/GetSessionPermissions";

impl HttpApi for LicenseApi {
    fn answer(&self, request: http::Request<Bytes>, calls: Calls) -> BoxFuture<'static, Response<Bytes>> {
        let LicenseApi { error_codes } = *self;
        let answer = async move {
            let success = Request::parse(request)?;
            call(success, &calls).await
        };
        answer.map(move |answer| response::of(answer, error_codes)).boxed()
    }

    fn refuse(&self, why: Unread) -> Response<Bytes> {
        let (status, message) = match why {
            Unread::HeadMalformed => (StatusCode::BAD_REQUEST, "The head of the request is not HTTP/1.1."),
            Unread::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The head of the request, or its Content-Length, is too large.",
            ),
            Unread::TargetTooLong => (StatusCode::URI_TOO_LONG, "The target of the request is too long."),
            Unread::HostInvalid => {
                (StatusCode::BAD_REQUEST, "The header Host must be there once, with a host and at most a port.")
            }
            Unread::Encoded => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The header Content-Encoding can only be \"identity\".")
            }
            Unread::TransferUnknown => {
                (StatusCode::NOT_IMPLEMENTED, "The header Transfer-Encoding can only be \"chunked\".")
            }
            Unread::ExpectationUnknown => {
                (StatusCode::EXPECTATION_FAILED, "The header Expect can only be \"100-continue\".")
            }
            Unread::TooLarge(limit) => {
                (StatusCode::PAYLOAD_TOO_LARGE, &*format!("The body is larger than {limit} bytes."))
            }
            Unread::Incomplete => (StatusCode::REQUEST_TIMEOUT, "The body did not arrive completely."),
            Unread::Malformed => (StatusCode::BAD_REQUEST, "The body is not chunked once, as HTTP/1.1 demands."),
        };
        let failure = Failure::new(status, Some(ErrorCode::InvalidFormat), message);
        let mut response = response::of(Err(failure), self.error_codes);
        if why == Unread::Encoded {
            // RFC 9110 12.5.3
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

/// Makes the call that a request asks for.
async fn call(request: Request, calls: &Calls) -> Result<Success, Failure> {
    let Request { application, route } = request;
    match route {
        Route::Authenticate { username, password, user_agent } => {
            // The client is a library in a server: its address is not that of the end user, whose attempts it would limit.
            let event_info = Some(pb::LoginEventInfo { user_agent, ..Default::default() });
            let request = pb::AuthenticateApplicationUserRequest { application, username, password, event_info };
            let response: pb::AuthenticateApplicationUserResponse =
                calls.unary(AUTHENTICATE, &request).await.map_err(|status| Failure::of_log_in(&status))?;
            match response.outcome() {
                pb::LoginOutcome::Accepted => Ok(Success::granted(response)),
                pb::LoginOutcome::Rejected => Err(Failure::rejected()),
                _ => Err(Failure::unavailable()),
            }
        }
        Route::Profile { session_token } => {
            let request = pb::GetSessionUserRequest { application, session_token };
            let response: pb::GetSessionUserResponse =
                calls.unary(GET_USER, &request).await.map_err(|status| Failure::of_session(&status))?;
            Ok(Success::profile(response.user.unwrap_or_default()))
        }
        Route::Permissions { session_token, company } => {
            let request = pb::GetSessionPermissionsRequest { application, session_token };
            let response: pb::GetSessionPermissionsResponse =
                calls.unary(GET_PERMISSIONS, &request).await.map_err(|status| Failure::of_session(&status))?;
            Ok(match company {
                Some(company) => Success::company(response, &company),
                None => Success::permissions(response),
            })
        }
    }
}

/// Returns the methods that a path has, for a request with another one.
fn only(method: &Method) -> Failure {
    Failure {
        allow: Some(method.clone()),
        ..Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Some(ErrorCode::NotAllowed),
            format!("The only method here is {method}."),
        )
    }
}
