//! An index of the attempts to refresh that have no end: maintenance looks for those whose process has ended.

use sea_orm_migration::prelude::*;

use super::index;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0021_open_attempts"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut open = index("refresh_attempt", "open_idx", &["id"]);
        // There are few at a time, of all tenants.
        manager.create_index(open.and_where(Expr::col(Alias::new("end_time")).is_null()).to_owned()).await
    }
}
