//! A key may lack its certificate, and may have the material that replaces the current one.
//! [`derived::renew`](super::derived::renew) writes the times of expiry and renewal.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use super::{index, int_null};

pub(super) struct Step;

pub(super) const NAME: &str = "m0007_key_material";

impl MigrationName for Step {
    fn name(&self) -> &str {
        NAME
    }
}

/// SQLite cannot drop the constraint of a column, so the column is made again.
const NOT_AFTER_MAY_BE_NULL_IN_SQLITE: [&str; 4] = [
    "ALTER TABLE \"key\" ADD COLUMN new_not_after bigint",
    "UPDATE \"key\" SET new_not_after = not_after",
    "ALTER TABLE \"key\" DROP COLUMN not_after",
    "ALTER TABLE \"key\" RENAME COLUMN new_not_after TO not_after",
];
const NOT_AFTER_MAY_BE_NULL_IN_POSTGRES: [&str; 1] = ["ALTER TABLE \"key\" ALTER COLUMN not_after DROP NOT NULL"];

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements: &[&str] = match manager.get_database_backend() {
            DbBackend::Sqlite => &NOT_AFTER_MAY_BE_NULL_IN_SQLITE,
            _ => &NOT_AFTER_MAY_BE_NULL_IN_POSTGRES,
        };
        for statement in statements {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        for column in ["activate_time", "next_not_after", "valid_until", "renewal_time"] {
            let added = Table::alter().table(Alias::new("key")).add_column(int_null(column)).to_owned();
            manager.alter_table(added).await?;
        }
        // Maintenance looks them up for all tenants.
        for column in ["activate_time", "renewal_time"] {
            manager.create_index(index("key", &format!("{column}_idx"), &[column])).await?;
        }
        Ok(())
    }
}
