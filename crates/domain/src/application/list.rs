//! Lists of applications, of their permissions, and of their sessions.

use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;

/// The filter fields and orders of lists of applications.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Application,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "name", kind: FieldKind::NameText },
        Field { name: "external_id", kind: FieldKind::Text },
        Field { name: "enabled", kind: FieldKind::Bool },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "labels", kind: FieldKind::Map },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::Name, OrderBy::CreateTime],
};

/// The filter fields and orders of lists of permissions.
pub const GRANTS: Schema = Schema {
    resource: Resource::PermissionGrant,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "application", kind: FieldKind::Id },
        Field { name: "company_id", kind: FieldKind::Text },
        Field { name: "company_name", kind: FieldKind::Text },
        Field { name: "user_id", kind: FieldKind::Text },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::CreateTime],
};

/// The filter fields and orders of lists of sessions.
pub const SESSIONS: Schema = Schema {
    resource: Resource::Session,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "application", kind: FieldKind::Id },
        Field { name: "user_id", kind: FieldKind::Text },
        Field { name: "expire_time", kind: FieldKind::Time },
        Field { name: "create_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::CreateTime],
};
