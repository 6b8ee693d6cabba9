//! Planted bugs of authorisations: with each of them an attack wins that wins nothing without it. So the attacks are real ones, and each check
//! is needed. Ada is the user who is attacked, and Eve attacks.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use jackfield_api::v1;
use jackfield_api::v1::AuthorizationState as State;
use jackfield_domain::ConnectionId;
use jackfield_testkit::data::principal;
use jackfield_testkit::oauth::{ISSUER, query_of};
use jackfield_testkit::planted::{AuthorizationBug as Bug, plant_in};
use jackfield_testkit::{Backend, Brought, Client, OAuthProvider, Reply, TestServer, collect, on_both, reason_of};

use super::attacks::warned;
use super::bound::{self, Browser};
use super::callback::{self, HOME, browse, completion, evil_connection_with, listening, sent_back};
use super::start::update;
use super::{BACK, World, complete, get, tokens};
use crate::steps;

/// The place of an attack.
struct Field {
    server: TestServer,
    world: World,
    /// A connection to the provider of Eve, which names itself in its responses, and one whose provider does not.
    evil: [String; 2],
    /// The credential that Ada has already.
    credential: String,
    /// Another tenant.
    other: World,
}

/// A bug that connections have until this is dropped.
pub(super) struct Planted(Vec<ConnectionId>);

/// The side that wins an attack.
#[derive(Debug, PartialEq, Eq)]
enum Winner {
    /// A grant is in the hands of another user, or its code is.
    Attacker,
    /// The attack won nothing, for this reason.
    None(String),
}

type Attack = for<'f> fn(&'f Field) -> LocalBoxFuture<'f, Winner>;

/// The issuer of Eve, and the path of its token endpoint. It is at the system of the provider, so that the keys of its connector do.
const EVIL: &str = "https://evil.example";
const EVIL_TOKEN: &str = "/evil/token";

/// The attacks, the bug with which each of them wins, and the reason why it does not without.
const ATTACKS: [(Attack, Bug, &str); 15] = [
    (|field| link_sent(field).boxed_local(), Bug::UserNotCompared, "USER_MISMATCH"),
    (|field| link_sent_with_listener(field).boxed_local(), Bug::UserNotCompared, "USER_MISMATCH"),
    (|field| completion_code_seen(field).boxed_local(), Bug::MismatchEndsNothing, "AUTHORIZATION_ENDED"),
    (|field| completion_forged(field).boxed_local(), Bug::PrincipalNotCompared, "AUTHORIZATION_MISMATCH"),
    (|field| state_forged(field).boxed_local(), Bug::StateNotCompared, "AUTHORIZATION_NOT_FOUND"),
    (|field| providers_mixed_up(field).boxed_local(), Bug::IssuerNotCompared, "ISSUER_MISMATCH"),
    (|field| paths_mixed_up(field).boxed_local(), Bug::PathNotCompared, "PATH_MISMATCH"),
    (|field| response_replaced(field).boxed_local(), Bug::ResponseTakenTwice, "This was answered before"),
    (|field| endpoint_replaced(field).boxed_local(), Bug::ClientNotCompared, "CONNECTION_CHANGED"),
    (|field| code_injected(field).boxed_local(), Bug::VerifierShared, "GRANT_REFUSED invalid_grant"),
    (|field| code_injected_without_pkce(field).boxed_local(), Bug::NonceNotCompared, "ID_TOKEN_REFUSED WRONG_NONCE"),
    (|field| account_replaced(field).boxed_local(), Bug::AccountNotCompared, "ACCOUNT_MISMATCH"),
    (|field| user_of_another_tenant(field).boxed_local(), Bug::TenantNotCompared, "FIELD_INVALID"),
    (|field| connect_url_sent(field).boxed_local(), Bug::VisitorNotCompared, "USER_MISMATCH"),
    (|field| provider_url_sent(field).boxed_local(), Bug::CookieNotCompared, "WRONG_BROWSER"),
];

// === impl Field ===

impl Field {
    async fn start(backend: Backend) -> Self {
        let server = TestServer::start_with(backend, |config| {
            listening(config);
            config.identity.principals.push(principal("second", "alpha", &["*"]));
        })
        .await;
        let world = callback::world(&server).await;
        let evil = |name: &'static str, names_itself: bool| {
            let token_url = world.provider.system.url(EVIL_TOKEN);
            evil_connection_with(&world, move |connection| {
                connection.name = name.to_owned();
                connection.authentication_url = Some(format!("{EVIL}/authorize"));
                connection.token_url = Some(token_url);
                connection.issuer_url = names_itself.then(|| EVIL.to_owned());
                connection.iss_parameter_supported = names_itself.then_some(true);
            })
        };
        let evil = [evil("evil", true).await, evil("nameless", false).await];
        // The certificate of the connector goes to the servers that it names itself.
        let keys = |provider: &OAuthProvider| v1::OAuth2Connector {
            jwks_url: Some(provider.system.url("/jwks")),
            ..Default::default()
        };
        let other = World::of(server.client("beta"), keys, |_, _| {}).await;
        let mut field = Field { server, world, evil, credential: String::new(), other };
        let (session, url) = field.world.start(field.openid("ada")).await;
        let brought = field.visited_at(&url).await;
        complete(field.client(), brought.completion("ada")).await.unwrap();
        field.credential = get(field.client(), &session.id).await.unwrap().credential;
        assert!(!field.credential.is_empty());
        field
    }

    fn client(&self) -> &Client {
        &self.world.client
    }

    fn planted(&self, bug: Bug) -> Planted {
        let [evil, nameless] = &self.evil;
        Planted::in_connections(bug, &[&self.world.connection.id, evil, nameless, &self.other.connection.id])
    }

    /// The credentials that there are.
    async fn held(&self) -> Vec<(String, String, String)> {
        let request = v1::ListCredentialsRequest::default();
        let listed = collect::items(self.client().credentials().list_credentials(request).await).await.unwrap();
        listed.into_iter().map(|held| (held.id, held.user_id, held.etag)).collect()
    }

    /// A request whose tokens come with an ID token.
    fn openid(&self, user_id: &str) -> v1::StartAuthorizationRequest {
        v1::StartAuthorizationRequest { scopes: vec!["openid".to_owned()], ..self.world.request(user_id) }
    }

    /// Starts a session that comes back to the application. A user opens its link, and permits what is asked for.
    async fn visited(&self, user_id: &str) -> Brought {
        let url = self.world.start(self.world.request(user_id)).await.1;
        self.visited_at(&url).await
    }

    async fn visited_at(&self, url: &str) -> Brought {
        self.world.provider.register(&[BACK]).await;
        self.world.provider.visit(url).await
    }

    /// The winner once an application has brought a code that a user has permitted.
    async fn completed(&self, client: &Client, completion: v1::CompleteAuthorizationRequest, code: &str) -> Winner {
        let completed = complete(client, completion).await;
        let evil = format!("POST {EVIL_TOKEN}");
        let received = self.world.provider.system.received();
        let mut stolen = received.iter().filter(|received| received.line == evil);
        if stolen.any(|received| code_in(&String::from_utf8_lossy(&received.body)) == code) {
            return Winner::Attacker;
        }
        match completed {
            Ok(session) => ended(&self.world, &session, code).await,
            Err(refused) => Winner::None(reason_of(&refused)),
        }
    }
}

// === impl Planted ===

impl Planted {
    pub(super) fn in_connections(bug: Bug, connections: &[&str]) -> Self {
        let planted: Vec<_> = connections.iter().map(|id| ConnectionId(id.parse().unwrap())).collect();
        planted.iter().for_each(|connection| plant_in(*connection, Some(bug)));
        Planted(planted)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        self.0.iter().for_each(|connection| plant_in(*connection, None));
    }
}

/// The winner once a session of a tenant has ended: the attacker if its tokens are those of the code.
async fn ended(World { client, provider, .. }: &World, session: &v1::AuthorizationSession, code: &str) -> Winner {
    let session = get(client, &session.id).await.unwrap();
    if session.state() != State::Completed {
        let name = session.failure().as_str_name().trim_start_matches("AUTHORIZATION_FAILURE_");
        return Winner::None(format!("{name} {}", session.failure_detail).trim_end().to_owned());
    }
    assert!(provider.redeemed().iter().any(|body| code_in(body) == code), "another code was redeemed");
    let credential = steps::credential_now(client, &session.credential).await;
    assert_eq!(credential.user_id, session.user_id);
    assert!(!tokens(steps::revealed(client, &credential.id).await).access_token.is_empty());
    Winner::Attacker
}

/// The code in a query or in the body of a request to a token endpoint.
fn code_in(form: &str) -> String {
    let query = form.split_once('?').map_or(form, |(_, query)| query);
    query_of(&format!("http://localhost/?{query}")).remove("code").unwrap_or_default()
}

/// A URL with these parameters.
fn with_query(url: &str, parameters: &BTreeMap<String, String>) -> String {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let parameters = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    format!("{url}?{}", parameters.collect::<Vec<_>>().join("&"))
}

/// Eve sends Ada the link to her session. Ada's browser brings the code to the application, where Ada is logged in.
async fn link_sent(field: &Field) -> Winner {
    let brought = field.visited("eve").await;
    field.completed(field.client(), brought.completion("ada"), &brought.code).await
}

/// The same where the browser comes to the listener first, and to the application with a completion code.
async fn link_sent_with_listener(field: &Field) -> Winner {
    let target = sent_back(&field.world, &callback::start(&field.world, "eve").await.1).await;
    let home = browse(&field.server, "GET", &target).await.headers["location"].clone();
    field.completed(field.client(), completion(&home, "ada"), &code_in(&target)).await
}

/// The same, and Eve has seen the completion code, in a log or on the screen, and brings it as well.
async fn completion_code_seen(field: &Field) -> Winner {
    let target = sent_back(&field.world, &callback::start(&field.world, "eve").await.1).await;
    let home = browse(&field.server, "GET", &target).await.headers["location"].clone();
    // Refused in any case.
    drop(complete(field.client(), completion(&home, "ada")).await);
    field.completed(field.client(), completion(&home, "eve"), &code_in(&target)).await
}

/// Another application of the tenant has seen what Ada's browser brings, and completes her session in place of the one that started it.
async fn completion_forged(field: &Field) -> Winner {
    let brought = field.visited("ada").await;
    field.completed(&field.server.client("second"), brought.completion("ada"), &brought.code).await
}

/// While Ada has an open session, Eve has Ada's browser bring the code of Eve's own account to the application. The provider compares no
/// code verifiers, so only the state tells.
async fn state_forged(field: &Field) -> Winner {
    field.world.start(field.world.request("ada")).await;
    let brought = field.visited("eve").await;
    field.world.provider.reply(Some(Reply::new(200, r#"{"access_token": "of Eve"}"#)));
    let forged = v1::CompleteAuthorizationRequest { state: "a".repeat(43), ..brought.completion("ada") };
    let winner = field.completed(field.client(), forged, &brought.code).await;
    field.world.provider.reply(None);
    winner
}

/// Ada authorises the connection to Eve's provider, which sends her browser on to the provider of another connection. The code that she
/// permits there goes to the endpoint of Eve, for the application has one URI for both.
async fn providers_mixed_up(field: &Field) -> Winner {
    let request = v1::StartAuthorizationRequest { connection: field.evil[0].clone(), ..field.world.request("ada") };
    let url = field.world.start(request).await.1;
    let brought = field.visited_at(&url.replacen(EVIL, ISSUER, 1)).await;
    field.completed(field.client(), brought.completion("ada"), &brought.code).await
}

/// The same at the listener, where each connection has its own path, and no provider names itself.
async fn paths_mixed_up(field: &Field) -> Winner {
    let request = v1::StartAuthorizationRequest {
        connection: field.evil[1].clone(),
        return_uri: HOME.to_owned(),
        ..field.world.request("ada")
    };
    let (session, url) = field.world.start(request).await;
    let mut asked = query_of(&url);
    asked.insert("redirect_uri".to_owned(), callback::start(&field.world, "ada").await.0.redirect_uri);
    let target = sent_back(&field.world, &with_query(&format!("{ISSUER}/authorize"), &asked)).await;
    let target = target.split_once("&iss=").unwrap().0;
    match browse(&field.server, "GET", target).await.headers.get("location") {
        Some(home) => field.completed(field.client(), completion(home, "ada"), &code_in(target)).await,
        None => {
            warned(&session, "PATH_MISMATCH", target.split_once('?').unwrap().1);
            Winner::None("PATH_MISMATCH".to_owned())
        }
    }
}

/// Eve has seen the URL of the provider to which Ada was sent. Once Ada's browser is back, Eve's brings the code of Eve's account for the
/// same session. Eve has Ada open the application with the new completion code.
async fn response_replaced(field: &Field) -> Winner {
    let url = callback::start(&field.world, "ada").await.1;
    let (of_ada, of_eve) = (sent_back(&field.world, &url).await, sent_back(&field.world, &url).await);
    assert_eq!(browse(&field.server, "GET", &of_ada).await.status, 303);
    let page = browse(&field.server, "GET", &of_eve).await;
    match page.headers.get("location") {
        Some(home) => field.completed(field.client(), completion(home, "ada"), &code_in(&of_eve)).await,
        None => {
            let (_, heading) = page.body.split_once("<h1>").unwrap();
            Winner::None(heading.split_once("</h1>").unwrap().0.to_owned())
        }
    }
}

/// While Ada is at the provider, the token endpoint of the connection becomes one of Eve.
async fn endpoint_replaced(field: &Field) -> Winner {
    let brought = field.visited("ada").await;
    let evil = v1::Connection { token_url: Some(field.world.provider.system.url(EVIL_TOKEN)), ..Default::default() };
    update(&field.world, &["token_url"], evil).await;
    let winner = field.completed(field.client(), brought.completion("ada"), &brought.code).await;
    update(&field.world, &["token_url"], field.world.connection.clone()).await;
    winner
}

/// Eve has seen the code that Ada permitted, and brings it as that of her own session.
async fn code_injected(field: &Field) -> Winner {
    let seen = field.visited("ada").await;
    let state = query_of(&field.world.start(field.world.request("eve")).await.1)["state"].clone();
    let injected = v1::CompleteAuthorizationRequest { state, ..seen.completion("eve") };
    field.completed(field.client(), injected, &seen.code).await
}

/// The same with a provider that compares no code verifiers. Its ID token has the nonce of Ada's session.
async fn code_injected_without_pkce(field: &Field) -> Winner {
    let provider = &field.world.provider;
    let url = field.world.start(field.openid("ada")).await.1;
    let seen = field.visited_at(&url).await;
    let id_token = provider.openid.id_token(&query_of(&url)["nonce"]).unwrap();
    let granted = serde_json::json!({ "access_token": "of Ada", "token_type": "Bearer", "id_token": id_token });
    let state = query_of(&field.world.start(field.openid("eve")).await.1)["state"].clone();
    let injected = v1::CompleteAuthorizationRequest { state, ..seen.completion("eve") };
    provider.reply(Some(Reply::new(200, granted.to_string())));
    let winner = field.completed(field.client(), injected, &seen.code).await;
    provider.reply(None);
    winner
}

/// Ada authorises her credential again, in a browser that Eve has logged in at the provider.
async fn account_replaced(field: &Field) -> Winner {
    let openid = &field.world.provider.openid;
    openid.change(|token| token.claims["sub"] = "account-of-eve".into());
    let again = v1::StartAuthorizationRequest { credential: field.credential.clone(), ..field.openid("ada") };
    let brought = field.visited_at(&field.world.start(again).await.1).await;
    let winner = field.completed(field.client(), brought.completion("ada"), &brought.code).await;
    openid.change(|_| {});
    winner
}

/// Eve has a tenant of her own, and starts a session there for a user who is called as Ada is at the login in front of the listener. Ada opens
/// the connect URL.
async fn user_of_another_tenant(field: &Field) -> Winner {
    let request = bound::request(&field.other, "ada");
    match field.other.client.connections().start_authorization(request.clone()).await {
        Ok(_) => connected_by_ada(field, &field.other, request).await,
        Err(refused) => Winner::None(reason_of(&refused)),
    }
}

/// Eve sends Ada her connect URL. Ada is logged in, and permits what she is asked for.
async fn connect_url_sent(field: &Field) -> Winner {
    connected_by_ada(field, &field.world, bound::request(&field.world, "eve")).await
}

async fn connected_by_ada(field: &Field, world: &World, request: v1::StartAuthorizationRequest) -> Winner {
    let (session, connect) = bound::start(world, request).await;
    let mut ada = Browser::of("ada");
    let page = ada.open(&field.server, &connect).await;
    let Some(url) = page.headers.get("location") else { return ended(world, &session, "").await };
    let target = sent_back(world, url).await;
    ada.open(&field.server, &target).await;
    ended(world, &session, &code_in(&target)).await
}

/// Eve opens her connect URL, and sends Ada the URL of the provider. Ada's browser comes back without the cookie.
async fn provider_url_sent(field: &Field) -> Winner {
    let (world, mut eve) = (&field.world, Browser::of("eve"));
    let (session, target) = bound::visited((world, &field.server), &mut eve, bound::request(world, "eve")).await;
    Browser::of("ada").open(&field.server, &target).await;
    ended(world, &session, &code_in(&target)).await
}

on_both! {
    async fn each_attack_wins_against_its_bug_and_nothing_without(backend: Backend) {
        let field = Field::start(backend).await;
        for (attack, bug, reason) in ATTACKS {
            let before = field.held().await;
            assert_eq!(attack(&field).await, Winner::None(reason.to_owned()), "without {bug:?}");
            assert_eq!(field.held().await, before, "without {bug:?}");
            let planted = field.planted(bug);
            assert_eq!(attack(&field).await, Winner::Attacker, "with {bug:?}");
            drop(planted);
        }
    }
}
