//! Repeated requests (AIP-155): the second of two equal requests gets the answer of the first, and changes nothing.

use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_store::{IdempotencyClaim, IdempotencyKey, Reader, Writer};
use jackfield_vault::DataKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The id by which a repeated request is recognised.
pub struct RequestId {
    pub id: Uuid,
    /// The request as it was sent. It can hold secrets, so only a keyed fingerprint of it is kept.
    pub body: Zeroizing<Vec<u8>>,
}

/// A request that may be the repeat of an earlier one.
pub(super) struct Repeat<'a> {
    key: IdempotencyKey<'a>,
    fingerprint: [u8; 32],
}

/// The time for which the answer to a request is kept for repeats: 24 hours, in microseconds.
const KEEP_MICROS: i64 = 24 * 3_600 * 1_000_000;

// === impl Repeat ===

impl<'a> Repeat<'a> {
    pub(super) fn new(
        system: &DataKey,
        (tenant, principal): (TenantId, &'a str),
        method: &'static str,
        request: &RequestId,
    ) -> Self {
        let parts: [&[u8]; 3] = [tenant.0.as_bytes(), method.as_bytes(), &request.body];
        let fingerprint = system.fingerprint("request", &parts);
        Repeat { key: IdempotencyKey { tenant, principal, method, request_id: request.id }, fingerprint }
    }

    /// Returns whether the id is claimed, by this request or by another one. A request that is under way is not seen.
    pub(super) async fn is_known(&self, store: &Reader, now: Timestamp) -> Result<bool> {
        store.request_is_known(self.key, now).await
    }

    /// The answer to the earlier request, if there was one; otherwise the id is claimed for this request.
    pub(super) async fn claim<T: DeserializeOwned>(&self, txn: &Writer, now: Timestamp) -> Result<Option<T>> {
        match txn.request_claim(self.key, &self.fingerprint, now, now.plus_micros(KEEP_MICROS)).await? {
            IdempotencyClaim::New => Ok(None),
            IdempotencyClaim::Repeated { fingerprint, answer } if fingerprint == self.fingerprint => {
                serde_json::from_str(&answer).map(Some).map_err(Error::internal)
            }
            IdempotencyClaim::Repeated { .. } => {
                Err(Error::RequestIdConflict { request_id: self.key.request_id.to_string() })
            }
        }
    }

    /// Stores the answer for repeats.
    pub(super) async fn keep<T: Serialize>(&self, txn: &Writer, answer: &T) -> Result<()> {
        txn.request_answer(self.key, serde_json::to_string(answer).map_err(Error::internal)?).await
    }
}
