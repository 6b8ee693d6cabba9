//! Attempts to refresh credentials.

use sea_orm::entity::prelude::*;

use jackfield_domain::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_attempt")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub credential_id: Uuid,
    pub material_version: i64,
    pub token_digest: Vec<u8>,
    pub sent_time: i64,
    pub end_time: Option<i64>,
    pub outcome: Option<String>,
    pub reason: String,
    /// The HTTP status of the response.
    pub status: Option<i64>,
}

super::no_relations!();

/// The rows of a tenant. Every query begins with them.
#[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
pub(crate) fn of(tenant: TenantId) -> Select<Entity> {
    Entity::find().filter(Column::TenantId.eq(tenant.0))
}
