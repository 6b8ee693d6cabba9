//! The statements of pages, and what they find.

use jackfield_domain::request::order::OrderBy;
use jackfield_domain::request::page::{DEFAULT_PAGE_SIZE, OrderValue, RowKey};
use jackfield_domain::{Error, Result};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{
    ConnectionTrait, DbBackend, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, Statement, Values,
};
use uuid::Uuid;

use super::field::FilterContext;
use super::filter;
use super::listed::{self, Listed, order_column};
use super::query::PageQuery;
use super::search::{self, Terms};
use crate::database::error;
use crate::document::{self, SEPARATOR};
use crate::stored::ColumnOf;

/// Rows that are read before their size is known. Their size and that of the pages before decides how many rows the next
/// statement reads.
pub(super) const FIRST_READ: u32 = 16;

/// The most rows that a statement reads. They are in memory before their size is known, and the largest take 256 KiB each.
pub(super) const LARGEST_READ: u32 = 128;

/// The limits of most statements: one row more than they read.
const USUAL_LIMITS: [u32; 3] = [FIRST_READ + 1, DEFAULT_PAGE_SIZE + 1, LARGEST_READ + 1];

/// The way in which a statement finds the rows that its filter is applied to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup<'a> {
    /// By their key, in its order.
    Keys,
    /// By the index of words.
    Words(&'a Terms),
}

/// The part of a list that a statement reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListRange<'a> {
    pub(crate) backend: DbBackend,
    pub(crate) query: &'a PageQuery<'a>,
    /// The key before the first row; `None` = from the beginning.
    pub(crate) after: Option<&'a RowKey>,
    /// The key of the last row; `None` = to the end.
    pub(crate) until: Option<&'a RowKey>,
    pub(crate) lookup: Lookup<'a>,
}

/// The result of a statement, in the order of the list.
pub(super) struct Found {
    /// The documents, with a separator between any two.
    pub(super) docs: String,
    pub(super) ids: Vec<Uuid>,
    /// The values of the ordering column, if there is one, a line each.
    pub(super) values: Option<String>,
}

/// A document or a key that cannot be read.
pub(super) struct Unreadable;

// === impl ListRange ===

impl ListRange<'_> {
    /// The first rows of the range. They are unreadable if they cannot be separated, or if a document is not text.
    pub(super) async fn found<S: Listed>(
        self,
        conn: &impl ConnectionTrait,
        limit: u32,
    ) -> Result<Result<Found, Unreadable>> {
        let row = conn.query_one_raw(self.statement::<S>(limit)?).await.map_err(error::from_db)?;
        let Some(row) = row else { return Ok(Err(Unreadable)) };
        let text = |index| row.try_get_by_index::<Option<String>>(index).map_err(|_| Unreadable);
        let values = if order_column::<S>(self.query.order.by).is_some() { text(2) } else { Ok(None) };
        Ok(text(0).and_then(|docs| Found::of(docs, text(1)?, values?)))
    }

    /// The statement that reads the first rows of the range.
    pub(super) fn statement<S: Listed>(self, limit: u32) -> Result<Statement> {
        limited(self.backend, &self.joined::<S>(), limit)
    }

    /// Makes the database join the documents of the range into one text, in the order of the list. Transferring a row from
    /// the database takes more time than finding it. The ids of the rows and the values of the ordering column come as
    /// texts of their own.
    fn joined<S: Listed>(self) -> SelectStatement {
        let (ids, values) = match self.backend {
            DbBackend::Sqlite => ("string_agg(hex(row_id), '\n')", "string_agg(place, '\n')"),
            _ => ("string_agg(row_id::text, '\n')", "string_agg(place::text, '\n')"),
        };
        let mut page = Query::select().expr(Expr::cust(document::JOINED)).expr(Expr::cust(ids)).take();
        if order_column::<S>(self.query.order.by).is_some() {
            page.expr(Expr::cust(values));
        }
        page.from_subquery(self.select::<S>().into_query(), "page").take()
    }

    fn select<S: Listed>(self) -> Select<S::Table> {
        let select = self.matching::<S>().select_only().column(S::DOC);
        let select = select.expr_as(Expr::col((S::Table::default(), S::ID)), "row_id");
        match order_column::<S>(self.query.order.by) {
            Some(column) => select.expr_as(Expr::col((S::Table::default(), column)), "place"),
            None => select,
        }
    }

    /// The rows of the range that match the filter, with all their columns.
    pub(super) fn matching<S: Listed>(self) -> Select<S::Table> {
        let ListRange { backend, query, after, until, lookup } = self;
        let context = context(backend, query, matches!(lookup, Lookup::Words(_)));
        let mut select = match lookup {
            Lookup::Words(terms) if backend == DbBackend::Sqlite => {
                let rows = listed::rows_by_other_index::<S>(query.tenant);
                ordered::<S>(query, rows.filter(search::condition::<S>(terms, &context)), after, until)
            }
            Lookup::Words(_) => {
                let rows = listed::rows::<S>(query.tenant);
                let rows = after.into_iter().fold(rows, |rows, after| rows.filter(after_unindexed::<S>(query, after)));
                ordered::<S>(query, rows, None, None)
            }
            Lookup::Keys => ordered::<S>(query, listed::rows::<S>(query.tenant), after, until),
        };
        if let Some(filter) = query.filter {
            select = select.filter(filter::condition::<S>(filter, &context));
        }
        select
    }
}

/// The same statement for the first rows that it joins.
///
/// A bound limit makes SQLite prepare the statement again at each run and PostgreSQL plan it again, because another number
/// might need another plan. So the usual limits are part of the text. All others are bound, because a connection keeps a
/// limited number of statements.
pub(crate) fn limited(backend: DbBackend, joined: &SelectStatement, limit: u32) -> Result<Statement> {
    let mut statement = backend.build(joined);
    let end = ") AS \"page\"";
    let open = statement.sql.strip_suffix(end).ok_or_else(|| Error::internal("a page of another form"))?;
    let limited = if USUAL_LIMITS.contains(&limit) {
        format!("{open} LIMIT {limit}{end}")
    } else {
        let values = &mut statement.values.get_or_insert_with(|| Values(Vec::new())).0;
        values.push(i64::from(limit).into());
        match backend {
            // SQLite does not look into a cast.
            DbBackend::Sqlite => format!("{open} LIMIT CAST(? AS INTEGER){end}"),
            _ => format!("{open} LIMIT ${}{end}", values.len()),
        }
    };
    statement.sql = limited;
    Ok(statement)
}

/// The rows of a scope after a key and up to another, in the order of the list.
pub(super) fn ordered<S: Listed>(
    query: &PageQuery<'_>,
    rows: Select<S::Table>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
) -> Select<S::Table> {
    let descending = query.order.descending;
    let order = if descending { sea_orm::Order::Desc } else { sea_orm::Order::Asc };
    let by = query.effective_order();

    let mut select = rows.filter(S::scope(query.scope));
    if let Some(after) = after {
        let (columns, values) = key::<S>(by, after);
        select = select.filter(if descending { columns.lt(values) } else { columns.gt(values) });
    }
    if let Some(until) = until {
        let (columns, values) = key::<S>(by, until);
        select = select.filter(if descending { columns.gte(values) } else { columns.lte(values) });
    }
    let order_column = order_column::<S>(by);
    if let Some(order_column) = order_column {
        select = select.order_by(order_column, order.clone());
    }
    // PostgreSQL sorts again for a second column, even if the first leaves it nothing to do.
    if order_column.is_none() || !by.is_unique() {
        select = select.order_by(S::ID, order);
    }
    select
}

/// A key as columns and as values. Row values compare column by column; both databases use the index of exactly these columns
/// for them.
fn key<S: Listed>(by: OrderBy, key: &RowKey) -> (Expr, Expr) {
    let table = S::Table::default();
    let column = |column: ColumnOf<S>| Expr::col((table, column));
    match (order_column::<S>(by), &key.value) {
        (Some(order_column), Some(value)) if by.is_unique() => (column(order_column), order_value(value)),
        (Some(order_column), Some(value)) => {
            (Expr::tuple([column(order_column), column(S::ID)]), Expr::tuple([order_value(value), Expr::val(key.id)]))
        }
        _ => (column(S::ID), Expr::val(key.id)),
    }
}

/// The condition that a row comes after a key, written so that no index of PostgreSQL serves it. PostgreSQL has to take the
/// index of words, and might guess that hardly any row comes after the key when the rows are new.
fn after_unindexed<S: Listed>(query: &PageQuery<'_>, after: &RowKey) -> Expr {
    let by = query.effective_order();
    let (columns, values) = key::<S>(by, after);
    // PostgreSQL would simplify the negated comparison of single values, but not that of rows.
    let (columns, values) = match order_column::<S>(by) {
        Some(_) if !by.is_unique() => (columns, values),
        _ => (Expr::tuple([columns, Expr::val(1)]), Expr::tuple([values, Expr::val(1)])),
    };
    if query.order.descending { columns.gte(values).not() } else { columns.lte(values).not() }
}

pub(super) fn context(backend: DbBackend, query: &PageQuery<'_>, by_words: bool) -> FilterContext {
    FilterContext { backend, tenant: query.tenant, now: query.now, by_words }
}

fn order_value(value: &OrderValue) -> Expr {
    match value {
        OrderValue::Text(text) => Expr::val(text.clone()),
        OrderValue::Time(time) => Expr::val(*time),
    }
}

/// A value of the ordering column, as a statement finds it.
pub(super) fn parse_order_value(text: &str, by: OrderBy) -> Result<OrderValue, Unreadable> {
    match by {
        OrderBy::CreateTime => text.parse().map(OrderValue::Time).map_err(|_| Unreadable),
        OrderBy::Id | OrderBy::Name | OrderBy::UserId => Ok(OrderValue::Text(text.to_owned())),
    }
}

// === impl Found ===

impl Found {
    /// The result of a statement, if there is an id and, with an ordering column, a value for each document. A text with a
    /// line break in it would be counted as two.
    fn of(docs: Option<String>, ids: Option<String>, values: Option<String>) -> Result<Self, Unreadable> {
        let lines = |text: &str| memchr::memchr_iter(SEPARATOR as u8, text.as_bytes()).count() + 1;
        let Some(ids) = ids else { return Ok(Found { docs: String::new(), ids: Vec::new(), values: None }) };
        let ids = ids.split(SEPARATOR).map(Uuid::try_parse).collect::<Result<Vec<_>, _>>().map_err(|_| Unreadable)?;
        let docs = docs.unwrap_or_default();
        let is_whole = [Some(&docs), values.as_ref()].into_iter().flatten().all(|text| lines(text) == ids.len());
        if is_whole { Ok(Found { docs, ids, values }) } else { Err(Unreadable) }
    }
}
