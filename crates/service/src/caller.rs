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
/// use jackfield_service::{Caller, DeleteOptions, RequestOptions, Services};
///
/// async fn delete(services: Services, caller: Caller<ConnectorsWrite>, how: RequestOptions, which: Ref) {
///     let _ = services.connector_delete(&caller, &how, &which, &DeleteOptions::default()).await;
/// }
/// ```
///
/// The same with a caller who may only read does not compile:
///
/// ```compile_fail,E0308
/// use jackfield_domain::principal::right::ConnectorsRead;
/// use jackfield_domain::request::reference::Ref;
/// use jackfield_service::{Caller, DeleteOptions, RequestOptions, Services};
///
/// async fn delete(services: Services, caller: Caller<ConnectorsRead>, how: RequestOptions, which: Ref) {
///     let _ = services.connector_delete(&caller, &how, &which, &DeleteOptions::default()).await;
/// }
/// ```
pub struct Caller<R> {
    principal: Principal,
    /// The server's id of the call, which logs and audit events carry.
    request_id: Uuid,
    right: PhantomData<fn() -> R>,
}

/// The author of a change.
#[derive(Clone, Copy)]
pub(crate) enum Actor<'a> {
    /// A caller, by the name and the tenant of its principal.
    Caller { tenant: TenantId, name: &'a str, request_id: Uuid },
    /// The server itself, in the background.
    System,
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
    pub(crate) fn name(&self) -> &str {
        &self.principal.name
    }

    /// The server's id of the call.
    pub(crate) fn request_id(&self) -> Uuid {
        self.request_id
    }

    pub(crate) fn actor(&self) -> Actor<'_> {
        Actor::Caller { tenant: self.tenant(), name: self.name(), request_id: self.request_id }
    }
}
