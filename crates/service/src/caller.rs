//! Callers and the one check of their rights.

use std::marker::PhantomData;

use jackfield_domain::principal::{Principal, RightType};
use jackfield_domain::{Error, Result, TenantId};
use uuid::Uuid;

/// A caller who has the right `R`. A use case states in its signature which right it needs, and takes no other caller.
///
/// A caller who may write connectors may delete one:
///
/// ```
/// use jackfield_domain::principal::right::ConnectorsWrite;
/// use jackfield_domain::request::reference::Ref;
/// use jackfield_service::{Caller, Deletion, Mutation, Services};
///
/// async fn delete(services: Services, caller: Caller<ConnectorsWrite>, how: Mutation, which: Ref) {
///     let _ = services.connector_delete(&caller, &how, &which, &Deletion::default()).await;
/// }
/// ```
///
/// The same with a caller who was let in for reading does not compile:
///
/// ```compile_fail,E0308
/// use jackfield_domain::principal::right::ConnectorsRead;
/// use jackfield_domain::request::reference::Ref;
/// use jackfield_service::{Caller, Deletion, Mutation, Services};
///
/// async fn delete(services: Services, caller: Caller<ConnectorsRead>, how: Mutation, which: Ref) {
///     let _ = services.connector_delete(&caller, &how, &which, &Deletion::default()).await;
/// }
/// ```
pub struct Caller<R> {
    principal: Principal,
    request_id: Uuid,
    right: PhantomData<fn() -> R>,
}

// === impl Caller ===

impl<R: RightType> Caller<R> {
    /// Checks the right of a principal. This comes before anything is looked up, so that a caller without the right cannot
    /// learn what exists.
    pub fn authorize(principal: Principal, request_id: Uuid) -> Result<Self> {
        if !principal.rights.has(R::RIGHT) {
            return Err(Error::ScopeDenied { right: R::RIGHT.as_str() });
        }
        Ok(Caller { principal, request_id, right: PhantomData })
    }
}

impl<R> Caller<R> {
    /// The tenant whose resources the call is about.
    pub fn tenant(&self) -> TenantId {
        self.principal.tenant
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
