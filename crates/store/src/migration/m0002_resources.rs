//! The resources: keys, connectors, connections, user connectors, credentials, configurations.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use super::{
    boolean, index, int_null, of_tenant, page_indexes, reference, resource_table, text, text_null, uuid, uuid_null,
};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0002_resources"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        key(manager).await?;
        connector(manager).await?;
        connection(manager).await?;
        user_connector(manager).await?;
        credential(manager).await?;
        configuration(manager).await
    }
}

async fn key(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "key")
        .col(text(manager, "name_key"))
        .col(text(manager, "kind"))
        .col(super::int("not_after"))
        .foreign_key(&mut of_tenant("key"))
        .to_owned();
    manager.create_table(table).await?;
    manager.create_index(index("key", "name_key", &["tenant_id", "name_key"]).unique().to_owned()).await?;
    manager.create_index(index("key", "create_time_idx", &["tenant_id", "create_time", "id"])).await
}

async fn connector(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "connector")
        .col(text(manager, "name_key"))
        .col(text(manager, "kind"))
        .col(boolean("enabled"))
        .col(boolean("debug"))
        .col(text(manager, "description"))
        .col(text(manager, "url"))
        .col(uuid_null("client_identity_key"))
        .col(uuid_null("trust_bundle_key"))
        .foreign_key(&mut of_tenant("connector"))
        .foreign_key(&mut reference("connector", "client_identity_key", "key"))
        .foreign_key(&mut reference("connector", "trust_bundle_key", "key"))
        .to_owned();
    manager.create_table(table).await?;
    manager.create_index(index("connector", "name_key", &["tenant_id", "name_key"]).unique().to_owned()).await?;
    manager.create_index(index("connector", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    let identity = ["tenant_id", "client_identity_key"];
    manager.create_index(index("connector", "client_identity_key_idx", &identity)).await?;
    manager.create_index(index("connector", "trust_bundle_key_idx", &["tenant_id", "trust_bundle_key"])).await
}

async fn connection(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "connection")
        .col(text(manager, "name_key"))
        .col(text_null(manager, "external_id"))
        .col(uuid("connector_id"))
        .col(text(manager, "kind"))
        .col(boolean("active"))
        .col(text(manager, "client_id"))
        .col(text(manager, "issuer_url"))
        .col(text(manager, "authentication_url"))
        .col(text(manager, "token_url"))
        .col(text(manager, "provider_tenant_id"))
        .foreign_key(&mut of_tenant("connection"))
        .foreign_key(&mut reference("connection", "connector_id", "connector"))
        .to_owned();
    manager.create_table(table).await?;
    manager.create_index(index("connection", "name_key", &["tenant_id", "name_key"]).unique().to_owned()).await?;
    let external = ["tenant_id", "external_id"];
    manager.create_index(index("connection", "external_id_key", &external).unique().to_owned()).await?;
    manager.create_index(index("connection", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    let orders = [&["id"] as &[_], &["name_key"], &["create_time", "id"]];
    page_indexes(manager, "connection", &["connector_id"], &orders).await
}

async fn user_connector(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "user_connector")
        .col(text(manager, "user_id"))
        .col(uuid("connector_id"))
        .foreign_key(&mut of_tenant("user_connector"))
        .foreign_key(&mut reference("user_connector", "connector_id", "connector"))
        .to_owned();
    manager.create_table(table).await?;
    let pair = ["tenant_id", "user_id", "connector_id"];
    manager.create_index(index("user_connector", "pair_key", &pair).unique().to_owned()).await?;
    manager.create_index(index("user_connector", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    page_indexes(manager, "user_connector", &["user_id"], &[&["id"], &["create_time", "id"]]).await?;
    let orders = [&["id"] as &[_], &["user_id", "id"], &["create_time", "id"]];
    page_indexes(manager, "user_connector", &["connector_id"], &orders).await
}

async fn credential(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "credential")
        .col(text_null(manager, "external_id"))
        .col(text(manager, "user_id"))
        .col(uuid("connector_id"))
        .col(uuid_null("connection_id"))
        .col(uuid("user_connector_id"))
        .col(uuid_null("key_id"))
        .col(text(manager, "kind"))
        .col(text(manager, "status"))
        .col(int_null("expire_time"))
        .col(text(manager, "provider_account_id"))
        .col(boolean("is_default"))
        .col(boolean("refreshable"))
        .foreign_key(&mut of_tenant("credential"))
        .foreign_key(&mut reference("credential", "connector_id", "connector"))
        .foreign_key(&mut reference("credential", "connection_id", "connection"))
        .foreign_key(&mut reference("credential", "user_connector_id", "user_connector"))
        .foreign_key(&mut reference("credential", "key_id", "key"))
        .to_owned();
    manager.create_table(table).await?;
    let external = ["tenant_id", "external_id"];
    manager.create_index(index("credential", "external_id_key", &external).unique().to_owned()).await?;
    manager.create_index(index("credential", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    page_indexes(manager, "credential", &["user_id"], &[&["id"], &["create_time", "id"]]).await?;
    let orders = [&["id"] as &[_], &["user_id", "id"], &["create_time", "id"]];
    page_indexes(manager, "credential", &["connector_id", "connection_id"], &orders).await?;
    manager.create_index(index("credential", "user_connector_id_idx", &["tenant_id", "user_connector_id"])).await?;
    manager.create_index(index("credential", "key_id_idx", &["tenant_id", "key_id"])).await?;
    only_one_default(manager, "credential", "user_connector_id").await
}

async fn configuration(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let table = resource_table(manager, "configuration")
        .col(text_null(manager, "external_id"))
        .col(uuid("credential_id"))
        .col(text(manager, "user_id"))
        .col(uuid("connector_id"))
        .col(boolean("is_default"))
        .foreign_key(&mut of_tenant("configuration"))
        .foreign_key(&mut reference("configuration", "credential_id", "credential"))
        .foreign_key(&mut reference("configuration", "connector_id", "connector"))
        .to_owned();
    manager.create_table(table).await?;
    let external = ["tenant_id", "credential_id", "external_id"];
    manager.create_index(index("configuration", "external_id_key", &external).unique().to_owned()).await?;
    manager.create_index(index("configuration", "create_time_idx", &["tenant_id", "create_time", "id"])).await?;
    let orders = [&["id"] as &[_], &["create_time", "id"]];
    page_indexes(manager, "configuration", &["user_id", "connector_id", "credential_id"], &orders).await?;
    only_one_default(manager, "configuration", "credential_id").await
}

/// At most one default within a parent. The schema builder has no partial indexes; both databases spell them alike.
async fn only_one_default(manager: &SchemaManager<'_>, table: &str, parent: &str) -> Result<(), DbErr> {
    let truth = if manager.get_database_backend() == DbBackend::Sqlite { "is_default = 1" } else { "is_default" };
    let sql = format!("CREATE UNIQUE INDEX {table}_default_idx ON {table} (tenant_id, {parent}) WHERE {truth}");
    manager.get_connection().execute_unprepared(&sql).await.map(|_| ())
}
