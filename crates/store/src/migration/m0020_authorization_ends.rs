//! The times at which providers end authorisations.

use sea_orm_migration::prelude::*;

use super::int_null;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0020_authorization_ends"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = int_null("authorization_expire_time");
        manager.alter_table(Table::alter().table(Alias::new("credential")).add_column(column).to_owned()).await
    }
}
