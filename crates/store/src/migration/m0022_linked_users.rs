//! Digests of verified e-mail addresses, and the indexes by which the users with the same identity are found.

use sea_orm_migration::prelude::*;

use super::text_null;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0022_linked_users"
    }
}

/// The schema builder spells no comparison in the condition of an index. Most credentials have neither an account nor an address.
const INDEXES: [&str; 3] = [
    "CREATE INDEX credential_provider_account_id_idx \
     ON credential (tenant_id, provider_account_id, create_time, id) WHERE provider_account_id <> ''",
    // Without it, SQLite would look through all credentials of the connection.
    "CREATE INDEX credential_connection_account_idx \
     ON credential (tenant_id, connection_id, provider_account_id, create_time, id) WHERE provider_account_id <> ''",
    "CREATE INDEX credential_email_digest_idx \
     ON credential (tenant_id, email_digest, create_time, id) WHERE email_digest IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = text_null(manager, "email_digest");
        manager.alter_table(Table::alter().table(Alias::new("credential")).add_column(column).to_owned()).await?;
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}
