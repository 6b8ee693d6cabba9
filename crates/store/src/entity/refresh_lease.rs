//! Leases of those who refresh credentials.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_lease")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub credential_id: Uuid,
    pub holder: Uuid,
    /// Counts the leases of the credential.
    pub fence: i64,
    /// The end, by the clock of the database.
    pub until_time: i64,
}

super::no_relations!();
