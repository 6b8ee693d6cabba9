use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use jackfield_domain::Secret;
use jackfield_domain::connector::{ConnectorPatch, GenericPatch, KindPatch};
use jackfield_domain::login::{LoginEvent, LoginId};
use jackfield_domain::value::text::Name;
use jackfield_domain::value::url::HttpUrl;
use tokio::time::timeout;

use super::*;
use crate::change::RequestOptions;
use crate::user::tests::Fixture;

#[test]
fn times_are_rounded_up_to_whole_intervals() {
    let ms = Duration::from_millis;
    let cases = [(0, 500, 500), (1, 500, 500), (500, 500, 500), (501, 500, 1_000), (7, 0, 7)];
    for (elapsed, interval, expected) in cases {
        assert_eq!(whole(ms(elapsed), ms(interval)), ms(expected), "{elapsed} {interval}");
    }
}

/// Starts a system with one answer to every log-in.
fn system(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request, mut buffer) = (stream.unwrap(), Vec::new(), [0; 4_096]);
            // Its last member is an object.
            while !request.ends_with(b"}}") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
        }
    });
    url
}

async fn connector(fixture: &Fixture, name: &str, url: &str, migrates: bool) -> Ref {
    let generic = GenericPatch {
        authentication_url: Some(HttpUrl::parse("url", url, 100).unwrap()),
        migrate_users: Some(migrates),
        ..GenericPatch::default()
    };
    let patch = ConnectorPatch {
        name: Some(Name::parse("name", name, 191).unwrap()),
        kind: KindPatch::Generic(generic),
        ..ConnectorPatch::default()
    };
    let request = RequestOptions { method: "CreateConnector", request: None, validate_only: false };
    Ref::Id(fixture.services.connector_create(&fixture.caller(), &request, None, patch).await.unwrap().id.0)
}

/// A migrated user takes a hash, so the rejection of another one has to: where log-ins wait for hashes, its time would show who is
/// stored.
#[tokio::test]
async fn a_rejection_by_a_system_whose_users_are_migrated_takes_a_hash() {
    let fixture = Fixture::open().await;
    let unknown = system("404 Not Found", "");
    let inactive = system("200 OK", r#"{"user": {"active": false}}"#);
    let expired = system("200 OK", r#"{"user": {"expiry": 1}}"#);
    let attempt = LoginAttempt {
        login_id: LoginId::parse("login_id", "ada").unwrap(),
        password: Secret::new("wrong".to_owned()),
        application_id: None,
        no_jwt: false,
        new_device: false,
        event: LoginEvent::default(),
    };
    let outcome = async |reference: &Ref, patience: Duration| {
        let caller = fixture.caller();
        let login = fixture.services.user_authenticate(&caller, Some(reference), &attempt, None);
        timeout(patience, login).await.map(|login| login.unwrap().outcome)
    };
    let (short, long) = (Duration::from_millis(500), Duration::from_secs(30));
    for (index, url) in [unknown, inactive, expired].iter().enumerate() {
        let plain = connector(&fixture, &format!("plain {index}"), url, false).await;
        let migrating = connector(&fixture, &format!("migrating {index}"), url, true).await;
        let taken = fixture.services.shared.passwords.turns.take_all(fixture.principal.tenant);
        assert_eq!(outcome(&plain, long).await, Ok(LoginOutcome::Rejected), "{index}");
        assert!(outcome(&migrating, short).await.is_err(), "{index} is answered without a hash");
        drop(taken);
        assert_eq!(outcome(&migrating, long).await, Ok(LoginOutcome::Rejected), "{index}");
    }
}
