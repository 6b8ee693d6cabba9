//! Counts of log-in attempts, as rows.
//!
//! Several transactions may lock the same rows, so each locks them in the order of their keys.

use std::collections::BTreeMap;

use jackfield_domain::attempts::AttemptCount;
use jackfield_domain::{Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult as _, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait,
};

use crate::database::error;
use crate::entity::login_attempt::{self, ActiveModel, Column, Entity, Model};
use crate::session::Writer;

/// The key of a count: the tenant, and a keyed digest of what the attempts are counted by.
pub type AttemptKey = (TenantId, [u8; 32]);

const KEY: [Column; 2] = [Column::TenantId, Column::Digest];

impl Writer {
    /// The counts of these keys, which no other transaction changes until this one ends. Those that there are not yet are 0.
    pub async fn login_attempts_lock(&self, keys: &[AttemptKey]) -> Result<BTreeMap<AttemptKey, AttemptCount>> {
        let mut counts: BTreeMap<AttemptKey, AttemptCount> =
            keys.iter().map(|key| (*key, AttemptCount::default())).collect();
        if counts.is_empty() {
            return Ok(counts);
        }
        // In PostgreSQL a row that does not exist cannot be locked, so all are written.
        let lock =
            OnConflict::columns(KEY).value(Column::ExpireTime, Expr::col((Entity, Column::ExpireTime))).to_owned();
        let rows = counts.iter().map(|(key, count)| active(key, count));
        let mut insert = Entity::insert_many(rows).on_conflict(lock).into_query();
        insert.returning_all();
        for row in self.conn.query_all(&insert).await.map_err(error::from_db)? {
            let row = Model::from_query_result(&row, "").map_err(error::from_db)?;
            let Ok(digest) = row.digest.try_into() else { continue };
            let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
            let count = AttemptCount {
                attempts: number(row.attempts),
                failures: number(row.failures),
                failure_time: row.failure_time,
                expire_time: row.expire_time,
            };
            counts.insert((TenantId(row.tenant_id), digest), count);
        }
        Ok(counts)
    }

    /// Writes counts whose rows are locked.
    pub async fn login_attempts_put(&self, counts: &BTreeMap<AttemptKey, AttemptCount>) -> Result<()> {
        if counts.is_empty() {
            return Ok(());
        }
        let replace = OnConflict::columns(KEY)
            .update_columns([Column::Attempts, Column::Failures, Column::FailureTime, Column::ExpireTime])
            .to_owned();
        let rows = counts.iter().map(|(key, count)| active(key, count));
        let put = Entity::insert_many(rows).on_conflict(replace);
        put.exec_without_returning(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Deletes at most `limit` counts of all tenants whose window is over, and returns how many. Counts that another transaction
    /// locks stay.
    pub async fn login_attempts_purge(&self, now: Timestamp, limit: u64) -> Result<u64> {
        let over = Query::select()
            .columns(KEY)
            .from(Entity)
            .and_where(Column::ExpireTime.lte(now.0))
            .limit(limit)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .to_owned();
        let purge = Entity::delete_many().filter(Expr::tuple(KEY.map(Expr::col)).in_subquery(over));
        Ok(purge.exec(&self.conn).await.map_err(error::from_db)?.rows_affected)
    }

    /// Deletes the counts of a tenant.
    pub(crate) async fn login_attempts_delete(&self, tenant: TenantId) -> Result<()> {
        if self.conn.get_database_backend() == DbBackend::Postgres {
            let rows = login_attempt::of(tenant).order_by_asc(Column::Digest).lock_exclusive();
            let rows = rows.select_only().column(Column::Digest).into_tuple::<Vec<u8>>();
            rows.all(&self.conn).await.map_err(error::from_db)?;
        }
        let delete = Entity::delete_many().filter(Column::TenantId.eq(tenant.0));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }
}

fn active((tenant, digest): &AttemptKey, count: &AttemptCount) -> ActiveModel {
    ActiveModel {
        tenant_id: Set(tenant.0),
        digest: Set(digest.to_vec()),
        attempts: Set(count.attempts.into()),
        failures: Set(count.failures.into()),
        failure_time: Set(count.failure_time),
        expire_time: Set(count.expire_time),
    }
}
