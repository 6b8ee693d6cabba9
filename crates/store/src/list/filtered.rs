//! Pages of filtered lists. With a filter that matches little, one statement would read all rows of a tenant. So the filter
//! is applied to one window of rows after the other, each in a statement of its own, and a page ends early when many rows
//! were examined for it.

use jackfield_domain::Result;
use jackfield_domain::request::filter::Expr as Filter;
use jackfield_domain::request::order::OrderBy;
use jackfield_domain::request::page::{OrderValue, RowKey};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait as _, DbBackend, QueryFilter, QuerySelect, Select};
use uuid::Uuid;

use super::filling::Filling;
use super::filter;
use super::listed::{self, Listed, order_column};
use super::query::{Page, PageQuery};
use super::search::{self, Terms};
use super::statement::{Lookup, context, ordered};
use crate::database::{Pooled, error};

/// Rows of the first window: enough for a filter that matches many rows, and soon read for one that does not.
const FIRST_WINDOW: u64 = 1_000;
/// The most rows of a window.
const LARGEST_WINDOW: u64 = 16_000;
/// The most rows that are examined for one page. The rows that matched by then are the page, even if there are none.
const MOST_ROWS: u64 = 50_000;
/// The index of words is used when fewer than one row in this many matched.
const SPARSE: u64 = 200;

/// Fills a page of a filtered list.
pub(super) async fn fill<S: Listed>(conn: &Pooled, mut page: Filling<'_, S>, filter: &Filter) -> Result<Page<S>> {
    let backend = conn.get_database_backend();
    let mut terms = search::terms(filter, backend).filter(|_| !page.hints.words_are_common);
    let (mut rows, mut window) = (0, FIRST_WINDOW);
    loop {
        let end = end::<S>(conn, page.query, page.passed.as_ref(), window).await?;
        if page.fill(conn, end.as_ref(), Lookup::Keys).await? {
            return Ok(page.finish(true));
        }
        if end.is_none() {
            return Ok(page.finish(false));
        }
        page.passed = end;
        rows += window;
        if page.wanted() == 0 || rows >= MOST_ROWS {
            return Ok(page.finish(true));
        }
        if page.count() as u64 * SPARSE < rows
            && let Some(terms) = terms.take()
        {
            match by_words(conn, &mut page, &terms).await? {
                Some(full) => return Ok(page.finish(full)),
                None => page.hints.words_are_common = true,
            }
        }
        window = Ord::min(window * 4, Ord::min(LARGEST_WINDOW, MOST_ROWS - rows));
    }
}

/// Continues with the index of words, to the end or until the page is full. Returns whether it is full; `None` if too many
/// rows have the words.
async fn by_words<S: Listed>(conn: &Pooled, page: &mut Filling<'_, S>, terms: &Terms) -> Result<Option<bool>> {
    let lookup = Lookup::Words(terms);
    if conn.get_database_backend() == DbBackend::Sqlite {
        let context = context(DbBackend::Sqlite, page.query, true);
        if search::are_many::<S>(conn, terms, &context).await? {
            return Ok(None);
        }
        return page.fill(conn, None, lookup).await.map(Some);
    }
    let txn = search::begin(conn).await?;
    match page.fill(&txn, None, lookup).await {
        Err(error) if error::is_timeout(&error) => Ok(None),
        full => full.map(Some),
    }
}

/// The key of the last row of a window; `None` if the list ends before it.
async fn end<S: Listed>(
    conn: &Pooled,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    rows: u64,
) -> Result<Option<RowKey>> {
    let select = select_end::<S>(conn.get_database_backend(), query, after, rows);
    let failed = error::from_db;
    let by = query.effective_order();
    Ok(match by {
        OrderBy::Id => {
            let id = select.into_tuple::<Uuid>().one(conn).await.map_err(failed)?;
            id.map(|id| RowKey { value: None, id })
        }
        OrderBy::CreateTime => {
            let key = select.into_tuple::<(i64, Uuid)>().one(conn).await.map_err(failed)?;
            key.map(|(time, id)| RowKey { value: Some(OrderValue::Time(time)), id })
        }
        OrderBy::UserId => {
            let key = select.into_tuple::<(String, Uuid)>().one(conn).await.map_err(failed)?;
            key.map(|(text, id)| RowKey { value: Some(OrderValue::Text(text)), id })
        }
        // The name is unique, so the key needs no id and the index alone answers.
        OrderBy::Name => {
            let name = select.into_tuple::<String>().one(conn).await.map_err(failed)?;
            name.map(|name| RowKey { value: Some(OrderValue::Text(name)), id: Uuid::nil() })
        }
    })
}

/// The statement that finds the end of a window.
pub(super) fn select_end<S: Listed>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    rows: u64,
) -> Select<S::Table> {
    let by = query.effective_order();
    let mut select = ordered::<S>(query, listed::rows::<S>(query.tenant), after, None);
    // Rows that the order alone excludes are not part of the window.
    for part in query.filter.into_iter().flat_map(filter::conjuncts).filter(|part| filter::bounds(part, by)) {
        select = select.filter(filter::condition::<S>(part, &context(backend, query, false)));
    }
    select = select.limit(1).offset(rows - 1).select_only();
    if let Some(column) = order_column::<S>(by) {
        select = select.expr(Expr::col((S::Table::default(), column)));
    }
    if !by.is_unique() || by == OrderBy::Id {
        select = select.expr(Expr::col((S::Table::default(), S::ID)));
    }
    select
}
