//! The licence API: what is asked, and what each response means.

use std::sync::{Arc, Mutex};

use jackfield_domain::Secret;
use jackfield_upstream::client::Client;
use jackfield_upstream::error::Fault;
use jackfield_upstream::license::{
    Authentication, BodyFlaw, CompanyPermissions, ErrorCode, LicenseApi, LicenseFault, MAX_COMPANIES, MAX_PERMISSIONS,
    MAX_TOKEN, Profile, Rejection, TokenResponse,
};

use crate::server::{Server, header};
use crate::support::{client, definition, development, url};

const TWO: &str = r#"{"token": "t-1", "permissions": [
    {"company_id": "c-1", "company_name": "One", "permissions": ["read", "use_app"]},
    {"company_id": "c-2", "company_name": "Two", "permissions": ["read"]},
    {"company_id": 7, "company_name": null, "permissions": ["use_app"], "new": {"deep": [1, {"x": null}]}}],
    "expires": "never", "permissions_version": 2}"#;

fn password() -> Secret {
    Secret::new("p\"ä".to_owned())
}

fn token() -> Secret {
    Secret::new("t-1".to_owned())
}

/// A server with one response for every request, which it keeps.
struct Api {
    server: Server,
    client: Client,
    requests: Arc<Mutex<Vec<String>>>,
}

// === impl Api ===

impl Api {
    async fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let mut response = format!("HTTP/1.1 {status} x\r\n").into_bytes();
        let body = body.into();
        response.extend(format!("content-length: {}\r\nlocation: http://127.0.0.1:1/\r\n\r\n", body.len()).bytes());
        response.extend(body);
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, response) = (requests.clone(), Arc::new(response));
        let server = Server::plain(move |mut peer| {
            let (kept, response) = (kept.clone(), response.clone());
            async move {
                while let Some(request) = peer.request().await {
                    kept.lock().unwrap().push(request);
                    peer.send(&*response).await;
                }
            }
        })
        .await;
        let client = client(development(), definition(&format!("http://localhost:{}/", server.port())));
        Api { server, client, requests }
    }

    async fn call<T>(&self, call: impl AsyncFnOnce(LicenseApi<'_>) -> T) -> T {
        let base = url(&format!("http://localhost:{}/api/v1", self.server.port()));
        call(LicenseApi::new(&self.client, &base, "app-1", None).unwrap()).await
    }

    async fn authenticate(&self) -> Result<Authentication, LicenseFault> {
        self.call(async |api| api.authenticate("user@example.com", &password()).await).await
    }

    async fn company(&self, id: &str) -> Result<TokenResponse<Vec<String>>, LicenseFault> {
        self.call(async |api| api.company_permissions(&token(), id).await).await
    }

    fn request(&self) -> String {
        self.requests.lock().unwrap().pop().unwrap()
    }
}

fn error(code: &str) -> String {
    format!(r#"{{"message": "No.", "error_code": "{code}", "detail": [1]}}"#)
}

fn status(status: u16, code: Option<ErrorCode>) -> LicenseFault {
    LicenseFault::Status { status: status.try_into().unwrap(), code }
}

async fn fault_of_body(body: impl Into<Vec<u8>>) -> LicenseFault {
    Api::of(200, body).await.authenticate().await.unwrap_err()
}

/// The flaw of a body, which counts for each status that accepts.
async fn flaw_of_body(body: impl Into<Vec<u8>>) -> BodyFlaw {
    let body = body.into();
    let [first, second] = [200, 201].map(|status| {
        let body = body.clone();
        async move {
            let fault = Api::of(status, body).await.authenticate().await.unwrap_err();
            assert_eq!(fault.status().unwrap().as_u16(), status);
            let LicenseFault::Body { flaw, .. } = fault else { panic!("{fault}") };
            flaw
        }
    });
    let (first, second) = (first.await, second.await);
    assert_eq!(first, second);
    first
}

#[tokio::test]
async fn a_grant_has_the_companies_for_which_the_user_may_use_the_application() {
    for success in [200, 201] {
        let api = Api::of(success, TWO).await;
        let Authentication::Accepted(grant) = api.authenticate().await.unwrap() else { panic!("rejected") };
        assert_eq!((grant.token.expose(), grant.status.as_u16()), ("t-1", success));
        let company = |id: &str, name: &str, permissions: &[&str]| CompanyPermissions {
            company_id: id.to_owned(),
            company_name: name.to_owned(),
            permissions: permissions.iter().map(|&slug| slug.to_owned()).collect(),
        };
        assert_eq!(grant.companies, [company("c-1", "One", &["read", "use_app"]), company("7", "", &["use_app"])]);
        assert!(!format!("{grant:?}").contains("t-1"), "a token is not printed");
        let request = api.request();
        assert!(request.starts_with("POST /api/v1/auth/authenticate/ HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"username\":\"user@example.com\",\"password\":\"p\\\"ä\"}"), "{request}");
        assert_eq!(header(&request, "x-license-module"), Some("app-1"));
        assert_eq!(header(&request, "x-license-token"), None);
        assert_eq!(header(&request, "content-type"), Some("application/json"));
    }
    let none = Api::of(200, r#"{"token": "t-1", "permissions": []}"#).await;
    let Authentication::Accepted(grant) = none.authenticate().await.unwrap() else { panic!("rejected") };
    assert_eq!(grant.companies, []);
}

#[tokio::test]
async fn tokens_are_asked_for_profile_and_permissions() {
    let profile = Api::of(200, r#"{"first_name": "Ada", "last_name": null, "email": "a@example.com", "pin": "1"}"#);
    let profile = profile.await;
    let outcome = profile.call(async |api| api.profile(&token()).await).await.unwrap();
    let ada = Profile { first_name: "Ada".into(), last_name: String::new(), email: "a@example.com".into() };
    assert_eq!(outcome, TokenResponse::Valid(ada));
    let request = profile.request();
    assert!(request.starts_with("GET /api/v1/auth/users/profile/ HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "x-license-module"), Some("app-1"));
    assert_eq!(header(&request, "x-license-token"), Some("t-1"));

    let permissions = Api::of(200, TWO).await;
    let outcome = permissions.call(async |api| api.permissions(&token()).await).await.unwrap();
    let TokenResponse::Valid(companies) = outcome else { panic!("{outcome:?}") };
    assert_eq!(companies.iter().map(|company| company.company_id.as_str()).collect::<Vec<_>>(), ["c-1", "7"]);
    assert!(permissions.request().starts_with("GET /api/v1/auth/get-permissions/ HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_company_is_one_segment_of_the_path() {
    let api = Api::of(200, r#"{"permissions": ["read", "use_app"]}"#).await;
    for (company, segment) in [("c-1_~.", "c-1_~."), ("a/../b?c#d%e", "a%2F..%2Fb%3Fc%23d%25e"), ("ä b", "%C3%A4%20b")]
    {
        let outcome = api.company(company).await.unwrap();
        assert_eq!(outcome, TokenResponse::Valid(vec!["read".to_owned(), "use_app".to_owned()]));
        let (request, expected) = (api.request(), format!("GET /api/v1/auth/get-company-permissions/{segment}/ "));
        assert!(request.starts_with(&expected), "{request}");
    }
    for dots in ["", ".", ".."] {
        assert_eq!(api.company(dots).await.unwrap_err().reason(), "REQUEST_INVALID");
    }
    // A company without the permission to use the application has none, and so has one that is not known.
    for (status, body) in [(200, r#"{"permissions": ["read"]}"#.to_owned()), (404, error("NOT_FOUND"))] {
        assert_eq!(Api::of(status, body).await.company("c").await.unwrap(), TokenResponse::Valid(Vec::new()));
    }
    let refused = Api::of(404, "<html>").await.company("c").await.unwrap_err();
    assert_eq!(refused, status(404, None));
}

#[tokio::test]
async fn only_an_error_that_says_so_rejects_a_user_or_a_token() {
    let plain = r#"{"message": "Username or password not correct."}"#.to_owned();
    for (status, body, code) in [
        (401, error("NOT_AUTHORIZED"), Some(ErrorCode::NotAuthorized)),
        (401, plain, None),
        (403, error("NOT_AUTHORIZED"), Some(ErrorCode::NotAuthorized)),
        (404, error("NOT_FOUND"), Some(ErrorCode::NotFound)),
    ] {
        let api = Api::of(status, body).await;
        let rejection = Rejection { status: status.try_into().unwrap(), code };
        let outcome = api.authenticate().await.unwrap();
        assert!(matches!(outcome, Authentication::Rejected(found) if found == rejection), "{status}: {outcome:?}");
        let profile = api.call(async |api| api.profile(&token()).await).await;
        let permissions = api.call(async |api| api.permissions(&token()).await).await;
        // That there is no such path says nothing about a token.
        let expected = || match status {
            404 => Err(self::status(404, code)),
            _ => Ok(rejection),
        };
        assert_eq!(profile, expected().map(TokenResponse::TokenInvalid));
        assert_eq!(permissions, expected().map(TokenResponse::TokenInvalid));
    }
}

#[tokio::test]
async fn other_failures_are_faults_with_their_cause() {
    let html = "<html>401</html>".to_owned();
    for (code, body, named) in [
        (500, error("NOT_AUTHORIZED"), Some(ErrorCode::NotAuthorized)),
        (500, html.clone(), None),
        (503, String::new(), None),
        (405, error("NOT_ALLOWED"), Some(ErrorCode::NotAllowed)),
        (400, error("INVALID_FORMAT"), Some(ErrorCode::InvalidFormat)),
        (400, error("EXPECTED_VALUE"), Some(ErrorCode::ExpectedValue)),
        (400, error("UNEXPECTED_VALUE"), Some(ErrorCode::UnexpectedValue)),
        (429, r#"{"message": "Slow down."}"#.to_owned(), None),
        (408, error("NOT_AUTHORIZED"), Some(ErrorCode::NotAuthorized)),
        (401, html.clone(), None),
        (401, "{}".to_owned(), None),
        (401, "[]".to_owned(), None),
        (401, r#"["Username or password not correct.", "NOT_AUTHORIZED"]"#.to_owned(), None),
        (404, r#"["There is no such user.", "NOT_FOUND"]"#.to_owned(), None),
        (401, r#"{"message": "x", "error_code": 7}"#.to_owned(), None),
        (401, error("BLOCKED"), Some(ErrorCode::Other)),
        (403, r#"{"message": "Forbidden"}"#.to_owned(), None),
        (404, r#"{"detail": "Not found."}"#.to_owned(), None),
        (404, html, None),
        (204, String::new(), None),
        (302, TWO.to_owned(), None),
    ] {
        let api = Api::of(code, body.clone()).await;
        let fault = api.authenticate().await.unwrap_err();
        assert_eq!((&fault, fault.reason()), (&status(code, named), "STATUS_UNEXPECTED"), "{code} {body}");
        assert_eq!(api.call(async |api| api.profile(&token()).await).await.unwrap_err(), fault, "{code} {body}");
        assert_eq!(api.call(async |api| api.permissions(&token()).await).await.unwrap_err(), fault, "{code} {body}");
    }
    let text = status(405, Some(ErrorCode::NotAllowed)).to_string();
    assert_eq!(text, "status 405 with NOT_ALLOWED neither accepts nor rejects");
}

#[tokio::test]
async fn bodies_of_another_form_are_faults() {
    for malformed in [
        "",
        "<html></html>",
        "null",
        "[]",
        r#"{"token": "t"}"#,
        r#"{"permissions": []}"#,
        r#"{"token": null, "permissions": []}"#,
        r#"{"token": "t", "permissions": null}"#,
        r#"{"token": "t", "token": "u", "permissions": []}"#,
        r#"{"token": "t", "permissions": {"company_id": "c", "permissions": []}}"#,
        r#"{"token": "t", "permissions": [{"company_id": "c", "permissions": [1]}]}"#,
        r#"{"token": "t", "permissions": [{"company_id": -1, "permissions": []}]}"#,
        r#"{"token": "t", "permissions": [{"company_name": "c", "permissions": []}]}"#,
        r#"{"token": "t", "permissions": []} {}"#,
        r#"["t", []]"#,
        r#"{"token": "t", "permissions": [["c", "One", ["use_app"]]]}"#,
    ] {
        assert_eq!(fault_of_body(malformed).await.reason(), "BODY_MALFORMED", "{malformed}");
    }
    let deep = format!(r#"{{"permissions": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(flaw_of_body(deep).await, BodyFlaw::Malformed { line: 1, .. }));
    assert_eq!(flaw_of_body(&b"{\"token\": \"\xff\", \"permissions\": []}"[..]).await, BodyFlaw::NotUtf8);
    let api = Api::of(200, r#"["Ann", "A", "a@example.com"]"#).await;
    let profile = api.call(async |api| api.profile(&token()).await).await;
    assert_eq!(profile.unwrap_err().reason(), "BODY_MALFORMED");
    for list in [r#"[[{"company_id": "c", "permissions": []}]]"#, r#"{"permissions": [["c", "One", ["use_app"]]]}"#] {
        let api = Api::of(200, list).await;
        let permissions = api.call(async |api| api.permissions(&token()).await).await;
        assert_eq!(permissions.unwrap_err().reason(), "BODY_MALFORMED", "{list}");
    }
    assert_eq!(Api::of(200, r#"[["use_app"]]"#).await.company("c").await.unwrap_err().reason(), "BODY_MALFORMED");
    let ignored = format!(r#"{{"x": {}{}, "token": "t", "permissions": []}}"#, "[".repeat(9_999), "]".repeat(9_999));
    assert!(Api::of(200, ignored).await.authenticate().await.is_ok(), "an unknown member is passed over");
}

#[tokio::test]
async fn values_are_limited() {
    let company = |id: usize, slugs: &str| format!(r#"{{"company_id": {id}, "permissions": [{slugs}]}}"#);
    let companies = |count: usize| (0..count).map(|id| company(id, r#""use_app""#)).collect::<Vec<_>>().join(",");
    let slugs = |count: usize| vec![r#""use_app""#; count].join(",");
    let body = |token: &str, companies: &str| format!(r#"{{"token": "{token}", "permissions": [{companies}]}}"#);
    let long = format!(r#""{}""#, "x".repeat(257));
    for (body, expected) in [
        (body("", ""), "token must be"),
        (body(&"t".repeat(MAX_TOKEN + 1), ""), "token must be"),
        (body("a b", ""), "token must be"),
        (body("t\\r\\nx", ""), "token must be"),
        (body("t", &companies(MAX_COMPANIES + 1)), "permissions has more than 1000 companies"),
        (body("t", &company(1, &slugs(MAX_PERMISSIONS + 1))), "permissions has more than 1000 slugs"),
        (body("t", &[company(1, ""), company(1, "")].join(",")), "permissions has a company twice"),
        (body("t", &company(1, &long)), "permissions.permissions must be at most 256"),
        (body("t", &company(1, r#""""#)), "permissions.permissions"),
        (body("t", r#"{"company_id": "", "permissions": []}"#), "permissions.company_id"),
        (body("t", r#"{"company_id": "\u0000", "permissions": []}"#), "permissions.company_id"),
    ] {
        let flaw = flaw_of_body(body).await;
        assert!(matches!(&flaw, BodyFlaw::Field(text) if text.starts_with(expected)), "{flaw}");
    }
    let largest = body(&"t".repeat(MAX_TOKEN), &companies(MAX_COMPANIES));
    assert!(Api::of(200, largest).await.authenticate().await.is_ok());
    let call = fault_of_body(" ".repeat(2 * 1024 * 1024)).await;
    assert!(matches!(&call, LicenseFault::Call(error) if error.fault == Fault::BodyTooLarge), "{call}");
}

#[tokio::test]
async fn what_no_request_can_have_is_not_sent() {
    let api = Api::of(200, TWO).await;
    for application in ["", " ", "a\nb", "a\0"] {
        let base = url("http://localhost:1/api");
        let fault = LicenseApi::new(&api.client, &base, application, None).err().unwrap();
        assert_eq!(fault.reason(), "REQUEST_INVALID", "{application:?}");
    }
    let query = url("http://localhost:1/api?a=b");
    assert_eq!(LicenseApi::new(&api.client, &query, "app", None).err().unwrap().reason(), "REQUEST_INVALID");
    let broken = Secret::new("t\r\nx: y".to_owned());
    let fault = api.call(async |api| api.profile(&broken).await).await.unwrap_err();
    assert_eq!(fault.reason(), "REQUEST_INVALID");
    assert!(api.requests.lock().unwrap().is_empty());
    // A slash at the end of the URL changes nothing.
    let base = url(&format!("http://localhost:{}/", api.server.port()));
    let root = LicenseApi::new(&api.client, &base, "app", None).unwrap();
    assert!(matches!(root.authenticate("u", &password()).await, Ok(Authentication::Accepted(_))));
    assert!(api.request().starts_with("POST /auth/authenticate/ HTTP/1.1\r\n"));
}
