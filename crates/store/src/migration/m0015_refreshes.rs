//! Refreshes of credentials: the leases of those who refresh, the attempts, and the time of the next one.

use sea_orm_migration::prelude::*;

use super::{blob, index, int, int_null, of_tenant, reference, text, text_null, uuid};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0015_refreshes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |name: &'static str| Alias::new(name);
        let lease = Table::create()
            .table(column("refresh_lease"))
            .col(uuid("tenant_id"))
            .col(uuid("credential_id"))
            .col(uuid("holder"))
            .col(int("fence"))
            .col(int("until_time"))
            .primary_key(
                Index::create().name("refresh_lease_pkey").col(column("tenant_id")).col(column("credential_id")),
            )
            .foreign_key(&mut reference("refresh_lease", "credential_id", "credential"))
            .to_owned();
        manager.create_table(lease).await?;
        let attempt = Table::create()
            .table(column("refresh_attempt"))
            .col(uuid("tenant_id"))
            .col(uuid("id"))
            .col(uuid("credential_id"))
            .col(int("material_version"))
            .col(blob("token_digest"))
            .col(int("sent_time"))
            .col(int_null("end_time"))
            .col(text_null(manager, "outcome"))
            .col(text(manager, "reason"))
            .primary_key(Index::create().name("refresh_attempt_pkey").col(column("tenant_id")).col(column("id")))
            .foreign_key(&mut of_tenant("refresh_attempt"))
            .foreign_key(&mut reference("refresh_attempt", "credential_id", "credential"))
            .to_owned();
        manager.create_table(attempt).await?;
        manager.create_index(index("refresh_attempt", "credential_idx", &["tenant_id", "credential_id", "id"])).await?;

        let due = Table::alter().table(column("credential")).add_column(int_null("next_refresh_time")).to_owned();
        manager.alter_table(due).await?;
        // The scheduler looks them up for all tenants.
        manager.create_index(index("credential", "next_refresh_time_idx", &["next_refresh_time"])).await
    }
}
