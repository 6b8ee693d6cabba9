//! Tenants: the boundary of isolation.

use serde::{Deserialize, Serialize};

use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;
use crate::value::id::TenantId;
use crate::value::meta::Meta;
use crate::value::text::TenantName;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: TenantId,
    /// The name that the configuration file uses; it never changes.
    pub name: TenantName,
    /// The name for people; may be empty.
    pub display_name: String,
    pub meta: Meta,
}

/// A new tenant.
#[derive(Clone, Debug)]
pub struct TenantDraft {
    pub id: Option<TenantId>,
    pub name: TenantName,
    pub display_name: String,
}

/// The filter fields and orders of lists of tenants.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Tenant,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "display_name", kind: FieldKind::Text },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::Name, OrderBy::CreateTime],
};
