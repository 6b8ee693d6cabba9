//! Users whose accounts in the system are deactivated, have ended, or do not stay as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jackfield_api::v1;
use jackfield_testkit::collect::items;
use jackfield_testkit::{Client, Reply, System, on_both};
use serde_json::{Value, json};

use super::events::{even, events, rejected};
use super::migrate::migrating;
use super::{a_login, connector, create, log_in};

/// Users of the system, each with one more member of the response and the outcome of the log-in.
const USERS: [(&str, &str, &str, v1::LoginOutcome); 5] = [
    ("inactive", "active", "false", v1::LoginOutcome::Rejected),
    ("expired", "expiry", "1", v1::LoginOutcome::Rejected),
    // In the year 2100.
    ("guest", "expiry", "4102444800000", v1::LoginOutcome::Accepted),
    ("new", "passwordChangeRequired", "true", v1::LoginOutcome::Accepted),
    ("active", "active", "true", v1::LoginOutcome::Accepted),
];

/// A system with these users, whose password is "right". Once they are usual, it says nothing but their names.
async fn a_system(usual: Arc<AtomicBool>) -> System {
    System::start(move |request| {
        let login: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let found = USERS.iter().position(|(login_id, ..)| login["loginId"] == *login_id);
        let Some(number) = found.filter(|_| login["password"] == "right") else { return Reply::new(404, "") };
        let (login_id, member, value, _) = USERS[number];
        let mut user = json!({ "id": format!("11111111-1111-4111-8111-{number:012}"), "username": login_id });
        if !usual.load(Ordering::Relaxed) {
            user[member] = value.parse().unwrap();
        }
        Reply::new(200, json!({ "user": user }).to_string())
    })
    .await
}

async fn users(client: &Client) -> Vec<String> {
    let users = items(client.users().list_users(v1::ListUsersRequest::default()).await).await.unwrap();
    let mut names: Vec<_> = users.iter().map(|user| user.username().to_owned()).collect();
    names.sort();
    names
}

on_both! {
    async fn a_user_who_may_not_log_in_is_rejected_like_any_other(server) {
        let alpha = server.client("alpha");
        let system = a_system(Arc::default()).await;
        for (name, migrates) in [("plain", false), ("migrating", true)] {
            let definition = match migrates {
                true => migrating(&alpha, &system).await,
                false => connector(&alpha, &system, name).await,
            };
            let id = create(&alpha, v1::Connector { name: name.to_owned(), debug: Some(true), ..definition }).await.id;
            let stranger = log_in(&alpha, a_login(&id, "stranger", "right")).await;
            assert_eq!(stranger.outcome(), v1::LoginOutcome::Rejected);
            for login_id in ["inactive", "expired"] {
                assert_eq!(log_in(&alpha, a_login(&id, login_id, "right")).await, stranger, "{login_id}");
            }
            let events: Vec<_> = events(&alpha, &id, 3).await.iter().map(even).collect();
            let expected = [("stranger", "SYSTEM_REJECTED", 404), ("inactive", "USER_INACTIVE", 200), ("expired", "USER_EXPIRED", 200)]
                .map(|(login_id, reason, status)| v1::ConnectorEvent {
                    login_id: login_id.to_owned(),
                    ..rejected(&id, reason, Some(status))
                });
            assert_eq!(events, expected);
        }
        assert_eq!(users(&alpha).await, [""; 0]);
    }

    /// The system still has to decide about some.
    async fn only_users_who_stay_as_they_are_are_migrated(server) {
        let alpha = server.client("alpha");
        let usual = Arc::new(AtomicBool::new(false));
        let system = a_system(Arc::clone(&usual)).await;
        let id = create(&alpha, v1::Connector { debug: Some(true), ..migrating(&alpha, &system).await }).await.id;
        let log_in_all = async || {
            for (login_id, _, _, outcome) in USERS {
                let response = log_in(&alpha, a_login(&id, login_id, "right")).await;
                let outcome = if usual.load(Ordering::Relaxed) { v1::LoginOutcome::Accepted } else { outcome };
                assert_eq!(response.outcome(), outcome, "{login_id}");
            }
        };
        log_in_all().await;
        let reasons: Vec<_> = events(&alpha, &id, 5).await.into_iter().map(|event| event.reason).collect();
        let not_migrated = "USER_NOT_MIGRATED";
        assert_eq!(reasons, ["USER_INACTIVE", "USER_EXPIRED", not_migrated, not_migrated, "SYSTEM_ACCEPTED"]);
        assert_eq!((users(&alpha).await, system.received().len()), (vec!["active".to_owned()], 5));
        log_in_all().await;
        assert_eq!(system.received().len(), 9);

        usual.store(true, Ordering::Relaxed);
        log_in_all().await;
        assert_eq!((users(&alpha).await.len(), system.received().len()), (5, 13));
        log_in_all().await;
        assert_eq!(system.received().len(), 13);
    }
}
