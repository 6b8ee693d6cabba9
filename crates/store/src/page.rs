//! Pages by keyset: a row value comparison behind the last key, so that deep pages cost what the first one costs.

mod rows;
mod singly;
mod statement;
mod windows;

use std::marker::PhantomData;

use jackfield_domain::filter::Expr as Filter;
use jackfield_domain::id::{ConnectionId, ConnectorId, CredentialId};
use jackfield_domain::page::{Order, RowKey};
use jackfield_domain::text::UserId;
use jackfield_domain::{Result, TenantId, Timestamp};
use sea_orm::ConnectionTrait;
#[cfg(feature = "test-support")]
use sea_orm::{DbBackend, QueryTrait, Statement};
use uuid::Uuid;

use self::rows::Damage;
pub use self::rows::Rows;
use self::singly::Row;
#[cfg(feature = "test-support")]
pub(crate) use self::statement::{DOCS, limited};
use self::statement::{Found, context, listed, matching, ordered_by};
use crate::filter;
use crate::pooled::Pooled;
use crate::row::{self, Stored};
use crate::search::Terms;

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
    /// The documents, with a line break between any two.
    docs: String,
    /// The ids of their rows.
    ids: Vec<Uuid>,
    bytes: usize,
    /// Rows that were passed one by one and cannot be read.
    left_out: Vec<Damage>,
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
        Filling {
            query,
            docs: String::new(),
            ids: Vec::new(),
            bytes: 0,
            left_out: Vec::new(),
            passed,
            hints,
            of: PhantomData,
        }
    }

    /// Takes rows from where it stands up to a key, or to the end. Says whether the page is full and more may follow.
    async fn fill(&mut self, conn: &impl ConnectionTrait, until: Option<&RowKey>, lookup: Lookup<'_>) -> Result<bool> {
        loop {
            let wanted = self.wanted();
            let read = self.affordable(wanted);
            // One row more than wanted tells whether there is a next page, without a count.
            let after = self.passed.as_ref();
            let found = statement::found::<S>(conn, self.query, after, until, lookup, read + 1).await?;
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
    /// cannot be read, nothing is taken: a page that ends with it may hold nothing else.
    fn take(&mut self, found: Found, most: u32) -> Result<Left, Unreadable> {
        let Found { mut docs, mut ids, places } = found;
        let all = ids.len();
        let (mut taken, mut end, mut last, mut left) = (0, 0, "", Left::OneMore);
        let mut bytes = self.bytes;
        for doc in docs.split(LINE).take(all.min(most as usize)) {
            let weight = weight(doc);
            if self.count() + taken > 0 && bytes + weight > self.query.max_bytes {
                left = Left::TooLarge;
                break;
            }
            if taken > 0 {
                end += LINE.len_utf8();
            }
            end += doc.len();
            taken += 1;
            bytes += weight;
            last = doc;
        }
        if taken == all {
            left = Left::Nothing;
        }
        let Some(id) = taken.checked_sub(1).map(|index| ids[index]) else { return Ok(left) };
        row::read_of::<S>(last, id).map_err(|_| Unreadable)?;
        // Out of its columns, which the next statement compares. What its document says may be something else.
        let place = places.as_deref().and_then(|places| places.split(LINE).nth(taken - 1));
        let value = place.map(|place| statement::place_of(place, self.query.order.by)).transpose()?;
        self.passed = Some(RowKey { value, id });
        self.bytes = bytes;
        docs.truncate(end);
        ids.truncate(taken);
        if matches!(left, Left::TooLarge) {
            // What was cut off may be many times what stays, and a page may wait long for its reader.
            docs.shrink_to_fit();
        }
        self.append(docs, &ids);
        Ok(left)
    }

    fn append(&mut self, docs: String, ids: &[Uuid]) {
        if self.ids.is_empty() {
            self.docs = docs;
        } else if !ids.is_empty() {
            self.docs.push(LINE);
            self.docs.push_str(&docs);
        }
        self.ids.extend_from_slice(ids);
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
        for Row { key, doc } in rows.into_iter().take(most as usize) {
            let weight = doc.as_deref().map(weight).unwrap_or_default();
            if self.count() > 0 && self.bytes + weight > self.query.max_bytes {
                return Ok(Left::TooLarge);
            }
            match doc {
                Ok(doc) => {
                    self.bytes += weight;
                    self.append(doc, &[key.id]);
                }
                Err(why) => self.left_out.push(Damage { id: key.id, why }),
            }
            self.passed = Some(key);
        }
        Ok(if more { Left::OneMore } else { Left::Nothing })
    }

    /// Rows that it has.
    fn count(&self) -> usize {
        self.ids.len()
    }

    /// Rows that are missing.
    fn wanted(&self) -> u32 {
        self.query.size.saturating_sub(u32::try_from(self.count()).unwrap_or(u32::MAX))
    }

    /// How many rows the next statement may bring, at least 1.
    fn affordable(&self, wanted: u32) -> u32 {
        let average = self.bytes.checked_div(self.count()).unwrap_or(self.hints.row_bytes);
        if average == 0 {
            return Ord::min(wanted, FIRST_READ);
        }
        let fitting = u32::try_from(self.query.max_bytes.saturating_sub(self.bytes) / average).unwrap_or(u32::MAX);
        Ord::min(wanted, fitting.clamp(1, LARGEST_READ))
    }

    fn cut(self, more: bool) -> Page<S> {
        let row_bytes = self.bytes.checked_div(self.count()).unwrap_or(self.hints.row_bytes);
        let rows = Rows::unread(self.docs, self.ids, self.bytes, self.left_out);
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
    let terms = query.filter.and_then(|filter| crate::search::terms(filter, backend));
    let (until, lookup) = match step {
        PageStep::Page => (None, Lookup::Keys),
        PageStep::Window(until) => (Some(until), Lookup::Keys),
        PageStep::Words => (None, Lookup::Words(terms.as_ref()?)),
        PageStep::WindowEnd(rows) => {
            let end = windows::select_end::<S>(backend, query, after, *rows);
            return Some(end.build(backend));
        }
    };
    statement::page::<S>(backend, query, after, until, lookup, query.size + 1).ok()
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
