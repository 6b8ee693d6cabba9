//! What all changes have in common: they may be repeated, they may be for show only, they happen whole or not at all.

use jackfield_domain::{Error, Result, TenantId};
use jackfield_store::{Claim, RequestKey, Writer};
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

/// A change that has begun, or one that was carried out before.
pub(crate) enum Begun<T> {
    Fresh(Change),
    Replay(T),
}

/// A change under way. Dropping it undoes everything.
pub(crate) struct Change {
    pub(crate) txn: Writer,
    claimed: Option<Uuid>,
}

/// How long the answer to a request is kept for repeats: 24 hours, in microseconds.
const KEEP_MICROS: i64 = 24 * 3_600 * 1_000_000;

// === impl Services ===

impl Services {
    /// Begins a change. If the same caller sent the same request before, the answer of then is the answer.
    pub(crate) async fn begin<T: DeserializeOwned>(&self, caller: &Caller, mutation: &Mutation) -> Result<Begun<T>> {
        let request = mutation.request.as_ref().filter(|_| !mutation.validate_only);
        let Some(request) = request else {
            return Ok(Begun::Fresh(Change { txn: self.shared.store.write().await?, claimed: None }));
        };
        let system = self.data_key_of_system().await?;
        let tenant = caller.tenant();
        let parts: [&[u8]; 3] = [tenant.0.as_bytes(), mutation.method.as_bytes(), &request.body];
        let fingerprint = system.fingerprint("request", &parts);
        let now = self.now();
        let key = RequestKey { tenant, principal: caller.name(), method: mutation.method, request_id: request.id };
        let txn = self.shared.store.write().await?;
        match txn.request_claim(key, &fingerprint, now, now.plus_micros(KEEP_MICROS)).await? {
            Claim::Fresh => Ok(Begun::Fresh(Change { txn, claimed: Some(request.id) })),
            Claim::Done { fingerprint: former, answer } if former == fingerprint => {
                serde_json::from_str(&answer).map(Begun::Replay).map_err(Error::internal)
            }
            Claim::Done { .. } => Err(Error::RequestIdConflict { request_id: request.id.to_string() }),
        }
    }

    /// Ends a change: keeps its answer for repeats and makes everything durable, or undoes it if it was for show.
    pub(crate) async fn finish<T: Serialize>(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        change: Change,
        answer: T,
    ) -> Result<T> {
        let Change { txn, claimed } = change;
        if mutation.validate_only {
            txn.rollback().await?;
            return Ok(answer);
        }
        if let Some(request_id) = claimed {
            let tenant: TenantId = caller.tenant();
            let key = RequestKey { tenant, principal: caller.name(), method: mutation.method, request_id };
            txn.request_answer(key, serde_json::to_string(&answer).map_err(Error::internal)?).await?;
        }
        txn.commit().await?;
        Ok(answer)
    }
}

/// Refuses a stale etag.
pub(crate) fn check_etag(
    meta: &jackfield_domain::meta::Meta,
    etag: &str,
    resource: jackfield_domain::Resource,
    id: impl std::fmt::Display,
) -> Result<()> {
    if meta.matches(etag) { Ok(()) } else { Err(Error::EtagMismatch { resource, id: id.to_string() }) }
}
