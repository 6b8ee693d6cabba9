//! The state of a credential has the name that the contract gives it. Documents are read with the former name too, and
//! are written with this one when they change.

use sea_orm_migration::prelude::*;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0005_credential_state"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    /// It renames, which no step may do once there is a release: programs that still run know the former name only.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let renamed = Table::alter()
            .table(Alias::new("credential"))
            .rename_column(Alias::new("status"), Alias::new("state"))
            .to_owned();
        manager.alter_table(renamed).await
    }
}
