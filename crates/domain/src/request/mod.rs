//! Common parts of requests: patches of documents, references, update masks, filters, orders and pages.

pub mod document_patch;
pub mod filter;
pub mod map_patch;
pub mod mask;
pub mod order;
pub mod page;
pub mod reference;
pub mod schema;
