//! UserService: fields, login ids and lists. Passwords and updates are in the modules below.

mod password;
mod update;

use jackfield_api::v1;
use jackfield_domain::value::text::fold;
use jackfield_testkit::{Client, collect, expect_status, fixture, on_both};
use prost_types::{Struct, Value, value};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

/// A user with all fields.
fn full() -> v1::User {
    v1::User {
        user_id: "platform-1".to_owned(),
        username: Some(" Ann ".to_owned()),
        email: Some("Ann@Example.com".to_owned()),
        phone_number: Some("+49 (170) 123-4567".to_owned()),
        first_name: Some("Ann".to_owned()),
        last_name: Some("Émile".to_owned()),
        data: Some(fixture::object([("theme", "dark")])),
        registrations: vec![v1::UserRegistration {
            application_id: "shop".to_owned(),
            roles: vec!["buyer".to_owned(), "seller".to_owned()],
        }],
        labels: fixture::strings([("env", "prod")]),
        ..fixture::a_user("")
    }
}

async fn try_create(client: &Client, user: v1::User) -> Result<Response<v1::CreateUserResponse>, Status> {
    client.users().create_user(v1::CreateUserRequest { user: Some(user), ..Default::default() }).await
}

async fn create(client: &Client, user: v1::User) -> v1::User {
    try_create(client, user).await.unwrap().into_inner().user.unwrap()
}

async fn get(client: &Client, reference: &str) -> Result<v1::User, Status> {
    let request = v1::GetUserRequest { reference: reference.to_owned() };
    Ok(client.users().get_user(request).await?.into_inner().user.unwrap())
}

async fn list(client: &Client, filter: &str) -> Vec<v1::User> {
    let request = v1::ListUsersRequest { filter: filter.to_owned(), ..Default::default() };
    collect::items(client.users().list_users(request).await).await.unwrap()
}

on_both! {
    async fn a_user_comes_back_without_the_password(server) {
        let alpha = server.client("alpha");
        let created = create(&alpha, full()).await;
        let expected = v1::User {
            id: created.id.clone(),
            username: Some("Ann".to_owned()),
            phone_number: Some("+491701234567".to_owned()),
            enabled: Some(true),
            password: String::new(),
            password_set: true,
            create_time: created.create_time,
            update_time: created.create_time,
            etag: created.etag.clone(),
            ..full()
        };
        assert_eq!(created, expected);
        for reference in [created.id.clone(), "ext:platform-1".to_owned()] {
            assert_eq!(get(&alpha, &reference).await.unwrap(), expected);
        }
        assert_eq!(list(&alpha, "").await, [expected]);
        let bare = create(&alpha, v1::User { email: Some("b@example.com".to_owned()), ..Default::default() }).await;
        assert_eq!((&bare.user_id, bare.enabled, bare.password_set), (&bare.id, Some(true), false));
        assert_eq!((bare.username, bare.first_name, bare.data, bare.connector), (None, None, None, String::new()));
        for reference in ["name:Ann", "Ann", "ext:platform-2", &Uuid::now_v7().to_string()] {
            let missing = get(&alpha, reference).await.map(Response::new);
            let is_reference = !matches!(reference, "name:Ann" | "Ann");
            let (code, reason) = match is_reference {
                true => (Code::NotFound, "USER_NOT_FOUND"),
                false => (Code::InvalidArgument, "REFERENCE_INVALID"),
            };
            expect_status(missing, code, reason);
        }
    }

    async fn wrong_fields_are_all_named(server) {
        let alpha = server.client("alpha");
        let number = Value { kind: Some(value::Kind::NumberValue(f64::NAN)) };
        let wrong = v1::User {
            user_id: " x".to_owned(),
            username: Some("u".repeat(192)),
            email: Some("no address".to_owned()),
            phone_number: Some("0170 1234567".to_owned()),
            first_name: Some("f".repeat(129)),
            last_name: Some("\u{7}".to_owned()),
            data: Some(Struct { fields: [("nan".to_owned(), number)].into() }),
            registrations: vec![v1::UserRegistration { application_id: String::new(), roles: vec!["r".repeat(129)] }],
            password: "short".to_owned(),
            labels: fixture::strings([("no key", "")]),
            ..Default::default()
        };
        let refused = expect_status(try_create(&alpha, wrong).await, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&[
            "user.data",
            "user.email",
            "user.first_name",
            "user.labels",
            "user.last_name",
            "user.password",
            "user.phone_number",
            "user.registrations[0].application_id",
            "user.registrations[0].roles",
            "user.user_id",
            "user.username",
        ]);
        let nameless = v1::User { username: None, ..fixture::a_user("") };
        let refused = expect_status(try_create(&alpha, nameless).await, Code::InvalidArgument, "FIELD_INVALID");
        refused.expect_fields(&["user.username"]);
        assert_eq!(list(&alpha, "").await, []);
    }

    /// What one user logs in with, no other user has, not even as something else.
    async fn login_ids_share_one_name_space(server) {
        let alpha = server.client("alpha");
        create(&alpha, full()).await;
        let user = |change: fn(&mut v1::User, String), text: &str| {
            let mut user = v1::User::default();
            change(&mut user, text.to_owned());
            user
        };
        let username: fn(&mut v1::User, String) = |user, text| user.username = Some(text);
        let email: fn(&mut v1::User, String) = |user, text| user.email = Some(text);
        let phone_number: fn(&mut v1::User, String) = |user, text| user.phone_number = Some(text);
        for (change, text, shown) in [
            (username, "ANN", "ANN"),
            (username, "ann@EXAMPLE.com", "ann@EXAMPLE.com"),
            (username, "+49 170 1234567", "+491701234567"),
            (email, "ann@example.com", "ann@example.com"),
            (phone_number, "+491701234567", "+491701234567"),
        ] {
            let refused = expect_status(try_create(&alpha, user(change, text)).await, Code::AlreadyExists, "LOGIN_ID_TAKEN");
            assert_eq!((refused.metadata("resource"), refused.metadata("login_id")), ("user", shown));
        }
        let other = create(&alpha, user(email, "other@example.com")).await;
        let taken = v1::UpdateUserRequest {
            reference: other.id.clone(),
            user: Some(user(username, "ann")),
            ..Default::default()
        };
        expect_status(alpha.users().update_user(taken).await, Code::AlreadyExists, "LOGIN_ID_TAKEN");
        let external = v1::User { user_id: "platform-1".to_owned(), ..user(username, "third") };
        let refused = expect_status(try_create(&alpha, external).await, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
        assert_eq!(refused.metadata("external_id"), "platform-1");
        // One user may have the same text twice, another tenant has its own users, and a deleted user frees the login ids.
        create(&alpha, v1::User { username: Some("same@example.com".to_owned()), ..user(email, "Same@example.com") }).await;
        create(&server.client("beta"), full()).await;
        let delete = v1::DeleteUserRequest { reference: "ext:platform-1".to_owned(), ..Default::default() };
        assert!(alpha.users().delete_user(delete.clone()).await.unwrap().into_inner().deleted);
        create(&alpha, user(username, "ann@example.com")).await;
        expect_status(alpha.users().delete_user(delete.clone()).await, Code::NotFound, "USER_NOT_FOUND");
        let again = v1::DeleteUserRequest { allow_missing: true, ..delete };
        assert!(!alpha.users().delete_user(again).await.unwrap().into_inner().deleted);
    }

    /// Many callers want one login id at once, each as another field. One gets it.
    async fn one_of_many_gets_a_login_id(server) {
        let alpha = &server.client("alpha");
        let calls = (0..12).map(|number| async move {
            let text = Some("same@example.com".to_owned());
            let user = match number % 2 {
                0 => v1::User { username: text, ..Default::default() },
                _ => v1::User { email: text, ..Default::default() },
            };
            try_create(alpha, user).await
        });
        let (created, refused): (Vec<_>, Vec<_>) =
            futures::future::join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!((created.len(), list(alpha, "").await.len()), (1, 1));
        for refused in refused {
            expect_status(refused, Code::AlreadyExists, "LOGIN_ID_TAKEN");
        }
    }

    /// The lookup of a log-in finds the user by the key of each login id, in its tenant.
    async fn the_store_finds_a_user_by_login_id(server) {
        let alpha = server.client("alpha");
        let created = create(&alpha, full()).await;
        let store = server.store().await;
        let tenant = steps::tenant_id(&server, "alpha").await;
        for key in ["ann", "ann@example.com", "+491701234567"] {
            assert_eq!(fold(key), key);
            let found = store.read().user_fetch_by_login(tenant, key).await.unwrap();
            assert_eq!(found.map(|user| user.id.to_string()).as_ref(), Some(&created.id), "{key}");
        }
        for key in ["", "Ann", "platform-1", "émile", &created.id] {
            assert_eq!(store.read().user_fetch_by_login(tenant, key).await.unwrap(), None, "{key}");
        }
        let beta = steps::tenant_id(&server, "beta").await;
        assert_eq!(store.read().user_fetch_by_login(beta, "ann").await.unwrap(), None);
    }
}
