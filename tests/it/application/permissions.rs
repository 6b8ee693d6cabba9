//! The permissions of users by company.

use jackfield_api::v1;
use jackfield_testkit::{Client, collect, fixture, on_both};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{invalid, refused};
use crate::steps;

/// A request that gives ada permissions in the company acme.
fn ada(application: &str, permissions: &[&str]) -> v1::SetPermissionsRequest {
    v1::SetPermissionsRequest {
        application: application.to_owned(),
        company_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        permissions: permissions.iter().map(|slug| (*slug).to_owned()).collect(),
        ..Default::default()
    }
}

async fn set(client: &Client, request: v1::SetPermissionsRequest) -> Result<Option<v1::PermissionGrant>, Status> {
    Ok(client.applications().set_permissions(request).await?.into_inner().grant)
}

/// The permissions that were set in an application, of one user or of all.
pub(super) async fn listed(client: &Client, application: &str, user_id: &str) -> Vec<v1::PermissionGrant> {
    let request = v1::ListPermissionsRequest {
        application: application.to_owned(),
        user_id: user_id.to_owned(),
        ..Default::default()
    };
    collect::items(client.applications().list_permissions(request).await).await.unwrap()
}

on_both! {
    async fn permissions_are_set_replaced_and_removed(server) {
        let client = server.client("alpha");
        let application = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let named = v1::SetPermissionsRequest { company_name: "Acme, Inc.".to_owned(), ..ada("name:Gallery", &["write", "use_app", "write"]) };
        let first = set(&client, named).await.unwrap().unwrap();
        let expected = v1::PermissionGrant {
            id: first.id.clone(),
            application: application.clone(),
            company_id: "acme".to_owned(),
            company_name: "Acme, Inc.".to_owned(),
            user_id: "ada".to_owned(),
            permissions: vec!["use_app".to_owned(), "write".to_owned()],
            create_time: first.create_time,
            update_time: first.create_time,
        };
        assert_eq!(first, expected);
        assert_eq!(set(&client, ada(&application, &["use_app", "write"])).await.unwrap(), Some(first.clone()), "nothing changes");
        let second = set(&client, ada(&application, &["read"])).await.unwrap().unwrap();
        assert_eq!((&second.id, &*second.company_name, &*second.permissions), (&first.id, "Acme, Inc.", &["read".to_owned()][..]));
        assert_eq!(listed(&client, &application, "ada").await, std::slice::from_ref(&second));
        let other = v1::SetPermissionsRequest { company_id: "initech".to_owned(), ..ada(&application, &["read"]) };
        assert_eq!(set(&client, other).await.unwrap().unwrap().company_name, "initech");

        let tried = v1::SetPermissionsRequest { validate_only: true, ..ada(&application, &[]) };
        assert_eq!(set(&client, tried).await.unwrap(), None);
        assert_eq!(listed(&client, &application, "ada").await.len(), 2);
        for _ in 0..2 {
            assert_eq!(set(&client, ada(&application, &[])).await.unwrap(), None);
        }
        assert_eq!(listed(&client, &application, "ada").await.len(), 1);
        assert_eq!(listed(&client, &application, "bob").await, []);
    }

    async fn slugs_outside_the_vocabulary_are_refused_by_name(server) {
        let client = server.client("alpha");
        let application = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let result = set(&client, ada(&application, &["read", "Write", "admin", "use_app"])).await;
        let refusal = refused(result, Code::InvalidArgument, "FIELD_INVALID");
        let described: Vec<_> = refusal.details.bad_request().unwrap().field_violations.iter().map(|it| (&*it.field, &*it.description)).collect();
        let outside = |slug: &str| format!("\"{slug}\" is not in the vocabulary of the application");
        assert_eq!(described, [("permissions", &*outside("Write")), ("permissions", &*outside("admin"))]);
        assert_eq!(listed(&client, &application, "").await, []);
        // This permission is in every vocabulary.
        let bare = v1::Application { name: "Bare".to_owned(), ..Default::default() };
        let bare = steps::application(&client, bare).await.id;
        assert!(set(&client, ada(&bare, &["use_app"])).await.unwrap().is_some());
        invalid(set(&client, ada(&bare, &["read"])).await, &["permissions"]);
    }

    async fn bad_requests_name_their_fields(server) {
        let client = server.client("alpha");
        let faulty = v1::SetPermissionsRequest {
            application: "name:none".to_owned(),
            company_id: " acme".to_owned(),
            company_name: "x".repeat(192),
            user_id: "ada ".to_owned(),
            permissions: vec!["read".to_owned(), "re ad".to_owned()],
            request_id: "1".to_owned(),
            ..Default::default()
        };
        invalid(set(&client, faulty).await, &["company_id", "company_name", "permissions[1]", "request_id", "user_id"]);
        let many = v1::SetPermissionsRequest { permissions: vec!["read".to_owned(); 101], ..ada("name:none", &[]) };
        invalid(set(&client, many).await, &["permissions"]);
        for application in ["name:none", "ext:none"] {
            refused(set(&client, ada(application, &["read"])).await, Code::NotFound, "APPLICATION_NOT_FOUND");
        }
        refused(set(&client, ada("none", &[])).await, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["application"]);
    }

    async fn the_application_may_be_named_in_the_metadata(server) {
        let client = server.client("alpha");
        steps::application(&client, fixture::an_application("Gallery")).await;
        steps::application(&client, fixture::an_application("Other")).await;
        let with = |request: v1::SetPermissionsRequest, named: &'static str| {
            let mut request = Request::new(request);
            request.metadata_mut().insert("x-jackfield-application", named.parse().unwrap());
            request
        };
        let mut applications = client.applications();
        for body in ["", "name:Gallery"] {
            let answer = applications.set_permissions(with(ada(body, &["read"]), "name:Gallery")).await.unwrap();
            assert!(answer.into_inner().grant.is_some());
        }
        let result = applications.set_permissions(with(ada("name:Other", &["read"]), "name:Gallery")).await;
        let result = result.map(Response::into_inner);
        refused(result, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["application"]);
        assert_eq!(listed(&client, "name:Other", "").await, []);
    }

    async fn a_request_id_is_answered_once(server) {
        let client = server.client("alpha");
        let application = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let request_id = Uuid::now_v7().to_string();
        let first = v1::SetPermissionsRequest { request_id: request_id.clone(), ..ada(&application, &["read"]) };
        let grant = set(&client, first.clone()).await.unwrap();
        set(&client, ada(&application, &["write"])).await.unwrap();
        assert_eq!(set(&client, first).await.unwrap(), grant);
        assert_eq!(listed(&client, &application, "").await[0].permissions, ["write"]);
        let other = v1::SetPermissionsRequest { request_id, ..ada(&application, &[]) };
        refused(set(&client, other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
    }

    async fn a_user_has_permissions_in_400_companies_at_most(server) {
        let client = server.client("alpha");
        let application = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let of = |company: usize| v1::SetPermissionsRequest { company_id: format!("company {company}"), ..ada(&application, &["use_app"]) };
        for company in 0..400 {
            set(&client, of(company)).await.unwrap();
        }
        let refusal = refused(set(&client, of(400)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
        assert_eq!(refusal.metadata("limit"), "400");
        set(&client, of(399)).await.unwrap();
        set(&client, v1::SetPermissionsRequest { user_id: "bob".to_owned(), ..of(400) }).await.unwrap();
        set(&client, v1::SetPermissionsRequest { permissions: vec![], ..of(0) }).await.unwrap();
        set(&client, of(400)).await.unwrap();
        let token = steps::session(&server, "alpha", &application, "ada").await;
        let permissions = crate::application::sessions::permissions(&client, &application, &token).await.unwrap();
        assert_eq!(permissions.companies.len(), 400);
    }

    /// Two callers who set the permissions of one user at the same time do not make two grants.
    async fn sets_at_the_same_time_make_one_grant(server) {
        let client = server.client("alpha");
        let application = steps::application(&client, fixture::an_application("Gallery")).await.id;
        let sets = (0..8).map(|n| set(&client, ada(&application, [&["read"], &["write"]][n % 2])));
        for result in futures::future::join_all(sets).await {
            result.unwrap();
        }
        assert_eq!(listed(&client, &application, "").await.len(), 1);
    }
}
