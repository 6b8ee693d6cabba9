//! Operations of many rows happen whole or not at all: each is interrupted at one of its last rows.

use jackfield_api::v1;
use jackfield_testkit::fixture::{a_configuration, a_connection, a_connector, a_credential, api_key_material, strings};
use jackfield_testkit::{Backend, Refusal, TestServer, on_both};
use tonic::{Code, Status};

use super::{content, counts, create_connector_by, create_credential, expect_unavailable, issue};

/// Makes this operation on this table fail from now on: on PostgreSQL like a full disk, on SQLite like a defect,
/// because there is no better way from outside.
async fn break_table(server: &TestServer, operation: &str, table: &str) {
    let statements = match server.backend() {
        Backend::Sqlite => vec![format!(
            "CREATE TRIGGER broken BEFORE {operation} ON {table} BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
        )],
        Backend::Postgres => vec![
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'broken on purpose' USING ERRCODE = 'disk_full'; END $$"
                .to_owned(),
            format!("CREATE TRIGGER broken BEFORE {operation} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()"),
        ],
    };
    for statement in statements {
        server.sql(&statement).await;
    }
}

async fn mend_table(server: &TestServer, table: &str) {
    match server.backend() {
        Backend::Sqlite => server.sql("DROP TRIGGER broken").await,
        Backend::Postgres => {
            server.sql(&format!("DROP TRIGGER broken ON {table}")).await;
            server.sql("DROP FUNCTION broken()").await
        }
    };
}

#[track_caller]
fn expect_broken(server: &TestServer, status: Status) {
    match server.backend() {
        Backend::Sqlite => drop(Refusal::check(status, Code::Internal, "INTERNAL")),
        Backend::Postgres => drop(expect_unavailable(status)),
    }
}

/// Creates a connector with everything that can depend on it. Returns the id of its credential.
async fn fill(server: &TestServer) -> String {
    let mut connector = a_connector("main");
    connector.secret_headers = strings([("x-secret", "the header")]);
    connector.labels = strings([("a", "1")]);
    let request = v1::CreateConnectorRequest { connector: Some(connector), ..Default::default() };
    create_connector_by(server, "alpha", request).await.unwrap();
    let client = server.client("alpha");
    let connection = Some(a_connection("login", "name:main"));
    let request = v1::CreateConnectionRequest { connection, ..Default::default() };
    client.connections().create_connection(request).await.unwrap();
    create_credential(server, "alpha", "u1", "name:main", "one").await;
    let credential = create_credential(server, "alpha", "u2", "name:main", "two").await;
    let configuration = Some(a_configuration(&credential, "Team A"));
    let request = v1::CreateConfigurationRequest { configuration, ..Default::default() };
    client.configurations().create_configuration(request).await.unwrap();
    credential
}

on_both! {
    async fn an_interrupted_change_of_many_rows_leaves_everything_as_it_was(server) {
        let credential = fill(&server).await;
        let before = content(&server).await;
        let alpha = server.client("alpha");

        // The row of the connector is deleted last, after its dependents.
        for (operation, table) in [("DELETE", "connector"), ("DELETE", "credential"), ("DELETE", "label")] {
            break_table(&server, operation, table).await;
            let request =
                v1::DeleteConnectorRequest { reference: "name:main".to_owned(), cascade: true, ..Default::default() };
            expect_broken(&server, alpha.connectors().delete_connector(request).await.unwrap_err());
            assert!(content(&server).await == before, "{operation} {table}");
            mend_table(&server, table).await;
        }

        break_table(&server, "DELETE", "tenant").await;
        let request = v1::DeleteTenantRequest { reference: "name:alpha".to_owned(), cascade: true, ..Default::default() };
        expect_broken(&server, server.client("operator").admin().delete_tenant(request).await.unwrap_err());
        assert!(content(&server).await == before, "the tenant");
        mend_table(&server, "tenant").await;

        // A new credential is a row, a link, a blank configuration and a secret, and another credential loses its mark.
        for (operation, table) in [("INSERT", "secret"), ("INSERT", "configuration"), ("INSERT", "idempotency")] {
            break_table(&server, operation, table).await;
            let request = v1::CreateCredentialRequest {
                credential: Some(v1::Credential { is_default: Some(true), ..a_credential("u2", "name:main") }),
                material: Some(api_key_material("three")),
                request_id: uuid::Uuid::now_v7().to_string(),
                ..Default::default()
            };
            expect_broken(&server, alpha.credentials().create_credential(request).await.unwrap_err());
            assert!(content(&server).await == before, "{operation} {table}");
            mend_table(&server, table).await;
        }

        break_table(&server, "UPDATE", "secret").await;
        let request = v1::UpdateCredentialRequest {
            reference: credential.clone(),
            credential: Some(v1::Credential::default()),
            material: Some(api_key_material("four")),
            ..Default::default()
        };
        expect_broken(&server, alpha.credentials().update_credential(request).await.unwrap_err());
        assert!(content(&server).await == before, "the material");
        mend_table(&server, "secret").await;
        assert_eq!(issue(&server, "alpha", &credential).await.unwrap(), "two");

        // A reveal that cannot be recorded does not happen.
        break_table(&server, "INSERT", "audit_event").await;
        let request = v1::RevealCredentialRequest { reference: credential, purpose: "never recorded".to_owned() };
        expect_broken(&server, alpha.credentials().reveal_credential(request).await.unwrap_err());
        mend_table(&server, "audit_event").await;

        let request =
            v1::DeleteConnectorRequest { reference: "name:main".to_owned(), cascade: true, ..Default::default() };
        let deleted = alpha.connectors().delete_connector(request).await.unwrap().into_inner();
        assert_eq!((deleted.credentials_deleted, deleted.connections_deleted), (2, 1), "mended, it works");
        let counts = counts(&server).await;
        for table in ["configuration", "credential", "user_connector", "connection", "connector", "secret", "label"] {
            assert_eq!(counts[table], 0, "{table}");
        }
    }
}
