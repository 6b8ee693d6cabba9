//! Updates of users by mask, and repeats of requests.

use jackfield_api::v1;
use jackfield_testkit::{expect_status, fixture, on_both};
use tonic::Code;
use uuid::Uuid;

use super::{create, full, get, list};

on_both! {
    async fn a_mask_changes_what_it_names(server) {
        let alpha = server.client("alpha");
        let before = create(&alpha, full()).await;
        let update = async |paths: &[&str], user: v1::User| {
            let request = v1::UpdateUserRequest {
                reference: "ext:platform-1".to_owned(),
                user: Some(user),
                update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
                ..Default::default()
            };
            alpha.users().update_user(request).await
        };
        let given = v1::User { enabled: Some(false), first_name: Some("Anna".to_owned()), ..Default::default() };
        let after = update(&["enabled", "username", "labels.env"], given).await.unwrap().into_inner().user.unwrap();
        let expected = v1::User {
            enabled: Some(false),
            username: None,
            labels: Default::default(),
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        let registrations = vec![v1::UserRegistration { application_id: "blog".to_owned(), roles: Vec::new() }];
        let given = v1::User { registrations: registrations.clone(), ..Default::default() };
        let after = update(&[], given.clone()).await.unwrap().into_inner().user.unwrap();
        assert_eq!(after.registrations, registrations);
        let unchanged = update(&[], given).await.unwrap().into_inner().user.unwrap();
        assert_eq!(unchanged, after);
        let given = v1::User { email: Some("new@example.com".to_owned()), ..Default::default() };
        let after = update(&["*"], given).await.unwrap().into_inner().user.unwrap();
        let expected = v1::User {
            id: before.id.clone(),
            user_id: "platform-1".to_owned(),
            email: Some("new@example.com".to_owned()),
            enabled: Some(true),
            password_set: true,
            create_time: before.create_time,
            update_time: after.update_time,
            etag: after.etag.clone(),
            ..Default::default()
        };
        assert_eq!(after, expected);
        let last = expect_status(update(&["email"], v1::User::default()).await, Code::InvalidArgument, "FIELD_INVALID");
        last.expect_fields(&["user.username"]);
        let other = v1::User { user_id: "platform-2".to_owned(), ..Default::default() };
        for paths in [&[][..], &["user_id"]] {
            let refused = update(paths, other.clone()).await;
            expect_status(refused, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["user.user_id"]);
        }
        assert_eq!(get(&alpha, &before.id).await.unwrap(), expected);
    }

    async fn a_repeated_request_is_answered_once(server) {
        let alpha = server.client("alpha");
        let request = v1::CreateUserRequest {
            user: Some(full()),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let first = alpha.users().create_user(request.clone()).await.unwrap().into_inner();
        assert_eq!(alpha.users().create_user(request.clone()).await.unwrap().into_inner(), first);
        let other = v1::User { password: "another password".to_owned(), ..full() };
        let conflict = alpha.users().create_user(v1::CreateUserRequest { user: Some(other), ..request }).await;
        expect_status(conflict, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        assert_eq!(list(&alpha, "").await, [first.user.unwrap()]);
        let checked = v1::CreateUserRequest {
            user: Some(fixture::a_user("not stored")),
            validate_only: true,
            ..Default::default()
        };
        alpha.users().create_user(checked).await.unwrap();
        assert_eq!(list(&alpha, "").await.len(), 1);
    }
}
