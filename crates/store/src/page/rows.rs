//! The rows of a page, which stay text until somebody wants their values.

use jackfield_domain::{Error, Resource};
use uuid::Uuid;

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
    /// Documents, a line each, and what reads them.
    Docs(String, fn(&str) -> Vec<T>),
    Values(Vec<T>),
}

impl<T> Rows<T> {
    pub(super) fn unread(docs: String, count: usize, bytes: usize) -> Self
    where
        T: Stored,
    {
        Rows { content: Content::Docs(docs, read), count, bytes }
    }

    /// How many they are, those included that cannot be read.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they take in a message, at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Their values. A row that cannot be read is left out, counted and told: it must not take the others with it.
    pub fn read(self) -> Vec<T> {
        match self.content {
            Content::Docs(docs, read) => read(&docs),
            Content::Values(values) => values,
        }
    }

    /// The same rows, with values that say more than their documents.
    pub(crate) fn of(values: Vec<T>, bytes: usize) -> Self {
        Rows { count: values.len(), content: Content::Values(values), bytes }
    }
}

fn read<T: Stored>(docs: &str) -> Vec<T> {
    let mut values: Vec<T> = Vec::new();
    for doc in docs.split_terminator(LINE) {
        match row::from_doc::<T>(doc) {
            Ok(value) => values.push(value),
            // The document does not say which one it is; the one before it does.
            Err(error) => left_out(&error, T::RESOURCE, None, values.last().map(T::id)),
        }
    }
    values
}

/// Tells of a row that a list goes on without.
pub(super) fn left_out(error: &Error, resource: Resource, id: Option<Uuid>, behind: Option<Uuid>) {
    let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(
        resource = resource.as_str(),
        row.id = text(id),
        row.behind = text(behind),
        error.message = why,
        "a row that cannot be read was left out of a list"
    );
}
