//! The rows of a page. They stay text until their values are needed.

use jackfield_domain::Resource;
use uuid::Uuid;

use crate::document::{self, SEPARATOR};
use crate::stored::Stored;

/// The rows of a page. Reading their documents takes about as long as the database takes to find them, so the next page can be
/// looked up before the documents of this one are read.
pub struct Rows<T> {
    content: Content<T>,
    count: usize,
    bytes: usize,
    resource: Resource,
    left_out: Vec<DamagedRow>,
}

enum Content<T> {
    /// The documents, and the function that reads them.
    Unread(Documents, fn(&Documents, &mut Vec<DamagedRow>) -> Vec<T>),
    Values(Vec<T>),
}

struct Documents {
    /// The documents, with a separator between any two.
    text: String,
    /// The ids of their rows.
    ids: Vec<Uuid>,
}

/// A row that a list leaves out, and the reason.
pub(crate) struct DamagedRow {
    pub(super) id: Uuid,
    pub(super) why: String,
}

// === impl Rows ===

impl<T> Rows<T> {
    pub(super) fn unread(text: String, ids: Vec<Uuid>, bytes: usize, left_out: Vec<DamagedRow>) -> Self
    where
        T: Stored,
    {
        let (count, content) = (ids.len(), Content::Unread(Documents { text, ids }, read));
        Rows { content, count, bytes, resource: T::RESOURCE, left_out }
    }

    /// The number of rows. Rows that are still to be read count even if they turn out not to be readable.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The most bytes that the rows take in a message.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The values of the rows. A row that cannot be read is left out, counted and logged: it must not take the others with
    /// it. This happens here and not when the page is found, because a page may be found twice but is read once.
    pub fn read(self) -> Vec<T> {
        let resource = self.resource;
        let (values, left_out) = self.read_unlogged();
        left_out.iter().for_each(|row| row.log(resource));
        values
    }

    /// The values of the rows, and the rows that were left out and are still to be logged.
    pub(crate) fn read_unlogged(self) -> (Vec<T>, Vec<DamagedRow>) {
        let mut left_out = self.left_out;
        let values = match self.content {
            Content::Unread(documents, read) => read(&documents, &mut left_out),
            Content::Values(values) => values,
        };
        (values, left_out)
    }

    /// The same rows with values that say more than their documents.
    pub(crate) fn of(values: Vec<T>, bytes: usize, left_out: Vec<DamagedRow>) -> Self
    where
        T: Stored,
    {
        let (count, content) = (values.len(), Content::Values(values));
        Rows { content, count, bytes, resource: T::RESOURCE, left_out }
    }
}

fn read<T: Stored>(documents: &Documents, left_out: &mut Vec<DamagedRow>) -> Vec<T> {
    let mut values = Vec::with_capacity(documents.ids.len());
    for (doc, id) in documents.text.split(SEPARATOR).zip(&documents.ids) {
        match document::try_decode(doc, *id) {
            Ok(value) => values.push(value),
            Err(why) => left_out.push(DamagedRow { id: *id, why }),
        }
    }
    values
}

// === impl DamagedRow ===

impl DamagedRow {
    fn log(&self, resource: Resource) {
        document::count_damaged();
        tracing::error!(
            resource = resource.as_str(),
            row.id = %self.id,
            error.message = self.why,
            "a row that cannot be read was left out of a list"
        );
    }
}
