//! Polls for device authorisations: the time of the next one, which is also the lease of the server that polls.
//!
//! To take a lease is to put off the next poll until the lease ends. So a process that dies is replaced after that, and no row needs to be
//! cleaned up. Times are those of the database, because replicas compare them: their own clocks may differ.

use std::time::Duration;

use jackfield_domain::{AuthorizationSessionId, ConnectionId, Error, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _, QueryResult,
    QuerySelect as _,
};
use uuid::Uuid;

use super::refresh::{micros, now, now_of_statement};
use crate::database::error;
use crate::entity::authorization_session::{self, Column, Entity};
use crate::session::{Session, Writer};

/// An authorisation that is to be polled for.
#[derive(Clone, Copy, Debug)]
pub struct DueAuthorization {
    pub tenant: TenantId,
    pub id: AuthorizationSessionId,
    pub connection: ConnectionId,
}

/// The right to poll for an authorisation, for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollLease {
    pub tenant: TenantId,
    pub id: AuthorizationSessionId,
    /// Counts the leases of the authorisation, and their ends: it is odd while one is held.
    pub fence: i64,
    /// True if the server that had the lease before has not given it back.
    pub is_taken_over: bool,
}

impl<C: ConnectionTrait> Session<C> {
    /// At most `limit` authorisations of all tenants that are to be polled for now, the longest overdue first, but for those of some
    /// connections. Those whose time is over at `time` are left out.
    pub async fn authorizations_due(
        &self,
        time: Timestamp,
        without: &[(TenantId, ConnectionId)],
        limit: u64,
    ) -> Result<Vec<DueAuthorization>> {
        let is_due = Expr::col(Column::PollTime).lte(now_of_statement(self.conn.get_database_backend()));
        #[expect(clippy::disallowed_methods, reason = "the poller spans all tenants")]
        let mut due = Entity::find()
            .filter(Column::IsOpen.eq(true))
            .filter(Column::PollTime.is_not_null())
            .filter(is_due)
            .filter(Column::ExpireTime.gt(time.0));
        for (tenant, connection) in without {
            let is_of = Column::TenantId.eq(tenant.0).and(Column::ConnectionId.eq(connection.0));
            due = due.filter(is_of.not());
        }
        let columns = [Column::TenantId, Column::Id, Column::ConnectionId];
        let due = due.order_by_asc(Column::PollTime).limit(limit).select_only().columns(columns);
        let rows = due.into_tuple::<(Uuid, Uuid, Uuid)>().all(&self.conn).await.map_err(error::from_db)?;
        let due = |(tenant, id, connection)| DueAuthorization {
            tenant: TenantId(tenant),
            id: AuthorizationSessionId(id),
            connection: ConnectionId(connection),
        };
        Ok(rows.into_iter().map(due).collect())
    }
}

impl Writer {
    /// Plans the first poll for an authorisation that was inserted.
    pub async fn authorization_poll_plan(
        &self,
        tenant: TenantId,
        id: AuthorizationSessionId,
        wait: Duration,
    ) -> Result<()> {
        let next = now(self.conn.get_database_backend()).add(micros(wait));
        let plan = Entity::update_many()
            .col_expr(Column::PollTime, next)
            .filter(Column::TenantId.eq(tenant.0))
            .filter(Column::Id.eq(id.0));
        plan.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Takes the lease of an open authorisation that is due and locked. `None` if it is not due, as when another replica polls.
    pub async fn authorization_poll_take(
        &self,
        tenant: TenantId,
        id: AuthorizationSessionId,
        length: Duration,
    ) -> Result<Option<PollLease>> {
        let backend = self.conn.get_database_backend();
        let before = authorization_session::of(tenant).filter(Column::Id.eq(id.0));
        let before = before.select_only().column(Column::PollFence).into_tuple::<Option<i64>>();
        let before = before.one(&self.conn).await.map_err(error::from_db)?.flatten().unwrap_or_default();
        let is_taken_over = before % 2 != 0;
        let fence = before + if is_taken_over { 2 } else { 1 };
        let mut take = Query::update();
        take.table(Entity)
            .value(Column::PollTime, now(backend).add(micros(length)))
            .value(Column::PollFence, Expr::val(fence))
            .and_where(Column::TenantId.eq(tenant.0))
            .and_where(Column::Id.eq(id.0))
            .and_where(Column::IsOpen.eq(true))
            .and_where(Expr::col(Column::PollTime).lte(now(backend)))
            .returning_col(Column::PollFence);
        let taken = self.conn.query_all(&take).await.map_err(error::from_db)?.pop();
        let lease = |row: QueryResult| -> Result<PollLease, DbErr> {
            Ok(PollLease { tenant, id, fence: row.try_get("", "poll_fence")?, is_taken_over })
        };
        taken.map(lease).transpose().map_err(error::from_db)
    }

    /// Plans no more polls for an authorisation.
    pub async fn authorization_poll_stop(&self, tenant: TenantId, id: AuthorizationSessionId) -> Result<()> {
        let stop = Entity::update_many()
            .col_expr(Column::PollTime, Expr::val(Option::<i64>::None))
            .filter(Column::TenantId.eq(tenant.0))
            .filter(Column::Id.eq(id.0));
        stop.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Gives a lease back, and plans the next poll. Returns false if the lease is another's by now.
    pub async fn authorization_poll_release(&self, lease: &PollLease, wait: Duration) -> Result<bool> {
        let next = now(self.conn.get_database_backend()).add(micros(wait));
        let release = Entity::update_many()
            .col_expr(Column::PollTime, next)
            .col_expr(Column::PollFence, Expr::val(lease.fence + 1))
            .filter(Column::TenantId.eq(lease.tenant.0))
            .filter(Column::Id.eq(lease.id.0))
            .filter(Column::PollFence.eq(lease.fence))
            .exec(&self.conn)
            .await
            .map_err(error::from_db)?;
        match release.rows_affected {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::internal("an authorisation is there twice")),
        }
    }
}
