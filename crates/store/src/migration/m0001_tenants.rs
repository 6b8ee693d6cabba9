//! Tenants, their data keys, and the parts that any resource may have: sealed secrets and labels.

use sea_orm_migration::prelude::*;

use super::{blob, index, int, of_tenant, reference, text, text_null, uuid};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0001_tenants"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tenant = Table::create()
            .table(Alias::new("tenant"))
            .col(uuid("id"))
            .primary_key(Index::create().name("tenant_pkey").col(Alias::new("id")))
            .col(text(manager, "name_key"))
            .col(text(manager, "display_name"))
            .col(text(manager, "doc"))
            .col(text(manager, "search_text"))
            .col(text_null(manager, "folded"))
            .col(int("version"))
            .col(int("create_time"))
            .col(int("update_time"))
            .to_owned();
        manager.create_table(tenant).await?;
        manager.create_index(index("tenant", "name_key", &["name_key"]).unique().to_owned()).await?;
        manager.create_index(index("tenant", "create_time_idx", &["create_time", "id"])).await?;

        // There is no foreign key to `tenant`: a data key may belong to the system, which has no row there.
        let data_key = Table::create()
            .table(Alias::new("data_key"))
            .col(uuid("tenant_id"))
            .col(uuid("id"))
            .primary_key(Index::create().name("data_key_pkey").col(Alias::new("tenant_id")).col(Alias::new("id")))
            .col(text(manager, "kek_id"))
            .col(blob("wrapped"))
            .col(int("create_time"))
            .to_owned();
        manager.create_table(data_key).await?;
        manager.create_index(index("data_key", "kek_id_idx", &["kek_id"])).await?;

        let secret = Table::create()
            .table(Alias::new("secret"))
            .col(uuid("tenant_id"))
            .col(text(manager, "owner"))
            .col(uuid("owner_id"))
            .col(text(manager, "name"))
            .primary_key(
                Index::create()
                    .name("secret_pkey")
                    .col(Alias::new("tenant_id"))
                    .col(Alias::new("owner"))
                    .col(Alias::new("owner_id"))
                    .col(Alias::new("name")),
            )
            .col(uuid("data_key_id"))
            .col(blob("sealed"))
            .foreign_key(&mut of_tenant("secret"))
            // A data key that seals anything cannot be deleted, and a deleted one cannot seal.
            .foreign_key(&mut reference("secret", "data_key_id", "data_key"))
            .to_owned();
        manager.create_table(secret).await?;
        manager.create_index(index("secret", "data_key_id_idx", &["tenant_id", "data_key_id"])).await?;

        let label = Table::create()
            .table(Alias::new("label"))
            .col(uuid("tenant_id"))
            .col(text(manager, "owner"))
            .col(uuid("owner_id"))
            .col(text(manager, "label_key"))
            .col(text(manager, "label_value"))
            .primary_key(
                Index::create()
                    .name("label_pkey")
                    .col(Alias::new("tenant_id"))
                    .col(Alias::new("owner"))
                    .col(Alias::new("owner_id"))
                    .col(Alias::new("label_key")),
            )
            .foreign_key(&mut of_tenant("label"))
            .to_owned();
        manager.create_table(label).await?;
        let by_value = ["tenant_id", "owner", "label_key", "label_value", "owner_id"];
        manager.create_index(index("label", "value_idx", &by_value)).await
    }
}
