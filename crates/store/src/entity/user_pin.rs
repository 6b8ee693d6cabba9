//! The users who stay with the connector that accepted them.

use sea_orm::entity::prelude::*;

use jackfield_domain::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "user_pin")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// The form of the login id by which users are pinned.
    #[sea_orm(primary_key, auto_increment = false)]
    pub login_key: String,
    pub connector_id: Uuid,
    pub create_time: i64,
}

super::no_relations!();

/// The rows of a tenant. Every query begins with them.
#[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
pub(crate) fn of(tenant: TenantId) -> Select<Entity> {
    Entity::find().filter(Column::TenantId.eq(tenant.0))
}
