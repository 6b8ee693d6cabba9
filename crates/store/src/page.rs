//! Pages by keyset: a row value comparison behind the last key, so that deep pages cost what the first one costs.

mod rows;
mod singly;
mod windows;

use std::marker::PhantomData;

use jackfield_domain::filter::Expr as Filter;
use jackfield_domain::id::{ConnectionId, ConnectorId, CredentialId};
use jackfield_domain::page::{DEFAULT_PAGE_SIZE, Order, OrderBy, OrderValue, RowKey};
use jackfield_domain::text::UserId;
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{
    ConnectionTrait, DbBackend, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, Statement, Values,
};

pub use self::rows::Rows;
use crate::error;
use crate::filter::{self, FilterContext};
use crate::pooled::Pooled;
use crate::row::{self, Stored};
use crate::search::{self, Terms};

/// Which page of which list.
#[derive(Clone, Debug)]
pub struct PageQuery<'a> {
    pub tenant: TenantId,
    pub filter: Option<&'a Filter>,
    pub scope: &'a Scope,
    pub order: Order,
    /// The last row of the page before; `None` = at the beginning.
    pub after: Option<RowKey>,
    /// Rows at most, more than 0.
    pub size: u32,
    /// What they may weigh at most; a single row may weigh more. See `jackfield_domain::page::MAX_PAGE_BYTES`.
    pub max_bytes: usize,
    /// The time at which states are worked out.
    pub now: Timestamp,
    /// What pages before have shown.
    pub hints: Hints,
}

/// What a page shows that is of use for the next one. A list begins without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// Bytes of a row on average; 0 = not known.
    row_bytes: usize,
    /// The index of words was of no help.
    words_are_common: bool,
}

/// What a list is narrowed to beside its filter. Each list knows some of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub user_id: Option<UserId>,
    pub connector: Option<ConnectorId>,
    pub connection: Option<ConnectionId>,
    pub credential: Option<CredentialId>,
}

/// One page.
pub struct Page<T> {
    pub rows: Rows<T>,
    /// Where to go on, if more may follow: the key of the last row that was looked at.
    pub next: Option<RowKey>,
    /// For the next page.
    pub hints: Hints,
}

/// Rows that are read before their size is known. What they and the pages before show decides how many the next read takes.
const FIRST_READ: u32 = 16;

/// Rows that a statement brings at most. They are in memory before their size is known, and the largest take 256 KiB each.
const LARGEST_READ: u32 = 128;

/// What the statements of most pages are limited to: one row more than they take.
const USUAL_LIMITS: [u32; 3] = [FIRST_READ + 1, DEFAULT_PAGE_SIZE + 1, LARGEST_READ + 1];

/// Stands between the documents of a page.
const LINE: char = '\n';

/// What a JSON value takes on the wire beyond its text: tags and lengths of its own, of its key and of their entry, and a
/// number of eight bytes.
const VALUE_BYTES: usize = 12;

/// Reads one page: at most `size` rows and about `max_bytes`, at least one row if there is any; with a filter that
/// matches little perhaps fewer, or none, although more follow. Each statement takes a connection of its own.
pub(crate) async fn page<S: Stored>(conn: &Pooled, query: &PageQuery<'_>) -> Result<Page<S>> {
    let Some(filter) = query.filter else {
        let mut page = Filling::new(query);
        let full = page.fill(conn, None, Lookup::Keys).await?;
        return Ok(page.cut(full));
    };
    // What a filter fixes as a scope does is found as a scope is.
    let scope = filter::narrowed(query.scope, filter);
    let query = &PageQuery { scope: &scope, ..query.clone() };
    let mut page = Filling::new(query);
    if filter::finds_one::<S>(filter) {
        let full = page.fill(conn, None, Lookup::Keys).await?;
        return Ok(page.cut(full));
    }
    windows::fill(conn, page, filter).await
}

/// How a statement finds the rows that its filter is tried on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup<'a> {
    /// By their key, in its order.
    Keys,
    /// By the index of words.
    Words(&'a Terms),
}

/// A page that is being filled.
struct Filling<'a, S> {
    query: &'a PageQuery<'a>,
    /// The documents, a line each.
    docs: String,
    count: usize,
    bytes: usize,
    /// The rows up to here were looked at.
    passed: Option<RowKey>,
    hints: Hints,
    of: PhantomData<fn() -> S>,
}

/// A document in the way cannot be read.
struct Unreadable;

/// What is left of the documents that a statement found.
enum Left {
    Nothing,
    /// The one that is there to tell that more follow.
    OneMore,
    /// Those that would make the page too large.
    TooLarge,
}

impl<'a, S: Stored> Filling<'a, S> {
    fn new(query: &'a PageQuery<'a>) -> Self {
        let (passed, hints) = (query.after.clone(), query.hints);
        Filling { query, docs: String::new(), count: 0, bytes: 0, passed, hints, of: PhantomData }
    }

    /// Takes rows from where it stands up to a key, or to the end. Says whether the page is full and more may follow.
    async fn fill(&mut self, conn: &impl ConnectionTrait, until: Option<&RowKey>, lookup: Lookup<'_>) -> Result<bool> {
        let backend = conn.get_database_backend();
        loop {
            let wanted = self.wanted();
            let read = self.affordable(wanted);
            // One row more than wanted tells whether there is a next page, without a count.
            let select = select::<S>(backend, self.query, self.passed.as_ref(), until, lookup);
            let found = documents(conn, select.into_query(), read + 1).await?;
            let left = match found.and_then(|found| self.take(found, read)) {
                Ok(left) => left,
                Err(Unreadable) => self.take_singly(conn, until, lookup, read).await?,
            };
            match left {
                Left::Nothing => return Ok(false),
                Left::TooLarge => return Ok(true),
                Left::OneMore if read == wanted => return Ok(true),
                Left::OneMore => {}
            }
        }
    }

    /// Takes so many of the documents that were found, or fewer if they are too large. Says what it left. If the last one
    /// cannot be read, so that it is not known where to go on, nothing is taken.
    fn take(&mut self, mut found: String, most: u32) -> Result<Left, Unreadable> {
        let (mut taken, mut last, mut left) = (0, None, Left::OneMore);
        let (mut count, mut bytes) = (self.count, self.bytes);
        for doc in found.split_terminator(LINE).take(most as usize) {
            let weight = weight(doc);
            if count > 0 && bytes + weight > self.query.max_bytes {
                left = Left::TooLarge;
                break;
            }
            count += 1;
            bytes += weight;
            taken += doc.len() + LINE.len_utf8();
            last = Some(doc);
        }
        if let Some(last) = last {
            let last = row::read::<S>(last).map_err(|_| Unreadable)?;
            self.passed = Some(key(&last, self.query.order));
        }
        (self.count, self.bytes) = (count, bytes);
        if taken >= found.len() {
            left = Left::Nothing;
        }
        found.truncate(taken);
        if matches!(left, Left::TooLarge) {
            // What was cut off may be many times what stays, and a page may wait long for its reader.
            found.shrink_to_fit();
        }
        self.append(found);
        Ok(left)
    }

    fn append(&mut self, found: String) {
        if self.docs.is_empty() {
            self.docs = found;
        } else if !found.is_empty() {
            if !self.docs.ends_with(LINE) {
                self.docs.push(LINE);
            }
            self.docs.push_str(&found);
        }
    }

    /// Takes rows one by one, with keys out of their columns: where a document cannot be read. Such rows are left out.
    async fn take_singly(
        &mut self,
        conn: &impl ConnectionTrait,
        until: Option<&RowKey>,
        lookup: Lookup<'_>,
        most: u32,
    ) -> Result<Left> {
        let rows =
            singly::rows::<S>(conn, self.query, self.passed.as_ref(), until, lookup, u64::from(most) + 1).await?;
        let more = rows.len() > most as usize;
        for row in rows.into_iter().take(most as usize) {
            let weight = row.doc.as_deref().map(weight).unwrap_or_default();
            if self.count > 0 && self.bytes + weight > self.query.max_bytes {
                return Ok(Left::TooLarge);
            }
            self.passed = Some(row.key);
            if let Some(doc) = row.doc {
                self.count += 1;
                self.bytes += weight;
                self.append(doc);
            }
        }
        Ok(if more { Left::OneMore } else { Left::Nothing })
    }

    /// Rows that are missing.
    fn wanted(&self) -> u32 {
        self.query.size.saturating_sub(u32::try_from(self.count).unwrap_or(u32::MAX))
    }

    /// How many rows the next statement may bring, at least 1.
    fn affordable(&self, wanted: u32) -> u32 {
        let average = self.bytes.checked_div(self.count).unwrap_or(self.hints.row_bytes);
        if average == 0 {
            return Ord::min(wanted, FIRST_READ);
        }
        let fitting = u32::try_from(self.query.max_bytes.saturating_sub(self.bytes) / average).unwrap_or(u32::MAX);
        Ord::min(wanted, fitting.clamp(1, LARGEST_READ))
    }

    fn cut(self, more: bool) -> Page<S> {
        let row_bytes = self.bytes.checked_div(self.count).unwrap_or(self.hints.row_bytes);
        let rows = Rows::unread(self.docs, self.count, self.bytes);
        Page { rows, next: self.passed.filter(|_| more), hints: Hints { row_bytes, ..self.hints } }
    }
}

/// The statement of a page, for the test that reads its plan. `None` if the index of words has nothing of the filter.
#[cfg(feature = "test-support")]
pub(crate) fn sql<S: Stored>(
    backend: DbBackend,
    query: &PageQuery<'_>,
    step: &crate::test_support::PageStep,
) -> Option<Statement> {
    use crate::test_support::PageStep;
    let after = query.after.as_ref();
    let terms = query.filter.and_then(|filter| search::terms(filter, backend));
    let (until, lookup) = match step {
        PageStep::Page => (None, Lookup::Keys),
        PageStep::Window(until) => (Some(until), Lookup::Keys),
        PageStep::Words => (None, Lookup::Words(terms.as_ref()?)),
        PageStep::WindowEnd(rows) => {
            let end = windows::select_end::<S>(backend, query, after, *rows);
            return Some(end.build(backend));
        }
    };
    let select = select::<S>(backend, query, after, until, lookup).into_query();
    statement(backend, select, query.size + 1).ok()
}

/// The first documents that a statement finds, each a line; or that one of them is no text.
async fn documents(
    conn: &impl ConnectionTrait,
    select: SelectStatement,
    limit: u32,
) -> Result<Result<String, Unreadable>> {
    let statement = statement(conn.get_database_backend(), select, limit)?;
    let row = conn.query_one_raw(statement).await.map_err(error::from_db)?;
    let docs = row.map(|row| row.try_get_by_index::<Option<String>>(0)).transpose();
    Ok(docs.map(|docs| docs.flatten().unwrap_or_default()).map_err(|_| Unreadable))
}

/// Has the database put the first documents that a statement finds into one text, a line each, in the order in which they are
/// found. A row takes more time on its way from the database than to be found. JSON has no line break of its own: in its texts
/// it is `\n`.
///
/// Where the limit is bound, SQLite prepares the statement anew at each run and PostgreSQL plans it anew, because another number
/// might want another plan. The usual ones stand in the text; all others are bound, for a connection keeps so many statements.
pub(crate) fn statement(backend: DbBackend, select: SelectStatement, limit: u32) -> Result<Statement> {
    let page = Query::select().expr(Expr::cust("string_agg(doc, '\n')")).from_subquery(select, "page").take();
    let mut statement = backend.build(&page);
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
    matching::<S>(backend, query, after, until, lookup).select_only().column(S::DOC)
}

/// The rows of a page, with all their columns.
fn matching<S: Stored>(
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
fn listed<S: Stored>(
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
fn ordered_by(query: &PageQuery<'_>) -> OrderBy {
    let by = query.order.by;
    if by == OrderBy::UserId && query.scope.user_id.is_some() { OrderBy::Id } else { by }
}

fn context(backend: DbBackend, query: &PageQuery<'_>, by_words: bool) -> FilterContext {
    FilterContext { backend, tenant: query.tenant, now: query.now, by_words }
}

fn order_value(value: &OrderValue) -> Expr {
    match value {
        OrderValue::Text(text) => Expr::val(text.clone()),
        OrderValue::Time(time) => Expr::val(*time),
    }
}

/// The most that a row takes in a message. Its document is shorter than that where it holds free JSON: a number in a list is
/// two bytes there, and a message of two fields on the wire.
fn weight(doc: &str) -> usize {
    // Every value but the outermost follows one of these; those that stand in texts are counted too. Few at a time, so that
    // the sums are bytes, of which a processor adds many at once.
    let count = |few: &[u8]| few.iter().map(|byte| u8::from(matches!(byte, b',' | b'[' | b'{'))).sum::<u8>();
    let values: usize = doc.as_bytes().chunks(usize::from(u8::MAX)).map(|few| usize::from(count(few))).sum();
    doc.len() + values * VALUE_BYTES
}

fn key<S: Stored>(item: &S, order: Order) -> RowKey {
    let value = if order.by == OrderBy::Id { None } else { item.order_value(order.by) };
    RowKey { value, id: item.id() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_weighs_its_text_and_its_values() {
        for (doc, values) in [
            ("{}", 1),
            (r#"{"a":1}"#, 1),
            (r#"{"a":[1,2,3]}"#, 4),
            (r#"{"a":"[{,","b":"\"{\\"}"#, 6),
            (&format!("[{}]", ",".repeat(1_000)), 1_001),
        ] {
            assert_eq!(weight(doc), doc.len() + values * VALUE_BYTES, "{doc}");
        }
    }
}
