//! Use cases of credential sources: which there are, and what they give.

mod streams;

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_domain::connector::{Connector, SecretHeadersPatch};
use jackfield_domain::credential::{Material, OAuth2Material};
use jackfield_domain::credential_source::{
    CredentialSource, CredentialSourceDraft, MAX_SOURCES, SECRET_HEADERS_COLUMN, SourceEndpoint, SourceEndpointDraft,
    SourceFault, SourceProtocol, SourceRequest,
};
use jackfield_domain::key::KeyKind;
use jackfield_domain::principal::right::{CredentialsWrite, UserConnectorsRead};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{
    ConnectorId, CredentialSourceId, Error, KeyId, Resource, Result, Secret, SecretAddress, TenantId, Timestamp,
};
use jackfield_store::Writer;
use jackfield_upstream::client::Deadline;
use jackfield_upstream::source::{SourceError, ask};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::change::{Change, DeleteOptions, Length, RequestOptions};
use crate::key::lock_key;
use crate::services::Services;
use crate::user_connector::no_link;

pub(crate) use self::streams::SourceStreams;
pub use self::streams::{ServedSource, SourceAnswer, SourceQuestion};

/// The form in which questions and answers go to sources that are called. The contract of sources has it.
pub trait SourceForm: Sync {
    /// A question.
    fn question(&self, protocol: SourceProtocol, request: &SourceRequest) -> Result<Vec<u8>>;

    /// The material of an answer; `None` if it has none.
    fn answer(&self, protocol: SourceProtocol, body: &[u8]) -> SourceAnswer;
}

/// The material that a caller gives, or the way to ask a source for it.
pub enum MaterialOrigin<'a> {
    Given(Material),
    /// With the time at which the caller stops waiting.
    Source(&'a dyn SourceForm, Option<Instant>),
}

/// The reason why a source gave no material that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFailure {
    pub fault: SourceFault,
    /// More about it, without any value that the source gave.
    pub message: String,
    /// The wait that the source asks for.
    pub retry_after: Option<Duration>,
}

// === impl SourceFailure ===

impl SourceFailure {
    pub fn of(fault: SourceFault, message: impl Into<String>) -> Self {
        SourceFailure { fault, message: message.into(), retry_after: None }
    }
}

// === impl Services ===

impl Services {
    /// Sets the source of a user, or that of the tenant, in place of the one that there was. A caller who sets a source decides what material
    /// users get, as those who store it do.
    pub async fn credential_source_set(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        draft: CredentialSourceDraft,
    ) -> Result<CredentialSource> {
        let tenant = caller.tenant();
        if let SourceEndpointDraft::Remote { protocol, url, .. } = &draft.endpoint {
            self.shared.outbound.check_source(*protocol, url)?;
        }
        let mut replaced = None;
        let set = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let CredentialSourceDraft { user_id, endpoint, timeout } = draft;
            let (endpoint, secret_headers) = endpoint_of(txn, tenant, endpoint).await?;
            if let Some(user_id) = &user_id {
                txn.credential_source_lock_links(tenant, user_id).await?;
            }
            // After all other locks, because it locks the tenant.
            replaced = txn.credential_source_displace(tenant, user_id.as_ref()).await?;
            if replaced.is_none() && txn.credential_sources_count(tenant).await? >= MAX_SOURCES {
                return Err(Error::QuotaExceeded { what: SOURCES, limit: MAX_SOURCES });
            }
            let id = CredentialSourceId::generate();
            let source = CredentialSource { id, user_id, endpoint, timeout, meta: Meta::new(self.now()) };
            txn.credential_source_put(tenant, &source).await?;
            if !secret_headers.is_empty() {
                let address = SecretAddress::of(tenant, id, SECRET_HEADERS_COLUMN);
                let patch = SecretHeadersPatch::Set(secret_headers);
                self.shared.secrets.patch_headers(txn, address, &patch).await?;
            }
            Ok(source)
        });
        let source = set.await?;
        self.forget_sources(tenant, request, replaced.map(|source| source.id));
        Ok(source)
    }

    pub async fn credential_source_get(
        &self,
        caller: &Caller<UserConnectorsRead>,
        user_id: Option<&UserId>,
    ) -> Result<CredentialSource> {
        let found = self.shared.store.read().credential_source_fetch(caller.tenant(), user_id).await?;
        found.ok_or_else(|| no_source(user_id))
    }

    /// Deletes the source of a user, or that of the tenant. Returns false if there was none, which the options permit.
    pub async fn credential_source_delete(
        &self,
        caller: &Caller<CredentialsWrite>,
        request: &RequestOptions,
        user_id: Option<&UserId>,
        options: &DeleteOptions,
    ) -> Result<bool> {
        let tenant = caller.tenant();
        let mut deleted = None;
        let change = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            match txn.credential_source_delete(tenant, user_id).await? {
                Some(source) if !source.meta.matches(&options.etag) => {
                    Err(Error::EtagMismatch { resource: Resource::CredentialSource, id: source.id.to_string() })
                }
                None if !options.allow_missing => Err(no_source(user_id)),
                found => {
                    deleted = found;
                    Ok(deleted.is_some())
                }
            }
        });
        let was_there = change.await?;
        self.forget_sources(tenant, request, deleted.map(|source| source.id));
        Ok(was_there)
    }

    /// Opens a stream on which a client answers for the sources of its tenant.
    pub fn credentials_serve(&self, caller: &Caller<CredentialsWrite>) -> ServedSource {
        ServedSource::open(self, caller.tenant())
    }

    /// Forgets the clients of sources that a change has deleted.
    pub(crate) fn forget_sources(
        &self,
        tenant: TenantId,
        request: &RequestOptions,
        sources: impl IntoIterator<Item = CredentialSourceId>,
    ) {
        if !request.validate_only {
            sources.into_iter().for_each(|id| self.shared.outbound.forget_source(tenant, id));
        }
    }

    /// Asks the source of a user, or else that of the tenant, for material. Returns the connector that it is for.
    pub(crate) async fn source_material(
        &self,
        tenant: TenantId,
        (user_id, named): (&UserId, &Ref),
        form: &dyn SourceForm,
        deadline: Option<Instant>,
    ) -> Result<(ConnectorId, Material)> {
        let connector = self.find::<Connector>(tenant, named).await?;
        let read = self.shared.store.read();
        let link = read.user_connector_fetch_pair(tenant, user_id, connector.id, self.now()).await?;
        let link = link.ok_or_else(|| no_link(user_id, named))?;
        let source = match read.credential_source_fetch(tenant, Some(user_id)).await? {
            Some(source) => source,
            None => {
                let of_tenant = read.credential_source_fetch(tenant, None).await?;
                of_tenant.ok_or_else(|| no_source(Some(user_id)))?
            }
        };
        let default = read.credential_fetch_default(tenant, link.id).await?;
        let asked = Instant::now();
        // Some time is left to store the answer, or to say that there was none.
        let patience = deadline.map(|deadline| asked + deadline.saturating_duration_since(asked) * 9 / 10);
        let request = SourceRequest {
            tenant,
            user_id: user_id.clone(),
            connector: connector.id,
            connector_name: connector.name.clone(),
            kind: default.map(|default| default.kind),
            expire_time: self.now(),
        };
        let answer = self.source_answer(&source, request, form, patience).await?;
        let nothing = || SourceFailure::of(SourceFault::Empty, "it has no credentials of this user for this connector");
        let material = answer.and_then(|material| usable(material.ok_or_else(nothing)?, self.now()));
        Ok((connector.id, material.map_err(|failure| failed(tenant, &source, failure))?))
    }

    async fn source_answer(
        &self,
        source: &CredentialSource,
        request: SourceRequest,
        form: &dyn SourceForm,
        patience: Option<Instant>,
    ) -> Result<SourceAnswer> {
        let SourceEndpoint::Remote { protocol, url, .. } = &source.endpoint else {
            let (request, end) = self.beginning(source, request, patience);
            return Ok(self.shared.source_streams.ask(request, end.at()).await);
        };
        let client = match self.shared.outbound.source_client(request.tenant, source).await? {
            Ok(client) => client,
            Err(error) => return Ok(Err(SourceFailure::of(SourceFault::Unreachable, error.to_string()))),
        };
        let place = match client.reserve(patience.map(Deadline::Caller)).await {
            Ok(place) => place,
            Err(error) => return Ok(Err(unanswered(&SourceError::Call(error)))),
        };
        // The wait for a place is ours, so it takes nothing of the time of the source.
        let (request, end) = self.beginning(source, request, patience);
        let question = form.question(*protocol, &request)?;
        Ok(match ask((&*client, place), (*protocol, url), &question, end).await {
            Ok(Some(body)) => form.answer(*protocol, &body),
            Ok(None) => Ok(None),
            Err(error) => Err(unanswered(&error)),
        })
    }

    /// A question whose time begins now, and the end of this time.
    fn beginning(
        &self,
        source: &CredentialSource,
        request: SourceRequest,
        patience: Option<Instant>,
    ) -> (SourceRequest, Deadline) {
        let now = Instant::now();
        let end = match patience.filter(|patience| *patience < now + source.timeout) {
            Some(patience) => Deadline::Caller(patience),
            None => Deadline::Server(now + source.timeout),
        };
        let left = micros(end.at().saturating_duration_since(now));
        (SourceRequest { expire_time: self.now().plus_micros(left), ..request }, end)
    }
}

fn unanswered(error: &SourceError) -> SourceFailure {
    SourceFailure { retry_after: error.retry_after(), ..SourceFailure::of(error.fault(), error.to_string()) }
}

/// Refuses material of which nothing can be used any more. It would replace what is stored, which may be good.
fn usable(material: Material, now: Timestamp) -> std::result::Result<Material, SourceFailure> {
    match &material {
        Material::OAuth2(OAuth2Material { refresh_token: None, expire_time: Some(end), .. }) if *end <= now => {
            Err(SourceFailure::of(SourceFault::Incomplete, EXPIRED))
        }
        _ => Ok(material),
    }
}

/// The endpoint of a draft, whose keys are locked until the transaction ends, and its secret headers.
async fn endpoint_of(
    txn: &Writer,
    tenant: TenantId,
    draft: SourceEndpointDraft,
) -> Result<(SourceEndpoint, BTreeMap<String, Secret>)> {
    let SourceEndpointDraft::Remote { protocol, url, client_identity_key, trust_bundle_key, secret_headers } = draft
    else {
        return Ok((SourceEndpoint::Stream, BTreeMap::new()));
    };
    let field = |name: &str| format!("{}.{name}", protocol.field());
    let (identity, trust) = (field("client_identity_key"), field("trust_bundle_key"));
    let identity = locked_key(txn, tenant, client_identity_key, (KeyKind::ClientIdentity, &identity)).await?;
    let trust = locked_key(txn, tenant, trust_bundle_key, (KeyKind::TrustBundle, &trust)).await?;
    let endpoint = SourceEndpoint::Remote {
        protocol,
        url,
        client_identity_key: identity,
        trust_bundle_key: trust,
        secret_header_names: secret_headers.keys().cloned().collect(),
    };
    Ok((endpoint, secret_headers))
}

async fn locked_key(
    txn: &Writer,
    tenant: TenantId,
    reference: Option<Ref>,
    (kind, field): (KeyKind, &str),
) -> Result<Option<KeyId>> {
    let Some(reference) = reference else { return Ok(None) };
    Ok(Some(lock_key(txn, tenant, &reference, kind, field).await??))
}

/// The error of a source that gave nothing usable. It is for the caller to report; the log has it for the operator.
fn failed(tenant: TenantId, source: &CredentialSource, failure: SourceFailure) -> Error {
    let SourceFailure { fault, message, retry_after } = failure;
    let (id, reason) = (source.id, fault.as_str());
    tracing::warn!(tenant.id = %tenant, credential_source.id = %id, error.type = reason, error = message, "a credential source gave nothing that can be used");
    let message = format!("credential source {id}: {message}");
    Error::SourceFailed { fault, id: id.to_string(), message, retry_after }
}

fn no_source(user_id: Option<&UserId>) -> Error {
    Error::not_found_by(Resource::CredentialSource, None, user_id.map(|user_id| ("user_id", user_id.to_string())))
}

const EXPIRED: &str = "the access token that it gave has already expired, and it gave no refresh token";
const SOURCES: &str = "number of credential sources of a tenant";

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
