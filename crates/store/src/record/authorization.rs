//! Authorisations of users, as rows. Their secrets are sealed beside them.

use std::collections::BTreeMap;

use jackfield_domain::authorization::{AuthorizationDigest, AuthorizationSession};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{
    AuthorizationSessionId, ConnectionId, ConnectorId, CredentialId, Error, Resource, Result, TenantId, Timestamp,
};
use sea_orm::sea_query::{Condition, Expr, LockBehavior, LockType, Query};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use uuid::Uuid;

use crate::database::error;
use crate::entity::authorization_session::{self, ActiveModel, Column, Entity, Model};
use crate::entity::connection;
use crate::session::{Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    /// An authorisation by its id.
    pub async fn authorization_fetch(
        &self,
        tenant: TenantId,
        id: AuthorizationSessionId,
    ) -> Result<Option<AuthorizationSession>> {
        self.authorization_where(tenant, Column::Id.eq(id.0)).await
    }

    /// The authorisation of a tenant whose request had a state.
    pub async fn authorization_find_by_state(
        &self,
        tenant: TenantId,
        digest: &AuthorizationDigest,
    ) -> Result<Option<AuthorizationSession>> {
        self.authorization_where(tenant, Column::StateDigest.eq(digest.as_str())).await
    }

    /// The authorisation of a tenant with a completion code.
    pub async fn authorization_find_by_completion(
        &self,
        tenant: TenantId,
        digest: &AuthorizationDigest,
    ) -> Result<Option<AuthorizationSession>> {
        self.authorization_where(tenant, Column::CompletionDigest.eq(digest.as_str())).await
    }

    /// The authorisation whose request had a state, or will have it, and its tenant.
    pub async fn authorization_find_of_any_tenant(
        &self,
        digest: &AuthorizationDigest,
    ) -> Result<Option<(TenantId, AuthorizationSession)>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a callback names no tenant; the state is a secret that finds its own row"
        )]
        let select = Entity::find().filter(Column::StateDigest.eq(digest.as_str()));
        let row = select.one(&self.conn).await.map_err(error::from_db)?;
        row.map(|row| Ok((TenantId(row.tenant_id), decode(row)?))).transpose()
    }

    async fn authorization_where(&self, tenant: TenantId, condition: Expr) -> Result<Option<AuthorizationSession>> {
        let row = authorization_session::of(tenant).filter(condition).one(&self.conn).await.map_err(error::from_db)?;
        row.map(decode).transpose()
    }
}

impl Writer {
    /// Adds an authorisation. Its connection is locked.
    pub async fn authorization_insert(&self, tenant: TenantId, session: &AuthorizationSession) -> Result<()> {
        let insert = Entity::insert(active(tenant, session)?);
        insert.exec_without_returning(&self.conn).await.map_err(error::from_db)?;
        self.note_inserted(session.id.0);
        Ok(())
    }

    /// An authorisation by its id. No other transaction changes it until this one ends.
    pub async fn authorization_fetch_for_update(
        &self,
        tenant: TenantId,
        id: AuthorizationSessionId,
    ) -> Result<Option<AuthorizationSession>> {
        let mut select = authorization_session::of(tenant).filter(Column::Id.eq(id.0));
        if self.conn.get_database_backend() == DbBackend::Postgres {
            select = select.lock_exclusive();
        }
        select.one(&self.conn).await.map_err(error::from_db)?.map(decode).transpose()
    }

    /// Replaces an authorisation that is locked.
    pub async fn authorization_replace(&self, tenant: TenantId, session: &AuthorizationSession) -> Result<()> {
        let replaced = Entity::update_many()
            .set(active(tenant, session)?)
            .filter(Column::TenantId.eq(tenant.0))
            .filter(Column::Id.eq(session.id.0))
            .exec(&self.conn)
            .await
            .map_err(error::from_db)?;
        match replaced.rows_affected {
            1 => Ok(()),
            _ => Err(Error::internal("an authorisation is gone although it was locked")),
        }
    }

    /// The authorisations of a user for a connection that have not ended, the oldest first. No other transaction changes them until this one ends.
    pub async fn authorizations_open_for_update(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        connection: ConnectionId,
    ) -> Result<Vec<AuthorizationSession>> {
        self.authorizations_open_where(tenant, user_id, Column::ConnectionId.eq(connection.0)).await
    }

    /// The same for all connections of a connector.
    pub async fn authorizations_open_of_connector_for_update(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        connector: ConnectorId,
    ) -> Result<Vec<AuthorizationSession>> {
        let connections = Query::select()
            .column(connection::Column::Id)
            .from(connection::Entity)
            .and_where(connection::Column::TenantId.eq(tenant.0))
            .and_where(connection::Column::ConnectorId.eq(connector.0))
            .take();
        self.authorizations_open_where(tenant, user_id, Column::ConnectionId.in_subquery(connections)).await
    }

    /// The authorisations of a user that have not ended, and would give a credential of theirs new tokens. The credential of a session does
    /// not change before it completes, so others are not locked, which may be waited for.
    pub async fn authorizations_open_of_credential_for_update(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        credential: CredentialId,
    ) -> Result<Vec<AuthorizationSession>> {
        let of_user = authorization_session::of(tenant).filter(Column::UserId.eq(user_id.as_str()));
        let open = of_user.filter(Column::IsOpen.eq(true)).all(&self.conn).await.map_err(error::from_db)?;
        let open: Vec<AuthorizationSession> = open.into_iter().map(decode).collect::<Result<_>>()?;
        let ids: Vec<_> = open.iter().filter(|it| it.credential == Some(credential)).map(|it| it.id.0).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.authorizations_open_where(tenant, user_id, Column::Id.is_in(ids)).await
    }

    async fn authorizations_open_where(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        condition: Expr,
    ) -> Result<Vec<AuthorizationSession>> {
        let of_user = authorization_session::of(tenant).filter(Column::UserId.eq(user_id.as_str()));
        // Ids begin with the time, and locks are taken in their order.
        let mut select = of_user.filter(Column::IsOpen.eq(true)).filter(condition).order_by_asc(Column::Id);
        if self.conn.get_database_backend() == DbBackend::Postgres {
            select = select.lock_exclusive();
        }
        select.all(&self.conn).await.map_err(error::from_db)?.into_iter().map(decode).collect()
    }

    /// Deletes the secrets of an authorisation that has ended.
    pub async fn authorization_forget_secrets(&self, tenant: TenantId, id: AuthorizationSessionId) -> Result<()> {
        self.owned_delete(tenant, Resource::AuthorizationSession, &[id.0]).await
    }

    /// Deletes the secrets of at most `limit` authorisations of all tenants that were open until their time was over, and returns how many
    /// these are. Those that another transaction locks stay.
    pub async fn authorizations_forget_overdue(&self, now: Timestamp, limit: u64) -> Result<u64> {
        let overdue = Condition::all().add(Column::IsOpen.eq(true)).add(Column::ExpireTime.lte(now.0));
        let (by_tenant, count) = self.authorizations_lock(overdue, limit).await?;
        for (tenant, ids) in by_tenant {
            self.owned_delete(TenantId(tenant), Resource::AuthorizationSession, &ids).await?;
            let forgotten = Entity::update_many().col_expr(Column::IsOpen, Expr::val(false));
            forgotten.filter(these(TenantId(tenant), &ids)).exec(&self.conn).await.map_err(error::from_db)?;
        }
        Ok(count)
    }

    /// Deletes at most `limit` authorisations of all tenants whose last state ended before a time, and returns how many. Those that
    /// another transaction locks stay.
    pub async fn authorizations_purge(&self, before: Timestamp, limit: u64) -> Result<u64> {
        let ended = Condition::all().add(Column::ExpireTime.lte(before.0));
        let (by_tenant, count) = self.authorizations_lock(ended, limit).await?;
        for (tenant, ids) in by_tenant {
            self.authorizations_delete_where(TenantId(tenant), &ids).await?;
        }
        Ok(count)
    }

    /// The ids of at most `limit` authorisations of all tenants that fit a condition, and their number. Those that another transaction
    /// locks are left out.
    async fn authorizations_lock(&self, condition: Condition, limit: u64) -> Result<(BTreeMap<Uuid, Vec<Uuid>>, u64)> {
        #[expect(clippy::disallowed_methods, reason = "maintenance spans all tenants")]
        let select = Entity::find().filter(condition).order_by_asc(Column::ExpireTime).limit(limit);
        let select = select.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked).select_only();
        let select = select.columns([Column::TenantId, Column::Id]).into_tuple::<(Uuid, Uuid)>();
        let mut by_tenant: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        let mut count = 0;
        for (tenant, id) in select.all(&self.conn).await.map_err(error::from_db)? {
            by_tenant.entry(tenant).or_default().push(id);
            count += 1;
        }
        Ok((by_tenant, count))
    }

    /// Deletes the authorisations of connections, which are locked.
    pub(crate) async fn authorizations_delete_of(&self, tenant: TenantId, connections: &[Uuid]) -> Result<()> {
        if connections.is_empty() {
            return Ok(());
        }
        let of_connections = Column::ConnectionId.is_in(connections.iter().copied());
        let mut select = authorization_session::of(tenant).filter(of_connections).order_by_asc(Column::Id);
        if self.conn.get_database_backend() == DbBackend::Postgres {
            select = select.lock_exclusive();
        }
        let ids = select.select_only().column(Column::Id).into_tuple::<Uuid>().all(&self.conn).await;
        self.authorizations_delete_where(tenant, &ids.map_err(error::from_db)?).await
    }

    /// Deletes the authorisations of a tenant. Their secrets go with those of the tenant.
    pub(crate) async fn authorizations_delete(&self, tenant: TenantId) -> Result<()> {
        let delete = Entity::delete_many().filter(Column::TenantId.eq(tenant.0));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    async fn authorizations_delete_where(&self, tenant: TenantId, ids: &[Uuid]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.owned_delete(tenant, Resource::AuthorizationSession, ids).await?;
        Entity::delete_many().filter(these(tenant, ids)).exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }
}

fn these(tenant: TenantId, ids: &[Uuid]) -> Condition {
    Condition::all().add(Column::TenantId.eq(tenant.0)).add(Column::Id.is_in(ids.iter().copied()))
}

fn active(tenant: TenantId, session: &AuthorizationSession) -> Result<ActiveModel> {
    Ok(ActiveModel {
        tenant_id: Set(tenant.0),
        id: Set(session.id.0),
        connection_id: Set(session.connection.0),
        user_id: Set(session.user_id.as_str().to_owned()),
        state_digest: Set(session.state_digest.as_str().to_owned()),
        completion_digest: Set(session.completion_digest.as_ref().map(|digest| digest.as_str().to_owned())),
        is_open: Set(!session.state.is_final()),
        expire_time: Set(session.expire_time.0),
        doc: Set(serde_json::to_string(session).map_err(Error::internal)?),
        // Those who poll write them.
        poll_time: NotSet,
        poll_fence: NotSet,
    })
}

fn decode(row: Model) -> Result<AuthorizationSession> {
    let Model { id, doc, .. } = row;
    serde_json::from_str(&doc).map_err(|error| Error::DataDamaged {
        resource: Resource::AuthorizationSession,
        id: id.to_string(),
        source: error.into(),
    })
}
