//! Lists, a page at a time. Between two pages nothing is held: no connection, no transaction, no cursor.

use std::future::Future;

use jackfield_domain::error::Violation;
use jackfield_domain::principal::RightType;
use jackfield_domain::request::order::Order;
use jackfield_domain::request::page::{ListRequest, MAX_PAGE_BYTES, RowKey};
use jackfield_domain::{Error, Result, TenantId, Timestamp};
use jackfield_store::{Hints, Page, PageQuery, Reader, Rows, Scope};
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::open::Services;

/// A resource that is listed.
pub trait Listable: Sized + Send {
    /// The right to read the list.
    type Right: RightType;
    /// Name of the list; a token of one list is none of another.
    const LIST: &'static str;

    /// Reads one page.
    fn page(read: &Reader, query: &PageQuery<'_>) -> impl Future<Output = Result<Page<Self>>> + Send;
}

/// A list that is being read.
pub struct Pager<T> {
    services: Services,
    tenant: TenantId,
    request: ListRequest,
    scope: Scope,
    place: Place,
    listed: std::marker::PhantomData<fn() -> T>,
}

/// Where a list stands.
#[derive(Clone)]
pub struct Place {
    after: Option<RowKey>,
    remaining: Option<u64>,
    hints: Hints,
    done: bool,
}

/// A page whose rows are there and still have to be read.
pub struct FoundPage<T> {
    rows: Rows<T>,
    next_page_token: String,
    now: Timestamp,
}

/// A page as a caller gets it.
#[derive(Debug)]
pub struct ListedPage<T> {
    pub items: Vec<T>,
    /// Where the next page begins; empty at the end.
    pub next_page_token: String,
    /// The time of the page: what states refer to.
    pub now: Timestamp,
}

/// What a page token holds. Tenant, list, filter, scope and order are bound to it as context and not in it.
#[derive(Serialize, Deserialize)]
struct Token {
    after: RowKey,
    issued: Timestamp,
}

/// How long a page token is good: 72 hours, in microseconds (AIP-158 suggests about three days).
const TOKEN_LIFE_MICROS: i64 = 72 * 3_600 * 1_000_000;

// === impl Services ===

impl Services {
    /// Begins a list, or goes on with one.
    pub async fn list<T: Listable>(
        &self,
        caller: &Caller<T::Right>,
        request: ListRequest,
        scope: Scope,
    ) -> Result<Pager<T>> {
        let mut pager = Pager {
            services: self.clone(),
            tenant: caller.tenant(),
            place: Place { after: None, remaining: request.limit, hints: Hints::default(), done: false },
            request,
            scope,
            listed: std::marker::PhantomData,
        };
        if !pager.request.page_token.is_empty() {
            pager.place.after = Some(pager.open_token().await?);
        }
        Ok(pager)
    }
}

// === impl FoundPage ===

impl<T> FoundPage<T> {
    /// What it takes in a message, at most.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.next_page_token.len()
    }

    /// Reads its rows, those that can be read.
    pub fn read(self) -> ListedPage<T> {
        let FoundPage { rows, next_page_token, now } = self;
        ListedPage { items: rows.read(), next_page_token, now }
    }
}

// === impl Pager ===

impl<T: Listable> Pager<T> {
    /// The next page, of so many bytes at most unless a single row has more; `None` at the end. There is at least one page,
    /// which may be empty. With a filter that matches little any page may be shorter than asked for, or empty, although more
    /// follow. Whoever stops waiting for it ends the work.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<FoundPage<T>>> {
        if self.place.done {
            return Ok(None);
        }
        let now = self.services.now();
        let Place { after, remaining, hints, .. } = &mut self.place;
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
        let page = T::page(&self.services.shared.store.read(), &query).await?;
        if let Some(remaining) = remaining {
            *remaining = remaining.saturating_sub(page.rows.count() as u64);
        }
        self.place.done = page.next.is_none() || self.place.remaining == Some(0);
        let next_page_token = match &page.next {
            Some(after) => self.seal_token(after, now).await?,
            None => String::new(),
        };
        (self.place.after, self.place.hints) = (page.next, page.hints);
        Ok(Some(FoundPage { rows: page.rows, next_page_token, now }))
    }

    /// Whether there are no more pages.
    pub fn is_done(&self) -> bool {
        self.place.done
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Goes back to where it stood: pages from there on are found again.
    pub fn go_back(&mut self, place: Place) {
        self.place = place;
    }

    /// Whose list it is.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    async fn seal_token(&self, after: &RowKey, now: Timestamp) -> Result<String> {
        let token = serde_json::to_vec(&Token { after: after.clone(), issued: now }).map_err(Error::internal)?;
        let system = self.services.data_key_of_system().await?;
        let question = self.question();
        system.seal_token(&self.context(&question), &token)
    }

    async fn open_token(&self) -> Result<RowKey> {
        let system = self.services.data_key_of_system().await?;
        let question = self.question();
        let token = system.open_token(&self.context(&question), &self.request.page_token);
        let token: Option<Token> = token.and_then(|token| serde_json::from_slice(&token).ok());
        let now = self.services.now();
        match token {
            Some(token) if token.issued.plus_micros(TOKEN_LIFE_MICROS) > now => Ok(token.after),
            _ => Err(Violation::page_token().into()),
        }
    }

    /// What the list asks for, beside its place: a token fits no other question. The page size may change (AIP-158).
    fn question(&self) -> String {
        let filter = self.request.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        let Order { by, descending } = self.request.order;
        let Scope { user_id, connector, connection, credential } = &self.scope;
        format!("{filter:?} {by:?} {descending} {user_id:?} {connector:?} {connection:?} {credential:?}")
    }

    fn context<'a>(&'a self, question: &'a str) -> [&'a [u8]; 3] {
        [self.tenant.0.as_bytes(), T::LIST.as_bytes(), question.as_bytes()]
    }
}
