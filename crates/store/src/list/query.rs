//! The query of a page, and the page.

use jackfield_domain::request::filter::Expr as Filter;
use jackfield_domain::request::order::{Order, OrderBy};
use jackfield_domain::request::page::RowKey;
use jackfield_domain::value::id::{ApplicationId, ConnectionId, ConnectorId, CredentialId};
use jackfield_domain::value::text::{CompanyId, UserId};
use jackfield_domain::{TenantId, Timestamp};

use super::rows::Rows;

/// The query of a page.
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
    /// The hints of the page before.
    pub hints: Hints,
}

/// Facts that a page shows and that help to read the next one. A list begins without any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// Bytes of a row on average; 0 = not known.
    pub(super) row_bytes: usize,
    /// The index of words was of no help.
    pub(super) words_are_common: bool,
}

/// The parents that a list is narrowed to, besides its filter. Each list knows some of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub user_id: Option<UserId>,
    pub connector: Option<ConnectorId>,
    pub connection: Option<ConnectionId>,
    pub credential: Option<CredentialId>,
    pub application: Option<ApplicationId>,
    pub company_id: Option<CompanyId>,
}

/// One page.
pub struct Page<T> {
    pub rows: Rows<T>,
    /// The place where the next page begins, if more may follow: the key of the last row that was examined.
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
