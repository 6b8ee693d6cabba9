//! AdminService: tenants and facts of the server. Re-wraps are in `rewrap`, key rotation is in `keyring`.

mod keyring;
mod rewrap;

pub(crate) use rewrap::ended as rewrap_ended;

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_domain::{Clock, SystemClock, TenantId};
use jackfield_testkit::{Backend, Client, Refusal, TestServer, collect, expect_status, fixture, on_both};
use tokio::time::{Instant, sleep};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

fn create(tenant: v1::Tenant) -> v1::CreateTenantRequest {
    v1::CreateTenantRequest { tenant: Some(tenant), ..Default::default() }
}

fn delete(reference: &str, cascade: bool) -> v1::DeleteTenantRequest {
    v1::DeleteTenantRequest { reference: reference.to_owned(), cascade, ..Default::default() }
}

async fn created(
    client: &Client,
    request: v1::CreateTenantRequest,
) -> Result<Response<v1::CreateTenantResponse>, Status> {
    client.admin().create_tenant(request).await
}

async fn get(client: &Client, reference: &str) -> Result<Response<v1::GetTenantResponse>, Status> {
    client.admin().get_tenant(v1::GetTenantRequest { reference: reference.to_owned() }).await
}

async fn found(client: &Client, reference: &str) -> v1::Tenant {
    get(client, reference).await.unwrap().into_inner().tenant.unwrap()
}

async fn deleted(client: &Client, request: v1::DeleteTenantRequest) -> bool {
    client.admin().delete_tenant(request).await.unwrap().into_inner().deleted
}

async fn names(client: &Client, filter: &str, order_by: &str) -> Vec<String> {
    let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
    let request = v1::ListTenantsRequest { filter, order_by, ..Default::default() };
    let tenants = collect::items(client.admin().list_tenants(request).await).await.unwrap();
    tenants.into_iter().map(|tenant| tenant.name).collect()
}

async fn server_info(client: &Client) -> v1::GetServerInfoResponse {
    client.admin().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner()
}

/// Creates one of everything in the caller's tenant: a key, a connector that uses it, a connection, a link, a
/// credential with label and secret, two configurations, an audit record, a stored answer for repeats and a
/// user with label and password.
async fn fill(server: &TestServer, tenant: &str) {
    let client = &server.client(tenant);
    let key = v1::Key {
        name: "bundle".to_owned(),
        r#type: v1::KeyType::TrustBundle.into(),
        certificate_pem: server.pki().ca_pem(),
        ..Default::default()
    };
    let key = v1::ImportKeyRequest { key: Some(key), ..Default::default() };
    client.keys().import_key(key).await.unwrap();
    let connector = v1::Connector {
        trust_bundle_key: Some("name:bundle".to_owned()),
        labels: fixture::strings([("team", "a")]),
        ..fixture::an_oauth2_connector("Gmail")
    };
    let connector = steps::connector(client, connector).await.id;
    steps::event(server, tenant, steps::an_event(&connector)).await;
    let connection = Some(fixture::a_connection("Gmail login", &connector));
    let request_id = Uuid::now_v7().to_string();
    let connection = v1::CreateConnectionRequest { connection, request_id, ..Default::default() };
    client.connections().create_connection(connection).await.unwrap();
    steps::route(client, v1::routing_rule::Target::Connection("name:Gmail login".to_owned())).await;
    steps::link(client, "ada", &connector).await;
    let facts = v1::Credential {
        external_id: Some("work".to_owned()),
        labels: fixture::strings([("team", "a")]),
        ..fixture::a_credential("ada", &connector)
    };
    let credential = steps::credential(client, facts, fixture::oauth2_material("token", "refresh")).await;
    steps::configuration(client, fixture::a_configuration(&credential.id, "Team A")).await;
    steps::revealed(client, "ext:work").await;
    let source = v1::SetCredentialSourceRequest { source: Some(fixture::a_stream_source("ada")), ..Default::default() };
    client.user_connectors().set_credential_source(source).await.unwrap();
    steps::user(client, v1::User { labels: fixture::strings([("team", "a")]), ..fixture::a_user("ann") }).await;
    let application =
        v1::Application { labels: fixture::strings([("team", "a")]), ..fixture::an_application("Gallery") };
    steps::application(client, application).await;
    steps::permit(client, "name:Gallery", "acme", "ada", &["use_app"]).await;
    let login = v1::AuthenticateApplicationUserRequest {
        application: "name:Gallery".to_owned(),
        username: "ann".to_owned(),
        password: "wrong".to_owned(),
        ..Default::default()
    };
    client.applications().authenticate_application_user(login).await.unwrap();
}

/// The number of rows in each table.
async fn rows(server: &TestServer) -> BTreeMap<&'static str, String> {
    let tables = [
        "tenant",
        "data_key",
        "secret",
        "label",
        "key",
        "connector",
        "connector_event",
        "connection",
        "user_connector",
        "credential",
        "configuration",
        "user",
        "application",
        "permission_grant",
        "credential_source",
        "session",
        "routing_policy",
        "routing_target",
        "idempotency",
        "audit_event",
        "login_attempt",
    ];
    let mut rows = BTreeMap::new();
    for table in tables {
        // "key" is a reserved word in SQL.
        rows.insert(table, server.sql(&format!("select count(*) from \"{table}\"")).await.concat());
    }
    rows
}

on_both! {
    async fn tenants_are_created_and_found(server) {
        let client = server.client("operator");
        let given = v1::Tenant { display_name: "Example, Inc. \u{1f3ed}".to_owned(), ..fixture::a_tenant("example-1") };
        let id = Uuid::now_v7().to_string();
        let request = v1::CreateTenantRequest { id: id.clone(), ..create(given.clone()) };
        let tenant = created(&client, request).await.unwrap().into_inner().tenant.unwrap();
        let expected = v1::Tenant {
            id: id.clone(),
            create_time: tenant.create_time,
            update_time: tenant.create_time,
            etag: tenant.etag.clone(),
            ..given
        };
        assert_eq!(tenant, expected);
        assert!(tenant.create_time.is_some() && !tenant.etag.is_empty());
        for reference in [&*id, "name:example-1", &id.to_uppercase()] {
            assert_eq!(found(&client, reference).await, tenant);
        }
        for (reference, code, reason) in [
            ("name:none", Code::NotFound, "TENANT_NOT_FOUND"),
            (&*Uuid::now_v7().to_string(), Code::NotFound, "TENANT_NOT_FOUND"),
            // The nil UUID belongs to the system's own data key and is not a tenant.
            (&*Uuid::nil().to_string(), Code::NotFound, "TENANT_NOT_FOUND"),
            ("example-1", Code::InvalidArgument, "REFERENCE_INVALID"),
            ("ext:example-1", Code::InvalidArgument, "REFERENCE_INVALID"),
            ("", Code::InvalidArgument, "REFERENCE_INVALID"),
        ] {
            expect_status(get(&client, reference).await, code, reason);
        }
        created(&client, create(v1::Tenant { display_name: "Zoo".to_owned(), ..fixture::a_tenant("aardvark") })).await.unwrap();
        assert_eq!(names(&client, "", "").await, ["default", "alpha", "beta", "example-1", "aardvark"]);
        assert_eq!(names(&client, "", "name desc").await, ["example-1", "default", "beta", "alpha", "aardvark"]);
        assert_eq!(names(&client, "ZOO", "").await, ["aardvark"]);
        assert_eq!(names(&client, "name = a* OR display_name = \"Example*\"", "name").await, ["aardvark", "alpha", "example-1"]);
        assert_eq!(server.sql("select count(*) from data_key").await, ["6"], "one each, and one of the system");
    }

    async fn names_are_validated(server) {
        let client = server.client("operator");
        let longest = "a".repeat(63);
        for name in ["b", "b2", "b-2", "b--2", &*longest] {
            let request = v1::CreateTenantRequest { validate_only: true, ..create(fixture::a_tenant(name)) };
            assert_eq!(created(&client, request).await.unwrap().into_inner().tenant.unwrap().name, name);
        }
        for name in ["", " ", "B", "Beta", "1b", "-b", "b-", "b_2", "b.2", "b 2", " b", "ä", "b\n", &"a".repeat(64)] {
            let result = created(&client, create(fixture::a_tenant(name))).await;
            let refusal = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
            assert_eq!(refusal.fields(), ["tenant.name"], "{name:?}");
        }
        let shown = |display_name: &str| create(v1::Tenant { display_name: display_name.to_owned(), ..fixture::a_tenant("shown") });
        let most = v1::CreateTenantRequest { validate_only: true, ..shown(&"ä".repeat(191)) };
        created(&client, most).await.unwrap();
        for display_name in ["a\nb", "a\u{202e}b", &"ä".repeat(192)] {
            let result = created(&client, shown(display_name)).await;
            expect_status(result, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["tenant.display_name"]);
        }
        let wrong = v1::CreateTenantRequest {
            id: Uuid::nil().to_string(),
            request_id: "1".to_owned(),
            ..create(v1::Tenant { display_name: "\n".to_owned(), ..fixture::a_tenant("B") })
        };
        expect_status(created(&client, wrong).await, Code::InvalidArgument, "FIELD_INVALID")
            .expect_fields(&["id", "request_id", "tenant.name", "tenant.display_name"]);
        let nothing = created(&client, v1::CreateTenantRequest::default()).await;
        expect_status(nothing, Code::InvalidArgument, "FIELD_INVALID").expect_fields(&["tenant"]);

        let refusal = expect_status(created(&client, create(fixture::a_tenant("beta"))).await, Code::AlreadyExists, "NAME_TAKEN");
        assert_eq!((refusal.metadata("resource"), refusal.metadata("name")), ("tenant", "beta"));
        let id = found(&client, "name:beta").await.id;
        let same = v1::CreateTenantRequest { id: id.clone(), ..create(fixture::a_tenant("gamma")) };
        let refusal = expect_status(created(&client, same).await, Code::AlreadyExists, "ID_TAKEN");
        assert_eq!(refusal.metadata("id"), id);
        assert_eq!(rows(&server).await["tenant"], "3");
        assert_eq!(rows(&server).await["data_key"], "4", "a validated or refused create leaves no key");

        let request_id = Uuid::now_v7().to_string();
        let request = v1::CreateTenantRequest { request_id, ..create(fixture::a_tenant("gamma")) };
        let first = created(&client, request.clone()).await.unwrap().into_inner();
        assert_eq!(created(&client, request.clone()).await.unwrap().into_inner(), first);
        let other = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant("delta")), ..request };
        expect_status(created(&client, other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
    }

    async fn deleting_a_tenant_deletes_everything_in_it(server) {
        let client = server.client("operator");
        let replica = server.replica().await;
        let other = replica.as_ref().unwrap_or(&server);
        let empty = rows(&server).await;
        fill(&server, "beta").await;
        let kept = rows(&server).await;
        fill(&server, "alpha").await;
        let alpha = found(&client, "name:alpha").await;
        let send = |request: v1::DeleteTenantRequest| {
            let client = client.clone();
            async move { client.admin().delete_tenant(request).await }
        };
        let refusal = expect_status(send(delete("name:alpha", false)).await, Code::FailedPrecondition, "IN_USE");
        assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("tenant", &*alpha.id));
        let uses = [("key", "1"), ("connector", "1"), ("connector_event", "1"), ("connection", "1"), ("user_connector", "1"), ("credential", "1"), ("configuration", "2"), ("user", "1"), ("application", "1"), ("permission_grant", "1"), ("credential_source", "1")];
        for (resource, count) in uses {
            assert_eq!(refusal.metadata(&format!("used_by.{resource}")), count, "{resource}");
        }
        let preconditions = &refusal.details.precondition_failure().unwrap().violations;
        assert_eq!(preconditions.len(), uses.len());
        assert!(preconditions.iter().all(|it| it.subject == format!("tenant/{}", alpha.id)));
        let stale = v1::DeleteTenantRequest { etag: "stale".to_owned(), ..delete("name:alpha", true) };
        expect_status(send(stale).await, Code::Aborted, "ETAG_MISMATCH");
        let tried = v1::DeleteTenantRequest { validate_only: true, ..delete("name:alpha", true) };
        assert!(deleted(&client, tried).await);
        assert!(steps::revealed(&server.client("alpha"), "ext:work").await.material.is_some());
        // The other replica, if there is one, also has the data key in memory.
        assert!(steps::revealed(&other.client("alpha"), "ext:work").await.material.is_some());

        let store = server.store().await;
        let id = steps::tenant_id(&server, "alpha").await;
        assert_eq!(store.read().data_keys_fetch(id).await.unwrap().len(), 1);
        let fresh = v1::DeleteTenantRequest { etag: alpha.etag, ..delete(&alpha.id, true) };
        assert!(deleted(&client, fresh).await);
        assert_eq!(store.read().data_keys_fetch(id).await.unwrap().len(), 0, "crypto-shredding");
        let mut left = kept.clone();
        left.insert("tenant", "2".to_owned());
        left.insert("data_key", "3".to_owned());
        assert_eq!(rows(&server).await, left, "the other tenant is unchanged");
        assert_eq!(empty["secret"], "0");
        steps::revealed(&server.client("beta"), "ext:work").await;

        // Its callers are known but have no tenant: here at once, on other replicas shortly after.
        for name in ["alpha", "reader"] {
            let result = server.client(name).connectors().list_connectors(v1::ListConnectorsRequest::default()).await;
            let refusal = expect_status(result, Code::PermissionDenied, "TENANT_UNKNOWN");
            assert_eq!(refusal.metadata("tenant"), "alpha");
        }
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let reveal = v1::RevealCredentialRequest { reference: "ext:work".to_owned(), purpose: "a last look".to_owned() };
            let status = other.client("alpha").credentials().reveal_credential(reveal).await.unwrap_err();
            if status.code() == Code::PermissionDenied {
                drop(Refusal::check(status, Code::PermissionDenied, "TENANT_UNKNOWN"));
                break;
            }
            drop(Refusal::check(status, Code::NotFound, "CREDENTIAL_NOT_FOUND"));
            assert!(Instant::now() < patience, "the replica still serves the tenant");
            sleep(Duration::from_millis(50)).await;
        }
        expect_status(send(delete("name:alpha", true)).await, Code::NotFound, "TENANT_NOT_FOUND");
        let missing = v1::DeleteTenantRequest { allow_missing: true, ..delete("name:alpha", true) };
        assert!(!deleted(&client, missing).await);

        // A new tenant with the same name and id is empty and has another key.
        let request = v1::CreateTenantRequest { id: alpha.id, ..create(fixture::a_tenant("alpha")) };
        created(&client, request).await.unwrap();
        assert_eq!(names(&client, "", "name").await, ["alpha", "beta", "default"]);
        for server in [&server, other] {
            let alpha = server.client("alpha");
            let lists = alpha.connectors().list_connectors(v1::ListConnectorsRequest::default()).await;
            assert_eq!(collect::items(lists).await.unwrap(), []);
        }
        fill(&server, "alpha").await;
        steps::revealed(&other.client("alpha"), "ext:work").await;
        store.close().await;
    }

    async fn no_caller_deletes_its_own_tenant(server) {
        let (operator, alpha) = (server.client("operator"), server.client("alpha"));
        let own = found(&operator, "name:default").await;
        let before = rows(&server).await;
        for reference in ["name:default", &*own.id] {
            for cascade in [false, true] {
                for validate_only in [false, true] {
                    let request = v1::DeleteTenantRequest { validate_only, allow_missing: true, ..delete(reference, cascade) };
                    let refused = operator.admin().delete_tenant(request).await;
                    let refusal = expect_status(refused, Code::FailedPrecondition, "IN_USE");
                    assert_eq!((refusal.metadata("resource"), refusal.metadata("id")), ("tenant", &*own.id));
                    let violations = &refusal.details.precondition_failure().unwrap().violations;
                    assert_eq!(violations.len(), 1);
                    assert_eq!((&*violations[0].r#type, &violations[0].subject), ("IN_USE", &format!("tenant/{}", own.id)));
                    assert!(violations[0].description.contains("caller's own"), "{violations:?}");
                }
            }
        }
        let stale = v1::DeleteTenantRequest { etag: "stale".to_owned(), ..delete("name:default", true) };
        expect_status(operator.admin().delete_tenant(stale).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(rows(&server).await, before);
        assert_eq!(found(&operator, "name:default").await, own, "the operator still has access");

        // An administrator's right covers all tenants but its own.
        assert!(deleted(&alpha, delete("name:default", true)).await);
        let locked_out = get(&operator, "name:alpha").await;
        expect_status(locked_out, Code::PermissionDenied, "TENANT_UNKNOWN");
        created(&alpha, create(fixture::a_tenant("default"))).await.unwrap();
        found(&operator, "name:default").await;
    }

    /// Both calls are authenticated before one of them ends.
    async fn of_two_administrators_who_delete_each_others_tenant_one_stays(server) {
        let (alpha, beta) = (server.client("alpha"), server.client("beta"));
        let store = server.store().await;
        let held = store.write().await.unwrap();
        for (client, own) in [(&alpha, "name:alpha"), (&beta, "name:beta")] {
            let own = TenantId(found(client, own).await.id.parse().unwrap());
            assert!(held.tenant_lock_shared(own).await.unwrap());
        }
        let [first, second] = [(&alpha, "name:beta"), (&beta, "name:alpha")].map(|(client, other)| {
            let client = client.clone();
            let request = delete(other, false);
            tokio::spawn(async move { client.admin().delete_tenant(request).await })
        });
        sleep(Duration::from_millis(300)).await;
        held.rollback().await.unwrap();
        let ((Ok(_), Err(refused)) | (Err(refused), Ok(_))) = (first.await.unwrap(), second.await.unwrap()) else {
            panic!("one is refused");
        };
        Refusal::check(refused, Code::PermissionDenied, "TENANT_UNKNOWN");
        store.close().await;
    }

    async fn an_empty_tenant_is_deleted_without_cascade(server) {
        let client = server.client("operator");
        created(&client, create(fixture::a_tenant("gamma"))).await.unwrap();
        assert!(deleted(&client, delete("name:gamma", false)).await);
        expect_status(get(&client, "name:gamma").await, Code::NotFound, "TENANT_NOT_FOUND");
        for reference in ["", "gamma", "ext:gamma", "name: "] {
            let request = v1::DeleteTenantRequest { allow_missing: true, ..delete(reference, true) };
            let result = client.admin().delete_tenant(request).await;
            expect_status(result, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["reference"]);
        }
        let request_id = Uuid::now_v7().to_string();
        created(&client, create(fixture::a_tenant("gamma"))).await.unwrap();
        let request = v1::DeleteTenantRequest { request_id, ..delete("name:gamma", false) };
        assert!(deleted(&client, request.clone()).await);
        created(&client, create(fixture::a_tenant("gamma"))).await.unwrap();
        assert!(deleted(&client, request).await, "a repeat gets the first answer");
        found(&client, "name:gamma").await;
    }

    async fn server_info_reports_the_facts(backend: Backend) {
        let before = SystemClock.now();
        let mut server = TestServer::start(backend).await;
        let first = server_info(&server.client("operator")).await;
        let (name, version) = match backend {
            Backend::Sqlite => ("sqlite", server.sql("select sqlite_version()").await),
            Backend::Postgres => ("postgres", server.sql("select current_setting('server_version')").await),
        };
        assert_eq!(first.database_backend, name);
        assert_eq!([&first.database_version], [&version[0]]);
        assert_eq!(first.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(first.schema_version, server.sql("select max(version) from seaql_migrations").await.concat());
        let file = std::fs::read_to_string(server.data_dir().join("keyring.toml")).unwrap();
        assert_eq!(first.key_encryption_keys, std::slice::from_ref(&first.active_key_encryption_key));
        assert!(file.contains(&format!("active = \"{}\"", first.active_key_encryption_key)));
        assert!(first.reveal_enabled && first.development_mode);
        let started = first.start_time.unwrap();
        assert!(started.seconds >= before.seconds() && started.seconds <= SystemClock.now().seconds(), "{started:?}");

        server.config_mut().reveal.enabled = false;
        server.restart().await;
        let second = server_info(&server.client("operator")).await;
        assert!(!second.reveal_enabled);
        let again = second.start_time.unwrap();
        assert!((again.seconds, again.nanos) > (started.seconds, started.nanos));
        let expected = v1::GetServerInfoResponse { reveal_enabled: true, start_time: first.start_time, ..second };
        assert_eq!(first, expected);
    }
}
