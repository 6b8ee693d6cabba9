//! Sealed secrets. They are in a table of their own, so that no query for a resource can return one.

use jackfield_domain::{Error, Resource, Result, SecretAddress, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use super::label;
use crate::database::error;
use crate::entity::secret;
use crate::session::{Session, Writer};

/// A sealed secret and its address.
pub struct SecretRow {
    pub tenant: TenantId,
    pub owner: Resource,
    pub owner_id: Uuid,
    /// The name of the secret within its owner.
    pub name: String,
    /// The data key that it is sealed with. The sealed value names it, too.
    pub data_key: Uuid,
    pub sealed: Vec<u8>,
}

impl<C: ConnectionTrait> Session<C> {
    /// One sealed secret.
    pub async fn secret_fetch(&self, address: SecretAddress<'_>) -> Result<Option<Vec<u8>>> {
        let select = secret::of(address.tenant).filter(at(address));
        let row = select.all(&self.conn).await.map_err(error::from_db)?.pop();
        Ok(row.map(|row| row.sealed))
    }

    /// At most `limit` secrets of a tenant that are not sealed with a data key.
    pub async fn secrets_of_other_keys(&self, tenant: TenantId, data_key: Uuid, limit: u64) -> Result<Vec<SecretRow>> {
        let select = secret::of(tenant)
            .filter(secret::Column::DataKeyId.ne(data_key))
            .order_by_asc(secret::Column::OwnerId)
            .order_by_asc(secret::Column::Name)
            .limit(limit);
        let rows = select.all(&self.conn).await.map_err(error::from_db)?;
        rows.into_iter().map(SecretRow::try_from).collect()
    }

    /// At most `limit` secrets of a tenant, by their address, after another one.
    pub async fn secrets_after(
        &self,
        tenant: TenantId,
        after: Option<&SecretRow>,
        limit: u64,
    ) -> Result<Vec<SecretRow>> {
        use secret::Column::{Name, Owner, OwnerId};
        let mut select = secret::of(tenant);
        for column in [Owner, OwnerId, Name] {
            select = select.order_by_asc(column);
        }
        if let Some(after) = after {
            let key = Expr::tuple([Owner, OwnerId, Name].map(|column| Expr::col(column.as_column_ref())));
            let last = [Expr::val(after.owner.as_str()), Expr::val(after.owner_id), Expr::val(after.name.as_str())];
            select = select.filter(key.gt(Expr::tuple(last)));
        }
        let rows = select.limit(limit).all(&self.conn).await.map_err(error::from_db)?;
        rows.into_iter().map(SecretRow::try_from).collect()
    }

    /// The number of secrets of all tenants.
    pub async fn secrets_count(&self) -> Result<u64> {
        #[expect(clippy::disallowed_methods, reason = "a count over all tenants, for progress")]
        secret::Entity::find().count(&self.conn).await.map_err(error::from_db)
    }
}

impl Writer {
    /// Stores a sealed secret. It replaces the one that was there.
    pub async fn secret_put(&self, address: SecretAddress<'_>, data_key: Uuid, sealed: Vec<u8>) -> Result<()> {
        let SecretAddress { tenant, owner, owner_id, name } = address;
        self.touch(tenant, owner_id);
        let row = secret::ActiveModel {
            tenant_id: Set(tenant.0),
            owner: Set(owner.as_str().to_owned()),
            owner_id: Set(owner_id),
            name: Set(name.to_owned()),
            data_key_id: Set(data_key),
            sealed: Set(sealed),
        };
        let key = [secret::Column::TenantId, secret::Column::Owner, secret::Column::OwnerId, secret::Column::Name];
        let replace =
            OnConflict::columns(key).update_columns([secret::Column::DataKeyId, secret::Column::Sealed]).to_owned();
        let put = secret::Entity::insert(row).on_conflict(replace).exec_without_returning(&self.conn).await;
        self.note_destroyed_of(owner_id);
        put.map(|_| ()).map_err(error::from_db)
    }

    /// Replaces the sealed form of a secret, unless its value was changed since it was read. Returns whether it was replaced.
    pub async fn secret_reseal(&self, row: &SecretRow, data_key: Uuid, sealed: Vec<u8>) -> Result<bool> {
        self.touch(row.tenant, row.owner_id);
        let updated = secret::Entity::update_many()
            .col_expr(secret::Column::DataKeyId, Expr::val(data_key))
            .col_expr(secret::Column::Sealed, Expr::val(sealed))
            .filter(at(row.address()))
            // Sealing uses a random nonce, so equal bytes are the value that was read and no later one.
            .filter(secret::Column::Sealed.eq(row.sealed.clone()))
            .exec(&self.conn)
            .await
            .map_err(error::from_db)?;
        self.note_destroyed();
        Ok(updated.rows_affected == 1)
    }

    /// Deletes a secret, if it exists.
    pub async fn secret_delete(&self, address: SecretAddress<'_>) -> Result<()> {
        self.touch(address.tenant, address.owner_id);
        let deleted =
            secret::Entity::delete_many().filter(at(address)).exec(&self.conn).await.map_err(error::from_db)?;
        if deleted.rows_affected > 0 {
            self.note_destroyed();
        }
        Ok(())
    }

    /// Deletes the secrets and labels of resources.
    pub(crate) async fn owned_delete(&self, tenant: TenantId, owner: Resource, owner_ids: &[Uuid]) -> Result<()> {
        self.touch_rows(tenant, owner_ids);
        for some in owner_ids.chunks(500) {
            let deleted = secret::Entity::delete_many()
                .filter(secret::Column::TenantId.eq(tenant.0))
                .filter(secret::Column::Owner.eq(owner.as_str()))
                .filter(secret::Column::OwnerId.is_in(some.iter().copied()))
                .exec(&self.conn)
                .await
                .map_err(error::from_db)?;
            if deleted.rows_affected > 0 {
                self.note_destroyed();
            }
        }
        label::delete(&self.conn, tenant, owner, owner_ids).await
    }
}

// === impl SecretRow ===

impl SecretRow {
    /// The address of the secret.
    pub fn address(&self) -> SecretAddress<'_> {
        SecretAddress { tenant: self.tenant, owner: self.owner, owner_id: self.owner_id, name: &self.name }
    }
}

/// The condition on the row of a secret.
fn at(address: SecretAddress<'_>) -> Condition {
    let SecretAddress { tenant, owner, owner_id, name } = address;
    Condition::all()
        .add(secret::Column::TenantId.eq(tenant.0))
        .add(secret::Column::Owner.eq(owner.as_str()))
        .add(secret::Column::OwnerId.eq(owner_id))
        .add(secret::Column::Name.eq(name))
}

impl TryFrom<secret::Model> for SecretRow {
    type Error = Error;

    fn try_from(row: secret::Model) -> Result<Self> {
        let owner = Resource::ALL.into_iter().find(|resource| resource.as_str() == row.owner);
        let owner = owner.ok_or_else(|| Error::internal(format!("a secret of an unknown resource {}", row.owner)))?;
        Ok(SecretRow {
            tenant: TenantId(row.tenant_id),
            owner,
            owner_id: row.owner_id,
            name: row.name,
            data_key: row.data_key_id,
            sealed: row.sealed,
        })
    }
}
