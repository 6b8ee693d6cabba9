//! Applications, the permissions of their users, and their sessions.

use sea_orm_migration::prelude::*;

use super::search::WordIndex;
use super::{
    boolean, index, int, of_tenant, page_indexes, reference, resource_table, text, text_null, uuid, uuid_null,
};

pub(super) struct Step;

/// The tables, each with its number in the index of words.
const TABLES: [(&str, i64); 3] = [("application", 8), ("permission_grant", 9), ("session", 10)];

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0010_applications"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        application(manager).await?;
        permission_grant(manager).await?;
        session(manager).await?;
        let words = WordIndex::open(manager).await?;
        for (table, number) in TABLES {
            words.add_table(table, number).await?;
        }
        Ok(())
    }
}

async fn application(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "application")
        .col(text(manager, "name_key"))
        .col(text_null(manager, "external_id"))
        .col(boolean("enabled"))
        .col(uuid_null("connector_id"))
        .foreign_key(&mut of_tenant("application"))
        .foreign_key(&mut reference("application", "connector_id", "connector"))
        .to_owned();
    manager.create_table(table).await?;
    manager.create_index(index("application", "name_key", &["tenant_id", "name_key"]).unique().to_owned()).await?;
    let external = ["tenant_id", "external_id"];
    manager.create_index(index("application", "external_id_key", &external).unique().to_owned()).await?;
    manager.create_index(index("application", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    let orders = [&["id"] as &[_], &["name_key"], &["create_time", "id"]];
    page_indexes(manager, "application", &["connector_id"], &orders).await
}

async fn permission_grant(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "permission_grant")
        .col(uuid("application_id"))
        .col(text(manager, "company_id"))
        .col(text(manager, "company_name"))
        .col(text(manager, "user_id"))
        .foreign_key(&mut of_tenant("permission_grant"))
        .foreign_key(&mut reference("permission_grant", "application_id", "application"))
        .to_owned();
    manager.create_table(table).await?;
    let granted = ["tenant_id", "application_id", "user_id", "company_id"];
    manager.create_index(index("permission_grant", "granted_key", &granted).unique().to_owned()).await?;
    manager.create_index(index("permission_grant", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    let orders = [&["id"] as &[_], &["create_time", "id"]];
    page_indexes(manager, "permission_grant", &["application_id", "company_id", "user_id"], &orders).await
}

async fn session(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "session")
        .col(uuid("application_id"))
        .col(text(manager, "user_id"))
        .col(text(manager, "token_digest"))
        .col(int("expire_time"))
        .foreign_key(&mut of_tenant("session"))
        .foreign_key(&mut reference("session", "application_id", "application"))
        .to_owned();
    manager.create_table(table).await?;
    let token = ["tenant_id", "token_digest"];
    manager.create_index(index("session", "token_digest_key", &token).unique().to_owned()).await?;
    // Maintenance looks them up for all tenants.
    manager.create_index(index("session", "expire_time_idx", &["expire_time"])).await?;
    manager.create_index(index("session", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    let orders = [&["id"] as &[_], &["create_time", "id"]];
    page_indexes(manager, "session", &["application_id", "user_id"], &orders).await?;
    manager.create_index(index("session", "of_user_idx", &["tenant_id", "application_id", "user_id", "id"])).await
}
