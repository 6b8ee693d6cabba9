//! The status of the response to an attempt to refresh.

use sea_orm_migration::prelude::*;

use super::int_null;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0023_attempt_status"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = int_null("status");
        manager.alter_table(Table::alter().table(Alias::new("refresh_attempt")).add_column(column).to_owned()).await
    }
}
