//! Database failures: full, unavailable, disconnected, altered or newer databases; and that nothing is ever half done.

mod atomic;
mod encoding;
mod failover;
mod file;
mod full;
mod granted;
mod group;
mod lost;
mod outcome;
mod pool;
mod pooler;
mod races;
mod sealing;
mod settings;
mod shredding;
mod start;
mod unconfirmed;

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_connector, api_key_material};
use jackfield_testkit::{Backend, Refusal, TestServer};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

/// Every table, children first.
const TABLES: [&str; 15] = [
    "configuration",
    "credential",
    "user_connector",
    "connection",
    "connector",
    "key",
    "label",
    "secret",
    "data_key",
    "tenant",
    "idempotency",
    "audit_event",
    "login_attempt",
    "rewrap",
    "seaql_migrations",
];

/// The number of rows in each table.
async fn counts(server: &TestServer) -> BTreeMap<&'static str, u64> {
    let selects = TABLES.map(|table| format!("SELECT count(*) AS n FROM {table}"));
    let rows = server.sql(&selects.join(" UNION ALL ")).await;
    assert_eq!(rows.len(), TABLES.len());
    TABLES.into_iter().zip(rows.iter().map(|row| row.trim().parse().unwrap())).collect()
}

/// The whole content of the database, in a form that shows every change of a value.
async fn content(server: &TestServer) -> Vec<String> {
    let mut content = Vec::new();
    for table in TABLES {
        if !has_table(server, table).await {
            continue;
        }
        let select = match server.backend() {
            Backend::Sqlite => format!("SELECT * FROM {table} ORDER BY 1, 2"),
            Backend::Postgres => format!("SELECT r::text FROM {table} r ORDER BY 1"),
        };
        content.extend(server.sql(&select).await.into_iter().map(|row| format!("{table}|{row}")));
    }
    content
}

async fn has_table(server: &TestServer, table: &str) -> bool {
    let catalogue = match server.backend() {
        Backend::Sqlite => "SELECT name FROM sqlite_master",
        Backend::Postgres => "SELECT tablename FROM pg_tables",
    };
    server.sql(catalogue).await.iter().any(|name| name == table)
}

/// An id in the database's notation.
fn literal(server: &TestServer, id: &str) -> String {
    match server.backend() {
        Backend::Sqlite => format!("x'{}'", Uuid::parse_str(id).unwrap().simple()),
        Backend::Postgres => format!("'{id}'"),
    }
}

/// Bytes in the database's notation.
fn bytes_literal(server: &TestServer, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match server.backend() {
        Backend::Sqlite => format!("x'{hex}'"),
        Backend::Postgres => format!("'\\x{hex}'"),
    }
}

async fn create_connector(server: &TestServer, tenant: &str, name: &str) -> Result<v1::Connector, Status> {
    let request = v1::CreateConnectorRequest { connector: Some(a_connector(name)), ..Default::default() };
    create_connector_by(server, tenant, request).await
}

async fn create_connector_by(
    server: &TestServer,
    tenant: &str,
    request: v1::CreateConnectorRequest,
) -> Result<v1::Connector, Status> {
    let answer = server.client(tenant).connectors().create_connector(request).await?;
    Ok(answer.into_inner().connector.expect("a created connector"))
}

/// Links a user to an existing connector, stores a credential with an API key, and returns its id.
async fn create_credential(server: &TestServer, tenant: &str, user: &str, connector: &str, api_key: &str) -> String {
    let link =
        v1::AddUserConnectorRequest { user_id: user.to_owned(), connector: connector.to_owned(), ..Default::default() };
    server.client(tenant).user_connectors().add_user_connector(link).await.unwrap();
    let request = v1::CreateCredentialRequest {
        credential: Some(jackfield_testkit::fixture::a_credential(user, connector)),
        material: Some(api_key_material(api_key)),
        ..Default::default()
    };
    let created = server.client(tenant).credentials().create_credential(request).await.unwrap();
    created.into_inner().credential.unwrap().id
}

/// The token of a credential.
async fn issue(server: &TestServer, tenant: &str, credential: &str) -> Result<String, Status> {
    let request = v1::IssueAccessTokenRequest { reference: credential.to_owned(), ..Default::default() };
    Ok(server.client(tenant).credentials().issue_access_token(request).await?.into_inner().access_token)
}

async fn get_connector(server: &TestServer, tenant: &str, name: &str) -> Result<v1::Connector, Status> {
    let request = v1::GetConnectorRequest { reference: format!("name:{name}") };
    Ok(server.client(tenant).connectors().get_connector(request).await?.into_inner().connector.unwrap())
}

async fn names_of_connectors(server: &TestServer, tenant: &str) -> Vec<String> {
    let list = server.client(tenant).connectors().list_connectors(v1::ListConnectorsRequest::default()).await;
    let connectors = jackfield_testkit::collect::items(list).await.unwrap();
    connectors.into_iter().map(|connector| connector.name).collect()
}

/// Checks that a call failed because the database is unavailable, and says when to retry.
#[track_caller]
fn expect_unavailable(status: Status) -> Refusal {
    let refusal = Refusal::check(status, Code::Unavailable, "STORE_UNAVAILABLE");
    let retry = refusal.details.retry_info().and_then(|retry| retry.retry_delay);
    assert!(retry.is_some_and(|delay| delay > Duration::ZERO), "{:?}", refusal.status);
    refusal
}

async fn readiness(server: &TestServer) -> ServingStatus {
    let mut health = HealthClient::new(server.client("alpha").channel());
    health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status()
}

/// Waits until the server reports this readiness.
async fn wait_for_readiness(server: &TestServer, expected: ServingStatus) {
    eventually(&format!("{expected:?}"), async || readiness(server).await == expected).await;
}

pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("timed out: {what}"));
}
