//! Lists on the wire: a page is found when the reader takes one, and the next one is searched for while that is on its way.
//! A reader that stops holds the rest of one page; the page after it is dropped, and found again when the reader continues.

mod finding;
pub mod policy;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use jackfield_domain::Result;
use jackfield_service::{FoundPage, Listable, ListedPage, Pager};
use prost::Message;
use tonic::Status;

use self::finding::{Finding, Found};
use self::policy::StreamPolicy;
use super::page_memory::PageRoom;
use jackfield_transport::call::context::CallContext;
use jackfield_transport::call::fair_semaphore::Permit;
use jackfield_transport::call::flow::Flow;
use jackfield_transport::call::status::status;

/// A stream of pages.
pub struct PageStream<T, M> {
    policy: StreamPolicy,
    flow: Arc<Flow>,
    state: State<T>,
    /// The page that the reader is about to get.
    taken: Option<(FoundPage<T>, PageRoom)>,
    render: fn(ListedPage<T>) -> M,
    _permit: Permit,
}

/// The progress of a list.
enum State<T> {
    /// No search is under way.
    Resting(Box<Pager<T>>),
    Finding(Finding<T>),
    Ended,
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
        let permit = self.permits.of(Some(identity.to_owned()), pager.tenant()).try_acquire()?;
        let flow = context.map(|context| context.flow.clone()).unwrap_or_default();
        let state = State::Resting(Box::new(pager));
        Ok(PageStream { policy: self.clone(), flow, state, taken: None, render, _permit: permit })
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
            // Nothing is read ahead of the reader: what it does not take would stay in memory.
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
                    // The task of the next page waits behind this one, on the same thread. It runs first, so that the
                    // database works while this page is rendered.
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

impl<T: Listable, M: Message> PageStream<T, M> {
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
