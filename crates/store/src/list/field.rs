//! The places where a filter finds the values of a field.

use jackfield_domain::{Resource, TenantId, Timestamp};
use sea_orm::sea_query::{Alias, Expr};
use sea_orm::{ColumnTrait, DbBackend};

/// The facts that conditions depend on besides the filter.
#[derive(Clone, Copy, Debug)]
pub struct FilterContext {
    pub(crate) backend: DbBackend,
    pub(crate) tenant: TenantId,
    pub(crate) now: Timestamp,
    /// True if words are written so that the index of words serves them.
    pub(crate) by_words: bool,
}

/// The place where a filter finds the value of a field.
pub enum FieldSource {
    /// In a column.
    Column(Expr),
    /// In an expression that depends on the time.
    Computed(fn(&FilterContext) -> Expr),
    /// In the rows of labels. `owner_id` is the id of the row that the labels belong to.
    Labels { owner: Resource, owner_id: Expr },
}

// === impl FieldSource ===

impl FieldSource {
    pub(crate) fn column(column: impl ColumnTrait) -> Self {
        FieldSource::Column(qualified(column))
    }

    pub(crate) fn labels(owner: Resource, id: impl ColumnTrait) -> Self {
        FieldSource::Labels { owner, owner_id: qualified(id) }
    }
}

/// A column with its table.
pub(super) fn qualified(column: impl ColumnTrait) -> Expr {
    let table = Alias::new(column.entity_name().to_string());
    Expr::col((table, column))
}
