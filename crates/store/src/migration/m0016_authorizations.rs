//! The authorisations of users.

use sea_orm_migration::prelude::*;

use super::{boolean, index, int, of_tenant, reference, text, text_null, uuid};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0016_authorizations"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |name: &'static str| Alias::new(name);
        let key =
            Index::create().name("authorization_session_pkey").col(column("tenant_id")).col(column("id")).to_owned();
        let table = Table::create()
            .table(column("authorization_session"))
            .col(uuid("tenant_id"))
            .col(uuid("id"))
            .col(uuid("connection_id"))
            .col(text(manager, "user_id"))
            .col(text(manager, "state_digest"))
            .col(text_null(manager, "completion_digest"))
            .col(boolean("is_open"))
            .col(int("expire_time"))
            .col(text(manager, "doc"))
            .primary_key(&mut key.clone())
            .foreign_key(&mut of_tenant("authorization_session"))
            .foreign_key(&mut reference("authorization_session", "connection_id", "connection"))
            .to_owned();
        manager.create_table(table).await?;
        // A callback names no tenant.
        let state = index("authorization_session", "state_digest_key", &["state_digest"]).unique().to_owned();
        manager.create_index(state).await?;
        let completion = index("authorization_session", "completion_digest_idx", &["tenant_id", "completion_digest"]);
        manager.create_index(completion).await?;
        let connection = index("authorization_session", "connection_id_idx", &["tenant_id", "connection_id"]);
        manager.create_index(connection).await?;
        let user = index("authorization_session", "user_id_idx", &["tenant_id", "user_id", "is_open"]);
        manager.create_index(user).await?;
        // Maintenance looks them up for all tenants.
        let open = index("authorization_session", "open_idx", &["is_open", "expire_time"]);
        manager.create_index(open).await?;
        manager.create_index(index("authorization_session", "expire_time_idx", &["expire_time"])).await
    }
}
