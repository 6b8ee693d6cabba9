//! Lists of connectors.

use super::kind::ConnectorKind;
use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;

/// The filter fields and orders of lists of connectors.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Connector,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "description", kind: FieldKind::Text },
        Field { name: "kind", kind: FieldKind::Enum(ConnectorKind::NAMES) },
        Field { name: "enabled", kind: FieldKind::Bool },
        Field { name: "debug", kind: FieldKind::Bool },
        Field { name: "url", kind: FieldKind::Text },
        Field { name: "labels", kind: FieldKind::Map },
        Field { name: "client_identity_key", kind: FieldKind::Id },
        Field { name: "trust_bundle_key", kind: FieldKind::Id },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::Name, OrderBy::CreateTime],
};
