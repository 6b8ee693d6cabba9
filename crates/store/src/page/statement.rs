//! The statements of pages, and what they bring.

use jackfield_domain::page::{DEFAULT_PAGE_SIZE, OrderBy, OrderValue, RowKey};
use jackfield_domain::{Error, Result};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{
    ConnectionTrait, DbBackend, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, Statement, Values,
};
use uuid::Uuid;

use super::{FIRST_READ, LARGEST_READ, LINE, Lookup, PageQuery, Unreadable};
use crate::filter::{self, FilterContext};
use crate::row::{self, Stored};
use crate::{error, search};

/// What the statements of most pages are limited to: one row more than they take.
const USUAL_LIMITS: [u32; 3] = [FIRST_READ + 1, DEFAULT_PAGE_SIZE + 1, LARGEST_READ + 1];

/// The documents of a page.
pub(crate) const DOCS: &str = "string_agg(doc, '\n')";

/// What a statement found, in its order.
pub(super) struct Found {
    /// The documents, with a line break between any two.
    pub(super) docs: String,
    pub(super) ids: Vec<Uuid>,
    /// The values of the ordering column, if there is one, a line each.
    pub(super) places: Option<String>,
}

/// The first rows of a page; or that they cannot be told apart, or a document is no text.
pub(super) async fn found<S: Stored>(
    conn: &impl ConnectionTrait,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
    lookup: Lookup<'_>,
    limit: u32,
) -> Result<Result<Found, Unreadable>> {
    let statement = page::<S>(conn.get_database_backend(), query, after, until, lookup, limit)?;
    let row = conn.query_one_raw(statement).await.map_err(error::from_db)?;
    let Some(row) = row else { return Ok(Err(Unreadable)) };
    let text = |index| row.try_get_by_index::<Option<String>>(index).map_err(|_| Unreadable);
    let places = if S::order_column(query.order.by).is_some() { text(2) } else { Ok(None) };
    Ok(text(0).and_then(|docs| Found::of(docs, text(1)?, places?)))
}

/// The statement that brings the first rows of a page.
pub(super) fn page<S: Stored>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
    lookup: Lookup<'_>,
    limit: u32,
) -> Result<Statement> {
    let select = select::<S>(backend, query, after, until, lookup).into_query();
    limited(backend, &joined::<S>(backend, select, query.order.by), limit)
}

/// Has the database put the documents that a statement finds into one text, a line each, in the order in which they are found. A
/// row takes more time on its way from the database than to be found. JSON has no line break of its own: in its texts it is
/// `\n`. With them come the ids of the rows and the values of the ordering column, in texts of their own.
fn joined<S: Stored>(backend: DbBackend, select: SelectStatement, by: OrderBy) -> SelectStatement {
    let (ids, places) = match backend {
        DbBackend::Sqlite => ("string_agg(hex(row_id), '\n')", "string_agg(place, '\n')"),
        _ => ("string_agg(row_id::text, '\n')", "string_agg(place::text, '\n')"),
    };
    let mut page = Query::select().expr(Expr::cust(DOCS)).expr(Expr::cust(ids)).take();
    if S::order_column(by).is_some() {
        page.expr(Expr::cust(places));
    }
    page.from_subquery(select, "page").take()
}

/// The same statement for the first rows that it joins.
///
/// Where the limit is bound, SQLite prepares the statement anew at each run and PostgreSQL plans it anew, because another number
/// might want another plan. The usual ones stand in the text; all others are bound, for a connection keeps so many statements.
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

fn select<S: Stored>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
    lookup: Lookup<'_>,
) -> Select<S::Table> {
    let select = matching::<S>(backend, query, after, until, lookup).select_only().column(S::DOC);
    let select = select.expr_as(Expr::col((S::Table::default(), S::ID)), "row_id");
    match S::order_column(query.order.by) {
        Some(column) => select.expr_as(Expr::col((S::Table::default(), column)), "place"),
        None => select,
    }
}

/// The rows of a page, with all their columns.
pub(super) fn matching<S: Stored>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
    lookup: Lookup<'_>,
) -> Select<S::Table> {
    let context = context(backend, query, matches!(lookup, Lookup::Words(_)));
    let mut select = match lookup {
        Lookup::Words(terms) if backend == DbBackend::Sqlite => {
            let found = row::listed_elsewise::<S>(query.tenant).filter(search::condition::<S>(terms, &context));
            listed::<S>(query, found, after, until)
        }
        Lookup::Words(_) => {
            let rows = row::listed::<S>(query.tenant);
            let rows = after.into_iter().fold(rows, |rows, after| rows.filter(behind_unseen::<S>(query, after)));
            listed::<S>(query, rows, None, None)
        }
        Lookup::Keys => listed::<S>(query, row::listed::<S>(query.tenant), after, until),
    };
    if let Some(filter) = query.filter {
        select = select.filter(filter::condition::<S>(filter, &context));
    }
    select
}

/// What a list pages over behind a key and up to another, in its order.
pub(super) fn listed<S: Stored>(
    query: &PageQuery<'_>,
    rows: Select<S::Table>,
    after: Option<&RowKey>,
    until: Option<&RowKey>,
) -> Select<S::Table> {
    let descending = query.order.descending;
    let order = if descending { sea_orm::Order::Desc } else { sea_orm::Order::Asc };
    let by = ordered_by(query);

    let mut select = rows.filter(S::scope(query.scope));
    if let Some(after) = after {
        let (place, value) = place::<S>(by, after);
        select = select.filter(if descending { place.lt(value) } else { place.gt(value) });
    }
    if let Some(until) = until {
        let (place, value) = place::<S>(by, until);
        select = select.filter(if descending { place.gte(value) } else { place.lte(value) });
    }
    let order_column = S::order_column(by);
    if let Some(order_column) = order_column {
        select = select.order_by(order_column, order.clone());
    }
    // PostgreSQL sorts again for a second column, even if the first leaves it nothing to do.
    if order_column.is_none() || !by.is_unique() {
        select = select.order_by(S::ID, order);
    }
    select
}

/// A place in the order as columns and as values. Row values compare column by column; both databases use the index of
/// exactly these columns for them.
fn place<S: Stored>(by: OrderBy, key: &RowKey) -> (Expr, Expr) {
    let table = S::Table::default();
    let column = |column: crate::row::ColumnOf<S>| Expr::col((table, column));
    match (S::order_column(by), &key.value) {
        (Some(order_column), Some(value)) if by.is_unique() => (column(order_column), order_value(value)),
        (Some(order_column), Some(value)) => {
            (Expr::tuple([column(order_column), column(S::ID)]), Expr::tuple([order_value(value), Expr::val(key.id)]))
        }
        _ => (column(S::ID), Expr::val(key.id)),
    }
}

/// That a row comes behind a key, put so that no index of PostgreSQL serves it. It has to take that of the words, which it
/// finds in their conditions, and might guess that next to no rows are behind the key when they are new.
fn behind_unseen<S: Stored>(query: &PageQuery<'_>, after: &RowKey) -> Expr {
    let by = ordered_by(query);
    let (place, value) = place::<S>(by, after);
    // A comparison of single values would be turned round again, that of rows is not.
    let (place, value) = match S::order_column(by) {
        Some(_) if !by.is_unique() => (place, value),
        _ => (Expr::tuple([place, Expr::val(1)]), Expr::tuple([value, Expr::val(1)])),
    };
    if query.order.descending { place.gte(value).not() } else { place.lte(value).not() }
}

/// What the scope fixes orders nothing, and SQLite would not use a bound that begins with it.
pub(super) fn ordered_by(query: &PageQuery<'_>) -> OrderBy {
    let by = query.order.by;
    if by == OrderBy::UserId && query.scope.user_id.is_some() { OrderBy::Id } else { by }
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

/// A value of the ordering column, as a page brings it.
pub(super) fn place_of(text: &str, by: OrderBy) -> Result<OrderValue, Unreadable> {
    match by {
        OrderBy::CreateTime => text.parse().map(OrderValue::Time).map_err(|_| Unreadable),
        OrderBy::Id | OrderBy::Name | OrderBy::UserId => Ok(OrderValue::Text(text.to_owned())),
    }
}

// === impl Found ===

impl Found {
    /// What a statement found, if there is an id and, with an ordering column, a value for each document: a text with a line
    /// break in it would be taken for two.
    fn of(docs: Option<String>, ids: Option<String>, places: Option<String>) -> Result<Self, Unreadable> {
        let lines = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let Some(ids) = ids else { return Ok(Found { docs: String::new(), ids: Vec::new(), places: None }) };
        let ids: Vec<Uuid> = ids.split(LINE).map(Uuid::try_parse).collect::<Result<_, _>>().map_err(|_| Unreadable)?;
        let docs = docs.unwrap_or_default();
        let is_whole = [Some(&docs), places.as_ref()].into_iter().flatten().all(|text| lines(text) == ids.len());
        if is_whole { Ok(Found { docs, ids, places }) } else { Err(Unreadable) }
    }
}
