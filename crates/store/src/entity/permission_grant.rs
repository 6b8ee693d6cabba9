//! The permissions of users in companies.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "permission_grant")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub application_id: Uuid,
    pub company_id: String,
    pub company_name: String,
    pub user_id: String,
    pub doc: String,
    pub search_text: String,
    pub folded: Option<String>,
    pub version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

super::no_relations!();
