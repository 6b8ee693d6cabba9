//! Connections.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "connection")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name_key: String,
    pub external_id: Option<String>,
    pub connector_id: Uuid,
    pub kind: String,
    pub active: bool,
    pub client_id: String,
    pub issuer_url: String,
    pub authentication_url: String,
    pub token_url: String,
    pub provider_tenant_id: String,
    pub client_key: Option<Uuid>,
    pub doc: String,
    pub search_text: String,
    pub folded: Option<String>,
    pub version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

super::no_relations!();
