//! Answers to requests that carried a request id (AIP-155). A row is claimed before the effect and in its transaction, so
//! that of two equal requests at once the second waits for the first and then finds its answer.

use jackfield_domain::{Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter};
use uuid::Uuid;

use crate::database::error;
use crate::entity::idempotency;
use crate::session::Writer;

/// Outcome of a claim.
#[derive(Debug)]
pub enum IdempotencyClaim {
    /// The request is new: carry it out.
    New,
    /// It was carried out before.
    Repeated { fingerprint: Vec<u8>, answer: String },
}

/// What makes a request the same request.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey<'a> {
    pub tenant: TenantId,
    pub principal: &'a str,
    pub method: &'a str,
    pub request_id: Uuid,
}

impl Writer {
    /// Claims a request id, or finds what became of it. An answer older than its time is forgotten.
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
        let place = [
            idempotency::Column::TenantId,
            idempotency::Column::Principal,
            idempotency::Column::Method,
            idempotency::Column::RequestId,
        ];
        let forgotten = Expr::col((idempotency::Entity, idempotency::Column::ExpireTime)).lte(now.0);
        let renew = OnConflict::columns(place)
            .update_columns([
                idempotency::Column::Fingerprint,
                idempotency::Column::Answer,
                idempotency::Column::ExpireTime,
            ])
            .action_and_where(forgotten)
            .to_owned();
        let inserted = idempotency::Entity::insert(row).on_conflict(renew).exec_without_returning(&self.conn).await;
        if inserted.map_err(error::from_db)? == 1 {
            return Ok(IdempotencyClaim::New);
        }
        let rows = idempotency::of(key.tenant).filter(condition(key)).all(&self.conn).await.map_err(error::from_db)?;
        let row = rows.into_iter().next();
        // It is there: the insert waited for the transaction that has it. If not, it was purged in this very moment.
        let row = row.ok_or_else(|| error::from_db(DbErr::RecordNotInserted))?;
        Ok(IdempotencyClaim::Repeated { fingerprint: row.fingerprint, answer: row.answer })
    }

    /// Keeps the answer of a claimed request.
    pub async fn request_answer(&self, key: IdempotencyKey<'_>, answer: String) -> Result<()> {
        let updated = idempotency::Entity::update_many()
            .col_expr(idempotency::Column::Answer, Expr::val(answer))
            .filter(condition(key))
            .exec(&self.conn)
            .await;
        updated.map(|_| ()).map_err(error::from_db)
    }

    /// Forgets answers whose time has passed, at most `limit`; says how many. Those that a change is renewing stay.
    pub async fn requests_purge(&self, now: Timestamp, limit: u64) -> Result<u64> {
        let place = [
            idempotency::Column::TenantId,
            idempotency::Column::Principal,
            idempotency::Column::Method,
            idempotency::Column::RequestId,
        ];
        let passed = Query::select()
            .columns(place)
            .from(idempotency::Entity)
            .and_where(idempotency::Column::ExpireTime.lte(now.0))
            .limit(limit)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .to_owned();
        let purge = idempotency::Entity::delete_many().filter(Expr::tuple(place.map(Expr::col)).in_subquery(passed));
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
