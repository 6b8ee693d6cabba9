//! Lists on the wire: a page is found when the reader takes one, and while it is on its way the next is looked for. A reader
//! that stops holds what it has not taken of one page; the one behind it is given up, and found again when it reads on.

mod finding;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use jackfield_domain::{Error, Result, TenantId};
use jackfield_service::{FoundPage, Listable, ListedPage, Pager};
use prost::Message;
use tokio_util::task::TaskTracker;
use tonic::Status;

use self::finding::{Finding, Found};
use super::page_memory::{PageMemory, PageRoom};
use super::status::status;
use crate::config::Streams;
use crate::layers::Flow;
use crate::layers::context::CallContext;
use crate::transport::{Counted, Counter, share};

/// The rules of streams.
#[derive(Clone, Debug)]
pub struct StreamPolicy {
    /// Places for all open streams.
    pub places: Places,
    /// Room for the pages of all of them.
    pub memory: Arc<PageMemory>,
    /// Where the tasks of streams run.
    pub tasks: TaskTracker,
}

/// How many streams there may be: of one caller, of one tenant, in all.
#[derive(Clone, Debug)]
pub struct Places {
    by_identity: Counter<String>,
    by_tenant: Counter<TenantId>,
    total: Counter<()>,
}

/// The place of one stream.
#[derive(Debug)]
struct Place {
    _of_identity: Counted<String>,
    _of_tenant: Counted<TenantId>,
    _of_all: Counted<()>,
}

/// A stream of pages.
pub struct PageStream<T, M> {
    policy: StreamPolicy,
    flow: Arc<Flow>,
    state: State<T>,
    /// The page that the reader is about to get.
    taken: Option<(FoundPage<T>, PageRoom)>,
    render: fn(ListedPage<T>) -> M,
    _place: Place,
}

/// How far a list has come.
enum State<T> {
    /// Nothing is looked for.
    Resting(Box<Pager<T>>),
    Finding(Finding<T>),
    Ended,
}

/// When to come back after too many streams were open.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Places ===

impl Places {
    /// As many as the configuration allows.
    pub fn new(streams: &Streams) -> Self {
        Places {
            by_identity: Counter::new(share(streams.max_open_per_identity, streams.max_open)),
            by_tenant: Counter::new(share(streams.max_open_per_tenant, streams.max_open)),
            total: Counter::new(streams.max_open),
        }
    }

    fn enter(&self, identity: &str, tenant: TenantId) -> Result<Place> {
        // Who takes too much is told so. When it is the server that is full, nobody knows who filled it.
        let too_many = || Error::RateLimited { retry_after: RETRY_AFTER };
        Ok(Place {
            _of_identity: self.by_identity.enter(identity.to_owned()).ok_or_else(too_many)?,
            _of_tenant: self.by_tenant.enter(tenant).ok_or_else(too_many)?,
            _of_all: self.total.enter(()).ok_or(Error::ServerUnavailable { retry_after: RETRY_AFTER })?,
        })
    }
}

// === impl StreamPolicy ===

impl StreamPolicy {
    /// Streams the pages of a list as messages.
    pub(super) fn pages<T, M>(&self, pager: Pager<T>, render: fn(ListedPage<T>) -> M) -> Result<PageStream<T, M>>
    where
        T: Listable + 'static,
        M: Message + 'static,
    {
        let context = CallContext::current();
        let identity = context.as_ref().map(|context| context.principal()).unwrap_or_default();
        let place = self.places.enter(identity, pager.tenant())?;
        let flow = context.map(|context| context.flow.clone()).unwrap_or_default();
        let state = State::Resting(Box::new(pager));
        Ok(PageStream { policy: self.clone(), flow, state, taken: None, render, _place: place })
    }
}

// === impl PageStream ===

impl<T: Listable + Unpin + 'static, M: Message> Stream for PageStream<T, M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((page, room)) = self.taken.take() {
            return Poll::Ready(Some(self.render(page, room)));
        }
        loop {
            if matches!(&self.state, State::Resting(pager) if pager.is_done()) {
                self.state = State::Ended;
            }
            if matches!(self.state, State::Ended) {
                return Poll::Ready(None);
            }
            // For nobody nothing is read: what a reader does not take would lie here.
            ready!(self.flow.poll_open());
            let found = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Resting(pager) => {
                    self.state = State::Finding(Finding::begin(&self.policy, &self.flow, pager));
                    continue;
                }
                State::Finding(mut finding) => match finding.poll(cx) {
                    Poll::Ready(found) => found,
                    Poll::Pending => {
                        self.state = State::Finding(finding);
                        return Poll::Pending;
                    }
                },
            };
            match found {
                Found::Page(pager, page, room) => {
                    self.state = match Finding::begin_ahead(&self.policy, &self.flow, pager) {
                        Ok(finding) => State::Finding(finding),
                        Err(pager) => State::Resting(pager),
                    };
                    self.taken = Some((page, room));
                    // The task of the next page waits behind this one, on the same thread: it is let go first, so that the
                    // database is at work while this page is rendered.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Found::GivenUp(pager) => self.state = State::Resting(pager),
                Found::End => return Poll::Ready(None),
                Found::Failed(error) => return Poll::Ready(Some(Err(status(error)))),
            }
        }
    }
}

impl<T, M: Message> PageStream<T, M> {
    fn render(&self, page: FoundPage<T>, mut room: PageRoom) -> Result<M, Status> {
        let page = (self.render)(page.read());
        room.resize(page.encoded_len());
        // The next one is not rendered before this one has been taken.
        self.flow.close();
        if let Some(context) = CallContext::current() {
            context.hold(room);
        }
        Ok(page)
    }
}
