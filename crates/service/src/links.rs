//! Use cases of user connectors: the links between users and connectors (Fiscus).

use std::future::Future;

use jackfield_domain::meta::Meta;
use jackfield_domain::reference::Ref;
use jackfield_domain::text::UserId;
use jackfield_domain::user_connector::{Added, Removed, UserConnector, UserConnectorRef, UserConnectorState};
use jackfield_domain::{ConnectorId, Error, Resource, Result, TenantId, Timestamp, UserConnectorId};
use jackfield_store::{Page, PageQuery, Reader, Writer};

use crate::caller::Caller;
use crate::mutation::{Mutation, Weight, check_etag};
use crate::open::Services;
use crate::pager::Listable;

// === impl Services ===

impl Services {
    /// Links a user to a connector; finds the link if there is one already.
    pub async fn user_connector_add(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        id: Option<UserConnectorId>,
        user_id: UserId,
        connector: &Ref,
    ) -> Result<Added> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let now = self.now();
            let found = txn.connector_hold(tenant, connector).await?;
            let connector = found.ok_or_else(|| Error::not_found(Resource::Connector, connector))?;
            let link = UserConnector {
                id: id.unwrap_or_else(UserConnectorId::generate),
                user_id,
                connector: connector.id,
                connector_name: connector.name.clone(),
                state: UserConnectorState::Attached,
                credential_count: 0,
                meta: Meta::new(now),
            };
            let created = txn.user_connector_insert(tenant, &link).await?;
            let stored = txn.user_connector_fetch_pair(tenant, &link.user_id, connector.id, now).await?;
            let user_connector = stored.ok_or_else(|| Error::internal("a link that was added is not there"))?;
            Ok(Added { user_connector, created })
        })
        .await
    }

    /// Removes a link with everything that hangs on it; does nothing if there is none.
    pub async fn user_connector_remove(
        &self,
        caller: &Caller,
        mutation: &Mutation,
        link: &UserConnectorRef,
        etag: &str,
    ) -> Result<Removed> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let Some(found) = find_in_txn(txn, tenant, link, self.now()).await? else {
                return Ok(Removed::default());
            };
            check_etag(&found.meta, etag, Resource::UserConnector, found.id)?;
            // Of several that remove it at once one does; the others find it gone.
            if !txn.user_connector_lock(tenant, found.id).await? {
                return Ok(Removed::default());
            }
            let (credentials, configurations) = txn.user_connector_delete(tenant, found.id).await?;
            Ok(Removed { removed: true, credentials, configurations })
        })
        .await
    }

    pub async fn user_connector_get(&self, caller: &Caller, link: &UserConnectorRef) -> Result<UserConnector> {
        let tenant = caller.tenant();
        let read = self.shared.store.read();
        let now = self.now();
        let found = match link {
            UserConnectorRef::Id(id) => read.user_connector_fetch(tenant, *id, now).await?,
            UserConnectorRef::Pair { user_id, connector } => match read.connector_find(tenant, connector).await? {
                Some(connector) => read.user_connector_fetch_pair(tenant, user_id, connector.id, now).await?,
                None => None,
            },
        };
        found.ok_or_else(|| Error::not_found(Resource::UserConnector, link_text(link)))
    }

    /// The connector that narrows a list.
    pub async fn connector_id(&self, caller: &Caller, reference: Option<&Ref>) -> Result<Option<ConnectorId>> {
        match reference {
            Some(reference) => self.connector_get(caller, reference).await.map(|connector| Some(connector.id)),
            None => Ok(None),
        }
    }
}

impl Listable for UserConnector {
    const LIST: &'static str = "user_connectors";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.user_connector_page(query)
    }
}

/// The link of a user that a credential is to hang on.
pub(crate) async fn link_of(
    txn: &Writer,
    tenant: TenantId,
    user_id: &UserId,
    connector: ConnectorId,
) -> Result<UserConnectorId> {
    // The link is the parent of defaults: who makes or moves one holds it.
    let link = txn.user_connector_lock_pair(tenant, user_id, connector).await?;
    link.ok_or_else(|| Error::not_found(Resource::UserConnector, format!("{user_id} and {connector}")))
}

async fn find_in_txn(
    txn: &Writer,
    tenant: TenantId,
    link: &UserConnectorRef,
    now: Timestamp,
) -> Result<Option<UserConnector>> {
    match link {
        UserConnectorRef::Id(id) => txn.user_connector_fetch(tenant, *id, now).await,
        UserConnectorRef::Pair { user_id, connector } => match txn.connector_find(tenant, connector).await? {
            Some(connector) => txn.user_connector_fetch_pair(tenant, user_id, connector.id, now).await,
            None => Ok(None),
        },
    }
}

fn link_text(link: &UserConnectorRef) -> String {
    match link {
        UserConnectorRef::Id(id) => id.to_string(),
        UserConnectorRef::Pair { user_id, connector } => format!("{user_id} and {connector}"),
    }
}
