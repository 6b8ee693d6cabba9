//! Use cases of connectors.

use std::collections::BTreeMap;
use std::future::Future;

use jackfield_domain::connector::{
    Connector, ConnectorKeys, ConnectorPatch, KindPatch, PASSWORD_COLUMN, SECRET_HEADERS_COLUMN, SecretHeadersPatch,
};
use jackfield_domain::error::{Use, Violation, Violations};
use jackfield_domain::key::{Key, KeyKind};
use jackfield_domain::principal::right::{ConnectorsRead, ConnectorsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConnectorId, Error, KeyId, Resource, Result, TenantId};
use jackfield_store::{Cascade, Page, PageQuery, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::material;
use crate::mutation::{Deletion, Expected, Mutation, Weight, check_etag, check_expected};
use crate::open::Services;
use crate::pager::Listable;
use crate::secrets::SecretPlace;

/// Outcome of a deletion.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ConnectorDeleted {
    pub deleted: bool,
    pub connections: u64,
    pub user_connectors: u64,
    pub credentials: u64,
    pub configurations: u64,
}

// === impl Services ===

impl Services {
    pub async fn connector_create(
        &self,
        caller: &Caller<ConnectorsWrite>,
        mutation: &Mutation,
        id: Option<ConnectorId>,
        patch: ConnectorPatch,
    ) -> Result<Connector> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let keys = connector_keys(txn, tenant, &patch).await?;
            let id = id.unwrap_or_else(ConnectorId::generate);
            let connector = Connector::create(id, &patch, keys, Meta::new(self.now())).map_err(Error::Invalid)?;
            txn.insert(tenant, &connector).await?;
            self.connector_secrets(txn, tenant, id, &patch).await?;
            Ok(connector)
        })
        .await
    }

    pub async fn connector_get(&self, caller: &Caller<ConnectorsRead>, reference: &Ref) -> Result<Connector> {
        self.connector_find(caller.tenant(), reference).await
    }

    pub(crate) async fn connector_find(&self, tenant: TenantId, reference: &Ref) -> Result<Connector> {
        let found = self.shared.store.read().find::<Connector>(tenant, reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Connector, reference))
    }

    pub async fn connector_update(
        &self,
        caller: &Caller<ConnectorsWrite>,
        mutation: &Mutation,
        reference: &Ref,
        expected: &Expected,
        patch: ConnectorPatch,
    ) -> Result<Connector> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let connector = txn.find_for_update::<Connector>(tenant, reference).await?;
            let connector = connector.ok_or_else(|| Error::not_found(Resource::Connector, reference))?;
            check_expected(expected, &connector.meta, Resource::Connector, connector.id.0)?;
            let keys = connector_keys(txn, tenant, &patch).await?;
            let former = connector.clone();
            let meta = connector.meta.changed(self.now());
            let connector = connector.patched(&patch, keys, meta).map_err(Error::Invalid)?;
            if !patch.sets_secrets() && (Connector { meta: former.meta, ..connector.clone() }) == former {
                return Ok(former);
            }
            txn.replace(tenant, &connector).await?;
            self.connector_secrets(txn, tenant, connector.id, &patch).await?;
            Ok(connector)
        })
        .await
    }

    pub async fn connector_delete(
        &self,
        caller: &Caller<ConnectorsWrite>,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<ConnectorDeleted> {
        self.change(caller, mutation, Weight::of(deletion), async |txn| {
            let tenant = caller.tenant();
            let Some(connector) = txn.find_for_update::<Connector>(tenant, reference).await? else {
                if deletion.allow_missing {
                    return Ok(ConnectorDeleted::default());
                }
                return Err(Error::not_found(Resource::Connector, reference));
            };
            check_etag(&connector.meta, &deletion.etag, Resource::Connector, connector.id)?;
            if !deletion.cascade {
                let dependents = txn.connector_dependents(tenant, connector.id).await?;
                refuse_in_use(Resource::Connector, connector.id, dependents)?;
            }
            let Cascade { connections, user_connectors, credentials, configurations } =
                txn.connector_delete(tenant, connector.id).await?.counts();
            let deleted = ConnectorDeleted { deleted: true, connections, user_connectors, credentials, configurations };
            Ok(deleted)
        })
        .await
    }

    async fn connector_secrets(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: ConnectorId,
        patch: &ConnectorPatch,
    ) -> Result<()> {
        let place = |name| SecretPlace { tenant, owner: Resource::Connector, owner_id: id.0, name };
        if let Some(KindPatch::Generic(generic)) = &patch.kind {
            self.secret_patch(txn, place(PASSWORD_COLUMN), &generic.password).await?;
        }
        let place = place(SECRET_HEADERS_COLUMN);
        let stored = match &patch.secret_headers {
            SecretHeadersPatch::Keep => return Ok(()),
            SecretHeadersPatch::Set(_) | SecretHeadersPatch::Clear => None,
            SecretHeadersPatch::Entries(_) => self.secret_fetch(Some(txn), place).await?,
        };
        let stored = match stored {
            Some(stored) => material::headers_from_bytes(&stored)?,
            None => BTreeMap::new(),
        };
        match patch.secret_headers.applied(stored) {
            Some(headers) => self.secret_put(txn, place, &material::headers_to_bytes(&headers)?).await,
            None => txn.secret_delete(tenant, place.owner, place.owner_id, place.name).await,
        }
    }
}

impl Listable for Connector {
    type Right = ConnectorsRead;
    const LIST: &'static str = "connectors";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.page(query)
    }
}

/// The keys that a patch names; each must be of the right kind.
async fn connector_keys(txn: &Writer, tenant: TenantId, patch: &ConnectorPatch) -> Result<ConnectorKeys> {
    let identity = ("connector.client_identity_key", KeyKind::ClientIdentity);
    let bundle = ("connector.trust_bundle_key", KeyKind::TrustBundle);
    let mut wrong = Violations::default();
    let keys = ConnectorKeys {
        client_identity_key: key_of_kind(txn, tenant, patch.client_identity_key.as_ref(), identity, &mut wrong).await?,
        trust_bundle_key: key_of_kind(txn, tenant, patch.trust_bundle_key.as_ref(), bundle, &mut wrong).await?,
    };
    wrong.into_result(Some(keys))
}

async fn key_of_kind(
    txn: &Writer,
    tenant: TenantId,
    reference: Option<&Option<Ref>>,
    (field, kind): (&str, KeyKind),
    wrong: &mut Violations,
) -> Result<Option<Option<KeyId>>> {
    let reference = match reference {
        None => return Ok(None),
        Some(None) => return Ok(Some(None)),
        Some(Some(reference)) => reference,
    };
    let key =
        txn.lock_shared::<Key>(tenant, reference).await?.ok_or_else(|| Error::not_found(Resource::Key, reference))?;
    if key.kind != kind {
        let description = format!("names a key of type {}, and not {}", key.kind.as_str(), kind.as_str());
        wrong.push(Violation::field(field, description));
    }
    Ok(Some(Some(key.id)))
}

/// Refuses a deletion of something on which anything depends.
pub(crate) fn refuse_in_use(resource: Resource, id: impl std::fmt::Display, dependents: Cascade) -> Result<()> {
    let counts = [
        (Resource::Connection, dependents.connections),
        (Resource::UserConnector, dependents.user_connectors),
        (Resource::Credential, dependents.credentials),
    ];
    let by: Vec<Use> =
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(resource, count)| Use { resource, count }).collect();
    if by.is_empty() { Ok(()) } else { Err(Error::InUse { resource, id: id.to_string(), by }) }
}
