//! The measured databases. Jackfield itself creates rows through its API, and SQL multiplies them, so that Jackfield
//! can read every row.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use jackfield_api::v1;
use jackfield_api::v1::admin_service_client::AdminServiceClient;
use jackfield_api::v1::connection_service_client::ConnectionServiceClient;
use jackfield_api::v1::connector_service_client::ConnectorServiceClient;
use jackfield_testkit::fixture;
use jackfield_testkit::postgres;
use jackfield_testkit::store::test_support::entity::{connection, connector, credential};
use sea_orm::{IdenStatic as _, Iterable as _};
use uuid::Uuid;

use crate::credentials::{Credentials, access_token, refresh_token};
use crate::process::Jackfield;
use crate::stored::Stored;
use crate::{Result, wire};

/// The id of the template rows. The last twelve digits are replaced by the number of the row.
pub(crate) const TEMPLATE: &str = "0190c0de-0000-7000-8000-aaaaaaaaaaaa";
const TEMPLATE_DIGITS: &str = "aaaaaaaaaaaa";
/// The placeholder for the number of the row in names.
const NUMBER: &str = "nnnnnnnn";
/// The placeholder for a word that only a few rows have.
const WORD: &str = "wwwwwwww";
/// The word of the few rows, and the word of the others.
pub(crate) const RARE: &str = "quillwort";
const COMMON: &str = "provider";
/// The number of rows with the rare word.
pub(crate) const RARE_ROWS: usize = 10;
/// The number of rows that one statement inserts.
const CHUNK: usize = 100_000;

/// A database with its own data directory.
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) data: PathBuf,
    /// The database that Jackfield runs on.
    pub(crate) stored: Stored,
    /// The database that the baselines run on: a copy of the SQLite file, because that belongs to one process, or the
    /// same PostgreSQL database.
    pub(crate) copy: Stored,
    /// The number of readable connectors: [`connector_id`] from 1 on.
    pub(crate) connectors: usize,
    /// A connector with a label and a password.
    pub(crate) connector: Uuid,
    /// A credential with OAuth tokens.
    pub(crate) credential: String,
    /// The requested number of connections.
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

/// A connector with everything that a create writes in addition to its row: a label and a secret.
pub(crate) fn a_connector(name: &str) -> v1::Connector {
    let mut connector = fixture::the_fusionauth_connector();
    connector.name = name.to_owned();
    connector.client_identity_key = Some(String::new());
    connector.labels = fixture::strings([("team", "a")]);
    connector
}

// === impl World ===

impl World {
    /// Creates a database with this many connectors and connections. All connections are of one connector.
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
        let credentials = Credentials::of(channel.clone(), "tokens").await?;
        let credential = credentials.create(None, fixture::oauth2_material(&access_token(), &refresh_token())).await?;

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
        for (table, count) in [("connector", connectors), ("connection", connections)] {
            world.multiply(table, count).await?;
            world.delete_template(table).await?;
        }
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

    /// Adds this many credentials with their sealed material. The template stays. The copies do not open, because material is sealed for
    /// the id of its credential.
    pub(crate) async fn multiply_credentials(&self, count: usize) -> Result<()> {
        let columns = ["tenant_id", "owner", "name", "data_key_id", "sealed"];
        let (names, values) = (columns.join(", "), columns.map(|column| format!("t.{column}")).join(", "));
        let id = self.value("id", "", count);
        let of_template = format!("t.owner = 'credential' AND t.owner_id = {}", self.template());
        let rows =
            (format!("secret (owner_id, {names})"), format!("{id}, {values}"), format!("secret t WHERE {of_template}"));
        self.insert(&rows, count).await?;
        self.multiply("credential", count).await
    }

    /// Adds this many copies of the template row of a table.
    async fn multiply(&self, table: &str, count: usize) -> Result<()> {
        let columns = match self.kind {
            Kind::Sqlite => format!("SELECT name, type FROM pragma_table_info('{table}') ORDER BY cid"),
            Kind::Postgres => format!(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}' \
                 ORDER BY ordinal_position"
            ),
        };
        let columns = self.sql(&columns).await?;
        // Only the columns that the store writes; the database fills the others.
        let written: Vec<&str> = match table {
            "connector" => connector::Column::iter().map(|column| column.as_str()).collect(),
            "credential" => credential::Column::iter().map(|column| column.as_str()).collect(),
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
        // Indexes are rebuilt over all rows, because updating them row by row takes longer.
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
        let of_template = format!("{table} t WHERE t.id = {}", self.template());
        self.insert(&(format!("{table} ({names})"), values, of_template), count).await?;
        for (_, made) in &indexes {
            self.sql(made).await?;
        }
        if self.kind == Kind::Postgres {
            self.sql(&format!("VACUUM (ANALYZE) {table}")).await?;
        }
        Ok(())
    }

    /// Inserts rows with the numbers from 1 on: into a table and its columns, these values, of what a FROM names.
    async fn insert(&self, (into, values, from): &(String, String, String), count: usize) -> Result<()> {
        for first in (1..=count).step_by(CHUNK) {
            let last = count.min(first + CHUNK - 1);
            let rows = match self.kind {
                Kind::Sqlite => format!(
                    "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) \
                     INSERT INTO {into} SELECT {values} FROM n CROSS JOIN {from}"
                ),
                Kind::Postgres => {
                    format!("INSERT INTO {into} SELECT {values} FROM generate_series({first}, {last}) n(i), {from}")
                }
            };
            self.sql(&rows).await?;
        }
        Ok(())
    }

    /// Deletes the template row of a table, with the rows that belong to it.
    async fn delete_template(&self, table: &str) -> Result<()> {
        let template = self.template();
        for owned in ["label", "secret"] {
            self.sql(&format!("DELETE FROM {owned} WHERE owner = '{table}' AND owner_id = {template}")).await?;
        }
        self.sql(&format!("DELETE FROM {table} WHERE id = {template}")).await?;
        Ok(())
    }

    /// The id of the template rows in SQL.
    fn template(&self) -> String {
        match self.kind {
            Kind::Sqlite => format!("x'{}'", TEMPLATE.replace('-', "")),
            Kind::Postgres => format!("'{TEMPLATE}'"),
        }
    }

    /// The value of a column in row `i`.
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

    /// Runs a statement directly on the database while Jackfield is stopped.
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
