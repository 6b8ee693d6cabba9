//! The index of words, for the migrations that make it: trigrams of the texts that bare words of filters are looked up in.
//!
//! In PostgreSQL each table has a GIN index. The tenant is part of it, so that rows of other tenants cost nothing. In SQLite
//! there is one FTS5 table of nothing but trigrams and numbers, and triggers that keep it up to date. Each row has a number
//! of its own, because VACUUM may change its rowid: 40 bits after the number of its tenant, of which the first four are the
//! number of its table. Tenants are numbered themselves, before all rows of theirs.

use sea_orm::{DbBackend, Statement};
use sea_orm_migration::prelude::*;

/// The base of the numbers of rows whose tenant does not exist. They do not stay: their foreign key refuses them.
const NOWHERE: &str = "-(1 << 40)";

/// The index of words of a database.
pub(super) struct WordIndex<'a, 'm> {
    manager: &'a SchemaManager<'m>,
    /// In PostgreSQL, the schema that has the operators of trigrams.
    trigrams: Option<String>,
}

impl<'a, 'm> WordIndex<'a, 'm> {
    /// Makes the extensions of PostgreSQL that the index needs, unless they exist.
    pub(super) async fn open(manager: &'a SchemaManager<'m>) -> Result<Self, DbErr> {
        let trigrams = match manager.get_database_backend() {
            DbBackend::Sqlite => None,
            _ => {
                let trigrams = extension(manager, "pg_trgm").await?;
                extension(manager, "btree_gin").await?;
                Some(trigrams)
            }
        };
        Ok(WordIndex { manager, trigrams })
    }

    /// Adds a table of resources within tenants. `number` is the number of the table in SQLite, from 1 to 15; each table has
    /// another one.
    pub(super) async fn add_table(&self, table: &str, number: i64) -> Result<(), DbErr> {
        match &self.trigrams {
            Some(trigrams) => {
                let columns = format!("tenant_id, search_text {trigrams}.gin_trgm_ops");
                self.run(&format!("CREATE INDEX {table}_search_idx ON \"{table}\" USING gin ({columns})")).await
            }
            None => {
                let base = format!("(search_number << 40) + ({number} << 36)");
                let of_row = |row: &str| format!("(SELECT {base} FROM tenant WHERE id = {row}.tenant_id)");
                self.number_rows(table, &of_row("numbered"), &of_row("new")).await
            }
        }
    }

    /// Adds the table of tenants.
    pub(super) async fn add_tenants(&self) -> Result<(), DbErr> {
        match &self.trigrams {
            Some(trigrams) => {
                let columns = format!("search_text {trigrams}.gin_trgm_ops");
                self.run(&format!("CREATE INDEX tenant_search_idx ON tenant USING gin ({columns})")).await
            }
            None => self.number_rows("tenant", "0", "0").await,
        }
    }

    /// Gives the rows of a table their numbers in SQLite, adds them to the index, and makes the triggers that keep both. The
    /// numbers follow after `base_of_row` for rows that exist, and after `base_of_new` for new rows.
    async fn number_rows(&self, table: &str, base_of_row: &str, base_of_new: &str) -> Result<(), DbErr> {
        let remove = "INSERT INTO search_index (search_index, rowid, search_text) \
                      VALUES ('delete', old.search_number, old.search_text);";
        let statements = [
            format!("ALTER TABLE \"{table}\" ADD COLUMN search_number integer"),
            format!(
                "UPDATE \"{table}\" SET search_number = numbers.number FROM (SELECT place, base + row_number() OVER (PARTITION BY base \
                 ORDER BY place) AS number FROM (SELECT rowid AS place, {base_of_row} AS base FROM \"{table}\" AS numbered)) AS numbers \
                 WHERE \"{table}\".rowid = numbers.place"
            ),
            format!("CREATE UNIQUE INDEX {table}_search_number_idx ON \"{table}\" (search_number)"),
            format!("INSERT INTO search_index (rowid, search_text) SELECT search_number, search_text FROM \"{table}\""),
            format!(
                "CREATE TRIGGER {table}_search_insert AFTER INSERT ON \"{table}\" BEGIN \
                 UPDATE \"{table}\" SET search_number = (SELECT coalesce((SELECT max(search_number) FROM \"{table}\" \
                 WHERE search_number BETWEEN base AND base + (1 << 36) - 1), base) + 1 FROM (SELECT coalesce({base_of_new}, {NOWHERE}) AS base)) \
                 WHERE rowid = new.rowid; \
                 INSERT INTO search_index (rowid, search_text) SELECT search_number, search_text FROM \"{table}\" \
                 WHERE rowid = new.rowid; END"
            ),
            format!(
                "CREATE TRIGGER {table}_search_update AFTER UPDATE OF search_text ON \"{table}\" \
                 WHEN old.search_text <> new.search_text BEGIN {remove} \
                 INSERT INTO search_index (rowid, search_text) VALUES (new.search_number, new.search_text); END"
            ),
            format!("CREATE TRIGGER {table}_search_delete AFTER DELETE ON \"{table}\" BEGIN {remove} END"),
        ];
        for statement in statements {
            self.run(&statement).await?;
        }
        Ok(())
    }

    async fn run(&self, sql: &str) -> Result<(), DbErr> {
        self.manager.get_connection().execute_unprepared(sql).await.map(|_| ())
    }
}

/// Makes an extension of PostgreSQL unless it exists. Returns the schema that it is in.
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
