//! What a page is asked for, and what it brings.

use jackfield_domain::request::filter::Expr as Filter;
use jackfield_domain::request::order::{Order, OrderBy};
use jackfield_domain::request::page::RowKey;
use jackfield_domain::value::id::{ConnectionId, ConnectorId, CredentialId};
use jackfield_domain::value::text::UserId;
use jackfield_domain::{TenantId, Timestamp};

use super::rows::Rows;

/// Which page of which list.
#[derive(Clone, Debug)]
pub struct PageQuery<'a> {
    pub tenant: TenantId,
    pub filter: Option<&'a Filter>,
    pub scope: &'a Scope,
    pub order: Order,
    /// The last row of the page before; `None` = from the beginning.
    pub after: Option<RowKey>,
    /// The most rows, more than 0.
    pub size: u32,
    /// The most bytes of the rows; a single row may have more. See `jackfield_domain::request::page::MAX_PAGE_BYTES`.
    pub max_bytes: usize,
    /// The time at which states are computed.
    pub now: Timestamp,
    /// What the pages before have shown.
    pub hints: Hints,
}

/// What a page shows that helps to read the next one. A list begins without any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// Bytes of a row on average; 0 = not known.
    pub(super) row_bytes: usize,
    /// The index of words was of no help.
    pub(super) words_are_common: bool,
}

/// What a list is narrowed to besides its filter. Each list knows some of these.
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
    /// Where the next page begins, if more may follow: the key of the last row that was looked at.
    pub next: Option<RowKey>,
    /// For the next page.
    pub hints: Hints,
}

// === impl PageQuery ===

impl PageQuery<'_> {
    /// The order without what the scope fixes: that orders nothing, and SQLite would not use a bound that begins with it.
    pub(super) fn effective_order(&self) -> OrderBy {
        let by = self.order.by;
        if by == OrderBy::UserId && self.scope.user_id.is_some() { OrderBy::Id } else { by }
    }
}
