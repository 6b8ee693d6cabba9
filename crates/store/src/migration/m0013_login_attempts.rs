//! The counts of log-in attempts.

use sea_orm_migration::prelude::*;

use super::{blob, index, int, uuid};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0013_login_attempts"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |name: &'static str| Alias::new(name);
        // There is no foreign key: attempts of many tenants are written by one statement, which must not fail for all because one of
        // the tenants is gone.
        let table = Table::create()
            .table(column("login_attempt"))
            .col(uuid("tenant_id"))
            .col(blob("digest"))
            .col(int("attempts"))
            .col(int("failures"))
            .col(int("failure_time"))
            .col(int("expire_time"))
            .primary_key(Index::create().name("login_attempt_pkey").col(column("tenant_id")).col(column("digest")))
            .to_owned();
        manager.create_table(table).await?;
        // Maintenance looks them up for all tenants.
        manager.create_index(index("login_attempt", "expire_time_idx", &["expire_time"])).await
    }
}
