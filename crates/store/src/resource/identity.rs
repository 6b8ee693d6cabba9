//! The credentials of other users with the same identity at a provider.

use jackfield_domain::connection::Connection;
use jackfield_domain::credential::{Credential, CredentialState, EmailDigest};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{ConnectionId, CredentialId, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{ColumnTrait, ConnectionTrait, QueryFilter, QueryOrder, QuerySelect};
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
    /// The id of an account, at whichever connection.
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
    /// At most `limit` credentials of other users with a mark, the oldest first. Those that are revoked, or belong to no connection, are left
    /// out.
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
            IdentityMark::Account(account) => of_account(account).add(Column::ConnectionId.is_not_null()),
            IdentityMark::Email(digest) => {
                Condition::all().add(Column::EmailDigest.eq(digest.as_str())).add(Column::ConnectionId.is_not_null())
            }
        };
        let select = stored::of::<Credential>(tenant)
            .filter(has_mark)
            .filter(Column::UserId.ne(user_id.as_str()))
            .filter(Column::State.ne(CredentialState::Revoked.as_str()))
            .order_by_asc(Column::CreateTime)
            .order_by_asc(Column::Id)
            .limit(limit)
            .select_only()
            .columns([Column::CreateTime, Column::Id, Column::UserId, Column::ConnectionId]);
        let rows = select.into_tuple::<(i64, Uuid, String, Uuid)>().all(&self.conn).await.map_err(error::from_db)?;
        let identical = rows.into_iter().map(|(time, id, user_id, connection)| IdenticalCredential {
            create_time: Timestamp(time),
            id: CredentialId(id),
            user_id: UserId::stored(user_id),
            connection: ConnectionId(connection),
        });
        Ok(identical.collect())
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
