//! Lists of credentials.

use super::state::{CredentialKind, CredentialState};
use crate::request::order::OrderBy;
use crate::request::schema::{Field, FieldKind, Schema};
use crate::resource::Resource;

/// The filter fields and orders of lists of credentials.
pub const SCHEMA: Schema = Schema {
    resource: Resource::Credential,
    fields: &[
        Field { name: "id", kind: FieldKind::Id },
        Field { name: "external_id", kind: FieldKind::Text },
        Field { name: "user_id", kind: FieldKind::Text },
        Field { name: "connector", kind: FieldKind::Id },
        Field { name: "connection", kind: FieldKind::Id },
        Field { name: "user_connector", kind: FieldKind::Id },
        Field { name: "kind", kind: FieldKind::Enum(CredentialKind::NAMES) },
        Field { name: "state", kind: FieldKind::Enum(CredentialState::NAMES) },
        Field { name: "expire_time", kind: FieldKind::Time },
        Field { name: "authorization_expire_time", kind: FieldKind::Time },
        Field { name: "provider_account_id", kind: FieldKind::Text },
        Field { name: "is_default", kind: FieldKind::Bool },
        Field { name: "refreshable", kind: FieldKind::Bool },
        Field { name: "labels", kind: FieldKind::Map },
        Field { name: "create_time", kind: FieldKind::Time },
        Field { name: "update_time", kind: FieldKind::Time },
    ],
    orders: &[OrderBy::Id, OrderBy::UserId, OrderBy::CreateTime],
};
