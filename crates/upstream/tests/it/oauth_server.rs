//! An authorisation server that others wrote. It rotates refresh tokens, and ends the grant when one is used twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http::header::LOCATION;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_domain::{Secret, SystemClock as MachineClock};
use jackfield_upstream::client::Client;
use jackfield_upstream::oauth::{
    AssertionKey, ClientAssertion, ClientAuthentication, Grant, RsaScheme, TokenEndpoint, TokenFailure, TokenFault,
    TokenResponse,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use oauth_as::client::{Client as Registration, ClientAuth, ClientId};
use oauth_as::client_assertion::AssertionKeys;
use oauth_as::grant::GrantType;
use oauth_as::http::{ApprovalDecision, AuthorizationService, ServiceBuilder};
use oauth_as::jwt::{Jwk, JwsAlg, JwsVerifier};
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AssertionAudience, AuthorizationServer, ServerConfig, SystemClock};
use oauth_as::store::MemoryStorage;
use rcgen::KeyPair;
use serde_json::json;
use url::Url;

use crate::server::{Peer, Server};
use crate::support::{client, definition, development, url};

type Service = AuthorizationService<MemoryStorage, SystemClock>;

const ISSUER: &str = "https://as.example.com";
const REDIRECT_URI: &str = "https://jackfield.example/callback/1";
const SECRET: &str = "s:1 %+";
/// A verifier and its challenge (RFC 7636 appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// The check of signatures by ES256 for the server, which has none of its own.
struct Verifier;

/// The server, which approves whatever is asked for, and a client of it.
struct Provider {
    service: Service,
    client: Client,
    token_url: HttpUrl,
    _server: Server,
}

// === impl Verifier ===

impl JwsVerifier for Verifier {
    fn alg(&self) -> JwsAlg {
        JwsAlg::Es256
    }

    fn verify(&self, key: &Jwk, message: &[u8], signature: &[u8]) -> bool {
        let Jwk::Ec { x, y, .. } = key else { return false };
        let key = DecodingKey::from_ec_components(x, y).unwrap();
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&jsonwebtoken::Algorithm::ES256, &key).unwrap();
        verifier.verify(message, &signature.to_vec()).is_ok()
    }
}

// === impl Provider ===

impl Provider {
    async fn start() -> Self {
        Provider::start_for(ClientAuth::ConfidentialSecret { secret: SECRET.to_owned() }).await
    }

    /// Starts a server for a client that authenticates in some way. Assertions are for the issuer alone.
    async fn start_for(auth: ClientAuth) -> Self {
        let config = ServerConfig::new(ISSUER, "https://as.example.com/device");
        let config = config.with_assertion_audience(AssertionAudience::IssuerOnly);
        let authorization = AuthorizationServer::new(config, MemoryStorage::new());
        let authorization = Arc::new(authorization.with_jws_verifier(Arc::new(Verifier)));
        let scopes = ScopeSet::from_tokens(["read", "write"]).unwrap();
        let registration = Registration {
            client_id: ClientId::new("c1"),
            auth,
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
        let (code_verifier, redirect_uri) =
            (&Secret::new(VERIFIER.to_owned()), &RedirectUri::stored(REDIRECT_URI.to_owned()));
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

/// A client with a private key, and its public key as it is registered.
fn signing_client(audience: &str, pair: &KeyPair) -> (ClientAuthentication, ClientAuth) {
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y), "kid": "k1" });
    let keys = AssertionKeys::PublicKeys { alg: JwsAlg::Es256, keys: vec![Jwk::from_json(&jwk).unwrap()] };
    let pem = Secret::new(pair.serialize_pem());
    let key = AssertionKey::from_pem(&pem, Some("k1".to_owned()), RsaScheme::Pkcs1).unwrap();
    let client = ClientAssertion::new("c1".to_owned(), audience.to_owned(), key, Arc::new(MachineClock));
    (ClientAuthentication::PrivateKeyJwt(Box::new(client)), ClientAuth::ConfidentialAssertion { keys })
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

#[tokio::test]
async fn a_client_may_sign_for_the_issuer_alone() {
    let pair = KeyPair::generate().unwrap();
    let (signing, registered) = signing_client(ISSUER, &pair);
    let provider = Provider::start_for(registered).await;
    let code = provider.authorize().await;
    let (elsewhere, _) = signing_client("https://as.example.com/token", &pair);
    assert_eq!(refused(provider.redeem(&code, &elsewhere).await), (TokenFailure::Connection, "invalid_client"));
    let (stranger, _) = signing_client(ISSUER, &KeyPair::generate().unwrap());
    assert_eq!(refused(provider.redeem(&code, &stranger).await), (TokenFailure::Connection, "invalid_client"));
    assert_eq!(refused(provider.redeem(&code, &basic(SECRET)).await), (TokenFailure::Connection, "invalid_client"));
    let tokens = provider.redeem(&code, &signing).await.unwrap();
    let refresh_token = &tokens.refresh_token.unwrap();
    // Each request has an assertion of its own.
    let refreshed = provider.exchange(&signing, Grant::RefreshToken { refresh_token, scope: None }).await.unwrap();
    assert!(refreshed.access.is_ok());
}
