//! Counts of log-in attempts.

use sea_orm::entity::prelude::*;

use jackfield_domain::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "login_attempt")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// A keyed digest of what the attempts are counted by.
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Vec<u8>,
    pub attempts: i64,
    pub failures: i64,
    pub failure_time: i64,
    pub expire_time: i64,
}

super::no_relations!();

/// The rows of a tenant. Every query begins with them.
#[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
pub(crate) fn of(tenant: TenantId) -> Select<Entity> {
    Entity::find().filter(Column::TenantId.eq(tenant.0))
}
