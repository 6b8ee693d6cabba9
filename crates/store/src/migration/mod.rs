//! The schema, in numbered steps. A step is never edited after a release. It names tables and columns as text, because the
//! entities change later.

mod derived;
mod m0001_tenants;
mod m0002_resources;
mod m0003_operations;
mod m0004_search;
mod m0005_credential_state;
mod m0006_composed_names;
mod m0007_key_material;
mod m0009_users;
mod m0010_applications;
mod m0011_routing;
mod m0012_connector_events;
mod m0013_login_attempts;
mod m0014_pin_keys;
mod m0015_refreshes;
mod m0016_authorizations;
mod m0017_device_polls;
mod m0018_connection_keys;
mod m0019_credential_sources;
mod m0020_authorization_ends;
mod m0021_open_attempts;
mod m0022_linked_users;
mod m0023_attempt_status;
mod same_name;
mod search;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::prelude::*;

use self::same_name::Renamed;
use crate::database::{Pooled, error};
use crate::error::StoreError;

pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_tenants::Step),
            Box::new(m0002_resources::Step),
            Box::new(m0003_operations::Step),
            Box::new(m0004_search::Step),
            Box::new(m0005_credential_state::Step),
            Box::new(m0006_composed_names::Step),
            Box::new(m0007_key_material::Step),
            Box::new(m0009_users::Step),
            Box::new(m0010_applications::Step),
            Box::new(m0011_routing::Step),
            Box::new(m0012_connector_events::Step),
            Box::new(m0013_login_attempts::Step),
            Box::new(m0014_pin_keys::Step),
            Box::new(m0015_refreshes::Step),
            Box::new(m0016_authorizations::Step),
            Box::new(m0017_device_polls::Step),
            Box::new(m0018_connection_keys::Step),
            Box::new(m0019_credential_sources::Step),
            Box::new(m0020_authorization_ends::Step),
            Box::new(m0021_open_attempts::Step),
            Box::new(m0022_linked_users::Step),
            Box::new(m0023_attempt_status::Step),
        ]
    }
}

/// Steps with which columns are derived from documents in another way. The columns are written after the last step, by the code
/// that also writes them later.
const DERIVED_DIFFERENTLY: [&str; 2] = [m0006_composed_names::NAME, m0007_key_material::NAME];

/// The key of an advisory lock; any number that no other program uses. It is "jackfld" in ASCII.
const MIGRATION_LOCK: i64 = 0x006a_6163_6b66_6c64;

/// Applies missing steps in one transaction, under a lock that lets one process at a time do so: an advisory lock in
/// PostgreSQL, the write lock of the file in SQLite. Returns the newest migration.
pub(crate) async fn migrate(conn: &Pooled) -> Result<String, StoreError> {
    match (conn.of_sqlite_writer(), conn.of_postgres()) {
        (Some(conn), _) => migrate_by(conn).await,
        (None, Some(sessions)) => {
            match check(conn).await {
                Err(StoreError::SchemaOlder { .. }) => {}
                up_to_date_or_refused => return up_to_date_or_refused,
            }
            // The library needs a connection of its own kind, and there may be only one.
            sessions.close_idle();
            let conn = sessions.library_pool(1).await?;
            let migrated = migrate_by(&conn).await;
            let _ = conn.close().await;
            migrated
        }
        (None, None) => Err(StoreError::Migration("there is no database".to_owned())),
    }
}

async fn migrate_by(conn: &DatabaseConnection) -> Result<String, StoreError> {
    let failed = |error: DbErr| StoreError::Migration(error.to_string());
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    let txn = conn.begin_with_options(options).await.map_err(failed)?;
    if conn.get_database_backend() == DbBackend::Postgres {
        // Another replica may be migrating, and waiting for it may take longer than a call may take.
        txn.execute_unprepared("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0").await.map_err(failed)?;
        txn.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await.map_err(failed)?;
    }
    let applied = refuse_newer(&txn).await?;
    Migrator::up(&txn, None).await.map_err(failed)?;
    let renamed = if lacks_derivation(&applied) { derived::renew(&txn).await? } else { Vec::new() };
    txn.commit().await.map_err(failed)?;
    renamed.iter().for_each(Renamed::log);
    Ok(newest())
}

fn lacks_derivation(applied: &[String]) -> bool {
    DERIVED_DIFFERENTLY.iter().any(|step| !applied.iter().any(|done| done == step))
}

/// Refuses a schema that is newer or older than this program.
pub(crate) async fn check(conn: &Pooled) -> Result<String, StoreError> {
    let applied = refuse_newer(conn).await?;
    let missing = names().into_iter().find(|name| !applied.contains(name));
    match missing {
        Some(migration) => Err(StoreError::SchemaOlder { migration }),
        None => Ok(newest()),
    }
}

/// The newest migration that was applied, if any was. Refuses a schema that is newer than this program.
pub(crate) async fn known(conn: &Pooled) -> Result<Option<String>, StoreError> {
    Ok(refuse_newer(conn).await?.pop())
}

async fn refuse_newer(conn: &impl ConnectionTrait) -> Result<Vec<String>, StoreError> {
    let backend = conn.get_database_backend();
    let failed = |error: DbErr| match error::is_damage(&error) {
        true => StoreError::Damaged(error.to_string()),
        false => StoreError::Connect(error.to_string()),
    };
    if !has_table(conn, "seaql_migrations").await.map_err(failed)? {
        return Ok(Vec::new());
    }
    let applied = sea_orm::Statement::from_string(backend, "SELECT version FROM seaql_migrations ORDER BY version");
    let applied = conn.query_all_raw(applied).await.map_err(failed)?;
    let applied: Result<Vec<String>, DbErr> = applied.iter().map(|row| row.try_get("", "version")).collect();
    let applied = applied.map_err(failed)?;
    let known = names();
    match applied.iter().find(|version| !known.contains(version)) {
        Some(unknown) => Err(StoreError::SchemaNewer { migration: unknown.clone() }),
        None => Ok(applied),
    }
}

/// Returns whether the schema has a table.
pub(crate) async fn has_table(conn: &impl ConnectionTrait, name: &str) -> Result<bool, DbErr> {
    let backend = conn.get_database_backend();
    let exists = match backend {
        DbBackend::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1",
        _ => "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = $1",
    };
    let exists = sea_orm::Statement::from_sql_and_values(backend, exists, [name.into()]);
    Ok(conn.query_one_raw(exists).await?.is_some())
}

fn names() -> Vec<String> {
    Migrator::migrations().iter().map(|step| step.name().to_owned()).collect()
}

fn newest() -> String {
    names().pop().unwrap_or_default()
}

// Columns of both databases, which the steps share.

/// A text column that compares by bytes, so that both databases sort alike.
pub(super) fn text(manager: &SchemaManager<'_>, name: &'static str) -> ColumnDef {
    let mut column = ColumnDef::new(Alias::new(name));
    column.text().not_null();
    if manager.get_database_backend() == DbBackend::Postgres {
        column.extra("COLLATE \"C\"");
    }
    column
}

/// A text column that may be null.
pub(super) fn text_null(manager: &SchemaManager<'_>, name: &'static str) -> ColumnDef {
    let mut column = ColumnDef::new(Alias::new(name));
    column.text().null();
    if manager.get_database_backend() == DbBackend::Postgres {
        column.extra("COLLATE \"C\"");
    }
    column
}

pub(super) fn uuid(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).uuid().not_null().take()
}

pub(super) fn uuid_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).uuid().null().take()
}

pub(super) fn int(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).big_integer().not_null().take()
}

pub(super) fn int_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).big_integer().null().take()
}

pub(super) fn boolean(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).boolean().not_null().take()
}

pub(super) fn blob(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).blob().not_null().take()
}

/// A table whose primary key is (tenant_id, id), with the columns that every resource has.
pub(super) fn resource_table(manager: &SchemaManager<'_>, name: &'static str) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(Alias::new(name)).col(uuid("tenant_id")).col(uuid("id"));
    table.primary_key(Index::create().name(format!("{name}_pkey")).col(Alias::new("tenant_id")).col(Alias::new("id")));
    table
        .col(text(manager, "doc"))
        .col(text(manager, "search_text"))
        .col(text_null(manager, "folded"))
        .col(int("version"))
        .col(int("create_time"))
        .col(int("update_time"));
    table
}

/// A foreign key from (tenant_id, column) to (tenant_id, id) of another table: no row can refer to a row of another tenant.
pub(super) fn reference(table: &'static str, column: &'static str, to: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .name(format!("{table}_{column}_fkey"))
        .from(Alias::new(table), (Alias::new("tenant_id"), Alias::new(column)))
        .to(Alias::new(to), (Alias::new("tenant_id"), Alias::new("id")))
        .to_owned()
}

/// The foreign key from tenant_id to the tenant.
pub(super) fn of_tenant(table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .name(format!("{table}_tenant_id_fkey"))
        .from(Alias::new(table), Alias::new("tenant_id"))
        .to(Alias::new("tenant"), Alias::new("id"))
        .to_owned()
}

pub(super) fn index(table: &'static str, name: &str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(format!("{table}_{name}")).table(Alias::new(table));
    for column in columns {
        index.col(Alias::new(*column));
    }
    index
}

/// The indexes of pages: for every column that a list can be narrowed to, one index in each of its orders. Without them a page
/// would sort all rows of its scope, or skip all rows outside it.
pub(super) async fn page_indexes(
    manager: &SchemaManager<'_>,
    table: &'static str,
    scopes: &[&'static str],
    orders: &[&[&'static str]],
) -> Result<(), DbErr> {
    for scope in scopes {
        for order in orders {
            let name = match order {
                ["id"] => format!("{scope}_idx"),
                [first, ..] => format!("{scope}_{first}_idx"),
                [] => continue,
            };
            let columns = [&["tenant_id", *scope], *order].concat();
            manager.create_index(index(table, &name, &columns)).await?;
        }
    }
    Ok(())
}
