//! Rows one by one, for a page that has one which cannot be read: it must not take the others with it.

use jackfield_domain::Result;
use jackfield_domain::page::{OrderBy, OrderValue, RowKey};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, QueryResult, QuerySelect as _, QueryTrait as _};
use uuid::Uuid;

use super::{LINE, Lookup, PageQuery, matching};
use crate::error;
use crate::row::{self, Stored};

/// A row by its columns.
pub(super) struct Row {
    pub(super) key: RowKey,
    /// Its document, or why it cannot be read.
    pub(super) doc: Result<String, String>,
}

/// The first rows of a page.
pub(super) async fn rows<S: Stored>(
    conn: &impl ConnectionTrait,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
    lookup: Lookup<'_>,
    limit: u64,
) -> Result<Vec<Row>> {
    let (backend, by) = (conn.get_database_backend(), query.order.by);
    let select = matching::<S>(backend, query, after, until, lookup)
        .select_only()
        .column(S::ID)
        .expr_as(row::bytes_of::<S>(backend), "bytes");
    let select = match S::order_column(by) {
        Some(column) => select.expr_as(Expr::col((S::Table::default(), column)), "place"),
        None => select,
    };
    let found = conn.query_all(&select.limit(limit).into_query()).await.map_err(error::from_db)?;
    found.iter().map(|row| read::<S>(row, by)).collect()
}

fn read<S: Stored>(row: &QueryResult, by: OrderBy) -> Result<Row> {
    let id: Uuid = row.try_get_by_index(0).map_err(error::from_db)?;
    let value = match by {
        OrderBy::Id => None,
        OrderBy::CreateTime => Some(OrderValue::Time(row.try_get_by_index(2).map_err(error::from_db)?)),
        OrderBy::Name | OrderBy::UserId => Some(OrderValue::Text(row.try_get_by_index(2).map_err(error::from_db)?)),
    };
    let bytes: Vec<u8> = row.try_get_by_index(1).map_err(error::from_db)?;
    let doc = match String::from_utf8(bytes) {
        // Documents that were written here are one line.
        Ok(doc) if !doc.contains(LINE) => row::read_of::<S>(&doc, id).map(|_| doc),
        _ => Err(row::NO_TEXT.to_owned()),
    };
    Ok(Row { key: RowKey { value, id }, doc })
}
