//! The crate `oauth-as` as the server that decides: others wrote it. It rotates refresh tokens, and ends the grant of one that is used again
//! after its retry window. It runs in this process, by the clock of the provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use jackfield_domain::{Clock, Timestamp};
use oauth_as::client::{Client, ClientAuth, ClientId};
use oauth_as::events::{Event, EventSink};
use oauth_as::grant::GrantType;
use oauth_as::http::{ApprovalDecision, AuthorizationService, ServiceBuilder};
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AssertionAudience, AuthorizationServer, ServerConfig};
use oauth_as::store::{MemoryStorage, RevocationWindow, Storage as _};
use oauth_as::token::RefreshTokenState;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::grants::{End, FamilyId, IssuedTokens, Live, challenge};
use super::http::Message;
use super::request::Endpoint;
use super::{ProviderOptions, ProviderTotals};
use crate::system::Reply;

/// The server, and what it has issued.
pub(super) struct Foreign {
    authorization: Arc<Authorization>,
    service: AuthorizationService<MemoryStorage, ByClock>,
    client_id: String,
    client_secret: String,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    /// Requests are answered one at a time: of two with the same refresh token, one is always the second.
    issued: Mutex<Issued>,
    reused: Reused,
}

type Authorization = AuthorizationServer<MemoryStorage, ByClock>;

/// The time of the provider.
struct ByClock(Arc<dyn Clock>);

/// The families whose end it reported because a refresh token was used again.
#[derive(Clone, Default)]
struct Reused(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Issued {
    families: Vec<Family>,
    /// The families by the names that the server gives them.
    by_name: HashMap<String, FamilyId>,
    by_token: HashMap<String, FamilyId>,
}

struct Family {
    name: String,
    user: String,
    scopes: Vec<String>,
    /// All that were issued, the last one at the end.
    refresh_tokens: Vec<String>,
    access_tokens: Vec<String>,
    exchanges: usize,
    is_withdrawn: bool,
}

const ISSUER: &str = "https://as.example.com";
const REDIRECT_URI: &str = "https://app.example.com/callback";
const VERIFIER: &str = "a-verifier-of-the-test-kit-of-43-characters";
/// The header that says which user is logged in.
const USER: &str = "x-user";
/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";
/// The time for which the end of a grant is remembered: longer than any harness lets pass.
const REMEMBERED: Duration = Duration::from_secs(1000 * 24 * 60 * 60);

// === impl Foreign ===

impl Foreign {
    /// Makes a server that knows the client.
    pub(super) async fn with(options: &ProviderOptions) -> Self {
        let mut config = ServerConfig::new(ISSUER, format!("{ISSUER}/device"));
        config.access_token_ttl = options.lifetime;
        config.refresh_token_ttl = options.refresh_lifetime;
        config.refresh_retry_window = options.grace;
        let config = config.with_assertion_audience(AssertionAudience::IssuerOnly);
        let (clock, reused) = (Arc::clone(&options.clock), Reused::default());
        let authorization =
            AuthorizationServer::with_clock(config, MemoryStorage::new(), ByClock(Arc::clone(&options.clock)));
        let authorization = Arc::new(authorization.with_event_sink(Box::new(reused.clone())));
        let builder = ServiceBuilder::new(Arc::clone(&authorization))
            .with_subject_resolver(|headers| headers.get(USER).and_then(|user| user.to_str().ok()).map(str::to_owned));
        let service = builder.with_approval_resolver(|_| ApprovalDecision::Approve).build().expect("a service");
        let (client_id, lifetime) = (options.client_id.clone(), options.lifetime);
        let client_secret = options.client_secrets.first().cloned().expect("a client secret");
        let issued = Mutex::default();
        let foreign = Foreign { authorization, service, client_id, client_secret, lifetime, clock, issued, reused };
        foreign.register().await;
        foreign
    }

    async fn register(&self) {
        let scopes = ScopeSet::from_tokens(["openid", "read", "write"]).expect("scopes");
        let client = Client {
            client_id: ClientId::new(&self.client_id),
            auth: ClientAuth::ConfidentialSecret { secret: self.client_secret.clone() },
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
            redirect_uris: vec![REDIRECT_URI.to_owned()],
            allowed_scopes: scopes.clone(),
            default_scopes: scopes,
            name: None,
            registration: None,
        };
        self.authorization.register_client(client).await.expect("a client");
    }

    /// Begins a grant: its user permits it, and the client redeems the code.
    pub(super) fn begin(&self, user: &str, scopes: &[&str]) -> IssuedTokens {
        let parameters = [
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", REDIRECT_URI),
            ("scope", &scopes.join(" ")),
            ("state", "s"),
            ("code_challenge", &challenge(VERIFIER)),
            ("code_challenge_method", "S256"),
        ];
        let request = Request::get(format!("{ISSUER}/authorize?{}", form(&parameters))).header(USER, user);
        let request = request.body(String::new()).expect("a request");
        let mut issued = self.issued();
        let response = self.service.handle(request).now_or_never().expect("a response at once");
        let location = response.headers().get(LOCATION).unwrap_or_else(|| panic!("no code: {}", response.status()));
        let location = Url::parse(location.to_str().expect("a URL")).expect("a URL");
        let code = location.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
            ("client_id", &self.client_id),
            ("client_secret", &self.client_secret),
        ];
        let request = Request::post(format!("{ISSUER}/token")).header(CONTENT_TYPE, FORM);
        let reply = self.handled(request.body(form(&parameters)).expect("a request"));
        let (family, access_token, refresh_token) = self.note(&mut issued, &reply, user).expect("tokens");
        let family_of = &mut issued.families[family.0];
        family_of.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        family_of.exchanges = 0;
        let lifetime = i64::try_from(self.lifetime.as_micros()).expect("a lifetime");
        IssuedTokens { family, access_token, refresh_token, expire_time: self.clock.now().plus_micros(lifetime) }
    }

    /// Answers a request of the client.
    pub(super) fn answer(&self, endpoint: Endpoint, message: &Message) -> Reply {
        let mut request = Request::post(format!("{ISSUER}{}", endpoint.path()));
        for name in [CONTENT_TYPE, AUTHORIZATION] {
            if let Some(value) = message.header(name.as_str()) {
                request = request.header(name, value);
            }
        }
        let body = String::from_utf8_lossy(&message.body).into_owned();
        let request = request.body(body).expect("a request");
        let mut issued = self.issued();
        let reply = self.handled(request);
        self.note(&mut issued, &reply, "");
        reply
    }

    /// The tokens of a grant of which the server itself says that they are live.
    pub(super) fn live(&self, family: FamilyId) -> Result<Live, End> {
        let issued = self.issued();
        let family = &issued.families[family.0];
        let mut live = family.refresh_tokens.iter().enumerate().rev().filter(|(_, token)| self.is_live(token));
        let Some((generation, refresh_token)) = live.next() else {
            return Err(match self.reused.locked().contains(&family.name) {
                true => End::Reuse,
                false if family.is_withdrawn => End::Withdrawn,
                false => End::Revoked,
            });
        };
        assert!(live.next().is_none(), "one refresh token is live");
        let access_token = family.access_tokens.iter().rev().find(|token| self.accepts(token));
        Ok(Live {
            user: family.user.clone(),
            scopes: family.scopes.clone(),
            generation,
            refresh_token: refresh_token.clone(),
            access_token: access_token.cloned().unwrap_or_default(),
        })
    }

    /// Ends a grant, as its user can.
    pub(super) fn end(&self, family: FamilyId) {
        let mut issued = self.issued();
        let family = &mut issued.families[family.0];
        family.is_withdrawn = true;
        let recorded_at = system_time(self.clock.now());
        let window = RevocationWindow { recorded_at, until: recorded_at + REMEMBERED };
        let ended = self.authorization.store().revoke_token_family(&family.name, window);
        ended.now_or_never().expect("at once").expect("the grant ends");
    }

    pub(super) fn family_of(&self, refresh_token: &str) -> Option<FamilyId> {
        self.issued().by_token.get(refresh_token).copied()
    }

    /// The counts of one grant, or of all.
    pub(super) fn totals(&self, family: Option<FamilyId>) -> ProviderTotals {
        let count = self.issued().families.len();
        let ids = family.map_or(0..count, |family| family.0..family.0 + 1);
        let ended = ids.clone().filter(|id| self.live(FamilyId(*id)).is_err()).count();
        let (issued, reused) = (self.issued(), self.reused.locked());
        let families = &issued.families[ids];
        ProviderTotals {
            exchanges: families.iter().map(|family| family.exchanges).sum(),
            reuses: reused.iter().filter(|name| families.iter().any(|family| family.name == **name)).count(),
            // It takes one at a time.
            max_concurrent: 1,
            ended,
        }
    }

    /// Returns whether the server would take an access token now.
    fn accepts(&self, access_token: &str) -> bool {
        let found = self.authorization.introspect(access_token).now_or_never().expect("at once");
        found.expect("a storage").is_some()
    }

    fn is_live(&self, refresh_token: &str) -> bool {
        let record = self.authorization.store().get_refresh_token(refresh_token);
        let record = record.now_or_never().expect("at once").expect("a storage");
        record.is_some_and(|record| record.state == RefreshTokenState::Active)
    }

    fn handled(&self, request: Request<String>) -> Reply {
        // Its storage is memory, so it never waits.
        let (parts, body) = self.service.handle(request).now_or_never().expect("a response at once").into_parts();
        Reply::new(parts.status.as_u16(), body.into_bytes().to_vec())
    }

    /// Notes the tokens of a response, if it has a refresh token. Returns its family, the access token and the refresh token.
    fn note(&self, issued: &mut Issued, reply: &Reply, user: &str) -> Option<(FamilyId, String, String)> {
        let body: Value = serde_json::from_slice(&reply.body).ok().filter(|_| reply.status == 200)?;
        let token = |name: &str| body[name].as_str().map(str::to_owned);
        let (access_token, refresh_token) = (token("access_token")?, token("refresh_token")?);
        let record = self.authorization.store().get_refresh_token(&refresh_token);
        let name = record.now_or_never()?.expect("a storage").expect("a record").family_id.clone();
        let next = FamilyId(issued.families.len());
        let id = *issued.by_name.entry(name.clone()).or_insert(next);
        if id == next {
            issued.families.push(Family::new(name, user));
        }
        let family = &mut issued.families[id.0];
        family.exchanges += 1;
        // Within the retry window they are issued again.
        if !family.refresh_tokens.contains(&refresh_token) {
            family.refresh_tokens.push(refresh_token.clone());
            family.access_tokens.push(access_token.clone());
        }
        issued.by_token.insert(refresh_token.clone(), id);
        Some((id, access_token, refresh_token))
    }

    fn issued(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn form(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(time.0).unwrap_or_default())
}

// === impl Family ===

impl Family {
    fn new(name: String, user: &str) -> Self {
        let (scopes, refresh_tokens, access_tokens) = Default::default();
        let user = user.to_owned();
        Family { name, user, scopes, refresh_tokens, access_tokens, exchanges: 0, is_withdrawn: false }
    }
}

// === impl ByClock ===

impl oauth_as::server::Clock for ByClock {
    fn now(&self) -> SystemTime {
        system_time(self.0.now())
    }
}

// === impl Reused ===

impl Reused {
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Reused {
    fn on_event(&self, event: Event<'_>) {
        if let Event::RefreshTokenReuseDetected { family_id, .. } = event {
            self.locked().push(family_id.to_owned());
        }
    }
}
