//! Lists, a page at a time. Between two pages nothing is held: no connection, no transaction, no cursor.

mod token;

use std::sync::Arc;

use jackfield_domain::application::Application;
use jackfield_domain::connection::Connection;
use jackfield_domain::connector::Connector;
use jackfield_domain::credential::Credential;
use jackfield_domain::principal::RightType;
use jackfield_domain::request::page::{ListRequest, MAX_PAGE_BYTES, RowKey};
use jackfield_domain::request::reference::Ref;
use jackfield_domain::value::text::{CompanyId, UserId};
use jackfield_domain::{Clock, Result, TenantId, Timestamp};
use jackfield_store::{Hints, Listed, PageQuery, Rows, Scope, Store};

use self::token::Question;
use crate::change::found_if_named;
use crate::sealing::data_keys::DataKeys;

/// A resource that is listed.
pub trait Listable: Listed + Send {
    /// The right to read the list.
    type Right: RightType;
    /// The name of the list. A page token of one list does not fit another.
    const LIST: &'static str;

    /// Brings a state that depends on the time up to date.
    fn settle(&mut self, _now: Timestamp) {}
}

/// The resources that a list is narrowed to besides its filter. Each list knows some of them.
#[derive(Clone, Debug, Default)]
pub struct ListScope {
    pub user_id: Option<UserId>,
    pub connector: Option<Ref>,
    pub connection: Option<Ref>,
    pub credential: Option<Ref>,
    pub application: Option<Ref>,
    pub company_id: Option<CompanyId>,
}

/// The reader of all lists.
pub(crate) struct Lists {
    store: Store,
    data_keys: Arc<DataKeys>,
    clock: Arc<dyn Clock>,
}

/// A list that is being read.
pub struct Pager<T> {
    lists: Arc<Lists>,
    tenant: TenantId,
    request: ListRequest<T>,
    scope: Scope,
    position: Position,
}

/// A position in a list.
#[derive(Clone)]
pub struct Position {
    after: Option<RowKey>,
    remaining: Option<u64>,
    hints: Hints,
    done: bool,
}

/// A page whose rows are in memory and not decoded yet.
pub struct FoundPage<T> {
    rows: Rows<T>,
    next_page_token: String,
    now: Timestamp,
}

/// A page as a caller gets it, with the states of its items at the time at which it was found.
#[derive(Debug)]
pub struct ListedPage<T> {
    pub items: Vec<T>,
    /// The start of the next page; empty at the end.
    pub next_page_token: String,
}

// === impl Lists ===

impl Lists {
    pub(crate) fn new(store: Store, data_keys: Arc<DataKeys>, clock: Arc<dyn Clock>) -> Self {
        Lists { store, data_keys, clock }
    }

    /// Starts a list, or continues one.
    pub(crate) async fn open<T: Listable>(
        self: &Arc<Self>,
        tenant: TenantId,
        request: ListRequest<T>,
        scope: ListScope,
    ) -> Result<Pager<T>> {
        let scope = self.resolve(tenant, scope).await?;
        let position = Position { after: None, remaining: request.limit, hints: Hints::default(), done: false };
        let mut pager = Pager { lists: Arc::clone(self), tenant, request, scope, position };
        if !pager.request.page_token.is_empty() {
            let system = self.data_keys.system().await?;
            pager.position.after = Some(pager.question().open(&system, &pager.request.page_token, self.clock.now())?);
        }
        Ok(pager)
    }

    async fn resolve(&self, tenant: TenantId, scope: ListScope) -> Result<Scope> {
        let ListScope { user_id, connector, connection, credential, application, company_id } = scope;
        let connector = found_if_named::<Connector>(&self.store, tenant, connector.as_ref()).await?;
        let connection = found_if_named::<Connection>(&self.store, tenant, connection.as_ref()).await?;
        let credential = found_if_named::<Credential>(&self.store, tenant, credential.as_ref()).await?;
        let application = found_if_named::<Application>(&self.store, tenant, application.as_ref()).await?;
        Ok(Scope {
            user_id,
            connector: connector.map(|found| found.id),
            connection: connection.map(|found| found.id),
            credential: credential.map(|found| found.id),
            application: application.map(|found| found.id),
            company_id,
        })
    }
}

// === impl Pager ===

impl<T: Listable> Pager<T> {
    /// The next page, of at most `max_bytes` unless a single row has more; `None` at the end. There is at least one page, which may
    /// be empty. With a filter that matches little any page may be shorter than asked for, or empty, although more follow. Dropping
    /// the future ends the work.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<FoundPage<T>>> {
        if self.position.done {
            return Ok(None);
        }
        let now = self.lists.clock.now();
        let Position { after, remaining, hints, .. } = &mut self.position;
        let most = remaining.and_then(|remaining| u32::try_from(remaining).ok()).unwrap_or(u32::MAX);
        let query = PageQuery {
            tenant: self.tenant,
            filter: self.request.filter.as_ref(),
            scope: &self.scope,
            order: self.request.order,
            after: after.take(),
            size: self.request.page_size.min(most),
            max_bytes: max_bytes.min(MAX_PAGE_BYTES),
            now,
            hints: *hints,
        };
        let page = self.lists.store.read().page::<T>(&query).await?;
        if let Some(remaining) = remaining {
            *remaining = remaining.saturating_sub(page.rows.count() as u64);
        }
        self.position.done = page.next.is_none() || self.position.remaining == Some(0);
        let next_page_token = match &page.next {
            Some(after) => {
                let system = self.lists.data_keys.system().await?;
                self.question().seal(&system, after, now)?
            }
            None => String::new(),
        };
        (self.position.after, self.position.hints) = (page.next, page.hints);
        Ok(Some(FoundPage { rows: page.rows, next_page_token, now }))
    }

    /// Returns true if there are no more pages.
    pub fn is_done(&self) -> bool {
        self.position.done
    }

    /// The position at which the next page starts.
    pub fn position(&self) -> Position {
        self.position.clone()
    }

    /// Returns to an earlier position: the pages from there on are found again.
    pub fn go_back(&mut self, position: Position) {
        self.position = position;
    }

    /// The tenant whose list it is.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn question(&self) -> Question<'_> {
        let ListRequest { filter, order, .. } = &self.request;
        Question { tenant: self.tenant, list: T::LIST, filter: filter.as_ref(), order: *order, scope: &self.scope }
    }
}

// === impl FoundPage ===

impl<T: Listable> FoundPage<T> {
    /// The size in a message, at most.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.next_page_token.len()
    }

    /// Decodes the rows. Those that cannot be read are left out.
    pub fn read(self) -> ListedPage<T> {
        let FoundPage { rows, next_page_token, now } = self;
        let mut items = rows.read();
        items.iter_mut().for_each(|item| item.settle(now));
        ListedPage { items, next_page_token }
    }
}
