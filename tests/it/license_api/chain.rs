//! The licence API in front of another licence server: the users of an application are those of a second Jackfield, which
//! is asked over its own licence API.

use jackfield_api::v1;
use jackfield_testkit::{Backend, Client, TestServer, collect, fixture, on_both};
use serde_json::json;

use super::{PASSWORD, ann, application, get, log_in, served, token};
use crate::application as applications;
use crate::login::create;
use crate::{key, steps};

/// A server with the user Ann, whose permissions are in three companies.
pub(crate) struct Origin {
    pub(crate) server: TestServer,
    /// The id of its application "gallery".
    gallery: String,
}

// === impl Origin ===

impl Origin {
    pub(crate) async fn start(backend: Backend) -> Self {
        let server = served(backend, |license_api| license_api.plaintext = false).await;
        let alpha = server.client("alpha");
        ann(&alpha).await;
        let gallery = application(&alpha, "gallery", None).await;
        steps::permit(&alpha, &gallery, "acme", "ann-1", &["use_app", "read"]).await;
        steps::permit(&alpha, &gallery, "initech/1", "ann-1", &["use_app"]).await;
        steps::permit(&alpha, &gallery, "umbrella", "ann-1", &["read"]).await;
        Origin { server, gallery }
    }

    /// Stores a connector to it, and an application that has its users.
    pub(crate) async fn application(&self, client: &Client) {
        let certificate_pem = self.server.pki().ca_pem();
        let trust = v1::Key { name: "trust".to_owned(), certificate_pem, ..Default::default() };
        let trust = key::import(client, v1::ImportKeyRequest { key: Some(trust), ..Default::default() }).await.id;
        let base_url = format!("https://localhost:{}/api/v1", self.server.license_api_address().port());
        let license = v1::LicenseConnector { base_url, application_id: "not used".to_owned() };
        let kind = Some(v1::connector::Kind::License(license));
        let connector = v1::Connector { trust_bundle_key: Some(trust), kind, ..fixture::a_connector("origin") };
        let connector = create(client, connector).await.id;
        application(client, "gallery", Some(connector)).await;
    }

    /// Ends all sessions that it has.
    async fn end_sessions(&self) {
        let alpha = self.server.client("alpha");
        let sessions = collect::items(alpha.applications().list_sessions(v1::ListSessionsRequest::default()).await);
        for v1::Session { id, .. } in sessions.await.unwrap() {
            let end = v1::EndSessionRequest { id, ..Default::default() };
            assert!(alpha.applications().end_session(end).await.unwrap().into_inner().ended);
        }
    }
}

on_both! {
    async fn a_user_of_the_other_server_logs_in(backend: Backend) {
        let (origin, front) = (Origin::start(backend).await, served(backend, |_| {}).await);
        let (alpha, address) = (front.client("alpha"), front.license_api_address());
        origin.application(&alpha).await;
        // This user of the same name is not asked for.
        steps::user(&alpha, v1::User { password: "another password".to_owned(), ..fixture::a_user("ann") }).await;

        let granted = log_in(address, "gallery", "ann", PASSWORD).await;
        let companies = json!([
            { "company_id": "acme", "company_name": "acme", "permissions": ["read", "use_app"] },
            { "company_id": "initech/1", "company_name": "initech/1", "permissions": ["use_app"] },
        ]);
        assert_eq!(granted.json()["permissions"], companies);
        let session = token(&granted);
        let seen = async |path: &str| {
            let answer = get(address, path, "gallery", &session).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()
        };
        let profile = json!({ "first_name": "Ann", "last_name": "Größe", "email": "ann@example.com" });
        assert_eq!(seen("auth/users/profile/").await, profile);
        assert_eq!(seen("auth/get-permissions/").await, json!({ "permissions": companies }));
        for (company, permissions) in [("acme", &["read", "use_app"][..]), ("initech/1", &["use_app"]), ("umbrella", &[]), ("unknown", &[])] {
            let found = seen(&format!("auth/get-company-permissions/{company}/")).await;
            assert_eq!(found, json!({ "permissions": permissions }), "{company}");
        }
        // What changes there is seen at once.
        steps::permit(&origin.server.client("alpha"), &origin.gallery, "umbrella", "ann-1", &["use_app"]).await;
        assert_eq!(seen("auth/get-company-permissions/umbrella/").await, json!({ "permissions": ["use_app"] }));

        for (username, password) in [("ann", "wrong"), ("ann", "another password"), ("stranger", PASSWORD)] {
            log_in(address, "gallery", username, password).await.expect(401, "NOT_AUTHORIZED");
        }
        // The end of its session ends ours.
        origin.end_sessions().await;
        for _ in 0..2 {
            get(address, "auth/users/profile/", "gallery", &session).await.expect(401, "NOT_AUTHORIZED");
        }
        assert_eq!(front.sql("select count(*) from session").await, ["0"]);
    }

    /// A server that cannot be asked is no mistake of the user, and ends no session.
    async fn the_other_server_refuses_or_is_away(backend: Backend) {
        let (mut origin, front) = (Origin::start(backend).await, served(backend, |_| {}).await);
        let (alpha, address) = (front.client("alpha"), front.license_api_address());
        origin.application(&alpha).await;
        let session = token(&log_in(address, "gallery", "ann", PASSWORD).await);
        let unavailable = async || {
            let answers = [log_in(address, "gallery", "ann", PASSWORD).await, get(address, "auth/users/profile/", "gallery", &session).await];
            for answer in answers {
                assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
                assert_eq!(answer.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["message"]);
            }
        };
        let there = origin.server.client("alpha");
        let enable = async |enabled| {
            let change = v1::Application { enabled: Some(enabled), ..Default::default() };
            applications::update(&there, "ext:gallery", change, &[]).await.unwrap();
        };
        enable(false).await;
        unavailable().await;
        enable(true).await;
        assert_eq!(get(address, "auth/users/profile/", "gallery", &session).await.status, 200);
        origin.server.stop().await;
        unavailable().await;
        assert_eq!(front.sql("select count(*) from session").await, ["1"]);
    }

    /// The limit of the other server is its own: here it is a server that cannot be asked at the moment.
    async fn the_other_server_limits_attempts(backend: Backend) {
        let (mut origin, front) = (Origin::start(backend).await, served(backend, |_| {}).await);
        origin.server.config_mut().login.attempts_per_user = 1;
        origin.server.restart().await;
        let (alpha, address) = (front.client("alpha"), front.license_api_address());
        origin.application(&alpha).await;
        log_in(address, "gallery", "ann", "wrong").await.expect(401, "NOT_AUTHORIZED");
        let refused = log_in(address, "gallery", "ann", PASSWORD).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
        // Another user is not affected.
        log_in(address, "gallery", "stranger", "wrong").await.expect(401, "NOT_AUTHORIZED");
    }
}
