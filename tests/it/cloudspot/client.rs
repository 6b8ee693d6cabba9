//! Our client of the licence API beside the published ones: what they send to the same server, and what they read of its
//! responses.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jackfield_domain::Secret;
use jackfield_domain::connector::Timeouts;
use jackfield_domain::value::url::HttpUrl;
use jackfield_testkit::LicenseServer;
use jackfield_testkit::cloudspot::RELEASES;
use jackfield_testkit::license::RecordedRequest;
use jackfield_upstream::client::{Client, Definition, Limits, Network, Places};
use jackfield_upstream::egress::{Policy, Target};
use jackfield_upstream::license::{
    Authentication, CompanyPermissions, LicenseApi, LicenseFault, Profile, TokenResponse,
};
use jackfield_upstream::observe::Metrics;
use jackfield_upstream::resolve::SystemResolver;
use jackfield_upstream::tls::Trust;
use serde_json::{Value, json};

use super::{python, python_once};

const APPLICATION: &str = "app-1";
const USER: &str = "ada@example.com";
/// It needs escapes in JSON.
const PASSWORD: &str = "pass \"wörd\"\\";
const COMPANY: &str = "0b0e7a52-9a80-4a4b-9d0c-2f3f6a5f6a11";
/// Headers of HTTP itself. Each client has its own.
const OF_HTTP: [&str; 6] = ["host", "user-agent", "accept", "accept-encoding", "connection", "content-length"];

const GRANT: &str = r#"{"token": "t-1", "permissions": [
    {"company_id": "0b0e7a52-9a80-4a4b-9d0c-2f3f6a5f6a11", "company_name": "Größe", "permissions": ["use_app", "read"]},
    {"company_id": "c-2", "company_name": "Two", "permissions": ["use_app"]}]}"#;
const COMPANIES: &str =
    r#"{"permissions": [{"company_id": "c-2", "company_name": "Two", "permissions": ["use_app"]}]}"#;
const SLUGS: &str = r#"{"permissions": ["use_app", "read"]}"#;
const PROFILE: &str = r#"{"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com"}"#;

/// A server, and our client of it.
struct World {
    server: LicenseServer,
    base: HttpUrl,
    client: Client,
}

// === impl World ===

impl World {
    async fn new() -> Self {
        let server = LicenseServer::start().await;
        let base = HttpUrl::parse("url", &server.base(), 2_048).unwrap();
        let definition = Definition {
            origins: vec![Target::parse(&base).unwrap()],
            identity: None,
            identity_origins: None,
            headers: HeaderMap::new(),
            trust: Trust::public(),
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                read: Duration::from_secs(5),
                total: Duration::from_secs(10),
            },
            limits: Limits::default(),
            proxy: None,
            propagate_trace_context: false,
        };
        let (resolver, metrics) = (Box::new(SystemResolver::default()), Metrics::default());
        let network = Network { policy: Policy::default().with_development(), resolver, metrics };
        let client = Client::new(Arc::new(network), definition, Arc::new(Places::new(9))).unwrap();
        World { server, base, client }
    }

    fn api(&self) -> LicenseApi<'_> {
        LicenseApi::new(&self.client, &self.base, APPLICATION, None).unwrap()
    }

    async fn authenticate(&self) -> Result<Authentication, LicenseFault> {
        self.api().authenticate(USER, &Secret::new(PASSWORD.to_owned())).await
    }

    async fn python(&self, release: &str, call: Value) -> Value {
        python_once(release, self.server.base().as_str(), APPLICATION, call).await
    }

    /// The only request since this was last asked.
    fn request(&self) -> RecordedRequest {
        let mut requests = self.server.take_requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }
}

fn token() -> Secret {
    Secret::new("t-1".to_owned())
}

fn valid<T: std::fmt::Debug>(response: Result<TokenResponse<T>, LicenseFault>) -> T {
    match response {
        Ok(TokenResponse::Valid(value)) => value,
        other => panic!("{other:?}"),
    }
}

/// Companies as the Python program prints them.
fn printed(companies: &[CompanyPermissions]) -> Value {
    companies
        .iter()
        .map(|CompanyPermissions { company_id, company_name, permissions }| {
            json!({"company_id": company_id, "company_name": company_name, "permissions": permissions})
        })
        .collect()
}

fn assert_same_request(ours: &RecordedRequest, theirs: &RecordedRequest) {
    assert_eq!((&ours.method, &ours.path), (&theirs.method, &theirs.path));
    let json = |request: &RecordedRequest| match request.body.as_str() {
        "" => Value::Null,
        body => serde_json::from_str(body).unwrap(),
    };
    assert_eq!(json(ours), json(theirs), "{}", ours.path);
    let headers = |request: &RecordedRequest| {
        let mut headers = request.headers.clone();
        OF_HTTP.iter().for_each(|&name| drop(headers.remove(name)));
        headers
    };
    assert_eq!(headers(ours), headers(theirs), "{}", ours.path);
}

#[tokio::test]
async fn a_user_who_is_accepted() {
    let world = World::new().await;
    world.server.answer(200, GRANT);
    let Authentication::Accepted(grant) = world.authenticate().await.unwrap() else { panic!("rejected") };
    let ours = world.request();
    assert_eq!((ours.method.as_str(), ours.path.as_str()), ("POST", "/api/v1/auth/authenticate/"));
    assert_eq!(ours.headers["x-license-module"], APPLICATION);
    for release in RELEASES {
        let theirs = world.python(release, json!(["authenticate", USER, PASSWORD])).await;
        assert_same_request(&ours, &world.request());
        assert_eq!(theirs["token"], grant.token.expose());
        assert_eq!(theirs["companies"], printed(&grant.companies));
    }
}

#[tokio::test]
async fn a_token_that_is_valid() {
    let world = World::new().await;
    world.server.answer(200, PROFILE);
    let Profile { first_name, last_name, email } = valid(world.api().profile(&token()).await);
    let ours = world.request();
    assert_eq!(ours.headers["x-license-token"], "t-1");
    for release in RELEASES {
        let theirs = world.python(release, json!(["get_user", "t-1"])).await;
        assert_same_request(&ours, &world.request());
        assert_eq!(theirs["user"], json!({"first_name": first_name, "last_name": last_name, "email": email}));
    }

    let [_, release] = RELEASES;
    world.server.answer(200, COMPANIES);
    let companies = valid(world.api().permissions(&token()).await);
    let ours = world.request();
    let theirs = world.python(release, json!(["get_permissions", "t-1"])).await;
    assert_same_request(&ours, &world.request());
    assert_eq!(theirs["companies"], printed(&companies));

    world.server.answer(200, SLUGS);
    let slugs = valid(world.api().company_permissions(&token(), COMPANY).await);
    let ours = world.request();
    let theirs = world.python(release, json!(["get_company_permissions", COMPANY, "t-1"])).await;
    assert_same_request(&ours, &world.request());
    assert_eq!(theirs["returned"], json!(slugs));
}

/// The published clients report every failure as bad credentials, and fail on members that they do not know.
#[tokio::test]
async fn a_user_who_is_not_accepted() {
    let plain = r#"{"message": "Username or password not correct."}"#;
    let coded = r#"{"message": "Username or password not correct.", "error_code": "NOT_AUTHORIZED"}"#;
    let broken = r#"{"message": "Something went wrong."}"#;
    // The status, the body, the errors that both releases raise, and the reason of our fault if it is no rejection.
    for (status, body, first, newest, fault) in [
        (401, plain, "BadCredentials", "BadCredentials", None),
        (401, coded, "AttributeError", "BadCredentials", None),
        (500, broken, "BadCredentials", "BadCredentials", Some("STATUS_UNEXPECTED")),
        (405, broken, "BadCredentials", "BadCredentials", Some("STATUS_UNEXPECTED")),
        (500, "<html>", "JSONDecodeError", "JSONDecodeError", Some("STATUS_UNEXPECTED")),
        (200, "<html>", "JSONDecodeError", "JSONDecodeError", Some("BODY_MALFORMED")),
    ] {
        let world = World::new().await;
        world.server.answer(status, body);
        let ours = world.authenticate().await;
        let request = world.request();
        match (&ours, fault) {
            (Ok(Authentication::Rejected(rejection)), None) => assert_eq!(rejection.status, status),
            (Err(error), Some(reason)) => assert_eq!(error.reason(), reason),
            _ => panic!("{status} {body}: {ours:?}"),
        }
        for (release, error) in RELEASES.into_iter().zip([first, newest]) {
            let theirs = world.python(release, json!(["authenticate", USER, PASSWORD])).await;
            assert_same_request(&request, &world.request());
            assert_eq!(theirs["error"], error, "{release}: {status} {body}: {theirs}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_valid() {
    let (world, [_, release]) = (World::new().await, RELEASES);
    for (status, body, fault) in [
        (401, r#"{"message": "No.", "error_code": "NOT_AUTHORIZED"}"#, None),
        (500, r#"{"message": "No."}"#, Some("STATUS_UNEXPECTED")),
    ] {
        world.server.answer(status, body);
        let ours = world.api().profile(&token()).await;
        match (&ours, fault) {
            (Ok(TokenResponse::TokenInvalid(rejection)), None) => assert_eq!(rejection.status, status),
            (Err(error), Some(reason)) => assert_eq!(error.reason(), reason),
            _ => panic!("{ours:?}"),
        }
        for call in [json!(["get_user", "t-1"]), json!(["get_permissions", "t-1"])] {
            assert_eq!(world.python(release, call).await["error"], "NoValidToken");
        }
        let company = world.python(release, json!(["get_company_permissions", COMPANY, "t-1"])).await;
        assert_eq!((&company["error"], &company["message"]), (&json!("Exception"), &json!("No.")));
    }
    world.server.take_requests();
    // Without a token, the client does not ask.
    let outcomes = python(release, &world.server.base(), APPLICATION, json!([["get_user"], ["get_permissions"]])).await;
    assert!(outcomes.iter().all(|outcome| outcome["error"] == "NoValidToken"), "{outcomes:?}");
    assert_eq!(world.server.take_requests(), []);
}

#[tokio::test]
async fn members_that_the_published_clients_do_not_know() {
    let world = World::new().await;
    let grant = GRANT.replacen('{', r#"{"expires_in": 3600, "#, 1);
    world.server.answer(200, &grant);
    assert!(matches!(world.authenticate().await, Ok(Authentication::Accepted(_))));
    for release in RELEASES {
        assert_eq!(world.python(release, json!(["authenticate", USER, PASSWORD])).await["error"], "AttributeError");
    }
}
