//! Lists of connections.

use super::settings::ConnectionKind;
use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;

/// The filter fields and orders of lists of connections.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Connection,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "external_id", kind: FieldKind::Text },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "type", kind: FieldKind::Enum(ConnectionKind::NAMES) },
        Field { name: "active", kind: FieldKind::Bool },
        Field { name: "client_id", kind: FieldKind::Text },
        Field { name: "issuer_url", kind: FieldKind::Text },
        Field { name: "authentication_url", kind: FieldKind::Text },
        Field { name: "token_url", kind: FieldKind::Text },
        Field { name: "provider_tenant_id", kind: FieldKind::Text },
        Field { name: "tags", kind: FieldKind::Map },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::Name, OrderBy::CreateTime],
};
