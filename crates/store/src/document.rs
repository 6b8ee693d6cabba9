//! The encoding of stored documents. All documents are written and read here, so nothing else depends on their form: JSON on
//! one line.

use std::sync::atomic::{AtomicU64, Ordering};

use jackfield_domain::value::text::Name;
use jackfield_domain::{ConnectorId, Error, Result};
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, Func};
use serde::Deserialize;
use serde_json::error::Category;
use uuid::Uuid;

use crate::stored::Stored;

/// Separates documents that the database joins into one text. No document contains it: within JSON it is written `\n`.
pub(crate) const SEPARATOR: char = '\n';

/// The expression that joins the documents of rows into one text.
pub(crate) const JOINED: &str = "string_agg(doc, '\n')";

/// The fault of a document that cannot even be read as text.
pub(crate) const NO_TEXT: &str = "its document is not text";
/// The fault of a document that can be read and does not belong to its row.
const OF_ANOTHER: &str = "its document has another id";

/// The bytes that a JSON value takes on the wire beyond its text: tags and lengths of the value, its key and their entry, and
/// a number of eight bytes.
const VALUE_BYTES: usize = 12;

/// The number of times that a row could not be read. It is counted for the process, because the disk fails for all its
/// stores.
static DAMAGED: AtomicU64 = AtomicU64::new(0);

/// Writes the document of a resource.
pub(crate) fn encode<S: Stored>(value: &S) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

/// Reads the document of a row. A failure is counted.
pub(crate) fn decode<S: Stored>(doc: &str, id: Uuid) -> Result<S> {
    try_decode(doc, id).map_err(|why| damaged::<S>(id, why))
}

/// Reads the document of a row, or says why it cannot be read. A document of another id is refused: it would be shown,
/// changed and deleted as a row that it is not.
pub(crate) fn try_decode<S: Stored>(doc: &str, id: Uuid) -> Result<S, String> {
    let value: S = serde_json::from_str(doc).map_err(|error| why(&error))?;
    if value.id() == id { Ok(value) } else { Err(OF_ANOTHER.to_owned()) }
}

/// Reads a document from the bytes that [`bytes_of`] selects, or says why it cannot be read. Returns it as text.
pub(crate) fn try_text<S: Stored>(bytes: Vec<u8>, id: Uuid) -> Result<String, String> {
    match String::from_utf8(bytes) {
        // A document that was written here is one line.
        Ok(doc) if !doc.contains(SEPARATOR) => try_decode::<S>(&doc, id).map(|_| doc),
        _ => Err(NO_TEXT.to_owned()),
    }
}

/// The name in the document of a connector, without reading the rest of it.
pub(crate) fn connector_name(bytes: &[u8], id: Uuid) -> Option<Name> {
    #[derive(Deserialize)]
    struct Named {
        id: ConnectorId,
        name: Name,
    }
    let named: Named = serde_json::from_slice(bytes).ok()?;
    (named.id.0 == id).then_some(named.name)
}

/// Returns whether two texts are the same document, however they are written.
pub(crate) fn are_equal(one: &str, other: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    json(one) == json(other)
}

/// The expression for documents as bytes. A value that is not text cannot be selected as text.
pub(crate) fn bytes_of<S: Stored>(backend: DbBackend) -> Expr {
    let doc = Expr::col((S::Table::default(), S::DOC));
    Expr::expr(match backend {
        DbBackend::Sqlite => Func::cast_as(doc, "blob"),
        _ => Func::cust("convert_to").arg(doc).arg("UTF8"),
    })
}

/// The most bytes that a document takes in a message. The document itself is shorter if it holds free JSON: a number in a
/// list takes two bytes there, but is a message of two fields on the wire.
pub(crate) fn wire_bytes(doc: &str) -> usize {
    // Every value but the outermost follows one of these characters. Those within texts are counted too. The chunks are so
    // short that their sums are bytes, of which a processor adds many at once.
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(matches!(byte, b',' | b'[' | b'{'))).sum::<u8>();
    let values: usize = doc.as_bytes().chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum();
    doc.len() + values * VALUE_BYTES
}

/// The error of a row that cannot be read. It is counted.
pub(crate) fn damaged<S: Stored>(id: Uuid, why: String) -> Error {
    count_damaged();
    Error::DataDamaged { resource: S::RESOURCE, id: id.to_string(), source: why.into() }
}

/// Counts a row that cannot be read.
pub(crate) fn count_damaged() {
    DAMAGED.fetch_add(1, Ordering::Relaxed);
}

/// The number of times that this process has met a row which it could not read.
pub fn damaged_rows() -> u64 {
    DAMAGED.load(Ordering::Relaxed)
}

/// The reason that a document cannot be read. The message of serde is not used, because it quotes values.
fn why(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        Category::Data => "not a document of this resource",
        Category::Eof | Category::Io | Category::Syntax => "not JSON",
    };
    format!("its document is {kind}, at byte {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_row_counts_its_text_and_its_values() {
        for (doc, values) in [
            ("{}", 1),
            (r#"{"a":1}"#, 1),
            (r#"{"a":[1,2,3]}"#, 4),
            (r#"{"a":"[{,","b":"\"{\\"}"#, 6),
            (&format!("[{}]", ",".repeat(1_000)), 1_001),
        ] {
            assert_eq!(wire_bytes(doc), doc.len() + values * VALUE_BYTES, "{doc}");
        }
    }
}
