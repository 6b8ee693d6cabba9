//! A hostile system that sends back every secret that it gets.

use jackfield_api::v1;
use jackfield_testkit::canary::{Sweep, contains};
use jackfield_testkit::{Ask, Canary, List, Reply, System, TestServer, fixture, logs, on_both};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::super::faults::{raw, read_request};
use super::{USER_ID, a_login, connector, create, events, log_in};

/// The responses of the system, by login id, with a text that it has learned.
fn reply(login_id: &str, learned: &str) -> Reply {
    let user = |registrations: Value, data: Value| {
        json!({ "user": { "id": USER_ID, "username": "ada", "registrations": registrations, "data": data } })
            .to_string()
    };
    let twice = |registration: Value| user(json!([registration, registration]), json!({}));
    match login_id {
        "a page" => Reply::new(200, format!("<html>{learned}</html>")),
        "an error" => Reply { headers: vec![("x-echo", learned.to_owned())], ..Reply::new(500, learned.to_owned()) },
        "a redirect" => {
            Reply { headers: vec![("location", format!("/{learned}"))], ..Reply::new(302, learned.to_owned()) }
        }
        "a rejection" => Reply::new(404, learned.to_owned()),
        "an id" => Reply::new(200, json!({ "user": { "id": learned, "username": learned } }).to_string()),
        "an application" => Reply::new(200, twice(json!({ "applicationId": learned }))),
        "a role" => Reply::new(200, user(json!([{ "applicationId": "a", "roles": [learned, learned] }]), json!({}))),
        "a key" => Reply::new(200, user(json!([]), json!({ learned: vec![0; 2_500] }))),
        "no JSON" => Reply::new(200, format!("{{\"{learned}\": {learned}}}")),
        other => panic!("{other}"),
    }
}

const LOGIN_IDS: [&str; 9] =
    ["a page", "an error", "a redirect", "a rejection", "an id", "an application", "a role", "a key", "no JSON"];

/// Checks that secrets which a system has sent back are in no event, row, line of the log or metric. The log has had everything, and the
/// connector's log-ins were among those with the login id "a redirect".
pub(crate) async fn assert_nowhere(
    canaries: &[Canary],
    server: &TestServer,
    everything: logs::Everything,
    connector: &str,
) {
    let pages = List::ConnectorEvents.pages(&server.client("alpha"), &Ask::default()).await.unwrap();
    let messages: Vec<u8> = pages.into_iter().flat_map(|page| page.rows).flat_map(|row| row.message).collect();
    let stored = tokio::task::block_in_place(|| server.stored_bytes());
    let log = logs::bytes();
    drop(everything);
    assert!(
        contains(&messages, b"a redirect") && contains(&stored, b"a redirect") && contains(&log, connector.as_bytes())
    );
    let sweep = Sweep::new(canaries, &[]);
    for (place, bytes) in [
        ("the events", messages),
        ("the database", stored),
        ("the log", log),
        ("the metrics page", server.metrics_page().into_bytes()),
    ] {
        sweep.assert_not_in(place, &bytes);
    }
}

on_both! {
    async fn secrets_that_a_system_sends_back_are_nowhere(server) {
        let everything = logs::everything();
        let alpha = server.client("alpha");
        let [basic, header] = ["the basic password", "a secret header"].map(Canary::new);
        let mut canaries = vec![basic.clone(), header.clone()];
        let system = System::start(move |request| {
            let login: Value = serde_json::from_slice(&request.body).unwrap();
            let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
            let password = login["password"].as_str().unwrap();
            let learned = format!("{password}{}{}", header("x-secret"), header("authorization"));
            reply(login["loginId"].as_str().unwrap(), &learned)
        })
        .await;
        let mut definition = connector(&alpha, &system, "hostile").await;
        definition.debug = Some(true);
        definition.secret_headers = fixture::strings([("x-secret", &header.secret)]);
        if let Some(v1::connector::Kind::Generic(generic)) = &mut definition.kind {
            generic.http_authentication_username = Some("jackfield".to_owned());
            generic.http_authentication_password = basic.secret.clone();
        }
        let id = create(&alpha, definition).await.id;
        for login_id in LOGIN_IDS {
            let password = Canary::new(login_id);
            log_in(&alpha, a_login(&id, login_id, &password.secret)).await;
            canaries.push(password);
        }
        let reasons: Vec<_> = events(&alpha, &id, LOGIN_IDS.len()).await.into_iter().map(|event| event.reason).collect();
        let expected = [
            "BODY_MALFORMED",
            "STATUS_UNEXPECTED",
            "STATUS_UNEXPECTED",
            "SYSTEM_REJECTED",
            "USER_ID_INVALID",
            "USER_INVALID",
            "USER_INVALID",
            "USER_INVALID",
            "BODY_MALFORMED",
        ];
        assert_eq!(reasons, expected);

        // A status line is not a text of the connector either.
        let password = Canary::new("a status line");
        let line = format!("HTTP/1.1 500 {}\r\ncontent-length: 0\r\n\r\n", password.secret);
        let url = raw(move |mut stream| {
            let line = line.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(line.as_bytes()).await;
            }
        })
        .await;
        let generic = v1::GenericConnector { authentication_url: url, ..Default::default() };
        let kind = Some(v1::connector::Kind::Generic(generic));
        let plain = create(&alpha, v1::Connector { kind, debug: Some(true), ..fixture::a_connector("plain") }).await.id;
        log_in(&alpha, a_login(&plain, "ada", &password.secret)).await;
        assert_eq!(events(&alpha, &plain, 1).await[0].reason, "STATUS_UNEXPECTED");
        canaries.push(password);

        assert_nowhere(&canaries, &server, everything, &id).await;
    }
}
