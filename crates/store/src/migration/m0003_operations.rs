//! Tables for operation: answers to repeated requests, audit records, the progress of re-wraps.

use sea_orm_migration::prelude::*;

use super::{blob, boolean, index, int, int_null, text, uuid};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0003_operations"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let idempotency = Table::create()
            .table(Alias::new("idempotency"))
            .col(uuid("tenant_id"))
            .col(text(manager, "principal"))
            .col(text(manager, "method"))
            .col(uuid("request_id"))
            .primary_key(
                Index::create()
                    .name("idempotency_pkey")
                    .col(Alias::new("tenant_id"))
                    .col(Alias::new("principal"))
                    .col(Alias::new("method"))
                    .col(Alias::new("request_id")),
            )
            .col(blob("fingerprint"))
            .col(text(manager, "answer"))
            .col(int("expire_time"))
            .to_owned();
        manager.create_table(idempotency).await?;
        manager.create_index(index("idempotency", "expire_time_idx", &["expire_time"])).await?;

        let audit_event = Table::create()
            .table(Alias::new("audit_event"))
            .col(uuid("tenant_id"))
            .col(uuid("id"))
            .primary_key(Index::create().name("audit_event_pkey").col(Alias::new("tenant_id")).col(Alias::new("id")))
            .col(int("create_time"))
            .col(text(manager, "principal"))
            .col(text(manager, "action"))
            .col(text(manager, "resource"))
            .col(uuid("resource_id"))
            .col(text(manager, "purpose"))
            .col(text(manager, "request_id"))
            .to_owned();
        manager.create_table(audit_event).await?;

        let rewrap = Table::create()
            .table(Alias::new("rewrap"))
            .col(uuid("id"))
            .primary_key(Index::create().name("rewrap_pkey").col(Alias::new("id")))
            .col(text(manager, "state"))
            .col(text(manager, "kek_id"))
            .col(boolean("reseal"))
            .col(int("data_keys_total"))
            .col(int("data_keys_done"))
            .col(int("secrets_total"))
            .col(int("secrets_done"))
            .col(int("failed"))
            .col(int("start_time"))
            .col(int_null("end_time"))
            .col(int("heartbeat_time"))
            .to_owned();
        manager.create_table(rewrap).await
    }
}
