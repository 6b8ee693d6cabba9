//! A page while it is filled, one statement after the other.

use std::marker::PhantomData;

use jackfield_domain::Result;
use jackfield_domain::request::page::RowKey;
use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::listed::Listed;
use super::query::{Hints, Page, PageQuery};
use super::row_by_row::{self, FoundRow};
use super::rows::{DamagedRow, Rows};
use super::statement::{FIRST_READ, Found, LARGEST_READ, ListRange, Lookup, Unreadable, parse_order_value};
use crate::document::{self, SEPARATOR, wire_bytes};

/// A page that is being filled.
pub(super) struct Filling<'a, S> {
    pub(super) query: &'a PageQuery<'a>,
    /// The documents, with a separator between any two.
    docs: String,
    /// The ids of their rows.
    ids: Vec<Uuid>,
    bytes: usize,
    /// Rows that were read one by one and cannot be read.
    left_out: Vec<DamagedRow>,
    /// The key of the last row that was examined.
    pub(super) passed: Option<RowKey>,
    pub(super) hints: Hints,
    of: PhantomData<fn() -> S>,
}

/// The documents that a statement found and the page did not take.
enum Remainder {
    Nothing,
    /// The one document that shows that more follow.
    OneMore,
    /// The documents that would make the page too large.
    TooLarge,
}

impl<'a, S: Listed> Filling<'a, S> {
    pub(super) fn new(query: &'a PageQuery<'a>) -> Self {
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

    /// Takes rows from the current key up to another, or to the end. Returns whether the page is full and more may follow.
    pub(super) async fn fill(
        &mut self,
        conn: &impl ConnectionTrait,
        until: Option<&RowKey>,
        lookup: Lookup<'_>,
    ) -> Result<bool> {
        loop {
            let wanted = self.wanted();
            let read = self.affordable(wanted);
            let after = self.passed.as_ref();
            let range = ListRange { backend: conn.get_database_backend(), query: self.query, after, until, lookup };
            // One row more than wanted shows whether there is a next page, without a count.
            let found = range.found::<S>(conn, read + 1).await?;
            let remainder = match found.and_then(|found| self.take(found, read)) {
                Ok(remainder) => remainder,
                Err(Unreadable) => self.take_row_by_row(conn, until, lookup, read).await?,
            };
            match remainder {
                Remainder::Nothing => return Ok(false),
                Remainder::TooLarge => return Ok(true),
                Remainder::OneMore if read == wanted => return Ok(true),
                Remainder::OneMore => {}
            }
        }
    }

    /// Takes at most `most` of the documents that were found, or fewer if they are too large. If the last one cannot be read,
    /// nothing is taken: a page that ends with it may hold nothing else.
    fn take(&mut self, found: Found, most: u32) -> Result<Remainder, Unreadable> {
        let Found { mut docs, mut ids, values } = found;
        let all = ids.len();
        let (mut taken, mut end, mut last, mut remainder) = (0, 0, "", Remainder::OneMore);
        let mut bytes = self.bytes;
        for doc in docs.split(SEPARATOR).take(all.min(most as usize)) {
            let size = wire_bytes(doc);
            if self.count() + taken > 0 && bytes + size > self.query.max_bytes {
                remainder = Remainder::TooLarge;
                break;
            }
            if taken > 0 {
                end += SEPARATOR.len_utf8();
            }
            end += doc.len();
            taken += 1;
            bytes += size;
            last = doc;
        }
        if taken == all {
            remainder = Remainder::Nothing;
        }
        let Some(id) = taken.checked_sub(1).map(|index| ids[index]) else { return Ok(remainder) };
        document::try_decode::<S>(last, id).map_err(|_| Unreadable)?;
        // The key comes from the columns, which the next statement compares. The document may say something else.
        let value = values.as_deref().and_then(|values| values.split(SEPARATOR).nth(taken - 1));
        let value = value.map(|value| parse_order_value(value, self.query.order.by)).transpose()?;
        self.passed = Some(RowKey { value, id });
        self.bytes = bytes;
        docs.truncate(end);
        ids.truncate(taken);
        if matches!(remainder, Remainder::TooLarge) {
            // The part that was cut off may be many times larger, and a page may wait long for its reader.
            docs.shrink_to_fit();
        }
        self.append(docs, &ids);
        Ok(remainder)
    }

    fn append(&mut self, docs: String, ids: &[Uuid]) {
        if self.ids.is_empty() {
            self.docs = docs;
        } else if !ids.is_empty() {
            self.docs.push(SEPARATOR);
            self.docs.push_str(&docs);
        }
        self.ids.extend_from_slice(ids);
    }

    /// Takes rows one by one, where a document cannot be read. Rows that cannot be read are left out.
    async fn take_row_by_row(
        &mut self,
        conn: &impl ConnectionTrait,
        until: Option<&RowKey>,
        lookup: Lookup<'_>,
        most: u32,
    ) -> Result<Remainder> {
        let after = self.passed.as_ref();
        let range = ListRange { backend: conn.get_database_backend(), query: self.query, after, until, lookup };
        let rows = row_by_row::rows::<S>(conn, range, u64::from(most) + 1).await?;
        let more = rows.len() > most as usize;
        for FoundRow { key, doc } in rows.into_iter().take(most as usize) {
            let size = doc.as_deref().map(wire_bytes).unwrap_or_default();
            if self.count() > 0 && self.bytes + size > self.query.max_bytes {
                return Ok(Remainder::TooLarge);
            }
            match doc {
                Ok(doc) => {
                    self.bytes += size;
                    self.append(doc, &[key.id]);
                }
                Err(why) => self.left_out.push(DamagedRow { id: key.id, why }),
            }
            self.passed = Some(key);
        }
        Ok(if more { Remainder::OneMore } else { Remainder::Nothing })
    }

    /// The number of rows that the page has.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// The number of rows that are missing.
    pub(super) fn wanted(&self) -> u32 {
        self.query.size.saturating_sub(u32::try_from(self.count()).unwrap_or(u32::MAX))
    }

    /// The number of rows that the next statement may read, at least 1.
    fn affordable(&self, wanted: u32) -> u32 {
        let average = self.bytes.checked_div(self.count()).unwrap_or(self.hints.row_bytes);
        if average == 0 {
            return Ord::min(wanted, FIRST_READ);
        }
        let fitting = u32::try_from(self.query.max_bytes.saturating_sub(self.bytes) / average).unwrap_or(u32::MAX);
        Ord::min(wanted, fitting.clamp(1, LARGEST_READ))
    }

    /// Ends the page. `more` says whether more rows may follow.
    pub(super) fn finish(self, more: bool) -> Page<S> {
        let row_bytes = self.bytes.checked_div(self.count()).unwrap_or(self.hints.row_bytes);
        let rows = Rows::unread(self.docs, self.ids, self.bytes, self.left_out);
        Page { rows, next: self.passed.filter(|_| more), hints: Hints { row_bytes, ..self.hints } }
    }
}
