//! Lists of users.

use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;

/// The filter fields and orders of lists of users.
pub const SCHEMA: Schema = Schema {
    resource: Resource::User,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "user_id", kind: FieldKind::Text },
        Field { name: "username", kind: FieldKind::NameText },
        Field { name: "email", kind: FieldKind::NameText },
        Field { name: "phone_number", kind: FieldKind::Text },
        Field { name: "first_name", kind: FieldKind::Text },
        Field { name: "last_name", kind: FieldKind::Text },
        Field { name: "enabled", kind: FieldKind::Bool },
        Field { name: "password_set", kind: FieldKind::Bool },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "labels", kind: FieldKind::Map },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::CreateTime],
};
