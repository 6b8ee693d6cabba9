//! Device authorisations: the time at which each is polled for next.

use sea_orm_migration::prelude::*;

use super::{index, int_null};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0017_device_polls"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for name in ["poll_time", "poll_fence"] {
            let column =
                Table::alter().table(Alias::new("authorization_session")).add_column(int_null(name)).to_owned();
            manager.alter_table(column).await?;
        }
        // The poller looks them up for all tenants.
        manager.create_index(index("authorization_session", "poll_time_idx", &["is_open", "poll_time"])).await
    }
}
