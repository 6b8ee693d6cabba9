//! Token endpoints: what is sent, and when it is not known what became of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackfield_domain::Secret;
use jackfield_domain::connection::TokenContentType;
use jackfield_domain::credential::RevokedTokenKind;
use jackfield_domain::value::url::{HttpUrl, RedirectUri};
use jackfield_upstream::client::{Client, Definition};
use jackfield_upstream::oauth::{
    ClientAuthentication, Grant, Revocation, RevocationEndpoint, TokenEndpoint, TokenFailure, TokenFault, TokenResponse,
};
use tokio::time::Instant;

use crate::pki::Authority;
use crate::server::{Peer, Server, header};
use crate::support::{client, definition, development, get, url};

const TOKENS: &str = r#"{"access_token": "a1", "token_type": "Bearer", "expires_in": 60}"#;

/// A token endpoint with one response, which keeps the requests.
struct Endpoint {
    _server: Server,
    client: Client,
    url: HttpUrl,
    requests: Arc<Mutex<Vec<String>>>,
    parameters: BTreeMap<String, String>,
}

// === impl Endpoint ===

impl Endpoint {
    async fn of(response: &str) -> Self {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, response) = (requests.clone(), response.to_owned());
        let server = Server::plain(move |mut peer| {
            let (kept, response) = (kept.clone(), response.clone());
            async move {
                if let Some(request) = peer.request().await {
                    kept.lock().unwrap().push(request);
                    peer.send(response).await;
                }
            }
        })
        .await;
        let origin = format!("http://localhost:{}/", server.port());
        let client = client(development(), definition(&origin));
        Endpoint { url: url(&format!("{origin}token")), _server: server, client, requests, parameters: BTreeMap::new() }
    }

    async fn granting() -> Self {
        Endpoint::of(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{TOKENS}", TOKENS.len())).await
    }

    async fn exchange(
        &self,
        authentication: &ClientAuthentication,
        content_type: TokenContentType,
        grant: Grant<'_>,
    ) -> Result<TokenResponse, TokenFault> {
        let Endpoint { client, url, parameters, .. } = self;
        TokenEndpoint { client, url, authentication, content_type, parameters }.exchange(&grant, None).await
    }

    /// Sends a refresh token in a form, and returns why there is no token.
    async fn fail(&self) -> TokenFault {
        let refresh_token = Secret::new("r1".to_owned());
        let grant = Grant::RefreshToken { refresh_token: &refresh_token, scope: None };
        self.exchange(&public(), TokenContentType::Form, grant).await.unwrap_err()
    }

    /// Revokes an access token.
    async fn revoke(&self) -> Result<Revocation, TokenFault> {
        let Endpoint { client, url, .. } = self;
        let endpoint = RevocationEndpoint { client, url, authentication: &public() };
        endpoint.revoke(&Secret::new("a/1".to_owned()), RevokedTokenKind::AccessToken, None).await
    }

    /// The only request: its head and its body.
    fn request(&self) -> (String, String) {
        let requests = self.requests.lock().unwrap();
        let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

fn public() -> ClientAuthentication {
    ClientAuthentication::None { client_id: "c 1".to_owned() }
}

#[tokio::test]
async fn a_refresh_token_is_sent_in_a_form() {
    let endpoint = Endpoint::granting().await;
    let refresh_token = Secret::new("r/1+".to_owned());
    let grant = Grant::RefreshToken { refresh_token: &refresh_token, scope: Some("read write") };
    let tokens = endpoint.exchange(&public(), TokenContentType::Form, grant).await.unwrap();
    assert_eq!(tokens.access.unwrap().token.expose(), "a1");
    let (head, body) = endpoint.request();
    assert!(head.starts_with("POST /token HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(header(&head, "accept"), Some("application/json"));
    assert_eq!(header(&head, "authorization"), None);
    assert_eq!(body, "grant_type=refresh_token&refresh_token=r%2F1%2B&scope=read+write&client_id=c+1");
}

#[tokio::test]
async fn a_code_is_sent_in_json() {
    let endpoint = Endpoint::granting().await;
    let (code, code_verifier) = (Secret::new("c\"1".to_owned()), Secret::new("v1".to_owned()));
    let redirect_uri = RedirectUri::stored("https://jackfield.example/callback/1".to_owned());
    let grant = Grant::AuthorizationCode { code: &code, redirect_uri: &redirect_uri, code_verifier: &code_verifier };
    let post =
        ClientAuthentication::SecretPost { client_id: "c1".to_owned(), client_secret: Secret::new("s1".to_owned()) };
    endpoint.exchange(&post, TokenContentType::Json, grant).await.unwrap();
    let (head, body) = endpoint.request();
    assert_eq!(header(&head, "content-type"), Some("application/json"));
    let expected = serde_json::json!({
        "grant_type": "authorization_code", "code": "c\"1", "code_verifier": "v1", "client_id": "c1", "client_secret": "s1",
        "redirect_uri": "https://jackfield.example/callback/1",
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected);
}

/// Id and secret are encoded as in a form before they are joined (RFC 6749 2.3.1).
#[tokio::test]
async fn a_client_says_who_it_is_in_a_header() {
    let endpoint = Endpoint::granting().await;
    let basic = ClientAuthentication::SecretBasic {
        client_id: "https://c.example".to_owned(),
        client_secret: Secret::new("s:1 %".to_owned()),
    };
    assert_eq!(basic.client_id(), "https://c.example");
    endpoint.exchange(&basic, TokenContentType::Form, Grant::ClientCredentials { scope: None }).await.unwrap();
    let (head, body) = endpoint.request();
    // https%3A%2F%2Fc.example:s%3A1+%25
    assert_eq!(header(&head, "authorization"), Some("Basic aHR0cHMlM0ElMkYlMkZjLmV4YW1wbGU6cyUzQTErJTI1"));
    assert_eq!(body, "grant_type=client_credentials");
}

#[tokio::test]
async fn parameters_of_a_connection_replace_none_of_a_grant() {
    let mut endpoint = Endpoint::granting().await;
    let given = [("audience", "a&b"), ("grant_type", "password"), ("client_id", "c2"), ("code", "x"), ("scope", "all")];
    endpoint.parameters = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let grant = Grant::ClientCredentials { scope: Some("read") };
    endpoint.exchange(&public(), TokenContentType::Form, grant).await.unwrap();
    assert_eq!(endpoint.request().1, "grant_type=client_credentials&scope=read&client_id=c+1&audience=a%26b");
}

/// A grant may be spent as soon as a byte of it has left.
#[tokio::test]
async fn silence_after_a_request_says_nothing_about_the_grant() {
    for response in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access", "HTTP/1.1 200 OK\r\n\r\n<p>"] {
        let endpoint = Endpoint::of(response).await;
        let fault = endpoint.fail().await;
        assert_eq!(fault.class(), TokenFailure::Unknown, "{response:?}: {fault}");
        assert_eq!(endpoint.request().1, "grant_type=refresh_token&refresh_token=r1&client_id=c+1", "it is sent once");
    }
    let silent = Server::plain(|mut peer| async move {
        peer.request().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut endpoint = Endpoint::granting().await;
    endpoint.url = url(&format!("http://localhost:{}/token", silent.port()));
    assert_eq!(
        (endpoint.fail().await.class(), endpoint.fail().await.reason()),
        (TokenFailure::Unknown, "READ_TIMEOUT")
    );
}

/// The time that the server gives the endpoint is no caller's.
#[tokio::test]
async fn an_endpoint_that_takes_too_long_is_cut_by_this_server() {
    let silent = Server::plain(|mut peer| async move {
        peer.request().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let text = format!("http://localhost:{}/token", silent.port());
    let endpoint = Endpoint { url: url(&text), ..Endpoint::granting().await };
    let refresh_token = Secret::new("r1".to_owned());
    let grant = Grant::RefreshToken { refresh_token: &refresh_token, scope: None };
    let Endpoint { client, url, parameters, .. } = &endpoint;
    let authentication = &public();
    let asked = TokenEndpoint { client, url, authentication, content_type: TokenContentType::Form, parameters };
    let fault = asked.exchange(&grant, Some(Instant::now() + Duration::from_millis(100))).await.unwrap_err();
    assert_eq!((fault.class(), fault.reason()), (TokenFailure::Unknown, "TOTAL_TIMEOUT"));
}

#[tokio::test]
async fn a_grant_that_did_not_leave_is_not_spent() {
    let gone = Server::answering("").await.port();
    let mut endpoint = Endpoint::granting().await;
    endpoint.url = url(&format!("http://localhost:{gone}/token"));
    let fault = endpoint.fail().await;
    assert_eq!((fault.class(), fault.reason()), (TokenFailure::Transient, "CONNECT_FAILED"));
    endpoint.url = url("https://10.0.0.1/token");
    let fault = endpoint.fail().await;
    assert_eq!((fault.class(), fault.reason()), (TokenFailure::Connection, "EGRESS_REFUSED"));
}

/// A server, or a proxy in front of it, that answers the first request of a connection and drops all that comes over it afterwards. A grant
/// that is sent then would be lost, although it was not used.
#[tokio::test]
async fn each_grant_is_sent_over_a_connection_of_its_own() {
    let authority = Authority::new("authority");
    let config = authority.server("localhost", Some(&authority));
    let answered: Arc<Mutex<Vec<Option<Vec<u8>>>>> = Arc::default();
    let handle = {
        let answered = answered.clone();
        move |mut peer: Peer| {
            let answered = answered.clone();
            async move {
                if peer.request().await.is_some() {
                    answered.lock().unwrap().push(peer.certificate.clone());
                    peer.respond(TOKENS).await;
                    peer.request().await;
                }
            }
        }
    };
    let plain = Server::plain(handle.clone()).await;
    let encrypted = Server::tls(config, handle).await;
    let leaf = authority.client("caller.example");
    for (server, scheme) in [(plain, "http"), (encrypted, "https")] {
        let origin = format!("{scheme}://localhost:{}/", server.port());
        let identity = (scheme == "https").then(|| leaf.identity());
        let definition = Definition { identity, trust: authority.trust(), ..definition(&origin) };
        let client = client(development(), definition);
        // One is kept, which is of no use for a grant.
        get(&client, &origin).await;
        assert_eq!((server.accepted(), client.idle()), (1, 1), "{scheme}");
        let url = url(&format!("{origin}token"));
        let (secret, parameters) = (Secret::new("s1".to_owned()), BTreeMap::new());
        let redirect_uri = RedirectUri::stored("https://jackfield.example/callback/1".to_owned());
        let authentication = &ClientAuthentication::Certificate { client_id: "c1".to_owned() };
        let content_type = TokenContentType::Form;
        let endpoint =
            TokenEndpoint { client: &client, url: &url, authentication, content_type, parameters: &parameters };
        for (count, grant) in (2..).zip([
            Grant::RefreshToken { refresh_token: &secret, scope: None },
            Grant::RefreshToken { refresh_token: &secret, scope: None },
            Grant::AuthorizationCode { code: &secret, redirect_uri: &redirect_uri, code_verifier: &secret },
            Grant::DeviceCode { device_code: &secret },
            Grant::ClientCredentials { scope: None },
        ]) {
            let tokens = endpoint.exchange(&grant, None).await.unwrap();
            assert_eq!(tokens.access.unwrap().token.expose(), "a1", "{scheme}: {grant:?}");
            assert_eq!((server.accepted(), client.idle()), (count, 1), "{scheme}: {grant:?}");
        }
        let presented = std::mem::take(&mut *answered.lock().unwrap());
        let expected = (scheme == "https").then(|| leaf.der().to_vec());
        assert_eq!(presented, vec![expected; 6], "{scheme}");
    }
}

#[tokio::test]
async fn a_revocation_is_a_form_and_its_answer_needs_no_body() {
    let endpoint = Endpoint::of("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(endpoint.revoke().await, Ok(Revocation::Revoked));
    let (head, body) = endpoint.request();
    assert_eq!(header(&head, "content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(body, "token=a%2F1&token_type_hint=access_token&client_id=c+1");
}

/// A client stops calling after failures in a row. Those of a revocation endpoint count apart.
#[tokio::test]
async fn failures_of_revocations_do_not_keep_grants_from_being_exchanged() {
    let mut endpoint = Endpoint::granting().await;
    let token_url = endpoint.url.clone();
    let gone = Server::answering("").await.port();
    endpoint.url = url(&format!("http://localhost:{gone}/revoke"));
    while endpoint.revoke().await.unwrap_err().reason() != "CIRCUIT_OPEN" {}
    endpoint.url = token_url;
    let refresh_token = Secret::new("r1".to_owned());
    let grant = Grant::RefreshToken { refresh_token: &refresh_token, scope: None };
    endpoint.exchange(&public(), TokenContentType::Form, grant).await.unwrap();
}

/// A redirect could carry a secret to another host.
#[tokio::test]
async fn redirects_are_not_followed() {
    let trap = Endpoint::granting().await;
    // A server may send the user to another page when the work is done.
    for (status, class) in [
        (301, TokenFailure::Connection),
        (302, TokenFailure::Unknown),
        (303, TokenFailure::Unknown),
        (307, TokenFailure::Connection),
        (308, TokenFailure::Connection),
    ] {
        let response = format!("HTTP/1.1 {status} x\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", trap.url.as_str());
        let fault = Endpoint::of(&response).await.fail().await;
        assert_eq!((fault.class(), fault.reason()), (class, "STATUS_UNEXPECTED"), "{status}");
    }
    assert!(trap.requests.lock().unwrap().is_empty());
}
