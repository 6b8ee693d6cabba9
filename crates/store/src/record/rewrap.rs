//! The progress of re-wraps, as rows: one replica works, and every replica can report its progress.

use jackfield_domain::rewrap::{Rewrap, RewrapState};
use jackfield_domain::{Error, Result, Timestamp};
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::database::error;
use crate::entity::rewrap;
use crate::session::{Session, Writer};

impl<C: ConnectionTrait> Session<C> {
    /// The re-wrap that is under way, or else the one that started last. Its id is not the highest one if a clock was ahead.
    pub async fn rewrap_fetch(&self) -> Result<Option<Rewrap>> {
        #[expect(clippy::disallowed_methods, reason = "re-wraps belong to the deployment, not to a tenant")]
        let select = rewrap::Entity::find()
            .order_by_desc(rewrap::Column::State.eq(RewrapState::Running.as_str()))
            .order_by_desc(rewrap::Column::StartTime)
            .order_by_desc(rewrap::Column::Id)
            .limit(1);
        let row = select.one(&self.conn).await.map_err(error::from_db)?;
        row.map(from_model).transpose()
    }
}

impl Writer {
    pub async fn rewrap_insert(&self, row: &Rewrap) -> Result<()> {
        rewrap::Entity::insert(active(row)).exec_without_returning(&self.conn).await.map_err(error::from_db)?;
        Ok(())
    }

    /// Replaces a re-wrap that is under way, if its last heartbeat is still this one: a worker that takes the re-wrap over
    /// sends another. Returns whether it was replaced.
    pub async fn rewrap_advance(&self, row: &Rewrap, last_heartbeat: Timestamp) -> Result<bool> {
        let updated = rewrap::Entity::update_many()
            .set(active(row))
            .filter(rewrap::Column::Id.eq(row.id))
            .filter(rewrap::Column::State.eq(RewrapState::Running.as_str()))
            .filter(rewrap::Column::HeartbeatTime.eq(last_heartbeat.0))
            .exec(&self.conn)
            .await;
        Ok(updated.map_err(error::from_db)?.rows_affected == 1)
    }

    /// Marks re-wraps as failed that are under way and have sent no heartbeat since a time. Returns how many.
    pub async fn rewraps_settle(&self, since: Timestamp, now: Timestamp) -> Result<u64> {
        let settled = rewrap::Entity::update_many()
            .col_expr(rewrap::Column::State, Expr::val(RewrapState::Failed.as_str()))
            .col_expr(rewrap::Column::EndTime, Expr::val(now.0))
            .filter(rewrap::Column::State.eq(RewrapState::Running.as_str()))
            .filter(rewrap::Column::HeartbeatTime.lt(since.0))
            .exec(&self.conn)
            .await;
        Ok(settled.map_err(error::from_db)?.rows_affected)
    }
}

fn active(row: &Rewrap) -> rewrap::ActiveModel {
    rewrap::ActiveModel {
        id: Set(row.id),
        state: Set(row.state.as_str().to_owned()),
        kek_id: Set(row.kek_id.clone()),
        reseal: Set(row.reseal),
        data_keys_total: Set(row.data_keys_total),
        data_keys_done: Set(row.data_keys_done),
        secrets_total: Set(row.secrets_total),
        secrets_done: Set(row.secrets_done),
        failed: Set(row.failed),
        start_time: Set(row.start_time.0),
        end_time: Set(row.end_time.map(|time| time.0)),
        heartbeat_time: Set(row.heartbeat_time.0),
    }
}

fn from_model(row: rewrap::Model) -> Result<Rewrap> {
    let unknown = || Error::internal(format!("a re-wrap in the unknown state {}", row.state));
    let state = RewrapState::parse(&row.state).ok_or_else(unknown)?;
    Ok(Rewrap {
        id: row.id,
        state,
        kek_id: row.kek_id,
        reseal: row.reseal,
        data_keys_total: row.data_keys_total,
        data_keys_done: row.data_keys_done,
        secrets_total: row.secrets_total,
        secrets_done: row.secrets_done,
        failed: row.failed,
        start_time: Timestamp(row.start_time),
        end_time: row.end_time.map(Timestamp),
        heartbeat_time: Timestamp(row.heartbeat_time),
    })
}
