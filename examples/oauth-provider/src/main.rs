//! An OAuth provider whose access tokens last two minutes, to see how Jackfield authorises users and keeps their tokens fresh. README.md shows
//! it. The crate `oauth-as` does the work.
//!
//! Its only user is `ada`, who is always logged in. At `/authorize`, to which the application sends her browser, she decides, and the
//! browser goes back with a code; at `/device` she types the code that Jackfield was given, and decides. The provider replaces a
//! refresh token each time it is used, and keeps nothing when it ends: `oauth-provider [address] [redirect URI of the client]`, by
//! default `127.0.0.1:8444` and `http://localhost:8080/authorized`.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oauth_as::authorization::{AuthorizationError, AuthorizationRequest};
use oauth_as::client::{Client, ClientAuth, ClientId};
use oauth_as::grant::GrantType;
use oauth_as::http::{AuthorizationService, ServiceBuilder};
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AuthorizationServer, ServerConfig, SystemClock, UserApproval};
use oauth_as::store::MemoryStorage;
use tokio::net::{TcpListener, TcpStream};
use url::form_urlencoded;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The provider.
struct Provider {
    issuer: String,
    server: Arc<AuthorizationServer<MemoryStorage, SystemClock>>,
    /// Its endpoints for clients.
    endpoints: AuthorizationService<MemoryStorage, SystemClock>,
}

/// The client that is registered, and its secret.
const CLIENT: (&str, &str) = ("jackfield", "clientSecretOfTheExample");
const USER: &str = "ada";
const SCOPE: &str = "calendar";
/// The page to which the application sends the browser of its user, who decides there. It is the default of the library.
const AUTHORIZATION: &str = "/authorize";
/// The page at which the user decides about a code.
const DEVICE: &str = "/device";
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);
/// The largest request, in bytes.
const MAX_BODY: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8444".to_owned());
    let redirect_uri = arguments.next().unwrap_or_else(|| "http://localhost:8080/authorized".to_owned());
    let bound = TcpListener::bind(&address).await;
    let listener = bound.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let issuer = format!("http://localhost:{}", listener.local_addr()?.port());
    let provider = Arc::new(Provider::new(issuer, redirect_uri.clone()).await?);
    let (issuer, (id, secret)) = (&provider.issuer, CLIENT);
    writeln!(std::io::stdout(), "Authorises at {issuer}, for the client {id} with the secret {secret}")?;
    writeln!(std::io::stdout(), "Sends browsers back to {redirect_uri}")?;
    loop {
        let (stream, _) = listener.accept().await?;
        let provider = Arc::clone(&provider);
        #[expect(clippy::disallowed_methods, reason = "a connection ends with the program")]
        tokio::spawn(async move {
            if let Err(error) = serve(provider, stream).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

async fn serve(provider: Arc<Provider>, stream: TcpStream) -> Result<()> {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    let service = service_fn(|request| async {
        let response = provider.respond(request).await;
        Ok::<_, Infallible>(response.unwrap_or_else(|error| page(StatusCode::BAD_REQUEST, &error.to_string())))
    });
    server.serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

// === impl Provider ===

impl Provider {
    async fn new(issuer: String, redirect_uri: String) -> Result<Self> {
        let mut config = ServerConfig::new(&*issuer, format!("{issuer}{DEVICE}"));
        config.include_verification_uri_complete = true;
        config.access_token_ttl = TOKEN_LIFETIME;
        config.poll_interval = Duration::from_secs(1);
        let server = Arc::new(AuthorizationServer::new(config, MemoryStorage::new()));
        let scopes = ScopeSet::from_tokens([SCOPE])?;
        let client = Client {
            client_id: ClientId::new(CLIENT.0),
            auth: ClientAuth::ConfidentialSecret { secret: CLIENT.1.to_owned() },
            grant_types: vec![GrantType::AuthorizationCode, GrantType::DeviceCode, GrantType::RefreshToken],
            redirect_uris: vec![redirect_uri],
            allowed_scopes: scopes.clone(),
            default_scopes: scopes,
            name: None,
            registration: None,
        };
        server.register_client(client).await?;
        let endpoints = ServiceBuilder::new(Arc::clone(&server)).build()?;
        Ok(Provider { issuer, server, endpoints })
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        let is_device = head.uri.path() == DEVICE;
        if !is_device && head.uri.path() != AUTHORIZATION {
            let response = self.endpoints.handle(Request::from_parts(head, Full::new(body))).await;
            return Ok(response.map(|body| Full::new(body.into_bytes())));
        }
        let is_its_own = |origin: &HeaderValue| origin.as_bytes() == self.issuer.as_bytes();
        let query = head.uri.query().unwrap_or_default().as_bytes();
        Ok(match head.method {
            Method::GET if is_device => form(Some(&value(query, "user_code"))),
            Method::GET => self.authorize(query, "").await,
            // Another page could decide for the user.
            Method::POST if !head.headers.get(ORIGIN).is_none_or(is_its_own) => {
                page(StatusCode::FORBIDDEN, "The form is of another site.")
            }
            Method::POST if is_device => self.decide(&value(&body, "user_code"), &value(&body, "decision")).await,
            Method::POST => self.authorize(query, &value(&body, "decision")).await,
            _ => page(StatusCode::METHOD_NOT_ALLOWED, "This page is read, or its form posted."),
        })
    }

    /// Asks the user about an authorisation request, and sends the browser back when there is a decision.
    async fn authorize(&self, query: &[u8], decision: &str) -> Response<Full<Bytes>> {
        let request = AuthorizationRequest::from_pairs(form_urlencoded::parse(query));
        let request = match self.server.validate_authorization_request(&request).await {
            Ok(request) => request,
            Err(error) => return refused(&error),
        };
        match decision {
            "" => form(None),
            "permit" => match self.server.issue_authorization_code(UserApproval::granted(&request, USER)).await {
                Ok(answer) => redirect(&answer.location(&request.redirect_uri)),
                Err(error) => refused(&error),
            },
            "refuse" => redirect(&request.denied().location()),
            _ => page(StatusCode::BAD_REQUEST, "The decision is permit or refuse."),
        }
    }

    async fn decide(&self, user_code: &str, decision: &str) -> Response<Full<Bytes>> {
        let (decided, said) = match decision {
            "permit" => (self.server.approve_device(user_code, USER).await.is_ok(), "Permitted."),
            "refuse" => (self.server.deny_device(user_code).await.is_ok(), "Refused."),
            _ => return page(StatusCode::BAD_REQUEST, "The decision is permit or refuse."),
        };
        match decided {
            true => page(StatusCode::OK, said),
            false => page(StatusCode::NOT_FOUND, "No device waits for this code."),
        }
    }
}

/// The value of a parameter, without what a code does not have.
fn value(parameters: &[u8], name: &str) -> String {
    let found = form_urlencoded::parse(parameters).find(|(own, _)| own == name);
    let found = found.map(|(_, value)| value.into_owned()).unwrap_or_default();
    found.chars().filter(|it| it.is_ascii_alphanumeric() || *it == '-').collect()
}

/// A page that asks the user, with a field for the code of a device if there is one. Its form goes to its own address.
fn form(user_code: Option<&str>) -> Response<Full<Bytes>> {
    let input = |code| format!("<input name=\"user_code\" value=\"{code}\" autocomplete=\"off\" required>");
    let field = user_code.map(|code| format!("<p><label>Code {}</label></p>\n", input(code))).unwrap_or_default();
    let form = format!(
        "<p>{CLIENT} asks for access to your {SCOPE}, {USER}.</p>\n\
         <form method=\"post\">\n\
         {field}<p><button name=\"decision\" value=\"permit\">Permit</button>\n\
         <button name=\"decision\" value=\"refuse\">Refuse</button></p>\n</form>",
        CLIENT = CLIENT.0,
    );
    html(StatusCode::OK, &form)
}

/// The answer to a request that is refused: where the client can be trusted, the browser goes back to it.
fn refused(error: &AuthorizationError) -> Response<Full<Bytes>> {
    match error {
        AuthorizationError::Direct(error) => {
            page(StatusCode::BAD_REQUEST, &format!("The request is refused: {}.", error.error))
        }
        AuthorizationError::Redirect(answer) => redirect(&answer.location()),
    }
}

fn redirect(location: &str) -> Response<Full<Bytes>> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return page(StatusCode::BAD_REQUEST, "The redirect URI has characters that it must not have.");
    };
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A page that says a sentence.
fn page(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    html(status, &format!("<p>{sentence}</p>"))
}

fn html(status: StatusCode, main: &str) -> Response<Full<Bytes>> {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Example provider</title>\n\
         <main>\n<h1>Example provider</h1>\n{main}\n</main>\n</html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}
