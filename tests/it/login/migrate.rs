//! Users that a connector migrates: their system is asked until it accepts them once.

use jackfield_api::v1;
use jackfield_testkit::collect::items;
use jackfield_testkit::{Client, Reply, System, on_both};
use serde_json::Value;

use super::{USER_ID, a_login, a_system, a_user, connector, create, log_in};

/// A connector that migrates users.
pub(super) async fn migrating(client: &Client, system: &System) -> v1::Connector {
    let mut definition = connector(client, system, "directory").await;
    if let Some(v1::connector::Kind::Generic(generic)) = &mut definition.kind {
        generic.migrate_users = Some(true);
    }
    definition
}

async fn update(client: &Client, user: v1::User, paths: &[&str]) -> v1::User {
    let update_mask = Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() });
    let reference = format!("ext:{USER_ID}");
    let request = v1::UpdateUserRequest { reference, user: Some(user), update_mask, ..Default::default() };
    client.users().update_user(request).await.unwrap().into_inner().user.unwrap()
}

/// A system that accepts "ada" by an alias, too, which is not among the login ids that it tells.
async fn with_alias() -> System {
    System::start(|request| {
        let login: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match (login["loginId"].as_str(), login["password"].as_str()) {
            (Some("ada" | "number 7"), Some("right")) => Reply::new(200, a_user().to_string()),
            _ => Reply::new(404, ""),
        }
    })
    .await
}

on_both! {
    async fn a_migrated_user_is_checked_here(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let connector = create(&alpha, migrating(&alpha, &system).await).await;
        let rejected = log_in(&alpha, a_login(&connector.id, "ada", "wrong")).await;
        let first = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_eq!((rejected.outcome(), first.outcome()), (v1::LoginOutcome::Rejected, v1::LoginOutcome::Accepted));
        assert_eq!(system.received().len(), 2);

        // From now on the stored user decides, by each login id.
        let again = log_in(&alpha, a_login(&connector.id, "ADA@example.com", "right")).await;
        assert_eq!(again, first);
        let wrong = log_in(&alpha, a_login(&connector.id, "ada", "wrong")).await;
        assert_eq!(wrong, rejected);
        assert_eq!(system.received().len(), 2);
        let reference = format!("ext:{USER_ID}");
        let get = v1::GetUserRequest { reference: reference.clone() };
        let user = alpha.users().get_user(get).await.unwrap().into_inner().user.unwrap();
        assert_eq!((user.username(), user.email(), user.connector.as_str()), ("ada", "ada@example.com", &*connector.id));
        assert!(user.password_set);

        // A disabled user is rejected; a deleted one is asked for at the system again.
        let disabled = v1::User { enabled: Some(false), ..Default::default() };
        let update = v1::UpdateUserRequest { reference: reference.clone(), user: Some(disabled), ..Default::default() };
        alpha.users().update_user(update).await.unwrap();
        assert_eq!(log_in(&alpha, a_login(&connector.id, "ada", "right")).await, rejected);
        assert_eq!(system.received().len(), 2);
        alpha.users().delete_user(v1::DeleteUserRequest { reference, ..Default::default() }).await.unwrap();
        assert_eq!(log_in(&alpha, a_login(&connector.id, "ada", "right")).await, first);
        assert_eq!(system.received().len(), 3);
    }

    async fn a_user_who_is_not_of_the_system_is_not_taken_over(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let own = v1::User {
            username: Some("Ada".to_owned()),
            password: "a password of our own".to_owned(),
            ..Default::default()
        };
        let request = v1::CreateUserRequest { user: Some(own), ..Default::default() };
        let own = alpha.users().create_user(request).await.unwrap().into_inner().user.unwrap();
        let connector = create(&alpha, migrating(&alpha, &system).await).await;
        for round in 1..=2 {
            let accepted = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
            assert_eq!((accepted.outcome(), system.received().len()), (v1::LoginOutcome::Accepted, round));
        }
        let get = v1::GetUserRequest { reference: own.id.clone() };
        assert_eq!(alpha.users().get_user(get).await.unwrap().into_inner().user.unwrap(), own);
    }

    /// The stored user decides, whatever the system says and whatever the user logs in with.
    async fn a_changed_user_does_not_come_back(server) {
        let alpha = server.client("alpha");
        let system = with_alias().await;
        let connector = create(&alpha, migrating(&alpha, &system).await).await;
        let outcome = async |login_id: &str, password: &str| {
            log_in(&alpha, a_login(&connector.id, login_id, password)).await.outcome()
        };
        let (accepted, rejected) = (v1::LoginOutcome::Accepted, v1::LoginOutcome::Rejected);
        assert_eq!(outcome("ada", "right").await, accepted);
        assert_eq!(outcome("number 7", "right").await, accepted);
        let changed = v1::User {
            username: Some("ada the second".to_owned()),
            email: Some("new@example.com".to_owned()),
            password: "a new password".to_owned(),
            ..Default::default()
        };
        let stored = update(&alpha, changed, &["username", "email", "password"]).await;
        for login_id in ["ada", "number 7", "ada the second", "ada@example.com"] {
            assert_eq!(outcome(login_id, "right").await, rejected, "{login_id}");
        }
        assert_eq!(outcome("new@example.com", "a new password").await, accepted);
        update(&alpha, v1::User { enabled: Some(false), ..Default::default() }, &["enabled"]).await;
        for (login_id, password) in [("number 7", "right"), ("new@example.com", "a new password")] {
            assert_eq!(outcome(login_id, password).await, rejected, "{login_id}");
        }
        update(&alpha, v1::User { enabled: Some(true), ..Default::default() }, &["enabled"]).await;
        update(&alpha, v1::User::default(), &["password"]).await;
        assert_eq!(outcome("number 7", "right").await, rejected, "without a password");
        let get = v1::GetUserRequest { reference: format!("ext:{USER_ID}") };
        let left = alpha.users().get_user(get).await.unwrap().into_inner().user.unwrap();
        assert_eq!((left.username(), left.email()), (stored.username(), stored.email()));
    }

    async fn log_ins_at_the_same_time_store_one_user(server) {
        let alpha = server.client("alpha");
        let system = a_system().await;
        let connector = create(&alpha, migrating(&alpha, &system).await).await;
        let log_ins = (0..8).map(|_| log_in(&alpha, a_login(&connector.id, "ada", "right")));
        for response in futures::future::join_all(log_ins).await {
            assert_eq!(response.outcome(), v1::LoginOutcome::Accepted);
        }
        let users = items(alpha.users().list_users(v1::ListUsersRequest::default()).await).await.unwrap();
        assert_eq!(users.len(), 1);
    }

    /// Another connector with the id of a deleted one is another system.
    async fn a_connector_inherits_no_users_from_a_deleted_one(server) {
        let alpha = server.client("alpha");
        let (first, second) = (a_system().await, System::start(|_| Reply::new(404, "")).await);
        let connector = create(&alpha, migrating(&alpha, &first).await).await;
        assert_eq!(log_in(&alpha, a_login(&connector.id, "ada", "right")).await.outcome(), v1::LoginOutcome::Accepted);
        let delete = v1::DeleteConnectorRequest { reference: connector.id.clone(), ..Default::default() };
        alpha.connectors().delete_connector(delete).await.unwrap();
        let mut again = super::connector(&alpha, &second, "again").await;
        if let Some(v1::connector::Kind::Generic(generic)) = &mut again.kind {
            generic.migrate_users = Some(true);
        }
        let again = v1::CreateConnectorRequest { connector: Some(again), id: connector.id.clone(), ..Default::default() };
        alpha.connectors().create_connector(again).await.unwrap();
        let asked = log_in(&alpha, a_login(&connector.id, "ada", "right")).await;
        assert_eq!((asked.outcome(), second.received().len()), (v1::LoginOutcome::Rejected, 1));
    }
}
