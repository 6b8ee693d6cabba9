//! The statements of pages, for the tests that read their plans.

use jackfield_domain::request::page::RowKey;
use sea_orm::{DbBackend, QueryTrait, Statement};

use super::listed::Listed;
use super::query::PageQuery;
use super::statement::{ListRange, Lookup};
use super::{filtered, search};

/// A statement of a page.
#[derive(Clone, Debug)]
pub enum PageStep {
    /// The page of a list without filter.
    Page,
    /// A page of a filtered list that goes up to a key.
    Window(RowKey),
    /// The statement that finds the key up to which there are this many rows.
    WindowEnd(u64),
    /// A page of a filtered list by the index of words.
    Words,
}

/// The statement of a page, for the test that reads its plan. `None` if the index of words cannot serve the filter.
pub(crate) fn sql<S: Listed>(backend: DbBackend, query: &PageQuery<'_>, step: &PageStep) -> Option<Statement> {
    let after = query.after.as_ref();
    let terms = query.filter.and_then(|filter| search::terms(filter, backend));
    let (until, lookup) = match step {
        PageStep::Page => (None, Lookup::Keys),
        PageStep::Window(until) => (Some(until), Lookup::Keys),
        PageStep::Words => (None, Lookup::Words(terms.as_ref()?)),
        PageStep::WindowEnd(rows) => {
            let end = filtered::select_end::<S>(backend, query, after, *rows);
            return Some(end.build(backend));
        }
    };
    ListRange { backend, query, after, until, lookup }.statement::<S>(query.size + 1).ok()
}
