//! The routing policies of tenants, what their rules refer to, and the users who stay with a connector.

use sea_orm_migration::prelude::*;

use super::{index, int, of_tenant, reference, text, uuid, uuid_null};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0011_routing"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |name: &'static str| Alias::new(name);
        let policy = Table::create()
            .table(Alias::new("routing_policy"))
            .col(uuid("tenant_id"))
            .col(text(manager, "doc"))
            .primary_key(Index::create().name("routing_policy_pkey").col(column("tenant_id")))
            .foreign_key(&mut of_tenant("routing_policy"))
            .to_owned();
        manager.create_table(policy).await?;

        let key = Index::create().name("routing_target_pkey").col(column("tenant_id")).col(column("rule")).to_owned();
        let target = Table::create()
            .table(Alias::new("routing_target"))
            .col(uuid("tenant_id"))
            .col(int("rule"))
            .col(uuid_null("connector_id"))
            .col(uuid_null("connection_id"))
            .primary_key(&mut key.clone())
            .foreign_key(&mut of_tenant("routing_target"))
            .foreign_key(&mut reference("routing_target", "connector_id", "connector"))
            .foreign_key(&mut reference("routing_target", "connection_id", "connection"))
            .to_owned();
        manager.create_table(target).await?;
        for to in ["connector_id", "connection_id"] {
            manager.create_index(index("routing_target", &format!("{to}_idx"), &["tenant_id", to])).await?;
        }

        let key = Index::create().name("user_pin_pkey").col(column("tenant_id")).col(column("login_key")).to_owned();
        let pin = Table::create()
            .table(Alias::new("user_pin"))
            .col(uuid("tenant_id"))
            .col(text(manager, "login_key"))
            .col(uuid("connector_id"))
            .col(int("create_time"))
            .primary_key(&mut key.clone())
            .foreign_key(&mut of_tenant("user_pin"))
            .foreign_key(&mut reference("user_pin", "connector_id", "connector"))
            .to_owned();
        manager.create_table(pin).await?;
        manager.create_index(index("user_pin", "connector_id_idx", &["tenant_id", "connector_id"])).await
    }
}
