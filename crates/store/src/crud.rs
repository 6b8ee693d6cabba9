//! The operations that are the same for every resource: find, lock, insert, replace, count and delete.

use jackfield_domain::request::reference::Ref;
use jackfield_domain::{Error, Result, TenantId};
use sea_orm::sea_query::{Expr, IntoCondition, LockType, Order, Query, SelectStatement};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter, QueryOrder as _, QueryResult, QuerySelect,
};
use uuid::Uuid;

use crate::database::error;
use crate::document;
use crate::record::label;
use crate::row;
use crate::session::{Session, Writer};
use crate::stored::{self, ColumnOf, Stored, unique_value};
use crate::transaction::Transaction;

impl<C: ConnectionTrait> Session<C> {
    /// The resource with an id.
    pub async fn fetch<R: Stored>(&self, tenant: TenantId, id: R::Id) -> Result<Option<R>> {
        fetch_by_id(&self.conn, tenant, id.into()).await
    }

    /// The resource that a reference names.
    pub async fn find<R: Stored>(&self, tenant: TenantId, reference: &Ref) -> Result<Option<R>> {
        match (reference, stored::named::<R>(reference)) {
            (Ref::Id(id), _) => fetch_by_id(&self.conn, tenant, *id).await,
            (_, Some(condition)) => fetch(&self.conn, tenant, condition).await,
            (_, None) => Ok(None),
        }
    }
}

impl Writer {
    /// The resource with an id. No other transaction changes it until this one ends.
    pub async fn fetch_for_update<R: Stored>(&self, tenant: TenantId, id: R::Id) -> Result<Option<R>> {
        fetch_locked(&self.conn, tenant, by_id::<R>(id), LockType::Update).await
    }

    /// The resource that a reference names. No other transaction changes it until this one ends.
    pub async fn find_for_update<R: Stored>(&self, tenant: TenantId, reference: &Ref) -> Result<Option<R>> {
        match stored::named::<R>(reference) {
            Some(condition) => fetch_locked(&self.conn, tenant, condition, LockType::Update).await,
            None => Ok(None),
        }
    }

    /// The resource that a reference names. No other transaction deletes it until this one ends, so that rows which refer
    /// to it can be added.
    pub async fn lock_shared<R: Stored>(&self, tenant: TenantId, reference: &Ref) -> Result<Option<R>> {
        match stored::named::<R>(reference) {
            Some(condition) => fetch_locked(&self.conn, tenant, condition, LockType::KeyShare).await,
            None => Ok(None),
        }
    }

    /// Adds a resource with its labels.
    pub async fn insert<R: Stored>(&self, tenant: TenantId, value: &R) -> Result<()> {
        // No cache depends on a row that was not there, so its own generation stays.
        if let Some(id) = value.also_advances() {
            self.touch(tenant, id);
        }
        let row = row::of(tenant, value)?;
        let inserted = R::Table::insert(row).exec_without_returning(&self.conn).await;
        inserted.map_err(|error| error::from_write(error, R::RESOURCE, |what| unique_value(value, what)))?;
        self.note_inserted(value.id());
        match value.labels() {
            Some(labels) => label::put(&self.conn, tenant, R::RESOURCE, value.id(), labels).await,
            None => Ok(()),
        }
    }

    /// Replaces a resource that was fetched for update, and its labels.
    pub async fn replace<R: Stored>(&self, tenant: TenantId, value: &R) -> Result<()> {
        if let Some(id) = value.also_advances() {
            self.touch(tenant, id);
        }
        if R::HAS_GENERATION {
            self.touch(tenant, value.id());
        }
        let updated = R::Table::update_many()
            .set(row::of(tenant, value)?)
            .filter(R::TENANT_ID.eq(tenant.0))
            .filter(R::ID.eq(value.id()))
            .filter(R::VERSION.eq(value.meta().version - 1))
            .exec(&self.conn)
            .await;
        let updated =
            updated.map_err(|error| error::from_write(error, R::RESOURCE, |what| unique_value(value, what)))?;
        if updated.rows_affected != 1 {
            return Err(Error::internal("a row changed although it was locked"));
        }
        match value.labels() {
            Some(labels) => {
                label::delete(&self.conn, tenant, R::RESOURCE, &[value.id()]).await?;
                label::put(&self.conn, tenant, R::RESOURCE, value.id(), labels).await
            }
            None => Ok(()),
        }
    }

    /// Deletes the row with an id. Its secrets and labels are not deleted.
    pub(crate) async fn delete_row<R: Stored>(&self, tenant: TenantId, id: Uuid) -> Result<()> {
        self.delete_rows::<R>(tenant, &[id], R::ID.eq(id)).await
    }

    /// Deletes the rows that fit a condition and whose ids are known. No other row may fit the condition.
    pub(crate) async fn delete_rows<R: Stored>(
        &self,
        tenant: TenantId,
        ids: &[Uuid],
        condition: impl IntoCondition,
    ) -> Result<()> {
        if R::HAS_GENERATION {
            self.touch_rows(tenant, ids);
        }
        let delete = R::Table::delete_many().filter(R::TENANT_ID.eq(tenant.0)).filter(condition);
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }

    /// Deletes the rows that fit a condition. Returns their ids.
    pub(crate) async fn delete_returning<R: Stored>(
        &self,
        tenant: TenantId,
        condition: impl IntoCondition,
    ) -> Result<Vec<Uuid>> {
        let delete = Query::delete()
            .from_table(R::Table::default())
            .and_where(R::TENANT_ID.eq(tenant.0))
            .cond_where(condition)
            .returning_col(R::ID)
            .to_owned();
        let rows = self.conn.query_all(&delete).await.map_err(error::from_db)?;
        let ids = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<Vec<Uuid>, _>>();
        let ids = ids.map_err(error::from_db)?;
        if R::HAS_GENERATION {
            self.touch_rows(tenant, &ids);
        }
        Ok(ids)
    }

    /// Deletes all rows of a tenant. The generation of the whole tenant advances.
    pub(crate) async fn delete_all<R: Stored>(&self, tenant: TenantId) -> Result<()> {
        self.touch_tenant(tenant);
        let delete = R::Table::delete_many().filter(R::TENANT_ID.eq(tenant.0));
        delete.exec(&self.conn).await.map(|_| ()).map_err(error::from_db)
    }
}

fn by_id<R: Stored>(id: R::Id) -> Expr {
    let id: Uuid = id.into();
    R::ID.eq(id)
}

/// The resource of a tenant with an id. Its id is not read from the row, because each column that is read takes time.
async fn fetch_by_id<S: Stored>(conn: &impl ConnectionTrait, tenant: TenantId, id: Uuid) -> Result<Option<S>> {
    let mut select = Query::select();
    select.column(S::DOC).from(S::Table::default()).and_where(S::TENANT_ID.eq(tenant.0)).and_where(S::ID.eq(id));
    let row = conn.query_one(&select).await.map_err(error::from_db)?;
    row.map(|row| decode(&row, id)).transpose()
}

/// The resource of a tenant whose row fits a condition. At most one row may fit it.
pub(crate) async fn fetch<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<Option<S>> {
    one(conn, &documents::<S>(tenant, condition)).await
}

/// At most `limit` resources whose rows fit a condition, by their ids.
pub(crate) async fn fetch_some<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
    limit: u64,
) -> Result<Vec<S>> {
    let mut select = documents::<S>(tenant, condition);
    let rows = conn.query_all(select.order_by(S::ID, Order::Asc).limit(limit)).await.map_err(error::from_db)?;
    let decoded = |row: &QueryResult| decode(row, row.try_get_by_index(1).map_err(error::from_db)?);
    rows.iter().map(decoded).collect()
}

/// The resource whose row has the highest value in a column, of the rows that fit a condition. Of several such rows it is the
/// one with the highest id.
pub(crate) async fn fetch_last<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
    by: ColumnOf<S>,
) -> Result<Option<S>> {
    let mut select = documents::<S>(tenant, condition);
    one(conn, select.order_by(by, Order::Desc).order_by(S::ID, Order::Desc).limit(1)).await
}

/// As [`fetch`]. The row is locked until the transaction ends. (SQLite has one writer anyway.)
pub(crate) async fn fetch_locked<S: Stored>(
    txn: &Transaction,
    tenant: TenantId,
    condition: impl IntoCondition,
    lock: LockType,
) -> Result<Option<S>> {
    one(txn, documents::<S>(tenant, condition).lock(lock)).await
}

/// The documents of a tenant whose rows fit a condition.
fn documents<S: Stored>(tenant: TenantId, condition: impl IntoCondition) -> SelectStatement {
    let mut select = Query::select();
    select.column(S::DOC).column(S::ID).from(S::Table::default()).and_where(S::TENANT_ID.eq(tenant.0));
    select.cond_where(condition.into_condition()).take()
}

/// The resource that a statement of [`documents`] finds. It has no `LIMIT`, as sea-orm's `one` would have: if that number
/// is bound, SQLite prepares the statement again each time and PostgreSQL plans it again.
pub(crate) async fn one<S: Stored>(conn: &impl ConnectionTrait, select: &SelectStatement) -> Result<Option<S>> {
    let Some(row) = conn.query_one(select).await.map_err(error::from_db)? else { return Ok(None) };
    let id = row.try_get_by_index(1).map_err(error::from_db)?;
    decode(&row, id).map(Some)
}

/// The resource whose document is the first column of a row.
fn decode<S: Stored>(row: &QueryResult, id: Uuid) -> Result<S> {
    match row.try_get_by_index::<String>(0) {
        Ok(doc) => document::decode(&doc, id),
        Err(_) => Err(document::damaged::<S>(id, document::NO_TEXT.to_owned())),
    }
}

/// Counts the rows of a tenant that fit a condition.
pub(crate) async fn count<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<u64> {
    let select = stored::of::<S>(tenant).filter(condition).select_only().column_as(S::ID.count(), "count");
    let count = select.into_tuple::<i64>().one(conn).await.map_err(error::from_db)?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

/// The ids of the rows of a tenant that fit a condition. The rows are locked in this order until the transaction ends, so that
/// rows which refer to them can be deleted first.
pub(crate) async fn ids_for_update<S: Stored>(
    txn: &Transaction,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<Vec<Uuid>> {
    let select = stored::of::<S>(tenant).filter(condition).order_by_asc(S::ID).lock_exclusive();
    select.select_only().column(S::ID).into_tuple::<Uuid>().all(txn).await.map_err(error::from_db)
}
