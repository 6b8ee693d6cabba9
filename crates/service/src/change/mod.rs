//! Changes. Each is made as a whole or not at all, once for each request id, and is only checked if the caller asks for
//! that.
//!
//! All changes go through [`Changes::run`], those of callers and those that the server makes in the background. Code that
//! has to see every change belongs there.

pub(crate) mod audit;
mod deleted;
mod prepared;
mod repeat;
mod target;

use std::sync::Arc;

use jackfield_domain::principal::right::Admin;
use jackfield_domain::tenant::Tenant;
use jackfield_domain::{Clock, Error, Result, TenantId};
use jackfield_store::{Store, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::repeat::Repeat;
use crate::caller::{Actor, Caller};
use crate::sealing::data_keys::DataKeys;

pub use self::deleted::Deleted;
pub(crate) use self::prepared::Prepared;
pub use self::repeat::RequestId;
pub use self::target::{DeleteOptions, Expected};
pub(crate) use self::target::{
    found_for_delete, found_for_update, found_if_named, lock_parent, missing, names, refuse_in_use, unchanged,
};

/// The part of a request that says how a change is to be made.
pub struct RequestOptions {
    /// The method of the contract.
    pub method: &'static str,
    /// The caller's id of the request, for repeats.
    pub request: Option<RequestId>,
    /// True if everything is checked and nothing is changed.
    pub validate_only: bool,
}

/// The way into the database for everything that changes it.
pub(crate) struct Changes {
    store: Store,
    data_keys: Arc<DataKeys>,
    clock: Arc<dyn Clock>,
}

/// A change that is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    actor: Actor<'a>,
    /// The tenant whose rows change and which must exist; `None` for changes of the deployment.
    tenant: Option<TenantId>,
    length: Length,
    request: Option<&'a RequestOptions>,
}

/// The length of a transaction, and of its commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Short,
    /// It may write thousands of rows, so that others should not have to wait for its commit.
    Long,
    /// Short, and lost in a power failure without harm: its commit does not wait for the disk.
    Volatile,
}

// === impl RequestOptions ===

impl RequestOptions {
    /// Returns true if sending the same request again makes no second change.
    pub fn is_repeatable(&self) -> bool {
        self.repeatable().is_some()
    }

    fn repeatable(&self) -> Option<&RequestId> {
        self.request.as_ref().filter(|_| !self.validate_only)
    }
}

// === impl Changes ===

impl Changes {
    pub(crate) fn new(store: Store, data_keys: Arc<DataKeys>, clock: Arc<dyn Clock>) -> Self {
        Changes { store, data_keys, clock }
    }

    /// Makes a change. Nothing is answered, errors included, before everything is durable that the answer depends on.
    pub(crate) async fn run<T, W>(&self, change: Change<'_>, work: W) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        W: AsyncFnOnce(&Writer) -> Result<T>,
    {
        let Change { actor, tenant, length, request } = change;
        let repeat = self.repeat(actor, request).await?;
        let txn = match length {
            Length::Short => self.store.write().await?,
            Length::Long => self.store.write_long().await?,
            Length::Volatile => self.store.write_volatile().await?,
        };
        let work = async {
            if let Some(tenant) = tenant
                && !txn.tenant_lock_shared(tenant).await?
            {
                return Err(Error::TenantUnknown { tenant: tenant.to_string() });
            }
            if let Some(repeat) = &repeat
                && let Some(answer) = repeat.claim(&txn, self.clock.now()).await?
            {
                return Ok((answer, false));
            }
            let commits = !change.validates_only();
            work(&txn).await.map(|answer| (answer, commits))
        };
        match work.await {
            Ok((answer, true)) => {
                if let Some(repeat) = &repeat {
                    repeat.keep(&txn, &answer).await?;
                }
                txn.commit().await.map_err(|error| repeatable(error, repeat.is_some()))?;
                Ok(answer)
            }
            Ok((answer, false)) => {
                txn.rollback().await?;
                Ok(answer)
            }
            Err(error) => {
                let error = explain(&txn, tenant, error).await;
                txn.rollback().await?;
                Err(error)
            }
        }
    }

    async fn repeat<'a>(&self, actor: Actor<'a>, options: Option<&'a RequestOptions>) -> Result<Option<Repeat<'a>>> {
        let (Actor::Caller { tenant, name, .. }, Some(options)) = (actor, options) else { return Ok(None) };
        let Some(request) = options.repeatable() else { return Ok(None) };
        let system = self.data_keys.system().await?;
        Ok(Some(Repeat::new(&system, (tenant, name), options.method, request)))
    }
}

// === impl Change ===

impl<'a> Change<'a> {
    /// A change of the caller's tenant.
    pub(crate) fn of_tenant<R>(caller: &'a Caller<R>, request: &'a RequestOptions, length: Length) -> Self {
        Change { actor: caller.actor(), tenant: Some(caller.tenant()), length, request: Some(request) }
    }

    /// A change of the deployment by a caller.
    pub(crate) fn of_deployment(caller: &'a Caller<Admin>, request: &'a RequestOptions, length: Length) -> Self {
        Change { tenant: None, ..Change::of_tenant(caller, request, length) }
    }

    /// A change of the caller's tenant that follows from a request which is not a change itself, and so lacks the options
    /// of one.
    pub(crate) fn on_behalf_of<R>(caller: &'a Caller<R>) -> Self {
        Change { actor: caller.actor(), tenant: Some(caller.tenant()), length: Length::Short, request: None }
    }

    /// A change of a tenant by the server itself, for a caller that may be gone.
    pub(crate) fn of_tenant_by_system(tenant: TenantId, length: Length) -> Self {
        Change { tenant: Some(tenant), ..Change::by_system(length) }
    }

    /// A change by the server itself.
    pub(crate) fn by_system(length: Length) -> Self {
        Change { actor: Actor::System, tenant: None, length, request: None }
    }

    /// Returns true if everything is checked and nothing is changed.
    pub(crate) fn validates_only(&self) -> bool {
        self.request.is_some_and(|request| request.validate_only)
    }
}

// === impl Length ===

impl Length {
    pub(crate) fn of(options: &DeleteOptions) -> Self {
        if options.cascade { Length::Long } else { Length::Short }
    }
}

/// Replaces the error of a write that failed because the tenant is gone.
async fn explain(txn: &Writer, tenant: Option<TenantId>, error: Error) -> Error {
    match tenant {
        Some(tenant) if error.retryable() && matches!(txn.fetch::<Tenant>(tenant, tenant).await, Ok(None)) => {
            Error::TenantUnknown { tenant: tenant.to_string() }
        }
        _ => error,
    }
}

/// A change whose outcome is not known can be sent again if it carried a request id: it is then made once, or found to have
/// been made.
fn repeatable(error: Error, has_request_id: bool) -> Error {
    match error {
        Error::OutcomeUnknown { source, .. } => Error::outcome_unknown(has_request_id, source),
        error => error,
    }
}
