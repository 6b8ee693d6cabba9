//! Routing policies and pins, as rows. The targets of rules are rows of their own, so that no target is deleted while a rule has it.

use jackfield_domain::routing::{RouteTarget, RoutingPolicy};
use jackfield_domain::user::pin_key;
use jackfield_domain::{ConnectionId, ConnectorId, Error, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Condition, Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryFilter, QuerySelect,
};
use uuid::Uuid;

use crate::database::error;
use crate::entity::{routing_policy, routing_target, user_pin};
use crate::session::{Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    /// The policy of a tenant.
    pub async fn routing_policy_fetch(&self, tenant: TenantId) -> Result<RoutingPolicy> {
        let row = routing_policy::of(tenant).one(&self.conn).await.map_err(error::from_db)?;
        row.map_or(Ok(RoutingPolicy::unset()), |row| decode(&row.doc))
    }

    /// The number of rules that lead to a connector or to one of its connections.
    pub async fn routing_rules_of_connector(&self, tenant: TenantId, id: ConnectorId) -> Result<u64> {
        let rules = routing_target::of(tenant).filter(routing_target::Column::ConnectorId.eq(id.0));
        rules.count(&self.conn).await.map_err(error::from_db)
    }

    /// The number of rules that lead to a connection.
    pub async fn routing_rules_of_connection(&self, tenant: TenantId, id: ConnectionId) -> Result<u64> {
        let rules = routing_target::of(tenant).filter(routing_target::Column::ConnectionId.eq(id.0));
        rules.count(&self.conn).await.map_err(error::from_db)
    }

    /// The connector that the user with a login id stays with.
    pub async fn user_pin_fetch(&self, tenant: TenantId, login_id: &str) -> Result<Option<ConnectorId>> {
        let pin = user_pin::of(tenant).filter(user_pin::Column::LoginKey.eq(pin_key(login_id)));
        let id = pin.select_only().column(user_pin::Column::ConnectorId).into_tuple::<Uuid>().one(&self.conn).await;
        Ok(id.map_err(error::from_db)?.map(ConnectorId))
    }
}

impl Writer {
    /// The policy of a tenant. No other transaction changes it until this one ends, even if it is not set yet: there is no row to
    /// lock then, so the tenant is locked.
    pub async fn routing_policy_fetch_for_update(&self, tenant: TenantId) -> Result<RoutingPolicy> {
        let fetch = async || {
            let mut select = routing_policy::of(tenant);
            if self.conn.get_database_backend() == DbBackend::Postgres {
                select = select.lock_exclusive();
            }
            select.one(&self.conn).await.map_err(error::from_db)
        };
        let mut row = fetch().await?;
        if row.is_none() {
            self.tenant_lock_exclusive(tenant).await?;
            row = fetch().await?;
        }
        row.map_or(Ok(RoutingPolicy::unset()), |row| decode(&row.doc))
    }

    /// Sets the policy of a tenant.
    pub async fn routing_policy_put(&self, tenant: TenantId, policy: &RoutingPolicy) -> Result<()> {
        let doc = serde_json::to_string(policy).map_err(Error::internal)?;
        let row = routing_policy::ActiveModel { tenant_id: Set(tenant.0), doc: Set(doc) };
        let replace =
            OnConflict::column(routing_policy::Column::TenantId).update_column(routing_policy::Column::Doc).to_owned();
        let put = routing_policy::Entity::insert(row).on_conflict(replace);
        put.exec_without_returning(&self.conn).await.map_err(error::from_db)?;
        let delete = routing_target::Entity::delete_many().filter(routing_target::Column::TenantId.eq(tenant.0));
        delete.exec(&self.conn).await.map_err(error::from_db)?;
        let targets = policy.rules.iter().zip(0..).map(|(rule, index)| {
            let (connector, connection) = match rule.target {
                RouteTarget::Connector(id) => (Some(id.0), None),
                RouteTarget::Connection(id) => (None, Some(id.0)),
            };
            routing_target::ActiveModel {
                tenant_id: Set(tenant.0),
                rule: Set(index),
                connector_id: Set(connector),
                connection_id: Set(connection),
            }
        });
        let targets: Vec<_> = targets.collect();
        if targets.is_empty() {
            return Ok(());
        }
        let insert = routing_target::Entity::insert_many(targets);
        insert.exec_without_returning(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Removes the rules that lead to a connector or to one of these connections. Returns how many.
    pub(crate) async fn routing_rules_remove(
        &self,
        tenant: TenantId,
        connector: Option<ConnectorId>,
        connections: &[ConnectionId],
        now: Timestamp,
    ) -> Result<u64> {
        let mut uses = Condition::any();
        if let Some(connector) = connector {
            uses = uses.add(routing_target::Column::ConnectorId.eq(connector.0));
        }
        let ids = || connections.iter().map(|id| id.0);
        uses = uses.add(routing_target::Column::ConnectionId.is_in(ids()));
        if routing_target::of(tenant).filter(uses).count(&self.conn).await.map_err(error::from_db)? == 0 {
            return Ok(0);
        }
        let mut policy = self.routing_policy_fetch_for_update(tenant).await?;
        let before = policy.rules.len();
        policy.rules.retain(|rule| match rule.target {
            RouteTarget::Connector(id) => Some(id) != connector,
            RouteTarget::Connection(id) => !connections.contains(&id),
        });
        policy.meta = policy.meta.map(|meta| meta.changed(now));
        self.routing_policy_put(tenant, &policy).await?;
        Ok((before - policy.rules.len()) as u64)
    }

    /// Keeps the user with a login id with a connector, unless the user stays with another one.
    pub async fn user_pin_insert(
        &self,
        tenant: TenantId,
        login_id: &str,
        connector: ConnectorId,
        now: Timestamp,
    ) -> Result<()> {
        let row = user_pin::ActiveModel {
            tenant_id: Set(tenant.0),
            login_key: Set(pin_key(login_id)),
            connector_id: Set(connector.0),
            create_time: Set(now.0),
        };
        let key = [user_pin::Column::TenantId, user_pin::Column::LoginKey];
        let insert = user_pin::Entity::insert(row).on_conflict(OnConflict::columns(key).do_nothing().to_owned());
        insert.exec_without_returning(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Lets the user with a login id go back to the rules. Returns whether the user stayed with a connector.
    pub async fn user_pin_delete(&self, tenant: TenantId, login_id: &str) -> Result<bool> {
        let delete = user_pin::Entity::delete_many()
            .filter(user_pin::Column::TenantId.eq(tenant.0))
            .filter(user_pin::Column::LoginKey.eq(pin_key(login_id)));
        Ok(delete.exec(&self.conn).await.map_err(error::from_db)?.rows_affected > 0)
    }

    /// Lets a user with these login ids go back to the rules.
    pub async fn user_pins_delete_of(&self, tenant: TenantId, login_ids: &[&str]) -> Result<()> {
        let delete = user_pin::Entity::delete_many()
            .filter(user_pin::Column::TenantId.eq(tenant.0))
            .filter(user_pin::Column::LoginKey.is_in(login_ids.iter().map(|login_id| pin_key(login_id))));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Lets all users of a connector go back to the rules.
    pub(crate) async fn user_pins_delete(&self, tenant: TenantId, connector: ConnectorId) -> Result<()> {
        let delete = user_pin::Entity::delete_many()
            .filter(user_pin::Column::TenantId.eq(tenant.0))
            .filter(user_pin::Column::ConnectorId.eq(connector.0));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Deletes the policy of a tenant with its pins.
    pub(crate) async fn routing_delete(&self, tenant: TenantId) -> Result<()> {
        let of = |column: Expr| Condition::all().add(column);
        let pins = user_pin::Entity::delete_many().filter(of(user_pin::Column::TenantId.eq(tenant.0)));
        pins.exec(&self.conn).await.map_err(error::from_db)?;
        let targets = routing_target::Entity::delete_many().filter(of(routing_target::Column::TenantId.eq(tenant.0)));
        targets.exec(&self.conn).await.map_err(error::from_db)?;
        let policy = routing_policy::Entity::delete_many().filter(of(routing_policy::Column::TenantId.eq(tenant.0)));
        policy.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }
}

fn decode(doc: &str) -> Result<RoutingPolicy> {
    serde_json::from_str(doc).map_err(Error::internal)
}
