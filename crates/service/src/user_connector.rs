//! Use cases of user connectors: the links between users and connectors.

use jackfield_domain::connector::Connector;
use jackfield_domain::principal::right::{UserConnectorsRead, UserConnectorsWrite};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::user_connector::{Added, UserConnector, UserConnectorRef, UserConnectorState};
use jackfield_domain::value::meta::Meta;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectorId, Error, Resource, Result, TenantId, Timestamp, UserConnectorId};
use jackfield_store::Writer;

use crate::caller::Caller;
use crate::change::{Change, DeleteOptions, Deleted, Length, RequestOptions, found_for_delete, lock_parent};
use crate::list::Listable;
use crate::services::Services;

/// The most credentials of a link whose tokens are revoked when it is removed. A user has a few.
const MAX_REVOKED: u64 = 100;

// === impl Services ===

impl Services {
    /// Links a user to a connector, or finds the link that is there already.
    pub async fn user_connector_add(
        &self,
        caller: &Caller<UserConnectorsWrite>,
        request: &RequestOptions,
        id: Option<UserConnectorId>,
        user_id: UserId,
        connector: &Ref,
    ) -> Result<Added> {
        self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            let connector = lock_parent::<Connector>(txn, tenant, connector).await?;
            let link = new_link(id, user_id, &connector, self.now());
            let created = txn.user_connector_insert(tenant, &link).await?;
            let stored = txn.user_connector_fetch_pair(tenant, &link.user_id, connector.id, self.now()).await?;
            let user_connector = stored.ok_or_else(|| Error::internal("a link that was added is not there"))?;
            Ok(Added { user_connector, created })
        })
        .await
    }

    /// Removes a link and everything that belongs to it. Authorisations that would make one are cancelled, also if there is none yet.
    pub async fn user_connector_remove(
        &self,
        caller: &Caller<UserConnectorsWrite>,
        request: &RequestOptions,
        link: &UserConnectorRef,
        etag: &str,
    ) -> Result<Deleted> {
        let options = DeleteOptions { etag: etag.to_owned(), allow_missing: true, cascade: true };
        let (mut revocables, mut cancelled, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        let removed = self.change(Change::of_tenant(caller, request, Length::Short), async |txn| {
            let tenant = caller.tenant();
            // If several callers remove it at once, one of them does, and the others find it gone.
            let (found, pair) = match link {
                UserConnectorRef::Id(id) => {
                    let found = txn.fetch_for_update::<UserConnector>(tenant, *id).await?;
                    let pair = found.as_ref().map(|link| (link.user_id.clone(), link.connector));
                    (found, pair)
                }
                UserConnectorRef::Pair { user_id, connector } => {
                    match txn.find::<Connector>(tenant, connector).await? {
                        Some(found) => (
                            txn.user_connector_lock_pair(tenant, user_id, found.id).await?,
                            Some((user_id.clone(), found.id)),
                        ),
                        None => (None, None),
                    }
                }
            };
            let mut deleted = match found_for_delete(found, || missing(link), &options)? {
                Some(found) => {
                    revocables.clear();
                    // Nothing changes them: every such change locks the link first.
                    for credential in txn.credentials_fetch_of_link(tenant, found.id, MAX_REVOKED).await? {
                        revocables.extend(self.revocable(txn, tenant, &credential).await?);
                    }
                    let cascade = txn.user_connector_delete(tenant, &found).await?;
                    let counts = cascade.counts();
                    sources = cascade.credential_sources;
                    Deleted::with(counts)
                }
                None => Deleted::default(),
            };
            if let Some((user_id, connector)) = pair {
                (cancelled, deleted.with.authorizations) =
                    self.authorizations_cancel_of(txn, tenant, &user_id, connector).await?;
            }
            Ok(deleted)
        });
        let removed = removed.await;
        self.revoke_deleted(request, &removed.as_ref(), revocables);
        let removed = removed?;
        self.forget_sources(caller.tenant(), request, sources);
        self.tell_cancelled(request, cancelled);
        Ok(removed)
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
                let found = self.find::<Connector>(tenant, connector).await?;
                read.user_connector_fetch_pair(tenant, user_id, found.id, now).await?
            }
        };
        found.ok_or_else(|| missing(link))
    }
}

impl Listable for UserConnector {
    type Right = UserConnectorsRead;
    const LIST: &'static str = "user_connectors";
}

fn new_link(id: Option<UserConnectorId>, user_id: UserId, connector: &Connector, now: Timestamp) -> UserConnector {
    UserConnector {
        id: id.unwrap_or_else(UserConnectorId::generate),
        user_id,
        connector: connector.id,
        connector_name: connector.name.clone(),
        state: UserConnectorState::Attached,
        credential_count: 0,
        meta: Meta::new(now),
    }
}

/// The link of a user to a connector, which is added if there is none, locked until the transaction ends.
pub(crate) async fn link_or_new(
    txn: &Writer,
    tenant: TenantId,
    user_id: &UserId,
    connector: &Connector,
    now: Timestamp,
) -> Result<UserConnectorId> {
    if let Some(link) = txn.user_connector_lock_pair(tenant, user_id, connector.id).await? {
        return Ok(link.id);
    }
    txn.user_connector_insert(tenant, &new_link(None, user_id.clone(), connector, now)).await?;
    link_of(txn, tenant, user_id, (connector.id, &Ref::Id(connector.id.0))).await
}

/// The link of a user that a new credential belongs to, locked until the transaction ends.
pub(crate) async fn link_of(
    txn: &Writer,
    tenant: TenantId,
    user_id: &UserId,
    (connector, named): (ConnectorId, &Ref),
) -> Result<UserConnectorId> {
    // The lock of the link protects the default marks.
    let link = txn.user_connector_lock_pair(tenant, user_id, connector).await?;
    link.map(|link| link.id).ok_or_else(|| no_link(user_id, named))
}

fn missing(link: &UserConnectorRef) -> Error {
    match link {
        UserConnectorRef::Id(id) => Error::not_found(Resource::UserConnector, id),
        UserConnectorRef::Pair { user_id, connector } => no_link(user_id, connector),
    }
}

/// The error for a user who is not linked to a connector that exists.
pub(crate) fn no_link(user_id: &UserId, connector: &Ref) -> Error {
    Error::not_found_by(Resource::UserConnector, None, pair(user_id, connector))
}

/// A user and a connector as details of an error.
pub(crate) fn pair(user_id: &UserId, connector: &Ref) -> [(&'static str, String); 2] {
    [("user_id", user_id.to_string()), ("connector", connector.to_string())]
}
