//! Lists: filters as conditions, the index of words, and pages by keyset. A page begins after the last key of the page before
//! (a comparison of row values), so deep pages cost what the first one costs.

pub(crate) mod field;
pub(crate) mod filling;
pub(crate) mod filter;
pub(crate) mod filtered;
pub(crate) mod listed;
pub(crate) mod page;
#[cfg(feature = "test-support")]
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod row_by_row;
pub(crate) mod rows;
pub(crate) mod search;
pub(crate) mod statement;

pub use self::listed::Listed;
pub use self::query::{Hints, Page, PageQuery, Scope};
pub use self::rows::Rows;
