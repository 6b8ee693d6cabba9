//! The pages of the callback listener in a real browser, and what two users of two browsers can do to each other. The test command skips this
//! module by name if Chromium is missing. With `JACKFIELD_PICTURES`, a picture of each page is written to that directory.

use std::sync::Arc;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::oauth::ISSUER;
use jackfield_testkit::planted::AuthorizationBug as Bug;
use jackfield_testkit::{Backend, Chromium, ManualClock, Shown, TestServer};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::callback::{Page, browse_at, completion};
use super::planted::Planted;
use super::{World, complete, get};
use crate::steps;

/// The places that a browser goes to, behind one port. At `localhost` there is the login of the application, and the listener behind it. At
/// `127.0.0.1`, another site, there are the provider, which asks the user, and the application.
struct Web {
    world: World,
    server: TestServer,
    port: u16,
    /// The headers with which the application was visited.
    visits: Mutex<Vec<Vec<(String, String)>>>,
}

// === impl Web ===

impl Web {
    async fn start(clock: &Arc<ManualClock>) -> Arc<Self> {
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = sockets.local_addr().unwrap().port();
        let server = TestServer::start_at(Backend::Sqlite, clock.clone(), |config| {
            config.callback.address = "127.0.0.1:0".to_owned();
            config.callback.public_url = format!("http://localhost:{port}");
            config.callback.plaintext = true;
            config.callback.user_header = "x-user".to_owned();
            config.callback.tenant = "alpha".to_owned();
        })
        .await;
        let world = World::with(&server, |connection| {
            connection.authentication_url = Some(format!("http://127.0.0.1:{port}/authorize"));
            connection.return_uris = vec![format!("http://127.0.0.1:{port}/home")];
        })
        .await;
        let web = Arc::new(Web { world, server, port, visits: Mutex::default() });
        let served = Arc::clone(&web);
        tokio::spawn(async move {
            loop {
                let (socket, _) = sockets.accept().await.unwrap();
                let web = Arc::clone(&served);
                tokio::spawn(async move { web.serve(socket).await });
            }
        });
        web
    }

    /// Answers one request. A browser may open a connection and send nothing.
    async fn serve(&self, socket: TcpStream) {
        let mut socket = BufReader::new(socket);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match socket.read_line(&mut line).await {
                Ok(2..) if line.trim_end().is_empty() => break,
                Ok(1..) => lines.push(line.trim_end().to_owned()),
                _ => return,
            }
        }
        let target = lines[0].split(' ').nth(1).unwrap().to_owned();
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let is_login = headers.iter().any(|(name, value)| name == "host" && value.starts_with("localhost:"));
        let page = match is_login {
            true => self.behind_the_login(&target, &headers).await,
            false => self.elsewhere(&target, headers).await,
        };
        let mut response = format!("HTTP/1.1 {} .\r\n", page.status);
        for (name, value) in &page.headers {
            response += &format!("{name}: {value}\r\n");
        }
        response += &format!("\r\n{}", page.body);
        // A browser may have left.
        let _ = socket.write_all(response.as_bytes()).await;
    }

    /// The login of the application: it alone says who the user is.
    async fn behind_the_login(&self, target: &str, headers: &[(String, String)]) -> Page {
        if let Some(user_id) = target.strip_prefix("/login?") {
            return page("Hello", "", &[("set-cookie", format!("login={user_id}; Path=/; HttpOnly; SameSite=Lax"))]);
        }
        let cookies = headers.iter().find(|(name, _)| name == "cookie").map(|(_, value)| &**value).unwrap_or_default();
        let user_id = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("login="));
        let mut passed = vec![("cookie", cookies)];
        passed.extend(user_id.map(|user_id| ("x-user", user_id)));
        browse_at(self.server.callback_address(), "GET", target, &passed).await
    }

    /// The provider, and the application.
    async fn elsewhere(&self, target: &str, headers: Vec<(String, String)>) -> Page {
        if !target.starts_with("/authorize?") {
            if target.starts_with("/home") {
                self.visits.lock().await.push(headers);
            }
            return page("The application", "", &[]);
        }
        let brought = self.world.provider.visit(&format!("{ISSUER}{target}")).await;
        let back = |answer: &str| format!("{}?state={}&iss={ISSUER}&{answer}", brought.uri, brought.state);
        let (allow, refuse) = (back(&format!("code={}", brought.code)), back("error=access_denied"));
        page("The provider", &format!("<a href=\"{allow}\">Allow</a> <a href=\"{refuse}\">Refuse</a>"), &[])
    }

    /// Starts a session. Returns the URL to which the application would send the browser, too.
    async fn started(&self, user_id: &str, cookie_bound: bool, returns: bool) -> (v1::AuthorizationSession, String) {
        let return_uri = if returns { format!("http://127.0.0.1:{}/home", self.port) } else { String::new() };
        let mode = if cookie_bound { v1::CompletionMode::CookieBound } else { v1::CompletionMode::Confirmed };
        let completion_mode = mode.into();
        let request = v1::StartAuthorizationRequest { completion_mode, return_uri, ..self.world.request(user_id) };
        let (session, url) = self.world.start(request).await;
        self.world.provider.register(&[&session.redirect_uri]).await;
        (session, url)
    }

    /// A browser in which a user is logged in to the application.
    async fn browser_of(&self, user_id: &str) -> Chromium {
        let mut browser = Chromium::start().await;
        let shown = browser.open(&format!("http://localhost:{}/login?{user_id}", self.port)).await;
        assert_eq!(shown.heading, "Hello");
        browser
    }

    /// The cookies of sessions that a browser has.
    async fn bound(&self, browser: &mut Chromium) -> Vec<serde_json::Value> {
        let cookies = browser.cookies(&format!("http://localhost:{}/callback/", self.port)).await;
        cookies.into_iter().filter(|cookie| cookie["name"] != "login").collect()
    }

    async fn ended(&self, session: &v1::AuthorizationSession) -> (State, Failure) {
        let session = get(&self.world.client, &session.id).await.unwrap();
        (session.state(), session.failure())
    }
}

fn page(heading: &str, content: &str, headers: &[(&str, String)]) -> Page {
    let body = format!("<!DOCTYPE html><html lang=\"en\"><title>{heading}</title><h1>{heading}</h1>{content}</html>");
    let own = [
        ("content-type", "text/html; charset=utf-8".to_owned()),
        ("content-length", body.len().to_string()),
        ("connection", "close".to_owned()),
    ];
    let headers = own.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Page { status: 200, headers: headers.collect(), body }
}

/// Asserts that the page is one of the listener, with this heading, and that a screen reader can find its way.
async fn assert_page(browser: &mut Chromium, shown: &Shown, heading: &str) {
    assert_eq!((&*shown.heading, &*shown.title), (heading, heading), "{shown:?}");
    let found = browser.read().await;
    let named = |role: &str| found.iter().filter(|(own, _)| own == role).map(|(_, name)| &**name).collect::<Vec<_>>();
    assert_eq!((named("RootWebArea"), named("heading"), named("main").len()), (vec![heading], vec![heading], 1));
    assert_eq!(
        browser.evaluate("[document.documentElement.lang, document.cookie]").await,
        serde_json::json!(["en", ""])
    );
    let colour = "getComputedStyle(document.documentElement).color";
    // A small phone shows it without scrolling to the side (WCAG 1.4.10), a dark screen with light letters.
    for (screen, width, dark, letters) in
        [("wide", 800, false, "rgb(0, 0, 0)"), ("phone", 320, true, "rgb(255, 255, 255)")]
    {
        browser.resize(width, dark).await;
        let seen = browser.evaluate(&format!("[innerWidth, document.documentElement.scrollWidth, {colour}]")).await;
        assert_eq!(seen, serde_json::json!([width, width, letters]));
        if let Some(directory) = std::env::var_os("JACKFIELD_PICTURES") {
            let name = format!("{}-{screen}.png", heading.to_lowercase().replace(' ', "-"));
            std::fs::write(std::path::Path::new(&directory).join(name), browser.picture().await).unwrap();
        }
    }
}

/// Eve starts a session and sends Ada the link that is dangerous with this bug. Ada opens it, and permits what she is asked for. Returns the
/// session, its link, and the page that Ada gets at last.
async fn lured(
    web: &Web,
    (eve, ada): (&mut Chromium, &mut Chromium),
    bug: Bug,
) -> (v1::AuthorizationSession, String, Shown) {
    let is_confirmed = bug == Bug::UserNotCompared;
    let (session, url) = web.started("eve", !is_confirmed, true).await;
    let mut link = url.clone();
    if bug == Bug::CookieNotCompared {
        // She opens her connect URL herself, and sends Ada the URL of the provider.
        let asked = eve.open(&url).await;
        assert_eq!((&*asked.heading, web.bound(eve).await.len()), ("The provider", 1));
        link = asked.url;
    }
    let mut shown = ada.open(&link).await;
    if shown.heading == "The provider" {
        shown = ada.follow("Allow").await;
    }
    if is_confirmed {
        // The application knows whose browser brings the completion code.
        assert_eq!(shown.heading, "The application");
        complete(&web.world.client, completion(&shown.url, "ada")).await.unwrap();
    }
    (session, url, shown)
}

#[tokio::test]
async fn a_browser_goes_to_the_provider_and_back() {
    let clock = ManualClock::at_present();
    let web = Web::start(&clock).await;
    let mut ada = web.browser_of("ada").await;
    let (session, connect) = web.started("ada", true, false).await;
    let asked = ada.open(&connect).await;
    assert!(asked.url.starts_with(&format!("http://127.0.0.1:{}/authorize?", web.port)), "{asked:?}");
    let cookies = web.bound(&mut ada).await;
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    let name = cookies[0]["name"].as_str().expect("a name");
    assert!(name.starts_with(&format!("__Host-jackfield-{}-", session.id.replace('-', ""))), "{name}");
    for (attribute, value) in [("path", "/"), ("domain", "localhost"), ("sameSite", "Lax")] {
        assert_eq!(cookies[0][attribute], value);
    }
    assert!(cookies[0]["secure"] == true && cookies[0]["httpOnly"] == true && cookies[0]["session"] == false);
    // The click comes from another site, and the cookie comes along.
    let done = ada.follow("Allow").await;
    assert_page(&mut ada, &done, "Done").await;
    assert_eq!(web.ended(&session).await.0, State::Completed);
    assert!(web.bound(&mut ada).await.is_empty(), "the browser forgets it");

    // Back to the application, with nothing in the address.
    let (session, connect) = web.started("ada", true, true).await;
    ada.open(&connect).await;
    let home = ada.follow("Allow").await;
    assert_eq!((&*home.heading, home.url), ("The application", session.return_uri.clone()));
    assert_eq!(web.ended(&session).await.0, State::Completed);

    let (session, connect) = web.started("ada", true, true).await;
    ada.open(&connect).await;
    let denied = ada.follow("Refuse").await;
    assert_page(&mut ada, &denied, "Access was not granted").await;
    assert_eq!(web.ended(&session).await.0, State::Denied);
    assert_eq!(ada.follow("Back to the application").await.url, session.return_uri);
    // The address of a page of the listener has a code, or a token.
    let visits = web.visits.lock().await;
    assert!(visits.len() >= 2 && !visits.iter().flatten().any(|(name, _)| name == "referer"), "{visits:?}");

    let (session, connect) = web.started("ada", true, false).await;
    ada.open(&connect).await;
    clock.advance(Duration::from_secs(10 * 60));
    let expired = ada.follow("Allow").await;
    assert_page(&mut ada, &expired, "This took too long").await;
    assert_eq!(web.ended(&session).await.0, State::Expired);
    assert_eq!(web.world.provider.redeemed().len(), 2);
}

#[tokio::test]
async fn a_link_that_is_sent_to_a_victim_wins_nothing_in_a_real_browser() {
    let web = Web::start(&ManualClock::at_present()).await;
    let (mut eve, mut ada) = tokio::join!(web.browser_of("eve"), web.browser_of("ada"));

    // Eve sends Ada her connect URL.
    let (session, connect, shown) = lured(&web, (&mut eve, &mut ada), Bug::VisitorNotCompared).await;
    assert_page(&mut ada, &shown, "This was not started here").await;
    assert!(web.bound(&mut ada).await.is_empty());
    assert_eq!(web.ended(&session).await, (State::Failed, Failure::UserMismatch));
    assert_eq!(eve.open(&connect).await.heading, "The connection could not be made", "it is of no use to her");

    // Eve opens her connect URL, and sends Ada the URL of the provider, where Ada permits what is asked for.
    let (session, _, shown) = lured(&web, (&mut eve, &mut ada), Bug::CookieNotCompared).await;
    assert_page(&mut ada, &shown, "This was not started here").await;
    assert_eq!(web.ended(&session).await, (State::Failed, Failure::WrongBrowser));
    // Nor does Eve get on with what Ada has brought.
    assert_eq!(eve.open(&shown.url).await.heading, "The connection could not be made");

    // A browser without a login ends nothing, and gets nothing.
    let (session, connect) = web.started("eve", true, false).await;
    let mut visitor = Chromium::start().await;
    let shown = visitor.open(&connect).await;
    assert_page(&mut visitor, &shown, "You are not logged in").await;
    assert!(web.bound(&mut visitor).await.is_empty());
    assert_eq!(web.ended(&session).await.0, State::Started);

    // Where the application confirms the user.
    let (session, _, home) = lured(&web, (&mut eve, &mut ada), Bug::UserNotCompared).await;
    assert_eq!(web.ended(&session).await, (State::Failed, Failure::UserMismatch));
    assert!(complete(&web.world.client, completion(&home.url, "eve")).await.is_err());
    assert_eq!(web.world.provider.redeemed().len(), 0, "no code was sent anywhere");
}

#[tokio::test]
async fn the_same_links_win_against_planted_bugs_in_a_real_browser() {
    let web = Web::start(&ManualClock::at_present()).await;
    let (mut eve, mut ada) = tokio::join!(web.browser_of("eve"), web.browser_of("ada"));
    for bug in [Bug::VisitorNotCompared, Bug::CookieNotCompared, Bug::UserNotCompared] {
        let planted = Planted::in_connections(bug, &[&web.world.connection.id]);
        let (session, _, shown) = lured(&web, (&mut eve, &mut ada), bug).await;
        drop(planted);
        assert_eq!(shown.heading, "The application", "{bug:?}");
        let won = get(&web.world.client, &session.id).await.unwrap();
        assert_eq!((won.state(), &*won.user_id), (State::Completed, "eve"), "{bug:?}");
        let credential = steps::credential_now(&web.world.client, &won.credential).await;
        assert_eq!(credential.user_id, "eve", "the grant of Ada is hers");
    }
    assert_eq!(web.world.provider.redeemed().len(), 3);
}
