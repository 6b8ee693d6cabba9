//! AuthenticateApplicationUser: whose passwords are checked, and what a session is worth when its user changes.

use jackfield_api::v1;
use jackfield_testkit::{Client, Reply, System, collect, fixture, on_both};
use serde_json::Value;
use tonic::{Code, Response, Status};

use super::sessions::{permissions, user};
use super::{invalid, refused, update};
use crate::login::{a_system, connector, create};
use crate::steps;

/// The password of [`fixture::a_user`].
const PASSWORD: &str = "password of the fixture";

pub(super) fn a_login(application: &str, username: &str, password: &str) -> v1::AuthenticateApplicationUserRequest {
    v1::AuthenticateApplicationUserRequest {
        application: application.to_owned(),
        username: username.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    }
}

pub(super) async fn try_log_in(
    client: &Client,
    request: v1::AuthenticateApplicationUserRequest,
) -> Result<v1::AuthenticateApplicationUserResponse, Status> {
    client.applications().authenticate_application_user(request).await.map(Response::into_inner)
}

pub(crate) async fn log_in(
    client: &Client,
    application: &str,
    username: &str,
    password: &str,
) -> v1::AuthenticateApplicationUserResponse {
    try_log_in(client, a_login(application, username, password)).await.unwrap()
}

pub(super) fn rejected() -> v1::AuthenticateApplicationUserResponse {
    v1::AuthenticateApplicationUserResponse { outcome: v1::LoginOutcome::Rejected.into(), ..Default::default() }
}

async fn change_user(client: &Client, user: &str, change: v1::User, mask: &[&str]) {
    let request = v1::UpdateUserRequest {
        reference: user.to_owned(),
        user: Some(change),
        update_mask: Some(prost_types::FieldMask { paths: mask.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    client.users().update_user(request).await.unwrap();
}

pub(super) async fn sessions(client: &Client, user_id: &str) -> Vec<v1::Session> {
    let request = v1::ListSessionsRequest { user_id: user_id.to_owned(), ..Default::default() };
    collect::items(client.applications().list_sessions(request).await).await.unwrap()
}

on_both! {
    async fn a_right_password_opens_a_session(server) {
        let client = server.client("alpha");
        let ann = v1::User { user_id: "platform-1".to_owned(), email: Some("ann@example.com".to_owned()), first_name: Some("Ann".to_owned()), ..fixture::a_user("Ann") };
        steps::user(&client, ann).await;
        let gallery = v1::Application {
            external_id: Some("gallery".to_owned()),
            session_lifetime: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..fixture::an_application("Gallery")
        };
        let gallery = steps::application(&client, gallery).await.id;
        steps::permit(&client, &gallery, "acme", "platform-1", &["use_app", "read"]).await;
        steps::permit(&client, &gallery, "initech", "platform-1", &["read"]).await;

        let opened = log_in(&client, "ext:gallery", "ANN", PASSWORD).await;
        assert_eq!(opened.outcome(), v1::LoginOutcome::Accepted);
        let session = opened.session.clone().unwrap();
        assert_eq!((&session.application, &*session.user_id), (&gallery, "platform-1"));
        let [expiry, begin] = [&session.expire_time, &session.create_time].map(|time| time.as_ref().unwrap().seconds);
        assert_eq!(expiry - begin, 60);
        let expected = v1::SessionUser { user_id: "platform-1".to_owned(), username: "Ann".to_owned(), email: "ann@example.com".to_owned(), first_name: "Ann".to_owned(), ..Default::default() };
        assert_eq!(opened.user, Some(expected.clone()));
        let company = v1::CompanyPermissions { company_id: "acme".to_owned(), company_name: "acme".to_owned(), permissions: vec!["read".to_owned(), "use_app".to_owned()] };
        assert_eq!((opened.companies, opened.permissions.clone()), (vec![company], vec!["read".to_owned(), "use_app".to_owned()]));

        let token = opened.session_token;
        assert_eq!(token.len(), 43);
        let found = user(&client, "ext:gallery", &token).await.unwrap();
        assert_eq!((found.user, found.session), (Some(expected), Some(session.clone())));
        assert_eq!(permissions(&client, &gallery, &token).await.unwrap().permissions, opened.permissions);
        let again = log_in(&client, "ext:gallery", "ann@example.com", PASSWORD).await;
        assert_ne!(again.session_token, token);
        assert_eq!(sessions(&client, "platform-1").await.len(), 2);

        // The database has the digest alone.
        let stored = server.sql("select token_digest, doc from session").await.concat();
        assert!(!stored.contains(&token), "{stored}");
    }

    async fn an_unknown_user_and_a_wrong_password_are_the_same(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let ann = steps::user(&client, fixture::a_user("ann")).await;
        let without = v1::User { username: Some("bob".to_owned()), ..Default::default() };
        steps::user(&client, without).await;
        steps::user(&server.client("beta"), fixture::a_user("eve")).await;
        let long = "é".repeat(1_024);
        for (username, password) in [("ann", "wrong"), ("stranger", PASSWORD), ("bob", PASSWORD), ("eve", PASSWORD), ("ann", &*long)] {
            assert_eq!(log_in(&client, &gallery, username, password).await, rejected(), "{username}");
        }
        change_user(&client, &ann.id, v1::User { enabled: Some(false), ..Default::default() }, &["enabled"]).await;
        assert_eq!(log_in(&client, &gallery, "ann", PASSWORD).await, rejected());
        assert_eq!(sessions(&client, "").await, []);
    }

    async fn bad_requests_and_applications_are_refused(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        steps::user(&client, fixture::a_user("ann")).await;
        let event_info = Some(v1::LoginEventInfo { ip_address: "1.2.3".to_owned(), ..Default::default() });
        let faulty = v1::AuthenticateApplicationUserRequest { event_info, ..a_login(&gallery, " ", "") };
        invalid(try_log_in(&client, faulty).await, &["username", "password", "event_info.ip_address"]);
        invalid(try_log_in(&client, a_login(&gallery, "a\nb", &"x".repeat(1_025))).await, &["username", "password"]);
        for application in ["ext:none", "name:none"] {
            refused(try_log_in(&client, a_login(application, "ann", PASSWORD)).await, Code::NotFound, "APPLICATION_NOT_FOUND");
        }
        refused(try_log_in(&client, a_login("none", "ann", PASSWORD)).await, Code::InvalidArgument, "REFERENCE_INVALID");
        update(&client, &gallery, v1::Application { enabled: Some(false), ..Default::default() }, &[]).await.unwrap();
        refused(try_log_in(&client, a_login(&gallery, "ann", PASSWORD)).await, Code::FailedPrecondition, "APPLICATION_DISABLED");
    }

    async fn a_session_is_worth_what_its_user_is(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let ann = steps::user(&client, v1::User { user_id: "platform-1".to_owned(), ..fixture::a_user("ann") }).await;
        let token = log_in(&client, &gallery, "ann", PASSWORD).await.session_token;
        let enabled = async |enabled| change_user(&client, &ann.id, v1::User { enabled: Some(enabled), ..Default::default() }, &["enabled"]).await;
        enabled(false).await;
        refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
        refused(permissions(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
        enabled(true).await;
        change_user(&client, &ann.id, v1::User { first_name: Some("Anna".to_owned()), ..Default::default() }, &["first_name"]).await;
        assert_eq!(user(&client, &gallery, &token).await.unwrap().user.unwrap().first_name, "Anna");

        // Another password ends the sessions, and so does its removal.
        for (password, mask) in [("another password", &["password"][..]), ("", &["password"])] {
            let token = log_in(&client, &gallery, "ann", PASSWORD).await.session_token;
            assert!(user(&client, &gallery, &token).await.is_ok());
            change_user(&client, &ann.id, v1::User { password: password.to_owned(), ..Default::default() }, mask).await;
            refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
            assert_eq!(sessions(&client, "platform-1").await, []);
            change_user(&client, &ann.id, v1::User { password: PASSWORD.to_owned(), ..Default::default() }, mask).await;
        }

        // A user who gets the id of a deleted one gets nothing else.
        steps::permit(&client, &gallery, "acme", "platform-1", &["use_app"]).await;
        let token = log_in(&client, &gallery, "ann", PASSWORD).await.session_token;
        client.users().delete_user(v1::DeleteUserRequest { reference: ann.id, ..Default::default() }).await.unwrap();
        steps::user(&client, v1::User { user_id: "platform-1".to_owned(), ..fixture::a_user("ann") }).await;
        refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
        let opened = log_in(&client, &gallery, "ann", PASSWORD).await;
        assert_eq!((opened.outcome(), opened.companies), (v1::LoginOutcome::Accepted, vec![]));
    }

    async fn a_user_has_a_hundred_sessions_at_most(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let other = steps::application(&client, fixture::an_application("Other")).await.id;
        steps::user(&client, v1::User { user_id: "platform-1".to_owned(), ..fixture::a_user("ann") }).await;
        let elsewhere = log_in(&client, &other, "ann", PASSWORD).await.session_token;
        let first = log_in(&client, &gallery, "ann", PASSWORD).await.session_token;
        let second = log_in(&client, &gallery, "ann", PASSWORD).await.session_token;
        for _ in 2..100 {
            steps::session(&server, "alpha", &gallery, "platform-1").await;
        }
        assert!(user(&client, &gallery, &first).await.is_ok());
        log_in(&client, &gallery, "ann", PASSWORD).await;
        refused(user(&client, &gallery, &first).await, Code::NotFound, "SESSION_NOT_FOUND");
        assert!(user(&client, &gallery, &second).await.is_ok());
        assert!(user(&client, &other, &elsewhere).await.is_ok());
        assert_eq!(sessions(&client, "platform-1").await.len(), 101);
    }

    async fn the_connector_of_an_application_checks_passwords(server) {
        let client = server.client("alpha");
        let system = a_system().await;
        let directory = connector(&client, &system, "directory").await;
        let directory = create(&client, directory).await.id;
        let gallery = v1::Application { external_id: Some("gallery".to_owned()), connector: Some(directory.clone()), ..fixture::an_application("Gallery") };
        let gallery = steps::application(&client, gallery).await.id;
        // This user is not asked.
        steps::user(&client, v1::User { password: "password of ada".to_owned(), ..fixture::a_user("ada") }).await;
        let id = "11111111-1111-4111-8111-111111111111";
        steps::permit(&client, &gallery, "acme", id, &["use_app"]).await;
        let opened = log_in(&client, &gallery, "ada", "right").await;
        assert_eq!(opened.outcome(), v1::LoginOutcome::Accepted);
        assert_eq!(opened.permissions, ["use_app"]);
        let [received] = &system.received()[..] else { panic!("it is asked once") };
        let body: Value = serde_json::from_slice(&received.body).unwrap();
        assert_eq!((&body["applicationId"], &body["noJWT"]), (&Value::from("gallery"), &Value::from(true)));
        let found = user(&client, &gallery, &opened.session_token).await.unwrap().user.unwrap();
        assert_eq!((&*found.user_id, &*found.email, &*found.last_name), (id, "ada@example.com", "Lovelace"));
        assert_eq!(system.received().len(), 1, "a session does not ask it again");

        assert_eq!(log_in(&client, &gallery, "ada", "password of ada").await, rejected());
        assert_eq!(log_in(&client, &gallery, "bob", "right").await, rejected());
        steps::enable(&client, &directory, false).await;
        refused(try_log_in(&client, a_login(&gallery, "ada", "right")).await, Code::FailedPrecondition, "CONNECTOR_DISABLED");
    }

    async fn a_system_that_fails_says_nothing_about_a_password(server) {
        let client = server.client("alpha");
        let system = System::start(|_| Reply::new(500, "")).await;
        let directory = create(&client, connector(&client, &system, "directory").await).await.id;
        let gallery = v1::Application { connector: Some(directory), ..fixture::an_application("Gallery") };
        let gallery = steps::application(&client, gallery).await.id;
        let fault = v1::AuthenticateApplicationUserResponse { outcome: v1::LoginOutcome::UpstreamFault.into(), ..Default::default() };
        assert_eq!(log_in(&client, &gallery, "ada", "right").await, fault);
        assert_eq!(sessions(&client, "").await, []);
    }

    /// A user who was migrated from the system is one of the tenant, who can be disabled.
    async fn a_migrated_user_can_be_disabled(server) {
        let client = server.client("alpha");
        let system = a_system().await;
        let mut directory = connector(&client, &system, "directory").await;
        if let Some(v1::connector::Kind::Generic(generic)) = &mut directory.kind {
            generic.migrate_users = Some(true);
        }
        let directory = create(&client, directory).await.id;
        let gallery = v1::Application { connector: Some(directory), ..fixture::an_application("Gallery") };
        let gallery = steps::application(&client, gallery).await.id;
        let token = log_in(&client, &gallery, "ada", "right").await.session_token;
        assert!(user(&client, &gallery, &token).await.is_ok());
        let ada = "ext:11111111-1111-4111-8111-111111111111";
        change_user(&client, ada, v1::User { enabled: Some(false), ..Default::default() }, &["enabled"]).await;
        refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
        assert_eq!(log_in(&client, &gallery, "ada", "right").await, rejected());
    }

    /// A new password ends all sessions of the user. A log-in that compared the previous one meanwhile opens none afterwards.
    async fn the_previous_password_opens_no_session_beside_its_change(server) {
        let client = server.client("alpha");
        let ann = steps::user(&client, v1::User { user_id: "ann".to_owned(), ..fixture::a_user("ann") }).await;
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let mut previous = PASSWORD.to_owned();
        for round in 0..12 {
            let next = format!("password of round {round}");
            let change = v1::User { password: next.clone(), ..Default::default() };
            let log_ins = futures::future::join_all((0..3).map(|_| try_log_in(&client, a_login(&gallery, "ann", &previous))));
            let (log_ins, ()) = tokio::join!(log_ins, change_user(&client, &ann.id, change, &["password"]));
            for log_in in log_ins {
                match log_in.map(|response| (response.outcome(), response.session_token)) {
                    Ok((v1::LoginOutcome::Accepted, token)) => {
                        refused(user(&client, &gallery, &token).await, Code::NotFound, "SESSION_NOT_FOUND");
                    }
                    Ok((outcome, _)) => assert_eq!(outcome, v1::LoginOutcome::Rejected),
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
            }
            assert_eq!(sessions(&client, "ann").await, []);
            previous = next;
        }
    }
}
