//! The rows of a page, which stay text until somebody wants their values.

use jackfield_domain::Resource;
use uuid::Uuid;

use super::LINE;
use crate::row::{self, Stored};

/// The rows of a page. To read their documents takes about as long as the database takes to find them, so whoever gets a page
/// can have the next one looked for before.
pub struct Rows<T> {
    content: Content<T>,
    count: usize,
    bytes: usize,
    resource: Resource,
    left_out: Vec<Damage>,
}

enum Content<T> {
    /// What is read of documents, and how.
    Unread(Docs, fn(&Docs, &mut Vec<Damage>) -> Vec<T>),
    Values(Vec<T>),
}

struct Docs {
    /// With a line break between any two.
    text: String,
    /// Whose they are.
    ids: Vec<Uuid>,
}

/// A row that a list goes on without, and why.
pub(crate) struct Damage {
    pub(super) id: Uuid,
    pub(super) why: String,
}

// === impl Rows ===

impl<T> Rows<T> {
    pub(super) fn unread(text: String, ids: Vec<Uuid>, bytes: usize, left_out: Vec<Damage>) -> Self
    where
        T: Stored,
    {
        let (count, content) = (ids.len(), Content::Unread(Docs { text, ids }, read));
        Rows { content, count, bytes, resource: T::RESOURCE, left_out }
    }

    /// How many they are; of those that are still to be read, with those that turn out not to be readable.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they take in a message, at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Their values. A row that cannot be read is left out, counted and told: it must not take the others with it. That is done
    /// here and not where it is found, for a page may be found twice and is read once.
    pub fn read(self) -> Vec<T> {
        let resource = self.resource;
        let (values, left_out) = self.untold();
        left_out.iter().for_each(|damage| damage.tell(resource));
        values
    }

    /// Their values, and what was left out, which is still to be told.
    pub(crate) fn untold(self) -> (Vec<T>, Vec<Damage>) {
        let mut left_out = self.left_out;
        let values = match self.content {
            Content::Unread(docs, read) => read(&docs, &mut left_out),
            Content::Values(values) => values,
        };
        (values, left_out)
    }

    /// The same rows, with values that say more than their documents.
    pub(crate) fn of(values: Vec<T>, bytes: usize, left_out: Vec<Damage>) -> Self
    where
        T: Stored,
    {
        let (count, content) = (values.len(), Content::Values(values));
        Rows { content, count, bytes, resource: T::RESOURCE, left_out }
    }
}

fn read<T: Stored>(docs: &Docs, left_out: &mut Vec<Damage>) -> Vec<T> {
    let mut values = Vec::with_capacity(docs.ids.len());
    for (doc, id) in docs.text.split(LINE).zip(&docs.ids) {
        match row::read_of(doc, *id) {
            Ok(value) => values.push(value),
            Err(why) => left_out.push(Damage { id: *id, why }),
        }
    }
    values
}

// === impl Damage ===

impl Damage {
    fn tell(&self, resource: Resource) {
        row::count_damaged();
        tracing::error!(
            resource = resource.as_str(),
            row.id = %self.id,
            error.message = self.why,
            "a row that cannot be read was left out of a list"
        );
    }
}
