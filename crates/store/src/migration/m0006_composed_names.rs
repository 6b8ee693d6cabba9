//! Texts are folded regardless of how their characters are composed. So [`derived::renew`](super::derived::renew) writes the
//! columns with folded texts again. The schema stays as it is.

use sea_orm_migration::prelude::*;

pub(super) struct Step;

pub(super) const NAME: &str = "m0006_composed_names";

impl MigrationName for Step {
    fn name(&self) -> &str {
        NAME
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
