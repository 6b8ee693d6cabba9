//! CredentialsService: the facts of credentials. Limits of material are in `material`, the calls that return it in
//! `issue` and `reveal`.

mod default;
mod hot;
mod issue;
mod material;
mod named;
mod reveal;
mod revoke;
mod rights;
mod update;

use std::time::Duration;

use jackfield_api::v1::{self, credential_material::Material};
use jackfield_testkit::{Client, Identity, ManualClock, TestServer, collect, expect_status, fixture, on_both};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::steps;

fn material(material: Material) -> v1::CredentialMaterial {
    v1::CredentialMaterial { material: Some(material) }
}

/// OAuth tokens without an expiry; empty ones are left out.
fn tokens(access_token: &str, refresh_token: &str) -> v1::CredentialMaterial {
    let (access_token, refresh_token) = (access_token.to_owned(), refresh_token.to_owned());
    material(Material::Oauth2(v1::OAuth2Material { access_token, refresh_token, ..Default::default() }))
}

fn client_credentials(client_id: &str, client_secret: &str) -> v1::CredentialMaterial {
    let (client_id, client_secret) = (client_id.to_owned(), client_secret.to_owned());
    material(Material::ClientCredentials(v1::ClientCredentialsMaterial { client_id, client_secret }))
}

fn client_certificate(key: &str) -> v1::CredentialMaterial {
    material(Material::ClientCertificate(v1::ClientCertificateMaterial { key: key.to_owned() }))
}

fn custom<const N: usize>(fields: [(&str, &str); N]) -> v1::CredentialMaterial {
    material(Material::Custom(v1::CustomMaterial { fields: fixture::strings(fields) }))
}

fn create(facts: v1::Credential, material: v1::CredentialMaterial) -> v1::CreateCredentialRequest {
    v1::CreateCredentialRequest { credential: Some(facts), material: Some(material), ..Default::default() }
}

async fn created(
    client: &Client,
    request: v1::CreateCredentialRequest,
) -> Result<Response<v1::CreateCredentialResponse>, Status> {
    client.credentials().create_credential(request).await
}

async fn listed(client: &Client, request: v1::ListCredentialsRequest) -> Vec<v1::Credential> {
    let found = collect::items(client.credentials().list_credentials(request.clone()).await).await;
    found.unwrap_or_else(|status| panic!("{request:?}: {status:?}"))
}

async fn deleted(client: &Client, reference: &str) -> v1::DeleteCredentialResponse {
    let request = v1::DeleteCredentialRequest { reference: reference.to_owned(), ..Default::default() };
    client.credentials().delete_credential(request).await.unwrap().into_inner()
}

/// A key with a client certificate, and one with a bundle of authorities.
async fn keys(server: &TestServer, client: &Client) -> (String, String) {
    let leaf = server.pki().client(Identity::of("a client of elsewhere"));
    let import = |name: &str, r#type: v1::KeyType, certificate_pem: &str, private_key_pem: &str| {
        let (name, certificate_pem) = (name.to_owned(), certificate_pem.to_owned());
        let key = v1::Key { name, r#type: r#type.into(), certificate_pem, ..Default::default() };
        let private_key_pem = private_key_pem.to_owned();
        let request = v1::ImportKeyRequest { key: Some(key), private_key_pem, ..Default::default() };
        async move { client.keys().import_key(request).await.unwrap().into_inner().key.unwrap().id }
    };
    let identity = import("identity", v1::KeyType::ClientIdentity, &leaf.certificate_pem, &leaf.key_pem).await;
    let bundle = import("bundle", v1::KeyType::TrustBundle, &server.pki().ca_pem(), "").await;
    (identity, bundle)
}

on_both! {
    async fn each_kind_is_stored_with_its_facts(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let (key, _) = keys(&server, &client).await;
        let kinds = [
            (fixture::oauth2_material("token", "refresh"), v1::CredentialKind::Oauth2),
            (fixture::oauth2_material("token", ""), v1::CredentialKind::Oauth2),
            (fixture::api_key_material("key"), v1::CredentialKind::ApiKey),
            (fixture::basic_material("user", "password"), v1::CredentialKind::Basic),
            (client_credentials("client", "a client secret"), v1::CredentialKind::ClientCredentials),
            (client_certificate("name:Identity"), v1::CredentialKind::ClientCertificate),
            (custom([("field", "value")]), v1::CredentialKind::Custom),
        ];
        let mut stored = Vec::new();
        for (index, (given, kind)) in kinds.into_iter().enumerate() {
            let facts = v1::Credential {
                external_id: Some(format!(" ext:Account {index} ")),
                provider_account_id: Some("1084".to_owned()),
                provider_data: Some(fixture::object([("plan", "pro")])),
                labels: fixture::strings([("stage", "test")]),
                // Output-only fields are not taken from the caller.
                state: v1::CredentialState::Revoked.into(),
                version: 7,
                user_connector: Uuid::now_v7().to_string(),
                ..fixture::a_credential("ada", "name:gmail")
            };
            let credential = steps::credential(&client, facts.clone(), given.clone()).await;
            let (scopes, expire_time) = match &given.material {
                Some(Material::Oauth2(oauth2)) => (oauth2.scopes.clone(), oauth2.expire_time),
                _ => (Vec::new(), None),
            };
            let expected = v1::Credential {
                id: credential.id.clone(),
                external_id: Some(format!("Account {index}")),
                connector: link.connector.clone(),
                user_connector: link.id.clone(),
                kind: kind.into(),
                state: v1::CredentialState::Valid.into(),
                scopes,
                // Times are kept in microseconds.
                expire_time: expire_time.map(|time| prost_types::Timestamp { nanos: time.nanos / 1_000 * 1_000, ..time }),
                is_default: Some(index == 0),
                version: 1,
                // There is no connection through which one could be refreshed.
                refreshable: false,
                default_configuration: credential.default_configuration.clone(),
                create_time: credential.create_time,
                update_time: credential.create_time,
                etag: credential.etag.clone(),
                ..facts
            };
            assert_eq!(credential, expected);
            assert!(credential.create_time.is_some() && !credential.etag.is_empty());
            for reference in [&credential.id, &format!("ext:Account {index}")] {
                assert_eq!(steps::credential_now(&client, reference).await, credential);
            }
            stored.push(credential);
        }
        // The default mark did not move, so no later credential changed an earlier one.
        assert_eq!(listed(&client, Default::default()).await, stored);
        let used = client.keys().get_key(v1::GetKeyRequest { reference: key.clone() }).await.unwrap().into_inner().key;
        assert_eq!(used.unwrap().used_by_count, 1);
        let result = client.keys().delete_key(v1::DeleteKeyRequest { reference: key, ..Default::default() }).await;
        expect_status(result, Code::FailedPrecondition, "IN_USE");
    }

    async fn tokens_expire_over_time(backend: Backend) {
        let clock = ManualClock::at_present();
        let server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let facts = |external_id: &str| v1::Credential {
            external_id: Some(external_id.to_owned()),
            ..fixture::a_credential("ada", "name:Gmail")
        };
        // Valid for an hour, for ever, with a past expiry, without an access token, and without any token.
        let hour = steps::credential(&client, facts("hour"), steps::tokens_for(&clock, 3600, "token", "refresh")).await;
        steps::credential(&client, facts("ever"), tokens("token", "")).await;
        steps::credential(&client, facts("past"), steps::tokens_for(&clock, -1, "token", "")).await;
        let only_refresh = steps::tokens_for(&clock, 3600, "", "refresh");
        let renewable = steps::credential(&client, facts("renewable"), only_refresh).await;
        assert_eq!((renewable.refreshable, renewable.expire_time), (false, None), "there is nothing that could expire");
        steps::credential(&client, facts("empty"), tokens("", "")).await;

        let states = |filter: &str| {
            let request = v1::ListCredentialsRequest { filter: filter.to_owned(), ..Default::default() };
            let client = client.clone();
            async move {
                let found = listed(&client, request).await;
                for credential in &found {
                    assert_eq!(steps::credential_now(&client, &credential.id).await, *credential);
                }
                let text = |it: &v1::Credential| format!("{} {}", it.external_id(), it.state().as_str_name());
                found.iter().map(text).map(|it| it.replace("CREDENTIAL_STATE_", "")).collect::<Vec<_>>()
            }
        };
        let (expired, reauth) = ("past EXPIRED", ["renewable NEEDS_REAUTH", "empty NEEDS_REAUTH"]);
        assert_eq!(states("").await, ["hour VALID", "ever VALID", expired, reauth[0], reauth[1]]);
        assert_eq!(states("state = VALID").await, ["hour VALID", "ever VALID"]);
        assert_eq!(states("state = EXPIRED").await, [expired]);
        assert_eq!(states("state = NEEDS_REAUTH").await, reauth);

        // Exact to the microsecond: at the moment of expiry it has expired.
        clock.advance(Duration::from_secs(3599));
        assert_eq!(states("state = VALID").await, ["hour VALID", "ever VALID"]);
        clock.advance(Duration::from_secs(1));
        assert_eq!(states("state = VALID").await, ["ever VALID"]);
        assert_eq!(states("state = EXPIRED").await, ["hour EXPIRED", expired]);
        assert_eq!(
            states("state != VALID AND refreshable = false").await,
            ["hour EXPIRED", expired, reauth[0], reauth[1]]
        );
        assert_eq!(steps::credential_now(&client, "ext:hour").await.etag, hour.etag, "time alone changes no etag");
    }

    /// A refresh token alone does not do it.
    async fn one_is_refreshable_through_a_connection_alone(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let connection = Some(fixture::a_connection("Gmail", &link.connector));
        let request = v1::CreateConnectionRequest { connection, ..Default::default() };
        let connection = client.connections().create_connection(request).await.unwrap().into_inner().connection.unwrap();
        let store = |external_id: &str, connection: &str, refresh_token: &str| {
            let facts = v1::Credential {
                external_id: Some(external_id.to_owned()),
                connection: connection.to_owned(),
                ..fixture::a_credential("ada", &link.connector)
            };
            let (client, material) = (client.clone(), tokens("token", refresh_token));
            async move { steps::credential(&client, facts, material).await.refreshable }
        };
        assert!(store("both", &connection.id, "refresh").await);
        assert!(!store("no refresh token", &connection.id, "").await);
        assert!(!store("no connection", "", "refresh").await);
        for (filter, expected) in
            [("refreshable = true", &["both"][..]), ("refreshable = false", &["no refresh token", "no connection"])]
        {
            let request = v1::ListCredentialsRequest { filter: filter.to_owned(), ..Default::default() };
            let found = listed(&client, request).await;
            assert_eq!(found.iter().map(v1::Credential::external_id).collect::<Vec<_>>(), expected, "{filter}");
        }
    }

    async fn a_credential_needs_its_link_and_its_references(server) {
        let (client, beta) = (server.client("alpha"), server.client("beta"));
        let link = steps::linked(&client, "ada", "Gmail").await;
        let other = steps::connector(&client, fixture::an_oauth2_connector("Slack")).await;
        let connection = |name: &str| {
            let connection = Some(fixture::a_connection(name, "name:Slack"));
            v1::CreateConnectionRequest { connection, ..Default::default() }
        };
        client.connections().create_connection(connection("Slack login")).await.unwrap();
        let theirs = steps::linked(&beta, "ada", "Jira").await;
        let key = fixture::api_key_material("key");
        let refused = |facts: v1::Credential, code, reason: &'static str| {
            let request = create(facts, key.clone());
            let client = client.clone();
            async move { expect_status(created(&client, request).await, code, reason) }
        };
        let ada = fixture::a_credential("ada", &link.connector);
        refused(fixture::a_credential("grace", &link.connector), Code::NotFound, "USER_CONNECTOR_NOT_FOUND").await;
        refused(fixture::a_credential("Ada", &link.connector), Code::NotFound, "USER_CONNECTOR_NOT_FOUND").await;
        refused(fixture::a_credential("ada", &other.id), Code::NotFound, "USER_CONNECTOR_NOT_FOUND").await;
        refused(fixture::a_credential("ada", "name:Jira"), Code::NotFound, "CONNECTOR_NOT_FOUND").await;
        refused(fixture::a_credential("ada", &theirs.connector), Code::NotFound, "CONNECTOR_NOT_FOUND").await;
        let from = |connection: &str| v1::Credential { connection: connection.to_owned(), ..ada.clone() };
        refused(from("name:Slack log-in"), Code::NotFound, "CONNECTION_NOT_FOUND").await;
        let refusal = refused(from("name:slack LOGIN"), Code::InvalidArgument, "FIELD_INVALID").await;
        refusal.expect_fields(&["credential.connection"]);

        steps::link(&client, "ada", &other.id).await;
        let facts = v1::Credential { connection: "name:slack login".to_owned(), ..fixture::a_credential("ada", &other.id) };
        let credential = steps::credential(&client, facts, tokens("token", "")).await;
        let of_connection = |connection: &str| {
            v1::ListCredentialsRequest { connection: connection.to_owned(), ..Default::default() }
        };
        assert_eq!(listed(&client, of_connection(&credential.connection)).await, [credential]);
        assert_eq!(server.sql("select count(*) from secret").await, ["2"], "refused creates left no material");
    }

    async fn ids_are_unique_and_become_free_again(server) {
        let (client, beta) = (server.client("alpha"), server.client("beta"));
        for tenant in [&client, &beta] {
            steps::linked(tenant, "ada", "Gmail").await;
            steps::link(tenant, "grace", "name:Gmail").await;
        }
        let facts = |user: &str| v1::Credential { external_id: Some("work".to_owned()), ..fixture::a_credential(user, "name:Gmail") };
        let key = || fixture::api_key_material("key");
        let id = Uuid::now_v7().to_string();
        let chosen = v1::CreateCredentialRequest { id: id.clone(), ..create(facts("ada"), key()) };
        let first = created(&client, chosen.clone()).await.unwrap().into_inner().credential.unwrap();
        assert_eq!(first.id, id);
        let refusal = expect_status(created(&client, create(facts("grace"), key())).await, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
        assert_eq!((refusal.metadata("resource"), refusal.metadata("external_id")), ("credential", "work"));
        let prefixed = v1::Credential { external_id: Some("ext:work".to_owned()), ..facts("grace") };
        expect_status(created(&client, create(prefixed, key())).await, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
        let same_id = v1::Credential { external_id: Some(String::new()), ..facts("grace") };
        let request = v1::CreateCredentialRequest { id: id.clone(), ..create(same_id, key()) };
        let refusal = expect_status(created(&client, request).await, Code::AlreadyExists, "ID_TAKEN");
        assert_eq!(refusal.metadata("id"), id);
        // Letter case matters, and another tenant has its own ids.
        steps::credential(&client, v1::Credential { external_id: Some("Work".to_owned()), ..facts("grace") }, key()).await;
        created(&beta, chosen).await.unwrap();
        assert!(deleted(&client, "ext:work").await.deleted);
        steps::credential(&client, facts("grace"), key()).await;
        assert_eq!(steps::credential_now(&beta, "ext:work").await.user_id, "ada");
    }

    async fn a_create_can_be_validated_and_repeated(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let facts = fixture::a_credential("ada", "name:Gmail");
        let id = Uuid::now_v7().to_string();
        let tried = v1::CreateCredentialRequest {
            id: id.clone(),
            validate_only: true,
            ..create(facts, fixture::api_key_material("key"))
        };
        let answer = created(&client, tried.clone()).await.unwrap().into_inner().credential.unwrap();
        assert_eq!((answer.id.as_str(), answer.is_default), (id.as_str(), Some(true)));
        for table in ["credential", "configuration", "secret"] {
            assert_eq!(server.sql(&format!("select count(*) from {table}")).await, ["0"], "{table}");
        }
        let request_id = Uuid::now_v7().to_string();
        let request = v1::CreateCredentialRequest { validate_only: false, request_id, ..tried };
        let first = created(&client, request.clone()).await.unwrap().into_inner();
        assert_eq!(created(&client, request.clone()).await.unwrap().into_inner(), first);
        assert_eq!(server.sql("select count(*) from secret").await, ["1"]);
        // A request with other material is another request, even if only a secret differs.
        let other = v1::CreateCredentialRequest { material: Some(fixture::api_key_material("key 2 of ada")), ..request };
        let refusal = expect_status(created(&client, other).await, Code::FailedPrecondition, "REQUEST_ID_CONFLICT");
        assert!(!format!("{:?}", refusal.status).contains("key 2"));
    }

    async fn a_delete_removes_configurations_and_material(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let labels = fixture::strings([("team", "a")]);
        let facts = v1::Credential { labels, ..fixture::a_credential("ada", &link.connector) };
        let credential = steps::credential(&client, facts, fixture::api_key_material("key")).await;
        steps::configuration(&client, fixture::a_configuration(&credential.id, "Team A")).await;
        let request = v1::DeleteCredentialRequest { reference: credential.id.clone(), ..Default::default() };
        let delete = |request: v1::DeleteCredentialRequest| async { client.credentials().delete_credential(request).await };

        let stale = v1::DeleteCredentialRequest { etag: "stale".to_owned(), ..request.clone() };
        expect_status(delete(stale).await, Code::Aborted, "ETAG_MISMATCH");
        let tried = v1::DeleteCredentialRequest { validate_only: true, ..request.clone() };
        let expected = v1::DeleteCredentialResponse { deleted: true, configurations_deleted: 2 };
        assert_eq!(delete(tried).await.unwrap().into_inner(), expected);
        assert_eq!(steps::credential_now(&client, &credential.id).await, credential);

        let fresh = v1::DeleteCredentialRequest { etag: credential.etag.clone(), ..request.clone() };
        assert_eq!(delete(fresh).await.unwrap().into_inner(), expected);
        for table in ["credential", "configuration", "secret", "label"] {
            assert_eq!(server.sql(&format!("select count(*) from {table}")).await, ["0"], "{table}");
        }
        expect_status(delete(request.clone()).await, Code::NotFound, "CREDENTIAL_NOT_FOUND");
        let missing = v1::DeleteCredentialRequest { allow_missing: true, ..request };
        assert_eq!(delete(missing).await.unwrap().into_inner(), v1::DeleteCredentialResponse::default());
        for reference in ["", " ", "name:Gmail", "work", "ext:", "ext: "] {
            let request = v1::DeleteCredentialRequest { reference: reference.to_owned(), allow_missing: true, ..Default::default() };
            expect_status(delete(request).await, Code::InvalidArgument, "REFERENCE_INVALID").expect_fields(&["reference"]);
        }
        // The link stays.
        let request = v1::GetUserConnectorRequest { reference: link.id, ..Default::default() };
        let link = client.user_connectors().get_user_connector(request).await.unwrap().into_inner().user_connector.unwrap();
        assert_eq!((link.credential_count, link.state()), (0, v1::UserConnectorState::Attached));
    }

    async fn lists_are_narrowed_by_parent_and_filter(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        steps::linked(&client, "ada", "Slack").await;
        steps::link(&client, "Grace", "name:Slack").await;
        let store = |user: &str, connector: &str, external_id: &str, account: &str, team: &str, material| {
            let facts = v1::Credential {
                external_id: Some(external_id.to_owned()),
                provider_account_id: Some(account.to_owned()),
                labels: fixture::strings([("team", team)]),
                ..fixture::a_credential(user, connector)
            };
            async { steps::credential(&client, facts, material).await }
        };
        store("ada", "name:Gmail", "one", "ACC-1", "a", fixture::api_key_material("key")).await;
        store("ada", "name:Gmail", "two", "acc-2", "b", fixture::oauth2_material("token", "refresh")).await;
        store("ada", "name:Slack", "three", "", "a", fixture::basic_material("user", "password")).await;
        store("Grace", "name:Slack", "four", "other", "b", tokens("", "")).await;
        let names = |request: v1::ListCredentialsRequest| async {
            listed(&client, request).await.into_iter().map(|it| it.external_id().to_owned()).collect::<Vec<_>>()
        };
        let all = v1::ListCredentialsRequest::default();
        let scoped = |user_id: &str, connector: &str| v1::ListCredentialsRequest {
            user_id: user_id.to_owned(),
            connector: connector.to_owned(),
            ..Default::default()
        };
        assert_eq!(names(all.clone()).await, ["one", "two", "three", "four"]);
        assert_eq!(names(scoped("ada", "")).await, ["one", "two", "three"]);
        assert_eq!(names(scoped("", "name:slack")).await, ["three", "four"]);
        assert_eq!(names(scoped("ada", "name:Slack")).await, ["three"]);
        assert_eq!(names(scoped("grace", "")).await, Vec::<String>::new(), "letter case of user ids matters");
        let cases: [(&str, &[&str]); 13] = [
            ("kind = API_KEY OR kind = BASIC", &["one", "three"]),
            ("kind != OAUTH2", &["one", "three"]),
            ("is_default = true", &["one", "three", "four"]),
            ("is_default = false", &["two"]),
            ("refreshable = true", &[]),
            ("labels.team = a", &["one", "three"]),
            ("labels:team AND NOT labels.team = a", &["two", "four"]),
            ("acc", &["one", "two"]),
            ("GRACE", &["four"]),
            ("provider_account_id = \"acc-2\"", &["two"]),
            ("external_id = \"t*\"", &["two", "three"]),
            ("expire_time > \"2020-01-01T00:00:00Z\"", &["two"]),
            ("user_id = ada labels.team = b", &["two"]),
        ];
        for (filter, expected) in cases {
            let request = v1::ListCredentialsRequest { filter: filter.to_owned(), ..all.clone() };
            assert_eq!(names(request).await, expected, "{filter}");
        }
        let unknown = [
            (scoped("", "name:Jira"), "CONNECTOR_NOT_FOUND"),
            (v1::ListCredentialsRequest { connection: "ext:none".to_owned(), ..all.clone() }, "CONNECTION_NOT_FOUND"),
        ];
        for (request, reason) in unknown {
            expect_status(client.credentials().list_credentials(request).await, Code::NotFound, reason);
        }
        // Secrets are not searched, and are not even fields of filters.
        let request = v1::ListCredentialsRequest { filter: "refresh".to_owned(), ..all.clone() };
        assert_eq!(names(request).await, Vec::<String>::new());
        let request = v1::ListCredentialsRequest { filter: "access_token = token".to_owned(), ..all };
        expect_status(client.credentials().list_credentials(request).await, Code::InvalidArgument, "FILTER_INVALID");
    }
}
