//! Credential sources as rows. Their secret headers are sealed beside them.

use std::collections::{BTreeSet, HashMap};

use jackfield_domain::credential_source::CredentialSource;
use jackfield_domain::user_connector::UserConnector;
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectorId, CredentialSourceId, Error, Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, Expr, LockType, OnConflict, Query, SelectStatement};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use crate::database::error;
use crate::entity::credential_source::{self, ActiveModel, Column, Entity, Model};
use crate::entity::user_connector;
use crate::session::{Session, Writer};
use crate::stored;

/// The key of the source of a tenant. No user has an empty id.
const OF_TENANT: &str = "";
/// The id of a source that is locked, and its user.
pub(crate) type LockedSource = (Uuid, String);

/// The sources that one statement names.
const SOME: usize = 500;

impl<C: ConnectionTrait> Session<C> {
    /// The source of a user, or that of the tenant itself.
    pub async fn credential_source_fetch(
        &self,
        tenant: TenantId,
        user_id: Option<&UserId>,
    ) -> Result<Option<CredentialSource>> {
        let select = credential_source::of(tenant).filter(Column::UserKey.eq(key(user_id)));
        select.one(&self.conn).await.map_err(error::from_db)?.map(decode).transpose()
    }

    /// The number of sources of a tenant, its own among them.
    pub async fn credential_sources_count(&self, tenant: TenantId) -> Result<u64> {
        credential_source::of(tenant).count(&self.conn).await.map_err(error::from_db)
    }

    /// The number of times that sources name these keys. A source that names a key twice counts twice.
    pub(crate) async fn credential_source_key_uses(
        &self,
        tenant: TenantId,
        keys: &[Uuid],
    ) -> Result<HashMap<Uuid, u64>> {
        let mut uses = HashMap::new();
        for column in [Column::ClientIdentityKey, Column::TrustBundleKey] {
            let select = credential_source::of(tenant).filter(column.is_in(keys.iter().copied())).select_only();
            let select = select.column(column).column_as(Column::Id.count(), "uses").group_by(column);
            let counts = select.into_tuple::<(Uuid, i64)>().all(&self.conn).await.map_err(error::from_db)?;
            for (key, count) in counts {
                *uses.entry(key).or_default() += count.unsigned_abs();
            }
        }
        Ok(uses)
    }
}

impl Writer {
    /// Keeps the links of a user until the transaction ends. A removal of the last of them then finds the source that the user has got.
    pub async fn credential_source_lock_links(&self, tenant: TenantId, user_id: &UserId) -> Result<()> {
        let links = stored::of::<UserConnector>(tenant)
            .filter(user_connector::Column::UserId.eq(user_id.as_str()))
            .order_by_asc(user_connector::Column::Id)
            .lock(LockType::KeyShare);
        let links = links.select_only().column(user_connector::Column::Id).into_tuple::<Uuid>();
        links.all(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Deletes the secrets of the source of a user, or of that of the tenant itself, which is then deleted or replaced. Returns it, if there
    /// is one. No other transaction gives the user one until this one ends.
    pub async fn credential_source_displace(
        &self,
        tenant: TenantId,
        user_id: Option<&UserId>,
    ) -> Result<Option<CredentialSource>> {
        // There is no row to lock where there is no source yet.
        self.tenant_lock_exclusive(tenant).await?;
        let found = self.credential_source_fetch(tenant, user_id).await?;
        if let Some(source) = &found {
            // Before its secrets, as the removal of the last link of the user locks.
            self.credential_sources_lock(tenant, Column::Id.eq(source.id.0)).await?;
            self.owned_delete(tenant, Resource::CredentialSource, &[source.id.0]).await?;
        }
        Ok(found)
    }

    /// Stores a source in the place of that of the same user, which is displaced. Its keys are locked.
    pub async fn credential_source_put(&self, tenant: TenantId, source: &CredentialSource) -> Result<()> {
        let replace = OnConflict::columns([Column::TenantId, Column::UserKey])
            .update_columns([Column::Id, Column::ClientIdentityKey, Column::TrustBundleKey, Column::Doc])
            .to_owned();
        let put = Entity::insert(active(tenant, source)?).on_conflict(replace);
        put.exec_without_returning(&self.conn).await.map_err(error::from_db)?;
        self.note_inserted(source.id.0);
        Ok(())
    }

    /// Deletes the source of a user, or that of the tenant itself, with its secrets. Returns it, if there was one.
    pub async fn credential_source_delete(
        &self,
        tenant: TenantId,
        user_id: Option<&UserId>,
    ) -> Result<Option<CredentialSource>> {
        let found = self.credential_source_displace(tenant, user_id).await?;
        if let Some(source) = &found {
            self.credential_sources_delete_rows(tenant, &[source.id.0]).await?;
        }
        Ok(found)
    }

    /// Locks the source of a user.
    pub(crate) async fn credential_source_lock(&self, tenant: TenantId, user_id: &UserId) -> Result<Vec<LockedSource>> {
        self.credential_sources_lock(tenant, Column::UserKey.eq(user_id.as_str())).await
    }

    /// Locks the sources of all users who are linked to a connector.
    pub(crate) async fn credential_sources_lock_of(
        &self,
        tenant: TenantId,
        connector: ConnectorId,
    ) -> Result<Vec<LockedSource>> {
        let users = links_of(tenant).and_where(user_connector::Column::ConnectorId.eq(connector.0)).take();
        self.credential_sources_lock(tenant, Column::UserKey.in_subquery(users)).await
    }

    /// Deletes those of some sources whose users are linked to nothing any more, with their secrets. Returns their ids. The sources are
    /// locked: of two transactions that remove the last links of a user, the second one sees what the first one did.
    pub(crate) async fn credential_sources_release(
        &self,
        tenant: TenantId,
        locked: &[LockedSource],
    ) -> Result<Vec<CredentialSourceId>> {
        let mut released = Vec::new();
        for some in locked.chunks(SOME) {
            let users = some.iter().map(|(_, user_key)| user_key.as_str());
            let linked = links_of(tenant).and_where(user_connector::Column::UserId.is_in(users)).take();
            let linked = self.conn.query_all(&linked).await.map_err(error::from_db)?;
            let linked = linked.iter().map(|row| row.try_get_by_index(0)).collect::<Result<BTreeSet<String>, _>>();
            let linked = linked.map_err(error::from_db)?;
            released.extend(some.iter().filter(|(_, user_key)| !linked.contains(user_key)).map(|(id, _)| *id));
        }
        self.owned_delete(tenant, Resource::CredentialSource, &released).await?;
        self.credential_sources_delete_rows(tenant, &released).await?;
        Ok(released.into_iter().map(CredentialSourceId).collect())
    }

    async fn credential_sources_lock(&self, tenant: TenantId, condition: Expr) -> Result<Vec<LockedSource>> {
        let select = credential_source::of(tenant).filter(condition).order_by_asc(Column::Id).lock_exclusive();
        let locked = select.select_only().columns([Column::Id, Column::UserKey]).into_tuple();
        locked.all(&self.conn).await.map_err(error::from_db)
    }

    async fn credential_sources_delete_rows(&self, tenant: TenantId, ids: &[Uuid]) -> Result<()> {
        for some in ids.chunks(SOME) {
            let these = Condition::all().add(Column::TenantId.eq(tenant.0)).add(Column::Id.is_in(some.iter().copied()));
            Entity::delete_many().filter(these).exec(&self.conn).await.map_err(error::from_db)?;
        }
        Ok(())
    }

    /// Deletes the sources of a tenant. Their secrets go with those of the tenant.
    pub(crate) async fn credential_sources_delete(&self, tenant: TenantId) -> Result<()> {
        let delete = Entity::delete_many().filter(Column::TenantId.eq(tenant.0));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }
}

/// The users of the links of a tenant.
fn links_of(tenant: TenantId) -> SelectStatement {
    let mut select = Query::select();
    let of_tenant = user_connector::Column::TenantId.eq(tenant.0);
    select.column(user_connector::Column::UserId).from(user_connector::Entity).and_where(of_tenant).take()
}

fn key(user_id: Option<&UserId>) -> &str {
    user_id.map_or(OF_TENANT, UserId::as_str)
}

fn active(tenant: TenantId, source: &CredentialSource) -> Result<ActiveModel> {
    let [client_identity_key, trust_bundle_key] = source.endpoint.keys().map(|id| id.map(|id| id.0));
    Ok(ActiveModel {
        tenant_id: Set(tenant.0),
        id: Set(source.id.0),
        user_key: Set(key(source.user_id.as_ref()).to_owned()),
        client_identity_key: Set(client_identity_key),
        trust_bundle_key: Set(trust_bundle_key),
        doc: Set(serde_json::to_string(source).map_err(Error::internal)?),
    })
}

fn decode(row: Model) -> Result<CredentialSource> {
    let Model { id, doc, .. } = row;
    serde_json::from_str(&doc).map_err(|error| Error::DataDamaged {
        resource: Resource::CredentialSource,
        id: id.to_string(),
        source: error.into(),
    })
}
