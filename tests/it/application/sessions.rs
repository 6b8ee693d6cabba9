//! Sessions: their use, their end, and what refuses them.

use jackfield_api::v1;
use jackfield_domain::{Clock as _, SystemClock};
use jackfield_testkit::{Client, collect, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{invalid, refused, update};
use crate::steps;

/// The user of a session.
pub(crate) async fn user(
    client: &Client,
    application: &str,
    token: &str,
) -> Result<v1::GetSessionUserResponse, Status> {
    let (application, session_token) = (application.to_owned(), token.to_owned());
    let request = v1::GetSessionUserRequest { application, session_token };
    client.applications().get_session_user(request).await.map(Response::into_inner)
}

/// The permissions of the user of a session.
pub(super) async fn permissions(
    client: &Client,
    application: &str,
    token: &str,
) -> Result<v1::GetSessionPermissionsResponse, Status> {
    let (application, session_token) = (application.to_owned(), token.to_owned());
    let request = v1::GetSessionPermissionsRequest { application, session_token };
    client.applications().get_session_permissions(request).await.map(Response::into_inner)
}

/// Both uses of a session, which must be refused in the same way.
async fn refused_use(client: &Client, application: &str, token: &str, code: Code, reason: &str) {
    refused(user(client, application, token).await, code, reason);
    refused(permissions(client, application, token).await, code, reason);
}

async fn end(client: &Client, request: v1::EndSessionRequest) -> Result<bool, Status> {
    Ok(client.applications().end_session(request).await?.into_inner().ended)
}

fn by_token(application: &str, token: &str) -> v1::EndSessionRequest {
    v1::EndSessionRequest { application: application.to_owned(), session_token: token.to_owned(), ..Default::default() }
}

async fn listed(client: &Client, application: &str) -> Vec<v1::Session> {
    let request = v1::ListSessionsRequest { application: application.to_owned(), ..Default::default() };
    collect::items(client.applications().list_sessions(request).await).await.unwrap()
}

on_both! {
    async fn a_session_gives_its_user_and_current_permissions(server) {
        let client = server.client("alpha");
        let gallery = v1::Application { external_id: Some("gallery".to_owned()), ..fixture::an_application("Gallery") };
        let gallery = steps::application(&client, gallery).await;
        let token = steps::session(&server, "alpha", &gallery.id, "ada").await;
        let found = user(&client, "ext:gallery", &token).await.unwrap();
        assert_eq!((&*found.user.clone().unwrap().user_id, &*found.user.unwrap().username), ("ada", "ada"));
        let session = found.session.unwrap();
        assert_eq!((&session.application, &*session.user_id), (&gallery.id, "ada"));
        assert_eq!(listed(&client, &gallery.id).await, std::slice::from_ref(&session));

        let none = permissions(&client, &gallery.id, &token).await.unwrap();
        let expected = v1::GetSessionPermissionsResponse { session: Some(session.clone()), ..Default::default() };
        assert_eq!(none, expected, "logged in, and without permissions");
        steps::permit(&client, &gallery.id, "initech", "ada", &["use_app", "write"]).await;
        steps::permit(&client, &gallery.id, "acme", "ada", &["use_app", "read"]).await;
        steps::permit(&client, &gallery.id, "umbrella", "ada", &["read", "write"]).await;
        steps::permit(&client, &gallery.id, "acme", "bob", &["use_app", "write"]).await;
        let all = permissions(&client, &gallery.id, &token).await.unwrap();
        let companies: Vec<_> = all.companies.iter().map(|it| (&*it.company_id, it.permissions.join(" "))).collect();
        assert_eq!(companies, [("acme", "read use_app".to_owned()), ("initech", "use_app write".to_owned())]);
        assert_eq!(all.permissions, ["read", "use_app", "write"]);

        // What leaves the vocabulary leaves the answer.
        let permissions_now = vec![v1::Permission { slug: "write".to_owned(), ..Default::default() }];
        let vocabulary = v1::Application { permissions: permissions_now, ..Default::default() };
        update(&client, &gallery.id, vocabulary, &[]).await.unwrap();
        let fewer = permissions(&client, &gallery.id, &token).await.unwrap();
        assert_eq!(fewer.permissions, ["use_app", "write"]);
        assert_eq!(fewer.companies[0].permissions, ["use_app"]);
    }

    async fn a_session_is_of_one_application_and_one_tenant(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let gallery = steps::application(&alpha, fixture::an_application("Gallery")).await.id;
        let other = steps::application(&alpha, fixture::an_application("Other")).await.id;
        steps::application(&beta, fixture::an_application("Gallery")).await;
        let token = steps::session(&server, "alpha", &gallery, "ada").await;
        refused_use(&alpha, &other, &token, Code::PermissionDenied, "APPLICATION_MISMATCH").await;
        let refusal = refused(user(&alpha, "name:Other", &token).await, Code::PermissionDenied, "APPLICATION_MISMATCH");
        assert_eq!(refusal.metadata("application"), other);
        refused_use(&alpha, "ext:none", &token, Code::NotFound, "APPLICATION_NOT_FOUND").await;
        refused_use(&beta, "name:Gallery", &token, Code::NotFound, "SESSION_NOT_FOUND").await;
        refused_use(&beta, &gallery, &token, Code::NotFound, "APPLICATION_NOT_FOUND").await;
        let unknown = "A".repeat(43);
        for unknown in [&*unknown, &token.to_uppercase(), &token[1..], &format!("{token}0")] {
            refused_use(&alpha, &gallery, unknown, Code::NotFound, "SESSION_NOT_FOUND").await;
        }
        for wrong in ["", " ", "a b\n", &"a".repeat(257)] {
            invalid(user(&alpha, &gallery, wrong).await, &["session_token"]);
        }
        refused(user(&alpha, &gallery, "****").await, Code::InvalidArgument, "PLACEHOLDER_SECRET");
        refused(user(&alpha, "", &token).await, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["application"]);
        assert!(user(&alpha, &gallery, &token).await.is_ok());
    }

    async fn a_disabled_application_does_not_take_its_sessions(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let (token, other) = (steps::session(&server, "alpha", &gallery, "ada").await, steps::session(&server, "alpha", &gallery, "bob").await);
        let enabled = |enabled| v1::Application { enabled: Some(enabled), ..Default::default() };
        update(&client, &gallery, enabled(false), &[]).await.unwrap();
        refused_use(&client, &gallery, &token, Code::FailedPrecondition, "APPLICATION_DISABLED").await;
        assert!(end(&client, by_token(&gallery, &other)).await.unwrap());
        update(&client, &gallery, enabled(true), &[]).await.unwrap();
        assert!(user(&client, &gallery, &token).await.is_ok());
        refused_use(&client, &gallery, &other, Code::NotFound, "SESSION_NOT_FOUND").await;
    }

    async fn a_session_ends_once_by_token_or_id(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let other = steps::application(&client, fixture::an_application("Other")).await.id;
        let (first, second) = (steps::session(&server, "alpha", &gallery, "ada").await, steps::session(&server, "alpha", &gallery, "ada").await);
        let second_id = user(&client, &gallery, &second).await.unwrap().session.unwrap().id;
        let by_id = |application: &str, id: &str| v1::EndSessionRequest { application: application.to_owned(), id: id.to_owned(), ..Default::default() };

        refused(end(&client, by_token(&other, &first)).await, Code::PermissionDenied, "APPLICATION_MISMATCH");
        refused(end(&client, by_id(&other, &second_id)).await, Code::PermissionDenied, "APPLICATION_MISMATCH");
        refused(end(&client, by_token("ext:none", &first)).await, Code::NotFound, "APPLICATION_NOT_FOUND");
        refused(end(&client, by_token("", &first)).await, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["application"]);
        invalid(end(&client, by_id(&gallery, "")).await, &["session_token"]);
        invalid(end(&client, by_id(&gallery, "1")).await, &["id"]);
        invalid(end(&client, v1::EndSessionRequest { session_token: first.clone(), ..by_id(&gallery, &second_id) }).await, &["id"]);
        let tried = v1::EndSessionRequest { validate_only: true, ..by_token(&gallery, &first) };
        assert!(end(&client, tried).await.unwrap());
        assert_eq!(listed(&client, "").await.len(), 2);

        let request_id = Uuid::now_v7().to_string();
        for _ in 0..2 {
            let repeated = v1::EndSessionRequest { request_id: request_id.clone(), ..by_token(&gallery, &first) };
            assert!(end(&client, repeated).await.unwrap(), "the stored answer");
        }
        assert!(!end(&client, by_token(&gallery, &first)).await.unwrap());
        assert!(!end(&server.client("beta"), by_id("", &second_id)).await.unwrap());
        assert_eq!(listed(&client, &gallery).await.len(), 1);
        assert!(end(&client, by_id("", &second_id)).await.unwrap());
        assert!(!end(&client, by_id(&gallery, &second_id)).await.unwrap());
        refused_use(&client, &gallery, &first, Code::NotFound, "SESSION_NOT_FOUND").await;
        refused_use(&client, &gallery, &second, Code::NotFound, "SESSION_NOT_FOUND").await;
    }

    async fn a_change_of_the_connector_ends_all_sessions(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let connector = Some(steps::connector(&client, fixture::a_connector("Back end")).await.id);
        let token = steps::session(&server, "alpha", &gallery, "ada").await;
        update(&client, &gallery, v1::Application { enabled: Some(true), ..Default::default() }, &[]).await.unwrap();
        assert!(user(&client, &gallery, &token).await.is_ok());
        update(&client, &gallery, v1::Application { connector, ..Default::default() }, &[]).await.unwrap();
        refused_use(&client, &gallery, &token, Code::NotFound, "SESSION_NOT_FOUND").await;
    }

    /// An expired session is as one that never was, and is deleted in steps.
    async fn an_expired_session_cannot_be_used(server) {
        let client = server.client("alpha");
        let gallery = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let now = SystemClock.now();
        let ended = steps::session_until(&server, "alpha", &gallery, "ada", now).await;
        for _ in 0..2 {
            steps::session_until(&server, "alpha", &gallery, "bob", now.plus_micros(-1)).await;
        }
        let live = steps::session_until(&server, "alpha", &gallery, "ada", now.plus_micros(3_600_000_000)).await;
        refused_use(&client, &gallery, &ended, Code::NotFound, "SESSION_NOT_FOUND").await;
        assert!(!end(&client, by_token(&gallery, &ended)).await.unwrap());
        let listed: Vec<_> = listed(&client, &gallery).await.into_iter().map(|session| session.user_id).collect();
        assert_eq!(listed, ["ada"]);

        let store = server.store().await;
        let purge = async |limit| {
            let txn = store.write().await.unwrap();
            let purged = txn.sessions_purge(now, limit).await.unwrap();
            txn.commit().await.unwrap();
            purged
        };
        assert_eq!((purge(2).await, purge(2).await, purge(2).await), (2, 1, 0));
        store.close().await;
        assert_eq!(server.sql("select count(*) from session").await.concat(), "1");
        assert!(user(&client, &gallery, &live).await.is_ok());
    }
}
