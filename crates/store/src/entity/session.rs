//! Sessions of applications.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "session")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub application_id: Uuid,
    pub user_id: String,
    pub token_digest: String,
    pub expire_time: i64,
    pub doc: String,
    pub search_text: String,
    pub folded: Option<String>,
    pub version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

super::no_relations!();
