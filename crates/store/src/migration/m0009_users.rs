//! Users whose passwords Jackfield checks itself.

use sea_orm_migration::prelude::*;

use super::search::WordIndex;
use super::{boolean, index, of_tenant, resource_table, text, text_null, uuid_null};

pub(super) struct Step;

/// The number of the table in the index of words.
const SEARCH_NUMBER: i64 = 7;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0009_users"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The connector may be deleted, and the user stays.
        let table = resource_table(manager, "user")
            .col(text(manager, "user_id"))
            .col(text_null(manager, "username_key"))
            .col(text_null(manager, "email_key"))
            .col(text_null(manager, "phone_number"))
            .col(text(manager, "first_name"))
            .col(text(manager, "last_name"))
            .col(boolean("enabled"))
            .col(boolean("password_set"))
            .col(uuid_null("connector_id"))
            .foreign_key(&mut of_tenant("user"))
            .to_owned();
        manager.create_table(table).await?;
        for column in ["user_id", "username_key", "email_key", "phone_number"] {
            let name = format!("{}_key", column.trim_end_matches("_key"));
            manager.create_index(index("user", &name, &["tenant_id", column]).unique().to_owned()).await?;
        }
        manager.create_index(index("user", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
        WordIndex::open(manager).await?.add_table("user", SEARCH_NUMBER).await
    }
}
