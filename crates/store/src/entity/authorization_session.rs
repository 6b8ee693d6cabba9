//! The authorisations of users.

use sea_orm::entity::prelude::*;

use jackfield_domain::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "authorization_session")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub connection_id: Uuid,
    pub user_id: String,
    pub state_digest: String,
    pub completion_digest: Option<String>,
    /// True as long as it may have secrets: it is open, and its time is not known to be over.
    pub is_open: bool,
    pub expire_time: i64,
    pub doc: String,
    /// The time of the database at which it is polled for next. Null if a browser comes back.
    pub poll_time: Option<i64>,
    /// Counts the leases of those who poll.
    pub poll_fence: Option<i64>,
}

super::no_relations!();

/// The rows of a tenant. Every query begins with them.
#[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
pub(crate) fn of(tenant: TenantId) -> Select<Entity> {
    Entity::find().filter(Column::TenantId.eq(tenant.0))
}
