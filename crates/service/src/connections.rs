//! Use cases of connections.

use std::collections::BTreeMap;
use std::future::Future;

use jackfield_domain::connection::{ClientSecretsPatch, Connection, ConnectionPatch, client_secret_column};
use jackfield_domain::connector::Connector;
use jackfield_domain::error::Violation;
use jackfield_domain::principal::right::{ConnectionsRead, ConnectionsWrite, CredentialsRead};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::meta::Meta;
use jackfield_domain::{ConnectionId, ConnectorId, Error, Resource, Result, TenantId};
use jackfield_store::{Page, PageQuery, Reader, Writer};
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::connectors::refuse_in_use;
use crate::mutation::{Deletion, Expected, Mutation, Weight, check_etag, check_expected};
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
        caller: &Caller<ConnectionsWrite>,
        mutation: &Mutation,
        id: Option<ConnectionId>,
        patch: ConnectionPatch,
    ) -> Result<Connection> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let reference = patch.connector.as_ref();
            let reference = reference.ok_or_else(|| Violation::field("connection.connector", "is required"))?;
            let connector = txn.lock_shared::<Connector>(tenant, reference).await?;
            let connector = connector.ok_or_else(|| Error::not_found(Resource::Connector, reference))?.id;
            let id = id.unwrap_or_else(ConnectionId::generate);
            let connection =
                Connection::create(id, connector, &patch, Meta::new(self.now())).map_err(Error::Invalid)?;
            txn.insert(tenant, &connection).await?;
            self.client_secrets(txn, tenant, id, &patch.client_secrets, &[]).await?;
            Ok(connection)
        })
        .await
    }

    pub async fn connection_get(&self, caller: &Caller<ConnectionsRead>, reference: &Ref) -> Result<Connection> {
        let found = self.shared.store.read().find::<Connection>(caller.tenant(), reference).await?;
        found.ok_or_else(|| Error::not_found(Resource::Connection, reference))
    }

    /// The connection that narrows a list of credentials.
    pub async fn connection_id(
        &self,
        caller: &Caller<CredentialsRead>,
        reference: Option<&Ref>,
    ) -> Result<Option<ConnectionId>> {
        let Some(reference) = reference else { return Ok(None) };
        let found = self.shared.store.read().find::<Connection>(caller.tenant(), reference).await?;
        found.map(|found| Some(found.id)).ok_or_else(|| Error::not_found(Resource::Connection, reference))
    }

    pub async fn connection_update(
        &self,
        caller: &Caller<ConnectionsWrite>,
        mutation: &Mutation,
        reference: &Ref,
        expected: &Expected,
        patch: ConnectionPatch,
    ) -> Result<Connection> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let connection = txn.find_for_update::<Connection>(tenant, reference).await?;
            let connection = connection.ok_or_else(|| Error::not_found(Resource::Connection, reference))?;
            check_expected(expected, &connection.meta, Resource::Connection, connection.id.0)?;
            if let Some(connector) = &patch.connector
                && connector_of(txn, tenant, connector).await? != connection.connector
            {
                return Err(Violation::field("connection.connector", "may not be changed").into());
            }
            let before = connection.clone();
            let former: Vec<String> = connection.client_secrets.iter().map(|secret| secret.secret_id.clone()).collect();
            let meta = connection.meta.changed(self.now());
            let connection = connection.patched(&patch, meta).map_err(Error::Invalid)?;
            let sets_secrets = match &patch.client_secrets {
                ClientSecretsPatch::Set(secrets) => secrets.iter().any(|secret| secret.value.is_some()),
                ClientSecretsPatch::Keep | ClientSecretsPatch::Clear => false,
            };
            if !sets_secrets && (Connection { meta: before.meta, ..connection.clone() }) == before {
                return Ok(before);
            }
            txn.replace(tenant, &connection).await?;
            self.client_secrets(txn, tenant, connection.id, &patch.client_secrets, &former).await?;
            Ok(connection)
        })
        .await
    }

    pub async fn connection_delete(
        &self,
        caller: &Caller<ConnectionsWrite>,
        mutation: &Mutation,
        reference: &Ref,
        deletion: &Deletion,
    ) -> Result<ConnectionDeleted> {
        self.change(caller, mutation, Weight::of(deletion), async |txn| {
            let tenant = caller.tenant();
            let Some(connection) = txn.find_for_update::<Connection>(tenant, reference).await? else {
                if deletion.allow_missing {
                    return Ok(ConnectionDeleted::default());
                }
                return Err(Error::not_found(Resource::Connection, reference));
            };
            check_etag(&connection.meta, &deletion.etag, Resource::Connection, connection.id)?;
            if !deletion.cascade {
                let dependents = txn.connection_dependents(tenant, connection.id).await?;
                refuse_in_use(Resource::Connection, connection.id, dependents)?;
            }
            // Links that lose their default get another, as when a credential is deleted by itself.
            let links = txn.connection_links_lock(tenant, connection.id).await?;
            let cascade = txn.connection_delete(tenant, connection.id).await?.counts();
            for link in links {
                self.default_inherit(txn, tenant, link).await?;
            }
            let deleted = ConnectionDeleted {
                deleted: true,
                credentials: cascade.credentials,
                configurations: cascade.configurations,
            };
            Ok(deleted)
        })
        .await
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
        let gone = former.iter().filter(|former| wanted.iter().all(|wanted| wanted.secret_id != **former));
        let gone = gone.map(|secret_id| (client_secret_column(secret_id), None));
        let set = wanted.iter().filter_map(|secret| {
            let value = secret.value.as_ref()?;
            Some((client_secret_column(&secret.secret_id), Some(value)))
        });
        // In the order in which everybody changes secrets.
        for (name, value) in gone.chain(set).collect::<BTreeMap<_, _>>() {
            let place = SecretPlace { tenant, owner: Resource::Connection, owner_id: id.0, name: &name };
            match value {
                Some(value) => self.secret_put(txn, place, value.expose().as_bytes()).await?,
                None => txn.secret_delete(tenant, place.owner, place.owner_id, place.name).await?,
            }
        }
        Ok(())
    }
}

impl Listable for Connection {
    type Right = ConnectionsRead;
    const LIST: &'static str = "connections";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.page(query)
    }
}

async fn connector_of(txn: &Writer, tenant: TenantId, reference: &Ref) -> Result<ConnectorId> {
    let connector = txn.find::<Connector>(tenant, reference).await?;
    connector.map(|connector| connector.id).ok_or_else(|| Error::not_found(Resource::Connector, reference))
}
