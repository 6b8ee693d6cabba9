use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use jackfield_domain::Secret;
use jackfield_domain::application::ApplicationPatch;
use jackfield_domain::connector::{ConnectorPatch, GenericPatch, KindPatch};
use jackfield_domain::login::{LoginEvent, LoginId};
use jackfield_domain::value::text::Name;
use jackfield_domain::value::url::HttpUrl;
use tokio::time::timeout;

use super::*;
use crate::application::ApplicationLogin;
use crate::change::RequestOptions;
use crate::user::tests::{Fixture, ann};

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

async fn application(fixture: &Fixture, name: &str, connector: Option<Ref>) -> Ref {
    let name = Some(Name::parse("name", name, 191).unwrap());
    let patch = ApplicationPatch { name, connector: Some(connector), ..ApplicationPatch::default() };
    let request = RequestOptions { method: "CreateApplication", request: None, validate_only: false };
    Ref::Id(fixture.services.application_create(&fixture.caller(), &request, None, patch).await.unwrap().id.0)
}

fn wrong(login_id: &str) -> LoginAttempt {
    LoginAttempt {
        login_id: LoginId::parse("login_id", login_id).unwrap(),
        password: Secret::new("wrong".to_owned()),
        application_id: None,
        no_jwt: false,
        new_device: false,
        event: LoginEvent::default(),
    }
}

/// A migrated user takes a hash, so the rejection of another one has to: where log-ins wait for hashes, its time would show who is
/// stored.
#[tokio::test]
async fn a_rejection_by_a_system_whose_users_are_migrated_takes_a_hash() {
    let fixture = Fixture::open().await;
    let unknown = system("404 Not Found", "");
    let inactive = system("200 OK", r#"{"user": {"active": false}}"#);
    let expired = system("200 OK", r#"{"user": {"expiry": 1}}"#);
    let attempt = wrong("ada");
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

/// The time of the test passes here, and none of it while a password waits for its turn. A hash after the delay would not be waited for
/// until then, and would end between two intervals.
#[tokio::test]
async fn rejections_are_answered_after_whole_intervals_from_the_beginning_on() {
    const INTERVAL: Duration = Duration::from_millis(100);
    const STEP: Duration = Duration::from_millis(1);
    let fixture = Fixture::open_with(INTERVAL).await;
    fixture.create(ann()).await;
    let migrating = connector(&fixture, "migrating", &system("404 Not Found", ""), true).await;
    let local = application(&fixture, "local", None).await;
    let asking = application(&fixture, "asking", Some(migrating.clone())).await;
    tokio::time::pause();
    // Time does not pass by itself as long as a thread is busy.
    let (busy, is_over) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || is_over.recv());
    let turns = &fixture.services.shared.passwords.turns;
    for (way, login_id) in [
        (Way::Connector(&migrating), "stranger"),
        (Way::Application(&local), "ann"),
        (Way::Application(&local), "stranger"),
        (Way::Application(&asking), "stranger"),
    ] {
        let taken = turns.take_all(fixture.principal.tenant);
        let start = Instant::now();
        let course = async {
            let patience = std::time::Instant::now() + Duration::from_secs(20);
            while turns.waiting() == 0 {
                assert!(std::time::Instant::now() < patience, "{way:?} {login_id} takes no hash before the delay");
                thread::sleep(STEP);
                tokio::task::yield_now().await;
            }
            tokio::time::advance(INTERVAL * 6 / 5).await;
            drop(taken);
            loop {
                thread::sleep(STEP);
                tokio::time::advance(STEP).await;
            }
        };
        tokio::select! {
            biased;
            () = way.reject(&fixture, login_id) => {}
            () = course => {}
        }
        let late = start.elapsed().as_nanos() % INTERVAL.as_nanos();
        assert!(
            start.elapsed() >= 2 * INTERVAL && late <= 2 * STEP.as_nanos(),
            "{way:?} {login_id}: {:?}",
            start.elapsed()
        );
    }
    drop(busy);
}

/// A way to a password.
#[derive(Debug)]
enum Way<'a> {
    Connector(&'a Ref),
    Application(&'a Ref),
}

impl Way<'_> {
    /// Logs in with a wrong password.
    async fn reject(&self, fixture: &Fixture, login_id: &str) {
        let (services, attempt) = (&fixture.services, wrong(login_id));
        match self {
            Way::Connector(reference) => {
                let login = services.user_authenticate(&fixture.caller(), Some(reference), &attempt, None).await;
                assert_eq!(login.unwrap().outcome, LoginOutcome::Rejected);
            }
            Way::Application(reference) => {
                let (caller, LoginAttempt { login_id, password, event, .. }) = (fixture.caller(), attempt);
                let login = services.application_authenticate(&caller, reference, (login_id, password), event, None);
                assert!(matches!(login.await.unwrap(), ApplicationLogin::Rejected));
            }
        }
    }
}
