use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::form_urlencoded;

use super::*;
use crate::ManualClock;

/// The bytes of the response to a request on a connection of its own: fewer than announced, or none, if the provider closed it.
async fn ask(provider: &Provider, path: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let head = "content-type: application/x-www-form-urlencoded\r\nconnection: close";
    send(provider, &format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await
}

async fn send(provider: &Provider, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(provider.address).await.unwrap();
    let mut response = Vec::new();
    // The provider may close the connection at any time.
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut response).await;
    }
    response
}

/// The status and the members of a response.
fn read(response: &[u8]) -> (u16, Value) {
    let text = std::str::from_utf8(response).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

const CLIENT: [(&str, &str); 2] = [("client_id", "client-1"), ("client_secret", "client-secret-1")];

async fn token(provider: &Provider, parameters: &[(&str, &str)]) -> (u16, Value) {
    read(&ask(provider, "/token", &[&CLIENT, parameters].concat()).await)
}

async fn refresh(provider: &Provider, token: &str) -> Vec<u8> {
    let parameters = [CLIENT[0], CLIENT[1], ("grant_type", "refresh_token"), ("refresh_token", token)];
    ask(provider, "/token", &parameters).await
}

/// The refresh token and the access token of a success.
async fn refreshed(provider: &Provider, token: &str) -> (String, String) {
    let (status, body) = read(&refresh(provider, token).await);
    assert_eq!(status, 200, "{body}");
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (text("refresh_token"), text("access_token"))
}

fn refused(response: &[u8]) -> (u16, String) {
    let (status, body) = read(response);
    (status, body["error"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned())
}

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

#[tokio::test]
async fn a_refresh_rotates_and_a_second_use_ends_the_grant() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let first = provider.grant("ada", &["read"]);
    let other = provider.grant("bob", &["read"]);
    let (second, access) = refreshed(&provider, &first.refresh_token).await;
    let live = provider.live(first.family).unwrap();
    assert_eq!((&live.refresh_token, &live.access_token, live.generation), (&second, &access, 1));
    assert_eq!(provider.accepts(&access), Some((Some(first.family), vec!["read".to_owned()])));
    let (third, _) = refreshed(&provider, &second).await;

    assert_eq!(refused(&refresh(&provider, &first.refresh_token).await), invalid_grant());
    assert_eq!(provider.live(first.family), Err(End::Reuse));
    assert_eq!(refused(&refresh(&provider, &third).await), invalid_grant());
    assert_eq!(provider.accepts(&access), None);
    assert_eq!((provider.exchanges(first.family), provider.reuses(first.family)), (2, 1));
    assert!(provider.live(other.family).is_ok());
    assert_eq!(provider.totals(), ProviderTotals { exchanges: 2, reuses: 1, max_concurrent: 1, ended: 1 });
    assert_eq!(refused(&refresh(&provider, "rt-0-9-x").await), invalid_grant());
}

#[tokio::test]
async fn a_token_is_good_again_within_the_grace() {
    for grace_answer in [GraceAnswer::LivePair, GraceAnswer::NewPair] {
        let (clock, grace) = (ManualClock::at_present(), Duration::from_secs(30));
        let provider =
            Provider::start(ProviderOptions { grace, grace_answer, clock: clock.clone(), ..Default::default() }).await;
        let first = provider.grant("ada", &["read"]);
        let second = refreshed(&provider, &first.refresh_token).await;
        clock.advance(grace - Duration::from_micros(1));
        let again = refreshed(&provider, &first.refresh_token).await;
        assert_eq!(again == second, grace_answer == GraceAnswer::LivePair);
        assert_eq!(provider.live(first.family).unwrap().refresh_token, again.0);
        assert_eq!(provider.reuses(first.family), 0);
        clock.advance(Duration::from_micros(1));
        assert_eq!(refused(&refresh(&provider, &first.refresh_token).await), invalid_grant());
        assert_eq!(provider.live(first.family), Err(End::Reuse));
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_has_its_effect() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let faults = [ProviderFault::answer_lost(), ProviderFault::answer_cut(), ProviderFault::answer_replaced(502)];
    for fault in faults {
        let first = provider.grant("ada", &[]);
        provider.fail([fault]);
        let response = refresh(&provider, &first.refresh_token).await;
        assert!(!String::from_utf8_lossy(&response).ends_with('}'), "{}", String::from_utf8_lossy(&response));
        let live = provider.live(first.family).unwrap();
        assert_eq!((live.generation, provider.exchanges(first.family)), (1, 1));
        assert_eq!(refused(&refresh(&provider, &first.refresh_token).await), invalid_grant());
        assert_eq!(provider.live(first.family), Err(End::Reuse));
    }
}

#[tokio::test]
async fn a_request_that_is_refused_or_unread_has_no_effect() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let issued = provider.grant("ada", &[]);
    let wait = Duration::from_secs(7);
    provider.fail([
        ProviderFault::unread(),
        ProviderFault::too_many(wait),
        ProviderFault::status(503),
        ProviderFault::web_page(),
        ProviderFault::error_with_200("bad_refresh_token"),
        ProviderFault::redirect("http://localhost/elsewhere"),
    ]);
    assert!(refresh(&provider, &issued.refresh_token).await.is_empty());
    let head = |response: Vec<u8>| String::from_utf8(response).unwrap().to_lowercase();
    assert!(head(refresh(&provider, &issued.refresh_token).await).contains("\r\nretry-after: 7\r\n"));
    assert_eq!(read(&refresh(&provider, &issued.refresh_token).await).0, 503);
    assert!(head(refresh(&provider, &issued.refresh_token).await).contains("text/html"));
    assert_eq!(refused(&refresh(&provider, &issued.refresh_token).await), (200, "bad_refresh_token".to_owned()));
    assert!(head(refresh(&provider, &issued.refresh_token).await).contains("\r\nlocation: http://localhost/elsewhere"));
    assert_eq!((provider.live(issued.family).unwrap().generation, provider.requests().len()), (0, 5));
    assert_ne!(refreshed(&provider, &issued.refresh_token).await.0, issued.refresh_token);
}

#[tokio::test]
async fn members_of_an_answer_can_be_any() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let issued = provider.grant("ada", &[]);
    provider.fail([
        ProviderFault::members([("expires_in", json!(-1)), ("token_type", json!("mac")), ("scope", Value::Null)]),
        ProviderFault::nested(),
        ProviderFault::huge(10 * 1024 * 1024),
        ProviderFault::trickle(Duration::ZERO),
    ]);
    let body = read(&refresh(&provider, &issued.refresh_token).await).1;
    assert_eq!((&body["expires_in"], &body["token_type"], body.get("scope")), (&json!(-1), &json!("mac"), None));
    let body = read(&refresh(&provider, body["refresh_token"].as_str().unwrap()).await).1;
    assert_eq!(body["ok"], true);
    let nested = body["authed_user"]["refresh_token"].as_str().unwrap();
    assert!(refresh(&provider, nested).await.len() > 10 * 1024 * 1024);
    let live = provider.live(issued.family).unwrap();
    assert_eq!(live.generation, 3);
    assert_ne!(refreshed(&provider, &live.refresh_token).await.0, live.refresh_token);
}

#[tokio::test]
async fn faults_follow_a_rule_behind_the_queue() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let issued = provider.grant("ada", &[]);
    provider.fail_by(|endpoint, number| match (endpoint, number) {
        (Endpoint::Token, 0 | 1) => ProviderFault::status(500),
        (Endpoint::Revocation, 0) => ProviderFault::status(503),
        _ => ProviderFault::none(),
    });
    provider.fail([ProviderFault::status(429)]);
    for expected in [429, 500, 200] {
        assert_eq!(read(&refresh(&provider, &issued.refresh_token).await).0, expected);
    }
    let live = provider.live(issued.family).unwrap();
    let revocation = [CLIENT[0], CLIENT[1], ("token", &*live.refresh_token)];
    assert_eq!(read(&ask(&provider, "/revoke", &revocation).await).0, 503);
    assert!(provider.live(issued.family).is_ok());
    assert_eq!(read(&ask(&provider, "/revoke", &revocation).await).0, 200);
    assert_eq!(provider.live(issued.family), Err(End::Revoked));
    assert_eq!(read(&ask(&provider, "/revoke", &[CLIENT[0], CLIENT[1], ("token", "x")]).await).0, 200);
}

#[tokio::test]
async fn refreshes_of_a_grant_at_a_time_are_counted() {
    let provider = Provider::start(ProviderOptions { grace: Duration::from_secs(60), ..Default::default() }).await;
    let issued = provider.grant("ada", &[]);
    // The first one is held back until the second one has come.
    provider.fail([ProviderFault::none().delayed(Duration::from_secs(600))]);
    let held = refresh(&provider, &issued.refresh_token);
    let second = async {
        while provider.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        refreshed(&provider, &issued.refresh_token).await
    };
    tokio::select! {
        _ = held => panic!("it is held back"),
        _ = second => {}
    }
    assert_eq!((provider.max_concurrent(issued.family), provider.exchanges(issued.family)), (2, 1));
}

#[tokio::test]
async fn the_client_must_be_the_registered_one() {
    let client_secrets = vec!["a b+c%".to_owned(), "second".to_owned()];
    let provider =
        Provider::start(ProviderOptions { client_secrets: client_secrets.clone(), ..Default::default() }).await;
    let credentials = ("grant_type", "client_credentials");
    for secret in &client_secrets {
        let body = [("client_id", "client-1"), ("client_secret", secret), credentials];
        assert_eq!(read(&ask(&provider, "/token", &body).await).0, 200);
    }
    for body in [
        &[("client_id", "client-1"), ("client_secret", "third"), credentials][..],
        &[("client_id", "client-2"), ("client_secret", "second"), credentials],
        &[("client_id", "client-1"), credentials],
        &[credentials],
    ] {
        assert_eq!(refused(&ask(&provider, "/token", body).await), (401, "invalid_client".to_owned()), "{body:?}");
    }
    // As base64 of "client-1:a+b%2Bc%25", and of the same without the encoding of forms.
    for (header, more, expected) in [
        ("Basic Y2xpZW50LTE6YStiJTJCYyUyNQ==", "", 200),
        ("basic Y2xpZW50LTE6YStiJTJCYyUyNQ==", "&client_id=client-1", 200),
        ("Basic Y2xpZW50LTE6YSBiK2Ml", "", 401),
        ("Basic Y2xpZW50LTE6YStiJTJCYyUyNQ==", "&client_id=client-2", 401),
        ("Basic Y2xpZW50LTE6YStiJTJCYyUyNQ==", "&client_secret=second", 400),
        ("Bearer Y2xpZW50LTE6YStiJTJCYyUyNQ==", "", 401),
    ] {
        let body = format!("grant_type=client_credentials{more}");
        let head = format!("authorization: {header}\r\ncontent-type: application/x-www-form-urlencoded");
        let head = format!("POST /token HTTP/1.1\r\n{head}\r\nconnection: close\r\ncontent-length: {}", body.len());
        assert_eq!(read(&send(&provider, &format!("{head}\r\n\r\n{body}")).await).0, expected, "{header} {more}");
    }
    let authentication = ProviderAuthentication::Basic;
    let provider = Provider::start(ProviderOptions { authentication, ..Default::default() }).await;
    assert_eq!(token(&provider, &[credentials]).await.0, 401);
}

#[tokio::test]
async fn parameters_of_refreshes_follow_the_rules() {
    let options = ProviderOptions {
        scope: ParameterRule::Required,
        resource: ParameterRule::Refused,
        hides_lifetime: true,
        refresh_lifetime: Some(Duration::from_secs(90)),
        rotation: Rotation::Never,
        ..Default::default()
    };
    let provider = Provider::start(options).await;
    let issued = provider.grant("ada", &["read", "write"]);
    let own = [("grant_type", "refresh_token"), ("refresh_token", &*issued.refresh_token)];
    let with = async |more: &[(&str, &str)]| token(&provider, &[&own[..], more].concat()).await;
    assert_eq!(with(&[]).await, (400, json!({ "error": "invalid_request", "error_description": "refused" })));
    assert_eq!(with(&[("scope", "read"), ("resource", "https://a.example")]).await.1["error"], "invalid_target");
    assert_eq!(with(&[("scope", "read admin")]).await.1["error"], "invalid_scope");
    assert_eq!(with(&[("scope", "read"), ("scope", "read")]).await.1["error"], "invalid_request");
    let (status, body) = with(&[("scope", "read")]).await;
    assert_eq!((status, &body["scope"]), (200, &json!("read")));
    assert_eq!((body.get("expires_in"), body.get("refresh_token")), (None, None));
    assert_eq!(provider.live(issued.family).unwrap().refresh_token, issued.refresh_token);
    assert_eq!(with(&[("scope", "write")]).await.0, 200);
    provider.end(issued.family);
    assert_eq!(with(&[("scope", "read")]).await.1["error"], "invalid_grant");
    assert_eq!(provider.live(issued.family), Err(End::Withdrawn));
}

#[tokio::test]
async fn tokens_end() {
    let (clock, day) = (ManualClock::at_present(), Duration::from_secs(24 * 3600));
    let refresh_lifetime = Some(day);
    let provider =
        Provider::start(ProviderOptions { refresh_lifetime, clock: clock.clone(), ..Default::default() }).await;
    let issued = provider.grant("ada", &["read"]);
    assert!(provider.accepts(&issued.access_token).is_some());
    assert_eq!(issued.expire_time, clock.now().plus_micros(3_600_000_000));
    clock.advance(Duration::from_secs(3600));
    assert!(provider.accepts(&issued.access_token).is_none());
    let (status, body) = read(&refresh(&provider, &issued.refresh_token).await);
    assert_eq!((status, &body["expires_in"], &body["refresh_token_expires_in"]), (200, &json!(3600), &json!(86_400)));
    clock.advance(day);
    assert_eq!(refused(&refresh(&provider, body["refresh_token"].as_str().unwrap()).await), invalid_grant());
    assert!(provider.live(issued.family).is_ok());
}

#[tokio::test]
async fn a_code_is_good_once() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let code = provider.code("ada", &["read"], "https://jackfield.example/callback", Some(verifier));
    let redeem = async |redirect_uri: &str, verifier: &str| {
        let grant = [("grant_type", "authorization_code"), ("code", &*code)];
        token(&provider, &[&grant[..], &[("redirect_uri", redirect_uri), ("code_verifier", verifier)]].concat()).await
    };
    let uri = "https://jackfield.example/callback";
    assert_eq!(redeem("https://jackfield.example/other", verifier).await.1["error"], "invalid_grant");
    assert_eq!(redeem(uri, "another-verifier").await.1["error"], "invalid_grant");
    assert_eq!(redeem(uri, "").await.1["error"], "invalid_grant");
    let (status, body) = redeem(uri, verifier).await;
    assert_eq!((status, &body["scope"]), (200, &json!("read")));
    let family = provider.families()[0];
    assert_eq!(provider.live(family).unwrap().refresh_token, body["refresh_token"]);
    assert_eq!(redeem(uri, verifier).await.1["error"], "invalid_grant");
    assert_eq!(provider.live(family), Err(End::Reuse));
}

#[test]
fn a_challenge_is_that_of_the_rfc() {
    let challenge = grants::challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

/// A provider whose decisions are those of `oauth-as`, with a retry window of so many seconds, and its clock.
async fn foreign(seconds: u64) -> (Provider, Arc<ManualClock>) {
    let clock = ManualClock::at_present();
    let options = ProviderOptions {
        server: ProviderServer::OAuthAs,
        grace: Duration::from_secs(seconds),
        clock: Arc::clone(&clock) as _,
        ..Default::default()
    };
    (Provider::start(options).await, clock)
}

#[tokio::test]
async fn oauth_as_ends_a_grant_whose_refresh_token_is_used_after_its_window() {
    for seconds in [0, 30, 30 * 60] {
        let (provider, clock) = foreign(seconds).await;
        let first = provider.grant("ada", &["read"]);
        let other = provider.grant("bob", &["read", "write"]);
        assert_eq!(provider.live(first.family).unwrap().refresh_token, first.refresh_token);
        let (second, access) = refreshed(&provider, &first.refresh_token).await;
        if seconds > 0 {
            clock.advance(Duration::from_secs(seconds - 1));
            assert_eq!(refreshed(&provider, &first.refresh_token).await, (second.clone(), access.clone()));
            clock.advance(Duration::from_secs(1));
        }
        let live = provider.live(first.family).unwrap();
        assert_eq!((live.refresh_token, live.access_token, live.generation), (second.clone(), access, 1));
        assert_eq!((live.user, live.scopes), ("ada".to_owned(), vec!["read".to_owned()]));

        assert_eq!(refused(&refresh(&provider, &first.refresh_token).await), invalid_grant());
        assert_eq!(provider.live(first.family), Err(End::Reuse));
        assert_eq!(refused(&refresh(&provider, &second).await), invalid_grant());
        assert_eq!(provider.family_of(&second), Some(first.family));
        let totals = provider.totals();
        assert_eq!((totals.exchanges, totals.reuses, totals.ended), (1 + usize::from(seconds > 0), 1, 1));
        assert!(provider.live(other.family).is_ok());
    }
}

#[tokio::test]
async fn oauth_as_acts_on_requests_whose_answers_are_lost() {
    let (provider, clock) = foreign(0).await;
    let issued = provider.grant("ada", &["read"]);
    assert_eq!(issued.expire_time, clock.now().plus_micros(3_600_000_000));
    provider.fail([ProviderFault::answer_lost(), ProviderFault::unread()]);
    assert_eq!(refresh(&provider, &issued.refresh_token).await, b"");
    let live = provider.live(issued.family).unwrap();
    assert_eq!((live.generation, provider.family_of(&live.refresh_token)), (1, Some(issued.family)));
    assert_eq!(refresh(&provider, &live.refresh_token).await, b"");
    assert_eq!(provider.live(issued.family).unwrap(), live);
    provider.end(issued.family);
    assert_eq!(provider.live(issued.family), Err(End::Withdrawn));
    assert_eq!(refused(&refresh(&provider, &live.refresh_token).await), invalid_grant());
}
