//! The credentials of other users with the same identity at a provider.

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{Credential, CredentialState, EmailDigest};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectionId, CredentialId, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Condition, Expr, ExprTrait as _, Order, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, QueryFilter, QueryOrder, QueryResult, QuerySelect, QueryTrait as _,
};
use uuid::Uuid;

use crate::crud;
use crate::database::error;
use crate::entity::connection;
use crate::entity::credential::Column;
use crate::session::Session;
use crate::stored;

/// A mark by which two identities may be the same.
#[derive(Clone, Copy, Debug)]
pub enum IdentityMark<'a> {
    /// The id of an account, at one connection.
    AccountAt(ConnectionId, &'a str),
    /// The id of an account, at any connection.
    Account(&'a str),
    /// A verified e-mail address.
    Email(&'a EmailDigest),
}

/// A credential with such a mark.
#[derive(Clone, Debug)]
pub struct IdenticalCredential {
    pub create_time: Timestamp,
    pub id: CredentialId,
    pub user_id: UserId,
    pub connection: ConnectionId,
}

/// The condition of the index of accounts, in the words of the index: the databases use it for no other.
const HAS_ACCOUNT: &str = "provider_account_id <> ''";

impl<C: ConnectionTrait> Session<C> {
    /// The credentials of other users with a mark, the oldest first. Those that are revoked, or belong to no connection, are left out. At most
    /// `limit` credentials are looked at, and those that are left out are among them: the index knows only the mark and the time.
    pub async fn credentials_fetch_identical(
        &self,
        tenant: TenantId,
        user_id: &UserId,
        mark: IdentityMark<'_>,
        limit: u64,
    ) -> Result<Vec<IdenticalCredential>> {
        let of_account =
            |account: &str| Condition::all().add(Column::ProviderAccountId.eq(account)).add(Expr::cust(HAS_ACCOUNT));
        let has_mark = match mark {
            IdentityMark::AccountAt(connection, account) => {
                of_account(account).add(Column::ConnectionId.eq(connection.0))
            }
            IdentityMark::Account(account) => of_account(account),
            IdentityMark::Email(digest) => Condition::all().add(Column::EmailDigest.eq(digest.as_str())),
        };
        let columns = [Column::CreateTime, Column::Id, Column::UserId, Column::ConnectionId];
        let oldest = stored::of::<Credential>(tenant)
            .filter(has_mark)
            .order_by_asc(Column::CreateTime)
            .order_by_asc(Column::Id)
            .limit(limit)
            .select_only()
            .columns(columns)
            .columns([Column::State, Column::Doc])
            .into_query();
        let mut select = Query::select();
        select
            .columns(columns)
            .from_subquery(oldest, "oldest")
            .and_where(Expr::col(Column::UserId).ne(user_id.as_str()))
            .and_where(Expr::col(Column::State).ne(CredentialState::Revoked.as_str()))
            .and_where(Expr::col(Column::ConnectionId).is_not_null())
            .order_by(Column::CreateTime, Order::Asc)
            .order_by(Column::Id, Order::Asc);
        if let IdentityMark::Email(digest) = mark {
            select.and_where(Expr::col(Column::Doc).like(document_with(digest)));
        }
        let rows = self.conn.query_all(&select).await.map_err(error::from_db)?;
        rows.iter().map(identical).collect::<Result<_, _>>().map_err(error::from_db)
    }

    /// The credentials with these ids, as far as there are any.
    pub async fn credentials_fetch(&self, tenant: TenantId, ids: &[CredentialId]) -> Result<Vec<Credential>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let these = Column::Id.is_in(ids.iter().map(|id| id.0));
        crud::fetch_some(&self.conn, tenant, these, ids.len() as u64).await
    }

    /// The connections with these ids, as far as there are any.
    pub async fn connections_fetch(&self, tenant: TenantId, ids: &[ConnectionId]) -> Result<Vec<Connection>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let these = connection::Column::Id.is_in(ids.iter().map(|id| id.0));
        crud::fetch_some(&self.conn, tenant, these, ids.len() as u64).await
    }
}

/// The pattern of documents with a digest. A replica of an earlier version writes the document without one, and leaves the column as it was.
fn document_with(digest: &EmailDigest) -> String {
    format!("%\"email_digest\":\"{}\"%", digest.as_str())
}

fn identical(row: &QueryResult) -> Result<IdenticalCredential, DbErr> {
    Ok(IdenticalCredential {
        create_time: Timestamp(row.try_get_by_index(0)?),
        id: CredentialId(row.try_get_by_index(1)?),
        user_id: UserId::stored(row.try_get_by_index(2)?),
        connection: ConnectionId(row.try_get_by_index::<Uuid>(3)?),
    })
}
