//! Tenants: the boundary of isolation.

use serde::{Deserialize, Serialize};

use crate::id::TenantId;
use crate::meta::Meta;
use crate::text::TenantName;

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

/// What a new tenant is made of.
#[derive(Clone, Debug)]
pub struct TenantDraft {
    pub id: Option<TenantId>,
    pub name: TenantName,
    pub display_name: String,
}
