//! ApplicationService: applications. Permissions and sessions are in `application/`.

pub(crate) mod licensed;
pub(crate) mod login;
mod permissions;
pub(crate) mod sessions;

use jackfield_api::v1;
use jackfield_testkit::{Client, Refusal, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

/// Reads an application.
pub(crate) async fn get(client: &Client, reference: &str) -> Result<v1::Application, Status> {
    let request = v1::GetApplicationRequest { reference: reference.to_owned() };
    Ok(client.applications().get_application(request).await?.into_inner().application.unwrap())
}

/// Changes an application.
pub(crate) async fn update(
    client: &Client,
    reference: &str,
    application: v1::Application,
    mask: &[&str],
) -> Result<v1::Application, Status> {
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let request = v1::UpdateApplicationRequest {
        reference: reference.to_owned(),
        application: Some(application),
        update_mask: (!paths.is_empty()).then_some(prost_types::FieldMask { paths }),
        ..Default::default()
    };
    Ok(client.applications().update_application(request).await?.into_inner().application.unwrap())
}

async fn create(client: &Client, application: v1::Application) -> Result<v1::Application, Status> {
    let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
    Ok(client.applications().create_application(request).await?.into_inner().application.unwrap())
}

async fn delete(
    client: &Client,
    request: v1::DeleteApplicationRequest,
) -> Result<v1::DeleteApplicationResponse, Status> {
    Ok(client.applications().delete_application(request).await?.into_inner())
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) -> Refusal {
    expect_status(result.map(Response::new), code, reason)
}

#[track_caller]
pub(crate) fn invalid<T: std::fmt::Debug>(result: Result<T, Status>, fields: &[&str]) -> Refusal {
    let refusal = refused(result, Code::InvalidArgument, "FIELD_INVALID");
    refusal.expect_fields(fields);
    refusal
}

on_both! {
    async fn an_application_is_created_and_found_by_each_of_its_names(server) {
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::a_connector("Back end")).await.id;
        let given = v1::Application {
            external_id: Some("ext: gallery-1 ".to_owned()),
            connector: Some("name:back END".to_owned()),
            session_lifetime: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
            labels: fixture::strings([("env", "prod")]),
            ..fixture::an_application(" Gallery ")
        };
        let created = create(&client, given.clone()).await.unwrap();
        let expected = v1::Application {
            id: created.id.clone(),
            name: "Gallery".to_owned(),
            external_id: Some("gallery-1".to_owned()),
            enabled: Some(true),
            connector: Some(connector),
            create_time: created.create_time,
            update_time: created.create_time,
            etag: created.etag.clone(),
            ..given
        };
        assert_eq!(created, expected);
        for reference in [&*created.id, "name:GALLERY", "ext:gallery-1"] {
            assert_eq!(get(&client, reference).await.unwrap(), created, "{reference}");
        }
        for reference in ["ext:Gallery-1", "name:gallery-1", &Uuid::now_v7().to_string()] {
            let refusal = refused(get(&client, reference).await, Code::NotFound, "APPLICATION_NOT_FOUND");
            assert_eq!(refusal.metadata("reference"), reference);
        }
        let bare = create(&client, v1::Application { name: "Bare".to_owned(), ..Default::default() }).await.unwrap();
        assert_eq!((bare.external_id, bare.enabled, bare.connector), (None, Some(true), None));
        assert_eq!(bare.session_lifetime.unwrap().seconds, 12 * 3_600);
    }

    async fn names_ids_and_external_ids_are_taken_once(server) {
        let client = server.client("alpha");
        let first = v1::Application { external_id: Some("app".to_owned()), ..fixture::an_application("Gallery") };
        let first = create(&client, first).await.unwrap();
        let named = create(&client, fixture::an_application("gALLERY")).await;
        assert_eq!(refused(named, Code::AlreadyExists, "NAME_TAKEN").metadata("resource"), "application");
        let other = v1::Application { external_id: Some("app".to_owned()), ..fixture::an_application("Other") };
        refused(create(&client, other.clone()).await, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
        let request = v1::CreateApplicationRequest {
            application: Some(fixture::an_application("Other")),
            id: first.id,
            ..Default::default()
        };
        let same_id = client.applications().create_application(request).await.map(Response::into_inner);
        refused(same_id, Code::AlreadyExists, "ID_TAKEN");
        create(&server.client("beta"), other).await.unwrap();
    }

    async fn a_connector_must_be_able_to_check_passwords(server) {
        use v1::connector::Kind;
        let client = server.client("alpha");
        let with = |connector: &str| v1::Application {
            connector: Some(connector.to_owned()),
            ..fixture::an_application(&format!("of {connector}"))
        };
        let license = v1::LicenseConnector { base_url: "https://l.example.com".to_owned(), application_id: "app".to_owned() };
        let others = [
            ("oauth2", fixture::an_oauth2_connector("").kind),
            ("api_key", Some(Kind::ApiKey(v1::ApiKeyConnector::default()))),
            ("http_basic", Some(Kind::HttpBasic(v1::HttpBasicConnector::default()))),
        ];
        steps::connector(&client, fixture::a_connector("generic")).await;
        let kind = Some(Kind::License(license));
        steps::connector(&client, v1::Connector { name: "license".to_owned(), kind, ..Default::default() }).await;
        create(&client, with("name:generic")).await.unwrap();
        create(&client, with("name:license")).await.unwrap();
        for (name, kind) in others {
            steps::connector(&client, v1::Connector { name: name.to_owned(), kind, ..Default::default() }).await;
            let refusal = invalid(create(&client, with(&format!("name:{name}"))).await, &["application.connector"]);
            let described = refusal.description("application.connector").to_owned();
            assert!(described.ends_with(&format!("this one is of the kind {name}")), "{described}");
        }
        refused(create(&client, with("name:none")).await, Code::NotFound, "CONNECTOR_NOT_FOUND");
        let wrong_form = create(&client, with("ext:none")).await;
        refused(wrong_form, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["application.connector"]);
    }

    async fn limits_are_checked_and_all_faults_are_named(server) {
        let client = server.client("alpha");
        let permission = |slug: &str| v1::Permission { slug: slug.to_owned(), ..Default::default() };
        let faulty = v1::Application {
            name: " ".to_owned(),
            external_id: Some("a\nb".to_owned()),
            permissions: vec![permission("ok"), permission(""), permission("ok"), permission("é")],
            session_lifetime: Some(prost_types::Duration { seconds: 59, nanos: 999_999_999 }),
            labels: fixture::strings([("no key", "")]),
            ..Default::default()
        };
        let fields = [
            "application.name",
            "application.external_id",
            "application.permissions[1].slug",
            "application.permissions[2].slug",
            "application.permissions[3].slug",
            "application.session_lifetime",
            "application.labels",
        ];
        let refusal = invalid(create(&client, faulty).await, &fields);
        assert_eq!(refusal.description("application.session_lifetime"), "must be 60 s to 7776000 s");
        let permissions = |count: usize| (0..count).map(|n| permission(&format!("{n:064}"))).collect();
        let lifetime = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        for (count, seconds, faults) in [
            (100, 60, &[] as &[&str]),
            (101, 7_776_000, &["application.permissions"]),
            (1, 7_776_001, &["application.session_lifetime"]),
            (1, -1, &["application.session_lifetime"]),
        ] {
            let application = v1::Application {
                name: format!("{count} {seconds}"),
                permissions: permissions(count),
                session_lifetime: lifetime(seconds),
                ..Default::default()
            };
            match faults {
                [] => drop(create(&client, application).await.unwrap()),
                faults => drop(invalid(create(&client, application).await, faults)),
            }
        }
        let long = v1::Application { permissions: vec![permission(&"a".repeat(65))], ..fixture::an_application("long") };
        invalid(create(&client, long).await, &["application.permissions[0].slug"]);
    }

    async fn an_update_changes_what_it_names(server) {
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::a_connector("Back end")).await.id;
        let before = create(&client, fixture::an_application("Gallery")).await.unwrap();
        let change = v1::Application {
            external_id: Some("app".to_owned()),
            enabled: Some(false),
            connector: Some(connector.clone()),
            ..Default::default()
        };
        let after = update(&client, &before.id, change.clone(), &[]).await.unwrap();
        let expected = v1::Application { etag: after.etag.clone(), update_time: after.update_time, ..before.clone() };
        assert_eq!(after, v1::Application { connector: Some(connector), ..v1::Application { external_id: change.external_id, enabled: Some(false), ..expected } });
        assert_ne!(after.etag, before.etag);
        // What it leaves out is as it is for a new application.
        let bare = v1::Application { name: "Gallery 2".to_owned(), ..Default::default() };
        let replaced = update(&client, "ext:app", bare, &["*"]).await.unwrap();
        assert_eq!((replaced.enabled, replaced.connector, replaced.external_id), (Some(true), None, None));
        assert_eq!(replaced.permissions, []);
        let vocabulary = v1::Application { permissions: before.permissions.clone(), ..Default::default() };
        let again = update(&client, &before.id, vocabulary, &["permissions"]).await.unwrap();
        assert_eq!(again.permissions, before.permissions);
        let stale = v1::Application { name: "x".to_owned(), etag: before.etag, ..Default::default() };
        refused(update(&client, &before.id, stale, &[]).await, Code::Aborted, "ETAG_MISMATCH");
        refused(update(&client, "ext:app", v1::Application { enabled: Some(true), ..Default::default() }, &[]).await, Code::NotFound, "APPLICATION_NOT_FOUND");
    }

    async fn an_application_is_deleted_with_everything_in_it(server) {
        let client = server.client("alpha");
        let application = create(&client, fixture::an_application("Gallery")).await.unwrap();
        let other = create(&client, fixture::an_application("Other")).await.unwrap();
        for application in [&application, &other] {
            steps::permit(&client, &application.id, "acme", "ada", &["use_app"]).await;
            steps::permit(&client, &application.id, "initech", "ada", &["use_app"]).await;
        }
        let token = steps::session(&server, "alpha", &application.id, "ada").await;
        steps::session(&server, "alpha", &other.id, "ada").await;
        let request = |reference: &str| v1::DeleteApplicationRequest { reference: reference.to_owned(), ..Default::default() };
        let stale = v1::DeleteApplicationRequest { etag: "stale".to_owned(), ..request("name:gallery") };
        refused(delete(&client, stale).await, Code::Aborted, "ETAG_MISMATCH");
        let deleted = v1::DeleteApplicationResponse { deleted: true, permission_grants_deleted: 2, sessions_deleted: 1 };
        let tried = v1::DeleteApplicationRequest { validate_only: true, ..request("name:gallery") };
        assert_eq!(delete(&client, tried).await.unwrap(), deleted);
        let request_id = Uuid::now_v7().to_string();
        for _ in 0..2 {
            let repeated = v1::DeleteApplicationRequest { request_id: request_id.clone(), ..request(&application.id) };
            assert_eq!(delete(&client, repeated).await.unwrap(), deleted);
        }
        refused(delete(&client, request(&application.id)).await, Code::NotFound, "APPLICATION_NOT_FOUND");
        let missing = v1::DeleteApplicationRequest { allow_missing: true, ..request(&application.id) };
        assert_eq!(delete(&client, missing).await.unwrap(), v1::DeleteApplicationResponse::default());

        // A new application with the same id has none of its permissions and sessions.
        let request = v1::CreateApplicationRequest {
            application: Some(fixture::an_application("Gallery")),
            id: application.id.clone(),
            ..Default::default()
        };
        client.applications().create_application(request).await.unwrap();
        let user = sessions::user(&client, &application.id, &token).await;
        refused(user, Code::NotFound, "SESSION_NOT_FOUND");
        assert_eq!(permissions::listed(&client, &application.id, "").await, []);
        assert_eq!(permissions::listed(&client, &other.id, "").await.len(), 2);
    }

    async fn a_connector_of_an_application_is_not_deleted(server) {
        let client = server.client("alpha");
        let connector = steps::connector(&client, fixture::a_connector("Back end")).await.id;
        let application = v1::Application { connector: Some(connector.clone()), ..fixture::an_application("Gallery") };
        create(&client, application).await.unwrap();
        let delete = |cascade| v1::DeleteConnectorRequest { reference: connector.clone(), cascade, ..Default::default() };
        for cascade in [false, true] {
            let result = client.connectors().delete_connector(delete(cascade)).await.map(Response::into_inner);
            assert_eq!(refused(result, Code::FailedPrecondition, "IN_USE").metadata("used_by.application"), "1");
        }
        let without = v1::Application { connector: Some(String::new()), ..Default::default() };
        update(&client, "name:gallery", without, &[]).await.unwrap();
        assert!(client.connectors().delete_connector(delete(false)).await.unwrap().into_inner().deleted);
    }
}
