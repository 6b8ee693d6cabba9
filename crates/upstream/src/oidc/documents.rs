//! Documents of issuers that are kept for a while. Each is fetched by one call at a time; the others wait for what it finds.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use jackfield_domain::value::json;
use jackfield_domain::value::url::HttpUrl;
use jackfield_domain::{TenantId, Timestamp};
use quick_cache::sync::Cache;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use super::fault::DocumentFault;
use crate::client::{Client, Deadline, Purpose, Request};
use crate::clients::{ClientId, cache_of};
use crate::error::CallError;

/// The client that fetches documents, and whose they are: what one connection fetched is never used for another.
#[derive(Clone, Copy, Debug)]
pub struct Fetcher<'a> {
    pub client: &'a Client,
    pub id: ClientId,
    pub now: Timestamp,
    /// The time at which the document must be there.
    pub deadline: Option<Deadline>,
}

/// Documents, found by whose they are and by their URL.
pub(super) struct Documents<T> {
    slots: Cache<(ClientId, HttpUrl), Arc<Slot<T>>>,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    turn: tokio::sync::Mutex<()>,
}

struct State<T> {
    document: Option<Dated<Arc<T>>>,
    failure: Option<Dated<DocumentFault>>,
    /// The first time at which there was no document any more, if there has been none since.
    absence: Option<Dated<()>>,
    /// The last time at which someone asked for a newer document than the one that was kept.
    renewal: Option<Dated<()>>,
}

struct Dated<T> {
    value: T,
    time: Timestamp,
}

/// The time for which a document is used. A key that its issuer withdraws is not trusted for longer.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3600);
/// The time for which the last document is used although there is none where it was: a deployment or a proxy of the issuer may be at fault.
pub(super) const MAX_ABSENCE: Duration = Duration::from_secs(24 * 3600);
/// The time after a failure for which nothing is fetched.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// The shortest time between two renewals. A caller who can send tokens can ask for renewals.
pub(super) const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
/// The largest document, in bytes.
pub(super) const MAX_DOCUMENT: usize = 256 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

// === impl Fetcher ===

impl Fetcher<'_> {
    /// Fetches a document of an issuer. Redirects are not followed.
    pub(super) async fn fetch<T: DeserializeOwned>(&self, url: &HttpUrl) -> Result<T, DocumentFault> {
        self.fetch_as(Purpose::Document, document_request(url.clone(), self.deadline)).await
    }

    /// Fetches a document of JSON that only the owner of a token gets.
    pub(super) async fn fetch_with<T: DeserializeOwned>(
        &self,
        purpose: Purpose,
        url: &HttpUrl,
        authorization: HeaderValue,
    ) -> Result<T, DocumentFault> {
        let mut request = document_request(url.clone(), self.deadline);
        request.headers.insert(AUTHORIZATION, authorization);
        self.fetch_as(purpose, request).await
    }

    async fn fetch_as<T: DeserializeOwned>(&self, purpose: Purpose, request: Request) -> Result<T, DocumentFault> {
        let response = self.client.send_as(purpose, request).await?;
        document(response.status, &response.body)
    }
}

/// The request for a document of JSON.
pub(crate) fn document_request(url: HttpUrl, deadline: Option<Deadline>) -> Request {
    let headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
    Request { method: Method::GET, url, headers, body: Bytes::new(), deadline }
}

/// The document of a response.
pub(super) fn document<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, DocumentFault> {
    if status != StatusCode::OK {
        return Err(DocumentFault::Status(status));
    }
    if body.len() > MAX_DOCUMENT {
        return Err(DocumentFault::BodyTooLarge(MAX_DOCUMENT));
    }
    read(body)
}

/// Reads a document of JSON.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DocumentFault> {
    let text = std::str::from_utf8(body).map_err(|_| DocumentFault::BodyMalformed { line: 1, column: 1 })?;
    json::read(text).map_err(|error| DocumentFault::BodyMalformed { line: error.line(), column: error.column() })
}

// === impl Documents ===

impl<T> Documents<T> {
    /// Keeps at most so many documents.
    pub(super) fn new(max: usize) -> Self {
        Documents { slots: cache_of(max) }
    }

    /// Returns a document that is not too old, and fetches it if there is none.
    pub(super) async fn get(
        &self,
        fetcher: &Fetcher<'_>,
        url: &HttpUrl,
        fetch: impl Future<Output = Result<T, DocumentFault>>,
    ) -> Result<Arc<T>, DocumentFault> {
        let slot = self.slot(fetcher, url);
        if let Some(document) = slot.state().fresh(fetcher.now) {
            return Ok(document);
        }
        let _turn = slot.turn(fetcher).await?;
        if let Some(known) = slot.state().known(fetcher.now) {
            return known;
        }
        slot.fetch(fetcher, fetch).await
    }

    /// The same, but the last document if the issuer does not answer now, however old it is, and for a day if there is none where it was, or
    /// something else in its place, such as a page. One that the issuer has replaced by one of another issuer, or with unusable members, is not
    /// used again.
    pub(super) async fn get_or_last(
        &self,
        fetcher: &Fetcher<'_>,
        url: &HttpUrl,
        fetch: impl Future<Output = Result<T, DocumentFault>>,
    ) -> Result<Arc<T>, DocumentFault> {
        let fault = match self.get(fetcher, url, fetch).await {
            Err(fault) => fault,
            found => return found,
        };
        if !fault.keeps_last() {
            self.slot(fetcher, url).state().document = None;
            return Err(fault);
        }
        let last = self.last(fetcher.id, url, fetcher.now).ok_or_else(|| fault.clone())?;
        tracing::debug!(error.type = fault.reason(), "an issuer has no document now, so its last one is used");
        Ok(last)
    }

    /// The last document that was fetched, however old it is. `None` if there has been none for too long.
    pub(super) fn last(&self, id: ClientId, url: &HttpUrl, now: Timestamp) -> Option<Arc<T>> {
        let slot = self.slots.get(&(id, url.clone()))?;
        let state = slot.state();
        if state.absence.as_ref().is_some_and(|absence| !absence.is_within(MAX_ABSENCE, now)) {
            return None;
        }
        state.document.as_ref().map(|document| document.value.clone())
    }

    /// Returns a newer document than one that lacks something. `None` if it is too early to ask for one again.
    pub(super) async fn renewed(
        &self,
        than: &Arc<T>,
        fetcher: &Fetcher<'_>,
        url: &HttpUrl,
        fetch: impl Future<Output = Result<T, DocumentFault>>,
    ) -> Result<Option<Arc<T>>, DocumentFault> {
        let slot = self.slot(fetcher, url);
        let _turn = slot.turn(fetcher).await?;
        {
            let mut state = slot.state();
            if let Some(document) = state.fresh(fetcher.now).filter(|document| !Arc::ptr_eq(document, than)) {
                return Ok(Some(document));
            }
            if state.renewal.as_ref().is_some_and(|renewal| renewal.is_within(RENEWAL_PAUSE, fetcher.now)) {
                return Ok(None);
            }
            state.renewal = Some(Dated { value: (), time: fetcher.now });
        }
        slot.fetch(fetcher, fetch).await.map(Some)
    }

    /// Forgets what was fetched for one.
    pub(super) fn remove(&self, id: ClientId) {
        self.slots.retain(|(owner, _), _| *owner != id);
    }

    /// Forgets what was fetched for a tenant.
    pub(super) fn remove_tenant(&self, tenant: TenantId) {
        self.slots.retain(|((owner, _), _), _| *owner != tenant);
    }

    fn slot(&self, fetcher: &Fetcher<'_>, url: &HttpUrl) -> Arc<Slot<T>> {
        let Ok(slot) =
            self.slots.get_or_insert_with(&(fetcher.id, url.clone()), || Ok::<_, Infallible>(Arc::default()));
        slot
    }
}

// === impl Slot ===

impl<T> Slot<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other call fetches the document.
    async fn turn(&self, fetcher: &Fetcher<'_>) -> Result<tokio::sync::MutexGuard<'_, ()>, DocumentFault> {
        let Some(deadline) = fetcher.deadline else { return Ok(self.turn.lock().await) };
        let late = |_| CallError { fault: deadline.fault(), sent: false };
        Ok(timeout_at(deadline.at(), self.turn.lock()).await.map_err(late)?)
    }

    /// Fetches the document. One that was there before stays if that fails.
    async fn fetch(
        &self,
        fetcher: &Fetcher<'_>,
        fetch: impl Future<Output = Result<T, DocumentFault>>,
    ) -> Result<Arc<T>, DocumentFault> {
        let outcome = fetch.await.map(Arc::new);
        let mut state = self.state();
        match &outcome {
            Ok(document) => {
                state.document = Some(Dated { value: document.clone(), time: fetcher.now });
                (state.failure, state.absence) = (None, None);
            }
            Err(fault) if fault.is_of_caller() => {}
            Err(fault) => {
                state.failure = Some(Dated { value: fault.clone(), time: fetcher.now });
                if fault.is_no_document() {
                    state.absence.get_or_insert(Dated { value: (), time: fetcher.now });
                }
            }
        }
        outcome
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let state = State { document: None, failure: None, absence: None, renewal: None };
        Slot { state: Mutex::new(state), turn: tokio::sync::Mutex::default() }
    }
}

// === impl State ===

impl<T> State<T> {
    fn fresh(&self, now: Timestamp) -> Option<Arc<T>> {
        self.document
            .as_ref()
            .filter(|document| document.is_within(MAX_AGE, now))
            .map(|document| document.value.clone())
    }

    /// The outcome of a fetch that need not be repeated yet.
    fn known(&self, now: Timestamp) -> Option<Result<Arc<T>, DocumentFault>> {
        let failure = || self.failure.as_ref().filter(|failure| failure.is_within(PAUSE, now));
        self.fresh(now).map(Ok).or_else(|| failure().map(|failure| Err(failure.value.clone())))
    }
}

// === impl Dated ===

impl<T> Dated<T> {
    /// Returns true for less than a time. If the clock went back, it is over.
    fn is_within(&self, time: Duration, now: Timestamp) -> bool {
        u128::try_from(now.0.saturating_sub(self.time.0)).is_ok_and(|age| age < time.as_micros())
    }
}
