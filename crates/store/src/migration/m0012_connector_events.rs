//! Events of connectors.

use sea_orm_migration::prelude::*;

use super::search::WordIndex;
use super::{index, int, int_null, of_tenant, page_indexes, reference, resource_table, text, uuid};

pub(super) struct Step;

/// The number of the table in the index of words.
const NUMBER: i64 = 11;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0012_connector_events"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = resource_table(manager, "connector_event")
            .col(uuid("connector_id"))
            .col(text(manager, "operation"))
            .col(text(manager, "outcome"))
            .col(text(manager, "reason"))
            .col(int_null("http_status"))
            .col(uuid("request_id"))
            .col(text(manager, "login_id"))
            .col(text(manager, "application_id"))
            .col(int("expire_time"))
            .foreign_key(&mut of_tenant("connector_event"))
            .foreign_key(&mut reference("connector_event", "connector_id", "connector"))
            .to_owned();
        manager.create_table(table).await?;
        manager.create_index(index("connector_event", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
        // Maintenance looks them up for all tenants. With an index of create_time alone, PostgreSQL would read pages by it and sort them.
        manager.create_index(index("connector_event", "expire_time_idx", &["expire_time"])).await?;
        let orders = [&["id"] as &[_], &["create_time", "id"]];
        page_indexes(manager, "connector_event", &["connector_id"], &orders).await?;
        WordIndex::open(manager).await?.add_table("connector_event", NUMBER).await
    }
}
