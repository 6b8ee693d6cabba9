//! An authorisation server that others wrote. It rotates refresh tokens, and ends the grant when one is used twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Request;
use http::header::LOCATION;
use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::value::url::HttpUrl;
use jackfield_upstream::client::Client;
use jackfield_upstream::oauth::{ClientAuthentication, Grant, TokenEndpoint, TokenFailure, TokenFault, TokenResponse};
use oauth_as::client::{Client as Registration, ClientAuth, ClientId};
use oauth_as::grant::GrantType;
use oauth_as::http::{ApprovalDecision, AuthorizationService, ServiceBuilder};
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AuthorizationServer, ServerConfig, SystemClock};
use oauth_as::store::MemoryStorage;
use url::Url;

use crate::server::{Peer, Server};
use crate::support::{client, definition, development, url};

type Service = AuthorizationService<MemoryStorage, SystemClock>;

const REDIRECT_URI: &str = "https://jackfield.example/callback/1";
const SECRET: &str = "s:1 %+";
/// A verifier and its challenge (RFC 7636 appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// The server, which approves whatever is asked for, and a client of it.
struct Provider {
    service: Service,
    client: Client,
    token_url: HttpUrl,
    _server: Server,
}

// === impl Provider ===

impl Provider {
    async fn start() -> Self {
        let config = ServerConfig::new("https://as.example.com", "https://as.example.com/device");
        let authorization = Arc::new(AuthorizationServer::new(config, MemoryStorage::new()));
        let scopes = ScopeSet::from_tokens(["read", "write"]).unwrap();
        let registration = Registration {
            client_id: ClientId::new("c1"),
            auth: ClientAuth::ConfidentialSecret { secret: SECRET.to_owned() },
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::ClientCredentials],
            redirect_uris: vec![REDIRECT_URI.to_owned()],
            allowed_scopes: scopes.clone(),
            default_scopes: scopes,
            name: None,
            registration: None,
        };
        authorization.register_client(registration).await.unwrap();
        let builder = ServiceBuilder::new(authorization).with_subject_resolver(|_| Some("ada".to_owned()));
        let service = builder.with_approval_resolver(|_| ApprovalDecision::Approve).build().unwrap();
        let served = service.clone();
        let server = Server::plain(move |peer| serve(peer, served.clone())).await;
        let origin = format!("http://localhost:{}/", server.port());
        let client = client(development(), definition(&origin));
        Provider { service, client, token_url: url(&format!("{origin}token")), _server: server }
    }

    /// The code that the browser of a user would bring back.
    async fn authorize(&self) -> Secret {
        let query = [
            ("response_type", "code"),
            ("client_id", "c1"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "read write"),
            ("state", "s"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        let asked = Url::parse_with_params("https://as.example.com/authorize", query).unwrap();
        let response = self.service.handle(Request::get(asked.as_str()).body(String::new()).unwrap()).await;
        let returned = Url::parse(response.headers()[LOCATION].to_str().unwrap()).unwrap();
        let code = returned.query_pairs().find(|(name, _)| name == "code");
        Secret::new(code.unwrap_or_else(|| panic!("{returned}")).1.into_owned())
    }

    async fn exchange(
        &self,
        authentication: &ClientAuthentication,
        grant: Grant<'_>,
    ) -> Result<TokenResponse, TokenFault> {
        let Provider { client, token_url: url, .. } = self;
        let (content_type, parameters) = (TokenContentType::Form, &BTreeMap::new());
        TokenEndpoint { client, url, authentication, content_type, parameters }.exchange(&grant, None).await
    }

    async fn redeem(&self, code: &Secret, authentication: &ClientAuthentication) -> Result<TokenResponse, TokenFault> {
        let (code_verifier, redirect_uri) = (&Secret::new(VERIFIER.to_owned()), &url(REDIRECT_URI));
        self.exchange(authentication, Grant::AuthorizationCode { code, redirect_uri, code_verifier }).await
    }

    async fn refresh(&self, refresh_token: &Secret, scope: Option<&str>) -> Result<TokenResponse, TokenFault> {
        self.exchange(&basic(SECRET), Grant::RefreshToken { refresh_token, scope }).await
    }
}

/// Hands the requests of a connection to the server.
async fn serve(mut peer: Peer, service: Service) {
    while let Some(text) = peer.request().await {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let mut words = lines.next().unwrap().split(' ');
        let mut request = Request::builder().method(words.next().unwrap()).uri(words.next().unwrap());
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let (parts, body) = service.handle(request.body(body.to_owned()).unwrap()).await.into_parts();
        let body = String::from_utf8(body.into_bytes().to_vec()).unwrap();
        let headers = parts.headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        let head = format!("HTTP/1.1 {}\r\n{}", parts.status, headers.collect::<String>());
        peer.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    }
}

fn basic(secret: &str) -> ClientAuthentication {
    ClientAuthentication::SecretBasic { client_id: "c1".to_owned(), client_secret: Secret::new(secret.to_owned()) }
}

fn refused(outcome: Result<TokenResponse, TokenFault>) -> (TokenFailure, &'static str) {
    match outcome.unwrap_err() {
        fault @ TokenFault::Refused { code, .. } => (fault.class(), code.as_str()),
        fault => panic!("{fault:?}"),
    }
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let provider = Provider::start().await;
    let code = provider.authorize().await;
    let first = provider.redeem(&code, &basic(SECRET)).await.unwrap();
    let access = first.access.unwrap();
    assert_eq!((&*access.token_type, access.lifetime.unwrap().as_secs()), ("Bearer", 3600));
    let first = first.refresh_token.unwrap();

    let second = provider.refresh(&first, None).await.unwrap();
    assert_ne!(second.access.unwrap().token.expose(), access.token.expose());
    let second = second.refresh_token.unwrap();
    assert_ne!(second.expose(), first.expose());
    let narrow = provider.refresh(&second, Some("read")).await.unwrap();
    assert_eq!(narrow.access.unwrap().scopes.unwrap(), ["read"]);
    let third = narrow.refresh_token.unwrap();

    // To use one again looks like theft, so all of its family end.
    assert_eq!(refused(provider.refresh(&first, None).await), (TokenFailure::Grant, "invalid_grant"));
    assert_eq!(refused(provider.refresh(&third, None).await), (TokenFailure::Grant, "invalid_grant"));
}

#[tokio::test]
async fn a_wrong_secret_is_not_the_fault_of_the_grant() {
    let provider = Provider::start().await;
    let code = provider.authorize().await;
    let wrong = provider.redeem(&code, &basic("s2")).await;
    assert_eq!(refused(wrong), (TokenFailure::Connection, "invalid_client"));
    let post =
        ClientAuthentication::SecretPost { client_id: "c1".to_owned(), client_secret: Secret::new(SECRET.to_owned()) };
    assert!(provider.redeem(&code, &post).await.unwrap().refresh_token.is_some(), "the code is still good");
    assert_eq!(refused(provider.redeem(&code, &post).await), (TokenFailure::Grant, "invalid_grant"));
}

#[tokio::test]
async fn a_client_has_tokens_of_its_own() {
    let provider = Provider::start().await;
    let own = provider.exchange(&basic(SECRET), Grant::ClientCredentials { scope: Some("write") }).await.unwrap();
    assert_eq!(own.access.unwrap().scopes.unwrap(), ["write"]);
    assert!(own.refresh_token.is_none());
    let wide = provider.exchange(&basic(SECRET), Grant::ClientCredentials { scope: Some("admin") }).await;
    assert_eq!(refused(wide), (TokenFailure::Request, "invalid_scope"));
}
