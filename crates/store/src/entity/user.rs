//! Users.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "user")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub user_id: String,
    pub username_key: Option<String>,
    pub email_key: Option<String>,
    pub phone_number: Option<String>,
    pub first_name: String,
    pub last_name: String,
    pub enabled: bool,
    pub password_set: bool,
    pub connector_id: Option<Uuid>,
    pub doc: String,
    pub search_text: String,
    pub folded: Option<String>,
    pub version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

super::no_relations!();
