//! Credentials.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credential")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub external_id: Option<String>,
    pub user_id: String,
    pub connector_id: Uuid,
    pub connection_id: Option<Uuid>,
    pub user_connector_id: Uuid,
    pub key_id: Option<Uuid>,
    pub kind: String,
    pub state: String,
    pub expire_time: Option<i64>,
    pub authorization_expire_time: Option<i64>,
    pub provider_account_id: String,
    pub email_digest: Option<String>,
    pub is_default: bool,
    pub refreshable: bool,
    pub next_refresh_time: Option<i64>,
    pub doc: String,
    pub search_text: String,
    pub folded: Option<String>,
    pub version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

super::no_relations!();
