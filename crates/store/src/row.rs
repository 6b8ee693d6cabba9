//! How a resource becomes a row and comes back: one trait, and the four things that are done with every resource.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use jackfield_domain::error::Taken;
use jackfield_domain::meta::Meta;
use jackfield_domain::page::OrderBy;
use jackfield_domain::text::{Labels, fold};
use jackfield_domain::{Error, Resource, Result, TenantId};
use sea_orm::sea_query::{Condition, Expr, ExprTrait, Func, IntoCondition, LockType, Order, Query, SelectStatement};
use sea_orm::{
    ActiveModelBehavior, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, Select,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use uuid::Uuid;

use crate::filter::FieldSql;
use crate::page::Scope;
use crate::session::Writer;
use crate::transaction::Transaction;
use crate::{error, label};

/// Why a document cannot even be looked at.
pub(crate) const NO_TEXT: &str = "its document is no text";
/// Why a document that can be read is none of its row.
const OF_ANOTHER: &str = "its document is of another id";

/// How often a row was met that could not be read. Of the process: it is the disk that fails, whatever store is on it.
static DAMAGED: AtomicU64 = AtomicU64::new(0);

/// A resource that is kept as a row: facts that queries need as columns, the whole of it as a document.
pub(crate) trait Stored: Serialize + DeserializeOwned + Send + Sync {
    /// Its table.
    type Table: EntityTrait<ActiveModel: ActiveModelBehavior + Send, Model: IntoActiveModel<ActiveModelOf<Self>> + Sync>;

    const RESOURCE: Resource;
    const TENANT_ID: ColumnOf<Self>;
    const ID: ColumnOf<Self>;
    const DOC: ColumnOf<Self>;
    const SEARCH_TEXT: ColumnOf<Self>;
    const FOLDED: ColumnOf<Self>;
    const VERSION: ColumnOf<Self>;
    /// Fields of filters whose value no two rows of a tenant have, by an index.
    const UNIQUE: &'static [&'static str] = &["id"];
    /// Whether pages of it span all tenants. Only tenants themselves do.
    const ACROSS_TENANTS: bool = false;
    /// Whether changes of it are stamped, so that something may be remembered of it (see [`crate::stamps`]).
    const STAMPED: bool = true;

    fn id(&self) -> Uuid;
    fn meta(&self) -> &Meta;
    /// The row.
    fn row(&self, tenant: TenantId, texts: RowTexts) -> ActiveModelOf<Self>;
    /// The texts that a bare word in a filter looks into.
    fn texts(&self) -> Vec<&str>;
    /// The texts that a filter compares by field, but for those whose column is folded.
    fn field_texts(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }
    fn labels(&self) -> Option<&Labels> {
        None
    }
    /// The value that a violated unique constraint is about.
    fn taken(&self, what: Taken) -> String;
    /// The column of an order; `None` for the id.
    fn order_column(by: OrderBy) -> Option<ColumnOf<Self>>;
    /// What narrows a list to its scope; parts of the scope that the list does not know are not there.
    fn scope(scope: &Scope) -> Condition;
    /// How a field of a filter is looked up.
    fn field(name: &str) -> Option<FieldSql>;
}

pub(crate) type ColumnOf<S> = <<S as Stored>::Table as EntityTrait>::Column;
pub(crate) type ActiveModelOf<S> = <<S as Stored>::Table as EntityTrait>::ActiveModel;

/// What is written of a resource as a whole.
pub(crate) struct RowTexts {
    /// All of it, as JSON.
    pub(crate) doc: String,
    /// Folded texts, one a line, for bare words.
    pub(crate) search_text: String,
    /// Folded texts by the name of their field, as JSON: those that differ in more than the case of ASCII letters, which
    /// is all that both databases can fold. `None` if there are none.
    pub(crate) folded: Option<String>,
}

/// The rows that a list pages over: those of a tenant, but for the list of tenants.
pub(crate) fn listed<S: Stored>(tenant: TenantId) -> Select<S::Table> {
    if S::ACROSS_TENANTS {
        #[expect(clippy::disallowed_methods, reason = "the list of tenants is not in a tenant")]
        return S::Table::find();
    }
    of::<S>(tenant)
}

/// As [`listed`], for a statement that has an index of its own. SQLite takes any index of a tenant for better, unless what
/// names the tenant looks like no column.
pub(crate) fn listed_elsewise<S: Stored>(tenant: TenantId) -> Select<S::Table> {
    #[expect(clippy::disallowed_methods, reason = "the next line narrows it to the tenant, or there is none")]
    let all = S::Table::find();
    if S::ACROSS_TENANTS {
        return all;
    }
    let column = Expr::col((S::Table::default(), S::TENANT_ID));
    all.filter(Expr::cust_with_expr("+?", column).eq(tenant.0))
}

/// The rows of a tenant.
pub(crate) fn of<S: Stored>(tenant: TenantId) -> Select<S::Table> {
    #[expect(clippy::disallowed_methods, reason = "this is the tenant-scoped finder")]
    S::Table::find().filter(S::TENANT_ID.eq(tenant.0))
}

/// The row of a tenant that fits a condition, which no two do.
pub(crate) async fn fetch<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<Option<S>> {
    one(conn, &docs::<S>(tenant, condition)).await
}

/// Of the rows that fit a condition the one with the highest value in a column, and the highest id among such.
pub(crate) async fn fetch_last<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
    by: ColumnOf<S>,
) -> Result<Option<S>> {
    let mut select = docs::<S>(tenant, condition);
    one(conn, select.order_by(by, Order::Desc).order_by(S::ID, Order::Desc).limit(1)).await
}

/// As [`fetch`], and no other transaction changes the row until this one ends. (SQLite has one writer anyway.)
pub(crate) async fn fetch_for_update<S: Stored>(
    txn: &Transaction,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<Option<S>> {
    one(txn, docs::<S>(tenant, condition).lock(LockType::Update)).await
}

/// As [`fetch`], and no other transaction deletes the row until this one ends, so that what hangs on it can be added.
pub(crate) async fn fetch_held<S: Stored>(
    txn: &Transaction,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<Option<S>> {
    one(txn, docs::<S>(tenant, condition).lock(LockType::KeyShare)).await
}

/// The documents of a tenant whose rows fit a condition: as [`of`], without the columns that it would name first.
fn docs<S: Stored>(tenant: TenantId, condition: impl IntoCondition) -> SelectStatement {
    let mut select = Query::select();
    select.column(S::DOC).column(S::ID).from(S::Table::default()).and_where(S::TENANT_ID.eq(tenant.0));
    select.cond_where(condition.into_condition()).take()
}

/// Documents as bytes: what is no text cannot be asked for as one.
pub(crate) fn bytes_of<S: Stored>(backend: DbBackend) -> Expr {
    let doc = Expr::col((S::Table::default(), S::DOC));
    Expr::expr(match backend {
        DbBackend::Sqlite => Func::cast_as(doc, "blob"),
        _ => Func::cust("convert_to").arg(doc).arg("UTF8"),
    })
}

/// There is no `LIMIT` where one row at most is found, as sea-orm's `one` would have it: whenever that number is bound, SQLite
/// prepares the statement anew and PostgreSQL plans it anew.
async fn one<S: Stored>(conn: &impl ConnectionTrait, select: &SelectStatement) -> Result<Option<S>> {
    let Some(row) = conn.query_one(select).await.map_err(error::from_db)? else { return Ok(None) };
    let id: Uuid = row.try_get_by_index(1).map_err(error::from_db)?;
    match row.try_get_by_index::<String>(0) {
        Ok(doc) => from_doc(&doc, id).map(Some),
        Err(_) => Err(damaged::<S>(id, NO_TEXT.to_owned())),
    }
}

/// Adds a row, with its labels.
pub(crate) async fn insert<S: Stored>(writer: &Writer, tenant: TenantId, value: &S) -> Result<()> {
    // Nothing is remembered of what was not there: no stamp.
    let txn = &writer.conn;
    let row = value.row(tenant, RowTexts::of(value)?);
    let inserted = S::Table::insert(row).exec_without_returning(txn).await;
    inserted.map_err(|error| error::from_write(error, S::RESOURCE, |what| value.taken(what)))?;
    writer.is_fresh(value.id());
    match value.labels() {
        Some(labels) => label::put(txn, tenant, S::RESOURCE, value.id(), labels).await,
        None => Ok(()),
    }
}

/// Replaces a row that was fetched for update, with its labels.
pub(crate) async fn replace<S: Stored>(writer: &Writer, tenant: TenantId, value: &S) -> Result<()> {
    if S::STAMPED {
        writer.touch(tenant, value.id());
    }
    let txn = &writer.conn;
    let row = value.row(tenant, RowTexts::of(value)?);
    let updated = S::Table::update_many()
        .set(row)
        .filter(S::TENANT_ID.eq(tenant.0))
        .filter(S::ID.eq(value.id()))
        .filter(S::VERSION.eq(value.meta().version - 1))
        .exec(txn)
        .await;
    let updated = updated.map_err(|error| error::from_write(error, S::RESOURCE, |what| value.taken(what)))?;
    if updated.rows_affected != 1 {
        return Err(Error::internal("a row changed although it was locked"));
    }
    match value.labels() {
        Some(labels) => {
            label::delete(txn, tenant, S::RESOURCE, &[value.id()]).await?;
            label::put(txn, tenant, S::RESOURCE, value.id(), labels).await
        }
        None => Ok(()),
    }
}

/// Counts rows of a tenant that fit a condition.
pub(crate) async fn count<S: Stored>(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<u64> {
    let select = of::<S>(tenant).filter(condition).select_only().column_as(S::ID.count(), "count");
    let count = select.into_tuple::<i64>().one(conn).await.map_err(error::from_db)?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

/// Deletes the row with an id; says how many there were.
pub(crate) async fn delete<S: Stored>(writer: &Writer, tenant: TenantId, id: Uuid) -> Result<u64> {
    if S::STAMPED {
        writer.touch(tenant, id);
    }
    delete_those::<S>(writer, tenant, S::ID.eq(id)).await
}

/// Deletes rows of a tenant that fit a condition; says how many. Which they are is not known here, so it counts as a change of
/// the whole tenant.
pub(crate) async fn delete_many<S: Stored>(
    writer: &Writer,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<u64> {
    if S::STAMPED {
        writer.touch_tenant(tenant);
    }
    delete_those::<S>(writer, tenant, condition).await
}

/// As [`delete_many`], for rows whose ids are known. No others may fit the condition.
pub(crate) async fn delete_known<S: Stored>(
    writer: &Writer,
    tenant: TenantId,
    ids: &[Uuid],
    condition: impl IntoCondition,
) -> Result<u64> {
    if S::STAMPED {
        writer.touch_rows(tenant, ids);
    }
    delete_those::<S>(writer, tenant, condition).await
}

async fn delete_those<S: Stored>(writer: &Writer, tenant: TenantId, condition: impl IntoCondition) -> Result<u64> {
    let delete = S::Table::delete_many().filter(S::TENANT_ID.eq(tenant.0)).filter(condition);
    let deleted = delete.exec(&writer.conn).await;
    Ok(deleted.map_err(error::from_db)?.rows_affected)
}

/// The ids of rows of a tenant that fit a condition, locked in this order until the transaction ends, so that what hangs
/// on them can be deleted before them.
pub(crate) async fn ids_for_update<S: Stored>(
    txn: &Transaction,
    tenant: TenantId,
    condition: impl IntoCondition,
) -> Result<Vec<Uuid>> {
    let select = of::<S>(tenant).filter(condition).order_by_asc(S::ID).lock_exclusive();
    select.select_only().column(S::ID).into_tuple::<Uuid>().all(txn).await.map_err(error::from_db)
}

/// The value of a row, or the error of one that cannot be read, which is counted.
pub(crate) fn from_doc<S: Stored>(doc: &str, id: Uuid) -> Result<S> {
    read_of(doc, id).map_err(|why| damaged::<S>(id, why))
}

/// The error of a row that cannot be read, which is counted.
fn damaged<S: Stored>(id: Uuid, why: String) -> Error {
    count_damaged();
    Error::DataDamaged { resource: S::RESOURCE, id: id.to_string(), source: why.into() }
}

/// Counts a row that cannot be read.
pub(crate) fn count_damaged() {
    DAMAGED.fetch_add(1, Ordering::Relaxed);
}

/// How often this process has met a row that it could not read.
pub fn damaged_rows() -> u64 {
    DAMAGED.load(Ordering::Relaxed)
}

/// Why a document cannot be read, without anything of it: that of serde quotes values.
fn why(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        Category::Data => "no document of this resource",
        Category::Eof | Category::Io | Category::Syntax => "no JSON",
    };
    format!("its document is {kind}, at byte {}", error.column())
}

/// Reads the document of a row; or says why it cannot be read. One of another id would be told, changed and deleted as the row
/// that it is not.
pub(crate) fn read_of<S: Stored>(doc: &str, id: Uuid) -> Result<S, String> {
    let value = read::<S>(doc).map_err(|error| why(&error))?;
    if value.id() == id { Ok(value) } else { Err(OF_ANOTHER.to_owned()) }
}

/// Reads a document.
pub(crate) fn read<S: Stored>(doc: &str) -> serde_json::Result<S> {
    serde_json::from_str(doc)
}

// === impl RowTexts ===

impl RowTexts {
    pub(crate) fn of<S: Stored>(value: &S) -> Result<Self> {
        let folded: BTreeMap<_, _> = value
            .field_texts()
            .into_iter()
            .map(|(field, text)| (field, text, fold(text)))
            .filter(|(_, text, folded)| text.to_ascii_lowercase() != *folded)
            .map(|(field, _, folded)| (field, folded))
            .collect();
        let folded = (!folded.is_empty()).then(|| serde_json::to_string(&folded)).transpose();
        Ok(RowTexts {
            doc: serde_json::to_string(value).map_err(Error::internal)?,
            search_text: fold(&value.texts().join("\n")),
            folded: folded.map_err(Error::internal)?,
        })
    }
}
