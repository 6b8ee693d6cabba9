//! Refreshes of credentials, as rows: leases and attempts.
//!
//! Ends of leases and times of attempts are those of the database, because replicas compare them: their own clocks may differ.

use std::time::Duration;

use jackfield_domain::credential::{Credential, RefreshAttempt, RefreshEnd, RefreshOutcome};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::{ConnectionId, CredentialId, Error, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use uuid::Uuid;

use crate::database::error;
use crate::document;
use crate::entity::{credential, refresh_attempt as attempt, refresh_lease as lease};
use crate::session::{Session, Writer};

/// The right to refresh a credential, for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshLease {
    pub tenant: TenantId,
    pub credential: CredentialId,
    /// The process that has it.
    pub holder: Uuid,
    /// Counts the leases of the credential.
    pub fence: i64,
}

/// A credential that is to be refreshed.
#[derive(Clone, Copy, Debug)]
pub struct DueCredential {
    pub tenant: TenantId,
    pub id: CredentialId,
    pub create_time: Timestamp,
    pub connection: Option<ConnectionId>,
    /// The version of its material.
    pub version: i64,
}

/// An attempt to refresh without an end, for whose credential no server has a lease any more.
#[derive(Clone, Copy, Debug)]
pub struct LeftAttempt {
    pub tenant: TenantId,
    pub credential: CredentialId,
    pub id: Uuid,
}

/// The most alternatives of a condition.
const MOST_IN_A_CONDITION: usize = 400;

impl<C: ConnectionTrait> Session<C> {
    /// The newest attempts to refresh a credential, the newest first.
    pub async fn refresh_attempts(
        &self,
        tenant: TenantId,
        credential: CredentialId,
        limit: u64,
    ) -> Result<Vec<RefreshAttempt>> {
        let newest = attempt::of(tenant)
            .filter(attempt::Column::CredentialId.eq(credential.0))
            .order_by_desc(attempt::Column::Id)
            .limit(limit);
        let rows = newest.all(&self.conn).await.map_err(error::from_db)?;
        rows.into_iter().map(attempt_of).collect()
    }

    /// The attempts of all tenants that have no end although the lease of their credential is over, in the order in which they were made,
    /// from the one that follows another.
    pub async fn refresh_attempts_left(&self, after: Uuid, limit: u64) -> Result<Vec<LeftAttempt>> {
        let own = |column| Expr::col((attempt::Entity, column));
        let of = |column| Expr::col((lease::Entity, column));
        let held = Query::select()
            .expr(Expr::val(1))
            .from(lease::Entity)
            .and_where(of(lease::Column::TenantId).equals((attempt::Entity, attempt::Column::TenantId)))
            .and_where(of(lease::Column::CredentialId).equals((attempt::Entity, attempt::Column::CredentialId)))
            .and_where(of(lease::Column::UntilTime).gt(now(self.conn.get_database_backend())))
            .to_owned();
        #[expect(clippy::disallowed_methods, reason = "maintenance spans all tenants")]
        let left = attempt::Entity::find()
            .filter(own(attempt::Column::EndTime).is_null())
            .filter(attempt::Column::Id.gt(after))
            .filter(Expr::exists(held).not())
            .order_by_asc(attempt::Column::Id)
            .limit(limit);
        let columns = [attempt::Column::TenantId, attempt::Column::CredentialId, attempt::Column::Id];
        let rows = left.select_only().columns(columns).into_tuple::<(Uuid, Uuid, Uuid)>();
        let rows = rows.all(&self.conn).await.map_err(error::from_db)?;
        let left = |(tenant, credential, id): (Uuid, Uuid, Uuid)| LeftAttempt {
            tenant: TenantId(tenant),
            credential: CredentialId(credential),
            id,
        };
        Ok(rows.into_iter().map(left).collect())
    }

    /// The credentials of all tenants that are to be refreshed now, the longest overdue first, but for those of some connections.
    pub async fn credentials_due(
        &self,
        now: Timestamp,
        without: &[(TenantId, ConnectionId)],
        limit: u64,
    ) -> Result<Vec<DueCredential>> {
        use credential::Column::{ConnectionId as Connection, Doc, Id, NextRefreshTime, TenantId as Tenant};
        #[expect(clippy::disallowed_methods, reason = "the scheduler spans all tenants")]
        let mut due = credential::Entity::find().filter(NextRefreshTime.lte(now.0));
        // SQLite refuses a condition that is a chain of a thousand.
        for some in without.chunks(MOST_IN_A_CONDITION) {
            let of =
                |(tenant, connection): &(TenantId, ConnectionId)| Tenant.eq(tenant.0).and(Connection.eq(connection.0));
            let any = some.iter().fold(Condition::any(), |any, connection| any.add(of(connection)));
            due = due.filter(any.not());
        }
        let due = due.order_by_asc(NextRefreshTime).limit(limit).select_only().columns([Tenant, Id, Connection, Doc]);
        let rows =
            due.into_tuple::<(Uuid, Uuid, Option<Uuid>, String)>().all(&self.conn).await.map_err(error::from_db)?;
        let due = |(tenant, id, connection, doc): (Uuid, Uuid, Option<Uuid>, String)| {
            let credential: Credential = document::decode(&doc, id).ok()?;
            Some(DueCredential {
                tenant: TenantId(tenant),
                id: credential.id,
                create_time: credential.meta.create_time,
                connection: connection.map(ConnectionId),
                version: credential.material_version,
            })
        };
        Ok(rows.into_iter().filter_map(due).collect())
    }
}

impl Writer {
    /// Takes the lease of a credential for a time, if no other attempt has it. `None` if one has it, or the credential does not exist. Until
    /// the transaction ends, the credential is not deleted.
    pub async fn refresh_lease_take(
        &self,
        tenant: TenantId,
        credential: CredentialId,
        holder: Uuid,
        length: Duration,
    ) -> Result<Option<RefreshLease>> {
        // Deletions lock the credential before its lease.
        if self.lock_shared::<Credential>(tenant, &Ref::Id(credential.0)).await?.is_none() {
            return Ok(None);
        }
        use lease::Column::{CredentialId as Id, Fence, Holder, TenantId as Tenant, UntilTime};
        let backend = self.conn.get_database_backend();
        let until = now(backend).add(micros(length));
        let row = [tenant.0.into(), credential.0.into(), holder.into(), 1_i64.into(), until];
        let old = |column| Expr::col((lease::Entity, column));
        let take = OnConflict::columns([Tenant, Id])
            .update_columns([Holder, UntilTime])
            .value(Fence, old(Fence).add(1))
            .action_and_where(old(UntilTime).lte(now(backend)))
            .to_owned();
        let mut insert = Query::insert();
        insert.into_table(lease::Entity).columns([Tenant, Id, Holder, Fence, UntilTime]).on_conflict(take);
        insert.values(row).map_err(Error::internal)?.returning_col(Fence);
        let taken = self.conn.query_all(&insert).await.map_err(error::from_db)?.pop();
        let lease = |row: sea_orm::QueryResult| {
            let fence = row.try_get("", "fence").map_err(error::from_db)?;
            Ok(RefreshLease { tenant, credential, holder, fence })
        };
        taken.map(lease).transpose()
    }

    /// The time of the database.
    pub async fn time(&self) -> Result<Timestamp> {
        let backend = self.conn.get_database_backend();
        let select = Query::select().expr_as(now(backend), "now").to_owned();
        let row = self.conn.query_one(&select).await.map_err(error::from_db)?;
        let row = row.ok_or_else(|| Error::internal("the database does not tell the time"))?;
        row.try_get("", "now").map(Timestamp).map_err(error::from_db)
    }

    /// Gives a lease back, if it is still held. Returns whether it was.
    pub async fn refresh_lease_release(&self, held: &RefreshLease) -> Result<bool> {
        let release = lease::Entity::update_many()
            .col_expr(lease::Column::UntilTime, Expr::val(0_i64))
            .filter(lease::Column::TenantId.eq(held.tenant.0))
            .filter(lease::Column::CredentialId.eq(held.credential.0))
            .filter(lease::Column::Holder.eq(held.holder))
            .filter(lease::Column::Fence.eq(held.fence));
        release.exec(&self.conn).await.map(|released| released.rows_affected > 0).map_err(error::from_db)
    }

    /// Writes an attempt that is about to be made, with the time of the database, and deletes the oldest of its credential, so that
    /// `keep` are left, and at most as many older ones that say since when a refresh token may be spent.
    pub async fn refresh_attempt_insert(
        &self,
        tenant: TenantId,
        made: &RefreshAttempt,
        keep: u64,
    ) -> Result<Timestamp> {
        use attempt::Column as A;
        let backend = self.conn.get_database_backend();
        let columns = [A::TenantId, A::Id, A::CredentialId, A::MaterialVersion, A::TokenDigest, A::SentTime, A::Reason];
        let row: [SimpleExpr; 7] = [
            tenant.0.into(),
            made.id.into(),
            made.credential.0.into(),
            made.material_version.into(),
            made.token_digest.to_vec().into(),
            now(backend),
            "".into(),
        ];
        let mut insert = Query::insert();
        insert.into_table(attempt::Entity).columns(columns);
        insert.values(row).map_err(Error::internal)?.returning_col(A::SentTime);
        let written = self.conn.query_all(&insert).await.map_err(error::from_db)?.pop();
        let written = written.ok_or_else(|| Error::internal("an attempt was not written"))?;
        let sent: i64 = written.try_get("", "sent_time").map_err(error::from_db)?;
        self.refresh_attempts_trim(tenant, made.credential, keep).await?;
        Ok(Timestamp(sent))
    }

    /// Writes the end of an attempt, unless it has one. An end that said that nothing was known is replaced by one that says more. Returns
    /// whether it was written.
    pub async fn refresh_attempt_end(&self, tenant: TenantId, id: Uuid, end: &RefreshEnd) -> Result<bool> {
        let RefreshEnd { time, outcome, reason, status } = end;
        let unknown = RefreshOutcome::Unknown;
        // One whose outcome is not known is not known for the reason that was seen first.
        let is_replaced = (*outcome != unknown).then(|| attempt::Column::Outcome.eq(unknown.as_str()));
        let may_end = Condition::any().add(attempt::Column::Outcome.is_null()).add_option(is_replaced);
        let write = attempt::Entity::update_many()
            .col_expr(attempt::Column::EndTime, Expr::val(time.0))
            .col_expr(attempt::Column::Outcome, Expr::val(outcome.as_str()))
            .col_expr(attempt::Column::Reason, Expr::val(reason.as_str()))
            .col_expr(attempt::Column::Status, Expr::val(status.map(i64::from)))
            .filter(attempt::Column::TenantId.eq(tenant.0))
            .filter(attempt::Column::Id.eq(id))
            .filter(may_end);
        Ok(write.exec(&self.conn).await.map_err(error::from_db)?.rows_affected == 1)
    }

    /// Deletes the leases and attempts of credentials.
    pub(crate) async fn refreshes_delete(&self, tenant: TenantId, credentials: &[Uuid]) -> Result<()> {
        for some in credentials.chunks(500) {
            let ids = || some.iter().copied();
            let of_lease = Condition::all().add(lease::Column::TenantId.eq(tenant.0));
            let of_lease = of_lease.add(lease::Column::CredentialId.is_in(ids()));
            lease::Entity::delete_many().filter(of_lease).exec(&self.conn).await.map_err(error::from_db)?;
            let of_attempt = Condition::all().add(attempt::Column::TenantId.eq(tenant.0));
            let of_attempt = of_attempt.add(attempt::Column::CredentialId.is_in(ids()));
            attempt::Entity::delete_many().filter(of_attempt).exec(&self.conn).await.map_err(error::from_db)?;
        }
        Ok(())
    }

    /// Deletes all leases and attempts of a tenant.
    pub(crate) async fn refreshes_delete_all(&self, tenant: TenantId) -> Result<()> {
        let leases = lease::Entity::delete_many().filter(lease::Column::TenantId.eq(tenant.0));
        leases.exec(&self.conn).await.map_err(error::from_db)?;
        let attempts = attempt::Entity::delete_many().filter(attempt::Column::TenantId.eq(tenant.0));
        attempts.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    async fn refresh_attempts_trim(&self, tenant: TenantId, credential: CredentialId, keep: u64) -> Result<()> {
        let of_credential = attempt::of(tenant).filter(attempt::Column::CredentialId.eq(credential.0));
        let newest = of_credential.order_by_desc(attempt::Column::Id).select_only();
        let columns = [attempt::Column::Id, attempt::Column::TokenDigest, attempt::Column::Outcome];
        let made = newest.columns(columns).into_tuple::<MadeAttempt>().all(&self.conn).await.map_err(error::from_db)?;
        let over = trimmed(&made, usize::try_from(keep).unwrap_or(usize::MAX));
        if over.is_empty() {
            return Ok(());
        }
        let delete = attempt::Entity::delete_many()
            .filter(attempt::Column::TenantId.eq(tenant.0))
            .filter(attempt::Column::Id.is_in(over));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }
}

/// The id of an attempt, the digest of its refresh token, and its outcome.
type MadeAttempt = (Uuid, Vec<u8>, Option<String>);

/// The attempts that are not kept, of those of a credential, the newest first. Of each refresh token, the first attempt is kept since which it
/// may be spent: the time for which the provider accepts the token again begins with it.
fn trimmed(made: &[MadeAttempt], keep: usize) -> Vec<Uuid> {
    let is = |outcome: &Option<String>, expected: RefreshOutcome| outcome.as_deref() == Some(expected.as_str());
    let may_have_spent = |(_, _, outcome): &MadeAttempt| outcome.is_none() || is(outcome, RefreshOutcome::Unknown);
    let is_good = |(_, _, outcome): &MadeAttempt| is(outcome, RefreshOutcome::Refreshed);
    let is_first = |at: usize| {
        let with_it = |other: &&MadeAttempt| other.1 == made[at].1;
        may_have_spent(&made[at])
            && !made[..at].iter().filter(with_it).any(is_good)
            && !made[at + 1..].iter().filter(with_it).take_while(|made| !is_good(made)).any(may_have_spent)
    };
    let spared: Vec<usize> = (keep..made.len()).filter(|at| is_first(*at)).take(keep).collect();
    (keep..made.len()).filter(|at| !spared.contains(at)).map(|at| made[at].0).collect()
}

/// The time of the database in microseconds, at the moment of the statement: within a transaction it goes on.
pub(super) fn now(backend: DbBackend) -> SimpleExpr {
    Expr::cust(match backend {
        DbBackend::Sqlite => "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        _ => "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT",
    })
}

/// The time at which a statement begins, which an index can be searched for.
pub(super) fn now_of_statement(backend: DbBackend) -> SimpleExpr {
    match backend {
        DbBackend::Sqlite => now(backend),
        _ => Expr::cust("(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000)::BIGINT"),
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn attempt_of(row: attempt::Model) -> Result<RefreshAttempt> {
    let attempt::Model {
        id,
        credential_id,
        material_version,
        token_digest,
        sent_time,
        end_time,
        outcome,
        reason,
        status,
        ..
    } = row;
    let broken = |what| Error::internal(format!("an attempt to refresh with {what}"));
    let end = match (end_time, outcome) {
        (Some(time), Some(outcome)) => {
            let outcome = RefreshOutcome::named(&outcome).ok_or_else(|| broken("an unknown outcome"))?;
            let status = status.and_then(|status| u16::try_from(status).ok());
            Some(RefreshEnd { time: Timestamp(time), outcome, reason, status })
        }
        _ => None,
    };
    Ok(RefreshAttempt {
        id,
        credential: CredentialId(credential_id),
        material_version,
        token_digest: token_digest.try_into().map_err(|_| broken("a digest of another length"))?,
        sent_time: Timestamp(sent_time),
        end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts, the newest first: the number of the token, and the outcome.
    fn made(attempts: &[(u8, Option<RefreshOutcome>)]) -> Vec<MadeAttempt> {
        let numbered = attempts.iter().zip((0..attempts.len() as u128).rev());
        let attempt = |((token, outcome), number): (&(u8, Option<RefreshOutcome>), u128)| {
            (Uuid::from_u128(number), vec![*token], outcome.map(|outcome| outcome.as_str().to_owned()))
        };
        numbered.map(attempt).collect()
    }

    fn numbers(attempts: &[(u8, Option<RefreshOutcome>)]) -> Vec<u128> {
        trimmed(&made(attempts), 2).iter().map(Uuid::as_u128).collect()
    }

    #[test]
    fn the_first_attempt_that_may_have_spent_a_token_is_kept() {
        use RefreshOutcome::{NotProcessed, Refreshed, Unknown};
        let (lost, open, refused, good) = (Some(Unknown), None, Some(NotProcessed), Some(Refreshed));
        for (attempts, expected) in [
            (vec![(1, refused); 2], vec![]),
            (vec![(1, refused); 4], vec![1, 0]),
            (vec![(1, open), (1, refused), (1, refused), (1, lost)], vec![1]),
            (vec![(1, open), (1, refused), (1, refused), (1, open)], vec![1]),
            // The first, and not those that follow it.
            (vec![(1, open), (1, refused), (1, lost), (1, lost), (1, refused)], vec![2, 0]),
            // It was good later, or it is lost since it was good.
            (vec![(1, open), (1, good), (1, refused), (1, lost)], vec![1, 0]),
            (vec![(1, open), (1, refused), (1, good), (1, lost)], vec![1, 0]),
            (vec![(1, open), (1, refused), (1, lost), (1, good), (1, lost)], vec![1, 0]),
            // Other tokens have their own, and not all of them are kept.
            (vec![(1, open), (2, good), (1, refused), (1, lost)], vec![1]),
            (vec![(1, refused), (1, refused), (2, lost), (3, lost), (4, lost), (5, lost)], vec![1, 0]),
        ] {
            assert_eq!(numbers(&attempts), expected, "{attempts:?}");
        }
    }
}
