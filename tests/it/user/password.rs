//! Passwords: limits, what is stored of them, and updates.

use jackfield_api::v1;
use jackfield_domain::Resource;
use jackfield_testkit::{TestServer, expect_status, fixture, on_both};
use tonic::Code;

use super::{create, get, try_create};
use crate::connector;

/// The sealed hash, if there is one.
async fn sealed(server: &TestServer, id: &str) -> Option<Vec<u8>> {
    connector::sealed(server, Resource::User, id, "password").await
}

fn update(reference: &str, password: &str, paths: &[&str]) -> v1::UpdateUserRequest {
    v1::UpdateUserRequest {
        reference: reference.to_owned(),
        user: Some(v1::User { password: password.to_owned(), username: Some("ann".to_owned()), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    }
}

on_both! {
    async fn passwords_have_limits(server) {
        let alpha = server.client("alpha");
        for (index, password) in ["12345678", "ää bb ç\u{7}", &"a1".repeat(512), "\u{1f600}\u{1f600}\u{1f600}\u{1f600}1234"].iter().enumerate() {
            let user = v1::User { password: (*password).to_owned(), ..fixture::a_user(&format!("user {index}")) };
            assert!(create(&alpha, user).await.password_set, "{password}");
        }
        for (password, reason) in [
            ("1234567", "FIELD_INVALID"),
            ("ääääbbb", "FIELD_INVALID"),
            ("          ", "FIELD_INVALID"),
            (&"a1".repeat(513), "FIELD_INVALID"),
            (&"ä".repeat(513), "FIELD_INVALID"),
            ("********", "PLACEHOLDER_SECRET"),
            ("[redacted]", "PLACEHOLDER_SECRET"),
        ] {
            let user = v1::User { password: password.to_owned(), ..fixture::a_user("refused") };
            let refused = expect_status(try_create(&alpha, user).await, Code::InvalidArgument, reason);
            refused.expect_fields(&["user.password"]);
        }
    }

    async fn a_password_is_kept_replaced_and_cleared(server) {
        let alpha = server.client("alpha");
        let id = create(&alpha, fixture::a_user("ann")).await.id;
        let mut before = sealed(&server, &id).await;
        assert!(before.is_some());
        for paths in [&[][..], &["*"], &["username", "password_set"]] {
            alpha.users().update_user(update(&id, "", paths)).await.unwrap();
            assert_eq!(sealed(&server, &id).await, before, "{paths:?}");
        }
        alpha.users().update_user(update(&id, "not in the mask", &["username"])).await.unwrap();
        assert_eq!(sealed(&server, &id).await, before);
        for paths in [&[][..], &["*"], &["password"]] {
            let etag = get(&alpha, &id).await.unwrap().etag;
            // The same password is a change, too: it is not compared.
            alpha.users().update_user(update(&id, "password of the fixture", paths)).await.unwrap();
            let after = sealed(&server, &id).await;
            assert!(after.is_some() && after != before, "{paths:?}");
            assert_ne!(get(&alpha, &id).await.unwrap().etag, etag);
            before = after;
        }
        let validated = v1::UpdateUserRequest { validate_only: true, ..update(&id, "another password", &["password"]) };
        alpha.users().update_user(validated).await.unwrap();
        assert_eq!(sealed(&server, &id).await, before);
        let cleared = alpha.users().update_user(update(&id, "", &["password"])).await.unwrap().into_inner().user.unwrap();
        assert!(!cleared.password_set);
        assert_eq!(sealed(&server, &id).await, None);
    }

    async fn a_deletion_takes_the_hash_along(server) {
        let alpha = server.client("alpha");
        let id = create(&alpha, fixture::a_user("ann")).await.id;
        let delete = v1::DeleteUserRequest { reference: id.clone(), ..Default::default() };
        alpha.users().delete_user(delete).await.unwrap();
        assert_eq!(sealed(&server, &id).await, None);
    }
}
