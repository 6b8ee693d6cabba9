//! Use cases of user connectors: the links between users and connectors (Fiscus).

use std::future::Future;

use jackfield_domain::connector::Connector;
use jackfield_domain::principal::right::{UserConnectorsRead, UserConnectorsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user_connector::{Added, Removed, UserConnector, UserConnectorRef, UserConnectorState};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectorId, Error, Resource, Result, TenantId, Timestamp, UserConnectorId};
use jackfield_store::{Cascade, Page, PageQuery, Reader, Writer};

use crate::caller::Caller;
use crate::mutation::{Mutation, Weight, check_etag};
use crate::open::Services;
use crate::pager::Listable;

// === impl Services ===

impl Services {
    /// Links a user to a connector; finds the link if there is one already.
    pub async fn user_connector_add(
        &self,
        caller: &Caller<UserConnectorsWrite>,
        mutation: &Mutation,
        id: Option<UserConnectorId>,
        user_id: UserId,
        connector: &Ref,
    ) -> Result<Added> {
        self.change(caller, mutation, Weight::Light, async |txn| {
            let tenant = caller.tenant();
            let now = self.now();
            let found = txn.lock_shared::<Connector>(tenant, connector).await?;
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
        caller: &Caller<UserConnectorsWrite>,
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
            let Cascade { credentials, configurations, .. } =
                txn.user_connector_delete(tenant, found.id).await?.counts();
            Ok(Removed { removed: true, credentials, configurations })
        })
        .await
    }

    pub async fn user_connector_get(
        &self,
        caller: &Caller<UserConnectorsRead>,
        link: &UserConnectorRef,
    ) -> Result<UserConnector> {
        let tenant = caller.tenant();
        let read = self.shared.store.read();
        let now = self.now();
        let found = match link {
            UserConnectorRef::Id(id) => read.user_connector_fetch(tenant, *id, now).await?,
            UserConnectorRef::Pair { user_id, connector } => {
                let found = read.find::<Connector>(tenant, connector).await?;
                let found = found.ok_or_else(|| Error::not_found(Resource::Connector, connector))?;
                read.user_connector_fetch_pair(tenant, user_id, found.id, now).await?
            }
        };
        found.ok_or_else(|| match link {
            UserConnectorRef::Id(id) => Error::not_found(Resource::UserConnector, id),
            UserConnectorRef::Pair { user_id, connector } => no_link(user_id, connector),
        })
    }

    /// The connector that narrows a list.
    pub async fn connector_id<R>(&self, caller: &Caller<R>, reference: Option<&Ref>) -> Result<Option<ConnectorId>> {
        match reference {
            Some(reference) => {
                self.connector_find(caller.tenant(), reference).await.map(|connector| Some(connector.id))
            }
            None => Ok(None),
        }
    }
}

impl Listable for UserConnector {
    type Right = UserConnectorsRead;
    const LIST: &'static str = "user_connectors";

    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send {
        read.page(query)
    }
}

/// The link of a user that a credential is to hang on.
pub(crate) async fn link_of(
    txn: &Writer,
    tenant: TenantId,
    user_id: &UserId,
    (connector, named): (ConnectorId, &Ref),
) -> Result<UserConnectorId> {
    // The link is the parent of defaults: who makes or moves one holds it.
    let link = txn.user_connector_lock_pair(tenant, user_id, connector).await?;
    link.ok_or_else(|| no_link(user_id, named))
}

/// For a user who is not linked to a connector that exists.
fn no_link(user_id: &UserId, connector: &Ref) -> Error {
    Error::not_found_by(Resource::UserConnector, None, pair(user_id, connector))
}

/// A user and a connector, as the details of an error name them.
pub(crate) fn pair(user_id: &UserId, connector: &Ref) -> [(&'static str, String); 2] {
    [("user_id", user_id.to_string()), ("connector", connector.to_string())]
}

async fn find_in_txn(
    txn: &Writer,
    tenant: TenantId,
    link: &UserConnectorRef,
    now: Timestamp,
) -> Result<Option<UserConnector>> {
    match link {
        UserConnectorRef::Id(id) => txn.user_connector_fetch(tenant, *id, now).await,
        UserConnectorRef::Pair { user_id, connector } => match txn.find::<Connector>(tenant, connector).await? {
            Some(connector) => txn.user_connector_fetch_pair(tenant, user_id, connector.id, now).await,
            None => Ok(None),
        },
    }
}
