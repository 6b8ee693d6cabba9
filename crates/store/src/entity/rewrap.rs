//! The progress of re-wraps.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rewrap")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub state: String,
    pub kek_id: String,
    pub reseal: bool,
    pub data_keys_total: i64,
    pub data_keys_done: i64,
    pub secrets_total: i64,
    pub secrets_done: i64,
    pub failed: i64,
    pub start_time: i64,
    pub end_time: Option<i64>,
    pub heartbeat_time: i64,
}

super::no_relations!();
