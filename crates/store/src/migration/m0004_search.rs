//! The index of words: trigrams of the texts that bare words of filters look into.

use sea_orm::{DbBackend, Statement};
use sea_orm_migration::prelude::*;

pub(super) struct Step;

/// The tables of a tenant, each with its number in search numbers.
const TABLES: [(&str, i64); 6] =
    [("key", 1), ("connector", 2), ("connection", 3), ("user_connector", 4), ("credential", 5), ("configuration", 6)];

/// Where rows of a tenant are numbered that is not there. They do not stay, but what refuses them is their foreign key.
const NOWHERE: &str = "-(1 << 40)";

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0004_search"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match manager.get_database_backend() {
            DbBackend::Sqlite => sqlite(manager).await,
            _ => postgres(manager).await,
        }
    }
}

/// A GIN index for each table. The tenant is part of it, so that rows of others cost nothing.
async fn postgres(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let trigrams = extension(manager, "pg_trgm").await?;
    extension(manager, "btree_gin").await?;
    let conn = manager.get_connection();
    for (table, _) in TABLES {
        let columns = format!("tenant_id, search_text {trigrams}.gin_trgm_ops");
        conn.execute_unprepared(&format!("CREATE INDEX {table}_search_idx ON {table} USING gin ({columns})")).await?;
    }
    let tenants = format!("CREATE INDEX tenant_search_idx ON tenant USING gin (search_text {trigrams}.gin_trgm_ops)");
    conn.execute_unprepared(&tenants).await.map(|_| ())
}

/// Makes an extension of PostgreSQL unless it is there; returns the schema that it is in.
async fn extension(manager: &SchemaManager<'_>, name: &str) -> Result<String, DbErr> {
    let conn = manager.get_connection();
    let created = conn.execute_unprepared(&format!("CREATE EXTENSION IF NOT EXISTS {name}")).await;
    created.map_err(|error| {
        DbErr::Migration(format!(
            "the extension {name} of PostgreSQL is needed and cannot be created ({error}): install it on the server (the \
             package of PostgreSQL's contrib modules has it), and have an owner of the database run `CREATE EXTENSION {name}`"
        ))
    })?;
    let schema = format!(
        "SELECT quote_ident(nspname) AS name FROM pg_catalog.pg_extension \
         JOIN pg_catalog.pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = '{name}'"
    );
    let row = conn.query_one_raw(Statement::from_string(DbBackend::Postgres, schema)).await?;
    row.ok_or_else(|| DbErr::Migration(format!("the extension {name} is not there")))
        .and_then(|row| row.try_get("", "name"))
}

/// An FTS5 table of nothing but trigrams and numbers, and triggers that keep it. A row has a number of its own, because
/// VACUUM may change its rowid: 40 bits behind the number of its tenant, of which the first four are its table's. Tenants
/// are numbered themselves, before all of theirs.
async fn sqlite(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let conn = manager.get_connection();
    let index = "CREATE VIRTUAL TABLE search_index USING fts5(search_text, content = '', columnsize = 0, detail = none, \
                 tokenize = 'trigram case_sensitive 1')";
    conn.execute_unprepared(index).await?;
    number(manager, "tenant", "0", "0").await?;
    for (table, kind) in TABLES {
        let base = format!("(search_number << 40) + ({kind} << 36)");
        let of_row = |row: &str| format!("(SELECT {base} FROM tenant WHERE id = {row}.tenant_id)");
        number(manager, table, &of_row("numbered"), &of_row("new")).await?;
    }
    Ok(())
}

/// Gives the rows of a table their numbers, puts them into the index, and sees that it stays so. `base_of_row` and
/// `base_of_new` are what the numbers of such rows begin behind.
async fn number(manager: &SchemaManager<'_>, table: &str, base_of_row: &str, base_of_new: &str) -> Result<(), DbErr> {
    let conn = manager.get_connection();
    let remove = "INSERT INTO search_index (search_index, rowid, search_text) \
                  VALUES ('delete', old.search_number, old.search_text);";
    let statements = [
        format!("ALTER TABLE {table} ADD COLUMN search_number integer"),
        format!(
            "UPDATE {table} SET search_number = numbers.number FROM (SELECT place, base + row_number() OVER (PARTITION BY base \
             ORDER BY place) AS number FROM (SELECT rowid AS place, {base_of_row} AS base FROM {table} AS numbered)) AS numbers \
             WHERE {table}.rowid = numbers.place"
        ),
        format!("CREATE UNIQUE INDEX {table}_search_number_idx ON {table} (search_number)"),
        format!("INSERT INTO search_index (rowid, search_text) SELECT search_number, search_text FROM {table}"),
        format!(
            "CREATE TRIGGER {table}_search_insert AFTER INSERT ON {table} BEGIN \
             UPDATE {table} SET search_number = (SELECT coalesce((SELECT max(search_number) FROM {table} \
             WHERE search_number BETWEEN base AND base + (1 << 36) - 1), base) + 1 FROM (SELECT coalesce({base_of_new}, {NOWHERE}) AS base)) \
             WHERE rowid = new.rowid; \
             INSERT INTO search_index (rowid, search_text) SELECT search_number, search_text FROM {table} \
             WHERE rowid = new.rowid; END"
        ),
        format!(
            "CREATE TRIGGER {table}_search_update AFTER UPDATE OF search_text ON {table} \
             WHEN old.search_text <> new.search_text BEGIN {remove} \
             INSERT INTO search_index (rowid, search_text) VALUES (new.search_number, new.search_text); END"
        ),
        format!("CREATE TRIGGER {table}_search_delete AFTER DELETE ON {table} BEGIN {remove} END"),
    ];
    for statement in statements {
        conn.execute_unprepared(&statement).await?;
    }
    Ok(())
}
