//! Cookie-bound sessions: only the browser that opened the connect URL completes one, and only its user can open that.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::oauth::query_of;
use jackfield_testkit::{ManualClock, TestServer, expect_status, on_both};
use tonic::{Code, Response};

use super::attacks::warned;
use super::callback::{HOME, Page, browse_with, evil_connection, sent_back, server, world};
use super::{BACK, World, complete, get, issue};
use crate::steps;

/// A browser in which a user is logged in to the application, if there is one.
#[derive(Default)]
pub(super) struct Browser {
    user_id: Option<&'static str>,
    cookies: BTreeMap<String, String>,
}

// === impl Browser ===

impl Browser {
    pub(super) fn of(user_id: &'static str) -> Self {
        Browser { user_id: Some(user_id), ..Default::default() }
    }

    /// The `Cookie` header that it sends.
    pub(super) fn cookie(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Opens a page of the listener, and follows it there.
    pub(super) async fn open(&mut self, server: &TestServer, target: &str) -> Page {
        let page = self.open_one(server, target).await;
        let again = page.headers.get("location").filter(|location| location.starts_with('?'));
        match again.map(|query| format!("{}{query}", target.split('?').next().unwrap())) {
            Some(again) => {
                assert_eq!(again, format!("{}&cookie=1", target.trim_end_matches("&cookie=1")));
                self.open_one(server, &again).await
            }
            None => page,
        }
    }

    /// Opens a page of the listener, and keeps its cookies as a browser does.
    async fn open_one(&mut self, server: &TestServer, target: &str) -> Page {
        let cookies = self.cookie();
        let mut headers = Vec::new();
        headers.extend(self.user_id.map(|user_id| ("x-user", user_id)));
        headers.extend((!cookies.is_empty()).then_some(("cookie", cookies.as_str())));
        let page = browse_with(server, "GET", target, &headers).await;
        if let Some(cookie) = page.headers.get("set-cookie") {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let age = if value.is_empty() { 0 } else { 600 };
            assert_eq!(attributes, format!("Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax"));
            assert!(name.starts_with("__Host-jackfield-") && (value.is_empty() || value.len() == 43), "{cookie}");
            match value.is_empty() {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        page
    }
}

/// A request of a session that comes back to the browser that opened its connect URL.
pub(super) fn request(world: &World, user_id: &str) -> v1::StartAuthorizationRequest {
    v1::StartAuthorizationRequest { completion_mode: v1::CompletionMode::CookieBound.into(), ..world.request(user_id) }
}

/// Starts a session. Returns the path and the query of the connect URL, too.
pub(super) async fn start(world: &World, request: v1::StartAuthorizationRequest) -> (v1::AuthorizationSession, String) {
    let (session, url) = world.start(request).await;
    world.provider.register(&[&session.redirect_uri]).await;
    let target = url.strip_prefix("http://localhost/connect").expect("the listener");
    assert!(target.starts_with("/connect?token=") && query_of(&url)["token"].len() == 43, "{url}");
    (session, target.to_owned())
}

/// Starts a session and has its user go to the provider with a browser. Returns the path and the query with which it comes back.
pub(super) async fn visited(
    (world, server): (&World, &TestServer),
    browser: &mut Browser,
    request: v1::StartAuthorizationRequest,
) -> (v1::AuthorizationSession, String) {
    let (session, connect) = start(world, request).await;
    let page = browser.open(server, &connect).await;
    assert_eq!((page.status, &*page.body), (303, ""));
    (session, sent_back(world, &page.headers["location"]).await)
}

pub(super) async fn ended(world: &World, session: &v1::AuthorizationSession) -> (State, Failure) {
    let session = get(&world.client, &session.id).await.unwrap();
    (session.state(), session.failure())
}

on_both! {
    async fn the_browser_that_opened_the_connect_url_completes_it(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let mut browser = Browser::of("ada");
        for return_uri in ["", HOME] {
            let request = v1::StartAuthorizationRequest { return_uri: return_uri.to_owned(), ..request(&world, "ada") };
            let (session, target) = visited((&world, &server), &mut browser, request).await;
            assert_eq!(session.completion_mode(), v1::CompletionMode::CookieBound);
            assert!(session.return_uri == return_uri && session.state() == State::Started);
            assert_eq!(browser.cookies.len(), 1);
            let page = browser.open(&server, &target).await;
            match return_uri.is_empty() {
                true => assert!(page.status == 200 && page.body.contains("<h1>Done</h1>"), "{}", page.body),
                // It learns nothing.
                false => assert_eq!((page.status, &*page.headers["location"]), (303, HOME)),
            }
            assert!(browser.cookies.is_empty(), "the browser forgets it");
            let completed = get(&world.client, &session.id).await.unwrap();
            assert_eq!((completed.state(), &*completed.user_id), (State::Completed, "ada"), "{completed:?}");
            assert!(!issue(&world.client, &completed.credential).await.access_token.is_empty());
            let again = browser.open(&server, &target).await;
            match return_uri.is_empty() {
                true => assert!(again.status == 200 && again.body.contains("<h1>Done</h1>"), "{}", again.body),
                false => assert_eq!((again.status, &*again.headers["location"]), (303, HOME), "a page that is repeated"),
            }
        }
        assert_eq!(world.provider.redeemed().len(), 2);
    }

    async fn another_browser_ends_the_session(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        // Eve opens her connect URL, and has Ada open the URL of the provider.
        let forged = "a".repeat(43);
        for cookie in [None, Some(""), Some(&*forged), Some("of another session")] {
            let mut eve = Browser::of("eve");
            let (_, other) = visited((&world, &server), &mut eve, request(&world, "eve")).await;
            let of_other = eve.cookies.values().next().unwrap().clone();
            let (session, target) = visited((&world, &server), &mut eve, request(&world, "eve")).await;
            let mut ada = Browser::of("ada");
            let start = format!("__Host-jackfield-{}-", session.id.replace('-', ""));
            let name = eve.cookies.keys().find(|name| name.starts_with(&start)).expect("each session has its own").clone();
            let value = cookie.map(|cookie| if cookie.contains(' ') { of_other.clone() } else { cookie.to_owned() });
            ada.cookies.extend(value.map(|value| (name, value)));
            let page = ada.open(&server, &target).await;
            assert!(page.status == 400 && page.body.contains("<h1>This was not started here</h1>"), "{}", page.body);
            assert!(!page.body.contains("<a href"));
            assert_eq!(ended(&world, &session).await, (State::Failed, Failure::WrongBrowser), "{cookie:?}");
            warned(&session, "WRONG_BROWSER", target.split_once('?').unwrap().1);
            // It must not be used by either.
            assert_eq!(eve.open(&server, &target).await.status, 400);
            assert_eq!(ended(&world, &session).await, (State::Failed, Failure::WrongBrowser));
            // Her other session goes on.
            let redeemed = world.provider.redeemed().len();
            assert_eq!(eve.open(&server, &other).await.status, 200);
            assert_eq!(world.provider.redeemed().len(), redeemed + 1);
        }
        assert_eq!(world.provider.redeemed().len(), 4, "only those of the other sessions");
    }

    async fn a_connect_url_that_was_passed_on_wins_nothing(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, connect) = start(&world, request(&world, "eve")).await;
        // It is not known whose browser this is, so nothing happens.
        let page = Browser::default().open(&server, &connect).await;
        assert!(page.status == 403 && page.body.contains("<h1>You are not logged in</h1>"), "{}", page.body);
        let both = browse_with(&server, "GET", &connect, &[("x-user", "ada"), ("x-user", "eve")]).await;
        assert_eq!(both.status, 403);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), session);

        let mut ada = Browser::of("ada");
        let page = ada.open(&server, &connect).await;
        assert!(page.status == 400 && page.body.contains("<h1>This was not started here</h1>"), "{}", page.body);
        assert!(ada.cookies.is_empty() && !page.headers.contains_key("location"));
        assert_eq!(ended(&world, &session).await, (State::Failed, Failure::UserMismatch));
        warned(&session, "USER_MISMATCH", connect.split_once('?').unwrap().1);
        let page = Browser::of("eve").open(&server, &connect).await;
        assert!(page.status == 400 && !page.headers.contains_key("location"), "it has ended");
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn a_browser_comes_back_at_the_path_of_its_connection(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let connection = evil_connection(&world).await;
        let mut ada = Browser::of("ada");
        let (evil, _) = start(&world, v1::StartAuthorizationRequest { connection, ..request(&world, "ada") }).await;
        let (session, target) = visited((&world, &server), &mut ada, request(&world, "ada")).await;
        let opened = get(&world.client, &session.id).await.unwrap();
        let query = target.split_once('?').unwrap().1;
        let path = evil.redirect_uri.strip_prefix("http://localhost/connect").unwrap();
        let page = ada.open(&server, &format!("{path}?{query}")).await;
        assert!(page.status == 400 && page.body.contains("<h1>This link is not valid here</h1>"), "{}", page.body);
        warned(&session, "PATH_MISMATCH", query);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), opened, "it goes on where it belongs");
        assert_eq!(world.provider.redeemed().len(), 0);
        assert_eq!(ada.open(&server, &target).await.status, 200);
        assert_eq!(ended(&world, &session).await.0, State::Completed);
    }

    async fn a_connect_url_is_good_in_one_browser(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (_, connect) = start(&world, request(&world, "ada")).await;
        let mut browsers: Vec<Browser> = (0..8).map(|_| Browser::of("ada")).collect();
        let pages = join_all(browsers.iter_mut().map(|browser| browser.open(&server, &connect))).await;
        let (won, lost): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.status == 303);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for page in lost {
            assert!(page.status == 400 && page.body.contains("<h1>This link was opened elsewhere</h1>"), "{}", page.body);
        }
        // In that browser it leads to the provider again, until the browser has come back.
        let mut again = Vec::new();
        for browser in &mut browsers {
            again.push(browser.open(&server, &connect).await.headers.get("location").cloned());
        }
        let url = &won[0].headers["location"];
        assert_eq!(again.iter().flatten().collect::<Vec<_>>(), [url]);
        let index = again.iter().position(Option::is_some).unwrap();
        let target = sent_back(&world, url).await;
        assert_eq!(browsers[index].open(&server, &target).await.status, 200);
        let late = browsers[index].open(&server, &connect).await;
        assert!(late.status == 200 && !late.headers.contains_key("location"), "it is over");
        assert_eq!(world.provider.redeemed().len(), 1);
    }

    async fn two_tabs_of_a_browser_do_not_disturb_each_other(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, connect) = start(&world, request(&world, "ada")).await;
        // Both get a cookie before either has shown one, and the second cookie arrives when the first one is shown.
        let (mut ada, mut second) = (Browser::of("ada"), Browser::of("ada"));
        let again = ada.open_one(&server, &connect).await.headers["location"].clone();
        second.open_one(&server, &connect).await;
        let with_cookie = format!("/connect{again}");
        let page = ada.open_one(&server, &with_cookie).await;
        ada.cookies.extend(second.cookies);
        assert_eq!(ada.cookies.len(), 2);
        let of_second = ada.open_one(&server, &with_cookie).await;
        assert_eq!((of_second.status, &of_second.headers["location"]), (303, &page.headers["location"]));
        let target = sent_back(&world, &page.headers["location"]).await;
        assert_eq!(ada.open(&server, &target).await.status, 200);
        assert_eq!(ended(&world, &session).await.0, State::Completed);
    }

    async fn a_lost_answer_does_not_lose_the_session(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, connect) = start(&world, request(&world, "ada")).await;
        // The answer with the cookie never arrives.
        let mut ada = Browser::of("ada");
        assert_eq!(Browser::of("ada").open_one(&server, &connect).await.status, 303);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), session, "nothing has changed");
        // Nor does the one with the way to the provider.
        assert_eq!(ada.open_one(&server, &connect).await.status, 303);
        let mut lost = Browser { user_id: ada.user_id, cookies: ada.cookies.clone() };
        let url = lost.open_one(&server, &format!("{connect}&cookie=1")).await.headers["location"].clone();
        let page = ada.open(&server, &connect).await;
        assert_eq!(page.headers["location"], url);
        assert_eq!(ada.open(&server, &sent_back(&world, &url).await).await.status, 200);
        assert_eq!(ended(&world, &session).await.0, State::Completed);
    }

    async fn a_connect_url_that_was_stolen_wins_nothing(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let mut ada = Browser::of("ada");
        let (session, connect) = start(&world, request(&world, "ada")).await;
        let url = ada.open(&server, &connect).await.headers["location"].clone();
        let opened = get(&world.client, &session.id).await.unwrap();
        let of_another = ada.cookies.keys().map(|name| (name.clone(), "a".repeat(43))).collect();
        // A thief who is logged in, one who passes for Ada, and one who makes a cookie up.
        for (mut thief, reason) in [
            (Browser::of("eve"), "USER_MISMATCH"),
            (Browser::of("ada"), "WRONG_BROWSER"),
            (Browser { user_id: Some("ada"), cookies: of_another }, "WRONG_BROWSER"),
        ] {
            let page = thief.open(&server, &connect).await;
            assert!(page.status == 400 && page.body.contains("<h1>This link was opened elsewhere</h1>"), "{}", page.body);
            assert!(!page.headers.contains_key("location") && !page.headers.contains_key("set-cookie"));
            warned(&session, reason, connect.split_once('?').unwrap().1);
        }
        assert_eq!(get(&world.client, &session.id).await.unwrap(), opened, "it goes on where it was opened");
        assert_eq!(ada.open(&server, &sent_back(&world, &url).await).await.status, 200);
        assert_eq!(ended(&world, &session).await.0, State::Completed);
    }

    async fn a_browser_that_keeps_no_cookies_is_told_before_it_leaves(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, connect) = start(&world, request(&world, "ada")).await;
        let again = format!("{connect}&cookie=1");
        let page = browse_with(&server, "GET", &again, &[("x-user", "ada")]).await;
        assert!(page.status == 400 && page.body.contains("<h1>This browser keeps no cookies</h1>"), "{}", page.body);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), session);
        // It is allowed to, and loads the page again.
        let mut ada = Browser::of("ada");
        assert_eq!(ada.open(&server, &again).await.status, 400);
        assert_eq!(ada.open(&server, &again).await.status, 303);
    }

    async fn a_cookie_bound_session_lasts_ten_minutes(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = server(backend, &clock).await;
        let world = world(&server).await;
        let mut ada = Browser::of("ada");
        let (opened, target) = visited((&world, &server), &mut ada, request(&world, "ada")).await;
        let (unopened, connect) = start(&world, request(&world, "ada")).await;
        clock.advance(Duration::from_secs(10 * 60));
        for (session, target) in [(unopened, connect), (opened, target)] {
            let page = ada.open(&server, &target).await;
            assert!(page.status == 410 && page.body.contains("<h1>This took too long</h1>"), "{}", page.body);
            assert_eq!(ended(&world, &session).await.0, State::Expired);
        }
        let (session, connect) = start(&world, request(&world, "ada")).await;
        let cancel = v1::CancelAuthorizationRequest { reference: session.id, ..Default::default() };
        world.client.connections().cancel_authorization(cancel).await.unwrap();
        assert_eq!(ada.open(&server, &connect).await.status, 400);
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn what_the_provider_says_ends_a_cookie_bound_session(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let mut ada = Browser::of("ada");
        let returning = || v1::StartAuthorizationRequest { return_uri: HOME.to_owned(), ..request(&world, "ada") };
        let (session, target) = visited((&world, &server), &mut ada, returning()).await;
        let evil = format!("{}&iss=https://evil.example", target.split_once("&iss=").unwrap().0);
        let page = ada.open(&server, &evil).await;
        assert!(page.status == 400 && page.body.contains("<h1>The connection could not be made</h1>"));
        assert_eq!(ended(&world, &session).await, (State::Failed, Failure::IssuerMismatch));
        assert!(ada.cookies.is_empty());

        // The code waits as long as the session if it cannot be redeemed now.
        let (session, target) = visited((&world, &server), &mut ada, returning()).await;
        steps::enable(&world.client, &world.connection.connector, false).await;
        let page = ada.open(&server, &target).await;
        assert!(page.status == 503 && page.body.contains("<h1>Not available at the moment</h1>"), "{}", page.body);
        assert!(!page.body.contains("start again"), "{}", page.body);
        assert_eq!(ended(&world, &session).await.0, State::Started);
        steps::enable(&world.client, &world.connection.connector, true).await;
        assert_eq!(ada.open(&server, &target).await.status, 303);
        assert_eq!(ended(&world, &session).await.0, State::Completed);

        world.provider.deny();
        let (session, target) = visited((&world, &server), &mut ada, returning()).await;
        let page = ada.open(&server, &target).await;
        assert!(page.status == 200 && page.body.contains("<h1>Access was not granted</h1>"), "{}", page.body);
        assert!(page.body.contains(&format!("<a href=\"{HOME}\">Back to the application</a>")));
        assert_eq!(ended(&world, &session).await.0, State::Denied);
        assert_eq!(world.provider.redeemed().len(), 1);
    }

    async fn the_application_does_not_complete_it(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let mut ada = Browser::of("ada");
        let (session, target) = visited((&world, &server), &mut ada, request(&world, "ada")).await;
        let brought = query_of(&format!("http://localhost{target}"));
        let completion = v1::CompleteAuthorizationRequest {
            user_id: "ada".to_owned(),
            state: brought["state"].clone(),
            code: brought["code"].clone(),
            iss: brought.get("iss").cloned(),
            ..Default::default()
        };
        let refused = complete(&world.client, completion).await.map(Response::new);
        expect_status(refused, Code::FailedPrecondition, "AUTHORIZATION_MISMATCH");
        assert_eq!(ended(&world, &session).await.0, State::Started);
        assert_eq!(ada.open(&server, &target).await.status, 200);
        assert_eq!(ended(&world, &session).await.0, State::Completed);
    }

    async fn a_start_that_binds_no_browser_is_refused(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let refused = async |world: &World, change: v1::StartAuthorizationRequest, field: &str| {
            let refused = world.client.connections().start_authorization(change).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&[field]);
        };
        let bound = || request(&world, "ada");
        let elsewhere = "https://evil.example".to_owned();
        refused(&world, v1::StartAuthorizationRequest { completion_mode: 99, ..bound() }, "completion_mode").await;
        refused(&world, v1::StartAuthorizationRequest { redirect_uri: BACK.to_owned(), ..bound() }, "completion_mode").await;
        refused(&world, v1::StartAuthorizationRequest { return_uri: elsewhere, ..bound() }, "return_uri").await;
    }

    async fn without_a_login_at_the_listener_no_browser_is_bound(backend: Backend) {
        let server = TestServer::start_with(backend, |config| {
            config.callback.address = "127.0.0.1:0".to_owned();
            config.callback.public_url = "http://localhost".to_owned();
            config.callback.plaintext = true;
        })
        .await;
        let world = World::new(&server).await;
        let refused = world.client.connections().start_authorization(request(&world, "ada")).await;
        let refusal = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
        refusal.expect_fields(&["completion_mode"]);
        assert!(format!("{:?}", refusal.status).contains("callback.user_header"), "{:?}", refusal.status);
        let target = format!("/connect?token={}", "a".repeat(43));
        assert_eq!(Browser::of("ada").open(&server, &target).await.status, 404);
    }

    async fn the_login_at_the_listener_is_that_of_one_tenant(backend: Backend) {
        let mut server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, connect) = start(&world, request(&world, "ada")).await;
        // Another tenant has a user of the same id. The login in front of the listener is not for it, or that tenant does not exist.
        for tenant in ["beta", "unknown"] {
            server.config_mut().callback.tenant = tenant.to_owned();
            server.restart().await;
            let client = server.client("alpha");
            let refused = client.connections().start_authorization(request(&world, "ada")).await;
            let refusal = expect_status(refused, Code::InvalidArgument, "FIELD_INVALID");
            refusal.expect_fields(&["completion_mode"]);
            assert!(format!("{:?}", refusal.status).contains("callback.tenant"), "{:?}", refusal.status);
            // Nor is one of use that was started before.
            let page = Browser::of("ada").open(&server, &connect).await;
            assert!(page.status == 400 && page.body.contains("<h1>This link is not valid here</h1>"), "{}", page.body);
            assert_eq!(get(&client, &session.id).await.unwrap(), session);
        }
        server.config_mut().callback.tenant = "alpha".to_owned();
        server.restart().await;
        // The others confirm their users as ever.
        let returning = v1::StartAuthorizationRequest { return_uri: HOME.to_owned(), ..world.request("ada") };
        server.client("alpha").connections().start_authorization(returning).await.unwrap();
        assert_eq!(Browser::of("ada").open(&server, &connect).await.status, 303);
    }

    async fn what_was_not_made_here_opens_nothing(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, connect) = start(&world, request(&world, "ada")).await;
        let mut ada = Browser::of("ada");
        let token = connect.strip_prefix("/connect?token=").unwrap();
        for target in [
            "/connect".to_owned(),
            "/connect?token=".to_owned(),
            format!("/connect?token={}", "a".repeat(43)),
            format!("/connect?token={token}&token={token}"),
            // A token is no state.
            format!("{}?state={token}&code=c", session.redirect_uri.strip_prefix("http://localhost/connect").unwrap()),
        ] {
            let page = ada.open(&server, &target).await;
            assert!(page.status == 400 && page.body.contains("<h1>This link is not valid here</h1>"), "{target}");
        }
        assert_eq!(browse_with(&server, "POST", &connect, &[("x-user", "ada")]).await.status, 405);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), session);
    }
}
