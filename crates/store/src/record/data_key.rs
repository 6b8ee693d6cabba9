//! Wrapped data keys.

use jackfield_domain::{Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoCondition, LockType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait as _,
};
use uuid::Uuid;

use crate::database::error;
use crate::entity::data_key;
use crate::session::{Session, Writer};

/// A wrapped data key.
#[derive(Clone)]
pub struct DataKeyRow {
    pub tenant: TenantId,
    pub id: Uuid,
    /// The id of the key-encryption key that wraps it.
    pub kek_id: String,
    pub wrapped: Vec<u8>,
    pub create_time: Timestamp,
}

impl<C: ConnectionTrait> Session<C> {
    /// The data keys of a tenant, the newest first. The newest key seals, the others only open.
    pub async fn data_keys_fetch(&self, tenant: TenantId) -> Result<Vec<DataKeyRow>> {
        let select = data_key::of(tenant).order_by_desc(data_key::Column::CreateTime);
        let rows = select.order_by_desc(data_key::Column::Id).all(&self.conn).await.map_err(error::from_db)?;
        Ok(rows.into_iter().map(DataKeyRow::from).collect())
    }

    /// At most `limit` data keys of any tenant that are not wrapped with a key-encryption key.
    pub async fn data_keys_of_other_keks(&self, kek_id: &str, limit: u64) -> Result<Vec<DataKeyRow>> {
        #[expect(clippy::disallowed_methods, reason = "key rotation spans all tenants")]
        let select = data_key::Entity::find().filter(data_key::Column::KekId.ne(kek_id)).limit(limit);
        let rows = select
            .order_by_asc(data_key::Column::TenantId)
            .order_by_asc(data_key::Column::Id)
            .all(&self.conn)
            .await
            .map_err(error::from_db)?;
        Ok(rows.into_iter().map(DataKeyRow::from).collect())
    }

    /// At most `limit` data keys of any tenant that are wrapped with a key-encryption key.
    pub async fn data_keys_of_kek(&self, kek_id: &str, limit: u64) -> Result<Vec<DataKeyRow>> {
        #[expect(clippy::disallowed_methods, reason = "a check of the keyring spans all tenants")]
        let select = data_key::Entity::find().filter(data_key::Column::KekId.eq(kek_id)).limit(limit);
        let rows = select.all(&self.conn).await.map_err(error::from_db)?;
        Ok(rows.into_iter().map(DataKeyRow::from).collect())
    }

    /// The number of data keys of any tenant that are not wrapped with a key-encryption key.
    pub async fn data_keys_of_other_keks_count(&self, kek_id: &str) -> Result<u64> {
        #[expect(clippy::disallowed_methods, reason = "a count over all tenants, for progress")]
        let select = data_key::Entity::find().filter(data_key::Column::KekId.ne(kek_id));
        select.count(&self.conn).await.map_err(error::from_db)
    }

    /// At most `limit` data keys of all tenants, by tenant and id, after another one.
    pub async fn data_keys_after(&self, after: Option<(TenantId, Uuid)>, limit: u64) -> Result<Vec<DataKeyRow>> {
        use data_key::Column::{Id, TenantId as Tenant};
        #[expect(clippy::disallowed_methods, reason = "a check of the whole spans all tenants")]
        let mut select = data_key::Entity::find().order_by_asc(Tenant).order_by_asc(Id).limit(limit);
        if let Some((tenant, id)) = after {
            let key = Expr::tuple([Expr::col(Tenant.as_column_ref()), Expr::col(Id.as_column_ref())]);
            select = select.filter(key.gt(Expr::tuple([Expr::val(tenant.0), Expr::val(id)])));
        }
        let rows = select.all(&self.conn).await.map_err(error::from_db)?;
        Ok(rows.into_iter().map(DataKeyRow::from).collect())
    }

    /// The creation time of the newest data key of all tenants.
    pub async fn data_keys_last_created(&self) -> Result<Option<Timestamp>> {
        #[expect(clippy::disallowed_methods, reason = "key rotation spans all tenants")]
        let select = data_key::Entity::find().select_only().column_as(data_key::Column::CreateTime.max(), "last");
        let last = select.into_tuple::<Option<i64>>().one(&self.conn).await.map_err(error::from_db)?;
        Ok(last.flatten().map(Timestamp))
    }

    /// The ids of the key-encryption keys that wrap any data key.
    pub async fn kek_ids_in_use(&self) -> Result<Vec<String>> {
        #[expect(clippy::disallowed_methods, reason = "key rotation spans all tenants")]
        let select = data_key::Entity::find().select_only().column(data_key::Column::KekId).distinct();
        select.into_tuple::<String>().all(&self.conn).await.map_err(error::from_db)
    }
}

impl Writer {
    /// The data key of a tenant that seals now. It is not destroyed before the transaction ends, so that secrets which it
    /// seals here can be opened afterwards.
    pub async fn data_key_fetch_active(&self, tenant: TenantId) -> Result<Option<DataKeyRow>> {
        // PostgreSQL skips a key that is destroyed while the statement waits for it. A newer key was there before that, and
        // the next statement sees it.
        for _ in 0..2 {
            let select = data_key::of(tenant).order_by_desc(data_key::Column::CreateTime);
            let select = select.order_by_desc(data_key::Column::Id).limit(1).lock(LockType::KeyShare);
            if let Some(row) = select.one(&self.conn).await.map_err(error::from_db)? {
                return Ok(Some(row.into()));
            }
        }
        Ok(None)
    }

    /// Adds a data key.
    pub async fn data_key_insert(&self, row: &DataKeyRow) -> Result<()> {
        let active = data_key::ActiveModel {
            tenant_id: Set(row.tenant.0),
            id: Set(row.id),
            kek_id: Set(row.kek_id.clone()),
            wrapped: Set(row.wrapped.clone()),
            create_time: Set(row.create_time.0),
        };
        data_key::Entity::insert(active).exec_without_returning(&self.conn).await.map(drop).map_err(error::from_db)
    }

    /// Locks the data keys of a tenant, in order.
    pub(crate) async fn data_keys_lock(&self, tenant: TenantId) -> Result<()> {
        let select = data_key::of(tenant).order_by_asc(data_key::Column::Id).lock_exclusive();
        select.all(&self.conn).await.map_err(error::from_db).map(|_| ())
    }

    /// Replaces the wrapping of a data key.
    pub async fn data_key_replace(&self, row: &DataKeyRow) -> Result<()> {
        self.touch_tenant(row.tenant);
        let updated = data_key::Entity::update_many()
            .col_expr(data_key::Column::KekId, Expr::val(row.kek_id.clone()))
            .col_expr(data_key::Column::Wrapped, Expr::val(row.wrapped.clone()))
            .filter(data_key::Column::TenantId.eq(row.tenant.0))
            .filter(data_key::Column::Id.eq(row.id))
            .exec(&self.conn)
            .await;
        self.note_destroyed();
        updated.map(|_| ()).map_err(error::from_db)
    }

    /// Destroys all data keys of a tenant, except for one. If that one is not stored, it destroys none: the tenant was deleted
    /// and created again since the key was read.
    pub async fn data_keys_delete_others(&self, tenant: TenantId, keep: Uuid) -> Result<u64> {
        let kept =
            data_key::of(tenant).filter(data_key::Column::Id.eq(keep)).select_only().column(data_key::Column::Id);
        let others = data_key::Column::Id.ne(keep).and(Expr::exists(kept.into_query()));
        self.data_keys_delete_where(tenant, others).await
    }

    /// Destroys all data keys of a tenant.
    pub(crate) async fn data_keys_delete(&self, tenant: TenantId) -> Result<u64> {
        self.data_keys_delete_where(tenant, Condition::all()).await
    }

    async fn data_keys_delete_where(&self, tenant: TenantId, condition: impl IntoCondition) -> Result<u64> {
        self.touch_tenant(tenant);
        let delete = data_key::Entity::delete_many().filter(data_key::Column::TenantId.eq(tenant.0)).filter(condition);
        let deleted = delete.exec(&self.conn).await.map_err(error::from_db)?.rows_affected;
        if deleted > 0 {
            self.note_destroyed();
        }
        Ok(deleted)
    }
}

impl From<data_key::Model> for DataKeyRow {
    fn from(row: data_key::Model) -> Self {
        DataKeyRow {
            tenant: TenantId(row.tenant_id),
            id: row.id,
            kek_id: row.kek_id,
            wrapped: row.wrapped,
            create_time: Timestamp(row.create_time),
        }
    }
}
