//! A strict authorisation server for tests of refreshing: it ends a grant whose refresh token is used twice, and fails as a test wants. What it
//! does otherwise is decided by the test kit, or by a server that others wrote.
//!
//! It speaks plain HTTP on the loopback interface, and has a token endpoint (RFC 6749) and a revocation endpoint (RFC 7009). A request that
//! was received is acted on, whether or not its sender is still there. So an answer can be lost, and its tokens with it, as in the field.

mod fault;
mod foreign;
mod grants;
mod http;
mod request;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jackfield_domain::{Clock, SystemClock, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use self::fault::Script;
use self::foreign::Foreign;
use self::grants::Grants;

pub use self::fault::{Gate, ProviderAnswer, ProviderFault};
pub use self::grants::{End, FamilyId, IssuedTokens, Live};
pub use self::request::{Endpoint, ProviderRequest};

/// A running authorisation server. It stops when this value is dropped.
pub struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// The rules of a provider.
pub struct ProviderOptions {
    pub server: ProviderServer,
    pub client_id: String,
    /// All of them are good. None: the client is a public one (RFC 6749 2.1).
    pub client_secrets: Vec<String>,
    pub authentication: ProviderAuthentication,
    pub rotation: Rotation,
    /// The time after its use for which a refresh token is good again.
    pub grace: Duration,
    pub grace_answer: GraceAnswer,
    /// The lifetime of access tokens.
    pub lifetime: Duration,
    /// Responses have no `expires_in`.
    pub hides_lifetime: bool,
    /// The lifetime of a refresh token from its issue on, which responses tell (`refresh_token_expires_in`).
    pub refresh_lifetime: Option<Duration>,
    /// A connection has one answer. Whatever is sent over it afterwards is lost, as with a proxy that dropped it while it was idle.
    pub drops_idle: bool,
    /// The parameter `scope` in refreshes.
    pub scope: ParameterRule,
    /// The parameter `resource` in refreshes (RFC 8707).
    pub resource: ParameterRule,
    /// The time by which tokens and the grace end.
    pub clock: Arc<dyn Clock>,
}

/// The server that decides about requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderServer {
    /// The server of the test kit.
    #[default]
    Own,
    /// The crate `oauth-as`. Of the rules it has the client with its first secret, the grace (with the pair that is live), the lifetimes and
    /// the clock.
    OAuthAs,
}

/// The way in which the client must say who it is (RFC 6749 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderAuthentication {
    Basic,
    Post,
    Either,
}

/// The rule by which refreshes issue new refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Each refresh replaces the refresh token.
    Always,
    /// The refresh token stays, and responses do not repeat it.
    Never,
}

/// The answer to a refresh token that was used before, but within the grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraceAnswer {
    /// The tokens that are live.
    LivePair,
    /// New tokens, which replace those that are live.
    NewPair,
}

/// The rule for a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRule {
    Optional,
    /// A request without it is refused, as Entra refuses refreshes without `scope`.
    Required,
    /// A request with it is refused, as Entra refuses refreshes with `resource`.
    Refused,
}

/// The counts of all grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderTotals {
    /// The refreshes that issued tokens.
    pub exchanges: usize,
    /// The uses of refresh tokens that were used before and whose grace was over.
    pub reuses: usize,
    /// The most refreshes of one grant at a time.
    pub max_concurrent: usize,
    /// The grants that have ended.
    pub ended: usize,
}

struct Shared {
    options: ProviderOptions,
    grants: Mutex<Grants>,
    /// The server in the place of the grants.
    foreign: Option<Foreign>,
    script: Mutex<Script>,
    /// The number of requests that were read and are not answered yet.
    open: AtomicUsize,
    /// The number of connections so far.
    connections: AtomicUsize,
}

/// The pause between two looks at whether requests are answered.
const LOOK: Duration = Duration::from_millis(20);

// === impl Provider ===

impl Provider {
    /// Starts a provider.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub async fn start(options: ProviderOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let foreign = match options.server {
            ProviderServer::Own => None,
            ProviderServer::OAuthAs => Some(Foreign::with(&options).await),
        };
        let shared = Arc::new(Shared::new(options, foreign));
        let accepting = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "it ends with its handle")]
        let task = tokio::spawn(async move {
            // Connections end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(http::serve(stream, Arc::clone(&accepting)));
            }
        });
        Provider { address, shared, _task: AbortOnDropHandle::new(task) }
    }

    /// The URL of the token endpoint.
    pub fn token_url(&self) -> String {
        self.url(Endpoint::Token)
    }

    /// The URL of the revocation endpoint.
    pub fn revocation_url(&self) -> String {
        self.url(Endpoint::Revocation)
    }

    fn url(&self, endpoint: Endpoint) -> String {
        format!("http://localhost:{}{}", self.address.port(), endpoint.path())
    }

    /// Makes a grant without a log-in, and issues its first tokens.
    pub fn grant(&self, user: &str, scopes: &[&str]) -> IssuedTokens {
        if let Some(foreign) = &self.shared.foreign {
            return foreign.begin(user, scopes);
        }
        let now = self.shared.now();
        self.shared.grants().begin(user, scopes, &self.shared.options, now)
    }

    /// Makes an authorisation code, as it would be sent to the redirect URI of the client. With a verifier of PKCE, its challenge
    /// by S256 was a part of the authorisation request. Only the server of the test kit makes one.
    pub fn code(&self, user: &str, scopes: &[&str], redirect_uri: &str, verifier: Option<&str>) -> String {
        self.shared.grants().code(user, scopes, redirect_uri, verifier)
    }

    /// Ends a grant, as its user can at the provider.
    pub fn end(&self, family: FamilyId) {
        match &self.shared.foreign {
            Some(foreign) => foreign.end(family),
            None => self.shared.grants().end(family, End::Withdrawn),
        }
    }

    /// The tokens of a grant that are good now, or the reason for its end.
    pub fn live(&self, family: FamilyId) -> Result<Live, End> {
        match &self.shared.foreign {
            Some(foreign) => foreign.live(family),
            None => self.shared.grants().live(family),
        }
    }

    /// The grant of a refresh token, whether or not the token is still good.
    pub fn family_of(&self, refresh_token: &str) -> Option<FamilyId> {
        match &self.shared.foreign {
            Some(foreign) => foreign.family_of(refresh_token),
            None => self.shared.grants().family_of(refresh_token),
        }
    }

    /// The grants, in the order in which they were made.
    pub fn families(&self) -> Vec<FamilyId> {
        self.shared.grants().families()
    }

    /// The grant and the scopes of an access token, if a resource server would take the token now.
    pub fn accepts(&self, access_token: &str) -> Option<(Option<FamilyId>, Vec<String>)> {
        let now = self.shared.now();
        self.shared.grants().accepts(access_token, now)
    }

    /// The refreshes of a grant that issued tokens.
    pub fn exchanges(&self, family: FamilyId) -> usize {
        self.shared.totals(Some(family)).exchanges
    }

    /// The uses of refresh tokens of a grant that were used before and whose grace was over.
    pub fn reuses(&self, family: FamilyId) -> usize {
        self.shared.totals(Some(family)).reuses
    }

    /// The most refreshes of a grant at a time.
    pub fn max_concurrent(&self, family: FamilyId) -> usize {
        self.shared.totals(Some(family)).max_concurrent
    }

    /// The counts of all grants.
    pub fn totals(&self) -> ProviderTotals {
        self.shared.totals(None)
    }

    /// All requests that were read, in the order of their arrival.
    pub fn requests(&self) -> Vec<ProviderRequest> {
        self.shared.grants().requests.clone()
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until all requests that were read have their effect and their answer, whether or not their senders are still there.
    pub async fn quiet(&self) {
        while self.shared.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has the next requests to the token endpoint fail in these ways, one each.
    pub fn fail(&self, faults: impl IntoIterator<Item = ProviderFault>) {
        self.shared.script().queue(faults);
    }

    /// Has all requests that no queued fault waits for fail by a rule. It gets the endpoint, and the number of the request at it,
    /// from 0 on.
    pub fn fail_by(&self, rule: impl FnMut(Endpoint, usize) -> ProviderFault + Send + 'static) {
        self.shared.script().set_rule(rule);
    }
}

// === impl ProviderOptions ===

impl Default for ProviderOptions {
    /// A provider that is as strict as possible: it rotates always, and has no grace.
    fn default() -> Self {
        ProviderOptions {
            server: ProviderServer::Own,
            client_id: "client-1".to_owned(),
            client_secrets: vec!["client-secret-1".to_owned()],
            authentication: ProviderAuthentication::Either,
            rotation: Rotation::Always,
            grace: Duration::ZERO,
            grace_answer: GraceAnswer::LivePair,
            lifetime: Duration::from_secs(3600),
            hides_lifetime: false,
            refresh_lifetime: None,
            drops_idle: false,
            scope: ParameterRule::Optional,
            resource: ParameterRule::Optional,
            clock: Arc::new(SystemClock),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn new(options: ProviderOptions, foreign: Option<Foreign>) -> Self {
        let (grants, script, open, connections) = Default::default();
        Shared { options, grants, foreign, script, open, connections }
    }

    fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self, family: Option<FamilyId>) -> ProviderTotals {
        match &self.foreign {
            Some(foreign) => foreign.totals(family),
            None => self.grants().totals(family),
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
