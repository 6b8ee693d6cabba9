//! Counts of log-in attempts, as rows.
//!
//! Several transactions may lock the same rows, so each locks them in the order of their keys.

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_domain::attempts::AttemptCount;
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use sea_orm::sea_query::{
    Expr, ExprTrait, InsertStatement, LockBehavior, LockType, OnConflict, Query, SimpleExpr, Value,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, FromQueryResult as _, Iterable as _,
    QueryFilter, QueryOrder, QueryResult, QuerySelect,
};

use crate::database::error;
use crate::entity::login_attempt::{self, ActiveModel, Column, Entity, Model};
use crate::session::Writer;
use crate::store::Store;

/// The key of a count: the tenant, and a keyed digest of what the attempts are counted by.
pub type AttemptKey = (TenantId, [u8; 32]);

const KEY: [Column; 2] = [Column::TenantId, Column::Digest];
/// The row that an insert would have made.
const EXCLUDED: &str = "excluded";

impl Store {
    /// Adds attempts to counts, in one statement, and returns what the counts are then. A count of 0 and one whose window is over become
    /// what is added, with its window. On PostgreSQL it waits for each row for at most `patience` (see [`crate::is_locked`]).
    ///
    /// # Errors
    /// With [`jackfield_domain::Error::OutcomeUnknown`] they may have been added.
    pub async fn login_attempts_add(
        &self,
        added: &BTreeMap<AttemptKey, AttemptCount>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<BTreeMap<AttemptKey, AttemptCount>> {
        if added.is_empty() {
            return Ok(BTreeMap::new());
        }
        let backend = self.reader.get_database_backend();
        let (old, new) = (|column| Expr::col((Entity, column)), |column| Expr::col((EXCLUDED, column)));
        let begins = || old(Column::ExpireTime).lte(now.0).or(old(Column::Attempts).eq(0));
        let or = |column, otherwise: SimpleExpr| Expr::case(begins(), new(column)).finally(otherwise);
        let attempts = old(Column::Attempts).add(new(Column::Attempts));
        let add = OnConflict::columns(KEY)
            .value(Column::Attempts, or(Column::Attempts, attempts))
            .values(
                [Column::Failures, Column::FailureTime, Column::ExpireTime]
                    .map(|kept| (kept, or(kept, old(kept)).into())),
            )
            .to_owned();
        let mut insert = upsert(backend, added, add, patience)?;
        insert.returning(Query::returning().exprs(returned(backend)));
        let rows = self.query_volatile(backend.build(&insert)).await?;
        rows.iter().map(|row| count_of(row).map_err(error::from_db)).collect()
    }
}

impl Writer {
    /// The counts of these keys, which no other transaction changes until this one ends. Those that there are not yet are 0. On PostgreSQL
    /// it waits for each row for at most `patience` (see [`crate::is_locked`]).
    pub async fn login_attempts_lock(
        &self,
        keys: &[AttemptKey],
        patience: Duration,
    ) -> Result<BTreeMap<AttemptKey, AttemptCount>> {
        let mut counts: BTreeMap<AttemptKey, AttemptCount> =
            keys.iter().map(|key| (*key, AttemptCount::default())).collect();
        if counts.is_empty() {
            return Ok(counts);
        }
        // In PostgreSQL a row that does not exist cannot be locked, so all are written.
        let lock =
            OnConflict::columns(KEY).value(Column::ExpireTime, Expr::col((Entity, Column::ExpireTime))).to_owned();
        let mut insert = upsert(self.conn.get_database_backend(), &counts, lock, patience)?;
        insert.returning_all();
        for row in self.conn.query_all(&insert).await.map_err(error::from_db)? {
            counts.extend([count_of(&row).map_err(error::from_db)?]);
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

/// An insert of counts. PostgreSQL evaluates the values before it looks for a row, so the first one can say how long the transaction waits
/// for a lock: a statement for that would cost a round trip.
fn upsert(
    backend: DbBackend,
    counts: &BTreeMap<AttemptKey, AttemptCount>,
    conflict: OnConflict,
    patience: Duration,
) -> Result<InsertStatement> {
    const WITH_PATIENCE: &str = "CASE WHEN set_config('lock_timeout', $1, true) <> '' THEN $2 END";
    let mut patience = (backend == DbBackend::Postgres).then(|| Value::from(format!("{}ms", patience.as_millis())));
    let mut insert = Query::insert();
    insert.into_table(Entity).columns(Column::iter()).on_conflict(conflict);
    for ((tenant, digest), count) in counts {
        let tenant = match patience.take() {
            Some(patience) => Expr::cust_with_values(WITH_PATIENCE, [patience, tenant.0.into()]),
            None => Expr::val(tenant.0),
        };
        let AttemptCount { attempts, failures, failure_time, expire_time } = *count;
        let (attempts, failures) = (i64::from(attempts), i64::from(failures));
        // In the order of the columns.
        let numbers = [attempts, failures, failure_time, expire_time].map(Expr::val);
        let row = [tenant, Expr::val(digest.to_vec())].into_iter().chain(numbers);
        insert.values(row).map_err(Error::internal)?;
    }
    Ok(insert)
}

/// The columns of a count. A statement of PostgreSQL says with them that its commit does not wait for the disk.
fn returned(backend: DbBackend) -> Vec<SimpleExpr> {
    let does_not_wait =
        (backend == DbBackend::Postgres).then(|| Expr::cust("set_config('synchronous_commit', 'off', true)"));
    Column::iter().map(Expr::col).chain(does_not_wait).collect()
}

fn count_of(row: &QueryResult) -> Result<(AttemptKey, AttemptCount), DbErr> {
    let Model { tenant_id, digest, attempts, failures, failure_time, expire_time } = Model::from_query_result(row, "")?;
    let digest =
        digest.try_into().map_err(|_| DbErr::Type("a digest of a log-in attempt has another length".to_owned()))?;
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let count = AttemptCount { attempts: number(attempts), failures: number(failures), failure_time, expire_time };
    Ok(((TenantId(tenant_id), digest), count))
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
