//! A page of a list.

use jackfield_domain::Result;

use super::filling::Filling;
use super::listed::Listed;
use super::query::{Page, PageQuery};
use super::statement::Lookup;
use super::{filter, filtered};
use crate::database::Pooled;
use crate::session::Reader;

impl Reader {
    /// Reads a page of a list.
    pub async fn page<R: Listed>(&self, query: &PageQuery<'_>) -> Result<Page<R>> {
        let page = stored_page(&self.conn, query).await?;
        R::completed(self, query, page).await
    }
}

/// Reads a page: at most `size` rows and about `max_bytes`, at least one row if there is any. With a filter that matches little
/// it may be fewer, or none, although more follow. Each statement takes a connection of its own.
async fn stored_page<S: Listed>(conn: &Pooled, query: &PageQuery<'_>) -> Result<Page<S>> {
    let Some(filter) = query.filter else {
        let mut page = Filling::new(query);
        let full = page.fill(conn, None, Lookup::Keys).await?;
        return Ok(page.finish(full));
    };
    // Rows that a filter narrows like a scope are found like those of a scope.
    let scope = filter::narrowed(query.scope, filter);
    let query = &PageQuery { scope: &scope, ..query.clone() };
    let mut page = Filling::new(query);
    if filter::finds_one::<S>(filter) {
        let full = page.fill(conn, None, Lookup::Keys).await?;
        return Ok(page.finish(full));
    }
    filtered::fill(conn, page, filter).await
}
