//! Credential sources: material that the server asks for, over HTTPS and on the streams of clients.

use futures::future::join_all;
use jackfield_api::v1;
use jackfield_api::v1::credential_material::Material;
use jackfield_api::v1::credential_source::Endpoint;
use jackfield_testkit::{Backend, Client, GrpcSource, Reply, System, TestServer, expect_status, fixture, on_both};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

mod hostile;
mod scope;
mod useless;

use crate::login::connector;
use crate::steps;

fn by_source(user_id: &str) -> v1::AuthenticateUserConnectorRequest {
    v1::AuthenticateUserConnectorRequest {
        user_id: user_id.to_owned(),
        connector: "name:Gmail".to_owned(),
        use_source: true,
        ..Default::default()
    }
}

async fn authenticate(
    client: &Client,
    request: v1::AuthenticateUserConnectorRequest,
) -> Result<Response<v1::AuthenticateUserConnectorResponse>, Status> {
    client.user_connectors().authenticate_user_connector(request).await
}

async fn set(client: &Client, source: v1::CredentialSource) -> v1::CredentialSource {
    let request = v1::SetCredentialSourceRequest { source: Some(source), ..Default::default() };
    client.user_connectors().set_credential_source(request).await.unwrap().into_inner().source.unwrap()
}

async fn get(client: &Client, user_id: &str) -> Result<Response<v1::GetCredentialSourceResponse>, Status> {
    let request = v1::GetCredentialSourceRequest { user_id: user_id.to_owned(), tenant_wide: user_id.is_empty() };
    client.user_connectors().get_credential_source(request).await
}

async fn remove(client: &Client, reference: String) {
    let request = v1::RemoveUserConnectorRequest { reference, ..Default::default() };
    assert!(client.user_connectors().remove_user_connector(request).await.unwrap().into_inner().removed);
}

async fn fails(client: &Client, user_id: &str, code: Code, reason: &str) {
    expect_status(authenticate(client, by_source(user_id)).await, code, reason);
}

/// A source at a URL, which is called with the keys of a connector.
fn https(url: String, keys: &v1::Connector) -> v1::CredentialSource {
    let https = v1::RemoteSource {
        url,
        secret_headers: fixture::strings([("x-source-key", "key-of-the-source")]),
        client_identity_key: keys.client_identity_key.clone(),
        trust_bundle_key: keys.trust_bundle_key.clone(),
        ..Default::default()
    };
    v1::CredentialSource { tenant_wide: true, endpoint: Some(Endpoint::Https(https)), ..Default::default() }
}

/// The same source, for a user.
fn of_user(user_id: &str, source: v1::CredentialSource) -> v1::CredentialSource {
    v1::CredentialSource { user_id: Some(user_id.to_owned()), tenant_wide: false, ..source }
}

fn in_millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 })
}

/// A system that answers differently for each user.
async fn a_system() -> System {
    System::start(|request| {
        let question: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let body = match question["userId"].as_str().unwrap_or_default() {
            "ada" => json!({ "material": { "apiKey": { "apiKey": "from the source" } } }).to_string(),
            "none" => return Reply::new(204, ""),
            "marked" => format!("\u{feff}{}", json!({ "material": { "apiKey": { "apiKey": "after a mark" } } })),
            "empty" => "{}".to_owned(),
            "half" => json!({ "material": { "clientCredentials": { "clientId": "id" } } }).to_string(),
            "other" => "<html></html>".to_owned(),
            "large" => json!({ "material": { "apiKey": { "apiKey": "x".repeat(1024 * 1024) } } }).to_string(),
            "busy" => return Reply { headers: vec![("retry-after", "30".to_owned())], ..Reply::new(429, "") },
            _ => return Reply::new(500, "a crash"),
        };
        Reply::new(200, body)
    })
    .await
}

/// A stream of a client, with the way to its answers.
async fn serve(
    client: &Client,
) -> (Streaming<v1::ServeCredentialsResponse>, mpsc::Sender<v1::ServeCredentialsRequest>) {
    let (answers, receiver) = mpsc::channel(4);
    let questions = client.user_connectors().serve_credentials(ReceiverStream::new(receiver)).await.unwrap();
    (questions.into_inner(), answers)
}

/// Waits for a question and answers it.
async fn answer(
    (questions, answers): &mut (Streaming<v1::ServeCredentialsResponse>, mpsc::Sender<v1::ServeCredentialsRequest>),
    material: Option<v1::CredentialMaterial>,
) -> v1::ServeCredentialsResponse {
    let question = questions.message().await.unwrap().unwrap();
    answers.send(v1::ServeCredentialsRequest { fetch_id: question.fetch_id.clone(), material }).await.unwrap();
    question
}

on_both! {
    async fn an_endpoint_gives_material_or_a_reason(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        for user_id in ["marked", "none", "empty", "half", "other", "large", "crash", "busy"] {
            steps::link(&client, user_id, &link.connector).await;
        }
        fails(&client, "ada", Code::NotFound, "CREDENTIAL_SOURCE_NOT_FOUND").await;
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        set(&client, https(system.url("/credentials"), &keys)).await;
        let answer = authenticate(&client, by_source("ada")).await.unwrap().into_inner();
        assert!(answer.created);
        let credential = answer.credential.unwrap();
        assert_eq!(steps::revealed(&client, &credential.id).await, fixture::api_key_material("from the source"));
        let asked = &system.received()[0];
        assert_eq!(asked.line, "POST /credentials");
        assert_eq!(asked.headers["x-source-key"], "key-of-the-source");
        assert!(!asked.certificate.is_empty());
        let question: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!((&question["connector"], &question["connectorName"]), (&json!(link.connector), &json!("Gmail")));
        for (user_id, code, reason) in [
            ("none", Code::FailedPrecondition, "CREDENTIAL_SOURCE_EMPTY"),
            ("empty", Code::FailedPrecondition, "CREDENTIAL_SOURCE_EMPTY"),
            ("half", Code::FailedPrecondition, "CREDENTIAL_SOURCE_INCOMPLETE"),
            ("other", Code::FailedPrecondition, "CREDENTIAL_SOURCE_INCOMPLETE"),
            ("large", Code::FailedPrecondition, "CREDENTIAL_SOURCE_TOO_LARGE"),
            ("crash", Code::Unavailable, "CREDENTIAL_SOURCE_FAILED"),
        ] {
            fails(&client, user_id, code, reason).await;
        }
        let marked = authenticate(&client, by_source("marked")).await.unwrap().into_inner().credential.unwrap();
        assert_eq!(steps::revealed(&client, &marked.id).await, fixture::api_key_material("after a mark"));
        for (user_id, seconds) in [("crash", 1), ("busy", 30)] {
            let answer = authenticate(&client, by_source(user_id)).await;
            let refused = expect_status(answer, Code::Unavailable, "CREDENTIAL_SOURCE_FAILED");
            let wait = refused.details.retry_info().and_then(|retry| retry.retry_delay);
            assert_eq!(wait, Some(std::time::Duration::from_secs(seconds)), "{user_id}");
        }
        system.hold();
        set(&client, v1::CredentialSource { timeout: in_millis(200), ..https(system.url("/credentials"), &keys) }).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_TIMEOUT").await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        set(&client, https(format!("https://localhost:{}/", closed.port()), &keys)).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_UNREACHABLE").await;
        // The credential is as it was.
        assert_eq!(steps::credential_now(&client, &credential.id).await, credential);
    }

    async fn a_grpc_endpoint_gives_material_or_a_reason(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        for user_id in ["none", "half", "large", "late", "crash"] {
            steps::link(&client, user_id, &link.connector).await;
        }
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let source = GrpcSource::start(system.pki(), |question| match question.user_id.as_str() {
            "ada" => Ok(Some(fixture::oauth2_material("token", "refresh"))),
            "none" => Ok(None),
            "half" => Ok(Some(fixture::api_key_material(""))),
            "large" => Ok(Some(fixture::api_key_material(&"x".repeat(1024 * 1024)))),
            "late" => Err((Code::DeadlineExceeded, "late".to_owned())),
            _ => Err((Code::Internal, "a crash".to_owned())),
        })
        .await;
        let remote = |url: String| {
            let Some(Endpoint::Https(remote)) = https(url, &keys).endpoint else { panic!("another endpoint") };
            v1::CredentialSource { tenant_wide: true, endpoint: Some(Endpoint::Grpc(remote)), ..Default::default() }
        };
        let url = source.url();
        set(&client, remote(url.clone())).await;
        let answer = authenticate(&client, by_source("ada")).await.unwrap().into_inner();
        let credential = answer.credential.unwrap();
        assert!(answer.created && credential.kind() == v1::CredentialKind::Oauth2);
        let asked = &source.asked()[0];
        assert_eq!((asked.user_id.as_str(), asked.connector_name.as_str()), ("ada", "Gmail"));
        for (user_id, code, reason) in [
            ("none", Code::FailedPrecondition, "CREDENTIAL_SOURCE_EMPTY"),
            ("half", Code::FailedPrecondition, "CREDENTIAL_SOURCE_INCOMPLETE"),
            ("large", Code::FailedPrecondition, "CREDENTIAL_SOURCE_TOO_LARGE"),
            ("late", Code::Unavailable, "CREDENTIAL_SOURCE_TIMEOUT"),
            ("crash", Code::Unavailable, "CREDENTIAL_SOURCE_FAILED"),
        ] {
            fails(&client, user_id, code, reason).await;
        }
        source.hold();
        set(&client, v1::CredentialSource { timeout: in_millis(200), ..remote(url.clone()) }).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_TIMEOUT").await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        set(&client, remote(format!("https://localhost:{}", closed.port()))).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_UNREACHABLE").await;
        assert_eq!(steps::credential_now(&client, &credential.id).await, credential);
        // It speaks no HTTP/2.
        set(&client, remote(system.url(""))).await;
        let answer = authenticate(&client, by_source("ada")).await;
        let refused = expect_status(answer, Code::Unavailable, "CREDENTIAL_SOURCE_UNREACHABLE");
        let message = refused.status.message();
        assert!(message.ends_with("the server does not speak HTTP/2"), "{message}");
        let request = v1::SetCredentialSourceRequest { source: Some(remote(format!("{url}/path"))), ..Default::default() };
        let result = client.user_connectors().set_credential_source(request).await;
        let refused = expect_status(result, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(refused.metadata("field"), "source.grpc.url");
    }

    /// Over either protocol.
    async fn a_source_that_refuses_the_certificate_is_unreachable(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let source = GrpcSource::start(system.pki(), |_| Ok(None)).await;
        let without = |url| {
            let Some(Endpoint::Https(remote)) = https(url, &keys).endpoint else { panic!("another endpoint") };
            v1::RemoteSource { client_identity_key: None, ..remote }
        };
        for endpoint in [Endpoint::Https(without(system.url("/credentials"))), Endpoint::Grpc(without(source.url()))] {
            set(&client, v1::CredentialSource { tenant_wide: true, endpoint: Some(endpoint), ..Default::default() }).await;
            let answer = authenticate(&client, by_source("ada")).await;
            let refused = expect_status(answer, Code::Unavailable, "CREDENTIAL_SOURCE_UNREACHABLE");
            let message = refused.status.message();
            assert!(message.ends_with("the server refused the client certificate: one is required"), "{message}");
        }
        assert_eq!((system.received().len(), source.asked().len()), (0, 0));
    }

    /// They are replaced often, and time series stay.
    async fn a_source_has_no_series_of_its_own(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let source = set(&client, https(system.url("/credentials"), &keys)).await;
        authenticate(&client, by_source("ada")).await.unwrap();
        let page = server.metrics_page();
        let calls = TestServer::metric_on(&page, "http_client_request_duration_seconds_count", &[]);
        assert_eq!(calls, Some(1.0));
        assert!(!page.contains(&source.id), "{page}");
    }

    async fn explicit_material_wins_over_the_source_and_that_of_the_user_over_that_of_the_tenant(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        set(&client, https(system.url("/credentials"), &keys)).await;
        let given = v1::AuthenticateUserConnectorRequest {
            material: Some(fixture::api_key_material("given")),
            ..by_source("ada")
        };
        let answer = authenticate(&client, given).await.unwrap().into_inner();
        let credential = answer.credential.unwrap();
        assert_eq!(steps::revealed(&client, &credential.id).await, fixture::api_key_material("given"));
        assert_eq!(system.received().len(), 0);

        set(&client, fixture::a_stream_source("ada")).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_NOT_CONNECTED").await;
        assert_eq!(system.received().len(), 0);
        let delete = v1::DeleteCredentialSourceRequest { user_id: "ada".to_owned(), ..Default::default() };
        assert!(client.user_connectors().delete_credential_source(delete.clone()).await.unwrap().into_inner().deleted);
        expect_status(
            client.user_connectors().delete_credential_source(delete.clone()).await,
            Code::NotFound,
            "CREDENTIAL_SOURCE_NOT_FOUND",
        );
        let allowed = v1::DeleteCredentialSourceRequest { allow_missing: true, ..delete };
        assert!(!client.user_connectors().delete_credential_source(allowed).await.unwrap().into_inner().deleted);
        authenticate(&client, by_source("ada")).await.unwrap();
    }

    async fn a_client_answers_on_its_stream(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        set(&client, fixture::a_stream_source("")).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_NOT_CONNECTED").await;
        let older = serve(&client).await;
        // A stream of another tenant is not asked.
        let mut newest = serve(&client).await;
        let _others = serve(&server.client("beta")).await;
        let asking = authenticate(&client, by_source("ada"));
        let answering = answer(&mut newest, Some(fixture::api_key_material("key")));
        let (authenticated, question) = tokio::join!(asking, answering);
        let credential = authenticated.unwrap().into_inner().credential.unwrap();
        assert_eq!(steps::revealed(&client, &credential.id).await, fixture::api_key_material("key"));
        assert_eq!((question.user_id.as_str(), question.connector.as_str()), ("ada", link.connector.as_str()));
        assert_eq!((question.connector_name.as_str(), question.kind()), ("Gmail", v1::CredentialKind::Unspecified));

        drop(older);
        let half = Material::ClientCredentials(v1::ClientCredentialsMaterial { client_id: "id".into(), ..Default::default() });
        for (material, reason) in [
            (None, "CREDENTIAL_SOURCE_EMPTY"),
            (Some(v1::CredentialMaterial { material: Some(half) }), "CREDENTIAL_SOURCE_INCOMPLETE"),
            (Some(fixture::oauth2_material("", "")), "CREDENTIAL_SOURCE_INCOMPLETE"),
            (Some(fixture::api_key_material(&"x".repeat(1024 * 1024))), "CREDENTIAL_SOURCE_TOO_LARGE"),
        ] {
            let asking = authenticate(&client, by_source("ada"));
            let (refused, question) = tokio::join!(asking, answer(&mut newest, material));
            expect_status(refused, Code::FailedPrecondition, reason);
            assert_eq!(question.kind(), v1::CredentialKind::ApiKey);
        }
        assert_eq!(steps::credential_now(&client, &credential.id).await, credential);

        // Each client may serve other users.
        let (mut before, mut latest) = (serve(&client).await, serve(&client).await);
        let asking = authenticate(&client, by_source("ada"));
        let answering = async {
            answer(&mut latest, None).await;
            answer(&mut before, Some(fixture::api_key_material("of the other"))).await;
        };
        let (authenticated, ()) = tokio::join!(asking, answering);
        authenticated.unwrap();
        assert_eq!(steps::revealed(&client, &credential.id).await, fixture::api_key_material("of the other"));
    }

    async fn a_stream_that_ends_or_hangs_has_its_reason(server) {
        let client = server.client("alpha");
        steps::linked(&client, "ada", "Gmail").await;
        set(&client, fixture::a_stream_source("ada")).await;
        let (mut questions, answers) = serve(&client).await;
        let crash = async {
            questions.message().await.unwrap().unwrap();
            drop((questions, answers));
        };
        let (refused, ()) = tokio::join!(authenticate(&client, by_source("ada")), crash);
        expect_status(refused, Code::Unavailable, "CREDENTIAL_SOURCE_FAILED");

        set(&client, v1::CredentialSource { timeout: in_millis(200), ..fixture::a_stream_source("ada") }).await;
        let _hangs = serve(&client).await;
        fails(&client, "ada", Code::Unavailable, "CREDENTIAL_SOURCE_TIMEOUT").await;
    }

    async fn a_source_is_read_without_its_secrets_and_keeps_its_keys(server) {
        let client = server.client("alpha");
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let first = set(&client, https(system.url("/credentials"), &keys)).await;
        let Some(Endpoint::Https(endpoint)) = &first.endpoint else { panic!("{first:?}") };
        assert_eq!((endpoint.secret_headers.len(), endpoint.secret_header_names.len()), (0, 1));
        assert_eq!(endpoint.secret_header_names[0], "x-source-key");
        assert_eq!(endpoint.client_identity_key, keys.client_identity_key);
        assert_eq!(endpoint.trust_bundle_key, keys.trust_bundle_key);
        assert_eq!(first.timeout, Some(prost_types::Duration { seconds: 10, nanos: 0 }));
        assert_eq!(get(&client, "").await.unwrap().into_inner().source, Some(first.clone()));
        expect_status(get(&client, "ada").await, Code::NotFound, "CREDENTIAL_SOURCE_NOT_FOUND");
        expect_status(get(&server.client("beta"), "").await, Code::NotFound, "CREDENTIAL_SOURCE_NOT_FOUND");
        let request = v1::DeleteKeyRequest { reference: keys.trust_bundle_key.clone().unwrap(), ..Default::default() };
        let refused = expect_status(client.keys().delete_key(request.clone()).await, Code::FailedPrecondition, "IN_USE");
        assert_eq!(refused.metadata("used_by.credential_source"), "1");
        assert_eq!(server.sql("SELECT count(*) FROM secret WHERE owner = 'credential_source'").await, ["1"]);

        let second = set(&client, fixture::a_stream_source("")).await;
        assert_ne!(second.id, first.id);
        assert_eq!(server.sql("SELECT count(*) FROM secret WHERE owner = 'credential_source'").await, ["0"]);
        client.keys().delete_key(request).await.unwrap();

        for (wrong, field) in [
            (v1::CredentialSource { endpoint: None, ..fixture::a_stream_source("ada") }, "source.endpoint"),
            (https("http://localhost:1/".to_owned(), &keys), "source.https.url"),
            (v1::CredentialSource { timeout: in_millis(0), ..fixture::a_stream_source("ada") }, "source.timeout"),
        ] {
            let request = v1::SetCredentialSourceRequest { source: Some(wrong), ..Default::default() };
            let result = client.user_connectors().set_credential_source(request).await;
            assert_eq!(expect_status(result, Code::InvalidArgument, "FIELD_INVALID").metadata("field"), field);
        }
        let neither = v1::AuthenticateUserConnectorRequest { use_source: false, ..by_source("ada") };
        let refused = expect_status(authenticate(&client, neither).await, Code::InvalidArgument, "FIELD_INVALID");
        assert_eq!(refused.metadata("field"), "material");
    }

    async fn the_source_of_a_user_goes_with_the_last_link(server) {
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        let other = steps::linked(&client, "ada", "Slack").await;
        set(&client, fixture::a_stream_source("")).await;
        let source = set(&client, fixture::a_stream_source("ada")).await;
        for (reference, left) in [(link.id, Some(source)), (other.id, None)] {
            remove(&client, reference).await;
            let found = get(&client, "ada").await.ok().and_then(|found| found.into_inner().source);
            assert_eq!(found, left);
        }
        assert!(get(&client, "").await.is_ok(), "that of the tenant stays");
    }

    /// Each of them sees the other links, or nothing of them.
    async fn links_that_are_removed_at_once_take_the_source_along(server) {
        let client = server.client("alpha");
        for round in 0..5 {
            let mut links = Vec::new();
            for name in ["Gmail", "Slack", "Salesforce", "Asana"] {
                links.push(steps::linked(&client, "ada", &format!("{name} {round}")).await.id);
            }
            set(&client, fixture::a_stream_source("ada")).await;
            join_all(links.into_iter().map(|link| remove(&client, link))).await;
            assert_eq!(server.sql("SELECT count(*) FROM credential_source").await, ["0"], "round {round}");
        }
    }

    /// The call that sets it waits for the removal, or the removal for it.
    async fn a_source_that_is_set_meanwhile_is_there_or_gone(server) {
        let client = server.client("alpha");
        for round in 0..5 {
            let link = steps::linked(&client, "ada", &format!("Gmail {round}")).await.id;
            let source = fixture::a_stream_source("ada");
            let (_, ()) = tokio::join!(set(&client, source.clone()), remove(&client, link));
            let link = steps::linked(&client, "ada", &format!("Slack {round}")).await.id;
            set(&client, source).await;
            remove(&client, link).await;
            assert_eq!(server.sql("SELECT count(*) FROM credential_source").await, ["0"], "round {round}");
        }
    }

    async fn sources_of_users_without_links_go_with_a_connector(server) {
        let client = server.client("alpha");
        let gmail = steps::linked(&client, "ada", "Gmail").await.connector;
        steps::link(&client, "bob", &gmail).await;
        let slack = steps::linked(&client, "bob", "Slack").await.connector;
        let system = a_system().await;
        let keys = connector(&client, &system, "keys").await;
        let remote = https(system.url("/credentials"), &keys);
        for user_id in ["ada", "bob", "eve"] {
            set(&client, of_user(user_id, remote.clone())).await;
        }
        set(&client, remote).await;
        let delete = async |reference: &str| {
            let reference = reference.to_owned();
            let request = v1::DeleteConnectorRequest { reference, cascade: true, ..Default::default() };
            client.connectors().delete_connector(request).await.unwrap();
            let mut left = Vec::new();
            for user_id in ["ada", "bob", "eve", ""] {
                left.extend(get(&client, user_id).await.is_ok().then_some(user_id));
            }
            (left, server.sql("SELECT count(*) FROM secret WHERE owner = 'credential_source'").await.join(""))
        };
        assert_eq!(delete(&gmail).await, (vec!["bob", "eve", ""], "3".to_owned()), "bob has another link, eve never had one");
        assert_eq!(delete(&slack).await, (vec!["eve", ""], "2".to_owned()));
    }

    async fn a_tenant_has_a_bounded_number_of_sources(backend: Backend) {
        let server = TestServer::start(backend).await;
        let client = server.client("alpha");
        set(&client, fixture::a_stream_source("ada")).await;
        let id = if backend == Backend::Postgres { "gen_random_uuid()" } else { "randomblob(16)" };
        // All but one of those that it can have.
        server.sql(&format!(
            "INSERT INTO credential_source (tenant_id, id, user_key, doc) \
             WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 9998) \
             SELECT tenant_id, {id}, 'user-' || number, doc FROM credential_source, numbers WHERE user_key = 'ada'"
        ))
        .await;
        let try_set = async |client: &Client, user_id: &str| {
            let source = Some(fixture::a_stream_source(user_id));
            let request = v1::SetCredentialSourceRequest { source, ..Default::default() };
            client.user_connectors().set_credential_source(request).await
        };
        try_set(&client, "bob").await.unwrap();
        let refused = expect_status(try_set(&client, "eve").await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
        assert_eq!(refused.metadata("limit"), "10000");
        try_set(&client, "bob").await.unwrap();
        try_set(&server.client("beta"), "eve").await.unwrap();
        let delete = v1::DeleteCredentialSourceRequest { user_id: "ada".to_owned(), ..Default::default() };
        client.user_connectors().delete_credential_source(delete).await.unwrap();
        try_set(&client, "eve").await.unwrap();
    }
}

mod postgres {
    use super::*;

    /// Locks are taken from the top down, so no call that holds a link waits for the tenant.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_last_link_of_a_user_is_removed_without_the_lock_of_the_tenant() {
        let server = TestServer::start(Backend::Postgres).await;
        let client = server.client("alpha");
        let link = steps::linked(&client, "ada", "Gmail").await;
        set(&client, fixture::a_stream_source("ada")).await;
        let (store, tenant) = (server.store().await, steps::tenant_id(&server, "alpha").await);
        let txn = store.write().await.unwrap();
        // There is no policy to lock, so this locks the tenant.
        txn.routing_policy_fetch_for_update(tenant).await.unwrap();
        remove(&client, link.id).await;
        expect_status(get(&client, "ada").await, Code::NotFound, "CREDENTIAL_SOURCE_NOT_FOUND");
        txn.rollback().await.unwrap();
        store.close().await;
    }
}
