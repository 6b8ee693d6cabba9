//! Pages of filtered lists. A filter that matches little would have one statement read all rows of a tenant: it is tried on
//! a window of rows at a time, each a statement of its own, and a page ends early when many rows were looked at for it.

use jackfield_domain::Result;
use jackfield_domain::filter::Expr as Filter;
use jackfield_domain::page::{OrderBy, OrderValue, RowKey};
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait as _, DbBackend, QueryFilter, QuerySelect, Select};
use uuid::Uuid;

use super::{Filling, Lookup, Page, PageQuery, context, listed, ordered_by};
use crate::pooled::Pooled;
use crate::row::{self, Stored};
use crate::search::{self, Terms};
use crate::{error, filter};

/// Rows of the first window: enough for what is common, soon read for what is not.
const FIRST_WINDOW: u64 = 1_000;
/// Rows of a window at most.
const LARGEST_WINDOW: u64 = 16_000;
/// Rows that are looked at for one page, at most. What matched by then is the page, be it nothing.
const MOST_ROWS: u64 = 50_000;
/// The index of words is asked when fewer than one in this many rows matched.
const SPARSE: u64 = 200;

/// Fills a page of a filtered list.
pub(super) async fn fill<S: Stored>(conn: &Pooled, mut page: Filling<'_, S>, filter: &Filter) -> Result<Page<S>> {
    let backend = conn.get_database_backend();
    let mut terms = search::terms(filter, backend).filter(|_| !page.hints.words_are_common);
    let (mut rows, mut window) = (0, FIRST_WINDOW);
    loop {
        let end = end::<S>(conn, page.query, page.passed.as_ref(), window).await?;
        if page.fill(conn, end.as_ref(), Lookup::Keys).await? {
            return Ok(page.cut(true));
        }
        if end.is_none() {
            return Ok(page.cut(false));
        }
        page.passed = end;
        rows += window;
        if page.wanted() == 0 || rows >= MOST_ROWS {
            return Ok(page.cut(true));
        }
        if page.count() as u64 * SPARSE < rows
            && let Some(terms) = terms.take()
        {
            match by_words(conn, &mut page, &terms).await? {
                Some(full) => return Ok(page.cut(full)),
                None => page.hints.words_are_common = true,
            }
        }
        window = Ord::min(window * 4, Ord::min(LARGEST_WINDOW, MOST_ROWS - rows));
    }
}

/// Goes on by the index of words, to the end or until the page is full, which it says; `None` if too many rows have them.
async fn by_words<S: Stored>(conn: &Pooled, page: &mut Filling<'_, S>, terms: &Terms) -> Result<Option<bool>> {
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

/// The key of the last row of a window; `None` when the list ends before.
async fn end<S: Stored>(
    conn: &Pooled,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    rows: u64,
) -> Result<Option<RowKey>> {
    let select = select_end::<S>(conn.get_database_backend(), query, after, rows);
    let failed = error::from_db;
    let by = ordered_by(query);
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
        // A value that no other row has needs no id to tell it apart, and the index alone answers.
        OrderBy::Name => {
            let name = select.into_tuple::<String>().one(conn).await.map_err(failed)?;
            name.map(|name| RowKey { value: Some(OrderValue::Text(name)), id: Uuid::nil() })
        }
    })
}

/// The statement that finds the end of a window.
pub(super) fn select_end<S: Stored>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    after: Option<&RowKey>,
    rows: u64,
) -> Select<S::Table> {
    let by = ordered_by(query);
    let mut select = listed::<S>(query, row::listed::<S>(query.tenant), after, None);
    // Rows that the order alone tells apart from those that match are none of the window.
    for part in query.filter.into_iter().flat_map(filter::conjuncts).filter(|part| filter::bounds(part, by)) {
        select = select.filter(filter::condition::<S>(part, &context(backend, query, false)));
    }
    select = select.limit(1).offset(rows - 1).select_only();
    if let Some(column) = S::order_column(by) {
        select = select.expr(Expr::col((S::Table::default(), column)));
    }
    if !by.is_unique() || by == OrderBy::Id {
        select = select.expr(Expr::col((S::Table::default(), S::ID)));
    }
    select
}
