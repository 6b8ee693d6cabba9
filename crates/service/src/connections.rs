//! Use cases of connections.

use std::future::Future;

use jackfield_domain::connection::{ClientSecretsPatch, Connection, ConnectionPatch, client_secret_column};
use jackfield_domain::error::Violation;
use jackfield_domain::meta::Meta;
use jackfield_domain::reference::Ref;
use jackfield_domain::{ConnectionId, ConnectorId, Error, Resource, Result, TenantId};
use jackfield_store::{Page, PageQuery, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::connectors::refuse_in_use;
use crate::mutation::{Begun, Deletion, Mutation, check_etag};
use crate::open::Services;
use crate::pager::Listable;
use crate::secrets::SecretPlace;

/// Outcome of a deletion.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ConnectionDeleted {
    pub deleted: bool,
    pub credentials: u64,
    pub configurations: u64,
}

// === impl Services ===

impl Services {
    pub async fn connection_create(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        id: Option<ConnectionId>,
        patch: ConnectionPatch,
    ) -> Result<Connection> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        let tenant = caller.tenant();
        let reference = patch.connector.as_ref();
        let reference = reference.ok_or_else(|| Violation::field("connection.connector", "is required"))?;
        let connector = connector_of(&change.txn, tenant, reference).await?;
        let id = id.unwrap_or_else(ConnectionId::generate);
        let connection = Connection::create(id, connector, &patch, Meta::new(self.now())).map_err(Error::Invalid)?;
        change.txn.connection_insert(tenant, &connection).await?;
        self.client_secrets(&change.txn, tenant, id, &patch.client_secrets, &[]).await?;
        self.finish(caller, mutation, change, connection).await
    }

    pub async fn connection_get(&self, caller: &Caller, reference: &Ref) -> Result<Connection> {
        let found = self.shared.store.read().connection_find(caller.tenant(), reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Connection, reference))
    }

    pub async fn connection_update(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        reference: &Ref,
        etag: &str,
        patch: ConnectionPatch,
    ) -> Result<Connection> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        let tenant = caller.tenant();
        let connection = connection_locked(&change.txn, tenant, reference).await?;
        let connection = connection.ok_or_else(|| Error::not_found(Resource::Connection, reference))?;
        check_etag(&connection.meta, etag, Resource::Connection, connection.id)?;
        if let Some(connector) = &patch.connector
            && connector_of(&change.txn, tenant, connector).await? != connection.connector
        {
            return Err(Violation::field("connection.connector", "may not be changed").into());
        }
        let former: Vec<String> = connection.client_secrets.iter().map(|secret| secret.secret_id.clone()).collect();
        let meta = connection.meta.changed(self.now());
        let connection = connection.patched(&patch, meta).map_err(Error::Invalid)?;
        change.txn.connection_replace(tenant, &connection).await?;
        self.client_secrets(&change.txn, tenant, connection.id, &patch.client_secrets, &former).await?;
        self.finish(caller, mutation, change, connection).await
    }

    pub async fn connection_delete(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<ConnectionDeleted> {
        let change = match self.begin(caller, mutation).await? {
            Begun::Replay(answer) => return Ok(answer),
            Begun::Fresh(change) => change,
        };
        let tenant = caller.tenant();
        let Some(connection) = connection_locked(&change.txn, tenant, reference).await? else {
            if deletion.allow_missing {
                return self.finish(caller, mutation, change, ConnectionDeleted::default()).await;
            }
            return Err(Error::not_found(Resource::Connection, reference));
        };
        check_etag(&connection.meta, &deletion.etag, Resource::Connection, connection.id)?;
        if deletion.cascade {
            change.txn.long().await?;
        } else {
            let dependents = change.txn.connection_dependents(tenant, connection.id).await?;
            refuse_in_use(Resource::Connection, connection.id, dependents)?;
        }
        // Links that lose their default get another, as when a credential is deleted by itself.
        let links = change.txn.connection_default_links(tenant, connection.id).await?;
        for link in &links {
            change.txn.user_connector_lock(tenant, *link).await?;
        }
        let cascade = change.txn.connection_delete(tenant, connection.id).await?;
        for link in links {
            self.default_inherit(&change.txn, tenant, link).await?;
        }
        let deleted = ConnectionDeleted {
            deleted: true,
            credentials: cascade.credentials,
            configurations: cascade.configurations,
        };
        self.finish(caller, mutation, change, deleted).await
    }

    /// Brings the sealed client secrets in line with a patch; `former` are the ids that were stored before.
    async fn client_secrets(
        &self,
        txn: &Writer,
        tenant: TenantId,
        id: ConnectionId,
        patch: &ClientSecretsPatch,
        former: &[String],
    ) -> Result<()> {
        let wanted = match patch {
            ClientSecretsPatch::Keep => return Ok(()),
            ClientSecretsPatch::Set(wanted) => wanted.as_slice(),
            ClientSecretsPatch::Clear => &[],
        };
        for secret_id in former.iter().filter(|former| wanted.iter().all(|wanted| wanted.secret_id != **former)) {
            txn.secret_delete(tenant, Resource::Connection, id.0, &client_secret_column(secret_id)).await?;
        }
        for secret in wanted {
            if let Some(value) = &secret.value {
                let name = client_secret_column(&secret.secret_id);
                let place = SecretPlace { tenant, owner: Resource::Connection, owner_id: id.0, name: &name };
                self.secret_put(txn, place, value.expose().as_bytes()).await?;
            }
        }
        Ok(())
    }
}

impl Listable for Connection {
    const LIST: &'static str = "connections";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.connection_page(query)
    }
}

async fn connection_locked(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<Option<Connection>> {
    match txn.connection_find(tenant, reference).await? {
        Some(found) => txn.connection_fetch_for_update(tenant, found.id).await,
        None => Ok(None),
    }
}

async fn connector_of(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<ConnectorId> {
    let connector = txn.connector_find(tenant, reference).await?;
    connector.map(|connector| connector.id).ok_or_else(|| Error::not_found(Resource::Connector, reference))
}
