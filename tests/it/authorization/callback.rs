//! The callback listener: what browsers bring there, and what is theirs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_api::v1::{AuthorizationFailure as Failure, AuthorizationState as State};
use jackfield_testkit::oauth::query_of;
use jackfield_testkit::{Backend, Config, ManualClock, TestServer, expect_status, on_both};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Response};

use super::attacks::warned;
use super::{World, complete, get};

pub(super) const HOME: &str = "https://app.example/home?tab=1";

/// A response of the listener.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

pub(super) async fn server(backend: Backend, clock: &std::sync::Arc<ManualClock>) -> TestServer {
    TestServer::start_at(backend, clock.clone(), listening).await
}

/// Gives a server a callback listener.
pub(super) fn listening(config: &mut Config) {
    config.callback.address = "127.0.0.1:0".to_owned();
    config.callback.public_url = "http://localhost/connect/".to_owned();
    config.callback.plaintext = true;
    config.callback.user_header = "x-user".to_owned();
    config.callback.tenant = "alpha".to_owned();
}

pub(super) async fn world(server: &TestServer) -> World {
    World::with(server, |connection| connection.return_uris = vec![HOME.to_owned()]).await
}

/// Starts a session that comes back to the listener. Returns the URL of the provider, too.
pub(super) async fn start(world: &World, user_id: &str) -> (v1::AuthorizationSession, String) {
    let request = v1::StartAuthorizationRequest { return_uri: HOME.to_owned(), ..world.request(user_id) };
    let (session, url) = world.start(request).await;
    world.provider.register(&[&session.redirect_uri]).await;
    (session, url)
}

/// The path and the query to which the provider sends the browser.
pub(super) async fn sent_back(world: &World, url: &str) -> String {
    let brought = world.provider.visit(url).await;
    let path = brought.uri.strip_prefix("http://localhost/connect").expect("the listener");
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut query = format!("state={}", brought.state);
    for (name, value) in [("code", Some(brought.code)), ("error", Some(brought.error)), ("iss", brought.iss)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            query += &format!("&{name}={}", encoded(&value));
        }
    }
    format!("{path}?{query}")
}

/// The same, as another issuer.
fn of_issuer(target: &str, iss: &str) -> String {
    format!("{}&iss={iss}", target.split_once("&iss=").unwrap().0)
}

pub(crate) async fn browse(server: &TestServer, method: &str, target: &str) -> Page {
    browse_with(server, method, target, &[]).await
}

/// The same with headers.
pub(crate) async fn browse_with(server: &TestServer, method: &str, target: &str, headers: &[(&str, &str)]) -> Page {
    browse_at(server.callback_address(), method, target, headers).await
}

/// The same at the address of a listener.
pub(super) async fn browse_at(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Page {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // Whatever is answered.
    for (name, value) in [
        ("content-security-policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{target}");
    }
    assert!(!body.contains("<script") && !body.contains("<style"), "{body}");
    Page { status, headers, body: body.to_owned() }
}

/// Another connection of the tenant, whose provider passes on what it gets.
pub(super) async fn evil_connection(world: &World) -> String {
    evil_connection_with(world, |_| {}).await
}

/// The same, with something else different.
pub(super) async fn evil_connection_with(world: &World, change: impl FnOnce(&mut v1::Connection)) -> String {
    let mut connection = v1::Connection {
        id: String::new(),
        etag: String::new(),
        name: "evil".to_owned(),
        client_secrets: vec![v1::ClientSecret { value: "s".to_owned(), ..Default::default() }],
        ..world.connection.clone()
    };
    change(&mut connection);
    let request = v1::CreateConnectionRequest { connection: Some(connection), ..Default::default() };
    world.client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap().id
}

/// The completion of a session by the application to which a browser was sent on.
pub(super) fn completion(location: &str, user_id: &str) -> v1::CompleteAuthorizationRequest {
    let completion_code = query_of(location)["completion_code"].clone();
    v1::CompleteAuthorizationRequest { user_id: user_id.to_owned(), completion_code, ..Default::default() }
}

on_both! {
    async fn the_listener_keeps_the_code_until_the_application_confirms_the_user(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, url) = start(&world, "ada").await;
        let context = session.redirect_uri.strip_prefix("http://localhost/connect/callback/").unwrap();
        assert_eq!((context.len(), &*session.return_uri), (32, HOME));
        assert_eq!(start(&world, "eve").await.0.redirect_uri, session.redirect_uri, "it is that of the connection");
        let target = sent_back(&world, &url).await;
        let page = browse(&server, "GET", &target).await;
        assert_eq!((page.status, &*page.body), (303, ""));
        let location = &page.headers["location"];
        assert!(location.starts_with(&format!("{HOME}&completion_code=")), "{location}");
        let returned = get(&world.client, &session.id).await.unwrap();
        assert_eq!(returned.state(), State::Returned);
        assert_eq!(world.provider.redeemed().len(), 0, "no application has confirmed the user");
        // The application has no use for the answer of the provider.
        let brought = v1::CompleteAuthorizationRequest {
            user_id: "ada".to_owned(),
            state: query_of(&url)["state"].clone(),
            code: "c".to_owned(),
            iss: Some("https://as.example.com".to_owned()),
            ..Default::default()
        };
        let refused = complete(&world.client, brought).await.map(Response::new);
        expect_status(refused, Code::FailedPrecondition, "AUTHORIZATION_MISMATCH");
        let completed = complete(&world.client, completion(location, "ada")).await.unwrap();
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        let again = complete(&world.client, completion(location, "ada")).await.map(Response::new);
        expect_status(again, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        let again = browse(&server, "GET", &target).await;
        assert!(again.status == 200 && again.body.contains("<h1>Done</h1>") && !again.headers.contains_key("location"));
        assert_eq!(world.provider.redeemed().len(), 1);
    }

    async fn a_redirect_that_was_lost_is_given_again(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = server(backend, &clock).await;
        let world = world(&server).await;
        let (session, url) = start(&world, "ada").await;
        let target = sent_back(&world, &url).await;
        // The browser never got it.
        let lost = browse(&server, "GET", &target).await.headers["location"].clone();
        let returned = get(&world.client, &session.id).await.unwrap();
        // Another response with the same state gets nothing and changes nothing.
        let (path, iss) = (target.split_once("&code=").unwrap().0, target.split_once("&iss=").unwrap().1);
        for other in [format!("code=other&iss={iss}"), format!("error=access_denied&iss={iss}"), "code=other".to_owned()] {
            let page = browse(&server, "GET", &format!("{path}&{other}")).await;
            assert!(page.status == 400 && !page.headers.contains_key("location"), "{other}");
            // The first one can still be brought, and the application may have it.
            assert!(page.body.contains("<h1>This was answered before</h1>"), "{other}: {}", page.body);
        }
        let evil = browse(&server, "GET", &of_issuer(&target, "https://evil.example")).await;
        assert!(evil.status == 400 && !evil.headers.contains_key("location"));
        clock.advance(Duration::from_secs(59));
        let again = browse(&server, "GET", &target).await;
        assert_eq!(again.status, 303);
        assert_eq!(get(&world.client, &session.id).await.unwrap(), returned, "its time goes on");
        // Only the newest completion code is good.
        let late = complete(&world.client, completion(&lost, "ada")).await.map(Response::new);
        expect_status(late, Code::NotFound, "AUTHORIZATION_NOT_FOUND");
        let completed = complete(&world.client, completion(&again.headers["location"], "ada")).await.unwrap();
        assert_eq!(completed.state(), State::Completed, "{completed:?}");

        let target = sent_back(&world, &start(&world, "ada").await.1).await;
        assert_eq!(browse(&server, "GET", &target).await.status, 303);
        clock.advance(Duration::from_secs(60));
        let late = browse(&server, "GET", &target).await;
        assert!(late.status == 400 && !late.headers.contains_key("location"));
    }

    async fn a_link_that_was_passed_on_wins_nothing_at_the_listener(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        // Eve starts it, and Ada opens the link. Her browser comes to the application with the completion code.
        let (session, url) = start(&world, "eve").await;
        let page = browse(&server, "GET", &sent_back(&world, &url).await).await;
        let failed = complete(&world.client, completion(&page.headers["location"], "ada")).await.unwrap();
        assert_eq!((failed.state(), failed.failure()), (State::Failed, Failure::UserMismatch));
        let eve = complete(&world.client, completion(&page.headers["location"], "eve")).await.map(Response::new);
        expect_status(eve, Code::FailedPrecondition, "AUTHORIZATION_ENDED");
        assert_eq!(get(&world.client, &session.id).await.unwrap(), failed);
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn a_state_is_good_on_the_path_of_its_connection_only(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = world(&server).await;
        let (session, url) = start(&world, "ada").await;
        let request = v1::StartAuthorizationRequest {
            connection: evil_connection(&world).await,
            return_uri: HOME.to_owned(),
            ..world.request("ada")
        };
        let evil = world.start(request).await.0;
        assert_ne!(evil.redirect_uri, session.redirect_uri);
        let target = sent_back(&world, &url).await;
        let (path, query) = target.split_once('?').unwrap();
        let evil = evil.redirect_uri.strip_prefix("http://localhost/connect").unwrap().to_owned();
        for elsewhere in [format!("{evil}?{query}"), format!("{path}0?{query}"), format!("/callback/?{query}")] {
            let page = browse(&server, "GET", &elsewhere).await;
            assert_eq!(page.status, 400, "{elsewhere}");
            assert!(page.body.contains("<h1>This link is not valid here</h1>"));
        }
        assert_eq!(get(&world.client, &session.id).await.unwrap(), session, "it goes on where it belongs");
        warned(&session, "PATH_MISMATCH", query);
        assert_eq!(browse(&server, "GET", &target).await.status, 303);
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn an_issuer_that_is_not_advertised_is_compared_if_it_is_there(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let world = World::with(&server, |connection| {
            connection.return_uris = vec![HOME.to_owned()];
            connection.iss_parameter_supported = None;
        })
        .await;
        let (session, url) = start(&world, "ada").await;
        let target = of_issuer(&sent_back(&world, &url).await, "https://evil.example");
        assert_eq!(browse(&server, "GET", &target).await.status, 400);
        assert_eq!(get(&world.client, &session.id).await.unwrap().failure(), Failure::IssuerMismatch);
        for iss in [true, false] {
            let target = sent_back(&world, &start(&world, "ada").await.1).await;
            let target = if iss { target } else { target.split_once("&iss=").unwrap().0.to_owned() };
            let page = browse(&server, "GET", &target).await;
            let completed = complete(&world.client, completion(&page.headers["location"], "ada")).await.unwrap();
            assert_eq!(completed.state(), State::Completed, "{completed:?}");
        }
    }

    async fn what_ends_at_the_listener_has_a_page(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = server(backend, &clock).await;
        let world = world(&server).await;
        let ended = async |session: &v1::AuthorizationSession| {
            let session = get(&world.client, &session.id).await.unwrap();
            (session.state(), session.failure())
        };
        let (session, url) = start(&world, "ada").await;
        let target = sent_back(&world, &url).await;
        let page = browse(&server, "GET", &of_issuer(&target, "https://evil.example")).await;
        assert!(page.status == 400 && page.body.contains("<h1>The connection could not be made</h1>"));
        assert_eq!(ended(&session).await, (State::Failed, Failure::IssuerMismatch));
        warned(&session, "ISSUER_MISMATCH", target.split_once('?').unwrap().1);
        assert_eq!(browse(&server, "GET", &target).await.status, 400, "it has ended");

        let (session, url) = start(&world, "ada").await;
        let page = browse(&server, "GET", &format!("{}&code=2", sent_back(&world, &url).await)).await;
        assert_eq!((page.status, ended(&session).await), (400, (State::Failed, Failure::ResponseMalformed)));

        let (session, url) = start(&world, "ada").await;
        let target = sent_back(&world, &url).await;
        let page = browse(&server, "GET", &target).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(ended(&session).await, (State::Failed, Failure::CodeExpired));
        let late = complete(&world.client, completion(&page.headers["location"], "ada")).await.map(Response::new);
        expect_status(late, Code::FailedPrecondition, "AUTHORIZATION_ENDED");

        let (session, url) = start(&world, "ada").await;
        let target = sent_back(&world, &url).await;
        clock.advance(Duration::from_secs(10 * 60));
        let page = browse(&server, "GET", &target).await;
        assert!(page.status == 410 && page.body.contains("<h1>This took too long</h1>"));
        assert_eq!(ended(&session).await.0, State::Expired);

        world.provider.deny();
        let (session, url) = start(&world, "ada").await;
        let page = browse(&server, "GET", &sent_back(&world, &url).await).await;
        assert!(page.status == 200 && page.body.contains("<h1>Access was not granted</h1>"), "{}", page.body);
        assert!(page.body.contains(&format!("<a href=\"{HOME}\">Back to the application</a>")));
        assert_eq!(ended(&session).await.0, State::Denied);
        assert_eq!(world.provider.redeemed().len(), 0);
    }

    async fn what_was_not_made_here_costs_no_look_up(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        server.sql("ALTER TABLE authorization_session RENAME TO sessions_elsewhere").await;
        let (context, state) = ("0".repeat(32), "a".repeat(43));
        let found = browse(&server, "GET", &format!("/callback/{context}?state={state}&code=c")).await;
        assert!(found.status == 503 && found.body.contains("Reload this page"), "it is looked up");
        for (context, state) in [
            (&*context, &state[1..]),
            (&context, "a%20".repeat(11).trim_end_matches("%20")),
            (&context[1..], &state),
            ("G0000000000000000000000000000000", &state),
        ] {
            let page = browse(&server, "GET", &format!("/callback/{context}?state={state}&code=c")).await;
            assert_eq!(page.status, 400, "{context} {state}");
        }
    }

    async fn what_is_no_callback_finds_nothing(backend: Backend) {
        let server = server(backend, &ManualClock::at_present()).await;
        let unknown = "a".repeat(43);
        for (method, target, status) in [
            ("GET", "/".to_owned(), 404),
            ("GET", "/callback".to_owned(), 404),
            ("GET", format!("/callback/{}", "c".repeat(65)), 400),
            ("GET", "/callback/c".to_owned(), 400),
            ("GET", "/callback/c?code=c".to_owned(), 400),
            ("GET", format!("/callback/c?state={unknown}&code=c"), 400),
            ("GET", format!("/callback/c?state={}&code=c", "s".repeat(1_000)), 400),
            ("POST", format!("/callback/c?state={unknown}&code=c"), 405),
        ] {
            let page = browse(&server, method, &target).await;
            assert_eq!(page.status, status, "{method} {target}");
            assert!(!page.body.contains("aaaa") && page.body.contains("<html lang=\"en\">") && page.body.contains("<main>"));
        }
    }
}
