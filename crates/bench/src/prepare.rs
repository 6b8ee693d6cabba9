//! The databases that are measured: made by Jackfield itself through its API, and then multiplied with SQL, so that every
//! row is one that it reads as its own.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_api::v1::admin_service_client::AdminServiceClient;
use jackfield_api::v1::connection_service_client::ConnectionServiceClient;
use jackfield_api::v1::connector_service_client::ConnectorServiceClient;
use jackfield_api::v1::credentials_service_client::CredentialsServiceClient;
use jackfield_api::v1::user_connector_service_client::UserConnectorServiceClient;
use jackfield_testkit::fixture;
use jackfield_testkit::postgres;
use jackfield_testkit::store::test_support::entity::{connection, connector};
use sea_orm::{IdenStatic as _, Iterable as _};
use uuid::Uuid;

use crate::process::Jackfield;
use crate::stored::Stored;
use crate::{Result, wire};

/// The id of the rows that are multiplied. The last twelve digits become the number of the row.
const TEMPLATE: &str = "0190c0de-0000-7000-8000-aaaaaaaaaaaa";
const TEMPLATE_DIGITS: &str = "aaaaaaaaaaaa";
/// Stands for the number of the row in names.
const NUMBER: &str = "nnnnnnnn";
/// Stands for a word that a few rows have and the others do not.
const WORD: &str = "wwwwwwww";
/// The word of the few rows, and that of the others.
pub(crate) const RARE: &str = "quillwort";
const COMMON: &str = "provider";
/// How many rows have the rare word.
pub(crate) const RARE_ROWS: usize = 10;
/// Rows that one statement makes.
const CHUNK: usize = 100_000;

/// One database with its own data directory.
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) data: PathBuf,
    /// What Jackfield runs on.
    pub(crate) stored: Stored,
    /// What the baselines run on: a copy of the file of SQLite, because that belongs to one process, or the same PostgreSQL.
    pub(crate) copy: Stored,
    /// Connectors of which any can be read: [`connector_id`] of 1 and up.
    pub(crate) connectors: usize,
    /// A connector with a label and a password.
    pub(crate) connector: Uuid,
    /// A credential with OAuth tokens.
    pub(crate) credential: String,
    /// Connections, as many as were asked for.
    pub(crate) connections: usize,
    _postgres: Option<postgres::Database>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// The id of a multiplied row.
pub(crate) fn row_id(number: usize) -> String {
    TEMPLATE.replace(TEMPLATE_DIGITS, &format!("{number:012x}"))
}

/// A connector with everything that a create writes beside its row: a label and a secret.
pub(crate) fn a_connector(name: &str) -> v1::Connector {
    let mut connector = fixture::the_fusionauth_connector();
    connector.name = name.to_owned();
    connector.client_identity_key = Some(String::new());
    connector.labels = fixture::strings([("team", "a")]);
    connector
}

// === impl World ===

impl World {
    /// Makes a database with so many connectors and connections. They are many on one connector.
    pub(crate) async fn create(
        kind: Kind,
        binary: &Path,
        directory: &Path,
        connectors: usize,
        connections: usize,
    ) -> Result<Self> {
        let data = directory.join("data");
        let postgres = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(tokio::task::spawn_blocking(postgres::fresh_database).await?),
        };
        let mut stored = Stored {
            sqlite: (kind == Kind::Sqlite).then(|| data.join("jackfield.sqlite3")),
            postgres: postgres.as_ref().map(postgres::Database::url),
            tenant: Uuid::nil(),
        };
        let jackfield = Jackfield::start_ready(binary, &data, &stored, None).await?;
        let channel = wire::connect(jackfield.address, &jackfield.pki()).await?;
        let mut tenants = AdminServiceClient::new(channel.clone())
            .list_tenants(v1::ListTenantsRequest::default())
            .await?
            .into_inner();
        let page = tenants.next().await.ok_or("no page of tenants")??;
        stored.tenant = page.tenants.first().ok_or("no tenant")?.id.parse()?;
        let credential = create_credential(channel.clone()).await?;

        let mut client = ConnectorServiceClient::new(channel.clone());
        let request = v1::CreateConnectorRequest {
            connector: Some(a_connector(&format!("Connector {NUMBER}"))),
            id: TEMPLATE.to_owned(),
            ..Default::default()
        };
        client.create_connector(request).await?;
        let request = v1::CreateConnectorRequest { connector: Some(a_connector("copied")), ..Default::default() };
        let copied = client.create_connector(request).await?.into_inner().connector.ok_or("no connector")?;

        let mut connection = fixture::a_connection(&format!("Connection {NUMBER}"), &copied.id);
        connection.external_id = Some(format!("connection-{NUMBER}"));
        connection.issuer_url = Some(format!("https://{WORD}.example.com"));
        connection.client_secrets.clear();
        let request =
            v1::CreateConnectionRequest { connection: Some(connection), id: TEMPLATE.to_owned(), ..Default::default() };
        ConnectionServiceClient::new(channel).create_connection(request).await?;
        jackfield.stop().await?;

        let mut world = World {
            kind,
            data,
            copy: stored.clone(),
            stored,
            connectors,
            connector: copied.id.parse()?,
            credential,
            connections,
            _postgres: postgres,
        };
        world.multiply("connector", connectors).await?;
        world.multiply("connection", connections).await?;
        if let Some(file) = &world.stored.sqlite {
            let copy = directory.join("copy.sqlite3");
            std::fs::copy(file, &copy)?;
            world.copy.sqlite = Some(copy);
        }
        Ok(world)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Puts so many rows in the place of the template of a table.
    async fn multiply(&mut self, table: &str, count: usize) -> Result<()> {
        let columns = match self.kind {
            Kind::Sqlite => format!("SELECT name, type FROM pragma_table_info('{table}') ORDER BY cid"),
            Kind::Postgres => format!(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}' \
                 ORDER BY ordinal_position"
            ),
        };
        let columns = self.sql(&columns).await?;
        // Those that the store writes; others are the business of the database.
        let written: Vec<&str> = match table {
            "connector" => connector::Column::iter().map(|column| column.as_str()).collect(),
            _ => connection::Column::iter().map(|column| column.as_str()).collect(),
        };
        let columns = columns.iter().filter_map(|line| line.split_once('|'));
        let columns: Vec<(&str, &str)> = columns.filter(|(name, _)| written.contains(name)).collect();
        if columns.is_empty() {
            return Err(format!("the table {table} has no columns").into());
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<String> = columns.iter().map(|(name, kind)| self.value(name, kind, count)).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        // Made anew over all rows: row by row takes longer.
        let indexes = match self.kind {
            Kind::Sqlite => Vec::new(),
            Kind::Postgres => {
                let indexes = format!(
                    "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{table}' AND indexdef LIKE '%USING gin%'"
                );
                self.sql(&indexes).await?
            }
        };
        let indexes: Vec<(&str, &str)> = indexes.iter().filter_map(|line| line.split_once('|')).collect();
        for (name, _) in &indexes {
            self.sql(&format!("DROP INDEX {name}")).await?;
        }
        for from in (1..=count).step_by(CHUNK) {
            let to = count.min(from + CHUNK - 1);
            let rows = match self.kind {
                Kind::Sqlite => format!(
                    "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to}) \
                     INSERT INTO {table} ({names}) SELECT {values} FROM n CROSS JOIN {table} t \
                     WHERE t.id = x'{}'",
                    TEMPLATE.replace('-', "")
                ),
                Kind::Postgres => format!(
                    "INSERT INTO {table} ({names}) SELECT {values} FROM generate_series({from}, {to}) n(i), {table} t \
                     WHERE t.id = '{TEMPLATE}'"
                ),
            };
            self.sql(&rows).await?;
        }
        for (_, made) in &indexes {
            self.sql(made).await?;
        }
        let template = match self.kind {
            Kind::Sqlite => format!("x'{}'", TEMPLATE.replace('-', "")),
            Kind::Postgres => format!("'{TEMPLATE}'"),
        };
        // What hangs on the template goes with it.
        for owned in ["label", "secret"] {
            self.sql(&format!("DELETE FROM {owned} WHERE owner = '{table}' AND owner_id = {template}")).await?;
        }
        self.sql(&format!("DELETE FROM {table} WHERE id = {template}")).await?;
        if self.kind == Kind::Postgres {
            self.sql(&format!("VACUUM (ANALYZE) {table}")).await?;
        }
        Ok(())
    }

    /// The value of a column in row `i` of so many.
    fn value(&self, name: &str, kind: &str, count: usize) -> String {
        let sqlite = self.kind == Kind::Sqlite;
        let digits = if sqlite { "printf('%012x', i)" } else { "lpad(to_hex(i), 12, '0')" };
        let number = if sqlite { "printf('%08d', i)" } else { "lpad(i::text, 8, '0')" };
        let every = (count / RARE_ROWS).max(1);
        let word = format!("CASE WHEN i % {every} = 0 THEN '{RARE}' ELSE '{COMMON}' END");
        let id = TEMPLATE.trim_end_matches(TEMPLATE_DIGITS);
        match (name, kind.to_ascii_lowercase().as_str()) {
            ("id", _) if sqlite => format!("unhex(replace('{id}', '-', '') || {digits})"),
            ("id", _) => format!("('{id}' || {digits})::uuid"),
            (_, "text") => {
                let text = format!("replace(replace(t.{name}, '{TEMPLATE_DIGITS}', {digits}), '{NUMBER}', {number})");
                format!("replace({text}, '{WORD}', {word})")
            }
            _ => format!("t.{name}"),
        }
    }

    /// Runs a statement beside Jackfield, which is stopped.
    async fn sql(&self, statement: &str) -> Result<Vec<String>> {
        if let Some(postgres) = &self._postgres {
            return Ok(postgres.run(statement).lines().map(str::to_owned).collect());
        }
        let store = self.stored.open().await?;
        let rows = store.raw_write(statement).await;
        store.close().await;
        Ok(rows?)
    }
}

// === impl Kind ===

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Sqlite => "SQLite",
            Kind::Postgres => "PostgreSQL",
        }
    }
}

/// A credential whose access token is as long as those of usual providers.
async fn create_credential(channel: tonic::transport::Channel) -> Result<String> {
    let connector = Some(fixture::an_oauth2_connector("tokens"));
    let request = v1::CreateConnectorRequest { connector, ..Default::default() };
    let answer = ConnectorServiceClient::new(channel.clone()).create_connector(request).await?;
    let connector = answer.into_inner().connector.ok_or("no connector")?.id;
    let user_id = "user".to_owned();
    let request =
        v1::AddUserConnectorRequest { user_id: user_id.clone(), connector: connector.clone(), ..Default::default() };
    UserConnectorServiceClient::new(channel.clone()).add_user_connector(request).await?;
    let request = v1::CreateCredentialRequest {
        credential: Some(fixture::a_credential(&user_id, &connector)),
        material: Some(fixture::oauth2_material(&"a".repeat(1024), &"r".repeat(512))),
        ..Default::default()
    };
    let answer = CredentialsServiceClient::new(channel).create_credential(request).await?;
    Ok(answer.into_inner().credential.ok_or("no credential")?.id)
}
