//! The keys of connections, by which their clients say who they are.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use super::{index, uuid_null};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0018_connection_keys"
    }
}

/// SQLite adds no foreign key of two columns to a table that exists. There a deletion of a key counts its connections, in the only
/// transaction that writes.
const KEY_EXISTS_IN_POSTGRES: &str = "ALTER TABLE connection ADD CONSTRAINT connection_client_key_fkey \
     FOREIGN KEY (tenant_id, client_key) REFERENCES key (tenant_id, id)";

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let added = Table::alter().table(Alias::new("connection")).add_column(uuid_null("client_key")).to_owned();
        manager.alter_table(added).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            manager.get_connection().execute_unprepared(KEY_EXISTS_IN_POSTGRES).await?;
        }
        manager.create_index(index("connection", "client_key_idx", &["tenant_id", "client_key"])).await
    }
}
