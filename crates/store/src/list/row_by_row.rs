//! The rows of a page one by one, for a page with a row that cannot be read: it must not take the others with it.

use jackfield_domain::Result;
use jackfield_domain::request::order::OrderBy;
use jackfield_domain::request::page::{OrderValue, RowKey};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, QueryResult, QuerySelect as _, QueryTrait as _};
use uuid::Uuid;

use super::listed::{Listed, order_column};
use super::statement::ListRange;
use crate::database::error;
use crate::document;

/// A row by its columns.
pub(super) struct FoundRow {
    pub(super) key: RowKey,
    /// Its document, or why it cannot be read.
    pub(super) doc: Result<String, String>,
}

/// The first rows of a range.
pub(super) async fn rows<S: Listed>(
    conn: &impl ConnectionTrait,
    range: ListRange<'_>,
    limit: u64,
) -> Result<Vec<FoundRow>> {
    let by = range.query.order.by;
    let select =
        range.matching::<S>().select_only().column(S::ID).expr_as(document::bytes_of::<S>(range.backend), "bytes");
    let select = match order_column::<S>(by) {
        Some(column) => select.expr_as(Expr::col((S::Table::default(), column)), "place"),
        None => select,
    };
    let found = conn.query_all(&select.limit(limit).into_query()).await.map_err(error::from_db)?;
    found.iter().map(|row| read::<S>(row, by)).collect()
}

fn read<S: Listed>(row: &QueryResult, by: OrderBy) -> Result<FoundRow> {
    let id: Uuid = row.try_get_by_index(0).map_err(error::from_db)?;
    let value = match by {
        OrderBy::Id => None,
        OrderBy::CreateTime => Some(OrderValue::Time(row.try_get_by_index(2).map_err(error::from_db)?)),
        OrderBy::Name | OrderBy::UserId => Some(OrderValue::Text(row.try_get_by_index(2).map_err(error::from_db)?)),
    };
    let bytes: Vec<u8> = row.try_get_by_index(1).map_err(error::from_db)?;
    Ok(FoundRow { key: RowKey { value, id }, doc: document::try_text::<S>(bytes, id) })
}
