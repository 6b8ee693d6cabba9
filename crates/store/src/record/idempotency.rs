//! Answers to requests with a request id (AIP-155). A row is claimed before the change and in its transaction: of two equal
//! requests at once, the second waits for the first and then finds its answer.

use jackfield_domain::{Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use crate::database::error;
use crate::entity::idempotency;
use crate::session::{Session, Writer};

/// The outcome of claiming an idempotency key.
#[derive(Debug)]
pub enum IdempotencyClaim {
    /// The request is new and has to be carried out.
    New,
    /// The request was carried out before.
    Repeated { fingerprint: Vec<u8>, answer: String },
}

/// The key by which a repeated request is recognised.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey<'a> {
    pub tenant: TenantId,
    pub principal: &'a str,
    pub method: &'a str,
    pub request_id: Uuid,
}

/// The columns of the key.
const KEY: [idempotency::Column; 4] = [
    idempotency::Column::TenantId,
    idempotency::Column::Principal,
    idempotency::Column::Method,
    idempotency::Column::RequestId,
];

impl<C: ConnectionTrait> Session<C> {
    /// Returns whether a key is claimed, by a request whose answer is kept for longer than now.
    pub async fn request_is_known(&self, key: IdempotencyKey<'_>, now: Timestamp) -> Result<bool> {
        let kept = idempotency::of(key.tenant).filter(condition(key)).filter(idempotency::Column::ExpireTime.gt(now.0));
        let id = kept.select_only().column(idempotency::Column::RequestId).into_tuple::<Uuid>().one(&self.conn).await;
        id.map(|id| id.is_some()).map_err(error::from_db)
    }
}

impl Writer {
    /// Claims a key, or finds the answer to the request that claimed it before. An answer whose time has passed is replaced.
    pub async fn request_claim(
        &self,
        key: IdempotencyKey<'_>,
        fingerprint: &[u8],
        now: Timestamp,
        expire_time: Timestamp,
    ) -> Result<IdempotencyClaim> {
        let row = idempotency::ActiveModel {
            tenant_id: Set(key.tenant.0),
            principal: Set(key.principal.to_owned()),
            method: Set(key.method.to_owned()),
            request_id: Set(key.request_id),
            fingerprint: Set(fingerprint.to_vec()),
            answer: Set(String::new()),
            expire_time: Set(expire_time.0),
        };
        let is_expired = Expr::col((idempotency::Entity, idempotency::Column::ExpireTime)).lte(now.0);
        let renew = OnConflict::columns(KEY)
            .update_columns([
                idempotency::Column::Fingerprint,
                idempotency::Column::Answer,
                idempotency::Column::ExpireTime,
            ])
            .action_and_where(is_expired)
            .to_owned();
        let inserted = idempotency::Entity::insert(row).on_conflict(renew).exec_without_returning(&self.conn).await;
        if inserted.map_err(error::from_db)? == 1 {
            return Ok(IdempotencyClaim::New);
        }
        let rows = idempotency::of(key.tenant).filter(condition(key)).all(&self.conn).await.map_err(error::from_db)?;
        let row = rows.into_iter().next();
        // The row exists, because the insert waited for the transaction that made it. Otherwise it was purged at this moment.
        let row = row.ok_or_else(|| error::from_db(DbErr::RecordNotInserted))?;
        Ok(IdempotencyClaim::Repeated { fingerprint: row.fingerprint, answer: row.answer })
    }

    /// Stores the answer to a request whose key was claimed.
    pub async fn request_answer(&self, key: IdempotencyKey<'_>, answer: String) -> Result<()> {
        let updated = idempotency::Entity::update_many()
            .col_expr(idempotency::Column::Answer, Expr::val(answer))
            .filter(condition(key))
            .exec(&self.conn)
            .await;
        updated.map(|_| ()).map_err(error::from_db)
    }

    /// Deletes at most `limit` answers whose time has passed, and returns how many. Answers that another transaction is
    /// replacing stay.
    pub async fn requests_purge(&self, now: Timestamp, limit: u64) -> Result<u64> {
        let passed = Query::select()
            .columns(KEY)
            .from(idempotency::Entity)
            .and_where(idempotency::Column::ExpireTime.lte(now.0))
            .limit(limit)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .to_owned();
        let purge = idempotency::Entity::delete_many().filter(Expr::tuple(KEY.map(Expr::col)).in_subquery(passed));
        Ok(purge.exec(&self.conn).await.map_err(error::from_db)?.rows_affected)
    }
}

fn condition(key: IdempotencyKey<'_>) -> sea_orm::Condition {
    sea_orm::Condition::all()
        .add(idempotency::Column::TenantId.eq(key.tenant.0))
        .add(idempotency::Column::Principal.eq(key.principal))
        .add(idempotency::Column::Method.eq(key.method))
        .add(idempotency::Column::RequestId.eq(key.request_id))
}
