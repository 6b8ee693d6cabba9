//! An authorisation server that others wrote (crate `oauth-as`), over a real socket. It rotates refresh tokens, names its issuer in its
//! responses (RFC 9207), demands PKCE, and takes a code once. ID tokens are added to its responses.

mod clients;
mod openid;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use http::Request;
use http::header::LOCATION;
use jackfield_api::v1;
use oauth_as::client::{Client as Registration, ClientAuth, ClientId};
use oauth_as::grant::GrantType;
use oauth_as::http::{ApprovalDecision, AuthorizationService, ServiceBuilder};
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AssertionAudience, AuthorizationServer, ServerConfig, SystemClock};
use oauth_as::store::MemoryStorage;
use url::Url;

use crate::system::{Received, Reply, System};

pub use openid::{IdToken, OpenId};

type Service = AuthorizationService<MemoryStorage, SystemClock>;

/// The server. It approves what the user `ada` is asked for, unless a test says otherwise.
pub struct OAuthProvider {
    authorization: Arc<AuthorizationServer<MemoryStorage, SystemClock>>,
    service: Service,
    /// A response that the endpoints for clients give in place of their own.
    reply: Arc<Mutex<Option<Reply>>>,
    denies: Arc<Mutex<bool>>,
    /// The certificate that the client has to present, as DER.
    certificate: Arc<Mutex<Option<Vec<u8>>>>,
    /// Its ID tokens, and what it publishes.
    pub openid: Arc<OpenId>,
    pub system: System,
}

/// The parameters of a response that a browser brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Where the browser was sent, without the query.
    pub uri: String,
    pub state: String,
    pub code: String,
    pub error: String,
    pub iss: Option<String>,
}

/// The issuer that the server names.
pub const ISSUER: &str = "https://as.example.com";
/// The client that is registered, and its secret.
pub const CLIENT: (&str, &str) = ("c1", "s:1 %+ of the client");

// === impl OAuthProvider ===

impl OAuthProvider {
    /// Starts a server with a client that has these redirect URIs.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start(redirect_uris: &[&str]) -> Self {
        let mut config = ServerConfig::new(ISSUER, format!("{ISSUER}/device"));
        config.include_verification_uri_complete = true;
        config.poll_interval = Duration::from_secs(1);
        let config = config.with_assertion_audience(AssertionAudience::IssuerOnly);
        let authorization = AuthorizationServer::new(config, MemoryStorage::new());
        let authorization = Arc::new(authorization.with_jws_verifier(Arc::new(clients::Es256)));
        let denies = Arc::new(Mutex::new(false));
        let decision = Arc::clone(&denies);
        let builder = ServiceBuilder::new(Arc::clone(&authorization)).with_subject_resolver(|_| Some("ada".to_owned()));
        let builder = builder.with_approval_resolver(move |_| match *locked(&decision) {
            true => ApprovalDecision::Deny,
            false => ApprovalDecision::Approve,
        });
        let service = builder.build().expect("a service");
        let reply: Arc<Mutex<Option<Reply>>> = Arc::default();
        let openid = Arc::new(OpenId::new());
        let (served, instead, published) = (service.clone(), Arc::clone(&reply), Arc::clone(&openid));
        let certificate: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let demanded = Arc::clone(&certificate);
        let system = System::start(move |received| match received.line.strip_prefix("GET ") {
            Some(path) => published.page(path).unwrap_or_else(|| Reply::new(404, "")),
            None => match locked(&instead).clone() {
                Some(reply) => reply,
                None if locked(&demanded).as_ref().is_some_and(|certificate| *certificate != received.certificate) => {
                    Reply::new(401, r#"{"error": "invalid_client"}"#)
                }
                None => published.completed(answer(&served, received)),
            },
        })
        .await;
        let provider = OAuthProvider { authorization, service, reply, denies, certificate, openid, system };
        provider.register(redirect_uris).await;
        provider
    }

    /// Registers the client with these redirect URIs.
    ///
    /// # Panics
    /// Panics if the server refuses them.
    pub async fn register(&self, redirect_uris: &[&str]) {
        self.register_as(ClientAuth::ConfidentialSecret { secret: CLIENT.1.to_owned() }, redirect_uris).await;
    }

    async fn register_as(&self, auth: ClientAuth, redirect_uris: &[&str]) {
        let scopes = ScopeSet::from_tokens(["openid", "read", "write"]).expect("scopes");
        let registration = Registration {
            client_id: ClientId::new(CLIENT.0),
            auth,
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::DeviceCode],
            redirect_uris: redirect_uris.iter().map(|uri| (*uri).to_owned()).collect(),
            allowed_scopes: scopes.clone(),
            default_scopes: scopes,
            name: None,
            registration: None,
        };
        self.authorization.register_client(registration).await.expect("a client");
    }

    /// A connection for this server, on the connector of this reference.
    pub fn connection(&self, name: &str, connector: &str) -> v1::Connection {
        v1::Connection {
            name: name.to_owned(),
            connector: connector.to_owned(),
            authentication_url: Some(format!("{ISSUER}/authorize")),
            token_url: Some(self.system.url("/token")),
            device_authorization_url: Some(self.system.url("/device_authorization")),
            issuer_url: Some(ISSUER.to_owned()),
            iss_parameter_supported: Some(true),
            client_id: Some(CLIENT.0.to_owned()),
            client_secrets: vec![v1::ClientSecret { value: CLIENT.1.to_owned(), ..Default::default() }],
            supported_content_type: v1::TokenContentType::Form.into(),
            scope: Some("read write".to_owned()),
            ..Default::default()
        }
    }

    /// Has the user go to an authorisation URL and decide.
    ///
    /// # Panics
    /// Panics if the server sends the browser nowhere.
    pub async fn visit(&self, authorization_url: &str) -> Brought {
        self.openid.asked(query_of(authorization_url).remove("nonce"));
        let request = Request::get(authorization_url).body(String::new()).expect("a request");
        let response = self.service.handle(request).await;
        let status = response.status();
        let location = response.headers().get(LOCATION).unwrap_or_else(|| panic!("sent nowhere: {status}"));
        Brought::at(location.to_str().expect("a URL"))
    }

    /// Has the user type a code, and permit what it is for.
    ///
    /// # Panics
    /// Panics if the server does not know the code.
    pub async fn approve(&self, user_code: &str) {
        self.authorization.approve_device(user_code, "ada").await.expect("a code");
    }

    /// Has the user type a code, and refuse.
    ///
    /// # Panics
    /// Panics if the server does not know the code.
    pub async fn refuse(&self, user_code: &str) {
        self.authorization.deny_device(user_code).await.expect("a code");
    }

    /// From now on the user refuses.
    pub fn deny(&self) {
        *locked(&self.denies) = true;
    }

    /// From now on the endpoints for clients give this response in place of their own.
    pub fn reply(&self, reply: Option<Reply>) {
        *locked(&self.reply) = reply;
    }

    /// The bodies of the requests to the token endpoint so far.
    pub fn redeemed(&self) -> Vec<String> {
        let posted = self.system.received().into_iter().filter(|received| received.line.starts_with("POST "));
        posted.map(|received| String::from_utf8_lossy(&received.body).into_owned()).collect()
    }

    /// The bodies of the polls for device codes so far.
    pub fn polls(&self) -> Vec<String> {
        self.redeemed().into_iter().filter(|body| body.contains("device_code=")).collect()
    }

    /// The number of requests for a path.
    pub fn fetched(&self, path: &str) -> usize {
        let line = format!("GET {path}");
        self.system.received().iter().filter(|received| received.line == line).count()
    }
}

// === impl Brought ===

impl Brought {
    /// The parameters of a URL to which a browser was sent.
    ///
    /// # Panics
    /// Panics if it is no URL.
    pub fn at(location: &str) -> Self {
        let url = Url::parse(location).expect("a URL");
        let all: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let one = |name: &str| all.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        let text = |name| one(name).unwrap_or_default();
        let uri = location.split('?').next().unwrap_or_default().to_owned();
        Brought { uri, state: text("state"), code: text("code"), error: text("error"), iss: one("iss") }
    }

    /// What an application calls that gets this, for a user.
    pub fn completion(&self, user_id: &str) -> v1::CompleteAuthorizationRequest {
        let Brought { uri: _, state, code, error, iss } = self.clone();
        v1::CompleteAuthorizationRequest { user_id: user_id.to_owned(), state, code, error, iss, ..Default::default() }
    }
}

/// The parameters of a URL.
///
/// # Panics
/// Panics if it is no URL.
pub fn query_of(url: &str) -> BTreeMap<String, String> {
    Url::parse(url).expect("a URL").query_pairs().into_owned().collect()
}

fn answer(service: &Service, received: &Received) -> Reply {
    let (method, path) = received.line.split_once(' ').expect("a method and a path");
    // The endpoints for certificates are the same, at other paths.
    let path = path.strip_prefix("/mtls").unwrap_or(path);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in &received.headers {
        request = request.header(name, value);
    }
    let body = String::from_utf8_lossy(&received.body).into_owned();
    // Its storage is memory, so it never waits.
    let response = service.handle(request.body(body).expect("a request")).now_or_never().expect("a response at once");
    let (parts, body) = response.into_parts();
    let mut reply = Reply::new(parts.status.as_u16(), body.into_bytes().to_vec());
    if let Some(media_type) = parts.headers.get(http::header::CONTENT_TYPE) {
        reply.headers.push(("content-type", media_type.to_str().expect("a media type").to_owned()));
    }
    reply
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
