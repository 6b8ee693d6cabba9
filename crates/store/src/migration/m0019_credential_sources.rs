//! The sources of the material of users.

use sea_orm_migration::prelude::*;

use super::{index, of_tenant, reference, text, uuid, uuid_null};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0019_credential_sources"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |name: &'static str| Alias::new(name);
        let key = Index::create().name("credential_source_pkey").col(column("tenant_id")).col(column("id")).to_owned();
        let table = Table::create()
            .table(column("credential_source"))
            .col(uuid("tenant_id"))
            .col(uuid("id"))
            .col(text(manager, "user_key"))
            .col(uuid_null("client_identity_key"))
            .col(uuid_null("trust_bundle_key"))
            .col(text(manager, "doc"))
            .primary_key(&mut key.clone())
            .foreign_key(&mut of_tenant("credential_source"))
            .foreign_key(&mut reference("credential_source", "client_identity_key", "key"))
            .foreign_key(&mut reference("credential_source", "trust_bundle_key", "key"))
            .to_owned();
        manager.create_table(table).await?;
        let user = index("credential_source", "user_key_key", &["tenant_id", "user_key"]).unique().to_owned();
        manager.create_index(user).await?;
        // A key that is deleted is looked up here.
        for name in ["client_identity_key", "trust_bundle_key"] {
            manager.create_index(index("credential_source", &format!("{name}_idx"), &["tenant_id", name])).await?;
        }
        Ok(())
    }
}
