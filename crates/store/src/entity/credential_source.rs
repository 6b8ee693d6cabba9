//! Credential sources.

use sea_orm::entity::prelude::*;

use jackfield_domain::TenantId;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credential_source")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The user; empty for the source of the tenant.
    pub user_key: String,
    pub client_identity_key: Option<Uuid>,
    pub trust_bundle_key: Option<Uuid>,
    pub doc: String,
}

super::no_relations!();

/// The rows of a tenant. Every query begins with them.
#[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
pub(crate) fn of(tenant: TenantId) -> Select<Entity> {
    Entity::find().filter(Column::TenantId.eq(tenant.0))
}
