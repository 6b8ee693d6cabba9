//! The rows of a page, which stay text until somebody wants their values.

use jackfield_domain::Result;

use super::LINE;
use crate::row::{self, Stored};

/// The rows of a page. To read their documents takes about as long as the database takes to find them, so whoever gets a page
/// can have the next one looked for before.
pub struct Rows<T> {
    content: Content<T>,
    count: usize,
    bytes: usize,
}

enum Content<T> {
    /// Documents, a line each, and what reads one.
    Docs(String, fn(&str) -> Result<T>),
    Values(Vec<T>),
}

impl<T> Rows<T> {
    pub(super) fn unread(docs: String, count: usize, bytes: usize) -> Self
    where
        T: Stored,
    {
        Rows { content: Content::Docs(docs, row::from_doc), count, bytes }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they take in a message, at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Their values.
    pub fn read(self) -> Result<Vec<T>> {
        match self.content {
            Content::Docs(docs, read) => docs.split_terminator(LINE).map(read).collect(),
            Content::Values(values) => Ok(values),
        }
    }

    /// The same rows, with values that say more than their documents.
    pub(crate) fn of(values: Vec<T>, bytes: usize) -> Self {
        Rows { count: values.len(), content: Content::Values(values), bytes }
    }
}
