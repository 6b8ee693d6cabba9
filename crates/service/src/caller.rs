//! Who is calling, with the one question that is answered here and nowhere else: may they?

use jackfield_domain::principal::{Principal, Right};
use jackfield_domain::{Error, Result, TenantId};
use uuid::Uuid;

/// A caller whose right to the call was checked. Use cases take nothing less.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    request_id: Uuid,
}

impl Caller {
    /// Checks that a principal may do what a method needs. It is asked before anything is looked up, so that a caller
    /// without the right cannot learn what exists.
    pub fn authorize(principal: Principal, right: Right, request_id: Uuid) -> Result<Self> {
        if !principal.rights.has(right) {
            return Err(Error::ScopeDenied { right: right.as_str() });
        }
        Ok(Caller { principal, request_id })
    }

    /// The tenant whose resources the call is about.
    pub fn tenant(&self) -> TenantId {
        self.principal.tenant
    }

    pub(crate) fn tenant_bytes(&self) -> &[u8] {
        self.principal.tenant.0.as_bytes()
    }

    /// The name of the principal.
    pub fn name(&self) -> &str {
        &self.principal.name
    }

    /// The server's id of the call, which logs and records carry.
    pub fn request_id(&self) -> Uuid {
        self.request_id
    }
}
