//! What all changes have in common: they may be repeated, they may be for show only, they happen whole or not at all.

use jackfield_domain::tenant::Tenant;
use jackfield_domain::{Error, Result, TenantId, Violation};
use jackfield_store::{IdempotencyClaim, IdempotencyKey, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::caller::Caller;
use crate::open::Services;

/// How a change is to be carried out.
pub struct Mutation {
    /// The method of the contract.
    pub method: &'static str,
    /// The caller's id of the request, for repeats.
    pub request: Option<RequestId>,
    /// Check everything, change nothing.
    pub validate_only: bool,
}

/// A request that can be recognised when it comes again.
pub struct RequestId {
    pub id: Uuid,
    /// The request as it was sent. It can hold secrets, so only a keyed fingerprint of it is kept.
    pub body: Zeroizing<Vec<u8>>,
}

/// What deletes have in common.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// Empty = whatever is there.
    pub etag: String,
    pub allow_missing: bool,
    pub cascade: bool,
}

/// What the caller of an update says of the resource that it changes.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Empty = whatever is there.
    pub etag: String,
    /// The id that the resource in the request has, if it has one.
    pub id: Option<Uuid>,
}

/// How much a change writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Light,
    /// Maybe thousands of rows.
    Heavy,
}

/// When the work of a request was done.
enum Worked<T> {
    Now(T),
    Before(T),
}

/// A change as [`Services::carry_out`] needs it.
struct Order<'a> {
    mutation: &'a Mutation,
    weight: Weight,
    /// Whose rows it changes; `None` = it is not about rows of one tenant that must be there.
    tenant: Option<TenantId>,
}

/// How long the answer to a request is kept for repeats: 24 hours, in microseconds.
const KEEP_MICROS: i64 = 24 * 3_600 * 1_000_000;

// === impl Mutation ===

impl Mutation {
    /// Whether the same request again makes no second change.
    pub fn is_repeatable(&self) -> bool {
        self.request.is_some() && !self.validate_only
    }
}

// === impl Services ===

impl Services {
    /// Carries out a change of the caller's tenant: whole or not at all, once for each request id, for show only if so asked.
    /// Nothing is answered, errors included, before everything is durable that the answer rests on.
    pub(crate) async fn change<T, R, W>(
        &self,
        caller: &Caller<R>,
        mutation: &Mutation,
        weight: Weight,
        work: W,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        W: AsyncFnOnce(&Writer) -> Result<T>,
    {
        self.carry_out(caller, Order { mutation, weight, tenant: Some(caller.tenant()) }, work).await
    }

    /// As [`Services::change`], for changes of the deployment.
    pub(crate) async fn change_for_all<T, R, W>(
        &self,
        caller: &Caller<R>,
        mutation: &Mutation,
        weight: Weight,
        work: W,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        W: AsyncFnOnce(&Writer) -> Result<T>,
    {
        self.carry_out(caller, Order { mutation, weight, tenant: None }, work).await
    }

    async fn carry_out<T, R, W>(&self, caller: &Caller<R>, order: Order<'_>, work: W) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        W: AsyncFnOnce(&Writer) -> Result<T>,
    {
        let Order { mutation, weight, tenant } = order;
        let request = mutation.request.as_ref().filter(|_| mutation.is_repeatable());
        let fingerprint = match request {
            Some(request) => Some(self.fingerprint(caller, mutation, request).await?),
            None => None,
        };
        let key = request.map(|request| IdempotencyKey {
            tenant: caller.tenant(),
            principal: caller.name(),
            method: mutation.method,
            request_id: request.id,
        });
        let txn = match weight {
            Weight::Light => self.shared.store.write().await?,
            Weight::Heavy => self.shared.store.write_long().await?,
        };
        let worked = async {
            if let Some(tenant) = tenant
                && !txn.tenant_lock_shared(tenant).await?
            {
                return Err(Error::TenantUnknown { tenant: tenant.to_string() });
            }
            if let (Some(key), Some(fingerprint)) = (key, &fingerprint)
                && let Some(answer) = self.replay(&txn, key, fingerprint).await?
            {
                return Ok(Worked::Before(answer));
            }
            work(&txn).await.map(Worked::Now)
        };
        match worked.await {
            Ok(Worked::Now(answer)) if !mutation.validate_only => {
                if let Some(key) = key {
                    txn.request_answer(key, serde_json::to_string(&answer).map_err(Error::internal)?).await?;
                }
                txn.commit().await.map_err(|error| repeatable(error, key.is_some()))?;
                Ok(answer)
            }
            Ok(Worked::Now(answer) | Worked::Before(answer)) => {
                txn.rollback().await?;
                Ok(answer)
            }
            Err(error) => {
                let error = self.explain(&txn, tenant, error).await;
                txn.rollback().await?;
                Err(error)
            }
        }
    }

    /// What names a request whose body may hold secrets.
    async fn fingerprint<R>(&self, caller: &Caller<R>, mutation: &Mutation, request: &RequestId) -> Result<Vec<u8>> {
        let system = self.data_key_of_system().await?;
        let tenant = caller.tenant();
        let parts: [&[u8]; 3] = [tenant.0.as_bytes(), mutation.method.as_bytes(), &request.body];
        Ok(system.fingerprint("request", &parts).to_vec())
    }

    /// The answer of then, if the same caller sent the same request before.
    async fn replay<T: DeserializeOwned>(
        &self,
        txn: &Writer,
        key: IdempotencyKey<'_>,
        fingerprint: &[u8],
    ) -> Result<Option<T>> {
        let now = self.now();
        match txn.request_claim(key, fingerprint, now, now.plus_micros(KEEP_MICROS)).await? {
            IdempotencyClaim::New => Ok(None),
            IdempotencyClaim::Repeated { fingerprint: former, answer } if former == fingerprint => {
                serde_json::from_str(&answer).map(Some).map_err(Error::internal)
            }
            IdempotencyClaim::Repeated { .. } => {
                Err(Error::RequestIdConflict { request_id: key.request_id.to_string() })
            }
        }
    }

    /// What cannot be written because the tenant is gone says so.
    async fn explain(&self, txn: &Writer, tenant: Option<TenantId>, error: Error) -> Error {
        match tenant {
            Some(tenant) if error.retryable() && matches!(txn.fetch::<Tenant>(tenant, tenant).await, Ok(None)) => {
                Error::TenantUnknown { tenant: tenant.to_string() }
            }
            _ => error,
        }
    }
}

/// A change whose outcome is not known can be sent again if it carried a request id: it is then made once, or found done.
fn repeatable(error: Error, has_request_id: bool) -> Error {
    match error {
        Error::OutcomeUnknown { source, .. } => Error::outcome_unknown(has_request_id, source),
        error => error,
    }
}

// === impl Weight ===

impl Weight {
    pub(crate) fn of(deletion: &Deletion) -> Self {
        if deletion.cascade { Weight::Heavy } else { Weight::Light }
    }
}

/// Refuses to change another resource than the caller means, or another state of it.
pub(crate) fn check_expected(
    expected: &Expected,
    meta: &jackfield_domain::value::meta::Meta,
    resource: jackfield_domain::Resource,
    id: Uuid,
) -> Result<()> {
    if expected.id.is_some_and(|expected| expected != id) {
        let description = format!("is not that of the {} which reference names: {id}", resource.as_str());
        return Err(Violation::field(format!("{}.id", resource.as_str()), description).into());
    }
    check_etag(meta, &expected.etag, resource, id)
}

/// Refuses a stale etag.
pub(crate) fn check_etag(
    meta: &jackfield_domain::value::meta::Meta,
    etag: &str,
    resource: jackfield_domain::Resource,
    id: impl std::fmt::Display,
) -> Result<()> {
    if meta.matches(etag) { Ok(()) } else { Err(Error::EtagMismatch { resource, id: id.to_string() }) }
}
