//! Issuers of OpenID Connect: what they publish, and what is believed of their ID tokens.

mod endpoints;
mod profile;
mod signer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{Secret, Timestamp};
use jackfield_upstream::client::{Client, Deadline};
use jackfield_upstream::clients::ClientId;
use jackfield_upstream::egress::Policy;
use jackfield_upstream::oidc::{
    Discovery, DocumentFault, Fetcher, IdTokenClaims, IdTokenFault, IdTokenRules, IdTokenUse, KeySets, ProfileFault,
    ProfileNeed, fetch_profile,
};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::signer::{Signer, sign_by_secret};
use crate::pki::Authority;
use crate::server::{Peer, Server, header};
use crate::support::{Answers, client, client_id, definition, development, network, url};

/// An issuer, a connection that trusts it, and what the connection keeps.
struct Issuer {
    authority: Authority,
    site: Arc<Site>,
    server: Server,
    client: Client,
    id: ClientId,
    keys: KeySets,
    discovery: Discovery,
}

/// The pages of the issuer.
#[derive(Default)]
struct Site {
    /// Status, headers and body, by path.
    pages: Mutex<HashMap<String, (u16, String, String)>>,
    requests: Mutex<Vec<String>>,
    /// Pages are held back until it is notified.
    held: Mutex<Option<Arc<Notify>>>,
}

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const SECONDS: i64 = 1_800_000_000;
const JWKS: &str = "/jwks";
const CONFIGURATION: &str = "/.well-known/openid-configuration";

// === impl Site ===

impl Site {
    fn put(&self, path: &str, status: u16, headers: &str, body: impl ToString) {
        let page = (status, headers.to_owned(), body.to_string());
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// The requests for a path.
    fn asked(&self, path: &str) -> usize {
        let line = format!("GET {path} ");
        self.requests.lock().unwrap().iter().filter(|request| request.starts_with(&line)).count()
    }

    async fn serve(self: Arc<Self>, mut peer: Peer) {
        while let Some(request) = peer.request().await {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            self.requests.lock().unwrap().push(request);
            let held = self.held.lock().unwrap().clone();
            if let Some(held) = held {
                held.notified().await;
            }
            let page = self.pages.lock().unwrap().get(&path).cloned();
            let (status, headers, body) = page.unwrap_or_else(|| (404, String::new(), String::new()));
            peer.send(format!("HTTP/1.1 {status} S\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())).await;
        }
    }
}

// === impl Issuer ===

impl Issuer {
    async fn start(signers: &[&Signer]) -> Self {
        let authority = Authority::new("authority");
        let site = Arc::<Site>::default();
        let served = site.clone();
        let server = Server::tls(authority.server("localhost", None), move |peer| served.clone().serve(peer)).await;
        let mut definition = definition(&format!("https://localhost:{}", server.port()));
        definition.trust = authority.trust();
        definition.timeouts.read = Duration::from_secs(5);
        let client = client(development(), definition);
        let (keys, discovery) = (KeySets::new(10), Discovery::new(10));
        let issuer = Issuer { authority, site, server, client, id: client_id(), keys, discovery };
        issuer.publish(signers);
        issuer
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.port())
    }

    fn jwks_uri(&self) -> HttpUrl {
        url(&self.url(JWKS))
    }

    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.site.put(JWKS, 200, "", json!({ "keys": keys }));
    }

    fn document(&self) -> Value {
        json!({
            "issuer": self.url(""),
            "authorization_endpoint": self.url("/authorize"),
            "token_endpoint": self.url("/token"),
            "jwks_uri": self.url(JWKS),
        })
    }

    fn fetcher(&self, seconds: f64) -> Fetcher<'_> {
        let now = NOW.plus_micros((seconds * 1e6) as i64);
        Fetcher { client: &self.client, id: self.id, now, deadline: None }
    }

    fn claims(&self) -> Value {
        json!({ "iss": self.url(""), "sub": "u1", "aud": "c1", "exp": SECONDS + 36_000, "iat": SECONDS - 5 })
    }

    fn sign(&self, signer: &Signer) -> String {
        signer.sign(&self.claims())
    }

    /// Validates a token some seconds from now.
    async fn validate_at(&self, token: &str, seconds: f64) -> Result<IdTokenClaims, IdTokenFault> {
        let (issuer, used_for) = (&*self.url(""), IdTokenUse::Refresh { subject: "u1", nonce: None });
        let fetcher = self.fetcher(seconds);
        let time = fetcher.now;
        let rules = IdTokenRules { issuer, client_id: "c1", algorithms: None, used_for, access_token: None, time };
        let token = Secret::new(token.to_owned());
        rules.validate(&token, &self.keys, &self.jwks_uri(), &fetcher).await
    }

    async fn validate(&self, token: &str) -> Result<IdTokenClaims, IdTokenFault> {
        self.validate_at(token, 0.0).await
    }

    async fn discover_at(&self, seconds: f64) -> Result<String, DocumentFault> {
        let metadata = self.discovery.metadata(&self.fetcher(seconds), &self.url("")).await?;
        Ok(metadata.jwks_uri.as_str().to_owned())
    }
}

#[tokio::test]
async fn metadata_is_kept_for_an_hour() {
    let issuer = Issuer::start(&[]).await;
    issuer.site.put(CONFIGURATION, 200, "", issuer.document());
    assert_eq!(issuer.discover_at(0.0).await.as_deref(), Ok(&*issuer.url(JWKS)));
    issuer.site.put(CONFIGURATION, 503, "", "");
    assert!(issuer.discover_at(3_599.9).await.is_ok());
    assert_eq!(issuer.site.asked(CONFIGURATION), 1);
    assert_eq!(issuer.discover_at(3_600.0).await, Err(DocumentFault::Status(http::StatusCode::SERVICE_UNAVAILABLE)));
    // An issuer with a slash at its end is another one with the same document.
    let slash = format!("{}/", issuer.url(""));
    let fetcher = issuer.fetcher(1.0);
    assert_eq!(issuer.discovery.metadata(&fetcher, &slash).await.err(), Some(DocumentFault::IssuerMismatch));
    issuer.discovery.remove(issuer.id);
    assert!(issuer.discover_at(1.0).await.is_err(), "it is asked again");
    assert_eq!(issuer.site.asked(CONFIGURATION), 3);
}

#[tokio::test]
async fn unusable_metadata_is_not_kept() {
    let issuer = Issuer::start(&[]).await;
    let document = |changes: Value| {
        let mut document = issuer.document();
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        document.to_string()
    };
    let large = document(json!({ "more": "x".repeat(300 * 1024) }));
    let pages = [
        (200, "", document(json!({ "issuer": "https://evil.example" })), "ISSUER_MISMATCH"),
        (200, "", document(json!({ "issuer": format!("{}/", issuer.url("")) })), "ISSUER_MISMATCH"),
        (200, "", document(json!({ "jwks_uri": null })), "FIELD_INVALID"),
        (200, "", document(json!({ "token_endpoint": "http://id.example/token" })), "FIELD_INVALID"),
        (200, "content-type: text/html\r\n", "<!doctype html>".to_owned(), "BODY_MALFORMED"),
        (200, "", "x".repeat(10 * 1024 * 1024), "BODY_TOO_LARGE"),
        (200, "", large, "BODY_TOO_LARGE"),
        (404, "", document(json!({})), "STATUS_UNEXPECTED"),
        (302, "location: /elsewhere\r\n", document(json!({})), "STATUS_UNEXPECTED"),
    ];
    let mut seconds = 0.0;
    for (count, (status, headers, body, expected)) in pages.into_iter().enumerate() {
        issuer.site.put(CONFIGURATION, status, headers, body);
        let fault = issuer.discover_at(seconds).await.unwrap_err();
        assert_eq!(fault.reason(), expected);
        // It is not asked again at once.
        issuer.site.put(CONFIGURATION, 200, "", issuer.document());
        assert_eq!(issuer.discover_at(seconds + 4.9).await, Err(fault));
        assert_eq!(issuer.site.asked(CONFIGURATION), count + 1);
        seconds += 5.0;
    }
    assert!(issuer.discover_at(seconds).await.is_ok());
    assert_eq!(issuer.site.asked("/elsewhere"), 0);
}

#[tokio::test]
async fn tokens_of_all_algorithms_are_validated() {
    let algorithms = [
        ("a", Algorithm::RS256),
        ("b", Algorithm::PS256),
        ("c", Algorithm::RS512),
        ("d", Algorithm::ES256),
        ("e", Algorithm::ES384),
        ("f", Algorithm::EdDSA),
    ];
    let signers = algorithms.map(|(kid, algorithm)| Signer::new(kid, algorithm));
    let issuer = Issuer::start(&signers.each_ref()).await;
    for signer in &signers {
        let token = issuer.sign(signer);
        assert_eq!(issuer.validate(&token).await.unwrap().subject, "u1", "{}", signer.algorithm());
        // The signature is that of other claims.
        let (_, signature) = token.rsplit_once('.').unwrap();
        let mut claims = issuer.claims();
        claims["email"] = "admin@a.example".into();
        let forged = signer.sign(&claims);
        let forged = format!("{}.{signature}", forged.rsplit_once('.').unwrap().0);
        assert_eq!(issuer.validate(&forged).await, Err(IdTokenFault::SignatureWrong), "{}", signer.algorithm());
    }
    // A key signs by the algorithm of its kind alone.
    let confused = signers[3].sign_with(&json!({ "alg": "RS256", "kid": "d" }), &issuer.claims());
    assert_eq!(issuer.validate(&confused).await, Err(IdTokenFault::UnknownKey));
    assert_eq!(issuer.site.asked(JWKS), 2);
}

#[tokio::test]
async fn what_anyone_can_sign_is_refused() {
    let signer = Signer::new("k1", Algorithm::RS256);
    let issuer = Issuer::start(&[&signer]).await;
    let claims = issuer.claims();
    let public = signer.jwk().to_string();
    for header in [json!({ "alg": "HS256", "kid": "k1" }), json!({ "alg": "hs256" }), json!({ "alg": "none" })] {
        let token = sign_by_secret(public.as_bytes(), &header, &claims);
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        for token in [token, unsigned] {
            assert_eq!(issuer.validate(&token).await, Err(IdTokenFault::AlgorithmRefused), "{header}");
        }
    }
    assert_eq!(issuer.site.asked(JWKS), 0, "no keys are needed for that");
    // A key that the token itself brings is none.
    let thief = Signer::new("k2", Algorithm::ES256);
    issuer.site.put("/thief", 200, "", json!({ "keys": [thief.jwk()] }));
    let header =
        json!({ "alg": "ES256", "jwk": thief.jwk(), "jku": issuer.url("/thief"), "x5u": issuer.url("/thief") });
    assert_eq!(issuer.validate(&thief.sign_with(&header, &claims)).await, Err(IdTokenFault::UnknownKey));
    let impostor = Signer::new("k1", Algorithm::RS256);
    assert_eq!(issuer.validate(&issuer.sign(&impostor)).await, Err(IdTokenFault::SignatureWrong));
    let unsigned = issuer.sign(&signer).rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(issuer.validate(&unsigned).await, Err(IdTokenFault::SignatureWrong));
    let mut elsewhere = claims;
    elsewhere["iss"] = "https://evil.example".into();
    assert_eq!(issuer.validate(&signer.sign(&elsewhere)).await, Err(IdTokenFault::WrongIssuer));
    assert_eq!(issuer.site.asked("/thief"), 0);
    assert!(issuer.validate(&issuer.sign(&signer)).await.is_ok());
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_has_it() {
    let [old, new, newest] = ["k1", "k2", "k3"].map(|kid| Signer::new(kid, Algorithm::ES256));
    let issuer = Issuer::start(&[&old]).await;
    assert!(issuer.validate(&issuer.sign(&old)).await.is_ok());
    issuer.publish(&[&old, &new]);
    let token = issuer.sign(&new);
    let outcomes = join_all((0..20).map(|_| issuer.validate_at(&token, 1.0))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(issuer.validate_at(&issuer.sign(&old), 1.0).await.is_ok());
    assert_eq!(issuer.site.asked(JWKS), 2);
    // A withdrawn key is not trusted for more than an hour.
    issuer.publish(&[&newest]);
    assert_eq!(issuer.validate_at(&issuer.sign(&newest), 30.9).await, Err(IdTokenFault::UnknownKey), "too early");
    assert!(issuer.validate_at(&issuer.sign(&old), 3_600.9).await.is_ok());
    assert_eq!(issuer.validate_at(&issuer.sign(&old), 3_601.0).await, Err(IdTokenFault::UnknownKey));
    assert!(issuer.validate_at(&issuer.sign(&newest), 3_601.0).await.is_ok());
}

#[tokio::test]
async fn a_flood_of_unknown_keys_fetches_little() {
    let (known, unknown) = (Signer::new("k1", Algorithm::ES256), Signer::new("x", Algorithm::ES256));
    let issuer = Issuer::start(&[&known]).await;
    let flood = |seconds: f64| {
        let tokens = (0..100)
            .map(|number| unknown.sign_with(&json!({ "alg": "ES256", "kid": format!("x{number}") }), &issuer.claims()));
        let tokens: Vec<String> = tokens.collect();
        let issuer = &issuer;
        async move { join_all(tokens.iter().map(|token| issuer.validate_at(token, seconds))).await }
    };
    for (seconds, fetches) in [(0.0, 2), (29.9, 2), (30.0, 3), (59.9, 3), (60.0, 4)] {
        for outcome in flood(seconds).await {
            assert_eq!(outcome, Err(IdTokenFault::UnknownKey));
        }
        assert_eq!(issuer.site.asked(JWKS), fetches, "{seconds}");
    }
    assert!(issuer.validate_at(&issuer.sign(&known), 60.0).await.is_ok());
    assert_eq!(issuer.site.asked(JWKS), 4);
}

#[tokio::test]
async fn many_tokens_at_once_fetch_the_keys_once() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    let token = issuer.sign(&signer);
    let outcomes = join_all((0..50).map(|_| issuer.validate(&token))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(issuer.site.asked(JWKS), 1);
    // Another connection has keys of its own.
    let other = Issuer { id: client_id(), ..issuer };
    assert!(other.validate(&token).await.is_ok());
    assert_eq!(other.site.asked(JWKS), 2);
    other.keys.remove(other.id);
    assert!(other.validate(&token).await.is_ok());
    assert_eq!(other.site.asked(JWKS), 3);
    other.keys.remove_tenant(other.id.0);
    assert!(other.validate(&token).await.is_ok());
    assert_eq!(other.site.asked(JWKS), 4);
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_hold_up_others() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    let token = issuer.sign(&signer);
    let held = Arc::new(Notify::new());
    *issuer.site.held.lock().unwrap() = Some(held.clone());
    let first = issuer.validate(&token);
    let begun = async {
        while issuer.site.asked(JWKS) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = first => panic!("it is held back: {outcome:?}"),
        () = begun => {}
    }
    *issuer.site.held.lock().unwrap() = None;
    assert!(issuer.validate(&token).await.is_ok());
    held.notify_waiters();
}

#[tokio::test]
async fn a_caller_that_stops_waiting_says_nothing_about_the_issuer() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    *issuer.site.held.lock().unwrap() = Some(Arc::default());
    let (name, used_for) = (issuer.url(""), IdTokenUse::LogIn { nonce: None });
    let rules =
        IdTokenRules { issuer: &name, client_id: "c1", algorithms: None, used_for, access_token: None, time: NOW };
    let (token, keys_url) = (Secret::new(issuer.sign(&signer)), issuer.jwks_uri());
    let deadline = Some(Deadline::Caller(Instant::now() + Duration::from_millis(100)));
    let fetcher = Fetcher { deadline, ..issuer.fetcher(0.0) };
    let impatient = async || match rules.validate(&token, &issuer.keys, &keys_url, &fetcher).await {
        Err(IdTokenFault::KeysUnreachable(fault)) => assert_eq!(fault.reason(), "CALLER_TIMEOUT"),
        outcome => panic!("{outcome:?}"),
    };
    // Once it fetches itself, and once it waits for another one that does.
    impatient().await;
    tokio::select! {
        biased;
        outcome = issuer.validate(token.expose()) => panic!("it is held back: {outcome:?}"),
        () = impatient() => {}
    }
    *issuer.site.held.lock().unwrap() = None;
    assert!(issuer.validate(token.expose()).await.is_ok());
}

#[tokio::test]
async fn keys_that_cannot_be_had_have_a_fault_of_their_own() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    let token = issuer.sign(&signer);
    let mut changed = issuer.claims();
    changed["sub"] = "u2".into();
    let mut seconds = 0.0;
    for (status, body, expected) in [
        (500, "{}".to_owned(), "STATUS_UNEXPECTED"),
        (301, "{}".to_owned(), "STATUS_UNEXPECTED"),
        (200, "<!doctype html>".to_owned(), "BODY_MALFORMED"),
        (200, "[]".to_owned(), "BODY_MALFORMED"),
        (200, format!(r#"{{"keys": [{}]}}"#, "1,".repeat(5 * 1024 * 1024)), "BODY_TOO_LARGE"),
    ] {
        issuer.site.put(JWKS, status, "", body);
        match issuer.validate_at(&token, seconds).await {
            Err(IdTokenFault::KeysUnreachable(fault)) => assert_eq!(fault.reason(), expected),
            outcome => panic!("{outcome:?}"),
        }
        // Without keys it is still found that the user is another one.
        let outcome = issuer.validate_at(&signer.sign(&changed), seconds).await;
        assert_eq!(outcome, Err(IdTokenFault::SubjectChanged));
        seconds += 5.0;
    }
    assert_eq!(issuer.site.asked(JWKS), 5);
    issuer.publish(&[&signer]);
    assert!(issuer.validate_at(&token, seconds).await.is_ok());
    // Keys that are known are good as long as they are not too old, whatever becomes of the issuer.
    issuer.site.put(JWKS, 500, "", "");
    let unknown = Signer::new("k2", Algorithm::ES256);
    let outcome = issuer.validate_at(&issuer.sign(&unknown), seconds).await;
    assert!(matches!(outcome, Err(IdTokenFault::KeysUnreachable(_))), "{outcome:?}");
    assert!(issuer.validate_at(&token, seconds).await.is_ok());
    assert_eq!(issuer.validate_at(&issuer.sign(&unknown), seconds + 29.0).await, Err(IdTokenFault::UnknownKey));
    let outcome = issuer.validate_at(&token, seconds + 3_600.0).await;
    assert!(matches!(outcome, Err(IdTokenFault::KeysUnreachable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_key_without_a_name_may_change() {
    let [mut old, mut new] = [Signer::new("", Algorithm::EdDSA), Signer::new("", Algorithm::EdDSA)];
    (old.kid, new.kid) = (None, None);
    let issuer = Issuer::start(&[&old]).await;
    assert!(issuer.validate(&issuer.sign(&old)).await.is_ok());
    issuer.publish(&[&new]);
    assert!(issuer.validate_at(&issuer.sign(&new), 1.0).await.is_ok());
    assert_eq!(issuer.validate_at(&issuer.sign(&old), 2.0).await, Err(IdTokenFault::SignatureWrong));
    assert_eq!(issuer.site.asked(JWKS), 2);
    issuer.publish(&[&old, &new]);
    assert_eq!(issuer.validate_at(&issuer.sign(&old), 31.0).await, Err(IdTokenFault::UnknownKey), "two could be meant");
}

#[tokio::test]
async fn the_egress_policy_holds_for_what_an_issuer_names() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let issuer = Issuer::start(&[&signer]).await;
    let origin = format!("https://localhost:{}", issuer.server.port());
    let client = client(network(Policy::default(), Answers::of(&["127.0.0.1"])), definition(&origin));
    let fetcher = Fetcher { client: &client, ..issuer.fetcher(0.0) };
    let (used_for, token) = (IdTokenUse::LogIn { nonce: None }, Secret::new(issuer.sign(&signer)));
    let name = issuer.url("");
    let rules =
        IdTokenRules { issuer: &name, client_id: "c1", algorithms: None, used_for, access_token: None, time: NOW };
    for inside in ["https://169.254.169.254/jwks", "https://10.0.0.1/jwks", "https://keys.example/jwks"] {
        match rules.validate(&token, &issuer.keys, &url(inside), &fetcher).await {
            Err(IdTokenFault::KeysUnreachable(fault)) => assert_eq!(fault.reason(), "EGRESS_REFUSED", "{inside}"),
            outcome => panic!("{inside}: {outcome:?}"),
        }
    }
    assert_eq!(issuer.server.accepted(), 0);
}

#[tokio::test]
async fn a_profile_is_that_of_the_owner_of_the_token() {
    let issuer = Issuer::start(&[]).await;
    let (address, access_token) = (url(&issuer.url("/me")), Secret::new("access-1".to_owned()));
    let me = (&address, ProfileNeed::Required);
    let fetch = async |subject| fetch_profile(&issuer.fetcher(0.0), me, &access_token, subject).await;
    issuer.site.put("/me", 200, "", json!({ "sub": "u1", "login": "ada" }));
    let profile = fetch(Some("u1")).await.unwrap();
    assert_eq!(profile.0["login"], "ada");
    assert!(!format!("{profile:?}").contains("ada"));
    assert_eq!(header(&issuer.site.requests.lock().unwrap()[0], "authorization"), Some("Bearer access-1"));
    assert_eq!(fetch(Some("u2")).await, Err(ProfileFault::SubjectWrong));
    issuer.site.put("/me", 200, "", json!({ "id": 583_231 }));
    assert_eq!(fetch(Some("u1")).await, Err(ProfileFault::SubjectWrong));
    assert_eq!(fetch(None).await.unwrap().0["id"], 583_231);
    for (status, body, expected) in [
        (401, "{}", "STATUS_UNEXPECTED"),
        (307, "{}", "STATUS_UNEXPECTED"),
        (200, "<html>", "BODY_MALFORMED"),
        (200, r#"["u1"]"#, "BODY_MALFORMED"),
        (200, r#"{"sub": "u1", "email_verified": false, "email_verified": true}"#, "BODY_MALFORMED"),
        (200, "eyJhbGciOiJub25lIn0.e30.", "BODY_MALFORMED"),
    ] {
        issuer.site.put("/me", status, "location: /elsewhere\r\n", body);
        assert_eq!(fetch(None).await.unwrap_err().reason(), expected, "{body}");
    }
    assert_eq!(issuer.site.asked("/elsewhere"), 0);
    let broken = Secret::new("a\r\nb".to_owned());
    let outcome = fetch_profile(&issuer.fetcher(0.0), me, &broken, None).await;
    assert_eq!(outcome, Err(ProfileFault::AccessTokenUnusable));
}
