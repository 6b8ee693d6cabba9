//! The secrets of authorisations: those that a browser brings back, and those that the server makes.

use jackfield_api::v1;
use jackfield_testkit::oauth::query_of;
use jackfield_testkit::{Canary, Reply, TestServer};
use prost::Message as _;
use tonic::Code;

use super::raw::call;
use super::sown::Sown;
use crate::authorization::callback::{browse, browse_with};
use crate::authorization::device::ended;
use crate::authorization::{BACK, World, complete, get};

const HOME: &str = "https://app.example/home";
const ISSUER: &str = "https://as.example.com";

/// Authorises a user with a device code, and another one not to the end.
async fn by_device(world: &World, tokens: &serde_json::Value, planted: &mut impl FnMut(&str) -> String) {
    for (step, is_completed) in [(0, true), (1, false)] {
        let (device_code, user_code) =
            (planted(&format!("device code {step}")), planted(&format!("code of the user {step}")));
        let codes = serde_json::json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": "https://as.example.com/device",
            "verification_uri_complete": format!("https://as.example.com/device?user_code={user_code}"),
            "expires_in": 600,
            "interval": 1,
        });
        world.provider.reply(Some(Reply::new(200, codes.to_string())));
        let scopes = vec!["read".to_owned()];
        let request = v1::StartAuthorizationRequest {
            completion_mode: v1::CompletionMode::Device.into(),
            scopes,
            ..world.request("ada")
        };
        let begun = world.client.connections().start_authorization(request).await.unwrap().into_inner();
        assert_eq!(begun.user_code, user_code);
        let reply = match is_completed {
            true => Reply::new(200, tokens.to_string()),
            false => Reply::new(400, "{\"error\": \"authorization_pending\"}"),
        };
        world.provider.reply(Some(reply));
        if is_completed {
            let completed = ended(&world.client, &begun.authorization.unwrap().id).await;
            assert_eq!(completed.state(), v1::AuthorizationState::Completed, "{completed:?}");
        }
    }
}

/// Authorises a user in the browser that opened the connect URL, and another one not to the end.
async fn in_a_browser(
    (world, server): (&World, &TestServer),
    tokens: &serde_json::Value,
    planted: &mut impl FnMut(&str) -> String,
    made: &mut Vec<(String, Vec<u8>)>,
) {
    for (step, is_completed) in [(0, true), (1, false)] {
        let scopes = vec!["read".to_owned()];
        let request = v1::StartAuthorizationRequest {
            completion_mode: v1::CompletionMode::CookieBound.into(),
            scopes,
            ..world.request("ada")
        };
        let (session, url) = world.start(request).await;
        let connect = url.strip_prefix("http://localhost").unwrap();
        let first = browse_with(server, "GET", connect, &[("x-user", "ada")]).await;
        let cookie = first.headers["set-cookie"].split_once(';').unwrap().0;
        let page = browse_with(server, "GET", connect, &[("x-user", "ada"), ("cookie", cookie)]).await;
        let state = query_of(&page.headers["location"])["state"].clone();
        if is_completed {
            let code = planted(&format!("code in a browser {step}"));
            world.provider.reply(Some(Reply::new(200, tokens.to_string())));
            let path = session.redirect_uri.strip_prefix("http://localhost").unwrap();
            let target = format!("{path}?state={state}&code={code}&iss={ISSUER}");
            browse_with(server, "GET", &target, &[("cookie", cookie)]).await;
            let completed = get(&world.client, &session.id).await.unwrap();
            assert_eq!(completed.state(), v1::AuthorizationState::Completed, "{completed:?}");
        }
        let value = |pair: &str| pair.split_once('=').unwrap().1.to_owned().into_bytes();
        made.push((format!("the connect token {step}"), value(connect)));
        made.push((format!("the cookie {step}"), value(cookie)));
        made.push((format!("the state in a browser {step}"), state.into_bytes()));
    }
}

/// Configures a callback listener.
pub(super) fn listen(config: &mut jackfield_testkit::Config) {
    config.callback.address = "127.0.0.1:0".to_owned();
    config.callback.public_url = "http://localhost".to_owned();
    config.callback.plaintext = true;
    config.callback.user_header = "x-user".to_owned();
    config.callback.tenant = "alpha".to_owned();
}

/// Authorises users in each way, some of them not to the end. Returns the secrets that were made on the way.
pub(super) async fn authorize(server: &TestServer, sown: &mut Sown) -> Vec<(String, Vec<u8>)> {
    let world = World::with(server, |connection| {
        connection.scope = Some("openid read".to_owned());
        // Addresses are compared, and are stored nowhere.
        connection.linking = v1::LinkingType::Automatic.into();
        connection.return_uris = vec![HOME.to_owned()];
    })
    .await;
    let mut planted = |what: &str| {
        let canary = Canary::new(format!("an authorisation: {what}"));
        sown.canaries.push(canary.clone());
        canary.secret
    };
    let mut tokens = serde_json::json!({
        "access_token": planted("the access token"),
        "refresh_token": planted("the refresh token"),
        "expires_in": 3_600,
    });
    let claim = planted("a claim of the ID token");
    world.provider.openid.change(move |token| {
        token.claims["email"] = format!("{claim}@example.com").into();
        token.claims["email_verified"] = true.into();
    });
    let mut made = Vec::new();
    let mut ids = Vec::new();
    for (step, return_uri, is_completed) in [(0, "", true), (1, HOME, true), (2, "", false), (3, HOME, false)] {
        let redirect_uri = if return_uri.is_empty() { BACK } else { "" }.to_owned();
        let request =
            v1::StartAuthorizationRequest { redirect_uri, return_uri: return_uri.to_owned(), ..world.request("ada") };
        let (session, url) = world.start(request).await;
        let mut asked = query_of(&url);
        let (state, nonce) = (asked.remove("state").unwrap(), asked.remove("nonce").unwrap());
        let code = planted(&format!("code {step}"));
        let mut completion = v1::CompleteAuthorizationRequest { user_id: "ada".to_owned(), ..Default::default() };
        if return_uri.is_empty() {
            (completion.state, completion.code) = (state.clone(), code);
            completion.iss = Some(ISSUER.to_owned());
        } else {
            let path = session.redirect_uri.strip_prefix("http://localhost").unwrap();
            let page = browse(server, "GET", &format!("{path}?state={state}&code={code}&iss={ISSUER}")).await;
            completion.completion_code = query_of(&page.headers["location"])["completion_code"].clone();
            made.push((format!("the completion code {step}"), completion.completion_code.clone().into_bytes()));
        }
        made.push((format!("the state {step}"), state.into_bytes()));
        let id_token = world.provider.openid.id_token(&nonce).unwrap();
        tokens["id_token"] = id_token.as_str().into();
        world.provider.reply(Some(Reply::new(200, tokens.to_string())));
        made.push((format!("the ID token {step}"), id_token.into_bytes()));
        made.push((format!("the nonce {step}"), nonce.into_bytes()));
        if is_completed {
            let completed = complete(&world.client, completion).await.unwrap();
            assert_eq!(completed.state(), v1::AuthorizationState::Completed, "{completed:?}");
        }
        ids.push(session.id);
    }
    in_a_browser((&world, server), &tokens, &mut planted, &mut made).await;
    by_device(&world, &tokens, &mut planted).await;
    let redeemed = world.provider.redeemed();
    for (step, body) in redeemed.iter().filter(|body| body.contains("code_verifier=")).enumerate() {
        let verifier = query_of(&format!("http://localhost/?{body}"))["code_verifier"].clone();
        made.push((format!("the code verifier {step}"), verifier.into_bytes()));
    }
    assert_eq!(made.len(), 3 * 4 + 2 + 2 + 3 * 2 + 1);
    for reference in ids {
        let request = v1::GetAuthorizationRequest { reference }.encode_to_vec();
        let reply = call(&world.client, "jackfield.v1.ConnectionService/GetAuthorization", &request, &[]).await;
        assert_eq!(reply.code, Code::Ok, "{reply:?}");
        sown.replies.push(("GetAuthorization".to_owned(), reply));
    }
    made
}
