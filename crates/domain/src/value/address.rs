//! Addresses of sealed secrets.

use uuid::Uuid;

use super::id::{ResourceId, TenantId};
use crate::resource::Resource;

/// The place that a sealed secret belongs to. Sealing binds the secret to it, so that a secret that is moved to another place
/// does not open there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecretAddress<'a> {
    pub tenant: TenantId,
    /// The kind of the resource that has the secret.
    pub owner: Resource,
    /// The id of that resource.
    pub owner_id: Uuid,
    /// The name of the secret within its owner, such as `material`.
    pub name: &'a str,
}

// === impl SecretAddress ===

impl<'a> SecretAddress<'a> {
    /// The place of a secret of a resource.
    pub fn of<Id: ResourceId>(tenant: TenantId, owner: Id, name: &'a str) -> Self {
        SecretAddress { tenant, owner: Id::RESOURCE, owner_id: owner.into(), name }
    }
}
