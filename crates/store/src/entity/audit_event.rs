//! Audit records.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub create_time: i64,
    pub principal: String,
    pub action: String,
    pub resource: String,
    pub resource_id: Uuid,
    pub purpose: String,
    pub request_id: String,
}

super::no_relations!();
